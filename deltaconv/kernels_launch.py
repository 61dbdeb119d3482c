"""What launches the Triton kernels of the ∆ConvBlock's pyramid: stage by stage, on tokens, without a permuted copy.

Shapes as in `kernels`; n small pixels of a stage, T = K K taps.
Needs Triton: import this file inside the function that uses it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deltaconv import kernels_backward, kernels_forward
from deltaconv.gate import Gain
from harness.seats.mixer import Grid

Tensors = list[Tensor]
WARPS = 4
MOST_BANDS = 32
"""Bands of rows of an image whose shares of a weight's gradient are added at the end: many programs, little memory."""
LEAST_BAND = 8  # rows of a band, where there are as many


@dataclass(frozen=True)
class Stage:
    """One scale: the size of its map, its weights, its columns of the buffer, and whether it is added to them."""

    size: Grid
    weight: Tensor
    columns: slice
    added: bool

    @property
    def kernel_size(self) -> int:
        return self.weight.shape[-1]

    def taps(self) -> Tensor:
        """(T, m): the channels of a tap side by side."""
        return self.weight.flatten(1).t().contiguous()


def stages(sizes: list[int], weights: Tensors, joined: bool) -> Iterator[Stage]:
    """The stages of a flat list of sizes, the first of which is the whole grid's."""
    half = len(weights[0]) // 2
    for index, weight in enumerate(weights):
        tall, wide = sizes[2 * index + 2 : 2 * index + 4]
        first = index * half if joined else 0
        yield Stage((tall, wide), weight, slice(first, first + half), added=index > 0 and not joined)


def forward(
    reduced_BNm: Tensor,
    weights: Tensors,
    biases: Tensors,
    sizes: list[int],
    gain: Gain,
    joined: bool,
    buffer_BNj: Tensor,
    kept: Tensors,
) -> None:
    """Fill the buffer and, if there are any, the kept convolutions."""
    whole = (sizes[0], sizes[1])
    for index, stage in enumerate(stages(sizes, weights, joined)):
        out_BNg, bias = buffer_BNj[:, :, stage.columns], biases[index]
        kept_Bnm = kept[index] if kept else None
        if stage.size == whole:
            convolve(reduced_BNm, stage, bias, gain, out_BNg, kept_Bnm, stage.added)
            continue
        small_Bnm = pooled(reduced_BNm, whole, stage.size)
        gated_Bng = small_Bnm.new_empty(*small_Bnm.shape[:2], small_Bnm.shape[2] // 2)
        convolve(small_Bnm, stage, bias, gain, gated_Bng, kept_Bnm, added=False)
        upsampled(gated_Bng, whole, stage.size, out_BNg, stage.added)


def backward(
    grad_BNj: Tensor, reduced_BNm: Tensor, weights: Tensors, kept: Tensors, sizes: list[int], gain: Gain, joined: bool
) -> tuple[Tensor, Tensors, Tensors]:
    """Gradients of the reduced tokens, the depthwise weights and the biases."""
    whole = (sizes[0], sizes[1])
    to_reduced_BNm = torch.empty_like(reduced_BNm)
    to_weights, to_biases = [], []
    for index, stage in enumerate(stages(sizes, weights, joined)):
        to_sums_Bnm = ungated(grad_BNj[:, :, stage.columns], kept[index], whole, stage.size, gain)
        to_biases.append(to_sums_Bnm.sum((0, 1)))
        if stage.size == whole:
            to_weights.append(weighed(to_sums_Bnm, reduced_BNm, stage))
            deconvolve(to_sums_Bnm, stage, to_reduced_BNm, added=index > 0)
            continue
        to_weights.append(weighed(to_sums_Bnm, pooled(reduced_BNm, whole, stage.size), stage))
        to_small_Bnm = torch.empty_like(to_sums_Bnm)
        deconvolve(to_sums_Bnm, stage, to_small_Bnm, added=False)
        unpooled(to_small_Bnm, whole, stage.size, to_reduced_BNm, added=index > 0)
    return to_reduced_BNm, to_weights, to_biases


def convolve(
    map_Bnm: Tensor, stage: Stage, bias: Tensor, gain: Gain, out_Bng: Tensor, kept_Bnm: Tensor | None, added: bool
) -> None:
    """Depthwise convolution and gate."""
    kept = out_Bng if kept_Bnm is None else kept_Bnm
    kernels_forward.depthwise[tiles(stage.size, out_Bng)](
        map_Bnm, stage.taps(), bias, kept, out_Bng, *stage.size, out_Bng.shape[2], out_Bng.stride(1), gain or 0.0,
        K=stage.kernel_size, GATE=gate_of(gain), KEEP=kept_Bnm is not None, ADD=added, FLIP=False,
        **kernels_forward.TILE,
    )  # fmt: skip


def gate_of(gain: Gain) -> str:
    """The kernels' name of a gate: without a gain it is a sigmoid."""
    return "sigmoid" if gain is None else "scaled"


def deconvolve(grad_Bnm: Tensor, stage: Stage, out_Bnm: Tensor, added: bool) -> None:
    """Gradient of the map that was convolved: the same convolution with the kernel turned."""
    taps, channels = stage.taps(), out_Bnm.shape[2]
    kernels_forward.depthwise[tiles(stage.size, out_Bnm)](
        grad_Bnm, taps, taps, out_Bnm, out_Bnm, *stage.size, channels, channels, 0.0,
        K=stage.kernel_size, GATE="plain", KEEP=False, ADD=added, FLIP=True, **kernels_forward.TILE,
    )  # fmt: skip


def tiles(size: Grid, out_BNc: Tensor) -> tuple[int, int, int]:
    """Programs of the depthwise kernel."""
    tile = kernels_forward.TILE
    rows, columns = -(-size[0] // tile["ROWS"]), -(-size[1] // tile["COLUMNS"])
    return rows * columns, -(-out_BNc.shape[2] // tile["CHANNELS"]), len(out_BNc)


def tile_of(channels: int) -> dict[str, int]:
    """The tile of the kernels that move memory: a pixel's channels in one piece of at most 256 bytes in fp32."""
    return {"COLUMNS": 16, "CHANNELS": min(64, 1 << (channels - 1).bit_length()), "num_warps": WARPS}


def programs(size: Grid, channels: int, batch: int) -> tuple[int, int, int]:
    """Programs of those kernels, one row of outputs each."""
    tile = tile_of(channels)
    return size[0] * -(-size[1] // tile["COLUMNS"]), -(-channels // tile["CHANNELS"]), batch


def pooled(map_BNm: Tensor, whole: Grid, size: Grid) -> Tensor:
    """Adaptive average of a map to a smaller size."""
    batch, _, channels = map_BNm.shape
    out_Bnm = map_BNm.new_empty(batch, size[0] * size[1], channels)
    tall, wide = (window(full, few) for full, few in zip(whole, size, strict=True))
    kernels_forward.pool[programs(size, channels, batch)](
        map_BNm, out_Bnm, *whole, *size, channels, TALL=tall, WIDE=wide, **tile_of(channels)
    )
    return out_Bnm


def window(length: int, small_length: int) -> int:
    """The largest window of an adaptive average along an axis: one more where the windows overlap."""
    return -(-length // small_length) + (length % small_length > 0)


def upsampled(gated_Bng: Tensor, whole: Grid, size: Grid, out_BNg: Tensor, added: bool) -> None:
    """Bilinear resize of a gated map to the whole grid, into its columns of the buffer."""
    batch, _, channels = gated_Bng.shape
    kernels_forward.upsample[programs(whole, channels, batch)](
        gated_Bng, out_BNg, *whole, *size, channels, out_BNg.stride(1), ADD=added, **tile_of(channels)
    )


def ungated(grad_BNg: Tensor, kept_Bnm: Tensor, whole: Grid, size: Grid, gain: Gain) -> Tensor:
    """Gradient of a stage's convolution, through gate and resize."""
    batch, _, channels = grad_BNg.shape
    out_Bnm = torch.empty_like(kept_Bnm)
    tall, wide = (1, 1) if size == whole else (spread(full, few) for full, few in zip(whole, size, strict=True))
    kernels_backward.gate[programs(size, channels, batch)](
        grad_BNg, kept_Bnm, out_Bnm, *whole, *size, channels, grad_BNg.stride(1), gain or 0.0,
        GATE=gate_of(gain), TALL=tall, WIDE=wide, **tile_of(channels),
    )  # fmt: skip
    return out_Bnm


def spread(length: int, small_length: int) -> int:
    """At most so many pixels along an axis hold a share of one small pixel: those less than one small pixel away."""
    return -(-(4 * length + small_length) // (2 * small_length))


def unpooled(grad_Bnm: Tensor, whole: Grid, size: Grid, out_BNm: Tensor, added: bool) -> None:
    """Gradient of the adaptive average."""
    batch, _, channels = out_BNm.shape
    kernels_backward.unpool[programs(whole, channels, batch)](
        grad_Bnm, out_BNm, *whole, *size, channels, ADD=added, **tile_of(channels)
    )


def weighed(grad_Bnm: Tensor, map_Bnm: Tensor, stage: Stage) -> Tensor:
    """Gradient of the depthwise weights: bands of rows first, then their sum, always in the same order."""
    (batch, _, channels), height, kernel_size = map_Bnm.shape, stage.size[0], stage.kernel_size
    band = -(-height // min(max(height // LEAST_BAND, 1), MOST_BANDS))
    images = batch * -(-height // band)
    shares_Sm1KK = map_Bnm.new_empty(images, *stage.weight.shape, dtype=torch.float32)
    kernels_backward.weigh[kernel_size, -(-channels // 32), images](
        grad_Bnm, map_Bnm, shares_Sm1KK, *stage.size, channels, band,
        K=kernel_size, TAPS=1 << (kernel_size - 1).bit_length(), COLUMNS=kernels_backward.ACROSS, CHANNELS=32,
        num_warps=WARPS,
    )  # fmt: skip
    return shares_Sm1KK.sum(0).to(stage.weight.dtype)
