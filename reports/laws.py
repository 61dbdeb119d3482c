"""Laws of cost: a + bN + cN² through the readings of a variant, N pixels, checked on a size that they did not see.

The fit is least squares on relative errors, sum over sizes of (law(N) / cost - 1)², with no coefficient below zero
(Lawson and Hanson, Solving Least Squares Problems, chapter 23; of three unknowns all seven supports are tried, so the
best is found). What is counted (FLOPs) lies on such a law to the last digit once every mixer is what it says: where a
window is clamped at the smallest sizes, the law begins above them and says so.

How far a law may be trusted is shown twice: by the error of its prediction for the largest size, fitted without it, and
by refits that leave one size out each, of what was measured on draws: medians of resampled raw samples where they were
kept, or else from a log-normal law with the reading's own interval. All intervals come from those.
Shapes: D draws (refits), N sizes, 3 coefficients, K of them in a support.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from harness.records.record import Reading
from harness.records.statistics import NORMAL_975, middle, resampled
from reports.compare import Group, GroupKey, Point, Series

Floats = NDArray[np.float64]
SUPPORTS = tuple(s for size in (1, 2, 3) for s in itertools.combinations(range(3), size))
"""Which coefficients may differ from zero, the fewest first."""
NEEDED = 3
"""Sizes that three coefficients need; one more, and the law can be checked."""
TARGET = 16384**2
EXACT = 1e-9
DRAWS = 400
UNITS = ("FLOP", "byte", "ms")


@dataclass(frozen=True)
class Law:
    """cost(N) = fixed + linear N + quadratic N², N pixels, in the unit of its readings."""

    fixed: float
    linear: float
    quadratic: float

    def at(self, pixels: float) -> float:
        """The cost of an image of so many pixels."""
        return self.fixed + self.linear * pixels + self.quadratic * pixels**2


@dataclass(frozen=True)
class Estimate:
    """A value that was computed and not measured, with its range."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """A variant's law, or the reason why there is none.

    points: the readings it goes through; before: smaller ones that are not on it yet. error: its largest relative error
    at its own points; held_out: that of its prediction for the largest, fitted without it (None: too few sizes).
    """

    series: Series
    points: tuple[Point, ...]
    before: tuple[Point, ...] = ()
    law: Law | None = None
    error: float = 0.0
    held_out: float | None = None
    reason: str = ""
    refits_D3: Floats = field(default_factory=lambda: np.zeros((0, 3)), compare=False, repr=False)

    @property
    def exact(self) -> bool:
        """Whether it meets its points, and the largest unseen, up to rounding."""
        return self.held_out is not None and max(self.error, abs(self.held_out)) < EXACT

    def projected(self, pixels: float) -> Estimate | None:
        """The cost at a size that was not taken; None where the law could not be checked."""
        if self.law is None or self.held_out is None:
            return None
        low, high = middle(self.refits_D3 @ np.array([1.0, pixels, pixels**2]))
        value = self.law.at(pixels)
        return Estimate(value, min(low, value), max(high, value))


@dataclass(frozen=True)
class Crossing:
    """The size from which on one variant is cheaper (or dearer) than another; low may be 0, high infinite."""

    cheaper: bool
    pixels: float
    low: float
    high: float
    projected: bool


@dataclass(frozen=True)
class Comparison:
    """One cost against another, from `smallest` pixels to TARGET: equal; or cheaper at first, or not, and crossings."""

    smallest: int
    equal: bool
    cheaper_at_first: bool
    crossings: tuple[Crossing, ...]


def laws(found: Sequence[Group]) -> dict[GroupKey, dict[Series, Fit]]:
    """A fit for every variant of every group of costs."""
    costs = [group for group in found if group.is_cost and group.unit in UNITS]
    return {group.key: {series: fit(series, points) for series, points in group.series.items()} for group in costs}


def fit(series: Series, points: Sequence[Point]) -> Fit:
    """The law of one variant's points, in order of pixels."""
    taken = [p for p in points if p.reading.value is not None and p.reading.value > 0]
    sizes = sorted({p.case.pixels for p in taken})
    if len(sizes) < NEEDED:
        have = f"{len(sizes)} {'has' if len(sizes) == 1 else 'have'}"
        return Fit(series, tuple(taken), reason=f"a law needs numbers at {NEEDED} sizes, {have} one")
    whole = _fit(series, taken)
    if not all(_is_counted(p.reading) for p in taken):
        return whole
    later = (_fit(series, [p for p in taken if p.case.pixels >= size]) for size in sizes[:-NEEDED])
    best = next((one for one in later if one.exact), whole)
    return replace(best, before=tuple(p for p in taken if p not in best.points))


def _is_counted(reading: Reading) -> bool:
    return reading.unit == "FLOP" or reading.name.startswith("projected_")


def _fit(series: Series, points: Sequence[Point]) -> Fit:
    pixels_N = np.array([p.case.pixels for p in points], dtype=np.float64)
    costs_N = np.array([p.reading.value for p in points], dtype=np.float64)
    found_3 = coefficients(pixels_N, costs_N[None])[0]
    law = Law(*(float(value) for value in found_3))
    off_N = _costs(found_3[None], pixels_N)[0] / costs_N - 1
    smaller_N = pixels_N < pixels_N.max()
    held_out: float | None = None
    if len(set(pixels_N[smaller_N])) >= NEEDED:
        unseen_3 = coefficients(pixels_N[smaller_N], costs_N[None, smaller_N])
        off = _costs(unseen_3, pixels_N[~smaller_N])[0] / costs_N[~smaller_N] - 1
        held_out = float(off[np.abs(off).argmax()])
    refits_D3 = _refits(series, points, pixels_N, costs_N)
    return Fit(series, tuple(points), (), law, float(np.abs(off_N).max()), held_out, refits_D3=refits_D3)


def coefficients(pixels_N: Floats, costs_DN: Floats) -> Floats:
    """The best non-negative (a, b, c) of every row of costs (D, 3); the sparser of two that are equally good."""
    scale = pixels_N.max()
    powers_N3 = (pixels_N[:, None] / scale) ** np.arange(3)
    best_D3 = np.zeros((len(costs_DN), 3))
    least_D = np.full(len(costs_DN), np.inf)
    for support in SUPPORTS:
        solved_DK, loss_D = _solved(powers_N3[None, :, support] / costs_DN[:, :, None])
        better_D = (solved_DK >= 0).all(axis=1) & (loss_D < least_D * (1 - 1e-6) - (EXACT / 100) ** 2)
        solved_D3 = np.zeros_like(best_D3)
        solved_D3[:, support] = solved_DK
        best_D3[better_D], least_D[better_D] = solved_D3[better_D], loss_D[better_D]
    found_D3: Floats = best_D3 / scale ** np.arange(3)
    return found_D3


def _solved(design_DNK: Floats) -> tuple[Floats, Floats]:
    """Least squares of design @ x = 1, columns brought to one length first; the solutions and their losses."""
    length_DK = np.linalg.norm(design_DNK, axis=1)
    scaled_DNK = design_DNK / length_DK[:, None]
    solved_DK = np.linalg.pinv(scaled_DNK).sum(axis=2)
    off_DN = (scaled_DNK @ solved_DK[:, :, None])[:, :, 0] - 1
    return solved_DK / length_DK, (off_DN**2).sum(axis=1)


def _refits(series: Series, points: Sequence[Point], pixels_N: Floats, costs_N: Floats) -> Floats:
    """Coefficients fitted anew without each size in turn (where enough are left), on draws of what was measured."""
    sizes = sorted(set(pixels_N))
    kept = [pixels_N != size for size in sizes] if len(sizes) > NEEDED else [pixels_N > 0]
    varying = any(len(p.reading.samples) > 1 or _spread(p) for p in points)
    each = max(1, DRAWS // len(kept)) if varying else 1
    seed = int.from_bytes(hashlib.sha256(series.label.encode()).digest()[:4])
    source = np.random.default_rng(seed)
    found = []
    for kept_N in kept:
        columns = [_drawn(p, cost, each, source) for p, cost in zip(points, costs_N, strict=True)]
        found.append(coefficients(pixels_N[kept_N], np.stack(columns, axis=1)[:, kept_N]))
    return np.concatenate(found)


def _drawn(point: Point, cost: float, draws: int, source: np.random.Generator) -> Floats:
    """Medians of samples drawn with replacement, about the cost whichever of them it is (a peak is the least); without
    samples by the interval, and where there is none the cost itself.
    """
    samples = point.reading.samples
    if len(samples) < 2:
        return cost * np.exp(_spread(point) * source.standard_normal(draws))
    medians_D = resampled(samples, np.median, draws, source)
    return medians_D * cost / np.median(medians_D)


def _spread(point: Point) -> float:
    """Standard deviation of the logarithm that a 95 % interval stands for; 0 where there is none."""
    low, high = point.reading.low, point.reading.high
    return math.log(high / low) / (2 * NORMAL_975) if low and high and 0 < low < high else 0.0


def compared(mine: Fit, other: Fit) -> Comparison | None:
    """Where `mine` is cheaper than `other`; None where one of them has no law that could be checked."""
    if mine.law is None or other.law is None or mine.held_out is None or other.held_out is None:
        return None
    smallest = max(mine.points[0].record.case.pixels, other.points[0].record.case.pixels)
    largest = min(mine.points[-1].record.case.pixels, other.points[-1].record.case.pixels)
    gap_3 = np.array([vars(mine.law)[name] - vars(other.law)[name] for name in ("fixed", "linear", "quadratic")])
    ends = [abs(_costs(gap_3[None], np.array([n]))[0, 0]) / other.law.at(n) for n in (float(smallest), float(TARGET))]
    if max(ends) < EXACT:
        return Comparison(smallest, True, False, ())
    gaps_D3 = _gaps(mine, other)
    found = []
    for cheaper in (True, False):
        pixels = float(_root(gap_3[None], cheaper)[0])
        if smallest < pixels <= TARGET:
            low, high = middle(_roots_near(gaps_D3, pixels, cheaper))
            found.append(Crossing(cheaper, pixels, min(low, pixels), max(high, pixels), pixels > largest))
    found.sort(key=lambda crossing: crossing.pixels)
    first = not found[0].cheaper if found else bool(_costs(gap_3[None], np.array([float(TARGET)]))[0, 0] < 0)
    return Comparison(smallest, False, first, tuple(found))


def _gaps(mine: Fit, other: Fit) -> Floats:
    """Differences of the refits, one by one; the shorter list is gone through again."""
    count = max(len(mine.refits_D3), len(other.refits_D3))
    rows = np.arange(count)
    gaps_D3: Floats = mine.refits_D3[rows % len(mine.refits_D3)] - other.refits_D3[rows % len(other.refits_D3)]
    return gaps_D3


def _root(gap_D3: Floats, cheaper: bool) -> Floats:
    """The positive N where a + bN + cN² changes sign, downward for `cheaper`; NaN where it never does."""
    a_D, b_D, c_D = gap_D3.T
    with np.errstate(all="ignore"):
        q_D = -(b_D + np.copysign(np.sqrt(b_D**2 - 4 * a_D * c_D), b_D)) / 2
        roots_D2 = np.stack([q_D / c_D, a_D / q_D], axis=1)
        slope_D2 = b_D[:, None] + 2 * c_D[:, None] * roots_D2
        fits_D2 = (slope_D2 < 0 if cheaper else slope_D2 > 0) & np.isfinite(roots_D2) & (roots_D2 > 0)
    found_D: Floats = np.where(fits_D2.any(axis=1), np.where(fits_D2, roots_D2, 0).max(axis=1), np.nan)
    return found_D


def _roots_near(gaps_D3: Floats, pixels: float, cheaper: bool) -> Floats:
    """The same for every draw; where one never crosses, 0 or infinity: it has crossed already, or will not."""
    roots_D = _root(gaps_D3, cheaper)
    crossed_D = (_costs(gaps_D3, np.array([pixels]))[:, 0] < 0) == cheaper
    return np.where(np.isnan(roots_D), np.where(crossed_D, 0.0, math.inf), roots_D)


def _costs(coefficients_D3: Floats, pixels_N: Floats) -> Floats:
    costs_DN: Floats = coefficients_D3 @ pixels_N[None] ** np.arange(3)[:, None]
    return costs_DN


def through(pixels: Sequence[int], costs: Sequence[float]) -> Law:
    """The law through costs without samples; with fewer than three sizes the sparsest that meets them."""
    found_3 = coefficients(np.array(pixels, dtype=np.float64), np.array([costs], dtype=np.float64))[0]
    return Law(*(float(value) for value in found_3))
