"""Attention maps whose mass, receptive field, decay and bias are known by closed form."""

import torch
from torch import Tensor

Grid = tuple[int, int]


def distances(grid: Grid) -> Tensor:
    """(N, N) distance in tokens between every two positions."""
    rows, columns = (at.flatten().double() for at in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    return ((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2).sqrt()


def gaussian(grid: Grid, width: float) -> Tensor:
    """What a Gaussian gives on an endless grid, where its values sum to one: at a border, the part inside."""
    reach = torch.arange(-40, 41).double()
    whole = float(torch.exp(-(reach**2) / (2 * width**2)).sum()) ** 2
    return torch.exp(-(distances(grid) ** 2) / (2 * width**2)) / whole


def uniform(grid: Grid) -> Tensor:
    """Every key alike."""
    tokens = grid[0] * grid[1]
    return torch.full((tokens, tokens), 1 / tokens, dtype=torch.float64)


def delta(grid: Grid) -> Tensor:
    """Every query looks at itself alone."""
    return torch.eye(grid[0] * grid[1], dtype=torch.float64)
