"""Attention score mass: how much attention stays within a window around the query (arXiv 2504.21292, section 3).

ASM(K) is the mean over queries of the attention on keys with max(|dy|, |dx|) < K / 2: a window of K x K tokens, where
an even K holds what K - 1 holds. The paper sums over queries and layers; the mean is that sum as a share. A mass says
nothing without that of a uniform map: on a 16 x 16 grid a window of 15 x 15 holds 52 % of what is spread evenly.
Shapes: N = H * W tokens in row-major order; rows of an attention map are queries.
"""

import torch
from torch import Tensor

from harness.locality.offsets import all_queries, offset_sums
from harness.seats.mixer import Grid

SLACK = 1e-6  # rows of a float32 map sum to one to this precision: a share that is missed by less is reached


def attention_score_mass(attention_NN: Tensor, grid: Grid, size: float) -> float:
    """Mean over queries of the attention within a window of that size around each, in float64."""
    tokens = grid[0] * grid[1]
    return float(mass_within(_whole(attention_NN, grid), size)) / tokens


def effective_receptive_field(attention_NN: Tensor, grid: Grid, share: float = 0.8) -> int:
    """The smallest window that holds this share of all there is, in tokens a side; always odd.

    The paper's is that of a map behind a `HighPass`. ValueError for a share outside of (0, 1] and for an empty map.
    """
    return smallest_window(mass_curve(_whole(attention_NN, grid)), share)


def mass_curve(sums: Tensor) -> Tensor:
    """Mass within windows of 1, 3, 5, ... tokens, from sums by offset (..., 2H - 1, 2W - 1), in their unit."""
    rows, columns = sums.shape[-2:]
    return torch.stack([mass_within(sums, size) for size in range(1, max(rows, columns) + 1, 2)], dim=-1)


def mass_within(sums: Tensor, size: float) -> Tensor:
    """What sums by offset (..., 2H - 1, 2W - 1) hold at less than size / 2 from the middle along both axes."""
    near = [_near(side, size) for side in sums.shape[-2:]]
    return sums[..., near[0], near[1]].sum(dim=(-2, -1))


def smallest_window(curve: Tensor, share: float = 0.8) -> int:
    """The first of the windows 1, 3, 5, ... that holds this share of the last; `curve` as `mass_curve` gives it."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share} of the mass is not possible: give more than 0 and at most 1, such as 0.8")
    total = float(curve[-1])
    if not total > 0:
        raise ValueError(f"the map holds a mass of {total}: where nothing is left there is no receptive field")
    return 1 + 2 * int((curve / total < share - SLACK).sum())


def uniform_mass(grid: Grid, size: float) -> float:
    """The mass of a map that gives every key 1 / N: the mean share of the grid that the window covers."""
    shares = []
    for side in grid:
        at = torch.arange(side)
        shares.append(float(((at[:, None] - at).abs() < size / 2).double().mean()))
    return shares[0] * shares[1]


def window_sizes(grid: Grid) -> list[int]:
    """1, 3, 5, ... up to the window that holds the grid from every query."""
    return list(range(1, 2 * max(grid), 2))


def _whole(attention_NN: Tensor, grid: Grid) -> Tensor:
    height, width = grid
    tokens = height * width
    if attention_NN.shape != (tokens, tokens):
        shape = tuple(attention_NN.shape)
        raise ValueError(f"attention of {shape} does not fit the grid {height}x{width}: give ({tokens}, {tokens})")
    return offset_sums(attention_NN[None].double(), all_queries(grid), grid)[0]


def _near(side: int, size: float) -> slice:
    """The offsets of one axis, out of 1 - L .. L - 1, that are nearer than size / 2."""
    middle = side // 2
    reach = max(-1, min(middle, -int(-size // 2) - 1))
    return slice(middle - reach, middle + reach + 1)
