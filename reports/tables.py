"""Tables out of records: the long table of all readings, and the summary of every variant against self-attention.

A ratio's interval divides the ends of the two intervals (low by high, high by low): it is wider than a paired one, and
needs nothing but what the records hold.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.units import DASH, human, ratio, spoken, with_interval
from reports.compare import (
    REFERENCE,
    Group,
    Point,
    Series,
    distinction,
    groups,
    machine_name,
    mixers,
    name_order,
    series_of,
    series_order,
)
from reports.read import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cell:
    """What one cell says: the main text, a smaller one, the raw value, and the reason of a dash."""

    text: str
    small: tuple[str, ...] = ()
    raw: float | int | None = None
    tone: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Column:
    """One comparable group as a column; `note` says how it differs from others of its name."""

    title: str
    name: str
    unit: str
    better: str
    protocol: str
    is_cost: bool
    note: str


@dataclass(frozen=True)
class Block:
    """One summary table: a model at a resolution; layer 0 holds the fullest group of each reading."""

    model: str
    resolution: Resolution
    layer: int
    columns: tuple[Column, ...]
    rows: tuple[tuple[Series, tuple[Cell, ...]], ...]

    @property
    def filled(self) -> int:
        """Number of cells with a value."""
        return sum(cell.raw is not None for _, cells in self.rows for cell in cells)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why there are dashes, each reason once: the footnotes of the table."""
        return tuple(dict.fromkeys(cell.reason for _, cells in self.rows for cell in cells if cell.reason))


def summary(records: Sequence[Record]) -> list[Block]:
    """Every model and resolution as one table, or several where a reading was taken under unlike protocols."""
    blocks = []
    everything, words = groups(records), mixers(records)
    sizes = {(r.case.model, r.case.resolution) for r in records}
    for model, resolution in sorted(sizes):
        here: dict[Series, list[Record]] = {}
        for r in records:
            if (r.case.model, r.case.resolution) == (model, resolution):
                here.setdefault(series_of(r, words), []).append(r)
        mine = [g for g in everything if g.model == model]
        by_name: dict[str, list[Group]] = {}
        for group in mine:
            if group.at(resolution):
                by_name.setdefault(group.name, []).append(group)
        for same in by_name.values():
            same.sort(key=lambda g: -sum(p.reading.value is not None for p in g.at(resolution).values()))
        by_name = dict(sorted(by_name.items(), key=lambda item: (item[1][0].unit == "parameter", name_order(item[0]))))
        for layer in range(max((len(same) for same in by_name.values()), default=1)):
            chosen = [same[layer] for same in by_name.values() if len(same) > layer]
            rivals = [[g for g in mine if g.name == group.name] for group in chosen]
            columns = tuple(_column(g, distinction(g, r)) for g, r in zip(chosen, rivals, strict=True))
            rows = tuple(
                (s, tuple(_cell(g, s, resolution, here[s.at_any_weights]) for g in chosen))
                for s in _series(chosen, here, resolution)
            )
            blocks.append(Block(model, resolution, layer, columns, rows))
    return blocks


def _column(group: Group, note: str) -> Column:
    return Column(spoken(group.name), group.name, group.unit, group.better, group.protocol, group.is_cost, note)


def _series(chosen: Sequence[Group], here: Iterable[Series], resolution: Resolution) -> list[Series]:
    """Rows: a variant once, or once for each of its weights where the scores tell them apart."""
    found = {s for g in chosen for s in g.at(resolution)}.union(here)
    split = {s.at_any_weights for s in found if s.weights}
    return sorted(found - split, key=series_order)


def _cell(group: Group, series: Series, resolution: Resolution, mine: Sequence[Record]) -> Cell:
    """`mine`: the variant's records of that size, with any weights."""
    points = group.at(resolution)
    point = points.get(series) or points.get(series.at_any_weights)
    if point is not None and not group.is_cost and series.weights not in ("", point.case.weights):
        point = None
    if point is None:
        return Cell(
            DASH,
            reason=_absence([r for r in mine if series.weights in ("", r.case.weights)]),
        )
    reading = point.reading
    if reading.value is None:
        return Cell(DASH, reason=reading.reason)
    text, interval = with_interval(reading.value, reading.low, reading.high, reading.unit)
    if not group.is_cost:
        floor = reading.details.get("floor")
        known = isinstance(floor, int | float) and not isinstance(floor, bool)
        below = (interval, f"floor {human(floor, reading.unit, 3)}" if known else "")
        return Cell(text, tuple(line for line in below if line), reading.value)
    reference = points.get(Series(REFERENCE))
    if series.variant == REFERENCE or reference is None or not reference.reading.value:
        return Cell(text, (interval,) if interval else (), reading.value)
    low, value, high = against(point, reference)
    same = low <= 1 <= high or ratio(value) == "1.00×" or group.better == "neither"
    tone = "" if same else ("better" if (value < 1) == (group.better == "lower") else "worse")
    below = (f"{ratio(low)} to {ratio(high)}" if low < high else "", text)
    return Cell(ratio(value), tuple(line for line in below if line), reading.value, tone)


def against(point: Point, reference: Point) -> tuple[float, float, float]:
    """Low end, value and high end of the ratio of two readings; all equal where one of them has no interval."""
    mine, other = point.reading, reference.reading
    if mine.value is None or not other.value:
        raise ValueError(f"no ratio of {mine.value} to {other.value}: ask only where both were taken")
    value = mine.value / other.value
    if mine.low is None or mine.high is None or not other.low or not other.high:
        return value, value, value
    return mine.low / other.high, value, mine.high / other.low


def _absence(mine: Sequence[Record]) -> str:
    if not mine:
        return "no record of this case"
    bad = [r for r in mine if r.status != "ok"]
    if bad:
        return f"{bad[-1].status.replace('_', ' ')}: {bad[-1].reason}".rstrip(": ")
    return "not asked for in this case"


def readings(store: Store) -> "pd.DataFrame":
    """The long table: one row a reading, exact values; a case without readings has one row with its reason."""
    import pandas as pd

    rows = []
    for record in store.records:
        case = {
            "model": record.case.model,
            "variant": record.case.variant,
            "resolution": str(record.case.resolution),
            "width": record.case.resolution.width,
            "height": record.case.resolution.height,
            "status": record.status,
        }
        tail = {
            name: v if isinstance(v, str | int | float) else json.dumps(v) for name, v in record.case.settings.items()
        }
        tail = {f"case_{name}": value for name, value in tail.items()}
        tail |= {"weights": record.case.weights, "mixer": record.case.mixer, "machine": machine_name(record.machine)}
        tail |= {"started": record.started, "key": record.case.key}
        for r in record.readings:
            number = {"metric": r.metric, "reading": r.name, "value": r.value, "unit": r.unit, "better": r.better}
            number |= {"low": r.low, "high": r.high, "n": r.n, "samples": len(r.samples), "reason": r.reason}
            rows.append(case | number | {"protocol": r.protocol, "details": json.dumps(r.details)} | tail)
        if not record.readings:
            rows.append(case | {"reason": record.reason} | tail)
    return pd.DataFrame([{name: _inert(value) for name, value in row.items()} for row in rows], dtype=object)


def _inert(value: object) -> object:
    """Text that a spreadsheet would take for a formula (`=cmd|...`) gets an apostrophe, by which it stays text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def markdown(blocks: Sequence[Block]) -> str:
    """The summary as Markdown, one table a block, dashes with their reasons below."""
    lines = []
    for block in blocks:
        suffix = " (other protocols or settings)" if block.layer else ""
        lines += [f"## {block.model} at {block.resolution} px{suffix}", ""]
        heads = ["variant", *(f"{c.title}{f' ({c.note})' if c.note else ''}" for c in block.columns)]
        lines += [_row(heads), _row(["---"] + ["---:"] * len(block.columns))]
        reasons = block.reasons
        for series, cells in block.rows:
            shown = [series.label]
            for cell in cells:
                mark = f" [{reasons.index(cell.reason) + 1}]" if cell.reason else ""
                shown.append(cell.text + (f" ({', '.join(cell.small)})" if cell.small else "") + mark)
            lines.append(_row(shown))
        lines += ["", *(f"[{i}] {' '.join(reason.split())}  " for i, reason in enumerate(reasons, 1)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def export(store: Store, blocks: Sequence[Block]) -> tuple[Path, Path]:
    """Write readings.csv and summary.md beside the page."""
    table, text = store.folder / "readings.csv", store.folder / "summary.md"
    write_whole(table, readings(store).to_csv(index=False))
    write_whole(text, markdown(blocks))
    return table, text


def write_whole(path: Path, text: str) -> None:
    """Write a file so that its name always stands for its old or its new content."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
