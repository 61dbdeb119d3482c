"""The section of laws: one table a model, a row for every variant and cost, and where the variants cross."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.records.units import DASH, human, spoken
from reports.compare import REFERENCE, Group, GroupKey, Series, distinction
from reports.crossings import Comparison, Crossing, compared
from reports.laws import EXACT, FURTHEST, TARGET, Fit
from reports.tables import Cell

MEGAPIXEL = 1e6


@dataclass(frozen=True)
class LawRows:
    """The laws of one comparable group; `pairs` says in words how the variants other than the reference cross."""

    title: str
    note: str
    protocol: str
    rows: tuple[tuple[Series, tuple[Cell, ...]], ...]
    pairs: tuple[str, ...]


@dataclass(frozen=True)
class LawTable:
    """All laws of a model, and why there are dashes: the footnotes."""

    parts: tuple[LawRows, ...]
    reasons: tuple[str, ...]


def law_table(found: Sequence[Group], laws: Mapping[GroupKey, Mapping[Series, Fit]]) -> LawTable | None:
    """The laws of one model's groups; None where no cost was taken at enough sizes for any."""
    held = [group for group in found if any(fit.law for fit in laws.get(group.key, {}).values())]
    parts = tuple(_part(group, laws[group.key], found) for group in held)
    cells = (cell for part in parts for _, row in part.rows for cell in row)
    return LawTable(parts, tuple(dict.fromkeys(c.reason for c in cells if c.reason))) if parts else None


def _part(group: Group, fits: Mapping[Series, Fit], found: Sequence[Group]) -> LawRows:
    reference = fits.get(Series(REFERENCE))
    rows = tuple((series, _row(fit, reference, group.unit)) for series, fit in fits.items())
    return LawRows(spoken(group.name), distinction(group, found), group.protocol, rows, tuple(_pairs(fits)))


def _row(fit: Fit, reference: Fit | None, unit: str) -> tuple[Cell, ...]:
    """Three coefficients, the sizes, two errors, the projection, and where it is cheaper than the reference."""
    if fit.law is None:
        return (Cell(DASH, reason=fit.reason),) * 8
    if not fit.counted and fit.held_out is not None and fit.doubt:
        dash = Cell(DASH, reason=fit.doubt)
        return (dash, dash, dash, _sizes(fit), _error(fit), _held_out(fit), dash, dash)
    values = (fit.law.fixed, fit.law.linear * MEGAPIXEL, fit.law.quadratic * MEGAPIXEL**2)
    coefficients = (Cell(human(value, unit) if value else "0", raw=value) for value in values)
    return (*coefficients, _sizes(fit), _error(fit), _held_out(fit), _target(fit, unit), _versus(fit, reference))


def _sizes(fit: Fit) -> Cell:
    names = [str(p.case.resolution) for p in fit.points]
    before = ", ".join(str(p.case.resolution) for p in fit.before)
    return Cell(f"{names[0]} to {names[-1]}", (f"{len(names)} sizes", *([f"{before} not on it yet"] if before else [])))


def _error(fit: Fit) -> Cell:
    if fit.held_out is None:
        return Cell(DASH, reason=fit.doubt)
    return Cell("exact" if fit.error < EXACT else f"{fit.error:.2%}", raw=fit.error)


def _held_out(fit: Fit) -> Cell:
    if fit.held_out is None:
        return Cell(DASH, reason=fit.doubt)
    text = "exact" if abs(fit.held_out) < EXACT else f"{fit.held_out:+.2%}".replace("-", "−")
    return Cell(text, (f"at {fit.points[-1].record.case.resolution} px",), fit.held_out)


def _target(fit: Fit, unit: str) -> Cell:
    """The cost at the target, or where the law ends if that is nearer."""
    taken = next((p.reading.value for p in fit.points if p.case.pixels == TARGET), None)
    if taken is not None:
        return Cell(human(taken, unit), ("taken, not projected",), taken)
    pixels = min(TARGET, fit.furthest)
    seen = fit.projected(pixels)
    if seen is None:
        return Cell(DASH, reason=fit.doubt)
    said = "projected" if pixels == TARGET else f"projected to {side(pixels)} px, {FURTHEST} times the pixels taken"
    ends = "" if seen.high - seen.low <= EXACT * seen.value else f"{human(seen.low, unit)} to {human(seen.high, unit)}"
    return Cell(human(seen.value, unit), tuple(line for line in (said, ends) if line), seen.value)


def _versus(fit: Fit, reference: Fit | None) -> Cell:
    if reference is None or fit.series == reference.series:
        return Cell("", raw=0)
    seen = compared(fit, reference)
    if seen is None:
        return Cell(DASH, reason=fit.doubt or f"{REFERENCE}: {reference.doubt}")
    return Cell(where(seen, fit.counted), tuple(filter(None, map(_interval, seen.crossings))), 0)


def where(seen: Comparison, counted: bool) -> str:
    """`from 412 px`: the sizes at which one is cheaper than the other."""
    if seen.equal:
        return "same cost"
    sides = [f"{side(crossing.pixels)} px" for crossing in seen.crossings]
    if not sides:
        ends = "" if counted else f" from {side(seen.smallest)} to {side(seen.largest)} px"
        return f"at {'every' if seen.cheaper_at_first else 'no'} size{ends}"
    if len(sides) == 1:
        return f"{'up to' if seen.cheaper_at_first else 'from'} {sides[0]}"
    return f"up to {sides[0]}, from {sides[1]}" if seen.cheaper_at_first else f"from {sides[0]} to {sides[1]}"


def _interval(crossing: Crossing) -> str:
    """`380 to 450 px, projected`; empty where there is nothing to say."""
    ends = ""
    if crossing.high - crossing.low > EXACT * crossing.pixels:
        low = side(crossing.low) if crossing.low else "any size"
        ends = f"{low} to {side(crossing.high)} px" if math.isfinite(crossing.high) else f"{low} or never"
    return ", ".join(part for part in (ends, "projected" if crossing.projected else "") if part)


def _pairs(fits: Mapping[Series, Fit]) -> list[str]:
    """`deltaconv is cheaper than linfusion from 730 px (600 to 900)`, for every pair without the reference."""
    names = [series for series in fits if series.variant != REFERENCE]
    pairs = ((one, other) for index, one in enumerate(names) for other in names[index + 1 :])
    return [said for one, other in pairs if (said := _pair(fits, one, other))]


def _pair(fits: Mapping[Series, Fit], one: Series, other: Series) -> str:
    seen = compared(fits[one], fits[other])
    if seen is None:
        return ""
    if seen.equal:
        return f"{one.label} has the same cost as {other.label}"
    ends = "; ".join(filter(None, map(_interval, seen.crossings)))
    said = f"{one.label} is cheaper than {other.label} {where(seen, fits[one].counted)}"
    return f"{said} ({ends})" if ends else said


def side(pixels: float) -> str:
    """The side of a square of so many pixels."""
    return f"{math.sqrt(pixels):.0f}"
