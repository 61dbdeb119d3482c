"""The files beside the page: every reading as a row of readings.csv, and the summary as Markdown."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.records.files import write_whole
from harness.records.record import Record
from reports.compare import machine_name
from reports.read import Store
from reports.tables import Block, Cell

COLUMNS = (
    *("model", "variant", "resolution", "width", "height", "status", "metric", "reading", "value", "unit", "better"),
    *("low", "high", "n", "samples", "reason", "protocol", "details"),
)


def rows(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """One row a reading, exact values; a case without readings has one row with its reason."""
    for record in records:
        case = record.case
        size = {"resolution": str(case.resolution), "width": case.resolution.width, "height": case.resolution.height}
        head = {"model": case.model, "variant": case.variant, **size, "status": record.status}
        tail = {
            f"case_{name}": v if isinstance(v, str | int | float) else _compact(v) for name, v in case.settings.items()
        }
        tail |= {"weights": case.weights, "mixer": case.mixer, "machine": machine_name(record.machine)}
        tail |= {"started": record.started, "key": case.key}
        for r in record.readings:
            number = {"metric": r.metric, "reading": r.name, "value": r.value, "unit": r.unit, "better": r.better}
            number |= {"low": r.low, "high": r.high, "n": r.n, "samples": len(r.samples), "reason": r.reason}
            yield head | number | {"protocol": r.protocol, "details": _compact(r.details)} | tail
        if not record.readings:
            yield head | {"reason": record.reason} | tail


def table(records: Sequence[Record]) -> str:
    """The rows as CSV."""
    found = list(rows(records))
    extra = dict.fromkeys(name for row in found for name in row if name not in COLUMNS)
    out = io.StringIO()
    writer = csv.DictWriter(out, [*COLUMNS, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: inert(value) for name, value in row.items()} for row in found)
    return out.getvalue()


def inert(value: object) -> object:
    """Text that a spreadsheet would take for a formula (`=cmd|...`) gets an apostrophe, by which it stays text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def markdown(blocks: Sequence[Block]) -> str:
    """The summary as Markdown, one table a block, dashes and disturbed numbers with their reasons below."""
    lines = []
    for block in blocks:
        suffix = " (other protocols or settings)" if block.layer else ""
        lines += [f"## {block.model} at {block.resolution} px{suffix}", ""]
        heads = ["variant", *(f"{c.title}{f' ({c.note})' if c.note else ''}" for c in block.columns)]
        lines += [markdown_row(heads), markdown_row(["---"] + ["---:"] * len(block.columns))]
        reasons = block.reasons
        for series, cells in block.rows:
            lines.append(markdown_row([series.label, *(_cell_text(cell, reasons) for cell in cells)]))
        lines += ["", *(f"[{i}] {' '.join(reason.split())}  " for i, reason in enumerate(reasons, 1)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _cell_text(cell: Cell, reasons: Sequence[str]) -> str:
    notes = "".join(f" [{reasons.index(why) + 1}]" for why in (cell.reason, cell.disturbed) if why)
    small = f" ({', '.join(cell.small)})" if cell.small else ""
    return f"{'⚠ ' if cell.disturbed else ''}{cell.text}{small}{notes}"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [markdown_row(heads), markdown_row(["---"] * len(heads)), *map(markdown_row, rows)]


def markdown_row(cells: Sequence[str]) -> str:
    """One row of a Markdown table; foreign text stays in its cell and is no markup."""
    escaped = (" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return "| " + " | ".join(escaped) + " |"


def export(store: Store, summary: str) -> tuple[Path, Path]:
    """Write readings.csv and summary.md beside the page."""
    readings, text = store.folder / "readings.csv", store.folder / "summary.md"
    write_whole(readings, table(store.records))
    write_whole(text, summary)
    return readings, text


def add_link(folder: Path, link: str) -> None:
    """Let summary.md end with the address of a server that holds the runs; others are of this machine alone."""
    path = folder / "summary.md"
    if link.startswith("http") and " " not in link:
        with suppress(OSError):  # a disk that is full since the page was written costs the line
            write_whole(path, f"{path.read_text(encoding='utf-8').rstrip()}\n\nRuns in MLflow: {link}\n")


def _compact(value: Any) -> str:
    return json.dumps(value)
