"""Trackers show the records to others; the records stay the truth. MLflow: a parent run a sweep, a child run a case.

What was tracked is remembered beside the records (`tracked.json`: a digest of each record and of the report), so that
a run with nothing new does not even import mlflow, and a server that was away gets at the next run what it missed. That
memory may be lost: each run carries what it was written from as a tag.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from harness.distillation.audience import Audience
from harness.records.case import BadInput
from harness.records.files import write_whole
from harness.records.record import Record
from harness.records.typed import reader
from harness.tracking import mirror
from harness.tracking.address import page
from harness.tracking.patience import Progress, TooSlow, with_patience
from harness.tracking.server import Server, root
from harness.tracking.trainings import Trainings
from reports.tradeoff_picture import pictures

MEMORY = "tracked.json"
MANY = 10**9
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


class Tracker(Protocol):
    """Where records are shown."""

    def track(self, records: Sequence[Record], folder: Path, report: Path | None) -> str | None:
        """Track what is new of a store's records; return a sentence if that could not be done."""

    def link(self, folder: Path) -> str:
        """Where a browser finds what was tracked of a store; empty if nothing was."""

    def trainings(self, folder: Path) -> Audience | None:
        """Who hears, while they go on, of the trainings of a run that has that store."""


@dataclass(frozen=True)
class NoTracker:
    """Tracks nothing."""

    def track(self, records: Sequence[Record], folder: Path, report: Path | None) -> str | None:
        """Nothing to do."""
        return None

    def link(self, folder: Path) -> str:
        """There is none."""
        return ""

    def trainings(self, folder: Path) -> None:
        """Nobody."""


@dataclass(frozen=True)
class MlflowTracker:
    """Tracks to `uri`, or to $MLFLOW_TRACKING_URI; without either to a sqlite file beside the store's folder.

    experiment: None is $MLFLOW_EXPERIMENT_NAME, or `deltabench`.
    """

    uri: str | None = None
    experiment: str | None = None

    def __post_init__(self) -> None:
        """Raise BadInput for an address that MLflow has no way to."""
        address = self.address
        if address is None:
            return
        scheme = urlsplit(address).scheme.partition("+")[0] if isinstance(address, str) else ""
        if scheme not in SCHEMES:
            known = ", ".join(f"{name}:" for name in SCHEMES)
            raise BadInput(
                f"tracker.uri={address!r} is no address of an MLflow server or database: give one that begins with "
                f"{known} or null for a sqlite file beside the outputs, or tracker=none"
            )

    @property
    def address(self) -> str | None:
        """Where to, if not beside the outputs."""
        return self.uri if self.uri is not None else os.environ.get("MLFLOW_TRACKING_URI") or None

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "deltabench"

    def track(self, records: Sequence[Record], folder: Path, report: Path | None) -> str | None:
        """Track records and report unless their content was tracked before; return a warning if MLflow failed."""
        folder = folder.resolve()
        server = self._server(folder)
        sweep = _Sweep(server, records, folder, report)
        if sweep.is_tracked():
            return None
        with mirror.brief_and_quiet():
            known: tuple[type[Exception], ...] = (*mirror.failures(), TooSlow)
            try:
                server.prepare()
                with_patience(sweep.write)
            except known as error:
                missing = sum(sweep.memory.contents.get(record.case.key) != _content(record) for record in records)
                return (
                    f"{server.name} failed ({root(error)}): {missing} of {len(records)} records are "
                    f"not tracked; they stay in {folder.name!r} and are tracked at the next run"
                )
        return None

    def link(self, folder: Path) -> str:
        """The runs of the experiment, by the address that opens on them."""
        folder = folder.resolve()
        uri = self._server(folder).uri
        experiment = _Memory.load(folder, uri).experiment
        return page(uri, experiment) if experiment else ""

    def trainings(self, folder: Path) -> Trainings:
        """Each training is a child run of the store's, which grows with it."""
        return Trainings(self._server(folder.resolve()), folder.resolve())

    def _server(self, folder: Path) -> Server:
        beside = None if self.address else folder.parent / "mlflow.db"
        return Server(self.address or f"sqlite:///{beside}", self.name, beside)


class _Sweep:
    """One folder on its way to one server."""

    def __init__(self, server: Server, records: Sequence[Record], folder: Path, report: Path | None) -> None:
        self._server, self._records, self._folder, self._report = server, records, folder, report
        there = server.beside is None or server.beside.exists()
        self.memory = _Memory.load(folder, server.uri) if there else _Memory()
        self._page = _digest(report.read_bytes()) if report else self.memory.report

    def is_tracked(self) -> bool:
        """Whether all was tracked, by what is remembered; in a file beside the outputs the runs are counted as well."""
        same = all(self.memory.contents.get(record.case.key) == _content(record) for record in self._records)
        if not same or self._page != self.memory.report or not self.memory.experiment:
            return False
        if self._server.beside is None or not self.memory.parent:
            return True
        return _children(self._server.beside, self.memory.parent) >= len(self.memory.contents)

    def write(self, progress: Progress) -> None:
        """Each record that the server lacks to its run, remembered one by one; then the parent."""
        with self._server.mirror() as runs:
            parent = runs.open(self.memory.parent, self._folder, self._records)
            if parent != self.memory.parent:
                self.memory.parent, self.memory.report = parent, ""
            self.memory.experiment = runs.experiment
            self.memory.contents = dict(runs.contents)
            progress()
            for record in self._records:
                content = _content(record)
                if self.memory.contents.get(record.case.key) != content:
                    runs.log(record, self._folder, content)
                    self.memory.contents[record.case.key] = content
                    self.memory.save(self._folder, self._server.uri)
                    progress()
            changed = self._page != self.memory.report
            figures = pictures(self._records) if changed and self._report else {}
            runs.close(self._records, self._report if changed else None, _first_words(self._folder), figures)
        self.memory.report = self._page
        self.memory.save(self._folder, self._server.uri)


@dataclass
class _Memory:
    """What a store's folder remembers of one tracking server."""

    experiment: str = ""
    parent: str = ""
    report: str = ""
    contents: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, uri: str) -> "_Memory":
        """What was saved; an empty memory if that is missing or damaged."""
        try:
            kind: Any = cls
            found = reader(kind)(_servers(folder)[_digest(uri.encode())], "")
        except (ValueError, KeyError):
            return cls()
        return found if isinstance(found, cls) else cls()

    def save(self, folder: Path, uri: str) -> None:
        """Keep it beside what is known of other servers, each named by a digest: its URI may hold a password."""
        known = _servers(folder) | {_digest(uri.encode()): asdict(self)}
        write_whole(folder / MEMORY, json.dumps(known, indent=1, sort_keys=True) + "\n")


def _servers(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _children(path: Path, parent: str) -> int:
    """How many cases of that parent a sqlite file holds that nobody has deleted; MANY if it cannot be asked."""
    query = (
        "SELECT count(*) FROM tags JOIN runs ON tags.run_uuid = runs.run_uuid "
        "JOIN tags AS own ON own.run_uuid = runs.run_uuid AND own.key = 'key' "
        "WHERE tags.key = ? AND tags.value = ? AND runs.lifecycle_stage = 'active'"
    )
    try:
        with closing(sqlite3.connect(path, timeout=1)) as connection:
            return int(connection.execute(query, (mirror.PARENT_TAG, parent)).fetchone()[0])
    except sqlite3.Error:
        return MANY


def _first_words(folder: Path) -> str:
    """The answer as summary.md begins with it, before its tables."""
    try:
        text = (folder / "summary.md").read_text(encoding="utf-8")
    except OSError:
        return ""
    return text.partition("\n## ")[0].strip()[:4000]


def _content(record: Record) -> str:
    return _digest(json.dumps(record.to_json(), sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
