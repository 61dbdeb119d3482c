"""What every mixer made of queries, keys and values shares: four C x C maps, their heads, and the teacher's weights.

The parameters carry diffusers' names (`to_q`, `to_k`, `to_v`, `to_out.0`), so that a teacher's attention and the
published checkpoints load by name. Shapes: B batch, N tokens, C channels, h heads, d = C / h.
"""

from collections.abc import Callable
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from harness.seats.mixer import BadInput, Grid, Site, TokenMixer, as_map, device_of

UNREAD = ("norm_q", "norm_k", "group_norm", "spatial_norm")
"""Parts of a diffusers attention that these mixers would have to ignore."""


Mixer = TypeVar("Mixer", bound="ProjectedMixer")


class ProjectedMixer(TokenMixer):
    """Queries, keys and values by linear maps, heads side by side, one linear map out (always with its bias)."""

    def __init__(self, channels: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        if heads < 1 or channels < 1 or channels % heads:
            raise BadInput(f"{heads} heads do not divide {channels} channels: choose a divisor of {channels}")
        self.channels = channels
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(channels, channels, bias=bias)
        self.to_v = nn.Linear(channels, channels, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def inherit(self, attention: nn.Module) -> Self:
        """Copy the teacher's projections, biases included; ValueError if they do not fit or something would be lost."""
        check(attention, self.channels)
        teachers = attention.state_dict()
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith(("to_q.", "to_k.", "to_v.", "to_out.")):
                    parameter.copy_(teachers.get(name, torch.zeros_like(parameter)))
        return self

    def projected(self, tokens_BNC: Tensor, grid: Grid | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, h, N, d); ValueError where the tokens do not fill a grid that is given."""
        if grid is not None:
            as_map(tokens_BNC, grid)
        q, k, v = (self.split(project(tokens_BNC)) for project in (self.to_q, self.to_k, self.to_v))
        return q, k, v

    def split(self, tokens_BNC: Tensor) -> Tensor:
        """(B, N, C) -> (B, h, N, d), a view."""
        batch, tokens, channels = tokens_BNC.shape
        return tokens_BNC.view(batch, tokens, self.heads, channels // self.heads).transpose(1, 2)

    def merge(self, heads_BhNd: Tensor) -> Tensor:
        """(B, h, N, d) -> the closing map of (B, N, C)."""
        merged: Tensor = self.to_out[0](heads_BhNd.transpose(1, 2).flatten(2))
        return merged

    def closing_maps(self) -> list[nn.Linear]:
        closing = self.to_out[0]
        assert isinstance(closing, nn.Linear)
        return [closing]

    def projection_flops(self, grid: Grid) -> int:
        """Four C x C maps: 8 N C^2."""
        return 8 * grid[0] * grid[1] * self.channels**2


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v written out, over the last two dimensions: the definition behind the fused kernels."""
    weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    return weights @ v


def has_bias(attention: nn.Module) -> bool:
    """Whether the teacher's q, k and v carry biases (PixArt: yes; Stable Diffusion: no)."""
    return any(getattr(getattr(attention, name, None), "bias", None) is not None for name in ("to_q", "to_k", "to_v"))


def from_teacher(make: Callable[[bool], Mixer], site: Site, attention: nn.Module, inherit: bool = True) -> Mixer:
    """A mixer on the teacher's device, with its weights if it is to inherit them.

    make: is told whether queries, keys and values have biases. ValueError names a site without projections to inherit.
    """
    try:
        check(attention, site.channels)
    except ValueError as error:
        raise ValueError(f"site {site.path}: {error}") from error
    with device_of(attention):
        mixer = make(has_bias(attention))
    return mixer.inherit(attention) if inherit else mixer


def check(attention: nn.Module, channels: int) -> None:
    """ValueError where a layer is not a plain self-attention of this width."""
    for name in ("to_q", "to_k", "to_v"):
        layer = getattr(attention, name, None)
        if not isinstance(layer, nn.Linear):
            raise ValueError(
                f"{type(attention).__name__} has no linear {name}, which is needed to take over its weights"
            )
        if tuple(layer.weight.shape) != (channels, channels):
            shape = " x ".join(map(str, layer.weight.shape))
            raise ValueError(
                f"{name} of the attention is {shape}, not {channels} x {channels}: only such maps can be inherited"
            )
    present = [name for name in UNREAD if getattr(attention, name, None) is not None]
    if present:
        raise ValueError(
            f"the attention has {', '.join(present)}, which would be ignored: only plain layers can be replaced"
        )
