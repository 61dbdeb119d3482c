"""Verdicts for other tools: JUnit XML for a CI, Markdown for a pull request, annotations in a log of GitHub."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from harness.records.files import writable
from harness.records.store import to_stderr
from harness.regression.verdict import Cell, Outcome, Verdict, cells, exit_status, worst

MARKS: dict[Outcome, str] = {"pass": "✅", "improvement": "🚀", "regression": "❌", "inconclusive": "❔"}
LEVELS: dict[Outcome, str] = {"regression": "error", "inconclusive": "warning", "improvement": "notice"}


@dataclass(frozen=True)
class Tell:
    """Where verdicts go: files of JUnit XML and Markdown, None for none, and annotations in the log."""

    junit: str | Path | None = None
    summary: str | Path | None = None
    annotations: bool = False

    def __call__(self, verdicts: Sequence[Verdict], say: Callable[[str], None] = to_stderr) -> None:
        """Write them; BadInput for a file that cannot be written."""
        for path, text in ((self.junit, junit), (self.summary, markdown)):
            if path is not None:
                with writable(repr(str(path)), "give another file for it"):
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    Path(path).write_text(text(verdicts), encoding="utf-8")
        if self.annotations:
            for verdict in verdicts:
                if verdict.outcome in LEVELS:
                    say(annotation(verdict))


def junit(verdicts: Sequence[Verdict]) -> str:
    """A suite for each case; a regression is a failure, and what is inconclusive an error: neither is green."""
    root = ElementTree.Element("testsuites", name="gate")
    for cell in cells(verdicts):
        outcomes = [verdict.outcome for verdict in cell.verdicts]
        counts = {"failures": outcomes.count("regression"), "errors": outcomes.count("inconclusive")}
        told = {name: str(count) for name, count in ({"tests": len(outcomes)} | counts).items()}
        suite = ElementTree.SubElement(root, "testsuite", {"name": cell.case} | told)
        for verdict in cell.verdicts:
            name = f"{verdict.tier}: {verdict.name}"
            test = ElementTree.SubElement(suite, "testcase", classname=cell.case, name=name)
            kind = {"regression": "failure", "inconclusive": "error"}.get(verdict.outcome, "system-out")
            said = ElementTree.SubElement(test, kind)
            said.text = "".join(letter for letter in verdict.told if letter >= " " or letter in "\t\n")  # XML's letters
            if kind != "system-out":
                said.set("message", said.text)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """One word for all, a line a case, and below the sentences of all that is not a plain pass."""
    outcome, found = worst(verdicts), cells(verdicts)
    lines = [
        f"## {MARKS[outcome]} Gate: {outcome} (exit status {exit_status(verdicts)})",
        "",
        "| case | verdict | exact | speed | quality |",
        "| --- | --- | --- | --- | --- |",
        *(_row(cell) for cell in found),
    ]
    for told in (verdict for cell in found for verdict in cell.verdicts if verdict.outcome != "pass"):
        lines += ["", f"- {MARKS[told.outcome]} **{_cell(told.case)}**: {_cell(told.told)}"]
    silent = [verdict.reason for verdict in verdicts if verdict.name == verdict.case == "speed"]
    return "\n".join([*lines, *(f"\n{_cell(reason)}" for reason in silent)]) + "\n"


def annotation(verdict: Verdict) -> str:
    """A line that GitHub shows beside the pull request: `::error title=...::...`."""
    title = _escaped(f"{verdict.case}: {verdict.name}").replace(":", "%3A").replace(",", "%2C")
    return f"::{LEVELS[verdict.outcome]} title={title}::{_escaped(verdict.told)}"


def _row(cell: Cell) -> str:
    tiers = []
    for tier in ("exact", "speed", "quality"):
        given = [verdict for verdict in cell.verdicts if verdict.tier == tier]
        tiers.append(worst(given) if given else "–")
    return f"| {_cell(cell.case)} | {MARKS[cell.outcome]} {cell.outcome} | {' | '.join(tiers)} |"


def _cell(text: str) -> str:
    """Text inside a table of Markdown."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(safe.replace("*", "\\*").replace("_", "\\_").split())


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
