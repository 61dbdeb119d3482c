"""The attention maps of a site, recomputed from what entered it, a block of queries at a time.

No map of 16,384 tokens fits into memory, so the softmax is written out for a few rows at a time. That it is this
layer's map is proved: applied to the values it must give the layer's own output.
Shapes: N tokens, C channels, h heads, d = C / h, Q queries of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.seats.mixer import BadInput

BLOCK_BYTES = 2**26  # size of one block of maps; what is made of it needs about three times as much
CUDA_TOLERANCE = 1e-4  # the same for float32 on CUDA, whose fused kernels add up in another order (1.2e-5 was seen)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Largest difference from the layer's own output, in units of that output's largest value: its dtype's rounding."""


@dataclass(frozen=True)
class Projections:
    """What one image's maps are made of at one site: (h, N, d) in float32, queries scaled already."""

    q_hNd: Tensor
    k_hNd: Tensor
    v_hNd: Tensor

    @property
    def tokens(self) -> int:
        return self.q_hNd.shape[1]

    def blocks(self, block_bytes: int = BLOCK_BYTES, width: int = 1) -> Iterator[range]:
        """All queries in order, so many at a time that their maps take no more than this; whole rows where they fit."""
        heads, tokens, _ = self.q_hNd.shape
        rows = max(1, min(tokens, block_bytes // (4 * heads * tokens)))
        rows -= rows % width if rows > width else 0
        for first in range(0, tokens, rows):
            yield range(first, min(first + rows, tokens))

    def maps_of(self, block: range, space: Tensor) -> Tensor:
        """(h, Q, N) maps of a block of queries, written into a space of (h, Q or more, N)."""
        maps_hQN = space[:, : len(block)]
        torch.bmm(self.q_hNd[:, block.start : block.stop], self.k_hNd.transpose(1, 2), out=maps_hQN)
        return torch.softmax(maps_hQN, dim=-1, out=maps_hQN)

    def space(self, block: range) -> Tensor:
        """Room for the maps of a block: used again for each, since fresh memory costs as much as the maps."""
        return self.q_hNd.new_empty(self.q_hNd.shape[0], len(block), self.tokens)

    def maps(self) -> Tensor:
        """(h, N, N) all at once, for a small grid."""
        whole = range(self.tokens)
        return self.maps_of(whole, self.space(whole))


def projections(attention: Any, tokens_NC: Tensor) -> Projections:
    """Queries, keys and values of a diffusers attention layer for one image's tokens."""
    norm_q, norm_k = getattr(attention, "norm_q", None), getattr(attention, "norm_k", None)
    try:
        q, k, v = (
            project(tokens_NC).unflatten(-1, (attention.heads, -1)).transpose(0, 1)
            for project in (attention.to_q, attention.to_k, attention.to_v)
        )
        q, k = (norm(each) if norm is not None else each for norm, each in ((norm_q, q), (norm_k, k)))
        scale = float(attention.scale)
    except AttributeError as error:
        raise BadInput(
            f"{type(attention).__name__} has no attention map that can be read ({error}): give a layer with to_q, to_k "
            "and to_v, as Stable Diffusion, SDXL and PixArt have"
        ) from error
    return Projections(q.float() * scale, k.float(), v.float())


def prove(attention: Any, found: Projections, output_NC: Tensor, path: str) -> None:
    """Raise ValueError where the maps, applied to the values, do not give the layer's own output.

    One block of queries is looked at: a map of something else differs everywhere.
    """
    block = next(found.blocks())
    maps_hQN = found.maps_of(block, found.space(block))
    wanted = output_NC[block.start : block.stop].float()
    error = float((applied(attention, maps_hQN, found.v_hNd) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
    allowed = max(TOLERANCE[output_NC.dtype], CUDA_TOLERANCE if output_NC.is_cuda else 0.0)
    if not error <= allowed:
        raise ValueError(
            f"the map recomputed at {path} is not that of the layer: its output is off by {error:.1e} of the largest "
            f"value, at most {allowed:.0e} is rounding"
        )


def applied(attention: Any, maps_hQN: Tensor, v_hNd: Tensor) -> Tensor:
    """(Q, C) float32: what the layer puts out for these queries."""
    return closed(attention, (maps_hQN @ v_hNd).transpose(0, 1).flatten(1)).float()


def closed(attention: Any, mixed_NC: Tensor) -> Tensor:
    """What the layer puts out when its heads gave `mixed`."""
    output_NC: Tensor = attention.to_out[0](mixed_NC.to(next(attention.to_out[0].parameters()).dtype))
    return output_NC / float(getattr(attention, "rescale_output_factor", 1.0))
