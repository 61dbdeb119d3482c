"""Attention by offset: every query's map laid over the others so that the queries coincide.

The sums by offset (key minus query) hold all that mass, receptive field and decay need, in (2H - 1) x (2W - 1) numbers
for a map of (H W)^2, so a map can be thrown away as soon as its block of queries is done.
Shapes: M maps (heads, or one), Q queries, N = H * W keys in row-major order.
"""

import torch
from torch import Tensor

from harness.seats.mixer import Grid


def offset_sums(maps_MQN: Tensor, queries_Q: Tensor, grid: Grid) -> Tensor:
    """(M, 2H - 1, 2W - 1) sums over the queries, in the maps' dtype; offset (0, 0) lies in the middle.

    queries_Q: the positions of these queries in the grid. ValueError for maps that do not fit them.
    """
    height, width = grid
    maps, queries, keys = maps_MQN.shape
    if keys != height * width or len(queries_Q) != queries:
        raise ValueError(
            f"maps of {queries} queries and {keys} keys do not fit the grid {height}x{width} and {len(queries_Q)} "
            f"positions: give {len(queries_Q)} queries with {height * width} keys"
        )
    sums = maps_MQN.new_zeros(maps, 2 * height - 1, 2 * width - 1)
    for row, position in enumerate(queries_Q.tolist()):
        up, left = height - 1 - position // width, width - 1 - position % width
        sums[:, up : up + height, left : left + width] += maps_MQN[:, row].view(maps, height, width)
    return sums


def offset_pairs(counts_N: Tensor, grid: Grid) -> Tensor:
    """(2H - 1, 2W - 1) float64: how many queries have a key of the grid at each offset.

    counts_N: how many queries there are at each position of the grid.
    """
    height, width = grid
    below_HW = torch.nn.functional.pad(counts_N.double().view(grid).cumsum(0).cumsum(1), (1, 0, 1, 0))
    (top, bottom), (left, right) = (_queries_with(side, 1 - side) for side in (height, width))
    return below_HW[bottom][:, right] - below_HW[top][:, right] - below_HW[bottom][:, left] + below_HW[top][:, left]


def all_queries(grid: Grid) -> Tensor:
    """(N,) every position of the grid."""
    return torch.arange(grid[0] * grid[1])


def spread_queries(grid: Grid, most: int) -> Tensor:
    """(Q,) positions on a regular lattice over the grid, at most that many; every position if they fit."""
    step = 1
    while -(-grid[0] // step) * -(-grid[1] // step) > most:
        step += 1
    rows, columns = (torch.arange((side - 1) % step // 2, side, step) for side in grid)
    return (rows[:, None] * grid[1] + columns).flatten()


def _queries_with(side: int, first: int) -> tuple[Tensor, Tensor]:
    """For each offset along an axis of that length, from `first` on: the queries [begin, end) whose key is inside."""
    offsets = torch.arange(first, side)
    return (-offsets).clamp(min=0), (side - offsets).clamp(max=side)
