"""In short: what every variant saves and what it loses against self-attention, said as far as intervals carry.

Scores of the same prompts and seeds are compared in pairs. A score is lost, or gained, where the whole 95 % interval of
the difference lies on one side; everything else is open, and more images may tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.records.case import Resolution
from harness.records.comparison import difference
from harness.records.units import human, ratio, spoken
from reports.compare import REFERENCE, Group, Point, Series
from reports.tables import against

COSTS = (("latency_ratio", "latency"), ("flops",), ("peak_memory", "projected_memory"))
"""What is told of the price: the first of each that was taken of both."""
ENOUGH = 512


@dataclass(frozen=True)
class Finding:
    """One variant at one size: the verdict on its scores, their differences, the ratios of its costs."""

    series: Series
    verdict: str
    tone: str
    scores: tuple[str, ...]
    costs: tuple[str, ...]


@dataclass(frozen=True)
class Brief:
    """A model at one size; `advice` says what would tell more, where something is open."""

    model: str
    resolution: Resolution
    rows: tuple[Finding, ...]
    advice: str


def briefs(own: Sequence[Group]) -> list[Brief]:
    """Of one model's groups: every size with scores, or else the largest with costs."""
    scored = [group for group in own if not group.is_cost and group.better != "neither"]
    sizes = _sizes(scored) or _sizes(own)[-1:]
    made = [_brief(own, scored, size) for size in sizes]
    return [brief for brief in made if brief.rows]


def _sizes(found: Sequence[Group]) -> list[Resolution]:
    taken = [point.record for group in found for point in group.points if point.reading.value is not None]
    return sorted({record.case.resolution for record in taken})


def _brief(own: Sequence[Group], scored: Sequence[Group], size: Resolution) -> Brief:
    order = dict.fromkeys(series for group in scored or own for series in group.at(size))
    rows = tuple(_finding(own, scored, series, size) for series in order if series.variant != REFERENCE)
    n = min((point.reading.n for group in scored for point in group.at(size).values()), default=ENOUGH)
    is_open = any(row.scores and not row.tone for row in rows) and n < ENOUGH
    again = f"take them again with n={ENOUGH} models=[{own[0].model}] resolutions=[{size}]"
    advice = f"What {n} images leave open, {ENOUGH} may tell: {again}" if is_open else ""
    return Brief(own[0].model, size, rows, advice)


def _finding(own: Sequence[Group], scored: Sequence[Group], series: Series, size: Resolution) -> Finding:
    lost: list[str] = []
    gained: list[str] = []
    told: list[str] = []
    for name in dict.fromkeys(group.name for group in scored):
        pair = _pair([group for group in scored if group.name == name], series, size)
        if pair is None:
            continue
        group, mine, other = pair
        between = difference(mine.reading, other.reading)
        if between is None:
            continue
        low, value, high = between.low, between.value, between.high
        ends = (_signed(end, group.unit).removesuffix(" points") for end in (low, high))
        told.append(f"{spoken(name)} {_signed(value, group.unit)} ({' to '.join(ends)})")
        if low > 0 or high < 0:
            (gained if (low > 0) == (group.better == "higher") else lost).append(spoken(name))
    verdict = " and ".join(
        f"{verb} {', '.join(names)}" for verb, names in (("loses", lost), ("gains", gained)) if names
    )
    silent = "not told apart" if told else "no scores taken"
    tone = "worse" if lost else "better" if gained else ""
    return Finding(series, verdict or silent, tone, tuple(told), _costs(own, series, size))


def _costs(own: Sequence[Group], series: Series, size: Resolution) -> tuple[str, ...]:
    told = []
    for names in COSTS:
        pairs = (_pair([group for group in own if group.name == name], series, size) for name in names)
        pair = next((pair for pair in pairs if pair is not None), None)
        if pair is None:
            continue
        group, mine, other = pair
        low, value, high = _itself(mine) if group.name == "latency_ratio" else against(mine, other)
        ends = f" ({ratio(low)} to {ratio(high)})" if low < high else ""
        told.append(f"{spoken(group.name.removesuffix('_ratio'))} {ratio(value)}{ends}")
    return tuple(told)


def _itself(point: Point) -> tuple[float, float, float]:
    """Of a reading that is a ratio to the reference already."""
    value = float(point.reading.value or 0)
    low, high = point.reading.low, point.reading.high
    return (value, value, value) if low is None or high is None else (low, value, high)


def _pair(same: Sequence[Group], series: Series, size: Resolution) -> tuple[Group, Point, Point] | None:
    """The first group in which both the variant and the reference have a number at a size."""
    for group in same:
        points = group.at(size)
        mine = points.get(series) or points.get(series.at_any_weights)
        other = next((point for each, point in points.items() if each.variant == REFERENCE), None)
        if (
            mine is not None
            and other is not None
            and mine.reading.value is not None
            and other.reading.value is not None
        ):
            return group, mine, other
    return None


def _signed(value: float, unit: str) -> str:
    """A difference in words; of shares it is in percentage points."""
    size = f"{100 * abs(value):.2g} points" if unit == "share" else human(abs(value), unit, 2)
    return ("+" if value > 0 else "−" if value < 0 else "") + size
