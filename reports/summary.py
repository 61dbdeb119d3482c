"""summary.md: the page's first sentences, its verdicts and first tables, as a comment of a pull request takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from reports.files import markdown, markdown_table
from reports.model_section import ModelSection
from reports.slopes import HEADS

LONGEST = 60_000
"""Letters; a comment on GitHub takes 65,536."""


def summary_text(sections: Sequence[ModelSection], head: Mapping[str, Any], asked: str) -> str:
    """One sentence a model, one line a variant, verdicts, tables; what does not fit is said to be in the page."""
    lines = [f"# {head['name']}: self-attention replaced", ""]
    lines += [asked, ""] if asked else []
    for section in sections:
        lines += [_plain(section.answer.sentence), ""]
        lines += [*(f"- {_plain(line)}" for line in section.answer.told), ""]
    counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in head["counts"])
    lines += [f"{head['total']} records: {counts}. Machine: {_plain('; '.join(head['machines']))}.", ""]
    for section in sections:
        lines += [*_verdicts(section), *_slopes(section)]
    text = "\n".join(lines)
    kept: list[str] = []
    parts = [markdown([block]) for section in sections for block in (*section.blocks, *section.other_blocks)]
    for part in parts:
        if len(text) + sum(map(len, kept)) + len(part) > LONGEST:
            break
        kept.append(part)
    left = len(parts) - len(kept)
    end = f"\n{left} more tables are in report.html.\n" if left else ""
    return text[:LONGEST] + "\n" + "\n".join(kept) + end


def _verdicts(section: ModelSection) -> list[str]:
    lines: list[str] = []
    for brief in section.briefs:
        lines += [f"## {section.name} at {brief.resolution} px: verdicts", ""]
        lines += [f"{_plain(brief.refused)}.", ""] if brief.refused else []
        cells = [
            [row.series.label, row.verdict, "; ".join(row.scores) or "–", "; ".join(row.costs) or "–"]
            for row in brief.rows
        ]
        lines += [*markdown_table(["variant", "verdict", "differences of scores", "costs"], cells), ""]
    return lines


def _slopes(section: ModelSection) -> list[str]:
    """What each score changes by as images grow; nothing where there is one size."""
    cells = [[one.title, row.series.label, *one.words(row)] for one in section.growth for row in one.rows]
    return [f"## {section.name} as images grow", "", *markdown_table(HEADS, cells), ""] if cells else []


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")
