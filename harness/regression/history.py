"""Results by commit and machine: a file of one JSON line a number, steps in it, a drawing, and MLflow.

The file only grows, so that jobs may append and a merge of two branches keeps both. Costs are one series everywhere,
times and ratios one for each machine.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.records.by_key import grouped
from harness.records.case import BadInput
from harness.records.files import writable
from harness.records.machine import IDENTITY
from harness.records.record import Record
from harness.records.typed import parsed, reader
from harness.records.units import human
from harness.regression.baseline import name_of
from harness.regression.steps import Step, steps_of
from harness.regression.verdict import Verdict

LONGEST = 300
"""Results of a series that are looked at, the latest."""
OVER_BASE = "time over base"
"""A ratio of a commit to the one before: its series is multiplied up."""


@dataclass(frozen=True)
class Result:
    """One number of one commit on one machine."""

    commit: str
    when: str
    machine: str
    case: str
    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Series:
    """One number over commits, on one machine, in the order of time; and where its level changed."""

    machine: str
    case: str
    name: str
    results: tuple[Result, ...]
    values: tuple[float, ...]
    steps: tuple[Step, ...]

    def told(self) -> Iterator[str]:
        """A sentence a step."""
        for step in self.steps:
            before, after = self.results[step.index - 1], self.results[step.index]
            grown = f"{step.after / step.before - 1:+.1%}" if step.before else f"from {step.before:g} to {step.after:g}"
            yield f"{self.case}: {self.name}: {grown} between {before.commit[:10]} and {after.commit[:10]}"


def results_of(records: Sequence[Record], verdicts: Sequence[Verdict]) -> list[Result]:
    """What a run of the gate adds: every number with a direction, counted totals, and ratios to the base."""
    machine = records[0].machine if records else {}
    commit, made = machine.get("commit"), " ".join(str(machine.get(name)) for name in IDENTITY)
    if not commit or machine.get("dirty"):
        return []
    when = max(record.started for record in records)
    found = [Result(commit, when, made, *number) for record in records for number in _numbers(record)]
    for verdict in verdicts:
        if verdict.tier == "speed" and verdict.given is not None and verdict.outcome != "inconclusive":
            name = f"{verdict.name}, {OVER_BASE}"
            found.append(Result(commit, when, made, verdict.case, name, verdict.given, "x"))
    return found


def append(path: Path, results: Iterable[Result]) -> None:
    """Add results at the end of the file; BadInput where it cannot be written."""
    text = "".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)
    with writable(f"history {str(path)!r}", "give another with gate.history=FILE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def read(path: Path) -> list[Result]:
    """Every result of a file; BadInput names the first line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"there is no history at {str(path)!r}: a run of the gate on a committed tree writes it, or give another "
            "with gate.history=FILE"
        ) from error
    found: list[Result] = []
    kind: Any = Result
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            found.append(reader(kind)(parsed(line), ""))
            datetime.fromisoformat(found[-1].when)
        except ValueError as error:
            raise BadInput(f"line {number} of history {str(path)!r} is no result ({error}): take it out") from error
    return found


def series_of(results: Sequence[Result]) -> list[Series]:
    """Results by machine, case and name. Of one commit the median stands, at the time of its first result."""
    ordered = sorted(results, key=lambda one: one.when)
    same = grouped(ordered, lambda one: (one.machine, one.case, one.name))
    return [_series(key, given) for key, given in same.items()]


def _series(key: tuple[str, str, str], given: Sequence[Result]) -> Series:
    by_commit = grouped(given, lambda one: one.commit)
    middle = [sorted(same, key=lambda one: one.value)[len(same) // 2] for same in by_commit.values()][-LONGEST:]
    values = [result.value for result in middle]
    if key[2].endswith(OVER_BASE):
        values = [math.prod(values[: index + 1]) for index in range(len(values))]
    return Series(*key, tuple(middle), tuple(values), tuple(steps_of(values)))


def _numbers(record: Record) -> Iterator[tuple[str, str, float, str]]:
    """Case, name, value and unit of what has a direction."""
    case = name_of(record.case)
    for reading in record.readings:
        if reading.value is not None and reading.better != "neither":
            yield case, reading.name, float(reading.value), reading.unit
    if counted := record.number("site_costs"):
        sites, body = counted.details["sites"].values(), counted.details["body"]
        yield case, "FLOPs", float(sum(body["flops"].values()) + sum(s["flops"] for s in sites)), "FLOP"
        yield case, "parameters", float(body["parameters"] + sum(s["parameters"] for s in sites)), "parameter"
        yield case, "peak bytes", float(body["bytes"]), "byte"


def label(series: Series) -> str:
    """What a series is, and where it stands."""
    return f"{series.case}: {series.name}: {human(series.values[-1], series.results[-1].unit)}"
