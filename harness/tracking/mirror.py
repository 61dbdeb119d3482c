"""The runs of one sweep on one MLflow server: a parent, and a child a case that is found again by its tag `key`.

mlflow takes two seconds to import, so it is imported where it is used. Everything here may raise what `failures`
names, and is called under `brief_and_quiet`.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness.records.record import Record
from reports.locality_picture import picture

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from PIL.Image import Image

PARENT_TAG = "mlflow.parentRunId"
LONGEST = 5000
GRID_IMAGES = 16
GRID_COLUMNS = 4
GRID_CELL = 256
LOGGERS = ("mlflow", "alembic")

# For the length of a call: a server that does not answer costs seconds, and mlflow keeps stdout clean.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

# Without it MLflow's pages open on traces of language models, not on the runs.
KIND = {"mlflow.experimentKind": "custom_model_development"}


class Mirror:
    """A parent run and its children. `open`, then `log` for each record, then `close`."""

    def __init__(self, uri: str, experiment: str, artifacts: Path | None) -> None:
        """Connect; a new experiment keeps its artifacts in that folder, or where the server says if None."""
        self.client = _client(uri)
        existing = self.client.get_experiment_by_name(experiment)
        location = artifacts.as_uri() if artifacts else None
        fresh = None if existing else self.client.create_experiment(experiment, location, KIND)
        self._experiment = existing.experiment_id if existing else fresh
        self._parent = ""
        self._children: dict[str, str] = {}

    def open(self, parent: str, name: str, records: Sequence[Record]) -> str:
        """Take up that parent run with its children, or begin one of that name; return the id of the parent.

        A new one began when the first of the records did, so that its duration is that of the sweep.
        """
        tags = {"mlflow.runName": name, "sweep": name}
        if not self._lives(parent):
            began = min(map(_began_ms, records), default=None)
            parent = self.client.create_run(self._experiment, start_time=began, tags=tags).info.run_id
        self._parent = parent
        query, page = f"tags.`{PARENT_TAG}` = '{self._parent}'", None
        while True:
            page = self.client.search_runs([self._experiment], query, max_results=1000, page_token=page and page.token)
            self._children |= {run.data.tags.get("key", ""): run.info.run_id for run in page}
            if not page.token:
                return self._parent

    def log(self, record: Record, folder: Path) -> None:
        """Write one record of the store in that folder to its child run, new or found."""
        run, tags = self._children.get(record.case.key), _tags(record)
        if run is None:
            named = {PARENT_TAG: self._parent, "mlflow.runName": str(record.case), "key": record.case.key}
            new = self.client.create_run(self._experiment, start_time=_began_ms(record), tags=tags | named)
            run, tags = new.info.run_id, {}
        self.client.log_batch(run, *_entities(record, tags))
        self.client.log_dict(run, record.to_json(), "record.json")
        if (grid := _image_grid(record, folder)) is not None:
            self.client.log_image(run, grid, "images.png")
        if (figure := picture(record)) is not None:
            self.client.log_figure(run, figure, "locality.png")
        self.client.set_terminated(run, "FINISHED" if record.status == "ok" else "FAILED", _ended_ms(record))

    def close(self, records: Sequence[Record], report: Path | None) -> None:
        """Bring the parent up to date: how many cases ended how, and the report."""
        statuses = [record.status for record in records]
        for status in sorted(set(statuses)):
            self.client.log_metric(self._parent, f"cases.{status}", statuses.count(status))
        if report is not None:
            self.client.log_artifact(self._parent, str(report))
        self.client.set_terminated(self._parent, "FAILED" if "failed" in statuses else "FINISHED")

    def _lives(self, parent: str) -> bool:
        from mlflow.exceptions import MlflowException

        if not parent:
            return False
        try:
            return bool(self.client.get_run(parent).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise


def failures() -> tuple[type[Exception], ...]:
    """What a server, a database or a disk that fails is raised as."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError


def make_database(path: Path) -> None:
    """Lay out mlflow's sqlite file aside and move it into place: a run killed meanwhile leaves no half of one.

    The migrations run without syncs to disk, which saves seconds; nothing is in the file yet that could be lost.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def without_sync(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", without_sync)
    try:
        with TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as aside:
            _client(f"sqlite:///{aside}/mlflow.db").search_experiments(max_results=1)
            Path(aside, "mlflow.db").replace(path)
    finally:
        event.remove(Engine, "connect", without_sync)


@contextmanager
def brief_and_quiet() -> Iterator[None]:
    """Short time-outs and no chatter, for the length of a call; what the user has set in the environment stands."""
    unset = [name for name in SETTINGS if name not in os.environ]
    os.environ.update({name: SETTINGS[name] for name in unset})
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in unset:
            del os.environ[name]


def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _entities(record: Record, tags: dict[str, str]) -> tuple[list[Any], list[Any], list[Any]]:
    """Metrics, params and tags as mlflow's own values."""
    from mlflow.entities import Metric, Param, RunTag

    values: dict[str, float] = {"elapsed_s": record.elapsed_s}
    for reading in record.readings:
        ends = {"": reading.value, ".low": reading.low, ".high": reading.high}
        values |= {f"{reading.name}{end}": value for end, value in ends.items() if value is not None}
    return (
        [Metric(name, float(value), _ended_ms(record), 0) for name, value in values.items()],
        [Param(name, str(value)[:LONGEST]) for name, value in record.case.identity().items()],
        [RunTag(name, value) for name, value in tags.items()],
    )


def _tags(record: Record) -> dict[str, str]:
    """Status, reason, what was asked for, and of each reading its protocol, or why there is no number."""
    tags = {"status": record.status, "reason": record.reason, "metrics": " ".join(record.case.metrics)}
    for reading in record.readings:
        tags[f"protocol.{reading.name}"] = reading.protocol
        if reading.value is None:
            tags[f"reason.{reading.name}"] = reading.reason
    return {name: value[:LONGEST] for name, value in tags.items()}


def _image_grid(record: Record, folder: Path) -> "Image | None":
    """The first images of a case side by side, in prompt order, each shrunk to a cell; None if it has none."""
    from PIL import Image

    images = {int(name.split("/")[1]): path for name, path in record.artifacts.items() if name.startswith("image/")}
    paths = [folder / images[i] for i in sorted(images) if (folder / images[i]).is_file()][:GRID_IMAGES]
    if not paths:
        return None
    cells = []
    for path in paths:
        with Image.open(path) as image:
            cells.append(image.convert("RGB"))
        cells[-1].thumbnail((GRID_CELL, GRID_CELL))
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    columns = min(GRID_COLUMNS, len(cells))
    grid = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for index, cell in enumerate(cells):
        grid.paste(cell, (index % columns * width, index // columns * height))
    return grid


def _began_ms(record: Record) -> int:
    return round(datetime.fromisoformat(record.started).timestamp() * 1000) if record.started else 0


def _ended_ms(record: Record) -> int:
    return _began_ms(record) + round(record.elapsed_s * 1000)
