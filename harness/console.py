"""What the user sees of a run: a table that grows by a line a case on stdout, progress and notices on stderr.

stdout is made to be kept: no colours and no cursor movement in a file or pipe, and one JSON object as its last line.
stderr has a bar with the time left, or a line a case where it is no terminal.
"""

import json
import sys
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from harness.records.case import Case
from harness.records.record import Reading, Record
from harness.records.units import DASH, duration, human
from harness.regression.verdict import Verdict

if TYPE_CHECKING:
    from harness.forecast import Forecast
    from harness.time_left import Pace

IDENTITY_WIDTHS = {"model": 11, "variant": 14, "resolution": 10}
SETTING_WIDTHS = {"dtype": 5, "batch": 5, "steps": 5}
"""Settings that a sweep may vary; they are shown where it does."""
STYLES = {"ok": "green", "unavailable": "yellow", "out_of_memory": "yellow", "timeout": "yellow", "failed": "bold red"}
READING_WIDTH = 11
STATUS_WIDTH = 13
SECONDS_WIDTH = 8
GAP = "  "


class Console:
    """The two streams of one run. `start`, then `row` or `skipped` for each case, then `finish`."""

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._out = RichConsole(file=stdout or sys.stdout, highlight=False, soft_wrap=True)
        self._err = RichConsole(file=stderr or sys.stderr, highlight=False, soft_wrap=True)
        self._columns: tuple[str, ...] = ()
        self._varying: tuple[str, ...] = ()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._total, self._seen, self._began = 0, 0, time.monotonic()
        self._pace: Pace | None = None

    def start(
        self, total: int, metrics: Sequence[str] = (), varying: Sequence[str] = (), pace: "Pace | None" = None
    ) -> None:
        """Print the head of the table: a column for each metric, filled by the reading that bears its name, or by how
        many numbers were taken where several bear names of their own.

        A terminal that is too narrow gets the first of the metrics; a file or a pipe gets all. varying: settings that
        tell cases of one model, variant and resolution apart. pace: predicts the time left.
        """
        self._varying = tuple(varying)
        self._columns = self._fitting(metrics) if self._out.is_terminal else tuple(metrics)
        self._total, self._seen, self._pace = total, 0, pace
        head = _head(varying)
        head += [f"{name:>{_width(name)}}" for name in self._columns]
        head += [f"{'status':<{STATUS_WIDTH}}", f"{'seconds':>{SECONDS_WIDTH}}"]
        self._out.print(Text(GAP.join(head), style="bold"))
        if hidden := metrics[len(self._columns) :]:
            self.notice(f"too wide for this terminal, but in the records and the report: {', '.join(hidden)}")
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
        self._line(record, f"{record.elapsed_s:.1f}")
        if record.status != "ok":
            self.notice(f"{record.case}: {record.status}: {record.reason}")

    def skipped(self, record: Record) -> None:
        """One line for a case that the store had."""
        self._line(record, "kept")

    def notice(self, text: str) -> None:
        """A sentence on stderr."""
        self._err.print(Text(text))

    def forecasts(self, found: "Sequence[Forecast]") -> None:
        """A table of what would be taken: predicted time and memory, where the prediction is from, and the metrics."""
        varying = varied([one.case for one in found])
        head = _head(varying)
        head += [f"{'time':>{READING_WIDTH}}", f"{'memory':>{READING_WIDTH}}", "predicted from"]
        self._out.print(Text(GAP.join(head), style="bold"))
        for one in found:
            time = DASH if one.seconds is None or not one.case.metrics else duration(one.seconds)
            memory = _plain(one.memory, "byte")
            said = ": ".join(part for part in (one.basis, ", ".join(one.case.metrics)) if part)
            line = [*_identity(one.case, varying), *(f"{text:>{READING_WIDTH}}" for text in (time, memory)), said]
            self._out.print(Text(GAP.join(line)))
        rest = [one for one in found if one.case.metrics]
        told = [one.seconds for one in rest if one.seconds is not None]
        total = f"about {duration(sum(told))}"
        if unknown := len(rest) - len(told):
            total += f" and what {unknown} of them take, which is unknown"
        self.notice(f"predicted, nothing was measured: {len(rest)} of {len(found)} cases to take, {total}")

    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """On stderr: each verdict that is not a pass, then how many there are of each."""
        for verdict in verdicts:
            if verdict.outcome != "pass":
                self.notice(f"gate: {verdict.outcome}: {verdict.case}: {verdict.name}: {verdict.told}")
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
        self._seen += 1
        line = Text(GAP.join(_identity(record.case, self._varying)))
        for name in self._columns:
            line.append(f"{GAP}{_taken(record, name):>{_width(name)}}")
        line.append(GAP).append(f"{record.status:<{STATUS_WIDTH}}", style=STYLES[record.status])
        line.append(f"{GAP}{seconds:>{SECONDS_WIDTH}}")
        self._print_above_bar(line)
        if self._progress:
            self._progress.update(self._task, completed=self._seen, left=self._left(), description="")
        else:
            self.notice(f"{self._seen} of {self._total} cases, {self._left()}")

    def _left(self) -> str:
        if self._seen >= self._total:
            return f"done in {duration(time.monotonic() - self._began)}"
        if self._pace is None:
            return "time left unknown"
        left = duration(self._pace.left_s())
        return f"about {left} left" if self._pace.whole else f"at least {left} left"

    def _fitting(self, metrics: Sequence[str]) -> tuple[str, ...]:
        room = self._out.width - sum(IDENTITY_WIDTHS.values()) - STATUS_WIDTH - SECONDS_WIDTH - 4 * len(GAP)
        room -= sum(len(GAP) + SETTING_WIDTHS[name] for name in self._varying)
        ends = accumulate(len(GAP) + _width(name) for name in metrics)
        return tuple(name for name, end in zip(metrics, ends, strict=True) if end <= room)

    def _print_above_bar(self, line: Text) -> None:
        """Take the bar away while the line is printed: the two streams may share a terminal."""
        if self._progress:
            self._progress.stop()
        self._out.print(line)
        self._out.file.flush()
        if self._progress:
            self._progress.start()


def cell(reading: Reading | None) -> str:
    """A reading as `1.23 GFLOPs`; a dash where there is no number. Plain blanks, so that `grep` finds it."""
    return _plain(reading.value if reading else None, reading.unit if reading else "1")


def _taken(record: Record, metric: str) -> str:
    """What a metric's column says of a record."""
    named = record.reading(metric)
    others = [] if named else [one for one in record.readings if one.metric == metric and one.value is not None]
    return f"{len(others)} numbers" if others else cell(named)


def _plain(value: float | int | None, unit: str) -> str:
    return human(value, unit).replace("\u00a0", " ")


def varied(cases: Sequence[Case]) -> tuple[str, ...]:
    """The settings of which these cases have more than one value."""
    return tuple(name for name in SETTING_WIDTHS if len({getattr(case, name) for case in cases}) > 1)


def _head(varying: Sequence[str]) -> list[str]:
    names = [f"{name:<{width}}" for name, width in IDENTITY_WIDTHS.items()]
    return names + [f"{name:>{SETTING_WIDTHS[name]}}" for name in varying]


def _identity(case: Case, varying: Sequence[str]) -> list[str]:
    """What names a case, in the widths of the first columns."""
    shown = {"model": case.model, "variant": case.variant, "resolution": str(case.resolution)}
    names = [f"{shown[name]:<{width}}" for name, width in IDENTITY_WIDTHS.items()]
    return names + [f"{getattr(case, name):>{SETTING_WIDTHS[name]}}" for name in varying]


def _width(column: str) -> int:
    return max(len(column), READING_WIDTH)
