"""Quality against cost: what a score costs, with intervals and the frontier of what nothing beats on both."""

import math
from collections.abc import Sequence
from typing import Any

from harness.records.units import spoken, with_interval
from reports.axes import cost_axis, error_bars, layout, plain, score_axis
from reports.charts import SYMBOLS, Chart, Palette
from reports.compare import Group, Point, Series, distinction, relevant_settings

Pair = tuple[Series, Point, Point]
"""A series, its cost and its score."""


def tradeoff_charts(found: Sequence[Group], colours: Palette) -> list[Chart]:
    """One chart for each score, resolution and cost of a model, where two points have both; `choice` names the cost."""
    charts = []
    for score in (g for g in found if not g.is_cost and g.better != "neither"):
        for cost in (g for g in found if g.is_cost and g.model == score.model and g.unit != "parameter"):
            pairs = _pairs(score, cost)
            for size in sorted({p.case.resolution for _, _, p in pairs}):
                here = [pair for pair in pairs if pair[2].case.resolution == size]
                if len({series for series, _, _ in here}) > 1:
                    charts.append(_chart(score, cost, here, colours, found))
    return charts


def _pairs(score: Group, cost: Group) -> list[Pair]:
    """Scores with the cost of the same mixer and resolution, where no setting that both know speaks against it."""
    costs = {(p.case.variant, p.case.made, p.case.resolution): p for p in cost.points if p.reading.value}
    pairs = []
    for series, points in score.series.items():
        for point in points:
            paid = costs.get((series.variant, point.case.made, point.case.resolution))
            if paid is not None and point.reading.value is not None and _agree(point, paid):
                pairs.append((series, paid, point))
    return pairs


def _agree(score: Point, cost: Point) -> bool:
    paid = cost.reading
    settings = relevant_settings(cost.record, paid.name, paid.unit, paid.better, paid.origin)
    mine = score.case.settings
    return all(mine[name] == value for name, value in settings.items() if name in mine)


def _chart(score: Group, cost: Group, pairs: Sequence[Pair], colours: Palette, found: Sequence[Group]) -> Chart:
    frontier = _frontier(pairs, score)
    traces = [frontier] if frontier else []
    traces += [_trace(pair, pairs, colours) for pair in pairs]
    paid = [c.reading.value for _, c, _ in pairs if c.reading.value]
    frame = layout() | {
        "xaxis": cost_axis(paid, cost.unit)
        | {"title": {"text": spoken(cost.name), "font": {"size": 12}, "standoff": 8}},
        "yaxis": score_axis(score),
        "hovermode": "closest",
    }
    where = f"at {pairs[0][2].record.case.resolution} px, better {'↖' if score.better == 'higher' else '↙'}"
    notes = [distinction(g, [r for r in found if (r.model, r.name) == (g.model, g.name)]) for g in (score, cost)]
    subtitle = "; ".join([where, *(note for note in notes if note)])
    protocols = tuple(dict.fromkeys((score.protocol, cost.protocol)))
    figure = {"data": traces, "layout": frame}
    return Chart(spoken(score.name), subtitle, protocols, figure, choice=cost.name)


def _trace(pair: Pair, pairs: Sequence[Pair], colours: Palette) -> dict[str, Any]:
    series, cost, score = pair
    number = colours[series.variant]
    colour = f"--series-{number}"
    first = next(other for other, _, _ in pairs if other.variant == series.variant)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(series.label),
        "meta": series.variant,
        "x": [cost.reading.value],
        "y": [score.reading.value],
        "error_x": error_bars([cost], colour),
        "error_y": error_bars([score], colour),
        "cliponaxis": False,
        "customdata": [_hover(pair)],
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {"color": colour, "symbol": SYMBOLS[number] + ("" if series == first else "-open"), "size": 11},
    }


def _hover(pair: Pair) -> str:
    series, cost, score = pair
    lines = [f"<b>{plain(series.label)}</b> at {score.case.resolution} px"]
    for point in (score, cost):
        r = point.reading
        text, interval = with_interval(r.value, r.low, r.high, r.unit)
        lines.append(f"{plain(spoken(r.name))} {text}{f' ({interval})' if interval else ''}")
    return "<br>".join(lines)


def _frontier(pairs: Sequence[Pair], score: Group) -> dict[str, Any] | None:
    """The points that no other beats on both cost and score, joined by a thin line."""
    sign = 1 if score.better == "higher" else -1
    ranked = sorted((float(c.reading.value or 0), sign * float(s.reading.value or 0)) for _, c, s in pairs)
    best, kept = -math.inf, []
    for cost, value in sorted(ranked, key=lambda point: (point[0], -point[1])):
        if value > best:
            best = value
            kept.append((cost, sign * value))
    if len(kept) < 2:
        return None
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "frontier",
        "x": [x for x, _ in kept],
        "y": [y for _, y in kept],
        "line": {"color": "--rule", "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }
