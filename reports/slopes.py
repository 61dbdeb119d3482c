"""As images grow: by how much each score changes with a doubling of the pixels, and images of one prompt at every size.

The slope is that of the least-squares line of a score over the logarithm of the pixels. Its interval, paired over
prompts and seeds, tells how other prompts would move the line, not whether the line is straight. What counts is the
change beyond the teacher's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.records.by_key import grouped
from harness.records.case import Resolution
from harness.records.comparison import told_apart, weighted_sum
from harness.records.statistics import Estimate
from harness.records.units import DASH, spoken
from reports.compare import REFERENCE, Group, Point, Series, distinction
from reports.differences import signed
from reports.pictures import Picture, Sheet

HEADS = ("score", "variant", "sizes", "change per doubling of the pixels", "less the teacher's")
PROMPTS = 2
"""Whose images are shown at every size."""


@dataclass(frozen=True)
class Slope:
    """A variant's. apart: less the teacher's over the sizes of both; real: whether that is told apart from nothing."""

    series: Series
    sizes: tuple[Resolution, ...]
    own: Estimate
    apart: Estimate | None = None
    real: bool = False


@dataclass(frozen=True)
class Slopes:
    """Of one score of one model; `title` tells how it differs from others of its name."""

    title: str
    unit: str
    better: str
    protocol: str
    rows: tuple[Slope, ...]

    def words(self, row: Slope) -> tuple[str, str, str]:
        """Its sizes, its slope, and the difference."""
        apart = self._said(row.apart) if row.apart else DASH
        return f"{row.sizes[0]} to {row.sizes[-1]} px", self._said(row.own), apart

    def tone(self, row: Slope) -> str:
        """How a difference is coloured."""
        if not row.real or row.apart is None:
            return ""
        return "better" if (row.apart.value > 0) == (self.better == "higher") else "worse"

    def _said(self, one: Estimate) -> str:
        """`−1.2 (−1.4 to −1.0)`."""
        ends = (signed(end, self.unit).partition(" point")[0] for end in (one.low, one.high))
        return f"{signed(one.value, self.unit)} ({' to '.join(ends)})"


@dataclass(frozen=True)
class Ladder:
    """Images of one prompt: a row of them for each size."""

    prompt: str
    series: tuple[Series, ...]
    rows: tuple[tuple[Resolution, tuple[Picture, ...]], ...]


def slopes(own: Sequence[Group]) -> list[Slopes]:
    """Of one model's scores; their differences are told apart from nothing by Holm's rule over all of them."""
    found = [made for group in own if not group.is_cost and group.better != "neither" and (made := _slopes(group, own))]
    tested = [row for one in found for row in one.rows if row.apart]
    real = dict(zip(map(id, tested), told_apart([row.apart for row in tested if row.apart]), strict=True))
    return [replace(one, rows=tuple(replace(row, real=real.get(id(row), False)) for row in one.rows)) for one in found]


def _slopes(group: Group, own: Sequence[Group]) -> Slopes | None:
    """Of one score; None where no variant has it at two sizes."""
    taken = {series: points for series in group.series if len(points := _by_size(group, series)) > 1}
    teacher = next((points for series, points in taken.items() if series.variant == REFERENCE), {})
    rows = [row for series, points in taken.items() if (row := _slope(series, points, teacher))]
    note = distinction(group, own)
    title = f"{spoken(group.name)} ({note})" if note else spoken(group.name)
    return Slopes(title, group.unit, group.better, group.protocol, tuple(rows)) if rows else None


def _by_size(group: Group, series: Series) -> dict[Resolution, Point]:
    return {point.case.resolution: point for point in group.series[series] if point.reading.value is not None}


def _slope(series: Series, mine: dict[Resolution, Point], teacher: dict[Resolution, Point]) -> Slope | None:
    sizes = tuple(mine)
    own = _line([(mine, 1.0)], sizes)
    if own is None:
        return None
    shared = tuple(size for size in sizes if size in teacher)
    compared = series.variant != REFERENCE and len(shared) > 1
    return Slope(series, sizes, own, _line([(mine, 1.0), (teacher, -1.0)], shared) if compared else None)


def _line(summed: Sequence[tuple[dict[Resolution, Point], float]], sizes: Sequence[Resolution]) -> Estimate | None:
    """The slope by least squares of a sum of scores over the doublings of the pixels."""
    doublings = [math.log2(size.pixels) for size in sizes]
    middle = sum(doublings) / len(doublings)
    spread = sum((one - middle) ** 2 for one in doublings)
    if spread == 0:
        return None
    readings = [points[size].reading for points, _ in summed for size in sizes]
    weights = [sign * (one - middle) / spread for _, sign in summed for one in doublings]
    return weighted_sum(readings, weights)


def ladders(sheets: Sequence[Sheet]) -> list[Ladder]:
    """The first prompts of which every size has all images, of the settings that have most sizes."""
    most = max(grouped(sheets, lambda sheet: sheet.settings).values(), key=len, default=[])
    if len(most) < 2:
        return []
    series = tuple(one for one in most[0].series if all(one in sheet.series for sheet in most))
    rows = [{prompt: _of(series, sheet, cells) for prompt, cells in sheet.rows} for sheet in most]
    whole = [prompt for prompt in rows[0] if all(prompt in row and all(p.src for p in row[prompt]) for row in rows)]
    sizes = [sheet.resolution for sheet in most]
    return [
        Ladder(prompt, series, tuple((size, row[prompt]) for size, row in zip(sizes, rows, strict=True)))
        for prompt in whole[:PROMPTS]
    ]


def _of(series: Sequence[Series], sheet: Sheet, cells: Sequence[Picture]) -> tuple[Picture, ...]:
    """The pictures of some of a sheet's series."""
    return tuple(cells[sheet.series.index(one)] for one in series)
