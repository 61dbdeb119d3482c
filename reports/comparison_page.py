"""`python -m reports A B`: one page, and one summary, of what changed between two stores."""

from pathlib import Path

from harness.records.files import write_whole
from reports import charts
from reports.compare import REFERENCE, variant_order
from reports.comparison_tables import Change, Compared, compared
from reports.files import markdown_table
from reports.page import environment, inlined
from reports.payload import Payload
from reports.read import BadStore, load

NAME = "comparison"
LONGEST = 60_000
ORDER = ("worse", "better", "changed", "open", "same")


def render_comparison(before: str | Path, after: str | Path) -> Path:
    """Write comparison.html and comparison.md into the second store's folder; raise BadStore where that cannot be."""
    one, other = load(before), load(after)
    found = compared(one, other)
    path = other.folder / f"{NAME}.html"
    variants = sorted({change.variant for change in found.changes}, key=variant_order)
    text = (
        environment()
        .get_template("comparison.html")
        .render(
            found=found,
            before=str(one.folder),
            after=str(other.folder),
            groups=[(word, rows) for word in ORDER if (rows := [c for c in found.changes if c.verdict == word])],
            notices=(*one.notices, *other.notices),
            colours=charts.palette(variants),
            glyphs=charts.GLYPHS,
            marks={},
            reference=REFERENCE,
            devices=(),
            payload=Payload(),
            models=sorted({change.model for change in found.changes}),
            **inlined(),
        )
    )
    try:
        write_whole(other.folder / f"{NAME}.md", _markdown(found, str(one.folder), str(other.folder)))
        write_whole(path, text)
    except OSError as error:
        raise BadStore(f"{str(after)!r} cannot be written ({error.strerror}): the comparison goes there") from error
    return path


def _markdown(found: Compared, before: str, after: str) -> str:
    """The sentence, then what is worse, better or changed; what is the same or open is counted."""
    lines = [f"# {before} against {after}", "", found.sentence, ""]
    if found.unlike:
        lines += [*markdown_table(["what differs", "before", "after"], found.unlike), ""]
    told = [change for word in ORDER[:3] for change in found.changes if change.verdict == word]
    if told:
        heads = ["verdict", "model", "variant", "px", "reading", "before", "after", "change"]
        lines += markdown_table(heads, map(_cells, told))
    text = "\n".join(lines) + "\n"
    return text if len(text) <= LONGEST else text[:LONGEST].rpartition("\n")[0] + "\n\nThe rest is in the page.\n"


def _cells(change: Change) -> list[str]:
    place = [change.verdict, change.model, change.variant, str(change.resolution)]
    return [*place, change.title, change.before, change.after, change.said]
