"""Initial weights of a ∆ConvBlock that imitate what the attention in its place does on average.

- Kernels: a head's attention, averaged over queries and images by the offset of the key, minus its mean outside of the
  kernel's window, which is left to the pooling branch.
- Channels: the directions of W_o W_v x that explain most of the output, over all heads, each convolved with the kernel
  of its head.
- Gates: open, and nearly constant. Closing maps: zero, until least squares finds them.

Shapes: B batch, N tokens, C channels, h heads, d = C / h, m reduced width, g = m / 2 gated channels, K kernel.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, pad

from deltaconv.gate import GatedConvolution
from harness.seats.mixer import Grid, as_map

IMAGES = 16  # at most so many images of a call have their maps averaged
OPEN = 2.0  # where the sigmoid of an open gate begins: 0.88
SPREAD = 0.02  # standard deviation of the gating half of the kernels


class Direction(NamedTuple):
    """One channel: what it reads (C,), the head whose kernel moves it, and how much of the output it explains."""

    read_C: Tensor
    head: int
    strength: float


@torch.no_grad()
def imitate(block: Any, attention: nn.Module, calls: Sequence[tuple[Tensor, Grid]]) -> None:
    """Set the reduction and the kernels of a ∆ConvBlock."""
    if block.conv_up is None:
        return
    width, gated = block.conv_up.out_features, block.conv_up.out_features // 2
    kernels = {scale: kernels_of(attention, calls, block.kernel_size, scale) for scale in block.scales}
    kernel_norm_h = torch.stack([kernels_hKK.flatten(1).norm(dim=1) for kernels_hKK in kernels.values()]).amax(0)
    tokens = torch.cat([tokens_BNC.flatten(0, 1) for tokens_BNC, _ in calls])
    if block.norm is not None:
        tokens = block.norm(tokens)
    chosen = directions(attention, tokens, kernel_norm_h)[:gated]
    heads = torch.tensor([direction.head for direction in chosen], device=tokens.device)
    read_gC = torch.stack([direction.read_C for direction in chosen])
    block.conv_up.weight[:width] = read_gC.repeat(2, 1)
    for layer in block.closing_maps():
        layer.weight.zero_()
    block.conv_up.bias[:gated] = 0
    block.conv_up.bias[gated:] = -(read_gC @ tokens.mean(0))
    for scale, stage in zip(block.scales, block.gates, strict=True):
        kernel_gKK = kernels[scale][heads]
        _open(cast(GatedConvolution, stage), kernel_gKK / kernel_gKK.flatten(1).norm(dim=1)[:, None, None].clamp(1e-6))


def kernels_of(attention: nn.Module, calls: Sequence[tuple[Tensor, Grid]], size: int, scale: float) -> Tensor:
    """(h, K, K): each head's mean attention by offset on a grid of that scale, less the mean outside of the kernel."""
    total: Tensor | float = 0.0
    for tokens_BNC, (height, width) in calls:
        mean_hHW = attention_by_offset(attention, tokens_BNC[:IMAGES], (height, width))
        if scale != 1:
            small = (max(1, int(mean_hHW.shape[1] * scale)) | 1, max(1, int(mean_hHW.shape[2] * scale)) | 1)
            mean_hHW = adaptive_avg_pool2d(mean_hHW[None], small)[0] / scale**2
        inside_hKK = centred(mean_hHW, size)
        places = mean_hHW[0].numel() - size**2
        rest_h = (mean_hHW.sum((1, 2)) - inside_hKK.sum((1, 2))) / places if places > 0 else mean_hHW.new_zeros(1)
        total = total + inside_hKK - rest_h[:, None, None]
    return cast(Tensor, total) / len(calls)


def attention_by_offset(attention: Any, tokens_BNC: Tensor, grid: Grid) -> Tensor:
    """(h, 2H - 1, 2W - 1): mean attention of a query to the key at each offset, over queries that have one there."""
    as_map(tokens_BNC, grid)
    height, width = grid
    sides = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = (part.flatten() for part in sides)
    down_NN, right_NN = rows[None] - rows[:, None] + height - 1, columns[None] - columns[:, None] + width - 1
    place = (down_NN * (2 * width - 1) + right_NN).flatten().to(tokens_BNC.device)
    places = (2 * height - 1) * (2 * width - 1)
    count = tokens_BNC.new_zeros(places).index_add_(0, place, torch.ones_like(place, dtype=tokens_BNC.dtype))
    heads = attention.heads
    total_hP = tokens_BNC.new_zeros(heads, places)
    for tokens_NC in tokens_BNC:
        query_hNd, key_hNd = (
            each(tokens_NC).unflatten(-1, (heads, -1)).transpose(0, 1) for each in (attention.to_q, attention.to_k)
        )
        for head in range(heads):
            map_NN = torch.softmax(query_hNd[head] @ key_hNd[head].T * attention.scale, dim=-1)
            total_hP[head].index_add_(0, place, map_NN.flatten())
    return (total_hP / (count * len(tokens_BNC))).view(heads, 2 * height - 1, 2 * width - 1)


def centred(map_hHW: Tensor, size: int) -> Tensor:
    """The middle `size` x `size` of maps with odd sides; zeros where the kernel reaches beyond them."""
    height, width = map_hHW.shape[1:]
    margins = [(size - side) // 2 for side in (width, width, height, height)]
    return pad(map_hHW, margins)


def directions(attention: Any, tokens_nC: Tensor, kernel_norm_h: Tensor) -> list[Direction]:
    """What heads carry, the most explaining first: singular directions of W_o W_v on tokens of this covariance."""
    channels = tokens_nC.shape[1]
    centred_nC = tokens_nC - tokens_nC.mean(0)
    covariance_CC = centred_nC.T @ centred_nC / len(centred_nC)
    jitter = 1e-4 * covariance_CC.diagonal().mean() * torch.eye(channels, device=tokens_nC.device)
    root_CC = torch.linalg.cholesky(covariance_CC + jitter)
    values, closing = attention.to_v.weight, attention.to_out[0].weight
    found = []
    for head in range(attention.heads):
        rows = slice(head * channels // attention.heads, (head + 1) * channels // attention.heads)
        _, strength_C, right_CC = torch.linalg.svd(closing[:, rows] @ values[rows] @ root_CC)
        read_CC = torch.linalg.solve(root_CC.T, right_CC.T).T
        strengths = (strength_C * kernel_norm_h[head]).tolist()
        inner = channels // attention.heads
        found += [Direction(read_CC[index], head, strengths[index]) for index in range(inner)]
    return sorted(found, key=lambda direction: -direction.strength)


def _open(stage: GatedConvolution, kernel_gKK: Tensor) -> None:
    """The first half of the channels moves by these kernels, the second half holds the gate open."""
    convolution, gated = stage.conv_spatial, len(kernel_gKK)
    bias = cast(Tensor, convolution.bias)
    convolution.weight[:gated, 0] = kernel_gKK
    convolution.weight[gated:].normal_(0, SPREAD)
    bias[:gated] = 0
    bias[gated:] = OPEN if stage.gain is None else 1 / stage.gain
