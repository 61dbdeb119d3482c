"""Laws of cost: a + bN + cN² through the readings of a variant, N pixels, checked on a size that they did not see.

The fit is least squares on relative errors, sum over sizes of (law(N) / cost - 1)², with no coefficient below zero
(Lawson and Hanson, Solving Least Squares Problems, chapter 23; with few unknowns all supports are tried). What is
counted lies on such a law to the last digit, from the size on at which no window is clamped. What is measured takes its
shape from what was counted, where there is such a law: a call's time is p + q times its FLOPs, its peak p + q times the
projected one.

A law is checked by its prediction for the largest size, fitted without it. Its intervals come from refits that leave
one size out each, on draws of what was measured: medians of resampled raw samples, or a log-normal with the reading's
interval. A measured law that is more than a quarter off at the unseen size says nothing, and none says anything beyond
four times the pixels taken. Shapes: D draws (refits), N sizes, C columns (unknowns), K of them in a support.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.records.statistics import NORMAL_975, Floats, middle, resampled
from reports.compare import REFERENCE, Group, GroupKey, Point, Series
from reports.ratios import Ratios, disturbance, is_counted

NEEDED = 3
"""Sizes that three coefficients need; one more, and the law can be checked."""
NEEDED_OF_A_SHAPE = 2
TARGET = 16384**2
EXACT = 1e-9
TRUSTED = 0.25
"""Largest error at an unseen size of a law that is believed."""
FURTHEST = 4
"""Times the pixels of the largest size that a measured law is carried beyond it."""
DRAWS = 400
UNITS = ("FLOP", "byte", "ms")
SHAPES = {
    "latency": "flops",
    "image_latency": "flops_image",
    "mixers_latency": "flops_mixers",
    "peak_memory": "projected_memory",
}
"""What is measured, and what is counted that it follows."""


@dataclass(frozen=True)
class Law:
    """cost(N) = fixed + linear N + quadratic N², N pixels, in the unit of its readings."""

    fixed: float
    linear: float
    quadratic: float

    @classmethod
    def of(cls, found_3: Floats) -> "Law":
        return cls(*(float(value) for value in found_3))

    @property
    def array_3(self) -> Floats:
        return np.array([self.fixed, self.linear, self.quadratic])

    def at(self, pixels: float) -> float:
        """The cost of an image of so many pixels."""
        return self.fixed + self.linear * pixels + self.quadratic * pixels**2


@dataclass(frozen=True)
class Projection:
    """A cost that was computed and not measured, with its range."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """A variant's law, or the reason why there is none.

    points: the readings it goes through; before: smaller ones that lie off it. error: the largest relative error at its
    points; held_out: that of its prediction for the largest, fitted without it (None: too few sizes).
    """

    series: Series
    points: tuple[Point, ...]
    before: tuple[Point, ...] = ()
    law: Law | None = None
    error: float = 0.0
    held_out: float | None = None
    reason: str = ""
    needed: int = NEEDED
    refits_D3: Floats = field(default_factory=lambda: np.zeros((0, 3)), compare=False, repr=False)

    @property
    def exact(self) -> bool:
        """Whether it meets its points, and the largest unseen, up to rounding."""
        return self.held_out is not None and max(self.error, abs(self.held_out)) < EXACT

    @property
    def counted(self) -> bool:
        """Whether what it goes through was computed and not measured."""
        return all(is_counted(point.reading) for point in self.points)

    @property
    def doubt(self) -> str:
        """Why nothing is concluded from it; empty where something is."""
        if self.law is None:
            return self.reason
        if self.held_out is None:
            return (
                f"{self.needed} sizes always lie on a law: to check it, to project and to compare takes "
                f"{self.needed + 1}"
            )
        if not self.counted and abs(self.held_out) > TRUSTED:
            return f"its prediction for a size that it had not seen was {abs(self.held_out):.0%} off: it is not trusted"
        return ""

    @property
    def furthest(self) -> float:
        """The most pixels that it says anything of."""
        return math.inf if self.counted else FURTHEST * self.points[-1].case.pixels

    def projected(self, pixels: float) -> Projection | None:
        """The cost at a size that was not taken; None where the law is in doubt or that is too far."""
        if self.law is None or self.doubt or pixels > self.furthest:
            return None
        low, high = middle(self.refits_D3 @ np.array([1.0, pixels, pixels**2]))
        value = self.law.at(pixels)
        return Projection(value, min(low, value), max(high, value))


def laws(found: Sequence[Group]) -> dict[GroupKey, dict[Series, Fit]]:
    """A fit for every variant of every group of costs of one model."""
    costs = [group for group in found if group.is_cost and group.unit in UNITS]
    counted = [group for group in costs if group.name not in SHAPES]
    ratios = Ratios(found)
    made = {group.key: {series: fit(series, points) for series, points in group.series.items()} for group in counted}
    for group in (group for group in costs if group.name in SHAPES):
        shapes = [made[other.key] for other in counted if other.name == SHAPES[group.name]]
        largest: dict[Series, Fit] = max(shapes, key=len, default={})
        made[group.key] = {
            series: fit(series, [_beside(group, p, series, ratios) for p in points], largest.get(series))
            for series, points in group.series.items()
        }
    return made


def _beside(group: Group, point: Point, series: Series, ratios: Ratios) -> Point:
    """A timing as the teacher's times the ratio that was taken in alternation, so that laws cross where ratios do."""
    ratio = ratios.of(group, series, point.case.resolution)
    reference = group.at(point.case.resolution).get(Series(REFERENCE))
    if ratio is None or ratio.basis != "alternation" or reference is None or not reference.reading.value:
        return point
    unit = reference.reading.value
    low, high = (None if end is None else unit * end for end in (ratio.low, ratio.high))
    details = {"noisy": ratio.disturbed or disturbance(reference.reading)}
    cost = replace(point.reading, value=unit * ratio.value, low=low, high=high, samples=(), details=details)
    return replace(point, reading=cost)


def fit(series: Series, points: Sequence[Point], shape: Fit | None = None) -> Fit:
    """The law of one variant's points, in order of pixels; `shape`: the exact law of what they follow."""
    all_taken = [p for p in points if p.reading.value is not None and p.reading.value > 0]
    taken = [p for p in all_taken if not disturbance(p.reading)]
    shape = shape if shape is not None and shape.exact else None
    if shape is not None:
        taken = [p for p in taken if p.case.pixels >= shape.points[0].case.pixels]
    needed = NEEDED if shape is None else NEEDED_OF_A_SHAPE
    sizes = sorted({p.case.pixels for p in taken})
    if len(sizes) < needed:
        have = f"{len(sizes)} {'has' if len(sizes) == 1 else 'have'}"
        quiet = " that nothing disturbed" if len(taken) < len(all_taken) else ""
        reason = f"a law needs numbers at {needed} sizes, {have} one{quiet}"
        return Fit(series, tuple(taken), reason=reason, needed=needed)
    best = _fit(series, taken, shape)
    if all(is_counted(p.reading) for p in taken):
        later = (_fit(series, [p for p in taken if p.case.pixels >= size], None) for size in sizes[1:-NEEDED])
        best = best if best.exact else next((one for one in later if one.exact), best)
        first = best.points[0].case.pixels
        best = replace(best, before=tuple(p for p in taken if p.case.pixels < first))
    return replace(best, refits_D3=_refits(best, shape.law if shape else None))


def _fit(series: Series, points: Sequence[Point], shape: Fit | None) -> Fit:
    pixels_N, costs_N = _arrays(points)
    of = None if shape is None else shape.law
    needed = NEEDED if of is None else NEEDED_OF_A_SHAPE
    found_3 = coefficients(pixels_N, costs_N[None], of)[0]
    off_N = costs_of(found_3[None], pixels_N)[0] / costs_N - 1
    smaller_N = pixels_N < pixels_N.max()
    held_out: float | None = None
    if len(set(pixels_N[smaller_N])) >= needed:
        unseen_3 = coefficients(pixels_N[smaller_N], costs_N[None, smaller_N], of)
        off = costs_of(unseen_3, pixels_N[~smaller_N])[0] / costs_N[~smaller_N] - 1
        held_out = float(off[np.abs(off).argmax()])
    return Fit(series, tuple(points), (), Law.of(found_3), float(np.abs(off_N).max()), held_out, needed=needed)


def _arrays(points: Sequence[Point]) -> tuple[Floats, Floats]:
    """Pixels and costs."""
    return np.array([p.case.pixels for p in points], float), np.array([p.reading.value for p in points], float)


def coefficients(pixels_N: Floats, costs_DN: Floats, shape: Law | None = None) -> Floats:
    """The best non-negative (a, b, c) of every row of costs (D, 3); the sparser of two that are equally good.

    With a shape s(N) it is the best p + q s(N), with p and q not negative.
    """
    if shape is None:
        scale = pixels_N.max()
        free_D3: Floats = _best(costs_DN, (pixels_N[:, None] / scale) ** np.arange(3)) / scale ** np.arange(3)
        return free_D3
    shape_N = costs_of(shape.array_3[None], pixels_N)[0]
    found_D2 = _best(costs_DN, np.stack([np.ones_like(shape_N), shape_N / shape_N.max()], axis=1))
    found_D3: Floats = found_D2[:, 1:] * shape.array_3 / shape_N.max()
    found_D3[:, 0] += found_D2[:, 0]
    return found_D3


def _best(costs_DN: Floats, columns_NC: Floats) -> Floats:
    """The non-negative weights of the columns with the least relative error."""
    count = columns_NC.shape[1]
    best_DC = np.zeros((len(costs_DN), count))
    least_D = np.full(len(costs_DN), np.inf)
    for size in range(1, count + 1):
        for support in itertools.combinations(range(count), size):
            solved_DK, loss_D = _solved(columns_NC[None, :, support] / costs_DN[:, :, None])
            better_D = (solved_DK >= 0).all(axis=1) & (loss_D < least_D * (1 - 1e-6) - (EXACT / 100) ** 2)
            solved_DC = np.zeros_like(best_DC)
            solved_DC[:, support] = solved_DK
            best_DC[better_D], least_D[better_D] = solved_DC[better_D], loss_D[better_D]
    return best_DC


def _solved(design_DNK: Floats) -> tuple[Floats, Floats]:
    """Least squares of design @ x = 1, columns brought to one length first; the solutions and their losses."""
    length_DK = np.linalg.norm(design_DNK, axis=1)
    scaled_DNK = design_DNK / length_DK[:, None]
    solved_DK = np.linalg.pinv(scaled_DNK).sum(axis=2)
    off_DN = (scaled_DNK @ solved_DK[:, :, None])[:, :, 0] - 1
    return solved_DK / length_DK, (off_DN**2).sum(axis=1)


def _refits(fitted: Fit, shape: Law | None) -> Floats:
    """Coefficients fitted anew without each size in turn (where enough are left), on draws of what was measured."""
    points, law = fitted.points, fitted.law
    if law is not None and fitted.exact and fitted.counted:
        return law.array_3[None]
    pixels_N, costs_N = _arrays(points)
    sizes = sorted(set(pixels_N))
    kept = [pixels_N != size for size in sizes] if len(sizes) > fitted.needed else [pixels_N > 0]
    varying = any(len(p.reading.samples) > 1 or _spread(p) for p in points)
    each = max(1, DRAWS // len(kept)) if varying else 1
    source = np.random.default_rng(int.from_bytes(hashlib.sha256(fitted.series.label.encode()).digest()[:4]))
    columns = [_drawn(p, cost, each * len(kept), source) for p, cost in zip(points, costs_N, strict=True)]
    parts = zip(kept, np.split(np.stack(columns, axis=1), len(kept)), strict=True)
    return np.concatenate([coefficients(pixels_N[kept_N], drawn_DN[:, kept_N], shape) for kept_N, drawn_DN in parts])


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
    return (point.reading.log_half_width or 0.0) / NORMAL_975


def costs_of(coefficients_D3: Floats, pixels_N: Floats) -> Floats:
    """What each of several laws says of each size."""
    costs_DN: Floats = coefficients_D3 @ pixels_N[None] ** np.arange(3)[:, None]
    return costs_DN


def through(pixels: Sequence[int], costs: Sequence[float]) -> Law:
    """The law through costs without samples; with fewer than three sizes the sparsest that meets them."""
    return Law.of(coefficients(np.array(pixels, float), np.array([costs], float))[0])
