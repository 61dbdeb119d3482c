"""Where does a series change its level? A piecewise constant fit in L1, as asv looks for steps in its histories.

Minimises sum |y - level| + penalty * (number of steps) exactly, by dynamic programming over the last step (Friedrich et
al. 2008, the L1 Potts functional). A level holds for a few points at least, so that a stray result is no step. The
penalty grows with the series' noise, the median jump between neighbours, and with the logarithm of its length.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heappushpop
from itertools import pairwise

SHORTEST = 3
"""Points that a level has to hold for, in a series with noise."""
STRICTNESS = 3.0
"""By simulation (tests/regression/test_steps.py): one series of noise in fifty shows a step."""


@dataclass(frozen=True)
class Step:
    """A new level: index of its first point, the level before and from there on."""

    index: int
    before: float
    after: float


def steps_of(values: Sequence[float]) -> list[Step]:
    """The steps of a series, the oldest first; none in fewer than two points."""
    n = len(values)
    jumps = [abs(b - a) for a, b in pairwise(values)]
    noise = statistics.median(jumps) if jumps else 0.0
    shortest = SHORTEST if noise > 0 else 1
    if n < 2 * shortest:
        return []
    penalty = STRICTNESS * noise * math.log(n + 10) or 1e-12 * max(1.0, *map(abs, values))
    starts = _starts(values, penalty, shortest)
    levels = [statistics.median(values[a:b]) for a, b in pairwise([*starts, n])]
    return [Step(at, old, new) for at, (old, new) in zip(starts[1:], pairwise(levels), strict=True) if old != new]


def _starts(values: Sequence[float], penalty: float, shortest: int) -> list[int]:
    """First indices of the segments of the best fit."""
    n = len(values)
    best, last = [-penalty] + [math.inf] * n, [0] * (n + 1)
    for start in range(n):  # whatever ends at `start` is known by now
        for length, spread in enumerate(_spreads(values[start:]), 1):
            cost = best[start] + penalty + spread
            if length >= shortest and cost < best[start + length]:
                best[start + length], last[start + length] = cost, start
    starts = [n]
    while starts[0] > 0:
        starts.insert(0, last[starts[0]])
    return starts[:-1]


def _spreads(values: Sequence[float]) -> Iterator[float]:
    """Sum of the distances from the median, of the first value, the first two and so on, by two heaps."""
    below: list[float] = []  # negated, the largest first
    above: list[float] = []
    low = high = 0.0
    for value in values:
        moved = -heappushpop(below, -value)
        heappush(above, moved)
        low, high = low + value - moved, high + moved
        if len(above) > len(below):
            moved = heappop(above)
            heappush(below, -moved)
            low, high = low + moved, high - moved
        middle = -below[0]
        yield max(0.0, high - middle * len(above) + middle * len(below) - low)
