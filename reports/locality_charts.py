"""Charts of the section on locality, each with one sentence that says how to read it. Sites are numbered in order of
execution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.record import Record
from harness.records.units import DASH
from reports.axes import LEGEND, axis, framed, layout, plain, words
from reports.charts import SYMBOLS, Palette
from reports.compare import REFERENCE, variant_order

DEPTH = ("#30123b", "#4662d7", "#36aaf9", "#1ae4b6", "#72fe5e", "#c7ef34", "#faba39", "#f66b19", "#ca2a04", "#7a0403")
"""From the first site to the last (Turbo, of which each is told from its neighbours on light and dark ground)."""
SHARES = {"yaxis": axis() | {"tickformat": ".0%", "range": [0, 1.02]}}


@dataclass(frozen=True)
class Figure:
    """A chart, what it is, and the one sentence that says how to read it."""

    title: str
    sentence: str
    protocols: tuple[str, ...]
    figure: dict[str, Any]


def of_maps(sites: Sequence[dict[str, Any]], protocol: str) -> list[Figure]:
    """Mass, receptive field, decomposition and decay, by the teacher's maps; nothing where there are none."""
    if not sites:
        return []
    told = (
        (
            "Attention score mass, raw",
            "A line that lies on its dotted one looks at all keys alike; the more it rises above, the nearer it looks.",
            _curves(sites, "raw"),
        ),
        (
            "Attention score mass after the high-pass",
            "Where a line crosses 80 % is the receptive field of that site, in tokens a side.",
            _curves(sites, "filtered"),
        ),
        (
            "Receptive field by site and time",
            "Each cell is the window that holds 80 % of the filtered mass at one time; the last column is that of a "
            "uniform map on the same grid, and what is as large as it is not local.",
            _by_time(sites),
        ),
        (
            "What attention is made of",
            "High first bars are sites that a mean would serve; the second is the part that is the same for every "
            "distance by the best fit; the third is what tokens receive that all queries look at.",
            _decomposition(sites),
        ),
        (
            "Mean attention by distance",
            "In units of a uniform map: a line that falls to 1 and stays there is near attention on a flat bias, one "
            "that keeps at 1 has no distance in it.",
            _decay(sites),
        ),
    )
    return [Figure(title, sentence, (protocol,), figure) for title, sentence, figure in told]


def _curves(sites: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    """A line a site, and dotted the uniform map of each grid."""
    lines = []
    for number, site in enumerate(sites):
        values = site["mean"][kind]
        if values is not None:
            lines.append(_line(number, len(sites), site, site["sizes"], values))
    for grid in {tuple(site["grid"]): site for site in sites}.values():
        dotted = {"color": "--muted", "width": 1.5, "dash": "dot"}
        named = {"name": f"uniform on {grid['grid'][0]} x {grid['grid'][1]}", "line": dotted}
        lines.append({"type": "scatter", "mode": "lines", "x": grid["sizes"], "y": grid["uniform"]} | named)
    return {"data": lines, "layout": framed("window, tokens a side") | SHARES}


def _line(number: int, total: int, site: dict[str, Any], x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    colour = DEPTH[round(number * (len(DEPTH) - 1) / max(1, total - 1))]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": colour, "width": 2},
        "name": plain(f"{number + 1} {site['path']}"),
        "hovertemplate": f"{number + 1}: %{{y:.3g}} at %{{x}}<extra></extra>",
    }


def _by_time(sites: Sequence[dict[str, Any]]) -> dict[str, Any]:
    times = [str(each["time"]) for each in sites[0]["times"]]
    rows = [
        [each["receptive_field"] for each in site["times"]] + [site["summary"]["uniform_receptive_field"]]
        for site in sites
    ]
    heat = {
        "type": "heatmap",
        "x": [*(f"t = {time}" for time in times), "uniform"],
        "y": [str(number) for number in range(1, len(sites) + 1)],
        "z": rows,
        "colorscale": [[0, "#0d5c9e"], [0.5, "#c9c3a0"], [1, "#b8500b"]],
        "text": [[DASH if value is None else str(value) for value in row] for row in rows],
        "texttemplate": "%{text}",
        "showscale": False,
        "hovertemplate": "site %{y}, %{x}: %{z} tokens<extra></extra>",
    }
    axes = {"xaxis": axis(), "yaxis": axis() | {"autorange": "reversed", "type": "category", "title": words("site")}}
    return {"data": [heat], "layout": layout() | axes}


def _decomposition(sites: Sequence[dict[str, Any]]) -> dict[str, Any]:
    at = [str(number) for number in range(1, len(sites) + 1)]
    best = [site["decay"]["fits"][0]["bias"] if site["decay"]["fits"] else None for site in sites]
    bars = (
        ("low frequencies", [site["mean"]["low_frequency"] for site in sites], "--series-1"),
        ("flat bias of the fit", best, "--series-5"),
        ("artefact tokens", [site["mean"]["artefacts"] for site in sites], "--series-4"),
    )
    traces = [
        {"type": "bar", "x": at, "y": y, "name": name, "marker": {"color": colour}, "hovertemplate": "%{y:.1%}"}
        for name, y, colour in bars
    ]
    return {"data": traces, "layout": framed("site") | LEGEND | SHARES}


def _decay(sites: Sequence[dict[str, Any]]) -> dict[str, Any]:
    lines = []
    for number, site in enumerate(sites):
        keys = site["grid"][0] * site["grid"][1]
        relative = [value * keys for value in site["decay"]["attention"]]
        lines.append(_line(number, len(sites), site, site["decay"]["distance"], relative))
    frame = framed("distance, tokens") | {"yaxis": axis() | {"type": "log", "title": words("x uniform")}}
    return {"data": lines, "layout": frame}


def of_gradients(by_variant: dict[str, Record], sites: Sequence[dict[str, Any]], colours: Palette) -> list[Figure]:
    """Receptive fields by gradients, a line a variant, and the teacher's by its maps."""
    traces: list[dict[str, Any]] = []
    protocols = []
    for variant in sorted(by_variant, key=variant_order):
        reading = by_variant[variant].number("locality")
        if reading is None:
            continue
        protocols.append(reading.protocol)
        fields = [site["receptive_field"] for site in reading.details["sites"]]
        traces.append(_markers(variant, fields, f"--series-{colours[variant]}", SYMBOLS[colours[variant]]))
    if not traces:
        return []
    if sites:
        fields = [site["mean"]["receptive_field"] for site in sites]
        traces.append(_markers("maps of the teacher", fields, "--muted", "line-ew-open") | {"meta": REFERENCE})
    frame = framed("site") | {"yaxis": axis() | {"rangemode": "tozero", "title": words("tokens a side")}}
    return [
        Figure(
            "Receptive field by gradients, teacher and students",
            "The window that holds 80 % of the filtered influence of the input on one output token; a student below "
            f"{REFERENCE} looks nearer than its teacher, dashes are the teacher's own maps.",
            tuple(dict.fromkeys(protocols)),
            {"data": traces, "layout": frame},
        )
    ]


def _markers(name: str, values: Sequence[float | None], colour: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [str(number) for number in range(1, len(values) + 1)],
        "y": values,
        "name": plain(name),
        "meta": name,
        "marker": {"color": colour, "symbol": symbol, "size": 10},
        "hovertemplate": f"{plain(name)}: %{{y}}<extra></extra>",
    }
