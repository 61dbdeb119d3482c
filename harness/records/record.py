"""A record: a case, its readings, the machine, a status. Plain values that go to JSON and come back unchanged."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from harness.records.case import Case, Resolution

SCHEMA = 1

Status = Literal["ok", "out_of_memory", "unavailable", "failed", "timeout"]
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Reading:
    """One number with its unit, direction, n, interval and protocol; or a dash (value None) with its reason.

    metric: the catalogue's metric that took it (`flops`); name: what it is (`flops_mixers`). unit: FLOP, byte, ms,
    parameter, x (a ratio of costs), share, or 1 for scores. low, high: a 95 % interval. samples: raw values (per image,
    per repetition). details: whatever belongs beside the number (a noise floor, a break-down), as JSON values.
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

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(
                f"reading {self.name} is {self.value}: a number that could not be taken is None with a reason"
            )
        if self.value is None and not self.reason:
            raise ValueError(f"reading {self.name} has neither a value nor a reason")


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
    """Everything that is known of one case. `artifacts` are paths relative to the store's folder."""

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

    def reading(self, name: str) -> Reading | None:
        """The reading of that name, if it was taken."""
        return next((r for r in self.readings if r.name == name), None)

    def merged(self, later: "Record") -> "Record":
        """This record with what a later run of the same case added or took again."""
        fresh = set(later.case.metrics)
        kept = tuple(r for r in self.readings if r.metric not in fresh)
        metrics = tuple(dict.fromkeys(self.case.metrics + later.case.metrics))
        return replace(
            later,
            case=replace(later.case, metrics=metrics),
            readings=kept + later.readings,
            sites=later.sites or self.sites,
            artifacts=self.artifacts | later.artifacts,
            elapsed_s=self.elapsed_s + later.elapsed_s,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        data = asdict(self)
        data["case"] = self.case.identity() | {"metrics": list(self.case.metrics), "key": self.case.key}
        return {"schema": SCHEMA, **data}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Record":
        """The inverse of `to_json`; raises ValueError for another schema."""
        if data.get("schema") != SCHEMA:
            raise ValueError(f"record has schema {data.get('schema')!r}, this version reads {SCHEMA}")
        fields = {name: value for name, value in data.items() if name != "schema"}
        case = {name: value for name, value in fields["case"].items() if name != "key"}
        case |= {
            "resolution": Resolution.parse(case["resolution"]),
            "metrics": tuple(case["metrics"]),
            "seeds": tuple(case["seeds"]),
        }
        fields["case"] = Case(**case)
        fields["readings"] = tuple(Reading(**{**r, "samples": tuple(r["samples"])}) for r in fields["readings"])
        fields["sites"] = tuple(SiteAccount(**{**s, "grid": tuple(s["grid"])}) for s in fields["sites"])
        fields["notes"] = tuple(fields["notes"])
        return cls(**fields)
