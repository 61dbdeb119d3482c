"""Charts as plain plotly.js figures: data in, dictionaries out; nothing here imports plotly.

Colours are names of CSS variables (`--series-2`, `--ink`), which the page's script replaces by what the style sheet
says for light or dark. Every variant keeps its colour and marker in every chart of every report: the known ones by a
fixed table, others by a hash of their name.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.units import human, spoken
from reports.axes import cost_axis, error_bars, hover, hover_lost, hovering, layout, score_axis, size_axis, trace_of
from reports.compare import REFERENCE, Group, GroupKey, Point, Series, distinction, lost, variant_order
from reports.laws import Fit
from reports.ratios import disturbance

FIXED = {REFERENCE: 0, "neighborhood": 1, "linfusion": 2, "deltaconv": 3}
COLOURS = 10
SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "triangle-down",
    "star",
    "cross",
    "x",
    "triangle-left",
    "triangle-right",
)
GLYPHS = "●■◆▲▼★✚✖◀▶"
"""The markers as characters, in the same order."""
LAW_STEPS = 24
LEVELS = ("floor", "ceiling", "real", "chance")
"""Details of a score that are drawn as a level beside its bar."""

Palette = dict[str, int]
"""Variant name -> number of its colour and marker."""


@dataclass(frozen=True)
class Chart:
    """A figure with the words around it; `growth` is (variant, exponent over the last step of pixels)."""

    title: str
    subtitle: str
    protocols: tuple[str, ...]
    figure: dict[str, Any]
    choice: str = ""
    name: str = ""
    size: str = ""
    low: bool = False
    growth: tuple[tuple[str, str], ...] = ()


def palette(variants: Iterable[str]) -> Palette:
    """A number for every variant; unknown ones start at a hash of their name and step on where it is taken."""
    names = sorted(set(variants), key=variant_order)
    chosen = {name: FIXED[name] for name in names if name in FIXED}
    free = [number for number in range(COLOURS) if number not in FIXED.values()]
    for name in (n for n in names if n not in FIXED):
        start = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(free)
        order = free[start:] + free[:start]
        chosen[name] = next((n for n in order if n not in chosen.values()), order[0])
    return chosen


def cost_charts(
    found: Sequence[Group],
    records: Sequence[Record],
    colours: Palette,
    laws: Mapping[GroupKey, Mapping[Series, Fit]] | None = None,
) -> list[Chart]:
    """Cost against resolution, log-log, one chart a comparable group; the laws, where given, are dotted lines."""
    unwell = [record for record in records if record.status != "ok"]
    return [
        _cost_chart(group, lost(group, unwell), colours, distinction(group, found), (laws or {}).get(group.key, {}))
        for group in found
        if group.is_cost and group.unit != "parameter"
    ]


def _cost_chart(
    group: Group, missing: Sequence[tuple[Record, str]], colours: Palette, subtitle: str, fits: Mapping[Series, Fit]
) -> Chart:
    traces: list[dict[str, Any]] = []
    growth = []
    for series, points in group.series.items():
        taken = [p for p in points if p.reading.value]
        number, colour = colours[series.variant], f"--series-{colours[series.variant]}"
        again = any(trace["meta"] == series.variant for trace in traces)
        symbols = [SYMBOLS[number] + ("-open" if again or disturbance(p.reading) else "") for p in taken]
        sides = [math.sqrt(p.case.pixels) for p in taken]
        traces.append(
            trace_of("scatter", series, sides, [p.reading.value for p in taken])
            | hovering([hover(p, series.label) for p in taken])
            | {"mode": "lines+markers", "error_y": error_bars([p.reading for p in taken])}
            | {"line": {"color": colour, "width": 2}, "marker": {"color": colour, "symbol": symbols, "size": 8}}
        )
        if slope := _growth(taken):
            growth.append((series.variant, slope))
    values = [p.reading.value for p in group.points if p.reading.value]
    shown = [*(p.record for p in group.points), *(record for record, _ in missing)]
    lines = _dotted(fits, max(record.case.pixels for record in shown), colours)
    traces += lines
    values += [line["y"][-1] for line in lines]
    frame = layout() | {"xaxis": size_axis(shown), "yaxis": cost_axis(values, group.unit), "hovermode": "x unified"}
    if values:
        traces += _crosses(missing, colours, frame["yaxis"])
    figure = {"data": traces, "layout": frame}
    return Chart(spoken(group.name), subtitle, (group.protocol,), figure, growth=tuple(growth))


def _dotted(fits: Mapping[Series, Fit], largest: int, colours: Palette) -> list[dict[str, Any]]:
    """The laws as dotted lines, from the first size that they hold at; one that was checked goes on to `largest`."""
    lines = []
    for series, fit in fits.items():
        if fit.law is None or (fit.held_out is not None and fit.doubt):
            continue
        first = fit.points[0].case.pixels
        last = fit.points[-1].case.pixels if fit.held_out is None else min(largest, fit.furthest)
        pixels = [first * (last / first) ** (step / LAW_STEPS) for step in range(LAW_STEPS + 1)]
        dots = {"color": f"--series-{colours[series.variant]}", "width": 1.5, "dash": "dot"}
        lines.append(
            trace_of("scatter", series, [math.sqrt(n) for n in pixels], [fit.law.at(n) for n in pixels])
            | {"mode": "lines", "line": dots, "hoverinfo": "skip"}
        )
    return lines


def _crosses(missing: Sequence[tuple[Record, str]], colours: Palette, axis: dict[str, Any]) -> list[dict[str, Any]]:
    """A cross at the top for every number that could not be taken, one line of them a variant."""
    variants = sorted({record.case.variant for record, _ in missing}, key=variant_order)
    low, high = axis["range"]
    axis["range"] = [low, high + (high - low) * 0.06 * len(variants)]
    traces = []
    for line, variant in enumerate(variants):
        mine = [(record, reason) for record, reason in missing if record.case.variant == variant]
        colour = f"--series-{colours[variant]}"
        sides = [math.sqrt(record.case.pixels) for record, _ in mine]
        height = 10 ** (high + (high - low) * 0.06 * (line + 0.3))
        cross = {"symbol": "x-thin-open", "size": 8, "color": colour, "line": {"width": 2, "color": colour}}
        traces.append(
            trace_of("scatter", Series(variant), sides, [height] * len(mine))
            | hovering([hover_lost(variant, reason) for _, reason in mine])
            | {"mode": "markers", "marker": cross}
        )
    return traces


def score_charts(found: Sequence[Group], colours: Palette) -> list[Chart]:
    """Scores as bars from zero with their intervals, grouped by resolution, and the levels that belong beside them."""
    return [
        _score_chart(group, colours, distinction(group, found))
        for group in found
        if not group.is_cost and any(p.reading.value is not None for p in group.points)
    ]


def _score_chart(group: Group, colours: Palette, subtitle: str) -> Chart:
    sizes = sorted({p.case.resolution for p in group.points})
    series = list(group.series)
    start = {resolution: index * (len(series) + 0.9) for index, resolution in enumerate(sizes)}
    traces: list[dict[str, Any]] = []
    for index, (one, points) in enumerate(group.series.items()):
        taken = [p for p in points if p.reading.value is not None]
        again = sum(other.variant == one.variant for other in series[:index])
        filled = {"color": f"--series-{colours[one.variant]}", "pattern": {"shape": "/" if again else ""}}
        places = [start[p.case.resolution] + index for p in taken]
        traces.append(
            trace_of("bar", one, places, [p.reading.value for p in taken])
            | hovering([hover(p, one.label) for p in taken])
            | {"width": 0.84, "error_y": error_bars([p.reading for p in taken], "--ink"), "marker": filled}
        )
    levels = _levels(group, start)
    middle = (len(series) - 1) / 2
    ticks = [start[resolution] + middle for resolution in sizes]
    frame = layout() | {
        "margin": {"l": 44, "r": 10, "t": 12, "b": 26},
        "xaxis": {"tickvals": ticks, "ticktext": [f"{r} px" for r in sizes], "fixedrange": True, "zeroline": False},
        "yaxis": score_axis(group) | {"rangemode": "tozero"},
        "hovermode": "closest",
    }
    direction = {"higher": "higher is better", "lower": "lower is better"}.get(group.better, "")
    named = ", ".join(dict.fromkeys(trace["name"] for trace in levels if trace["name"]))
    words = "; ".join(part for part in (direction, f"line: {named}" if named else "", subtitle) if part)
    return Chart(spoken(group.name), words, (group.protocol,), {"data": traces + levels, "layout": frame}, low=True)


def _levels(group: Group, start: dict[Resolution, float]) -> list[dict[str, Any]]:
    """A line across each bar at the levels that its reading knows, with a rim so that it shows on any colour."""
    traces: list[dict[str, Any]] = []
    for level in LEVELS:
        x: list[float | None] = []
        y: list[float | None] = []
        words: list[str] = []
        for index, points in enumerate(group.series.values()):
            for p in points:
                value = p.reading.detail(level)
                if value is not None:
                    middle = start[p.case.resolution] + index
                    x += [middle - 0.46, middle, middle + 0.46, None]
                    y += [value, value, value, None]
                    words += [f"{level} {human(value, p.reading.unit, 3)}"] * 4
        line = {"type": "scatter", "mode": "lines", "x": x, "y": y}
        if x:
            traces.append(line | {"name": "", "line": {"color": "--surface", "width": 5}, "hoverinfo": "skip"})
            traces.append(line | {"name": level, "line": {"color": "--level", "width": 2}} | hovering(words))
    return traces


def _growth(points: Sequence[Point]) -> str:
    """`1.98`: the exponent of the cost in the number of pixels, over the last step of resolution."""
    if len(points) < 2:
        return ""
    (few, less), (many, more) = ((p.case.pixels, p.reading.value) for p in points[-2:])
    if not less or not more or less <= 0 or more <= 0 or few == many:
        return ""
    return f"{math.log(more / less) / math.log(many / few):.2f}"
