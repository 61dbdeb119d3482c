"""Locality of attention: how much of it stays near the query (attention score mass, arXiv 2504.21292, section 3).

Shapes: N = height * width tokens in row-major order; rows of an attention map are queries.
"""

import torch
from torch import Tensor

from harness.seats.mixer import Grid


def attention_score_mass(attention_NN: Tensor, grid: Grid, size: float) -> float:
    """Mean over queries of the attention on keys with max(|dy|, |dx|) < size / 2, in float64.

    The window of an odd size k is k x k tokens; at the border the part outside the grid holds nothing.
    """
    height, width = grid
    tokens = height * width
    if attention_NN.shape != (tokens, tokens):
        shape = tuple(attention_NN.shape)
        raise ValueError(f"attention of {shape} does not fit the grid {height}x{width}: give ({tokens}, {tokens})")
    near_HH, near_WW = _near(height, size).to(attention_NN.device), _near(width, size).to(attention_NN.device)
    map_HWHW = attention_NN.double().reshape(height, width, height, width)
    return float(torch.einsum("abcd,ac,bd->", map_HWHW, near_HH, near_WW)) / tokens


def _near(side: int, size: float) -> Tensor:
    """1 where two positions of one axis are less than size / 2 apart."""
    at = torch.arange(side)
    return ((at[:, None] - at[None, :]).abs() < size / 2).double()
