"""Reading a store folder: the records that can be read, and a sentence for every file that cannot.

It knows the JSON of `harness.records.record`, not its classes. Settings of a case that this
version has never heard of are kept, and count when two readings are asked whether they may be compared.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SCHEMA = 1
NAMED = ("model", "variant", "resolution", "metrics", "key", "weights", "mixer")
"""Fields of a case that have a place of their own in a record; all others are its settings."""
LARGEST = 1e300
"""Beyond this a number is damage, not a measurement; NaN fails the comparison as well."""


class BadStore(ValueError):
    """The folder cannot be rendered: the message is the one sentence that the user sees."""


@dataclass(frozen=True)
class Reading:
    """One number with unit, direction, n, interval and protocol; or None with its reason."""

    metric: str
    name: str
    value: float | int | None
    unit: str
    better: str
    protocol: str
    n: int
    low: float | None
    high: float | None
    reason: str
    samples: tuple[float, ...]
    details: dict[str, Any]


@dataclass(frozen=True)
class Site:
    """What sat at one self-attention layer, and its price in FLOPs of one image."""

    path: str
    channels: int
    heads: int
    grid: tuple[int, int]
    mixer: str
    flops: int
    parameters: int
    note: str


@dataclass(frozen=True)
class Record:
    """One case and what is known of it; `settings` is whatever else of the case changes a result.

    mixer: the variant's factory and all its settings, as JSON; empty in a record from before it was kept.
    """

    key: str
    model: str
    variant: str
    width: int
    height: int
    weights: str
    metrics: tuple[str, ...]
    settings: dict[str, Any]
    status: str
    reason: str
    readings: tuple[Reading, ...]
    sites: tuple[Site, ...]
    notes: tuple[str, ...]
    artifacts: dict[str, str]
    machine: dict[str, Any]
    started: str
    elapsed_s: float
    mixer: str = ""

    @property
    def resolution(self) -> str:
        """`1024`, or `4096x2160` as width x height."""
        return str(self.width) if self.width == self.height else f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return self.width * self.height


@dataclass(frozen=True)
class Store:
    """A folder's records, oldest first, and what must be said about the files that are not among them."""

    folder: Path
    records: tuple[Record, ...]
    notices: tuple[str, ...]


def load(folder: str | Path) -> Store:
    """Read every record under `folder`; raise BadStore where there is nothing to show."""
    root = Path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise BadStore(f"{str(folder)!r} {what}: give the output folder of a sweep, such as outputs/resolution")
    paths = sorted(p for p in (root / "records").glob("*.json") if not p.name.startswith("."))
    records, notices = [], []
    for path in paths:
        try:
            records.append(_record(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            notices.append(f"{path.name} cannot be read and is left out: {_sentence(error)}")
    notices += [
        f"{p.name} was set aside by the harness as unreadable" for p in sorted(root.glob("records/*.json.corrupt*"))
    ]
    if not records:
        why = f"none of its {len(paths)} record files can be read ({notices[0]})" if paths else "it holds no records"
        raise BadStore(f"{str(folder)!r} is not a store with results, {why}: give the output folder of a sweep")
    records.sort(key=lambda r: (r.started, r.model, r.variant, r.pixels, r.key))
    return Store(root, tuple(records), tuple(notices))


def _sentence(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg}, line {error.lineno})"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error) or type(error).__name__


def _record(text: str) -> Record:
    data = json.loads(text, parse_constant=_no_constant)
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    if data.get("schema") != SCHEMA:
        raise ValueError(f"schema {data.get('schema')!r}, this version reads {SCHEMA}")
    case: dict[str, Any] = _take(data, "case", dict)
    size = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", _take(case, "resolution", str))
    if size is None:
        raise ValueError(f"resolution {case['resolution']!r} is not a size")
    return Record(
        key=_take(case, "key", str),
        model=_take(case, "model", str),
        variant=_take(case, "variant", str),
        width=int(size[1]),
        height=int(size[2] or size[1]),
        weights=_take(case, "weights", str),
        metrics=tuple(str(m) for m in _take(case, "metrics", list)),
        settings={name: value for name, value in case.items() if name not in NAMED},
        status=_take(data, "status", str),
        reason=_take(data, "reason", str),
        readings=tuple(_each(data, "readings", _reading)),
        sites=tuple(_each(data, "sites", _site)),
        notes=tuple(str(note) for note in _take(data, "notes", list)),
        artifacts={str(name): str(path) for name, path in _take(data, "artifacts", dict).items()},
        machine=_take(data, "machine", dict),
        started=_take(data, "started", str),
        elapsed_s=_number(data, "elapsed_s"),
        mixer=_mixer(case),
    )


def _mixer(case: dict[str, Any]) -> str:
    text = _take(case, "mixer", str) if "mixer" in case else ""
    if text:
        made = json.loads(text)
        if not isinstance(made, dict):
            raise ValueError(f"field 'mixer' is {text!r:.60}, not a factory with its parameters")
        _take(made, "mixer", str)
        _take(made, "parameters", dict)
    return text


def _reading(data: dict[str, Any]) -> Reading:
    value, reason = _optional(data, "value"), _take(data, "reason", str)
    if value is None and not reason:
        raise ValueError(f"reading {data.get('name')!r} has neither a value nor a reason")
    return Reading(
        metric=_take(data, "metric", str),
        name=_take(data, "name", str),
        value=value,
        unit=_take(data, "unit", str),
        better=_take(data, "better", str),
        protocol=_take(data, "protocol", str),
        n=int(_number(data, "n")),
        low=_optional(data, "low"),
        high=_optional(data, "high"),
        reason=reason,
        samples=_samples(_take(data, "samples", list)),
        details=_take(data, "details", dict),
    )


def _site(data: dict[str, Any]) -> Site:
    grid = _take(data, "grid", list)
    if len(grid) != 2 or not all(isinstance(side, int) for side in grid):
        raise ValueError(f"grid {grid!r} is not [height, width]")
    return Site(
        path=_take(data, "path", str),
        channels=int(_number(data, "channels")),
        heads=int(_number(data, "heads")),
        grid=(grid[0], grid[1]),
        mixer=_take(data, "mixer", str),
        flops=int(_number(data, "flops")),
        parameters=int(_number(data, "parameters")),
        note=_take(data, "note", str),
    )


def _each(data: dict[str, Any], name: str, make: Callable[[dict[str, Any]], T]) -> list[T]:
    items = _take(data, name, list)
    if not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{name!r} holds something that is not an object")
    return [make(item) for item in items]


def _take(data: dict[str, Any], name: str, kind: type[T]) -> T:
    if name not in data:
        raise ValueError(f"no field {name!r}")
    value = data[name]
    if not isinstance(value, kind):
        raise ValueError(f"field {name!r} is {value!r:.60}, not a {kind.__name__}")
    return value


def _number(data: dict[str, Any], name: str) -> float | int:
    value = _optional(data, name)
    if value is None:
        raise ValueError(f"no number {name!r}")
    return value


def _optional(data: dict[str, Any], name: str) -> float | int | None:
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise ValueError(f"field {name!r} is {value!r:.60}, not a finite number")
    return value


def _samples(values: list[Any]) -> tuple[float, ...]:
    if any(isinstance(v, bool) or not isinstance(v, int | float) or not abs(v) < LARGEST for v in values):
        raise ValueError("field 'samples' holds something that is not a finite number")
    return tuple(float(v) for v in values)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that a record may hold")
