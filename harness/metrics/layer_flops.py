"""The single-layer count of Table 1 of ΔConvFusion (arXiv 2504.21292), for any width and height.

The paper prices self-attention as 4NC² + 4N²C + 4NC with C = 640 and N = (side / 8)². Line for line that is the top
layer of SD1.5 (C = 320, 8 heads) at the batch of two that guidance needs, 2 per multiply-add, and 4NC for scaling and
softmax. So self-attention gets the paper's polynomial, and every other variant our count of that same layer at that
same batch. The ∆Conv column of the table is not reproduced by the released block: ours stands beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from harness.case import BadInput, Resolution
from harness.mixer import Grid, Site
from harness.record import Reading
from harness.surgery import Factory

if TYPE_CHECKING:
    from harness.trial import Trial

PIXELS_PER_TOKEN = 8
PAPER_CHANNELS = 640
GUIDANCE_BATCH = 2
TOP_LAYER = Site("down_blocks.0.attentions.0.transformer_blocks.0.attn1", channels=320, heads=8)
PAPER = (
    "layer_flops/paper-v1: one layer, 4NC²+4N²C+4NC with C=640, N=(width/8)(height/8), as Table 1 prices self-attention"
)
OURS = (
    "layer_flops/ours-v1: one layer, our count of SD1.5's top layer (C=320, 8 heads) at guidance batch 2, "
    "2 per multiply-add, the reading under which the paper's C=640 polynomial is a count of self-attention"
)


@dataclass(frozen=True)
class LayerFlops:
    """FLOPs of one token mixer as Table 1 counts them. `teacher`: the variant that the paper's polynomial prices."""

    name: str = "layer_flops"
    teacher: str = "self_attention"
    needs: ClassVar[str] = "shapes"

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        """One reading, layer_flops; its details name the convention's N."""
        grid = token_grid(trial.case.resolution)
        if trial.factory is None or trial.case.variant == self.teacher:
            value, protocol = paper_self_attention(grid), PAPER
        else:
            value, protocol = top_layer(trial.factory, grid), OURS
        details = {"tokens": grid[0] * grid[1], "grid": list(grid)}
        yield Reading(self.name, "layer_flops", value, "FLOP", "lower", protocol, details=details)


def token_grid(resolution: Resolution) -> Grid:
    """Tokens of SD1.5's top layer; raises BadInput for a side that is no multiple of 8."""
    if resolution.width % PIXELS_PER_TOKEN or resolution.height % PIXELS_PER_TOKEN:
        raise BadInput(
            f"resolution {resolution} has no whole number of tokens: give sides in multiples of {PIXELS_PER_TOKEN}"
        )
    return resolution.height // PIXELS_PER_TOKEN, resolution.width // PIXELS_PER_TOKEN


def paper_self_attention(grid: Grid, channels: int = PAPER_CHANNELS) -> int:
    """Linear maps, two products, scaling and softmax, as the paper prices them."""
    tokens = grid[0] * grid[1]
    return 4 * tokens * channels**2 + 4 * tokens**2 * channels + 4 * tokens * channels


def top_layer(factory: Factory, grid: Grid) -> int:
    """Our count of a variant's mixer at SD1.5's top layer, at the batch of guidance."""
    with torch.device("meta"):
        mixer = factory(TOP_LAYER, _attention(TOP_LAYER))
    return GUIDANCE_BATCH * mixer.flops(grid)


def _attention(site: Site) -> nn.Module:
    """The diffusers layer that the factory would replace."""
    from diffusers.models.attention_processor import Attention

    attention: nn.Module = Attention(query_dim=site.channels, heads=site.heads, dim_head=site.channels // site.heads)
    return attention
