"""Which readings may stand side by side: same model, same name, same protocol, and the same settings where they count.

FLOPs and parameters depend on shapes alone. A projected memory depends on the number format too. Measured costs depend
on the machine, but not on which images are made. Scores depend on all that makes an image, the weights included: the
same variant with other weights is another series. A setting that this version does not know counts, except for shapes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reports.read import Reading, Record
from reports.units import is_cost

REFERENCE = "self_attention"
KNOWN = (REFERENCE, "neighborhood", "linfusion", "deltaconv")
"""Order of the known variants; unknown ones follow by name."""
ORDER = (
    "flops",
    "flops_mixers",
    "projected_memory",
    "peak_memory",
    "latency",
    "image_latency",
    "parameters",
    "parameters_mixers",
    "clip_score",
    "attributes",
    "fdd",
    "ds",
)
"""Order of the known readings; unknown ones follow by name."""
_IDLE_FOR_COSTS = {"world", "n", "seeds"}
_IDLE_FOR_SCORES = {"batch"}


@dataclass(frozen=True)
class Point:
    """A reading and the record that it is from."""

    record: Record
    reading: Reading


@dataclass(frozen=True)
class Series:
    """A variant; `weights` tells apart scores of one variant with several weights, and is empty otherwise."""

    variant: str
    weights: str = ""


GroupKey = tuple[str, str, str, tuple[str, ...]]


@dataclass(frozen=True)
class Group:
    """Readings of one model and name that may be compared, the latest where one point was taken twice."""

    model: str
    name: str
    unit: str
    better: str
    protocol: str
    settings: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def key(self) -> GroupKey:
        """What names the group among all others."""
        return (self.model, self.name, self.protocol, self.settings)

    @property
    def is_cost(self) -> bool:
        """Whether this is paid for, rather than a score."""
        return is_cost(self.unit, self.better)

    @cached_property
    def series(self) -> dict[Series, list[Point]]:
        """Points by series in order of pixels, the reference first."""
        weights: dict[str, set[str]] = {}
        for point in self.points:
            weights.setdefault(point.record.variant, set()).add(point.record.weights)
        found: dict[Series, list[Point]] = {}
        for point in self.points:
            record = point.record
            told_apart = not self.is_cost and len(weights[record.variant]) > 1
            found.setdefault(Series(record.variant, record.weights if told_apart else ""), []).append(point)
        ordered = sorted(found, key=lambda s: (variant_order(s.variant), s.weights))
        return {s: sorted(found[s], key=lambda p: (p.record.pixels, p.record.width)) for s in ordered}

    def at(self, resolution: str) -> dict[Series, Point]:
        """The points of one resolution by series."""
        pairs = ((s, p) for s, points in self.series.items() for p in points)
        return {s: p for s, p in pairs if p.record.resolution == resolution}


def variant_order(name: str) -> tuple[int, str]:
    """Sort key of variants: the reference first."""
    return (KNOWN.index(name) if name in KNOWN else len(KNOWN), name)


def name_order(name: str) -> tuple[int, str]:
    """Sort key of readings."""
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def machine_name(machine: dict[str, Any]) -> str:
    """The hardware in words: what separates timings, and nothing that changes from run to run."""
    parts = [str(machine[key]) for key in ("gpu", "cpu") if machine.get(key)]
    if machine.get("threads"):
        parts.append(f"{machine['threads']} threads")
    return ", ".join(parts) or "unnamed machine"


def relevant_settings(record: Record, name: str, unit: str, better: str) -> dict[str, Any]:
    """What of a case, besides model, variant, resolution and weights, decides whether such readings compare."""
    settings = record.settings
    if unit in ("FLOP", "parameter"):
        return {}
    if name.startswith("projected_"):
        return {setting: settings[setting] for setting in ("dtype", "batch") if setting in settings}
    if is_cost(unit, better):
        kept = {setting: value for setting, value in settings.items() if setting not in _IDLE_FOR_COSTS}
        return kept | {"machine": machine_name(record.machine)}
    return {setting: value for setting, value in settings.items() if setting not in _IDLE_FOR_SCORES}


def groups(records: Iterable[Record]) -> list[Group]:
    """All comparable groups with at least one number or dash, in order of model, name and size."""
    found: dict[tuple[str, str, str, str, str, tuple[str, ...]], dict[tuple[str, ...], Point]] = {}
    for record in records:
        for reading in record.readings:
            settings = in_words(relevant_settings(record, reading.name, reading.unit, reading.better))
            key = (record.model, reading.name, reading.unit, reading.better, reading.protocol, settings)
            weights = "" if is_cost(reading.unit, reading.better) else record.weights
            place = (record.variant, record.resolution, weights)
            earlier = found.setdefault(key, {}).get(place)
            if earlier is None or reading.value is not None or earlier.reading.value is None:
                found[key][place] = Point(record, reading)
    made = [Group(*key, points=tuple(points.values())) for key, points in found.items()]
    return sorted(made, key=lambda g: (g.model, name_order(g.name), -len(g.points), g.protocol, g.settings))


def lost(group: Group, records: Iterable[Record]) -> list[tuple[Record, str]]:
    """Cases that belong into a group and have no number there, with the reason of the dash or of the case's bad end."""
    found = [(p.record, p.reading.reason) for p in group.points if p.reading.value is None]
    metrics = {p.reading.metric for p in group.points}
    for record in records:
        asked = record.model == group.model and metrics & set(record.metrics)
        if record.status == "ok" or not asked or any(r.name == group.name for r in record.readings):
            continue
        if in_words(relevant_settings(record, group.name, group.unit, group.better)) == group.settings:
            found.append((record, f"{record.status.replace('_', ' ')}: {record.reason}"))
    taken = {(p.record.variant, p.record.resolution) for p in group.points if p.reading.value is not None}
    return [(record, reason) for record, reason in found if (record.variant, record.resolution) not in taken]


def in_words(settings: dict[str, Any]) -> tuple[str, ...]:
    """`dtype fp32`, `n 512`: one phrase a setting."""
    return tuple(f"{name} {_plain(settings[name])}" for name in sorted(settings))


def distinction(group: Group, rivals: Sequence[Group]) -> str:
    """The settings in which a group differs from others of its model and name; empty if there are no others."""
    if len(rivals) < 2:
        return ""
    common = set.intersection(*(set(rival.settings) for rival in rivals))
    return ", ".join(phrase for phrase in group.settings if phrase not in common)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).strip("[]")
