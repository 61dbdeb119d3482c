"""Which readings may stand side by side: same model, same name, same protocol, and the same settings where they count.

FLOPs and parameters depend on shapes alone, projected memory on the number format too, measured costs also on the
machine, but not on which images are made, scores on all that makes an image. A variant with other settings is another
series, for scores also one with other weights. A setting that this version does not know counts, except for shapes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.records.by_key import grouped
from harness.records.case import Case, Resolution
from harness.records.record import Reading, Record
from harness.records.units import is_cost

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
_LONGEST = 24
"""Letters of a setting's value in a legend; what is longer is told by a digest."""


@dataclass(frozen=True)
class Point:
    """A reading and the record that it is from; `mixer` says how that variant's settings differ from other records'."""

    record: Record
    reading: Reading
    mixer: str = ""

    @property
    def case(self) -> Case:
        return self.record.case


@dataclass(frozen=True)
class Series:
    """A variant; where there are several of one name, with its settings (`mixer`), and for scores its weights."""

    variant: str
    weights: str = ""
    mixer: str = ""

    @property
    def label(self) -> str:
        """`deltaconv`, or `deltaconv (kernel_size 5)`, `deltaconv (77aa)` where there are several."""
        told = ", ".join(filter(None, (self.mixer, self.weights)))
        return f"{self.variant} ({told})" if told else self.variant

    @property
    def at_any_weights(self) -> "Series":
        """The same where weights are not told apart."""
        return Series(self.variant, mixer=self.mixer)


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
        return (self.model, self.name, self.protocol, self.settings)

    @property
    def is_cost(self) -> bool:
        """Whether this is paid for, rather than a score."""
        return is_cost(self.unit, self.better)

    @cached_property
    def series(self) -> dict[Series, list[Point]]:
        """Points by series in order of pixels, the reference first."""
        found: dict[Series, list[Point]] = {}
        for (variant, mixer), mine in grouped(self.points, lambda p: (p.case.variant, p.mixer)).items():
            by_weights = grouped(mine, lambda p: p.case.weights)
            told_apart = not self.is_cost and len(by_weights) > 1
            same = by_weights if told_apart else {"": mine}
            found |= {Series(variant, weights, mixer): points for weights, points in same.items()}
        ordered = sorted(found, key=series_order)
        return {s: sorted(found[s], key=lambda p: p.case.resolution) for s in ordered}

    def at(self, resolution: Resolution) -> dict[Series, Point]:
        """The points of one resolution by series."""
        return self._by_size.get(resolution, {})

    @cached_property
    def _by_size(self) -> dict[Resolution, dict[Series, Point]]:
        found: dict[Resolution, dict[Series, Point]] = {}
        for series, points in self.series.items():
            for point in points:
                found.setdefault(point.case.resolution, {})[series] = point
        return found


def variant_order(name: str) -> tuple[int, str]:
    """Sort key of variants: the reference first."""
    return (KNOWN.index(name) if name in KNOWN else len(KNOWN), name)


def series_order(series: Series) -> tuple[tuple[int, str], str, str]:
    """Sort key of series: the reference first."""
    return variant_order(series.variant), series.mixer, series.weights


def name_order(name: str) -> tuple[int, str]:
    """Sort key of readings."""
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def machine_name(machine: dict[str, Any]) -> str:
    """The hardware in words: what separates timings, and nothing that changes from run to run."""
    parts = [str(machine[key]) for key in ("gpu", "cpu") if machine.get(key)]
    if machine.get("threads"):
        parts.append(f"{machine['threads']} threads")
    return ", ".join(parts) or "unnamed machine"


def relevant_settings(record: Record, of: "Reading | Group", origin: dict[str, Any] | None = None) -> dict[str, Any]:
    """What of a case, besides model, variant, resolution and weights, decides whether such readings compare.

    origin: where the reading is from, if not from where the record was last added to.
    """
    settings = record.case.settings
    if of.unit in ("FLOP", "parameter"):
        return {}
    if of.name.startswith("projected_"):
        return {setting: settings[setting] for setting in ("dtype", "batch") if setting in settings}
    if is_cost(of.unit, of.better):
        kept = {setting: value for setting, value in settings.items() if setting not in _IDLE_FOR_COSTS}
        return kept | {"machine": machine_name(origin or record.machine)}
    return {setting: value for setting, value in settings.items() if setting not in _IDLE_FOR_SCORES}


MadeOf = tuple[str, str, tuple[str, str]]
"""Model and variant of a record, and what they are made of."""


def made_of(record: Record) -> MadeOf:
    """What its mixers are, on which model."""
    return record.case.model, record.case.variant, record.case.made


def series_of(record: Record, words: Mapping[MadeOf, str]) -> "Series":
    """Its series where weights are not told apart; `words` are those of `mixers`."""
    return Series(record.case.variant, mixer=words[made_of(record)])


def mixers(records: Iterable[Record]) -> dict[MadeOf, str]:
    """How the settings of one variant on one model differ: `kernel_size 5`; empty where they do not.

    What presets of models change is no difference. An old record without settings has `settings unknown`.
    """
    made: dict[tuple[str, str], dict[tuple[str, str], set[str]]] = {}
    for record in records:
        mine = _phrases(record.case.mixer) | ({f"config {record.case.config[:6]}"} if record.case.config else set())
        made.setdefault((record.case.model, record.case.variant), {})[record.case.made] = mine
    words = {}
    for named, phrases in made.items():
        known = [mine for (mixer, _), mine in phrases.items() if mixer]
        common = set.intersection(*known) if known else set()
        for made_here, mine in phrases.items():
            told = ", ".join(sorted(mine - common)) if made_here[0] or not known else "settings unknown"
            words[*named, made_here] = told
    return words


def _phrases(mixer: str) -> set[str]:
    """`kernel_size 5`, one phrase for each setting of a factory."""
    if not mixer:
        return set()
    try:
        made = json.loads(mixer)
        spelled = made["parameters"] | {"mixer": made["mixer"]}
    except (ValueError, TypeError, KeyError):
        return {f"settings #{hashlib.sha256(mixer.encode()).hexdigest()[:6]}"}
    settings = {name: _plain(value) for name, value in spelled.items()}
    digests = {name: f"#{hashlib.sha256(text.encode()).hexdigest()[:6]}" for name, text in settings.items()}
    return {f"{name} {text if len(text) <= _LONGEST else digests[name]}" for name, text in settings.items()}


Place = tuple[str, Resolution, str, tuple[str, str]]
"""Of one comparable kind there is one reading at each: variant, size, weights where they count, what it is made of."""


def groups(records: Sequence[Record]) -> list[Group]:
    """All comparable groups with at least one number or dash, in order of model, name and size.

    A reading whose details name a section of the page is shown there, and is no part of any.
    """
    words = mixers(records)
    found: dict[tuple[str, str, str, str, str, tuple[str, ...]], dict[Place, Point]] = {}
    for record in records:
        for reading in (each for each in record.readings if "section" not in each.details):
            settings = in_words(relevant_settings(record, reading, reading.origin))
            key = (record.case.model, reading.name, reading.unit, reading.better, reading.protocol, settings)
            weights = "" if is_cost(reading.unit, reading.better) else record.case.weights
            place = (record.case.variant, record.case.resolution, weights, record.case.made)
            earlier = found.setdefault(key, {}).get(place)
            if earlier is None or reading.value is not None or earlier.reading.value is None:
                found[key][place] = Point(record, reading, words[made_of(record)])
    made = [Group(*key, points=tuple(points.values())) for key, points in found.items()]
    return sorted(made, key=lambda g: (g.model, name_order(g.name), -len(g.points), g.protocol, g.settings))


def lost(group: Group, records: Iterable[Record]) -> list[tuple[Record, str]]:
    """Cases that belong into a group and have no number there, with the reason of the dash or of the case's bad end."""
    found = [(p.record, p.reading.reason) for p in group.points if p.reading.value is None]
    metrics = {p.reading.metric for p in group.points}
    for record in records:
        asked = record.case.model == group.model and metrics & set(record.case.metrics)
        if record.status == "ok" or not asked or any(r.name == group.name for r in record.readings):
            continue
        if in_words(relevant_settings(record, group)) == group.settings:
            found.append((record, f"{record.status.replace('_', ' ')}: {record.reason}"))
    taken = {_cell(p.record) for p in group.points if p.reading.value is not None}
    return [(record, reason) for record, reason in found if _cell(record) not in taken]


def _cell(record: Record) -> tuple[str, tuple[str, str], Resolution]:
    return (record.case.variant, record.case.made, record.case.resolution)


def in_words(settings: dict[str, Any]) -> tuple[str, ...]:
    """`dtype fp32`, `n 512`: one phrase a setting."""
    return tuple(f"{name} {_plain(settings[name])}" for name in sorted(settings))


def distinction(group: Group, found: Sequence[Group]) -> str:
    """The settings in which a group differs from others of its model and name; empty if there are no others."""
    rivals = [other for other in found if (other.model, other.name) == (group.model, group.name)]
    if len(rivals) < 2:
        return ""
    common = set.intersection(*(set(rival.settings) for rival in rivals))
    return ", ".join(phrase for phrase in group.settings if phrase not in common)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).strip("[]")
