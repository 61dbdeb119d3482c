"""The summary of every variant against self-attention, one table a model and size."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.records.by_key import grouped
from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.units import DASH, human, ratio, spoken, with_interval
from reports.compare import Group, Point, Series, distinction, groups, mixers, name_order, series_of, series_order
from reports.ratios import CostRatio, Ratios, disturbance


@dataclass(frozen=True)
class Cell:
    """What one cell says: the main text, smaller lines, the raw value, and the reason of a dash.

    disturbed: why the number is not to be relied upon; key: the record that it is from.
    """

    text: str
    small: tuple[str, ...] = ()
    raw: float | int | None = None
    tone: str = ""
    reason: str = ""
    disturbed: str = ""
    key: str = ""


@dataclass(frozen=True)
class Column:
    """One comparable group as a column; `note` says how it differs from others of its name."""

    title: str
    name: str
    better: str
    protocol: str
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
        """Why there are dashes, or numbers that were disturbed, each reason once: the footnotes of the table."""
        cells = [cell for _, row in self.rows for cell in row]
        return tuple(dict.fromkeys(said for cell in cells for said in (cell.reason, cell.disturbed) if said))


def summary(records: Sequence[Record], everything: Sequence[Group] | None = None) -> list[Block]:
    """Every model and resolution as one table, or several where a reading was taken under unlike protocols."""
    words = mixers(records)
    own = grouped(groups(records) if everything is None else everything, lambda group: group.model)
    ratios = {model: Ratios(mine) for model, mine in own.items()}
    here: dict[tuple[str, Resolution], dict[Series, list[Record]]] = {}
    for record in records:
        place = here.setdefault((record.case.model, record.case.resolution), {})
        place.setdefault(series_of(record, words), []).append(record)
    return [
        block
        for model, size in sorted(here)
        for block in _blocks(model, size, here[model, size], own.get(model, []), ratios.get(model, Ratios(())))
    ]


def _blocks(
    model: str, size: Resolution, here: Mapping[Series, Sequence[Record]], own: Sequence[Group], ratios: Ratios
) -> list[Block]:
    """The tables of one model and size: the fullest group of every reading first."""
    rivals = grouped(own, lambda group: group.name)
    told = (group for group in own if group.at(size) and not _told_elsewhere(group, own, size))
    by_name = grouped(told, lambda group: group.name)
    for same in by_name.values():
        same.sort(key=lambda g: -sum(p.reading.value is not None for p in g.at(size).values()))
    by_name = dict(sorted(by_name.items(), key=lambda item: (item[1][0].unit == "parameter", name_order(item[0]))))
    blocks = []
    for layer in range(max((len(same) for same in by_name.values()), default=1)):
        chosen = [same[layer] for same in by_name.values() if len(same) > layer]
        columns = tuple(Column(spoken(g.name), g.name, g.better, g.protocol, distinction(g, own)) for g in chosen)
        rows = tuple(
            (series, tuple(_cell(g, series, size, here[series.at_any_weights], rivals[g.name], ratios) for g in chosen))
            for series in _series(chosen, here, size)
        )
        blocks.append(Block(model, size, layer, columns, rows))
    return blocks


def _told_elsewhere(group: Group, own: Sequence[Group], size: Resolution) -> bool:
    """Whether it is the ratio of a cost that has a column of its own, which tells that ratio."""
    base = group.name.removesuffix("_ratio")
    return base != group.name and any(g.name == base and g.settings == group.settings and g.at(size) for g in own)


def _series(chosen: Sequence[Group], here: Iterable[Series], resolution: Resolution) -> list[Series]:
    """Rows: a variant once, or once for each of its weights where the scores tell them apart."""
    found = {s for g in chosen for s in g.at(resolution)}.union(here)
    split = {s.at_any_weights for s in found if s.weights}
    return sorted(found - split, key=series_order)


def _cell(
    group: Group, series: Series, size: Resolution, mine: Sequence[Record], rivals: Sequence[Group], ratios: Ratios
) -> Cell:
    """`mine`: the variant's records of that size, with any weights; `rivals`: groups of the same reading."""
    point = _point(group, series, size)
    if point is None:
        if any(_point(rival, series, size) for rival in rivals):
            return Cell(DASH, reason="taken by another protocol or under other settings: see the table of those")
        return Cell(DASH, reason=_absence([r for r in mine if series.weights in ("", r.case.weights)]))
    reading, key = point.reading, point.case.key
    if reading.value is None:
        return Cell(DASH, reason=reading.reason, key=key)
    text, interval = with_interval(reading.value, reading.low, reading.high, reading.unit)
    if not group.is_cost:
        floor = reading.detail("floor")
        below = (interval, "" if floor is None else f"floor {human(floor, reading.unit, 3)}")
        return Cell(text, tuple(filter(None, below)), reading.value, key=key)
    found = ratios.of(group, series.at_any_weights, size)
    if found is None:
        disturbed = disturbance(reading)
        return Cell(text, (interval,) if interval else (), reading.value, disturbed=disturbed, key=key)
    return _relative(found, group, text, reading.value, key)


def _relative(found: CostRatio, group: Group, text: str, raw: float | int, key: str) -> Cell:
    """A cost as a ratio to the reference; coloured where something may be concluded from it."""
    tone = ""
    if found.apart and group.better != "neither":
        tone = "better" if (found.value < 1) == (group.better == "lower") else "worse"
    ends = "" if found.low is None or found.high is None else f"{ratio(found.low)} to {ratio(found.high)}"
    basis = {"alternation": "in alternation", "separate runs": "separate runs"}.get(found.basis, "")
    below = tuple(line for line in (ends, basis, text if not group.name.endswith("_ratio") else "") if line)
    return Cell(ratio(found.value), below, raw, tone, disturbed=found.disturbed, key=key)


def _point(group: Group, series: Series, size: Resolution) -> Point | None:
    """A variant's point, with the weights that are asked for."""
    points = group.at(size)
    point = points.get(series) or points.get(series.at_any_weights)
    if point is not None and not group.is_cost and series.weights not in ("", point.case.weights):
        return None
    return point


def _absence(mine: Sequence[Record]) -> str:
    if not mine:
        return "no record of this case"
    bad = [r for r in mine if r.status != "ok"]
    if bad:
        return f"{bad[-1].status.replace('_', ' ')}: {bad[-1].reason}".rstrip(": ")
    return "not asked for in this case"
