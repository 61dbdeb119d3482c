"""When is a slow-down decided? Logarithms of ratios, one a pair of fresh processes, and an interval over pairs.

A tolerance t is the slow-down that must not go unseen. The 95 % interval of the rise decides:

    pass          it lies below t
    regression    it lies above t / 2 and reaches t
    improvement   it lies below -t / 2 and reaches -t
    otherwise more pairs, up to the cap; then inconclusive

With enough pairs a rise of t or more is found and none at all passes; between t / 2 and t either may come out. Since
the data are looked at after each pair, what is not a pass has to come out of two looks in a row.

The interval is a bootstrap over pairs, since the calls of one process depend on each other. Percentiles of few values
are too narrow, by sqrt((n - 1) / n) and by the normal's quantile for Student's: both are corrected (Hesterberg 2015,
arXiv 1411.5279, section 4.4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.records.statistics import NORMAL_975, bootstrap, t_quantile
from harness.regression.verdict import Outcome

LEAST = 4
"""Fewer pairs have no interval."""
DRAWS = 2000


@dataclass(frozen=True)
class Rise:
    """A logarithm of a ratio, its 95 % interval (infinite for too few pairs), and the number of pairs."""

    value: float
    low: float
    high: float
    pairs: int

    @property
    def half(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        if not math.isfinite(self.half):
            return f"{math.expm1(self.value):+.1%} (too few pairs for an interval: {self.pairs})"
        ends = f"{math.expm1(self.low):+.1%} to {math.expm1(self.high):+.1%}"
        return f"{math.expm1(self.value):+.1%} ({ends}, {self.pairs} pairs)"


def rise_of(logs: Sequence[float]) -> Rise:
    """The mean of the logarithms and its expanded bootstrap interval."""
    n = len(logs)
    if n < LEAST:
        return Rise(float(np.mean(logs)) if logs else 0.0, -math.inf, math.inf, n)
    mean = float(np.mean(logs))
    low, high = bootstrap(logs, np.mean, DRAWS)
    wider = t_quantile(n - 1) / NORMAL_975 * math.sqrt(n / (n - 1))
    return Rise(mean, mean - wider * (mean - low), mean + wider * (high - mean), n)


def rise_between(now: Sequence[float], then: Sequence[float]) -> Rise:
    """The difference of the means of two separate runs; the halves of their intervals add in squares."""
    one, other = rise_of(now), rise_of(then)
    value = one.value - other.value
    under = math.hypot(one.value - one.low, other.high - other.value)
    over = math.hypot(one.high - one.value, other.value - other.low)
    return Rise(value, value - under, value + over, min(one.pairs, other.pairs))


def outcome_of(rise: Rise, tolerance: float) -> Outcome:
    """What one look at the data says."""
    limit, half = math.log1p(tolerance), math.log1p(tolerance / 2)
    if rise.low > half and rise.high >= limit:
        return "regression"
    if rise.high < -half and rise.low <= -limit:
        return "improvement"
    return "pass" if rise.high < limit else "inconclusive"


def settled(looks: Sequence[Outcome]) -> bool:
    """Whether no further pair is needed: the last look passes, or the last two agree on something else."""
    if not looks or looks[-1] == "inconclusive":
        return False
    return looks[-1] == "pass" or looks[-2:] == [looks[-1]] * 2


def pairs_to_decide(rise: Rise, tolerance: float) -> int | None:
    """About how many pairs in all would decide, if the rise stays what it is; None where more would not help."""
    limit, half = math.log1p(tolerance), math.log1p(tolerance / 2)
    distance = max(limit - rise.value, rise.value - half)
    if not math.isfinite(rise.half) or distance <= 0:
        return None
    return max(rise.pairs + 1, math.ceil(rise.pairs * (rise.half / distance) ** 2))


def resolution_of(rises: Sequence[Rise]) -> float:
    """The tolerance that nine of ten units would decide on with as many pairs: two halves, by `outcome_of`."""
    halves = sorted(rise.half for rise in rises)
    return math.expm1(2 * halves[min(len(halves) - 1, math.ceil(0.9 * len(halves)) - 1)]) if halves else math.inf
