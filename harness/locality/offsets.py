"""Attention summed over queries by the key's offset from the query: (2H - 1) x (2W - 1) numbers, all that mass,
receptive field and decay need of a map. Shapes: M maps (heads, or one), Q queries, N = H * W keys in row-major order.
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
    if maps_MQN.is_cuda and _whole_rows(queries_Q, width):
        return rows_at_once(maps_MQN, int(queries_Q[0]) // width, grid)
    sums = maps_MQN.new_zeros(maps, 2 * height - 1, 2 * width - 1)
    for row, position in enumerate(queries_Q.tolist()):
        up, left = height - 1 - position // width, width - 1 - position % width
        sums[:, up : up + height, left : left + width] += maps_MQN[:, row].view(maps, height, width)
    return sums


def rows_at_once(maps_MQN: Tensor, first: int, grid: Grid) -> Tensor:
    """The same for queries that fill rows of the grid from the row `first` on, row by row: for GPUs (slow on a CPU)."""
    height, width = grid
    maps, queries, _ = maps_MQN.shape
    sums = maps_MQN.new_zeros(maps, 2 * height - 1, 2 * width - 1)
    shifted_MrHw = _shifted(maps_MQN.view(maps, queries // width, width, height, width))
    for row in range(queries // width):
        up = height - 1 - first - row
        sums[:, up : up + height] += shifted_MrHw[:, row]
    return sums


def _whole_rows(queries_Q: Tensor, width: int) -> bool:
    first, queries = int(queries_Q[0]), len(queries_Q)
    filled = first % width == 0 and queries % width == 0
    return filled and torch.equal(queries_Q, torch.arange(first, first + queries))


def _shifted(maps_MrWHW: Tensor) -> Tensor:
    """(M, r, H, 2W - 1) sums over the queries of whole rows by their horizontal offset.

    Read in lines of 2W - 1, what was written in lines of 2W moves by one from line to line.
    """
    maps, rows, width, height, _ = maps_MrWHW.shape
    lines = maps_MrWHW.new_zeros(maps, rows, height, width, 2 * width)
    lines[..., :width] = maps_MrWHW.flip(2).transpose(2, 3)
    return lines.flatten(3)[..., :-width].view(maps, rows, height, width, 2 * width - 1).sum(dim=3)


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
