"""What worker processes are tried with: metrics that hang, kill their process, or fill its memory."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.records.record import Reading


@dataclass(frozen=True)
class Counts:
    """Counted on shapes alone."""

    needs: str = "shapes"

    def __call__(self, trial) -> Iterator[Reading]:
        yield Reading("counts", "counts", trial.case.resolution.width, "FLOP", "lower", "counts/v1")


@dataclass(frozen=True)
class Notes:
    """Notes in a file when it begins and ends, at 64 pixels does as it is told, and reads its process's number."""

    file: str
    does: str = "nothing"
    needs: str = "shapes"
    runs: bool = True

    def __call__(self, trial) -> Iterator[Reading]:
        size = trial.case.resolution.width
        self.note(f"begin {size}")
        if size == 64 and self.does == "hang":
            time.sleep(600)
        if size == 64 and self.does.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[self.does])
        time.sleep(0.2)
        self.note(f"end {size}")
        yield Reading("notes", "notes", os.getpid(), "1", "neither", "notes/v1")

    def note(self, what: str) -> None:
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(f"{what}\n")


@dataclass(frozen=True)
class Untimed(Notes):
    """The same among metrics that time nothing."""

    needs: str = "weights"
