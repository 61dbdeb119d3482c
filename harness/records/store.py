"""The store: a folder of records, one JSON file a case, each written whole or not at all.

    records/<key>.json     the record of the case with that key
    records/<key>.txt      the traceback of a case that failed
    images/<key>/<i>.png   the images of a case, i the index of the prompt; prompts.json lists the prompts

What cannot be read is set aside, never deleted.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.records.case import BadInput, Case
from harness.records.files import locked, owner, remove_leftovers, writable, write_whole
from harness.records.machine import describe, room, same_make
from harness.records.record import Record, Unreadable, too_long

PROMPTS = "prompts.json"


def to_stderr(text: str) -> None:
    """Say it on stderr."""
    print(text, file=sys.stderr)


class Archive:
    """The records under one folder by their cases, for what decides whether to measure; nothing is written.

    say: hears of files that cannot be read. (What shows a whole folder reads it by `reports.read`, which needs one.)
    """

    def __init__(self, folder: str | Path, say: Callable[[str], None] = to_stderr) -> None:
        self.folder = Path(folder)
        self._records = self.folder / "records"
        self._say = say

    def get(self, case: Case) -> Record | None:
        """The record of that case, if there is one that can be read."""
        return self._read(self._path(case))

    def records(self) -> list[Record]:
        """Every record that can be read, by model, variant and resolution."""
        found = [record for path in sorted(self._records.glob("*.json")) if (record := self._read(path))]
        return sorted(found, key=lambda r: (r.case.model, r.case.variant, r.case.resolution, r.case.key))

    def _path(self, case: Case) -> Path:
        return self._records / f"{case.key}.json"

    def _read(self, path: Path) -> Record | None:
        try:
            return Record.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Unreadable as error:
            self._refuse(path, str(error))
            return None

    def _refuse(self, path: Path, why: str) -> None:
        self._say(f"record {path.name} cannot be read ({why}): its case will be measured again")


class Store(Archive):
    """An archive to write to; what cannot be read is set aside."""

    def __init__(self, folder: str | Path, say: Callable[[str], None] = to_stderr) -> None:
        """Make the folder and prove that it can be written; raise BadInput otherwise."""
        super().__init__(folder, say)
        with writable(f"output folder {str(folder)!r}", "give another one with out=FOLDER"):
            self._records.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._records)
            probe = self._records / f".probe.{owner()}.tmp"
            probe.touch()
            probe.unlink()

    def put(self, record: Record) -> Record:
        """Keep a record, joined with what the store has of the same case; return what is now kept."""
        try:
            with locked(self.folder / ".lock"):
                earlier = self.get(record.case)
                kept = record if earlier is None else earlier.merged(record)
                write_whole(self._path(record.case), json.dumps(kept.to_json(), indent=1, allow_nan=False) + "\n")
                return kept
        except OSError as error:
            raise BadInput(
                f"the record of {record.case} cannot be written under {str(self.folder)!r} ({error.strerror}): "
                "make room there or give another folder with out=FOLDER; what was kept before is still there"
            ) from error

    def _refuse(self, path: Path, why: str) -> None:
        taken = sum(1 for _ in path.parent.glob(f"{path.name}.corrupt*"))
        aside = path.with_name(f"{path.name}.corrupt{taken or ''}")
        try:
            path.replace(aside)
        except FileNotFoundError:  # another run has set it aside
            return
        self._say(
            f"record {path.name} cannot be read ({why}): set aside as {aside.name}, its case will be measured again"
        )


def done(record: Record, identities: Mapping[str, str]) -> set[str]:
    """Metrics that need not be taken again: those with a number under the identity that is asked for, and in a record
    with status ok also those with a dash that cannot heal.
    """
    again = {r.metric for r in record.readings if r.value is None and (r.heals or record.status != "ok")}
    return {r.metric for r in record.readings} - again - _changed(record, identities)


def missing(
    case: Case, kept: Record | None, identities: Mapping[str, str], timeout_s: float | None = None
) -> tuple[str, ...]:
    """The metrics of a case that have to be taken; none of those that would end on this machine as they did before.

    timeout_s: how long a case may take now.
    """
    if kept is None:
        return case.metrics
    late = kept.status == "timeout" and timeout_s is not None and kept.reason == too_long(timeout_s)
    final = (late or kept.status == "out_of_memory") and set(case.metrics) <= set(kept.case.metrics) and _here(kept)
    enough = set(case.metrics) - _changed(kept, identities) if final else done(kept, identities)
    return tuple(name for name in case.metrics if name not in enough)


def _changed(record: Record, identities: Mapping[str, str]) -> set[str]:
    """The metrics whose readings would be others now."""
    return {name for name, identity in identities.items() if record.identities.get(name, "") != identity}


def _here(record: Record) -> bool:
    """Whether a record is from a machine of this one's make and memory."""
    now = describe(record.case.device)
    return same_make(record.machine, now) and room(record.machine) == room(now)
