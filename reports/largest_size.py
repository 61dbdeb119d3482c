"""How far each variant came on a device: the largest size that ran, and the smallest that did not, with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.compare import Series, in_words, machine_name, mixers, series_order
from reports.read import Record

ON_SHAPES = "shapes"
"""The weights of a case that was counted and never ran."""


@dataclass(frozen=True)
class Reach:
    """One variant: the largest size that ran, the smallest that did not and why; empty where there is no such size."""

    series: Series
    largest: str
    refused: str
    reason: str


@dataclass(frozen=True)
class Terrain:
    """All variants of a model on one machine with the same settings."""

    where: str
    reaches: tuple[Reach, ...]


def terrains(records: Sequence[Record]) -> list[Terrain]:
    """The reach of every variant of one model's records, machine by machine; a size that was counted did not run."""
    words = mixers(records)
    found: dict[str, dict[Series, list[Record]]] = {}
    for record in records:
        if record.weights != ON_SHAPES:
            kept = {name: value for name, value in record.settings.items() if name in ("device", "dtype", "batch")}
            where = ", ".join((*in_words(kept), *([machine_name(record.machine)] if record.machine else [])))
            series = Series(record.variant, mixer=words[record.model, record.variant, record.mixer])
            found.setdefault(where, {}).setdefault(series, []).append(record)
    return [
        Terrain(where, tuple(_reach(series, mine[series]) for series in sorted(mine, key=series_order)))
        for where, mine in found.items()
    ]


def _reach(series: Series, records: Sequence[Record]) -> Reach:
    ordered = sorted(records, key=lambda record: (record.pixels, record.resolution))
    ran = [record.resolution for record in ordered if record.status == "ok"]
    refused = next((record for record in ordered if record.status != "ok"), None)
    reason = f"{refused.status.replace('_', ' ')}: {refused.reason}" if refused else ""
    return Reach(series, ran[-1] if ran else "", refused.resolution if refused else "", reason)
