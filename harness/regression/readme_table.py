"""The README's table of how good teachers and students are: written from a file of numbers, and that from records."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.records.case import BadInput, Resolution
from harness.records.files import writable, write_whole
from harness.records.record import Record
from harness.regression.baseline import SETTINGS

BEGIN, END = "<!-- written by `python -m harness gate table` -->", "<!-- end of what is written -->"
COLUMNS = {"attributes": "attributes right", "clip_score": "CLIP score", "fdd": "FDD", "ds": "DS"}

Rows = list[dict[str, Any]]


def told_by(records: Sequence[Record]) -> list[Record]:
    """Those that have all columns, as the latest of them was made: a table is of one n, of the same steps and world."""
    found = sorted((r for r in records if all(map(r.number, COLUMNS))), key=lambda record: record.started)
    if not found:
        raise BadInput(
            f"no record there has {', '.join(COLUMNS)}: run `python -m harness +sweep=quality` first, or give its "
            "folder with gate.store=FOLDER"
        )
    made = found[-1].case.identity()
    return [record for record in found if all(record.case.identity()[name] == made[name] for name in SETTINGS)]


def rows_of(records: Iterable[Record]) -> Rows:
    """Model, variant, resolution and values of each record, the latest of a case."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for record in records:
        named = {"model": record.case.model, "resolution": str(record.case.resolution), "variant": record.case.variant}
        found[tuple(named.values())] = named | {name: getattr(record.number(name), "value", None) for name in COLUMNS}
    return list(found.values())


def table(rows: Rows, labels: Mapping[str, str]) -> str:
    """Markdown; a model's name and size stand once, teachers first."""
    order = list(labels)

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        variant = row["variant"]
        labelled = order.index(variant) if variant in order else len(order)
        return row["model"] != "tiny_sd", row["model"], Resolution.parse(row["resolution"]), labelled, variant

    lines = [f"| model | pixels | variant | {' | '.join(COLUMNS.values())} |", "| --- | ---: | --- |" + " ---: |" * 4]
    before = ("", "")
    for row in sorted(rows, key=place):
        here = (row["model"], row["resolution"])
        names = (f"`{here[0]}` " if here[0] != before[0] else "", f"{here[1]} " if here != before else "")
        numbers = " | ".join(_shown(name, row[name]) for name in COLUMNS)
        lines.append(f"| {names[0]}| {names[1]}| {labels.get(row['variant'], row['variant'])} | {numbers} |")
        before = here
    return "\n".join(lines)


def load(path: Path) -> Rows:
    """The numbers in a file; BadInput for another text."""
    try:
        rows: Rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        if not all({"model", "resolution", "variant", *COLUMNS} <= row.keys() for row in rows):
            raise ValueError("a row lacks a column")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "write it with `python -m harness gate table`"
        raise BadInput(f"{str(path)!r} holds no table ({error}): {remedy}") from error
    return rows


def save(path: Path, rows: Rows, taken: Mapping[str, Any]) -> None:
    """A row a line."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    with writable(f"the table {str(path)!r}", "give another with gate.table=FILE"):
        write_whole(path, f'{{\n "taken": {json.dumps(dict(taken))},\n "rows": [\n{lines}\n ]\n}}\n')


def standing(readme: Path) -> str:
    """What stands between the marks; BadInput where there are none."""
    _, text, _ = _split(readme)
    return text.strip()


def write(readme: Path, text: str) -> None:
    """Put it between the marks."""
    before, _, after = _split(readme)
    with writable(f"the table in {str(readme)!r}", "give another with gate.readme=FILE, or null"):
        write_whole(readme, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _split(readme: Path) -> tuple[str, str, str]:
    try:
        whole = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{str(readme)!r} cannot be read ({error.strerror}): give gate.readme=FILE, or null") from error
    before, begin, rest = whole.partition(BEGIN)
    text, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"{str(readme)!r} lacks the marks {BEGIN} and {END}: put them around its table")
    return before, text, after


def _shown(name: str, value: float) -> str:
    if name == "attributes":
        return f"{100 * value:.1f} %"
    return f"{value:.{1 if name == 'clip_score' else 2}f}"
