"""Quality against cost as a picture of each model, for trackers that show images and no pages."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.records.by_key import grouped
from harness.records.record import Record
from reports import charts, pareto
from reports.answers import answer
from reports.compare import groups
from reports.findings import briefs
from reports.model_section import shown_first

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#232936", "#0072b2", "#009e73", "#d55e00", "#b3558c", "#b98300", "#3fa0dc", "#7a4fb5", "#7d6330", "#2f8f87")
"""As the style sheet has them on light ground."""
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "star": "*"}
MARKERS |= {"cross": "P", "x": "X", "triangle-left": "<", "triangle-right": ">"}


def pictures(records: Sequence[Record]) -> "dict[str, Figure]":
    """File name -> picture, for each model that has scores and costs."""
    colours = charts.palette(record.case.variant for record in records)
    found = {}
    for model, mine in grouped(groups(records), lambda group: group.model).items():
        said = answer(model, mine, briefs(mine), {})
        chart = shown_first(pareto.tradeoff_charts(mine, colours), said)
        if chart is not None:
            found[f"quality_against_cost_{model}.png"] = _figure(model, chart)
    return found


def _figure(model: str, chart: charts.Chart) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    for trace in chart.figure["data"]:
        if trace["mode"] == "lines":
            axes.plot(trace["x"], trace["y"], ":", color="grey", label="front: nothing beats these on both")
        else:
            _point(axes, trace)
    across = chart.figure["layout"]["xaxis"]
    if across.get("type") == "log":
        axes.set_xscale("log")
        axes.set_xticks(across["tickvals"], across["ticktext"])
        axes.minorticks_off()
    axes.set(title=f"{model}: {chart.title} {chart.subtitle}", xlabel=across["title"]["text"], ylabel=chart.title)
    axes.legend(fontsize=8)
    return figure


def _point(axes: Any, trace: dict[str, Any]) -> None:
    colour = COLOURS[int(trace["marker"]["color"].rpartition("-")[2])]
    symbol = trace["marker"]["symbol"]
    bars = {}
    for name, of in (("xerr", "error_x"), ("yerr", "error_y")):
        if trace[of].get("visible"):
            bars[name] = [trace[of]["arrayminus"], trace[of]["array"]]
    filled = "white" if symbol.endswith("-open") else colour
    marker = MARKERS.get(symbol.removesuffix("-open"), "o")
    style = {"fmt": marker, "color": colour, "markerfacecolor": filled, "capsize": 3, "label": trace["name"]}
    axes.errorbar(trace["x"], trace["y"], **bars, **style)
