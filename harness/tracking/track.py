"""Trackers show the records to others; the records stay the truth. MLflow: a parent run a sweep, a child run a case.

What was tracked is remembered beside the records (`tracked.json`: a digest of each record and of the report), so that
a run with nothing new does not even import mlflow, and a server that was away gets at the next run what it missed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from harness.records.record import Record
from harness.records.store import write_whole
from harness.tracking import mirror

MEMORY = "tracked.json"


class Tracker(Protocol):
    """Where records are shown."""

    def track(self, records: Sequence[Record], folder: Path, report: Path | None) -> str | None:
        """Track what is new of a store's records; return a sentence if that could not be done."""


@dataclass(frozen=True)
class NoTracker:
    """Tracks nothing."""

    def track(self, records: Sequence[Record], folder: Path, report: Path | None) -> str | None:
        """Nothing to do."""
        return None


@dataclass(frozen=True)
class MlflowTracker:
    """Tracks to `uri`; None is a sqlite file with a folder of artifacts, both beside the store's folder."""

    uri: str | None = None
    experiment: str = "deltabench"

    def track(self, records: Sequence[Record], folder: Path, report: Path | None) -> str | None:
        """Track records and report unless their content was tracked before; return a warning if MLflow failed."""
        folder = folder.resolve()
        database = None if self.uri else folder.parent / "mlflow.db"
        uri = self.uri or f"sqlite:///{database}"
        memory = _Memory.load(folder, uri) if database is None or database.exists() else _Memory()
        pending = [record for record in records if memory.contents.get(record.case.key) != _content(record)]
        page = _digest(report.read_bytes()) if report else memory.report
        if not pending and page == memory.report:
            return None
        with mirror.brief_and_quiet():
            try:
                if database is not None and not database.exists():
                    mirror.make_database(database)
                runs = mirror.Mirror(uri, self.experiment, None if self.uri else folder.parent / "mlflow-artifacts")
                self._log(runs, records, pending, memory, folder, uri)
                runs.close(records, report if page != memory.report else None)
            except mirror.failures() as error:
                missing = sum(memory.contents.get(record.case.key) != _content(record) for record in records)
                return (
                    f"MLflow at {_public(uri)} failed ({_root(error)}): {missing} of {len(records)} records are not "
                    f"tracked; they stay in {folder.name!r} and are tracked at the next run"
                )
        memory.report = page
        memory.save(folder, uri)
        return None

    def _log(
        self,
        runs: mirror.Mirror,
        records: Sequence[Record],
        pending: Sequence[Record],
        memory: "_Memory",
        folder: Path,
        uri: str,
    ) -> None:
        """Each pending record to its run, remembered one by one; all of them where the server has lost the sweep."""
        parent = runs.open(memory.parent, folder.name, records)
        if parent != memory.parent:
            pending = records
            memory.parent, memory.report = parent, ""
            memory.contents.clear()
            memory.save(folder, uri)
        for record in pending:
            runs.log(record, folder)
            memory.contents[record.case.key] = _content(record)
            memory.save(folder, uri)


@dataclass
class _Memory:
    """What a store's folder remembers of one tracking server."""

    parent: str = ""
    report: str = ""
    contents: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, uri: str) -> "_Memory":
        """What was saved; an empty memory if that is missing or unreadable."""
        try:
            return cls(**json.loads((folder / MEMORY).read_text(encoding="utf-8"))[_digest(uri.encode())])
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def save(self, folder: Path, uri: str) -> None:
        """Keep it beside what is known of other servers, each named by a digest: its URI may hold a password."""
        path = folder / MEMORY
        try:
            servers = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            servers = {}
        write_whole(path, json.dumps(servers | {_digest(uri.encode()): asdict(self)}, indent=1, sort_keys=True) + "\n")


def _content(record: Record) -> str:
    return _digest(json.dumps(record.to_json(), sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _public(uri: str) -> str:
    """The URI without user and password."""
    parts = urlsplit(uri)
    return uri.replace(parts.netloc, parts.netloc.rpartition("@")[2]) if "@" in parts.netloc else uri


def _root(error: BaseException) -> str:
    """What went wrong at the bottom, in a line; mlflow wraps it in the URI with its password."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
