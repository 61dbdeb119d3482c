"""Axes, error bars and hover texts that the charts share: ticks in the units that people use, in one typeface."""

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from harness.records.record import Reading, Record
from harness.records.units import in_full, scale, tick
from reports.compare import Group, Point, Series
from reports.ratios import CostRatio, disturbance

Axis = dict[str, Any]
FONT = "system-ui, sans-serif"
LEGEND = {"showlegend": True, "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02}}
"""Laid over a layout: a legend of its own, which grows upward from the chart."""


def layout() -> dict[str, Any]:
    """The frame of every chart: no background of its own, no legend (the page has one for all)."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": "--muted"},
        "hoverlabel": {
            "bgcolor": "--surface",
            "bordercolor": "--rule",
            "font": {"family": FONT, "color": "--ink", "size": 12},
            "align": "left",
            "namelength": 0,
        },
        "showlegend": False,
        "margin": {"l": 56, "r": 14, "t": 12, "b": 42},
        "bargap": 0.1,
    }


def size_axis(records: Iterable[Record]) -> Axis:
    """Side of the image in pixels, log; a size that is not square stands at its geometric mean."""
    sizes = sorted({r.case.resolution for r in records})
    sides = [math.sqrt(size.pixels) for size in sizes]
    crowded = len(sizes) > 7
    title = "image side, px" if all(size.width == size.height for size in sizes) else "image side, px (geometric mean)"
    return _line() | {
        "type": "log",
        "hoverformat": ".0f",
        "range": _padded(sides, 0.06),
        "tickvals": sides,
        "ticktext": [str(size) for size in sizes],
        "tickangle": -40 if crowded else 0,
        "title": words(title),
    }


def cost_axis(values: Sequence[float | int], unit: str) -> Axis:
    """A cost, log, with ticks such as `10 GFLOPs` or `4 GiB`."""
    if not values or min(values) <= 0:
        return _line()
    bounds = _padded(list(values), 0.08)
    ticks = _ticks(10 ** bounds[0], 10 ** bounds[1], unit)
    return _line() | {
        "type": "log",
        "range": bounds,
        "tickvals": ticks,
        "ticktext": [tick(value, unit) for value in ticks],
        "automargin": True,
    }


def ratio_axis(values: Sequence[float]) -> Axis:
    """A cost as a multiple of the reference's, log, with a tick at the reference itself."""
    bounds = _padded([*values, 1.0], 0.12)
    steps = [factor * 10.0**power for power in range(-4, 5) for factor in (1, 2, 5)]
    if bounds[1] - bounds[0] < 0.7:
        steps = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0]
    ticks = [step for step in steps if bounds[0] <= math.log10(step) <= bounds[1]]
    return _line() | {"type": "log", "range": bounds, "tickvals": ticks, "ticktext": [f"{t:.4g}×" for t in ticks]}


def score_axis(group: Group) -> Axis:
    """A score, linear, with room for the whiskers."""
    percent = {"tickformat": ".0%"} if group.unit == "share" else {}
    title = {} if group.unit in ("1", "share") else {"title": {"text": plain(group.unit)}}
    return _line() | {"automargin": True} | percent | title


def error_bars(found: Sequence[Reading | CostRatio], colour: str = "") -> dict[str, Any]:
    """95 % intervals where there are any."""
    up = [_reach(one.high, one.value) for one in found]
    down = [_reach(one.value, one.low) for one in found]
    bars = {"type": "data", "array": up, "arrayminus": down, "symmetric": False, "thickness": 1.4, "width": 4}
    return {"visible": any(up) or any(down)} | bars | ({"color": colour} if colour else {})


def hover(point: Point, name: str) -> str:
    """`<b>deltaconv</b> 1.23 GFLOPs (1.20 to 1.26)`."""
    reading = point.reading
    disturbed = disturbance(reading)
    warning = f"<br>disturbed: {plain(textwrap.shorten(disturbed, 60))}" if disturbed else ""
    number = in_full(reading.value, reading.low, reading.high, reading.unit)
    return f"<b>{plain(name)}</b>  {number}{warning}"


def trace_of(kind: str, series: Series, x: Sequence[float], y: Sequence[float | int | None]) -> dict[str, Any]:
    """What every trace of a series has: type, name, the variant by which the page hides it, and its numbers."""
    return {"type": kind, "name": plain(series.label), "meta": series.variant, "x": x, "y": y}


def hovering(texts: Sequence[str]) -> dict[str, Any]:
    """The texts that a trace shows under the cursor, one for each point."""
    return {"customdata": texts, "hovertemplate": "%{customdata}<extra></extra>"}


def hover_lost(variant: str, reason: str) -> str:
    """A dash and its reason, in a few short lines: a chart is narrow."""
    lines = textwrap.wrap(reason, 34, max_lines=4, placeholder=" ...")
    return f"<b>{plain(variant)}</b>  –<br>" + "<br>".join(plain(line) for line in lines)


def plain(text: str) -> str:
    """Foreign text for plotly, which reads a subset of HTML."""
    return html.escape(text, quote=False)


def framed(title: str, across: Axis | None = None) -> dict[str, Any]:
    """The layout of a chart with a title below its horizontal axis, which is a plain one where none is given."""
    return layout() | {"xaxis": (across or axis()) | {"title": words(title)}, "hovermode": "closest"}


def axis() -> Axis:
    """A plain axis that leaves its range to plotly."""
    return _line() | {"automargin": True}


def words(text: str) -> dict[str, Any]:
    """The title of an axis."""
    return {"text": text, "font": {"size": 12}, "standoff": 8}


def _line() -> Axis:
    return {
        "gridcolor": "--grid",
        "linecolor": "--rule",
        "zerolinecolor": "--rule",
        "tickfont": {"size": 11.5},
        "fixedrange": True,
        "minor": {"ticks": ""},
    }


def _padded(values: Sequence[float | int], share: float) -> list[float]:
    """Range of a log axis (in powers of ten) with a margin on both sides."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max((high - low) * share, 0.03)
    return [low - room, high + room]


def _ticks(low: float, high: float, unit: str) -> list[float]:
    """About five round values: even steps over a short range, powers of ten (of two for bytes) over a long one."""
    if high / low < 4:
        divisor = scale(high, unit).divisor
        step = _round_step((high - low) / divisor / 4) * divisor
        return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    base = 2.0 if unit == "byte" else 10.0
    first, last = math.floor(math.log(low, base)), math.ceil(math.log(high, base))
    if unit != "byte" and last - first <= 2:
        return [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    every = max(1, math.ceil((last - first) / 6))
    return [base**power for power in range(first, last + 1) if power % every == 0]


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, near `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.99)


def _reach(more: float | int | None, less: float | int | None) -> float:
    return 0.0 if more is None or less is None else max(0.0, float(more - less))
