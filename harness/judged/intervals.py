"""95 % intervals: a bootstrap for means over images, a grouped jackknife for numbers that only a set has.

A bootstrap of a Fréchet distance is biased upward by its duplicates, so set-level numbers are taken again with one
group of images left out at a time. Groups are dealt by one fixed shuffle, the same for every variant: replicates of two
variants can be subtracted one by one, which is the paired comparison. (Dealt in the order of the prompts, whose kinds
take turns, a group would be of one kind.) The sampling unit is the prompt; its images with other seeds stay together.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.records.statistics import t_975

GROUPS = 20


@dataclass(frozen=True)
class Jackknife:
    """Standard error of a set's number, and the numbers with one group left out each, in the order of the groups."""

    error: float
    replicates: tuple[float, ...]

    def half_width(self) -> float:
        """Half of the 95 % interval, by Student's t."""
        return t_975(len(self.replicates) - 1) * self.error


def bootstrap_mean(
    values: Sequence[float], units: Sequence[Hashable] | None = None, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a mean, drawing units (prompts) with replacement; needs two values at least."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, got {len(values)}")
    unit_N = _numbered(units if units is not None else range(len(values)))
    sums_U = torch.zeros(int(unit_N.max()) + 1, dtype=torch.float64)
    counts_U = sums_U.clone()
    sums_U.index_add_(0, unit_N, torch.tensor(values, dtype=torch.float64))
    counts_U.index_add_(0, unit_N, torch.ones(len(values), dtype=torch.float64))
    source = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(max(1, draws // 500)):
        drawn = torch.randint(len(sums_U), (500, len(sums_U)), generator=source)
        means.append(sums_U[drawn].sum(dim=1) / counts_U[drawn].sum(dim=1))
    low, high = torch.cat(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(low), float(high)


def dealt(units: Sequence[Hashable], groups: int = GROUPS) -> Tensor:
    """Group of each image: units are shuffled once and take turns; groups differ by one unit at most."""
    unit_N = _numbered(units)
    count = int(unit_N.max()) + 1
    return shuffled(count)[unit_N] % min(groups, count)


def shuffled(n: int, seed: int = 0) -> Tensor:
    """The numbers below n in a random order that is always the same."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def jackknife(count: int, without: Callable[[int], float]) -> Jackknife:
    """Delete-a-group jackknife; `without` takes the number again without the group of that index."""
    if count < 2:
        raise ValueError("a jackknife needs at least two groups")
    replicates = tuple(without(group) for group in range(count))
    mean = math.fsum(replicates) / count
    error = math.sqrt((count - 1) / count * math.fsum((value - mean) ** 2 for value in replicates))
    return Jackknife(error, replicates)


def _numbered(units: Sequence[Hashable]) -> Tensor:
    """Each unit's number in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(unit, len(numbers)) for unit in units])
