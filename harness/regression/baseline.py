"""A baseline: what the cases of one run read, as a text file that people review. One line a reading, sorted.

    {"schema": 2, "taken": {"who", "when", "commit", "dirty"}, "machine": {...}, "speed": {"CASE @ SITE": [...]},
     "cases": {"tiny_sd linfusion 64 fp32 cpu": {"settings", "status", "readings"}}}

A case goes by its name, not by its key: the key changes with the weights, and whether new weights are worse is what a
gate is asked. Of the raw values only those stay that a paired comparison needs: per-image scores and the replicates of
a jackknife. Costs that are counted have a text of their own (harness/regression/exact.py). `speed`: of each mixer at
its site the logarithm of its time over the reference variant's there, one a process.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from harness.records.case import BadInput, Case
from harness.records.files import writable, write_whole
from harness.records.machine import IDENTITY
from harness.records.record import CAPTIONS, Reading, Record
from harness.records.typed import parsed, reader
from harness.seats.sources import path_of

SCHEMA = 2
SETTINGS = ("world", "n", "steps", "guidance", "seeds")
COUNTED = "site_costs"
SCORES = ("1", "share")
PAIRED = ("replicates", "parts", CAPTIONS)
"""Details of a score that two runs are compared by, where it has no value an image."""
WHERE = (*IDENTITY, "memory", "os", "packages")
"""What is kept of the machine; nothing of it names a host."""
KEPT = ("metric", "value", "unit", "better", "protocol", "n", "low", "high")


def name_of(case: Case) -> str:
    """What a case is called in a baseline: `tiny_sd linfusion 64 fp32 cpu`."""
    return f"{case.model} {case.variant} {case.resolution} {case.dtype} {case.device}"


@dataclass(frozen=True)
class Entry:
    """One case: the settings that its readings depend on, how it ended, its readings by name; why others are dashes."""

    settings: dict[str, Any]
    status: str
    readings: dict[str, Reading]
    dashes: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def of(cls, record: Record) -> "Entry":
        """What of a record is compared."""
        identity = record.case.identity()
        readings = [reading for reading in record.readings if reading.metric != COUNTED]
        taken = {reading.name: reading for reading in readings if reading.value is not None}
        dashes = {reading.name: reading.reason for reading in readings if reading.value is None}
        return cls({name: identity[name] for name in SETTINGS}, record.status, taken, dashes, record.reason)


@dataclass(frozen=True)
class Baseline:
    """Cases by name, the machine that their timings were taken on, who took them and when, and speeds by unit."""

    machine: dict[str, Any]
    cases: dict[str, Entry]
    taken: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Sequence[Record], who: str = "") -> "Baseline":
        """One run as a baseline; BadInput where two records bear one name."""
        machine = records[0].machine if records else {}
        when = max((record.started for record in records), default="")
        taken = {"who": who, "when": when, "commit": machine.get("commit"), "dirty": machine.get("dirty")}
        cases = {name_of(record.case): Entry.of(record) for record in records}
        if len(cases) < len(records):
            raise BadInput("two records of one case differ only in settings: gate the records of one sweep at a time")
        return cls({name: machine.get(name) for name in WHERE}, cases, taken)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file; BadInput for one that is absent, and for another text."""
        try:
            data = parsed(path.read_text(encoding="utf-8"))
            if (schema := data.pop("schema")) != SCHEMA:
                raise ValueError(f"schema {schema!r}")
            for entry in data["cases"].values():
                entry["readings"] = {name: fields | {"name": name} for name, fields in entry["readings"].items()}
            made: Any = cls
            baseline: Self = reader(made)(data, "")
            return baseline
        except FileNotFoundError as error:
            raise BadInput(
                f"there is no baseline at {str(path)!r}: write one with gate.update=true, or give another with "
                "gate.baseline=FILE"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"{str(path)!r} is not a baseline ({type(error).__name__}: {error}): give another with "
                "gate.baseline=FILE, or write it anew with gate.update=true"
            ) from error

    def save(self, path: Path) -> None:
        """Write the file; the same records always give the same bytes."""
        with writable(f"baseline {str(path)!r}", "give another with gate.baseline=FILE"):
            write_whole(path, self._text())

    def _text(self) -> str:
        """JSON with one reading a line, so that a review sees which number moved."""
        cases = []
        for name, entry in sorted(self.cases.items()):
            readings = [f"    {json.dumps(key)}: {_line(_kept(r))}" for key, r in sorted(entry.readings.items())]
            lines = ["", ",\n".join(readings), "   "] if readings else [""]
            cases.append(
                f"  {json.dumps(name)}: {{\n"
                f'   "settings": {_line(entry.settings)},\n'
                f'   "status": {json.dumps(entry.status)},\n'
                f'   "readings": {{{chr(10).join(lines)}}}\n  }}'
            )
        body = ",\n".join(cases)
        speeds = ",\n".join(f"  {json.dumps(unit)}: {_line(logs)}" for unit, logs in sorted(self.speed.items()))
        head = f' "schema": {SCHEMA},\n "taken": {_line(self.taken)},\n "machine": {_line(self.machine)},'
        return f'{{\n{head}\n "speed": {{\n{speeds}\n }},\n "cases": {{\n{body}\n }}\n}}\n'


def locate(baseline: str) -> Path:
    """The file of `some/file.json`, or of `pkg://package/some/file.json` inside an installed package."""
    return path_of(baseline)


def _kept(reading: Reading) -> dict[str, Any]:
    kept = {key: value for key in KEPT if (value := getattr(reading, key)) is not None}
    if reading.unit in SCORES and reading.samples:
        kept["samples"] = reading.samples
    paired = [name for name in PAIRED if name in reading.details] if reading.unit in SCORES else []
    if details := reading.details if reading.metric == "ingredients" else {n: reading.details[n] for n in paired}:
        kept["details"] = details
    return kept


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
