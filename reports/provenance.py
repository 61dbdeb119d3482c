"""Where the numbers are from: protocols, machines, what could not be taken and why, and how to take it all again."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.by_key import grouped
from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.units import human, spoken
from reports.compare import machine_name, name_order, variant_order
from reports.ratios import disturbance


@dataclass(frozen=True)
class Protocol:
    """How some readings were taken; `mark` is its name on the page."""

    mark: str
    text: str
    readings: tuple[str, ...]
    models: tuple[str, ...]
    counts: str


@dataclass(frozen=True)
class Trouble:
    """What could not be taken, why, and where: `cases` are phrases such as `sd15 deltaconv at 8192, 16384`."""

    what: str
    reason: str
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """One machine: its name, how many records it made, and all that is known of it."""

    name: str
    records: int
    facts: tuple[tuple[str, str], ...]


def protocols(records: Iterable[Record]) -> list[Protocol]:
    """Every protocol once, in order of the readings."""
    taken = ((record.case.model, reading) for record in records for reading in record.readings)
    uses = grouped(taken, lambda pair: pair[1].protocol)
    ordered = sorted(uses, key=lambda text: (min(name_order(r.name) for _, r in uses[text]), text))
    made = []
    for number, text in enumerate(ordered, 1):
        names = sorted({r.name for _, r in uses[text]}, key=name_order)
        models = sorted({model for model, _ in uses[text]})
        counts = sorted({r.n for _, r in uses[text] if r.value is not None} - {0}) or [0]
        words = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        made.append(Protocol(f"P{number}", text, tuple(spoken(n) for n in names), tuple(models), words))
    return made


def failures(records: Sequence[Record]) -> list[Trouble]:
    """Cases that did not end well, by status and reason."""
    return _troubles((r.status.replace("_", " "), r.reason, r) for r in records if r.status != "ok")


def dashes(records: Sequence[Record]) -> list[Trouble]:
    """Readings without a value, by name and reason."""
    lost = [(r, record) for record in records for r in record.readings if r.value is None]
    lost.sort(key=lambda pair: (name_order(pair[0].name), pair[0].reason))
    return _troubles((spoken(r.name), r.reason, record) for r, record in lost)


def disturbed(records: Sequence[Record]) -> list[Trouble]:
    """Numbers that are not to be relied upon, by name and what disturbed them (without its figures)."""
    found = []
    for record in records:
        for r in record.readings:
            if why := disturbance(r):
                found.append((r.name, re.sub(r"[+-]?\d+(?:\.\d+)?", "…", why), record))
    found.sort(key=lambda one: (name_order(one[0]), one[1]))
    return _troubles((spoken(name), why, record) for name, why, record in found)


def remarks(records: Sequence[Record]) -> list[Trouble]:
    """Notes of the records, each once."""
    return _troubles(("", note, record) for record in records for note in record.notes)


def _troubles(found: Iterable[tuple[str, str, Record]]) -> list[Trouble]:
    """One for each pair of what and reason, in order of first appearance."""
    same = grouped(found, lambda one: one[:2])
    return [Trouble(*named, _cases([one[2] for one in mine])) for named, mine in same.items()]


def _cases(records: Sequence[Record]) -> tuple[str, ...]:
    sizes: dict[tuple[str, tuple[int, str]], set[Resolution]] = {}
    for r in records:
        sizes.setdefault((r.case.model, variant_order(r.case.variant)), set()).add(r.case.resolution)
    return tuple(
        f"{model} {variant} at {', '.join(map(str, sorted(found)))}"
        for (model, (_, variant)), found in sorted(sizes.items())
    )


def machines(records: Sequence[Record]) -> list[Machine]:
    """Every machine once, by hardware; facts that differ between its records list all their values."""
    taken = ((record.case.key, origin) for record in records for origin in record.origins())
    return [
        Machine(name, len({key for key, _ in made}), _facts([origin for _, origin in made]))
        for name, made in grouped(taken, lambda pair: machine_name(pair[1])).items()
    ]


def _facts(machines: Sequence[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    values: dict[str, list[Any]] = {}
    for machine in machines:
        for name, value in flat(machine):
            known = values.setdefault(name, [])
            if value is not None and value not in known:
                known.append(value)
    return tuple((name.replace("_", " "), _together(name, known)) for name, known in values.items() if known)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`packages torch` for what lies in a map of a map."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value


def _together(name: str, values: Sequence[Any]) -> str:
    """One value as it is, numbers that differ as a range, others as a list."""
    unit = "byte" if name.endswith("memory") else ""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        ends = dict.fromkeys((min(numbers), max(numbers)))
        return " to ".join(human(end, unit) if unit else f"{end:g}" for end in ends)
    words = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return ", ".join(words[:4]) + (", ..." if len(words) > 4 else "")


def commands(name: str, records: Sequence[Record]) -> list[str]:
    """Command lines that take every case of these records again, as few as a grid of cases allows."""
    grids: dict[str, dict[str, set[tuple[str, Resolution]]]] = {}
    for r in records:
        chosen = {k: v for k, v in r.case.settings.items() if v is not None}
        rest = json.dumps(chosen | {"metrics": list(r.case.metrics)}, sort_keys=True)
        grids.setdefault(rest, {}).setdefault(r.case.model, set()).add((r.case.variant, r.case.resolution))
    merged: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for rest, models in grids.items():
        for model, cases in models.items():
            for variants, sizes in _products(cases):
                merged.setdefault((rest, variants, sizes), []).append(model)
    return [_command(name, found, *key) for key, found in merged.items()]


def _products(cases: set[tuple[str, Resolution]]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Variants with the same resolutions, together."""
    sizes = grouped(sorted(cases), lambda case: case[0])
    alike = grouped(sizes, lambda variant: tuple(str(size) for _, size in sizes[variant]))
    return [(tuple(sorted(names, key=variant_order)), found) for found, names in alike.items()]


def _command(name: str, models: list[str], rest: str, variants: tuple[str, ...], sizes: tuple[str, ...]) -> str:
    settings: dict[str, Any] = json.loads(rest)
    metrics = settings.pop("metrics")
    lists = {"models": models, "variants": variants, "resolutions": sizes, "metrics": metrics}
    words = [f"name={name}", *(f"{key}={_list(values)}" for key, values in lists.items())]
    words += [f"{key}={_list(v) if isinstance(v, list) else _scalar(v)}" for key, v in settings.items()]
    return "python -m harness " + " ".join(shlex.quote(word) for word in words)


def _list(values: Iterable[Any]) -> str:
    return f"[{','.join(_scalar(value) for value in values)}]"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
