"""Quality against cost: what a score costs, with intervals and the front of what nothing beats on both.

Costs are ratios to the teacher's, the same as everywhere; without a teacher at that size they are absolute.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.case import Resolution
from harness.records.units import in_full, spoken
from reports.axes import cost_axis, error_bars, framed, hovering, plain, ratio_axis, score_axis, trace_of
from reports.charts import SYMBOLS, Chart, Palette
from reports.compare import REFERENCE, Group, Point, Series, distinction, relevant_settings
from reports.findings import said
from reports.ratios import CostRatio, Ratios, disturbance


@dataclass(frozen=True)
class Pair:
    """A series' score and its cost; `ratio` is None for the reference, and where there is none."""

    series: Series
    cost: Point
    score: Point
    ratio: CostRatio | None

    @property
    def disturbed(self) -> str:
        """Why it is no part of a front; empty if it is."""
        own = disturbance(self.cost.reading)
        return self.ratio.disturbed if self.ratio else "" if self.series.variant == REFERENCE else own

    def place(self, relative: bool) -> float:
        """Where it stands on the axis of costs."""
        if not relative:
            return float(self.cost.reading.value or 0)
        return 1.0 if self.ratio is None else self.ratio.value


def tradeoff_charts(found: Sequence[Group], colours: Palette) -> list[Chart]:
    """One chart for each score, size and cost of a model, where two points have both; `choice` names the cost."""
    return [chart(score, cost, size, here, colours, found) for score, cost, size, here in _choices(found)]


def _choices(found: Sequence[Group]) -> Iterator[tuple[Group, Group, Resolution, list[Pair]]]:
    costs = [g for g in found if g.is_cost and g.unit != "parameter" and not g.name.endswith("_ratio")]
    ratios = Ratios(found)
    for score in (g for g in found if not g.is_cost and g.better != "neither"):
        for cost in (g for g in costs if _may_agree(score, g)):
            pairs = pairs_of(score, cost, ratios)
            for size in sorted({pair.score.case.resolution for pair in pairs}):
                here = [pair for pair in pairs if pair.score.case.resolution == size]
                if len({pair.series for pair in here}) > 1:
                    yield score, cost, size, here


def _may_agree(score: Group, cost: Group) -> bool:
    """Whether no setting of the two groups speaks against it."""
    known = dict(phrase.split(" ", 1) for phrase in score.settings)
    paid = dict(phrase.split(" ", 1) for phrase in cost.settings)
    return score.model == cost.model and all(known.get(name, value) == value for name, value in paid.items())


def pairs_of(score: Group, cost: Group, ratios: Ratios) -> list[Pair]:
    """Scores with the cost of the same mixer and size, where no setting that both know speaks against it."""
    costs = {(p.case.variant, p.case.made, p.case.resolution): p for p in cost.points if p.reading.value}
    pairs = []
    for series, points in score.series.items():
        for point in points:
            paid = costs.get((series.variant, point.case.made, point.case.resolution))
            if paid is not None and point.reading.value is not None and _agree(point, paid):
                relative = ratios.of(cost, series.at_any_weights, point.case.resolution)
                pairs.append(Pair(series, paid, point, relative))
    return pairs


def _agree(score: Point, cost: Point) -> bool:
    paid = cost.reading
    settings = relevant_settings(cost.record, paid, paid.origin)
    mine = score.case.settings
    return all(mine[name] == value for name, value in settings.items() if name in mine)


def chart(
    score: Group, cost: Group, size: Resolution, pairs: Sequence[Pair], colours: Palette, found: Sequence[Group]
) -> Chart:
    """Both axes with intervals, the front dotted."""
    relative = all(pair.ratio is not None or pair.series.variant == REFERENCE for pair in pairs)
    frontier = _front(pairs, score, relative)
    traces = [frontier] if frontier else []
    traces += [_trace(pair, pairs, colours, relative) for pair in pairs]
    places = [pair.place(relative) for pair in pairs]
    title = f"{spoken(cost.name)}, times that of {REFERENCE}" if relative else spoken(cost.name)
    frame = framed(title, ratio_axis(places) if relative else cost_axis(places, cost.unit))
    frame |= {"yaxis": score_axis(score)}
    where = f"at {size} px, better {'↖' if score.better == 'higher' else '↙'}"
    notes = [distinction(group, found) for group in (score, cost)]
    doubt = "open: disturbed, or of separate runs" if any(_is_open(pair) for pair in pairs) else ""
    subtitle = "; ".join([where, *(note for note in (*notes, doubt) if note)])
    protocols = tuple(dict.fromkeys((score.protocol, cost.protocol)))
    figure = {"data": traces, "layout": frame}
    return Chart(spoken(score.name), subtitle, protocols, figure, choice=cost.name, name=score.name, size=str(size))


def _is_open(pair: Pair) -> bool:
    return bool(pair.disturbed) or (pair.ratio is not None and not pair.ratio.firm)


def _trace(pair: Pair, pairs: Sequence[Pair], colours: Palette, relative: bool) -> dict[str, Any]:
    number = colours[pair.series.variant]
    colour = f"--series-{number}"
    first = next(other.series for other in pairs if other.series.variant == pair.series.variant)
    open_ = "-open" if pair.series != first or _is_open(pair) else ""
    paid = pair.ratio if relative else pair.cost.reading
    marks = {
        "mode": "markers",
        "error_x": error_bars([paid] if paid else [], colour),
        "error_y": error_bars([pair.score.reading], colour),
        "cliponaxis": False,
        "marker": {"color": colour, "symbol": SYMBOLS[number] + open_, "size": 11},
    }
    place = trace_of("scatter", pair.series, [pair.place(relative)], [pair.score.reading.value])
    return place | hovering([_hover(pair)]) | marks


def _hover(pair: Pair) -> str:
    lines = [f"<b>{plain(pair.series.label)}</b> at {pair.score.case.resolution} px"]
    for point in (pair.score, pair.cost):
        r = point.reading
        lines.append(f"{plain(spoken(r.name))} {in_full(r.value, r.low, r.high, r.unit)}")
    if pair.ratio:
        lines.append(f"{said(pair.ratio)} that of {REFERENCE}")
    return "<br>".join(lines)


def _front(pairs: Sequence[Pair], score: Group, relative: bool) -> dict[str, Any] | None:
    """The points that no other beats on both cost and score, joined by a thin line; disturbed ones have no part."""
    sign = 1 if score.better == "higher" else -1
    firm = [pair for pair in pairs if not _is_open(pair)]
    ranked = [(pair.place(relative), sign * float(pair.score.reading.value or 0)) for pair in firm]
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
        "name": "front",
        "x": [x for x, _ in kept],
        "y": [y for _, y in kept],
        "line": {"color": "--rule", "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }
