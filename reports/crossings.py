"""Sizes at which one cost falls below another: crossings of two laws that may both be trusted, with intervals."""

import math
from dataclasses import dataclass

import numpy as np

from harness.records.statistics import Floats, middle
from reports.laws import EXACT, TARGET, Fit, costs_of


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
    """One cost against another between two sizes in pixels: equal, or cheaper at the smallest or not, and crossings."""

    smallest: float
    largest: float
    equal: bool
    cheaper_at_first: bool
    crossings: tuple[Crossing, ...]


def compared(mine: Fit, other: Fit) -> Comparison | None:
    """Where `mine` is cheaper than `other`; None where one of them has no law, or one that is in doubt."""
    if mine.law is None or other.law is None or mine.doubt or other.doubt:
        return None
    smallest = float(max(mine.points[0].case.pixels, other.points[0].case.pixels))
    taken = min(mine.points[-1].case.pixels, other.points[-1].case.pixels)
    largest = min(mine.furthest, other.furthest, float(TARGET))
    gap_3 = mine.law.array_3 - other.law.array_3
    ends = [abs(costs_of(gap_3[None], np.array([n]))[0, 0]) / other.law.at(n) for n in (smallest, largest)]
    if max(ends) < EXACT:
        return Comparison(smallest, largest, True, False, ())
    gaps_D3 = _gaps(mine, other)
    found = []
    for cheaper in (True, False):
        pixels = float(_root(gap_3[None], cheaper)[0])
        if smallest < pixels <= largest:
            low, high = middle(_roots_near(gaps_D3, pixels, cheaper))
            found.append(Crossing(cheaper, pixels, min(low, pixels), max(high, pixels), pixels > taken))
    found.sort(key=lambda crossing: crossing.pixels)
    first = not found[0].cheaper if found else bool(costs_of(gap_3[None], np.array([largest]))[0, 0] < 0)
    return Comparison(smallest, largest, False, first, tuple(found))


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
    crossed_D = (costs_of(gaps_D3, np.array([pixels]))[:, 0] < 0) == cheaper
    return np.where(np.isnan(roots_D), np.where(crossed_D, 0.0, math.inf), roots_D)
