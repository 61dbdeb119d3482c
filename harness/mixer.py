"""The socket that every replacement of self-attention plugs into: tokens in, tokens out, same shape.

Shapes: B batch, N = height * width tokens in row-major order, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

Setting = TypeVar("Setting", int, float)

Grid = tuple[int, int]
"""(height, width) of the tokens at a site; always handed over, never guessed by a square root."""


class Unavailable(RuntimeError):
    """What was asked for cannot run here; the sentence names the remedy."""


@dataclass(frozen=True)
class Site:
    """One self-attention layer of a denoiser: where it is and how wide it is."""

    path: str
    channels: int
    heads: int

    def pick(self, setting: Setting | Mapping[str, Setting], name: str) -> Setting:
        """The value of a setting at this site: one number for all sites, or the first pattern that fits the path.

        A pattern is a prefix of the path (`down_blocks.0`, at a dot) or a shell pattern (`*` for the rest).
        """
        if not isinstance(setting, Mapping):
            return setting
        for pattern, value in setting.items():
            if self.path == pattern or self.path.startswith(f"{pattern}.") or fnmatchcase(self.path, pattern):
                return value
        known = ", ".join(map(str, setting))
        raise ValueError(
            f"{name} says nothing about site {self.path}: its patterns are {known}; add one, or '*' for the rest"
        )


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


class TokenMixer(nn.Module):
    """A module that stands in for one site. Subclasses write `forward` and `flops`.

    exact: with the teacher's weights it is the teacher's own attention, and has nothing to learn.
    """

    exact: ClassVar[bool] = False

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """Mixed tokens, shaped like the input."""
        raise NotImplementedError(f"{type(self).__name__} has no forward: a mixer writes its own")

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """The formula in plain torch, which `forward` must equal; the same thing unless there is a fast path."""
        return self.forward(tokens_BNC, grid)

    def flops(self, grid: Grid) -> int:
        """Price of one image, batch 1: 2 per multiply-add; matrix products and convolutions only."""
        raise NotImplementedError(f"{type(self).__name__} has no price: a mixer writes its own flops")

    def note(self, grid: Grid) -> str:
        """What the record must say about this mixer on this grid (a clamped kernel, a backend); empty if nothing."""
        return ""
