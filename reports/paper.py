"""What the ΔConvFusion paper prints beside what was taken here: printed, ours, their ratio, and why they differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.records.case import Resolution
from harness.records.record import Reading, Record
from harness.records.units import DASH, human, ratio, spoken
from reports.compare import Series, machine_name, mixers, series_of, series_order

PRINTED = "_printed"


@dataclass(frozen=True)
class PaperRow:
    """One printed number and ours; a dash where one of them is missing, with the reason in `why`."""

    what: str
    model: str
    series: Series
    resolution: Resolution
    printed: str
    ours: str
    ratio: str
    why: str
    key: str


def paper_rows(records: Sequence[Record]) -> list[PaperRow]:
    """Every number of the paper's tables that these records stand beside, the latest of each."""
    words = mixers(records)
    found: dict[tuple[object, ...], PaperRow] = {}
    for record in records:
        for ours, printed, unit, why in _pairs(record):
            value = ours.value if ours else None
            times = ratio(value / printed) if value is not None and printed else DASH
            row = PaperRow(
                what=spoken(ours.name if ours else ""),
                model=record.case.model,
                series=series_of(record, words),
                resolution=record.case.resolution,
                printed=human(printed, unit),
                ours=human(value, unit),
                ratio=times,
                why=why,
                key=record.case.key,
            )
            found[row.what, row.model, row.series, row.resolution] = row
    return sorted(found.values(), key=lambda row: (row.what, row.model, row.resolution, series_order(row.series)))


def _pairs(record: Record) -> Iterator[tuple[Reading | None, float, str, str]]:
    """Our reading, the printed value, its unit, and what separates the two."""
    for reading in record.readings:
        if reading.name.endswith(PRINTED) and reading.value is not None:
            ours = record.reading(reading.name.removesuffix(PRINTED))
            yield ours, float(reading.value), reading.unit, str(reading.details.get("why", ""))
        published = reading.details.get("published")
        value = published.get("ms") if isinstance(published, dict) else None
        if isinstance(published, dict) and isinstance(value, int | float):
            theirs = f"{published.get('dtype')} on a device that the paper does not name"
            here = f"{record.case.dtype} on {machine_name(record.machine)}"
            yield reading, float(value), reading.unit, reading.reason or f"printed: {theirs}; ours: {here}"
