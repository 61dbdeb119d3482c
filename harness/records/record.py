"""A record: a case, its readings, the machine, a status. Plain values that go to JSON and come back unchanged."""

import math
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from harness.records.case import Case
from harness.records.typed import check_sound, parsed, reader
from harness.records.units import is_cost

SCHEMA = 1
TRACEBACK = "traceback"
"""Name of the artifact that says where a case broke; a later run of the case drops it."""
CAPTIONS = "captions"
"""Name of the detail by which scores of the same captions are known."""


class Unreadable(ValueError):
    """A file is no record: the message says why, in one line."""


Status = Literal["ok", "out_of_memory", "unavailable", "failed", "timeout"]
Better = Literal["lower", "higher", "neither"]


def too_long(timeout_s: float) -> str:
    """Why a case ended that took longer than it might: with another limit it may end otherwise."""
    return f"it took longer than timeout_s={timeout_s:g}"


@dataclass(frozen=True)
class Reading:
    """One number with its unit, direction, n, interval and protocol; or a dash (value None) with its reason.

    metric: the catalogue's metric that took it (`flops`); name: what it is (`flops_mixers`). unit: FLOP, byte, ms,
    parameter, x (a ratio of costs), share, or 1 for scores. low, high: a 95 % interval. samples: raw values, per image
    or repetition. details: what belongs beside the number (a noise floor, a break-down), as JSON values. heals: a dash
    that is tried again another time. origin: the machine, commit and versions that it was taken with, and when.
    """

    metric: str
    name: str
    value: float | int | None
    unit: str
    better: Better
    protocol: str
    n: int = 1
    low: float | None = None
    high: float | None = None
    reason: str = ""
    samples: tuple[float, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    heals: bool = False
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for what is no reading, so that no metric can make one and no file can hold one."""
        try:
            check_sound([self.value, self.low, self.high, self.samples, self.details])
        except ValueError as error:
            why = "a number that could not be taken is None with a reason"
            raise ValueError(f"reading {self.name} holds what is no number or text ({error}): {why}") from error
        if self.value is None and not self.reason:
            raise ValueError(f"reading {self.name} has neither a value nor a reason")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"reading {self.name} has an interval from {self.low} to {self.high}")
        paid = self.better == "lower" and is_cost(self.unit, self.better)
        if paid and any(end is not None and end < 0 for end in (self.value, self.low)):
            raise ValueError(f"reading {self.name} is {self.value} {self.unit}: a cost below zero")

    def detail(self, name: str) -> float | None:
        """The number of that name among its details; None where there is none."""
        found = self.details.get(name)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    @property
    def log_half_width(self) -> float | None:
        """Half of the interval of the logarithm; None where there is no interval above zero."""
        return math.log(self.high / self.low) / 2 if self.low and self.high and self.low > 0 else None


@dataclass(frozen=True)
class SiteAccount:
    """What sat at one site: its grid, mixer, price (FLOPs of one image), parameters, and what must be said of it."""

    path: str
    channels: int
    heads: int
    grid: tuple[int, int]
    mixer: str
    flops: int
    parameters: int
    note: str = ""


@dataclass(frozen=True)
class Record:
    """Everything that is known of one case. `artifacts` are paths relative to the store's folder.

    identities: of each metric that was asked for, a digest of all that can change its readings. seconds: what each
    metric's last taking took, the training of the student, and the rest of the last run; elapsed_s: all of these.
    """

    case: Case
    status: Status
    reason: str = ""
    readings: tuple[Reading, ...] = ()
    sites: tuple[SiteAccount, ...] = ()
    notes: tuple[str, ...] = ()
    artifacts: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    elapsed_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for a beginning that is no time, a negative duration, a path that leads out of the store."""
        if self.started:
            datetime.fromisoformat(self.started)
        if self.elapsed_s < 0:
            raise ValueError(f"elapsed_s is {self.elapsed_s}: a duration below zero")
        for name, path in self.artifacts.items():
            parts = PurePosixPath(path.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or "\0" in path:
                raise ValueError(f"artifact {name!r:.60} is {path!r:.60}, not a path inside the store")

    def reading(self, name: str) -> Reading | None:
        """The reading of that name, a number or a dash, if there is one."""
        return next((r for r in self.readings if r.name == name), None)

    def number(self, name: str) -> Reading | None:
        """The reading of that name, if it has a number."""
        return next((r for r in self.readings if r.name == name and r.value is not None), None)

    def origins(self) -> list[dict[str, Any]]:
        """Machines, commits and versions of its readings, each once; those of its last run where it has none."""
        of_each = (reading.origin for reading in self.readings if reading.origin)
        found = [{name: value for name, value in origin.items() if name != "started"} for origin in of_each]
        return [one for place, one in enumerate(found) if one not in found[:place]] or [self.machine]

    def merged(self, later: "Record") -> "Record":
        """This record with what a later run of the same case added or took again; each reading keeps its origin.

        The seconds of what was taken again are those of the later run alone.
        """
        fresh = set(later.case.metrics)
        again_s = sum(self.seconds.get(name, 0.0) for name in later.seconds)
        kept = tuple(r for r in self.readings if r.metric not in fresh)
        metrics = tuple(dict.fromkeys(self.case.metrics + later.case.metrics))
        still = {name: path for name, path in self.artifacts.items() if name != TRACEBACK}
        return replace(
            later,
            case=replace(later.case, metrics=metrics),
            readings=kept + later.readings,
            sites=later.sites or self.sites,
            notes=tuple(dict.fromkeys(self.notes + later.notes)),
            artifacts=still | later.artifacts,
            elapsed_s=round(self.elapsed_s - again_s + later.elapsed_s, 3),
            seconds=self.seconds | later.seconds,
            identities=self.identities | later.identities,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values only; each origin once, and of a reading its place among them."""
        data = asdict(self)
        data["case"] = self.case.identity() | {"metrics": list(self.case.metrics), "key": self.case.key}
        origins: list[dict[str, Any]] = []
        for reading in data["readings"]:
            if reading["origin"] not in origins:
                origins.append(reading["origin"])
            reading["origin"] = origins.index(reading["origin"])
        return {"schema": SCHEMA, **data, "origins": origins}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The inverse of `to_json`; raises ValueError, in one line, for anything else."""
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema {data.get('schema')!r:.40}, this version reads {SCHEMA}")
        fields = {name: value for name, value in data.items() if name not in ("schema", "origins")}
        if isinstance(case := fields.get("case"), dict):
            fields["case"] = {name: value for name, value in case.items() if name != "key"}
        fields["readings"] = _with_origins(fields.get("readings"), data.get("origins"))
        made: Any = cls
        record: Self = reader(made)(fields, "")
        return record

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file that is named for its key; FileNotFoundError if none is there, or Unreadable."""
        try:
            record = cls.from_json(parsed(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise Unreadable(error.strerror or type(error).__name__) from error
        except UnicodeDecodeError as error:
            raise Unreadable("not text in UTF-8") from error
        except ValueError as error:
            raise Unreadable(" ".join(str(error).split())) from error
        if record.case.key != path.stem:
            raise Unreadable(f"its case has the key {record.case.key}")
        return record


def _with_origins(readings: Any, origins: Any) -> Any:
    """Readings with what stands at their origin's place in the list, as they were before `to_json`."""
    if not isinstance(readings, list) or not isinstance(origins, list):
        return readings
    known = dict(enumerate(origins))

    def restored(reading: Any) -> Any:
        place = reading.get("origin") if isinstance(reading, dict) else None
        return reading | {"origin": known[place]} if type(place) is int and place in known else reading

    return [restored(reading) for reading in readings]
