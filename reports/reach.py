"""How far each variant came on a device: the largest size that ran, and the smallest that memory or time refused."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.compare import in_words, machine_name, variant_order
from reports.read import Record

ON_SHAPES = "shapes"
"""The weights of a case that was counted and never ran."""
TOO_LARGE = ("out_of_memory", "timeout")


@dataclass(frozen=True)
class Reach:
    """One variant: the largest size that ran, the smallest that did not and why; empty where there is no such size."""

    variant: str
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
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record.weights != ON_SHAPES and record.status in ("ok", *TOO_LARGE):
            kept = {name: value for name, value in record.settings.items() if name in ("device", "dtype", "batch")}
            where = ", ".join((*in_words(kept), *([machine_name(record.machine)] if record.machine else [])))
            found.setdefault(where, {}).setdefault(record.variant, []).append(record)
    return [
        Terrain(where, tuple(_reach(name, variants[name]) for name in sorted(variants, key=variant_order)))
        for where, variants in found.items()
    ]


def _reach(variant: str, records: Sequence[Record]) -> Reach:
    ordered = sorted(records, key=lambda record: (record.pixels, record.resolution))
    ran = [record.resolution for record in ordered if record.status == "ok"]
    refused = next((record for record in ordered if record.status in TOO_LARGE), None)
    reason = f"{refused.status.replace('_', ' ')}: {refused.reason}" if refused else ""
    return Reach(variant, ran[-1] if ran else "", refused.resolution if refused else "", reason)
