"""LinFusion's generalised linear attention (arXiv 2409.02097), as published, normalised by means over the tokens.

    q = elu(W_q (x + M_q(x))) + 1,   k = elu(W_k (x + M_k(x))) + 1,   v = W_v x
    y_i = W_o (q_i sum_j k_j v_j^T / N) / (q_i . mean_j k_j + 1e-4) + b_o

M is Linear, LayerNorm, LeakyReLU, Linear through `mid_channels`: None is the width C (SD1.5), C // 16 is SDXL's, and
-1 the identity, so that the map then sees 2x, as in the published code. No 1/sqrt(d), and the cost is linear in N. The
parameters carry the published names. Shapes: B batch, N tokens, C channels, h heads, d = C / h.

Published files (`Yuanshi/LinFusion-1-5`, `Yuanshi/LinFusion-XL`) number their modules, `0.to_q.weight`, and the
config.json beside them says in `modules_list` which site each number stands for.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import elu

from baselines.projections import ProjectedMixer, from_teacher
from harness.seats.mixer import BadInput, Grid, Site, as_map, fitted

EPSILON = 1e-4
NUMBERED = re.compile(r"(\d+)\.(.+)")


class LinFusionAttention(ProjectedMixer):
    """Linear attention whose queries and keys see the token through a small perceptron."""

    def __init__(self, channels: int, heads: int, mid_channels: int | None = None, bias: bool = False) -> None:
        super().__init__(channels, heads, bias)
        if mid_channels is not None and mid_channels < 1 and mid_channels != -1:
            raise BadInput(f"mid_channels is {mid_channels}: give a width of at least 1, null for C, or -1 for none")
        self.mid_channels = channels if mid_channels is None else mid_channels
        self.to_q_ = perceptron(channels, self.mid_channels)
        self.to_k_ = perceptron(channels, self.mid_channels)

    @classmethod
    def for_site(
        cls,
        site: Site,
        attention: nn.Module,
        mid_channels: int | None = None,
        mid_divisor: int | None = None,
        inherit: bool = True,
    ) -> "LinFusionAttention":
        """mid_divisor: the perceptrons' width is the channels over this (16 in the published SDXL weights).

        BadInput where mid_channels says another width. inherit: False starts W_q to W_o at random, as published.
        """
        if mid_divisor is not None:
            width = _share(site, mid_divisor)
            if mid_channels not in (None, width):
                raise BadInput(
                    f"mid_channels is {mid_channels} and mid_divisor is {mid_divisor}, which makes {width} at site "
                    f"{site.path}: give one of them"
                )
            mid_channels = width
        return from_teacher(lambda bias: cls(site.channels, site.heads, mid_channels, bias), site, attention, inherit)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        as_map(tokens_BNC, grid)
        root = tokens_BNC.shape[1] ** -0.5
        q = elu(self.split(self.to_q(tokens_BNC + self.to_q_(tokens_BNC)))) + 1
        k = elu(self.split(self.to_k(tokens_BNC + self.to_k_(tokens_BNC)))) + 1
        v = self.split(self.to_v(tokens_BNC))
        state_Bhdd = (k * root).transpose(-2, -1) @ (v * root)
        norm_BhN1 = q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1) + EPSILON
        return self.merge(q @ state_Bhdd / norm_BhN1)

    @classmethod
    def locate(cls, name: str, config: Mapping[str, Any]) -> tuple[str, str] | None:
        """A tensor's site and parameter, by its number in published files, by its path in a student of ours."""
        found = NUMBERED.fullmatch(name)
        if found is None:
            return super().locate(name, config)
        modules = config.get("modules_list") or []
        if int(found[1]) >= len(modules):
            raise BadInput(
                f"{name} is published by number, but no modules_list says which site that is: give the folder with "
                "its config.json"
            )
        return str(modules[int(found[1])]["module_name"]), found[2]

    @classmethod
    def settings_of(cls, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """The one divisor or the one width that fits the perceptrons of all sites; BadInput where there is neither."""
        sizes = sorted({_size(state) for state in states.values()})
        shares, widths = {Fraction(channels, width) for width, channels in sizes}, {width for width, _ in sizes}
        if len(shares) == 1 and (share := max(shares)) >= 1 and share.denominator == 1:
            return {"mid_divisor": int(share)}
        if len(widths) == 1:
            return {"mid_channels": max(widths)}
        listed = ", ".join(f"{width} at {channels} channels" if channels else "none" for width, channels in sizes)
        raise BadInput(
            f"the LinFusion weights have perceptrons of several widths ({listed}), and neither mid_channels nor "
            "mid_divisor gives them all: give weights of one width, or of one whole divisor of the channels"
        )

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        load_published(self, state)

    def flops(self, grid: Grid) -> int:
        """8 N C^2 for the maps, 8 N C mid for the perceptrons, 4 N C d for the state in and out, 2 N C for the norm."""
        tokens = grid[0] * grid[1]
        perceptrons = 8 * tokens * self.channels * max(self.mid_channels, 0)
        state = 4 * tokens * self.channels * (self.channels // self.heads)
        return self.projection_flops(grid) + perceptrons + state + 2 * tokens * self.channels


def perceptron(channels: int, mid_channels: int) -> nn.Module:
    """M_q or M_k; -1 is the identity."""
    if mid_channels == -1:
        return nn.Identity()
    return nn.Sequential(
        nn.Linear(channels, mid_channels),
        nn.LayerNorm(mid_channels),
        nn.LeakyReLU(),
        nn.Linear(mid_channels, channels),
    )


def load_published(mixer: LinFusionAttention, state_dict: Mapping[str, Tensor]) -> LinFusionAttention:
    """Overwrite one site with published weights (`to_q.weight`, `to_q_.0.weight`, ..., `to_out.0.bias`).

    The published modules have no biases on q, k and v: where the mixer has them, absent ones become zero. Any other
    missing or left-over name, and any wrong shape, is BadInput that names it; then nothing has been changed.
    """
    optional = {f"{name}.bias" for name in ("to_q", "to_k", "to_v")}
    mixer.load_state_dict(fitted(mixer.state_dict(), state_dict, "LinFusion", optional, "mid_channels or bias"))
    return mixer


def _size(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """(width, channels) of a site's perceptrons; (-1, 0) where it has none."""
    narrow = state.get("to_q_.0.weight")
    return (-1, 0) if narrow is None else (narrow.shape[0], narrow.shape[1])


def _share(site: Site, divisor: int) -> int:
    """The channels of a site over the divisor; BadInput where it does not divide them."""
    if divisor < 1 or site.channels % divisor:
        raise BadInput(
            f"mid_divisor is {divisor} at site {site.path} of {site.channels} channels: give a divisor of the channels"
        )
    return site.channels // divisor
