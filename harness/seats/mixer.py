"""The socket that every replacement of self-attention plugs into: tokens in, tokens out, same shape.

Shapes: B batch, N = height * width tokens in row-major order, C channels.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from harness.records.case import BadInput as BadInput
from harness.seats.processor import depthwise as depthwise
from harness.seats.processor import layouts_said as layouts_said

Setting = TypeVar("Setting", int, float, str)

Grid = tuple[int, int]  # (height, width) of the tokens at a site; always handed over, never guessed by a square root
WEIGHT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Unavailable(RuntimeError):
    """What was asked for cannot run here; the sentence names the remedy."""


@dataclass(frozen=True)
class Site:
    """One self-attention layer of a denoiser: where it is and how wide it is. among: paths of all, where known."""

    path: str
    channels: int
    heads: int
    among: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def pick(self, setting: Setting | Mapping[str, Setting], name: str) -> Setting:
        """The value of a setting at this site: one value for all sites, or that of the first pattern that fits.

        Patterns as in `fits`. BadInput for one that fits no site at all, and for a site that none fits.
        """
        if not isinstance(setting, Mapping):
            return setting
        for pattern in setting:
            if self.among and not any(fits(path, pattern) for path in self.among):
                raise BadInput(
                    f"{name} has the pattern {pattern!r}, which fits no site of this model: "
                    f"its {len(self.among)} sites run from {self.among[0]} to {self.among[-1]}"
                )
        for pattern, value in setting.items():
            if fits(self.path, pattern):
                return value
        known = ", ".join(map(str, setting))
        raise BadInput(
            f"{name} says nothing about site {self.path}: its patterns are {known}; add one, or '*' for the rest"
        )


def fits(path: str, pattern: str) -> bool:
    """Whether a path begins with the pattern (`down_blocks.0`, at a dot) or matches it as in a shell; `|` means or."""
    return any(path == part or path.startswith(f"{part}.") or fnmatchcase(path, part) for part in pattern.split("|"))


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters lie (meta included), so that its replacement is made there."""
    parameter = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def as_map(tokens_BNC: Tensor, grid: Grid) -> Tensor:
    """The tokens as a map (B, height, width, C), without a copy; ValueError where they do not fill the grid."""
    height, width = grid
    if height * width != tokens_BNC.shape[1]:
        raise ValueError(
            f"{tokens_BNC.shape[1]} tokens do not fill a grid of {height} x {width} = {height * width}: hand over "
            "the grid (height, width) of these tokens"
        )
    return tokens_BNC.view(tokens_BNC.shape[0], height, width, tokens_BNC.shape[2])


def padding_said(kernel_size: int, sizes: Iterable[Grid]) -> str:
    """What the record says of a zero-padded kernel that is larger than a map; empty if it is for none."""
    small = [size for size in dict.fromkeys(sizes) if min(size) < kernel_size]
    if not small:
        return ""
    maps = ", ".join(f"{height}x{width}" for height, width in small)
    said = f"kernel {kernel_size} larger than the map ({maps}), the rest is zero padding"
    height, width = (2 * max(size[axis] for size in small) - 1 for axis in (0, 1))
    if min(height, width) < kernel_size:
        met = min(height, kernel_size) * min(width, kernel_size)
        said += f": {met} of its {kernel_size**2} weights meet a token on the largest of them, the others never do"
    return said


class TokenMixer(nn.Module):
    """A module that stands in for one site. Subclasses write `forward` and `flops`.

    exact: with the teacher's weights it is the teacher's own attention, and has nothing to learn.
    training_free: with the teacher's weights it is of use as it is, though training may better it.
    """

    exact: ClassVar[bool] = False
    training_free: ClassVar[bool] = False

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """Mixed tokens, shaped like the input."""
        raise NotImplementedError(f"{type(self).__name__} has no forward: a mixer writes its own")

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """The formula in plain torch, which `forward` must equal; the same thing unless there is a fast path."""
        return self.forward(tokens_BNC, grid)

    def flops(self, grid: Grid) -> int:
        """Price of one image, batch 1: 2 per multiply-add; matrix products and convolutions only."""
        raise NotImplementedError(f"{type(self).__name__} has no price: a mixer writes its own flops")

    def imitate(self, attention: nn.Module, calls: Sequence[tuple[Tensor, Grid]]) -> None:
        """Begin as what the attention does on average over calls (tokens, grid); here, as it was made."""

    def closing_maps(self) -> list[nn.Linear]:
        """Linear maps whose results in `definition` add up to the mixer's: least squares can say where they begin."""
        return []

    def note(self, grid: Grid) -> str:
        """What the record must say about this mixer on this grid (a clamped kernel, a backend); empty if nothing."""
        return ""

    @classmethod
    def locate(cls, name: str, config: Mapping[str, Any]) -> tuple[str, str] | None:
        """Site path and parameter of one tensor in a file of weights; None where it belongs to no site.

        Here by the names of our own students, and by the published ones where a mixer has such. config: the config.json
        beside the file, or nothing.
        """
        path, mark, parameter = name.partition(".attn1.")
        return (f"{path}.attn1", parameter) if mark else None

    @classmethod
    def settings_of(cls, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """Keywords of `for_site` that published weights of all sites imply by their shapes."""
        return {}

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite the parameters by those of one site of a file of weights; BadInput names what does not fit."""
        self.load_state_dict(fitted(self.state_dict(), state, type(self).__name__))


def fitted(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], kind: str, optional: Container[str] = (), hint: str = ""
) -> dict[str, Tensor]:
    """One site's weights under all of its own names; an optional one that is absent is zero. BadInput for a misfit."""
    missing = sorted(name for name in own.keys() - state.keys() if name not in optional)
    if missing:
        raise BadInput(f"the {kind} weights lack {', '.join(missing)}: give all of one site, without a prefix")
    hint = hint or "its settings"
    left_over = sorted(state.keys() - own.keys())
    if left_over:
        raise BadInput(f"the {kind} weights hold {', '.join(left_over)}, unknown to this mixer: check {hint}")
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise BadInput(
                f"{name} of the {kind} weights is {tuple(value.shape)}, not {tuple(own[name].shape)}: they are for "
                f"another site, or {hint} differ"
            )
        if value.dtype not in WEIGHT_DTYPES:
            said = str(value.dtype).removeprefix("torch.")
            raise BadInput(f"{name} of the {kind} weights is {said}, quantised: give weights in fp32, fp16 or bf16")
        if not value.is_meta and not value.isfinite().all():
            raise BadInput(f"{name} of the {kind} weights is not finite: fetch or train them again")
    return {name: state[name] if name in state else torch.zeros_like(value) for name, value in own.items()}
