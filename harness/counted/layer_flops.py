"""The single-layer count of Table 1 of ΔConvFusion (arXiv 2504.21292), for any width and height.

The paper prices self-attention as 4NC² + 4N²C + 4NC with C = 640 and N = (side / 8)². That is the top layer of SD1.5
(C = 320, 8 heads) at the batch of two that guidance needs, 2 per multiply-add, and 4NC for scaling and softmax. So
self-attention gets the paper's polynomial, and every other variant our count of that same layer at that same batch.

What the table prints stands beside ours as a reading of its own. Its 4K and 16K are 4096x2160 and 15360x8640: at these
the ∆Conv cells have one price a token, that of 1024, and the headline ratio 6929 holds. `WHY` says why two columns are
quoted and not reproduced.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from harness.records.case import BadInput, Resolution
from harness.records.record import Reading
from harness.seats.mixer import Grid, Site
from harness.seats.surgery import Factory
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
PRINTED_PROTOCOL = "layer_flops_printed/v1: as Table 1 of arXiv 2504.21292 prints it, in GFLOPs with two decimals"
PRINTED = {
    "self_attention": {"512": 49.67, "1024": 714.08},
    "linfusion": {"512": 17.03},
    "deltaconv": {"512": 2.82, "1024": 12.56, "4096x2160": 105.94, "15360x8640": 1589.10},
}
"""GFLOPs by variant and resolution."""
WHY = {
    "linfusion": "the formula of LinFusion's own layer gives another number: the paper does not say what it counted",
    "deltaconv": (
        "the released block costs 2C²+1.25CK² a token (954,400 at C=640, K=13), the table 766,348 from 1024 on and "
        "688,480 at 512: the paper counted another form of the block than was released"
    ),
}
"""Why a column is quoted and not reproduced."""


@dataclass(frozen=True)
class LayerFlops:
    """FLOPs of one token mixer as Table 1 counts them. `teacher`: the variant that the paper's polynomial prices."""

    name: str = "layer_flops"
    teacher: str = "self_attention"
    needs: ClassVar[str] = "shapes"

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """Two readings: layer_flops, with the convention's N in its details, and layer_flops_printed."""
        grid = token_grid(trial.case.resolution)
        if trial.case.variant == self.teacher:
            value, protocol = paper_self_attention(grid), PAPER
        else:
            value, protocol = top_layer(trial.bare_factory, grid), OURS
        details = {"tokens": grid[0] * grid[1], "grid": list(grid)}
        yield Reading(self.name, "layer_flops", value, "FLOP", "lower", protocol, details=details)
        yield self._printed(trial.case.variant, trial.case.resolution)

    def _printed(self, variant: str, resolution: Resolution) -> Reading:
        """The cell of the table, or a dash."""
        name, cells = "layer_flops_printed", PRINTED.get("self_attention" if variant == self.teacher else variant, {})
        printed = cells.get(str(resolution))
        if printed is None:
            known = ", ".join(cells)
            why = f"Table 1 prints {variant} at {known} only" if known else f"Table 1 has no row of {variant}"
            return Reading(self.name, name, None, "FLOP", "neither", PRINTED_PROTOCOL, reason=why)
        details = {"why": WHY[variant]} if variant in WHY else {}
        value = round(printed * 1e9)
        return Reading(self.name, name, value, "FLOP", "neither", PRINTED_PROTOCOL, details=details)


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
    from diffusers.models.attention_processor import Attention

    channels, heads = TOP_LAYER.channels, TOP_LAYER.heads
    with torch.device("meta"):
        mixer = factory(TOP_LAYER, Attention(query_dim=channels, heads=heads, dim_head=channels // heads))
    return GUIDANCE_BATCH * mixer.flops(grid)
