"""Statistics of one number: 95 % intervals, by a bootstrap, Student's t or a jackknife, and Holm's correction of many.

The sampling unit is the prompt: its images with other seeds stay together. A mean over images has the t interval of its
units, longer to the side of a few that are far off. A number that only a whole set has (a Fréchet distance, whose
bootstrap is biased by duplicates) has a jackknife. How often intervals hold the truth: tests/judged/test_coverage.py.
Shapes: N values, U units, G groups, D draws.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NORMAL_975 = 1.959963984540054
DRAWS = 10_000
ENOUGH = 20
"""Of fewer values the skewness is not known well enough to mend an interval."""
MOST = 2.0
"""Times Student's half that the correction reaches: one bad image of fifty would take it without end."""


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, and the degrees of freedom that the error has.

    skew: of a mean, the skewness of its values over the root of their number. Where most images are good and a few are
    not at all, a mean is farther from the truth to one side: an interval spans Student's and that of Hall (J. R.
    Statist. Soc. B 1992), who takes skewness out of t by a cubic. For normal values both are one.
    """

    value: float
    error: float
    freedom: float = math.inf
    skew: float = 0.0

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, self.error, self.freedom, -self.skew)

    @property
    def half_width(self) -> float:
        """Half of Student's 95 % interval."""
        return t_quantile(self.freedom) * self.error

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - self.below(t_quantile(self.freedom))

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return -(-self).low

    def below(self, t: float) -> float:
        """How far an interval reaches below the value at a quantile of t: the farther of Student's and Hall's."""
        return self.error * max(t, min(self._skewed(t), MOST * t))

    def above(self, bound: float) -> float:
        """p of the hypothesis that the true number is not above a bound: the larger of Student's and Hall's."""
        from scipy.special import ndtr, stdtr

        if self.error == 0:
            return 0.0 if self.value > bound else 1.0
        t = (self.value - bound) / self.error
        t = -max(min(t, self._unskewed(t)), min(t, t / MOST))
        return float(ndtr(t) if math.isinf(self.freedom) else stdtr(self.freedom, t))

    def _unskewed(self, t: float) -> float:
        """Hall's transformation of a t: ((1 + skew t / 3)^3 - 1) / skew + skew / 6, without a division by skew."""
        return t + self.skew * t**2 / 3 + self.skew**2 * t**3 / 27 + self.skew / 6

    def _skewed(self, t: float) -> float:
        """Its inverse: 3 (c - 1) / skew for the cube root c of 1 + skew (t - skew / 6)."""
        root = float(np.cbrt(1 + self.skew * (t - self.skew / 6)))
        return 3 * (t - self.skew / 6) / (root**2 + root + 1)


@dataclass(frozen=True)
class Jackknife:
    """Standard error of a set's number, and the numbers with one group left out each, in the order of the groups."""

    error: float
    replicates: tuple[float, ...]

    def half_width(self) -> float:
        """Half of the 95 % interval, by Student's t."""
        return t_quantile(len(self.replicates) - 1) * self.error

    def times(self, value: float) -> tuple[float, float]:
        """A 95 % interval of factors, for a number above zero whose error grows with it: Student's of its logarithm.

        From zero on where the number is less than a third of its half-width: then it is as good as zero.
        """
        half = self.half_width()
        if half >= 3 * value:
            return 0.0, value + half
        factor = math.exp(half / value)
        return value / factor, value * factor


def mean_of(values: Sequence[float], units: Sequence[Hashable] | None = None) -> Estimate:
    """Mean over images; its error is over units (prompts), of which a mean needs two at least."""
    unit_N = numbered(units if units is not None else range(len(values)))
    count = int(unit_N.max(initial=-1)) + 1
    if count < 2:
        raise ValueError(f"an interval needs at least two values of different prompts, got {count}")
    values_N = np.asarray(values, dtype=float)
    mean = float(values_N.mean())
    spread_U = np.bincount(unit_N, weights=values_N - mean)
    spread = math.sqrt(float((spread_U**2).sum()))
    error = math.sqrt(count / (count - 1)) * spread / len(values_N)
    skew = float(((spread_U / spread) ** 3).sum()) if spread and count >= ENOUGH else 0.0
    return Estimate(mean, error, count - 1, skew)


def jackknife(count: int, without: Callable[[frozenset[int]], float], pairs: bool = False) -> Jackknife:
    """Delete-a-group jackknife; `without` takes the number again without some groups.

    For a kernel distance near its minimum, which is quadratic in its images, a jackknife counts the variance of each
    pair twice. `pairs` estimates the second count by leaving out two groups at a time (Efron and Stein, Ann. Statist.
    1981). Since that is noisy, half of it, and at most half of the variance, is taken away.
    """
    if count < 2:
        raise ValueError("a jackknife needs at least two groups")
    replicates_G = np.array([without(frozenset({group})) for group in range(count)])
    variance = (count - 1) / count * float(((replicates_G - replicates_G.mean()) ** 2).sum())
    if pairs and count > 2:
        whole = count * without(frozenset())
        shares = np.array(
            [
                whole - (count - 1) * (replicates_G[a] + replicates_G[b]) + (count - 2) * without(frozenset({a, b}))
                for a, b in combinations(range(count), 2)
            ]
        )
        twice = float(((shares - shares.mean()) ** 2).sum()) / (count * (count - 1))
        variance -= min(twice, variance) / 2
    return Jackknife(math.sqrt(variance), tuple(replicates_G.tolist()))


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


def bootstrap(values: Sequence[float], statistic: Callable[..., Any], draws: int = DRAWS) -> tuple[float, float]:
    """95 % percentile interval of a statistic such as `np.median`, from a fixed seed."""
    return middle(resampled(values, statistic, draws, np.random.default_rng(0)))


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which hypotheses are rejected, so that the chance of any false rejection is at most the level.

    Holm (Scand. J. Statist. 1979): the smallest p against level / m, the next against level / (m - 1), until one fails.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p = {p} is no probability: give numbers from 0 to 1")
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def t_quantile(freedom: float, share: float = 0.975) -> float:
    """Quantile of Student's t; of the normal distribution for endless degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(share) if math.isinf(freedom) else stdtrit(freedom, share))


def numbered(units: Sequence[Hashable]) -> Integers:
    """Each unit's number in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(unit, len(numbers)) for unit in units], dtype=np.int64)
