"""The ∆ConvBlock of ΔConvFusion (arXiv 2504.21292): a pyramid of gated depthwise convolutions beside a global mean.

Released form (the authors' code), for tokens x that the host block has already normalised, m = C / 2, n scales:

    u = W_up x + b                                              conv_up: C -> m
    g_s = Up( gate( depthwise K x K ( Down_s(u) ) ) )           gates.i.conv_spatial, own weights for each scale
    y = W_out [g_1; ...; g_n] + b  +  W_pool mean(x) + b        conv_out: n m/2 -> C, conv_pool: C -> C

Down_s averages to (int(H s), int(W s)), Up is bilinear back to (H, W), and gate(a, b) = a b sqrt(m/2) for the U-Nets
("scaled"), a sigmoid(b) for PixArt ("sigmoid").

Paper form (its equations): a LayerNorm inside, m = C / (2 n), a sum over the stages instead of the concatenation, and
gate(a, b) = a b / sqrt(m), where m is the width of the gate's input. Its scales are 1/2, 1/4, ...: give them as
`scales`. No weights pass from one form to the other.
Shapes: B batch, N tokens, C channels, H x W grid, m reduced width.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from deltaconv import imitation, kernels, published
from deltaconv.gate import GatedConvolution
from deltaconv.kernels import Backend
from harness.seats.mixer import (
    BadInput,
    Grid,
    Site,
    TokenMixer,
    Unavailable,
    as_map,
    device_of,
    layouts_said,
    padding_said,
)

Gate = Literal["scaled", "sigmoid"]
Form = Literal["released", "paper"]


class DeltaConvBlock(TokenMixer):
    """A pyramid of gated depthwise convolutions plus a mapped global mean.

    For ablations: one scale is `scales=(1.0,)`, no pyramid `scales=()`, no pooling branch `pooling=False`.
    backend: `torch` operators, fused `triton` kernels, or `auto`, the kernels wherever `kernels.fused` lets them.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 13,
        scales: Sequence[float | str] = (1.0, 0.5),
        gate: Gate = "scaled",
        form: Form = "released",
        pooling: bool = True,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.scales = tuple(number(scale) for scale in scales)
        check_settings(kernel_size, self.scales, gate, form, pooling)
        kernels.check_backend(backend)
        self.backend = backend
        self.channels = channels
        self.kernel_size = kernel_size
        self.form = form
        self.norm = nn.LayerNorm(channels) if form == "paper" else None
        self.gates = nn.ModuleList()
        self.conv_up = self.conv_out = self.conv_pool = None
        if self.scales:
            width = reduced_width(channels, len(self.scales), form)
            gain = (width / 2) ** 0.5 if form == "released" else width**-0.5
            stage_gain = gain if gate == "scaled" else None
            joined = width // 2 * (len(self.scales) if form == "released" else 1)
            self.conv_up = nn.Linear(channels, width)
            self.gates.extend(GatedConvolution(width, kernel_size, stage_gain) for _ in self.scales)
            self.conv_out = nn.Linear(joined, channels)
        if pooling:
            self.conv_pool = nn.Linear(channels, channels)

    @classmethod
    def for_site(
        cls,
        site: Site,
        attention: nn.Module,
        kernel_size: int | Mapping[str, int] = 13,
        scales: Sequence[float | str] = (1.0, 0.5),
        gate: Gate = "scaled",
        form: Form = "released",
        pooling: bool = True,
        backend: Backend = "auto",
    ) -> "DeltaConvBlock":
        """`kernel_size` may map path patterns to sizes. A scale is a number, or a fraction such as `1/3`."""
        with device_of(attention):
            return cls(site.channels, site.pick(kernel_size, "kernel_size"), scales, gate, form, pooling, backend)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """As `definition`; the closing map of a reduced scale comes before its resize, with which it commutes."""
        as_map(tokens_BNC, grid)
        if self.norm is not None:
            tokens_BNC = self.norm(tokens_BNC)
        mixed_BNC = self.flat(tokens_BNC)
        if self.conv_up is None or self.conv_out is None:
            return mixed_BNC.expand_as(tokens_BNC)
        reduced_BNm = self.conv_up(tokens_BNC)
        if kernels.fused(self.backend, reduced_BNm, self.kernel_size):
            joined_BNj, gain = self.joined(reduced_BNm, grid)
            return add_product(mixed_BNC, joined_BNj, self.conv_out.weight.t(), gain)
        map_BmHW = as_map(reduced_BNm, grid).permute(0, 3, 1, 2)
        for scale, stage, weight_gC in sorted(self.stages(), key=lambda each: each[0]):
            size = scaled(grid, scale)
            gated = stage(map_BmHW if scale == 1 else adaptive_avg_pool2d(map_BmHW, size))
            gated_Bng, gain = gated.permute(0, 2, 3, 1).flatten(1, 2), stage.open_gain(gated.dtype)
            if scale == 1:
                mixed_BNC = add_product(mixed_BNC, gated_Bng, weight_gC, gain)
            elif mixed_BNC.shape[1] == 1:
                mixed_BNC = resized(add_product(mixed_BNC, gated_Bng, weight_gC, gain), size, grid)
            else:
                nothing_111 = mixed_BNC.new_zeros(1, 1, 1)
                mixed_BNC = mixed_BNC + resized(add_product(nothing_111, gated_Bng, weight_gC, gain), size, grid)
        return mixed_BNC

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """The formula of the module's docstring, step by step."""
        as_map(tokens_BNC, grid)
        if self.norm is not None:
            tokens_BNC = self.norm(tokens_BNC)
        mixed_BNC = torch.zeros_like(tokens_BNC)
        if self.conv_up is not None and self.conv_out is not None:
            map_BmHW = as_map(self.conv_up(tokens_BNC), grid).permute(0, 3, 1, 2)
            gated = []
            for scale, stage, _ in self.stages():
                small = map_BmHW if scale == 1 else adaptive_avg_pool2d(map_BmHW, scaled(grid, scale))
                small = stage.gate(stage.conv_spatial(small), stage.gain)
                gated.append(small if scale == 1 else interpolate(small, size=grid, mode="bilinear"))
            joined = torch.cat(gated, dim=1) if self.form == "released" else torch.stack(gated).sum(dim=0)
            mixed_BNC = mixed_BNC + self.conv_out(joined.flatten(2).transpose(1, 2))
        if self.conv_pool is not None:
            mixed_BNC = mixed_BNC + self.conv_pool(tokens_BNC.mean(dim=1, keepdim=True))
        return mixed_BNC

    def flat(self, tokens_BNC: Tensor) -> Tensor:
        """(B, 1, C): what every token of an image receives, the pooling branch and the closing bias."""
        if self.conv_pool is None:
            flat_B1C = tokens_BNC.new_zeros(tokens_BNC.shape[0], 1, self.channels)
        else:
            flat_B1C = self.conv_pool(tokens_BNC.mean(dim=1, keepdim=True))
        return flat_B1C if self.conv_out is None else flat_B1C + self.conv_out.bias

    def joined(self, reduced_BNm: Tensor, grid: Grid) -> tuple[Tensor, float]:
        """(B, N, j): what the closing map reads, by the fused kernels, and the factor that is still missing from it."""
        stages = [cast(GatedConvolution, stage) for stage in self.gates]
        convolutions = [stage.conv_spatial for stage in stages]
        weights, biases = [each.weight for each in convolutions], [cast(Tensor, each.bias) for each in convolutions]
        sizes = [scaled(grid, scale) for scale in self.scales]
        kept, side_by_side = stages[0].kept_gain(reduced_BNm.dtype), self.form == "released"
        joined_BNj = kernels.pyramid(reduced_BNm, weights, biases, grid, sizes, kept, side_by_side)
        return joined_BNj, stages[0].open_gain(reduced_BNm.dtype)

    def stages(self) -> Iterator[tuple[float, GatedConvolution, Tensor]]:
        """Scale, convolution and share of the closing map (its transpose) of each stage."""
        if self.conv_out is None:
            return
        weight_jC = self.conv_out.weight.t()
        shares = weight_jC.chunk(len(self.scales)) if self.form == "released" else [weight_jC] * len(self.scales)
        for scale, stage, share_gC in zip(self.scales, self.gates, shares, strict=True):
            yield scale, cast(GatedConvolution, stage), share_gC

    def flops(self, grid: Grid) -> int:
        """Maps in and out, a K x K window (with its zero padding) a channel at each scale, the pooled token's map."""
        tokens = grid[0] * grid[1]
        total = 0
        if self.conv_up is not None and self.conv_out is not None:
            total += 2 * tokens * self.channels * (self.conv_up.out_features + self.conv_out.in_features)
            for scale in self.scales:
                height, width = scaled(grid, scale)
                total += 2 * height * width * self.conv_up.out_features * self.kernel_size**2
        if self.conv_pool is not None:
            total += 2 * self.channels**2
        return total

    def imitate(self, attention: nn.Module, calls: Sequence[tuple[Tensor, Grid]]) -> None:
        imitation.imitate(self, attention, calls)

    def closing_maps(self) -> list[nn.Linear]:
        return [layer for layer in (self.conv_out, self.conv_pool) if layer is not None]

    @classmethod
    def locate(cls, name: str, config: Mapping[str, Any]) -> tuple[str, str] | None:
        """As published (`... .conv1.conv_up.weight`), or as in a student of ours (`... .attn1.conv_up.weight`)."""
        return published.locate(name) or super().locate(name, config)

    @classmethod
    def settings_of(cls, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        return published.settings_of(states)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        published.load_published(self, state)

    def note(self, grid: Grid) -> str:
        """Which of the forms this is, where the kernel is larger than the map, and what computes it in which layout."""
        sizes = [scaled(grid, scale) for scale in self.scales]
        said = [f"{self.form} form", padding_said(self.kernel_size, sizes)]
        if self.conv_up is not None and (self.backend != "auto" or device_of(self).type != "cpu"):
            said.append(kernels.rule(self.backend, self.conv_up.weight.dtype, self.kernel_size))
        if self.scales:
            said.append(layouts_said(cast(GatedConvolution, self.gates[0]).conv_spatial, sizes))
        return "; ".join(filter(None, said))


def add_product(base_BnC: Tensor, rows_Bng: Tensor, weight_gC: Tensor, gain: float) -> Tensor:
    """base + gain (rows @ weight) in one pass, the base broadcast; the sums are scaled before they are rounded.

    A base of full size and the same dtype is overwritten where nothing records gradients: hand over one to spare.
    """
    batch, rows, _ = rows_Bng.shape
    whole, weight_BgC = (batch, rows, weight_gC.shape[1]), weight_gC.expand(batch, *weight_gC.shape)
    spare = base_BnC.shape == whole and base_BnC.dtype == rows_Bng.dtype == weight_gC.dtype
    if spare and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return torch.baddbmm(base_BnC, rows_Bng, weight_BgC, alpha=gain, out=base_BnC)
    return torch.baddbmm(base_BnC.expand(whole), rows_Bng, weight_BgC, alpha=gain)


def resized(tokens_BnC: Tensor, size: Grid, grid: Grid) -> Tensor:
    """Bilinear resize of a small map's tokens to the whole grid, channels-last throughout."""
    map_BChw = as_map(tokens_BnC, size).permute(0, 3, 1, 2)
    return interpolate(map_BChw, size=grid, mode="bilinear").permute(0, 2, 3, 1).flatten(1, 2)


def number(scale: float | str) -> float:
    """A scale as a number; BadInput for what is none."""
    try:
        return float(Fraction(scale)) if isinstance(scale, str) else float(scale)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"scale {scale!r} is no number: give numbers such as 1.0, 0.5 or 1/3") from error


def scaled(grid: Grid, scale: float) -> Grid:
    """Size of the map at a scale, floored as published; Unavailable where nothing is left of it."""
    height, width = int(grid[0] * scale), int(grid[1] * scale)
    if not height or not width:
        raise Unavailable(
            f"scale {scale:g} empties a map of {grid[0]} x {grid[1]} tokens: choose larger scales or a larger image"
        )
    return height, width


def reduced_width(channels: int, stages: int, form: Form) -> int:
    """m: half the channels as released, C / (2 n) in the paper; it must be even, because the gate halves it."""
    divisor = 2 if form == "released" else 2 * stages
    if channels < 1 or channels % (2 * divisor):
        raise BadInput(
            f"a {form} ∆ConvBlock of {stages} scales cannot have {channels} channels: give a multiple of {2 * divisor}"
        )
    return channels // divisor


def check_settings(kernel_size: int, scales: Sequence[float], gate: str, form: str, pooling: bool) -> None:
    """BadInput in one sentence for settings that make no block."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise BadInput(
            f"kernel_size is {kernel_size}, but the kernel needs a centre: give an odd number such as 7 or 13"
        )
    wrong = [scale for scale in scales if not 0 < scale <= 1]
    if wrong:
        raise BadInput(
            f"scale {wrong[0]:g} is not a reduction: give numbers above 0 and at most 1, such as 1.0 and 0.5"
        )
    if gate not in ("scaled", "sigmoid"):
        raise BadInput(f"gate {gate!r} is unknown: choose scaled or sigmoid")
    if form not in ("released", "paper"):
        raise BadInput(f"form {form!r} is unknown: choose released or paper")
    if not scales and not pooling:
        raise BadInput("no scales and no pooling leave nothing of a ∆ConvBlock: keep one of the two")
