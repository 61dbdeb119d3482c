"""95 % intervals: a bootstrap, a grouped jackknife for numbers that only a set has, and paired differences.

A bootstrap of a Fréchet distance is biased upward by its duplicates, so set-level numbers are taken again with one
group of images left out at a time. Groups are dealt by one fixed shuffle, the same for every variant: replicates of two
variants can be subtracted one by one, which is the paired comparison. (Dealt in the order of the prompts, whose kinds
take turns, a group would be of one kind.) The sampling unit is the prompt; its images with other seeds stay together.
Shapes: N values, U units, D draws.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NORMAL_975 = 1.959963984540054
LEAST = 6
"""Fewer pairs have no interval."""
GROUPS = 20
DRAWS = 10_000


class Score(Protocol):
    """What is known of a score: raw values one an image, or replicates of a jackknife among the details."""

    @property
    def value(self) -> float | int | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def samples(self) -> tuple[float, ...]: ...
    @property
    def details(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Jackknife:
    """Standard error of a set's number, and the numbers with one group left out each, in the order of the groups."""

    error: float
    replicates: tuple[float, ...]

    def half_width(self) -> float:
        """Half of the 95 % interval, by Student's t."""
        return t_975(len(self.replicates) - 1) * self.error


def t_975(freedom: int) -> float:
    """97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def middle(values_D: Floats) -> tuple[float, float]:
    """The middle 95 %; of a few values, the least and the greatest. Infinite ones count."""
    ordered, last = np.sort(values_D), len(values_D) - 1
    return float(ordered[math.floor(0.025 * last)]), float(ordered[math.ceil(0.975 * last)])


def resampled(
    values: Sequence[float], statistic: Callable[..., Any], draws: int, source: np.random.Generator
) -> Floats:
    """A statistic (of axis 1) of each of D sets of as many values, drawn with replacement."""
    values_N, step = np.asarray(values, dtype=np.float64), 500
    found = [
        statistic(source.choice(values_N, (min(step, draws - start), len(values_N))), axis=1)
        for start in range(0, draws, step)
    ]
    return np.concatenate(found)


def bootstrap(
    values: Sequence[float], statistic: Callable[..., Any], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic such as `np.median`, from a fixed seed."""
    return middle(resampled(values, statistic, draws, np.random.default_rng(seed)))


def bootstrap_mean(
    values: Sequence[float], units: Sequence[Hashable] | None = None, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a mean, drawing units (prompts) with replacement; needs two values at least."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, got {len(values)}")
    unit_N = _numbered(units if units is not None else range(len(values)))
    sums_U, counts_U = np.bincount(unit_N, weights=values), np.bincount(unit_N).astype(np.float64)
    source, means = np.random.default_rng(seed), []
    for _ in range(max(1, draws // 500)):
        drawn = source.integers(len(sums_U), size=(500, len(sums_U)))
        means.append(sums_U[drawn].sum(axis=1) / counts_U[drawn].sum(axis=1))
    return middle(np.concatenate(means))


def dealt(units: Sequence[Hashable], groups: int = GROUPS) -> Integers:
    """Group of each image: units are shuffled once and take turns; groups differ by one unit at most."""
    unit_N = _numbered(units)
    count = int(unit_N.max()) + 1
    return np.asarray(shuffled(count)[unit_N] % min(groups, count))


def shuffled(n: int, seed: int = 0) -> Integers:
    """The numbers below n in a random order that is always the same: `torch.randperm`'s, by which kept numbers were
    dealt (Fisher and Yates, drawing from the Mersenne twister).
    """
    order = list(range(n))
    drawn = np.random.RandomState(seed).randint(0, 2**32, max(0, n - 1), dtype=np.uint32)
    for index, number in enumerate(drawn.tolist()):
        other = index + number % (n - index)
        order[index], order[other] = order[other], order[index]
    return np.array(order, dtype=np.int64)


def jackknife(count: int, without: Callable[[int], float]) -> Jackknife:
    """Delete-a-group jackknife; `without` takes the number again without the group of that index."""
    if count < 2:
        raise ValueError("a jackknife needs at least two groups")
    replicates = tuple(without(group) for group in range(count))
    mean = math.fsum(replicates) / count
    error = math.sqrt((count - 1) / count * math.fsum((value - mean) ** 2 for value in replicates))
    return Jackknife(error, replicates)


def difference(mine: Score, other: Score) -> tuple[float, float, float] | None:
    """Low end, value and high end of mine less other: paired where the raw values allow it. None without intervals."""
    if mine.value is None or other.value is None:
        return None
    half = paired_half_width(mine, other)
    if half is None:
        ends = (mine.low, mine.high, other.low, other.high)
        if any(end is None for end in ends):
            return None
        low, high, under, over = (float(end) for end in ends if end is not None)
        half = math.hypot((high - low) / 2, (over - under) / 2)
    value = mine.value - other.value
    return value - half, value, value + half


def paired_half_width(mine: Score, other: Score) -> float | None:
    """Of the interval of the difference, image by image or group by group; None where that cannot be had."""
    for one, two, jackknifed in (
        (mine.samples, other.samples, False),
        (_replicates(mine), _replicates(other), True),
    ):
        n = len(one)
        if n < LEAST or n != len(two):
            continue
        differences = [a - b for a, b in zip(one, two, strict=True)]
        mean = math.fsum(differences) / n
        squares = math.fsum((difference - mean) ** 2 for difference in differences)
        return t_975(n - 1) * math.sqrt(squares * (n - 1) / n if jackknifed else squares / (n - 1) / n)
    return None


def _replicates(score: Score) -> Sequence[float]:
    """Of a jackknife, where the details hold some."""
    found = score.details.get("replicates")
    numbers = isinstance(found, list | tuple) and all(isinstance(one, int | float) for one in found)
    return found if found is not None and numbers else ()


def _numbered(units: Sequence[Hashable]) -> Integers:
    """Each unit's number in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(unit, len(numbers)) for unit in units])
