"""A history as one page of small drawings: a point for each commit, a line for each level, a mark for each step."""

from collections.abc import Sequence
from html import escape

from harness.regression.history import Series, label

WIDTH, HEIGHT, MARGIN = 640, 90, 8

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>History of the gate</title>
<style>body{{font:15px/1.5 system-ui;margin:2rem auto;max-width:44rem;padding:0 1rem}}
h2{{font-size:1rem;margin:1.5rem 0 0}}svg{{width:100%;height:auto}}p{{margin:0}}
:root{{color-scheme:light dark}}</style>
<h1>History of the gate</h1>
{body}
</html>
"""


def page(found: Sequence[Series]) -> str:
    """Series with steps come first."""
    ordered = sorted(found, key=lambda series: not series.steps)
    return PAGE.format(body="\n".join(_section(series) for series in ordered))


def _section(series: Series) -> str:
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in series.told())
    return f"<h2>{escape(label(series))}</h2><p>{escape(series.machine)}</p>{_drawing(series)}{told}"


def _drawing(series: Series) -> str:
    values, n = series.values, len(series.values)
    low, high = min(values), max(values)

    def x(index: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (index / (n - 1) if n > 1 else 0.5)

    def y(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((value - low) / (high - low) if high > low else 0.5)

    points = "".join(
        f'<circle cx="{x(i):.1f}" cy="{y(value):.1f}" r="3" fill="currentColor">'
        f"<title>{escape(result.commit[:10])} {escape(result.when)}: {value:.6g} {escape(result.unit)}</title></circle>"
        for i, (value, result) in enumerate(zip(values, series.results, strict=True))
    )
    marks = "".join(
        f'<line x1="{x(s.index):.1f}" x2="{x(s.index):.1f}" y1="0" y2="{HEIGHT}" stroke="crimson"/>'
        f'<line x1="{x(s.index):.1f}" x2="{x(_until(series, s.index)):.1f}" y1="{y(s.after):.1f}" y2="{y(s.after):.1f}"'
        ' stroke="crimson" stroke-width="2"/>'
        for s in series.steps
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{marks}{points}</svg>'


def _until(series: Series, index: int) -> int:
    """The last point of the level that begins there."""
    later = [step.index - 1 for step in series.steps if step.index > index]
    return later[0] if later else len(series.values) - 1
