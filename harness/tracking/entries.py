"""A record in MLflow's terms: params to search by, metrics to plot, tags to filter by, the data it was taken on."""

import getpass
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harness.records.record import Record

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param, RunTag

LONGEST = 5000
"""Letters of a param or a tag; MLflow takes a few more."""


def params(record: Record) -> "list[Param]":
    """Flat and searchable: `width`, `n`, `variant.kernel_size`; a case never changes them."""
    from mlflow.entities import Param

    case = record.case
    size = {"width": case.resolution.width, "height": case.resolution.height}
    found: dict[str, Any] = case.identity() | size
    try:
        spelled = json.loads(found.pop("mixer", "{}"))
        found |= {"variant.mixer": spelled["mixer"]} | {f"variant.{k}": v for k, v in spelled["parameters"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        found |= {"variant.mixer": case.mixer} if case.mixer else {}
    return [Param(name_of(name), _text(value)) for name, value in found.items()]


def metrics(record: Record) -> "list[Metric]":
    """Every reading with the ends of its interval, what the machine has, and how long it all took."""
    values: dict[str, float | int] = {"elapsed_s": record.elapsed_s}
    for reading in record.readings:
        ends = {"": reading.value, ".low": reading.low, ".high": reading.high}
        values |= {f"{reading.name}{end}": value for end, value in ends.items() if value is not None}
    for name, value in record.machine.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            values[f"system/{name}"] = value
    return [*(_metric(name, value, record, 0) for name, value in values.items()), *_learning(record)]


def _learning(record: Record) -> "Iterator[Metric]":
    """The curve that a student's training left, by its steps."""
    for reading in record.readings:
        for point in reading.details["points"] if reading.name == "feature_error" and reading.details else ():
            for name in ("features", "prediction", "minutes"):
                yield _metric(f"learning/{name}", point[name], record, int(point["steps"]))


def curves(records: Sequence[Record]) -> "list[Metric]":
    """For the parent: each reading of each model and variant, with the side of the image as its step."""
    ordered = sorted(records, key=lambda record: (record.case.resolution, record.started))
    return [
        _metric(f"{reading.name}/{record.case.model} {record.case.variant}", reading.value, record, side_of(record))
        for record in ordered
        for reading in record.readings
        if reading.value is not None
    ]


def side_of(record: Record) -> int:
    """The side of a square of as many pixels."""
    return round(math.sqrt(record.case.pixels))


def tags(record: Record) -> "list[RunTag]":
    """Status, reason, noise, source, and of each reading its protocol, or why there is no number."""
    from mlflow.entities import RunTag

    found = {"status": record.status, "reason": record.reason, "metrics": " ".join(record.case.metrics)}
    noisy = {f"{r.name}: {said}" for r in record.readings if isinstance(said := r.details.get("noisy"), str) and said}
    found |= {"noisy": "; ".join(sorted(noisy))} | source(record.machine)
    for reading in record.readings:
        found[f"protocol.{reading.name}"] = reading.protocol
        if reading.value is None:
            found[f"reason.{reading.name}"] = reading.reason
    return [RunTag(name_of(name), _text(value)) for name, value in found.items()]


def source(machine: Mapping[str, Any]) -> dict[str, str]:
    """The tags by which MLflow shows where a run is from and whose it is."""
    found = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "python -m harness"}
    if commit := machine.get("commit"):
        found["mlflow.source.git.commit"] = str(commit)
    with suppress(OSError, KeyError, ImportError):  # a container may know no such user
        found["mlflow.user"] = getpass.getuser()
    return found


def datasets(records: Iterable[Record]) -> "list[DatasetInput]":
    """The prompts and real images that scores were taken on: each world, size and choice once; none for costs alone."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = {}
    for record in records:
        case = record.case
        if not any(reading.better == "higher" or reading.unit == "1" for reading in record.readings):
            continue
        about = json.dumps({"world": case.world, "resolution": str(case.resolution)})
        profile = json.dumps({"prompts": case.n, "seeds": list(case.seeds)})
        named = hashlib.sha256((about + profile).encode()).hexdigest()[:8]
        found[named] = Dataset(f"{case.world} {case.resolution}", named, "deltabench", about, profile=profile)
    return [DatasetInput(each, [InputTag("mlflow.data.context", "evaluation")]) for each in found.values()]


def taught(world: str, data: str) -> "list[DatasetInput]":
    """What a student learns from. data: what names it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    about = json.dumps({"world": world, "data": data})
    found = Dataset(f"{world} training", hashlib.sha256(about.encode()).hexdigest()[:8], "deltabench", about)
    return [DatasetInput(found, [InputTag("mlflow.data.context", "training")])]


def began_ms(record: Record) -> int:
    """When its case began; 0 where that is not known."""
    return ms_of(record.started) if record.started else 0


def ended_ms(record: Record) -> int:
    """When its case ended."""
    return began_ms(record) + round(record.elapsed_s * 1000)


def ms_of(when: str) -> int:
    """A time in ISO's form, in MLflow's milliseconds."""
    return round(datetime.fromisoformat(when).timestamp() * 1000)


def flat(value: Any, name: str) -> dict[str, str]:
    """What something is made of, a name for each setting at any depth: `recipe.stages.0.schedule.steps`."""
    if isinstance(value, dict) and value.keys() == {"class", "settings"}:
        return {name: str(value["class"]).rpartition(".")[2]} | flat(value["settings"], name)
    if not isinstance(value, dict | list):
        return {name: _text(value)}
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    return {path: text for key, one in inside for path, text in flat(one, f"{name}.{key}").items()}


def name_of(text: str) -> str:
    """A name that MLflow takes: letters, digits and a few signs, at most 250."""
    return re.sub(r"[^\w\-. /:]", "_", text, flags=re.ASCII).strip("/. ")[:250] or "_"


def _metric(name: str, value: float | int, record: Record, step: int) -> "Metric":
    from mlflow.entities import Metric

    return Metric(name_of(name), float(value), ended_ms(record), step)


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST]
