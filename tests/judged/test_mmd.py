"""KD and CMMD: against their definitions in NumPy and against torchmetrics, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.judged import mmd
from harness.judged.cmmd import cmmd
from harness.judged.kernel_distance import cubic, kernel_distance
from harness.judged.mmd import KernelSums

EXACT = 1e-6
"""What the project promises of distances; float64 leaves far less."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x, y, kernel) -> float:
    def within(z) -> float:
        n = len(z)
        return sum(kernel(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    between = np.mean([[kernel(a, b) for b in y] for a in x])
    return float(within(x) + within(y) - 2 * between)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (7, 5, 3), (6, 20, 50)])
def test_both_are_their_definitions(n: int, m: int, d: int) -> None:
    x_ND, y_MD = drawn(n, d), drawn(m, d, seed=1) * 2 + 1
    x, y = x_ND.numpy(), y_MD.numpy()
    expected = by_definition(x, y, lambda a, b: (a @ b / d + 1) ** 3)
    assert kernel_distance(x_ND, y_MD) == pytest.approx(expected, rel=EXACT)
    one, other = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    expected = 1000 * by_definition(one, other, lambda a, b: math.exp(-((a - b) ** 2).sum() / (2 * 10**2)))
    assert cmmd(x_ND, y_MD) == pytest.approx(expected, rel=EXACT)


def test_kd_is_what_torchmetrics_takes_of_one_subset() -> None:
    from torchmetrics.image.kid import poly_mmd

    x_ND, y_MD = drawn(40, 6), drawn(40, 6, seed=1) * 1.5
    assert kernel_distance(x_ND, y_MD) == pytest.approx(float(poly_mmd(y_MD, x_ND)), rel=EXACT)


@pytest.mark.parametrize("distance", [kernel_distance, cmmd])
def test_two_samples_of_one_distribution_lie_around_zero(distance) -> None:
    values = [distance(drawn(60, 8, seed=seed), drawn(60, 8, seed=seed + 100)) for seed in range(40)]
    assert min(values) < 0 < max(values)
    assert abs(sum(values) / 40) < 4 * torch.tensor(values).std() / math.sqrt(40)  # four sigma of the mean


@pytest.mark.parametrize("distance", [kernel_distance, cmmd])
def test_blocks_order_and_number_format_change_nothing(distance, monkeypatch) -> None:
    x_ND, y_MD = drawn(70, 8).float(), drawn(50, 8, seed=1).float() + 1
    value = distance(x_ND, y_MD)
    monkeypatch.setattr(mmd, "BLOCK", 16)
    assert distance(x_ND.double(), y_MD.double()) == pytest.approx(value, rel=1e-12)
    assert distance(x_ND.flip(0), y_MD.flip(0)) == pytest.approx(value, rel=1e-12)
    assert distance(y_MD, x_ND) == pytest.approx(value, rel=1e-12)


def test_the_number_without_groups_is_that_of_the_other_images() -> None:
    x_ND, y_MD = drawn(30, 4), drawn(20, 4, seed=1)
    group_N, group_M = torch.arange(30) % 5, torch.arange(20) % 5
    sums = KernelSums.of(x_ND, y_MD, group_N, group_M, cubic)
    assert sums.mmd() == pytest.approx(kernel_distance(x_ND, y_MD), rel=1e-12)
    kept_N, kept_M = (group_N != 1) & (group_N != 3), (group_M != 1) & (group_M != 3)
    assert sums.mmd(frozenset({1, 3})) == pytest.approx(kernel_distance(x_ND[kept_N], y_MD[kept_M]), rel=1e-12)


@pytest.mark.parametrize("distance", [kernel_distance, cmmd])
@pytest.mark.parametrize(
    ("x_ND", "y_MD", "sentence"),
    [
        (torch.ones(1, 3), torch.ones(4, 3), "at least two rows"),
        (torch.ones(4, 3), torch.ones(4, 2), "have no distance"),
        (torch.ones(4), torch.ones(4), "have no distance"),
        (torch.full((4, 3), math.nan), torch.ones(4, 3), "not finite"),
    ],
)
def test_what_has_no_distance_is_refused(distance, x_ND, y_MD, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        distance(x_ND, y_MD)


def test_an_embedding_without_a_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="no direction"):
        cmmd(torch.zeros(4, 3), torch.ones(4, 3))
