"""What the user sees of a run: a table that grows by a line a case on stdout, progress and notices on stderr.

stdout is made to be kept: no colours and no cursor movement where it is not a terminal, and as its last line one JSON
object. On stderr a bar with the time left where it is a terminal, a line a case where it is not.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from harness.gate import Verdict
from harness.record import Reading, Record

PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SYMBOLS = {"FLOP": "FLOP", "byte": "B", "parameter": ""}
IDENTITY_WIDTHS = {"model": 12, "variant": 15, "resolution": 11}
STYLES = {"ok": "green", "unavailable": "yellow", "out_of_memory": "yellow", "timeout": "yellow", "failed": "bold red"}
READING_WIDTH = 13
STATUS_WIDTH = 14


class Console:
    """The two streams of one run. `start`, then `row` or `skipped` for each case, then `finish`."""

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._out = RichConsole(file=stdout or sys.stdout, highlight=False, soft_wrap=True)
        self._err = RichConsole(file=stderr or sys.stderr, highlight=False, soft_wrap=True)
        self._columns: tuple[str, ...] = ()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._pace = _Pace(0)

    def start(self, total: int, metrics: Sequence[str] = ()) -> None:
        """Print the head of the table: a column for each metric, filled by the reading that bears its name."""
        self._columns = tuple(metrics)
        self._pace = _Pace(total)
        head = [f"{name:<{width}}" for name, width in IDENTITY_WIDTHS.items()]
        head += [f"{name:>{_width(name)}}" for name in self._columns]
        self._out.print(Text("  ".join([*head, f"{'status':<{STATUS_WIDTH}}", f"{'seconds':>8}"]), style="bold"))
        if self._err.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._err, transient=True)
            self._task = self._progress.add_task("", total=total, left="")
            self._progress.start()

    def working(self, text: str) -> None:
        """Say on the bar what is being done."""
        if self._progress:
            self._progress.update(self._task, description=text)

    def row(self, record: Record) -> None:
        """One line for a case that was just measured; its reason on stderr if it is not ok."""
        self._pace.measured += 1
        self._line(record, f"{record.elapsed_s:.1f}")
        if record.status != "ok":
            self.notice(f"{record.case}: {record.status}: {record.reason}")

    def skipped(self, record: Record) -> None:
        """One line for a case that the store had."""
        self._line(record, "kept")

    def notice(self, text: str) -> None:
        """A sentence on stderr."""
        self._err.print(Text(text))

    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """On stderr: each verdict that is not a pass, then how many there are of each."""
        for verdict in verdicts:
            if verdict.outcome != "pass":
                self.notice(f"gate: {verdict.outcome}: {verdict.case}: {verdict.name}: {verdict.reason}")
        outcomes = [verdict.outcome for verdict in verdicts]
        if outcomes:
            counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(sorted(outcomes)))
            self.notice(f"gate: {counts}")

    def stop(self) -> None:
        """Take the bar away; also after an exception. Nothing happens when there is none."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def finish(self, summary: dict[str, Any]) -> None:
        """Take the bar away and print the last line of stdout: the summary as one JSON object."""
        self.stop()
        self._err.file.flush()
        self._out.file.write(json.dumps(summary, allow_nan=False) + "\n")
        self._out.file.flush()

    def _line(self, record: Record, seconds: str) -> None:
        self._pace.seen += 1
        case = record.case
        identity = {"model": case.model, "variant": case.variant, "resolution": str(case.resolution)}
        line = Text("  ".join(f"{identity[name]:<{width}}" for name, width in IDENTITY_WIDTHS.items()))
        for name in self._columns:
            line.append(f"  {shown(record.reading(name)):>{_width(name)}}")
        line.append("  ").append(f"{record.status:<{STATUS_WIDTH}}", style=STYLES[record.status])
        line.append(f"  {seconds:>8}")
        self._print_above_bar(line)
        if self._progress:
            self._progress.update(self._task, completed=self._pace.seen, left=self._pace.left(), description="")
        else:
            self.notice(f"{self._pace.seen} of {self._pace.total} cases, {self._pace.left()}")

    def _print_above_bar(self, line: Text) -> None:
        """The bar and the table may share a terminal through two streams: the bar steps aside for the line."""
        if self._progress:
            self._progress.stop()
        self._out.print(line)
        self._out.file.flush()
        if self._progress:
            self._progress.start()


class _Pace:
    """How long the rest will take, judged by the cases that were measured (what the store had takes no time)."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seen = 0
        self.measured = 0
        self._began = time.monotonic()

    def left(self) -> str:
        rest = self.total - self.seen
        if rest <= 0:
            return f"done in {duration(time.monotonic() - self._began)}"
        if not self.measured:
            return "time left unknown"
        return f"about {duration((time.monotonic() - self._began) / self.measured * rest)} left"


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def shown(reading: Reading | None) -> str:
    """A reading as a cell: value and unit to four digits; a dash where there is no number."""
    if reading is None or reading.value is None:
        return "-"
    return quantity(reading.value, reading.unit)


def quantity(value: float, unit: str) -> str:
    """`1.234 TFLOP`, `512 MB` (decimal), `3.45 ms`, `27.12`."""
    if unit in SYMBOLS:
        scale, prefix = next(((scale, prefix) for scale, prefix in PREFIXES if abs(value) >= scale), (1.0, ""))
        return f"{value / scale:.4g} {prefix}{SYMBOLS[unit]}".rstrip()
    if unit == "ms" and abs(value) >= 10_000:
        return f"{value / 1000:.4g} s"
    return f"{value:.4g}" if unit in ("1", "share") else f"{value:.4g} {unit}"


def _width(column: str) -> int:
    return max(len(column), READING_WIDTH)
