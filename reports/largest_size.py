"""How far each variant came on a device: the largest size that ran, and the smallest that did not, with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.records.by_key import grouped
from harness.records.record import Record
from reports.compare import Series, in_words, machine_name, mixers, series_of, series_order
from reports.ratios import is_counted

ON_SHAPES = "shapes"
"""The weights of a case that was counted and never ran."""


@dataclass(frozen=True)
class LargestSize:
    """One variant: the largest size that ran, the smallest that did not and why; empty where there is no such size."""

    series: Series
    largest: str
    refused: str
    reason: str


@dataclass(frozen=True)
class LargestSizes:
    """All variants of a model on one machine with the same settings."""

    where: str
    rows: tuple[LargestSize, ...]


def largest_sizes(records: Sequence[Record]) -> list[LargestSizes]:
    """How far every variant came of one model's records, machine by machine; a size that was counted did not run."""
    words = mixers(records)
    found = []
    for where, same in grouped((r for r in records if r.case.weights != ON_SHAPES), _where).items():
        mine = grouped(same, lambda record: series_of(record, words))
        rows = tuple(_largest_size(series, mine[series]) for series in sorted(mine, key=series_order))
        found.append(LargestSizes(where, rows))
    return found


def _where(record: Record) -> str:
    """The settings that a largest size depends on, and the machine."""
    kept = {name: value for name, value in record.case.settings.items() if name in ("device", "dtype", "batch")}
    return ", ".join((*in_words(kept), *([machine_name(record.machine)] if record.machine else [])))


def _largest_size(series: Series, records: Sequence[Record]) -> LargestSize:
    ordered = sorted(records, key=lambda record: record.case.resolution)
    ran = [record.case.resolution for record in ordered if record.status == "ok" and _ran(record)]
    refused = next((record for record in ordered if record.status != "ok"), None)
    reason = f"{refused.status.replace('_', ' ')}: {refused.reason}" if refused else ""
    beyond = [str(size) for size in dict.fromkeys(r.case.resolution for r in ordered) if not ran or ran[-1] < size]
    if refused is None and beyond:
        reason = f"{', '.join(beyond)} px was counted and not run: not asked for, or left out by a limit"
    return LargestSize(series, str(ran[-1]) if ran else "", str(refused.case.resolution) if refused else "", reason)


def _ran(record: Record) -> bool:
    """Whether something of it was measured, and not only counted."""
    return any(reading.value is not None and not is_counted(reading) for reading in record.readings)
