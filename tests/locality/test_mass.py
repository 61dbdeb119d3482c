"""Attention score mass: known maps on square and awkward grids."""

import pytest
import torch
from torch import Tensor

from harness.locality.mass import attention_score_mass

GRIDS = [(4, 4), (7, 13), (1, 5), (1, 1)]


def window_share(grid: tuple[int, int], size: float) -> float:
    """Mean share of the grid that a window around each position covers, counted one by one."""
    height, width = grid
    at = [(y, x) for y in range(height) for x in range(width)]
    inside = sum(max(abs(a - c), abs(b - d)) < size / 2 for a, b in at for c, d in at)
    return inside / len(at) ** 2


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [1, 2, 3, 13])
def test_attention_to_oneself_lies_in_every_window(grid: tuple[int, int], size: int) -> None:
    assert attention_score_mass(torch.eye(grid[0] * grid[1]), grid, size) == 1.0


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 13, 100])
def test_uniform_attention_has_the_mean_share_of_the_window(grid: tuple[int, int], size: int) -> None:
    tokens = grid[0] * grid[1]
    uniform_NN = torch.full((tokens, tokens), 1 / tokens, dtype=torch.float64)
    assert attention_score_mass(uniform_NN, grid, size) == pytest.approx(window_share(grid, size), rel=1e-12)


def test_the_border_of_the_window_is_outside() -> None:
    attention_NN = torch.zeros(5, 5)
    attention_NN[:, 2] = 1.0  # distances 2, 1, 0, 1, 2
    masses = [attention_score_mass(attention_NN, (1, 5), size) for size in (0, 1, 2, 3, 4, 5)]
    assert masses == [0.0, 0.2, 0.2, 0.6, 0.6, 1.0]


def test_rows_and_columns_are_not_mixed_up_on_a_grid_that_is_not_square() -> None:
    attention_NN = torch.zeros(6, 6)
    attention_NN[0, 3] = 1.0  # grid 2x3: from (0, 0) to (1, 0), one step down
    assert attention_score_mass(attention_NN, (2, 3), 3) == pytest.approx(1 / 6)
    assert attention_score_mass(attention_NN, (3, 2), 3) == pytest.approx(1 / 6)  # (0, 0) to (1, 1)
    assert attention_score_mass(attention_NN, (1, 6), 3) == 0.0


def test_the_mass_grows_with_the_window_up_to_one() -> None:
    attention_NN: Tensor = torch.randn(91, 91, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    masses = [attention_score_mass(attention_NN, (7, 13), size) for size in range(1, 27)]
    assert masses == sorted(masses)
    assert masses[-1] == pytest.approx(1.0, rel=1e-5)  # float32 rows sum to one to that precision


def test_a_map_that_does_not_fit_its_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit the grid 4x5"):
        attention_score_mass(torch.eye(16), (4, 5), 3)
