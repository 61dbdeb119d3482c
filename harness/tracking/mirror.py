"""The runs of one sweep on one MLflow server: a parent, and a child a case that is found again by its tag `key`.

mlflow takes two seconds to import, so it is imported where it is used. Everything here may raise what `failures`
names, and is called under `brief_and_quiet`.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.distillation.student import cached_by
from harness.records.machine import describe
from harness.records.record import Record
from harness.tracking.entries import began_ms, curves, datasets, ended_ms, metrics, params, source, tags
from reports.locality_picture import picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from PIL.Image import Image

PARENT_TAG = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
BATCH = 500
MOST_BYTES = 2**26
"""Of a student's file: a larger one is not sent to the server, only its card, which says what made it."""
GRID_IMAGES = 16
GRID_COLUMNS = 4
GRID_CELL = 256
LOGGERS = ("mlflow", "alembic")

# For the length of a call: a server that does not answer costs seconds, and mlflow keeps stdout clean.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

# An experiment of runs, not of language models' traces: read by some releases of MLflow (see `address` for the others).
KIND = ("mlflow.experimentKind", "custom_model_development")


class Mirror:
    """A parent run and its children. `open`, then `log` for each record, then `close`."""

    def __init__(self, uri: str, experiment: str, artifacts: Path | None) -> None:
        """Connect; a new experiment keeps its artifacts in that folder, or where the server says if None."""
        self.client = _client(uri)
        existing = self.client.get_experiment_by_name(experiment)
        if existing is None:
            location = artifacts.as_uri() if artifacts else None
            self.experiment = self._made(experiment, location)
        else:
            self.experiment = existing.experiment_id
            if existing.lifecycle_stage == "deleted":
                self.client.restore_experiment(self.experiment)
            if existing.tags.get(KIND[0]) != KIND[1]:
                self.client.set_experiment_tag(self.experiment, *KIND)
        self._parent = ""
        self._children: dict[str, str] = {}
        self._students: set[str] = set()
        self.contents: dict[str, str] = {}

    def _made(self, experiment: str, location: str | None) -> str:
        """The id of a new experiment, or of the one that another run has made at the same moment."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.create_experiment(experiment, location, dict([KIND])))
        except MlflowException:
            existing = self.client.get_experiment_by_name(experiment)
            if existing is None:
                raise
            return str(existing.experiment_id)

    def open(self, parent: str, folder: Path, records: Sequence[Record]) -> str:
        """Go on in that parent run if it exists, else in the folder's, else in a new one; returns its id.

        A new one begins when the first of the records did, so that its duration is that of the sweep. `contents` then
        holds a digest of what each child was last written from, by the case's key.
        """
        place = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        if not self._lives(parent):
            query = f"tags.sweep = '{_quoted(folder.name)}' and tags.folder = '{place}'"
            known = self.client.search_runs([self.experiment], query, max_results=1)
            parent = known[0].info.run_id if known else ""
        if not parent:
            began = min(map(began_ms, records), default=None)
            named = {"mlflow.runName": folder.name, "sweep": folder.name, "folder": place}
            named |= source(records[-1].machine if records else describe())
            parent = self.client.create_run(self.experiment, start_time=began, tags=named).info.run_id
        self._parent = parent
        query, page = f"tags.`{PARENT_TAG}` = '{self._parent}'", None
        while True:
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=page and page.token)
            for run in page:
                key = run.data.tags.get("key")
                if key is None:  # a training
                    continue
                self._children[key] = run.info.run_id
                self.contents[key] = run.data.tags.get("content", "")
            if not page.token:
                return self._parent

    def log(self, record: Record, folder: Path, content: str) -> None:
        """Write one record of the store in that folder to its child run, new or found."""
        run = self._children.get(record.case.key)
        if run is None:
            named = {PARENT_TAG: self._parent, "mlflow.runName": str(record.case), "key": record.case.key}
            new = self.client.create_run(self.experiment, start_time=began_ms(record), tags=named)
            run = self._children[record.case.key] = new.info.run_id
            self.client.log_inputs(run, datasets([record]))
            self._log_images(run, record, folder)
            self._log_student(record)
        self.client.log_batch(run, metrics(record), params(record), tags(record))
        self.client.log_dict(run, record.to_json(), "record.json")
        if (grid := _image_grid(record, folder)) is not None:
            self.client.log_image(run, grid, "images.png")
        if (figure := picture(record)) is not None:
            self.client.log_figure(run, figure, "locality.png")
        self.client.set_tag(run, "content", content)
        self.client.set_terminated(run, "FINISHED" if record.status == "ok" else "FAILED", ended_ms(record))

    def _log_images(self, run: str, record: Record, folder: Path) -> None:
        """The first images one by one, so that the run's page steps through them by prompt."""
        for step, image in enumerate(_images(record, folder)):
            self.client.log_image(run, image, key="image", step=step)

    def _log_student(self, record: Record) -> None:
        """The student that was trained here for a case, with its card, once for all sizes: to the parent."""
        key = record.case.weights.partition("+")[2]
        weights = cached_by(key) if key and key not in self._students else None
        if weights is None:
            return
        self._students.add(key)
        for path in (weights, weights.with_suffix(".md")):
            if path.is_file() and path.stat().st_size <= MOST_BYTES:
                self.client.log_artifact(self._parent, str(path), "students")

    def close(self, records: Sequence[Record], report: Path | None, note: str, figures: "Mapping[str, Figure]") -> None:
        """Bring the parent up to date: curves, data sets, how cases ended, the answer in words, report, figures."""
        statuses = [record.status for record in records]
        for status in sorted(set(statuses)):
            self.client.log_metric(self._parent, f"cases.{status}", statuses.count(status))
        drawn = curves(records)
        for start in range(0, len(drawn), BATCH):
            self.client.log_batch(self._parent, metrics=drawn[start : start + BATCH])
        self.client.log_inputs(self._parent, datasets(records))
        if note:
            self.client.set_tag(self._parent, NOTE, note)
        if report is not None:
            self.client.log_artifact(self._parent, str(report))
        for name, figure in figures.items():
            self.client.log_figure(self._parent, figure, name)
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


def _quoted(text: str) -> str:
    """Text within the single quotes of a search; MLflow has no escape for its own quote."""
    return text.replace("'", "_")


def _images(record: Record, folder: Path) -> "list[Image]":
    """The first images of a case, in order of the prompts."""
    from PIL import Image

    found = {int(name[6:]): path for name, path in record.artifacts.items() if name[6:].isdecimal()}
    images = []
    for index in sorted(found)[:GRID_IMAGES]:
        if (folder / found[index]).is_file():
            with Image.open(folder / found[index]) as image:
                images.append(image.convert("RGB"))
    return images


def _image_grid(record: Record, folder: Path) -> "Image | None":
    """The first images of a case side by side, in prompt order, each shrunk to a cell; None if it has none."""
    from PIL import Image

    cells: list[Any] = _images(record, folder)
    if not cells:
        return None
    for cell in cells:
        cell.thumbnail((GRID_CELL, GRID_CELL))
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    columns = min(GRID_COLUMNS, len(cells))
    grid = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for index, cell in enumerate(cells):
        grid.paste(cell, (index % columns * width, index // columns * height))
    return grid
