"""The section on locality: what the sites of a model look at, teacher and students side by side.

Every figure comes with one sentence that says how to read it. Sites are named by their place in the order of execution,
`1` to `n`, since their paths are long; the table beside the figures has both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.units import DASH, human
from reports.charts import Palette
from reports.heatmaps import Sheet, sheet
from reports.locality_charts import Figure, of_gradients, of_maps, reading_of

NEARBY = 15
"""The window within which the paper finds PixArt's receptive fields in most layers."""


@dataclass(frozen=True)
class Part:
    """A model at a size: what was found in words, pictures of maps, charts, and a table of all sites."""

    model: str
    resolution: str
    findings: tuple[str, ...]
    sheet: Sheet | None
    figures: tuple[Figure, ...]
    rows: tuple[tuple[str, ...], ...]


def parts(records: Sequence[Record], colours: Palette) -> list[Part]:
    """One part for each model and size that the metric was taken of; the latest record of a variant speaks for it."""
    found: dict[tuple[str, Resolution], dict[str, Record]] = {}
    for record in records:
        if any(reading.metric == "locality" and "section" in reading.details for reading in record.readings):
            found.setdefault((record.case.model, record.case.resolution), {})[record.case.variant] = record
    return [
        _part(model, str(size), mine, colours)
        for (model, size), mine in sorted(found.items(), key=lambda item: item[0])
    ]


def _part(model: str, size: str, by_variant: dict[str, Record], colours: Palette) -> Part:
    maps = next((r for record in by_variant.values() if (r := reading_of(record, "locality_receptive_field"))), None)
    sites = maps.details["sites"] if maps else []
    figures = [*of_maps(sites, maps.protocol if maps else ""), *of_gradients(by_variant, sites, colours)]
    shown = sheet(maps.details["pictures"]) if maps else None
    return Part(model, size, tuple(_findings(sites)), shown, tuple(figures), tuple(map(_row, enumerate(sites, 1))))


def _findings(sites: Sequence[dict[str, Any]]) -> list[str]:
    """What the maps say, and where that is not what the paper says."""
    if not sites:
        return []
    fields = [(s["mean"]["receptive_field"], s["summary"]["uniform_receptive_field"]) for s in sites]
    near = sum(field is not None and field < NEARBY for field, _ in fields)
    flat = sum(field is None or field >= uniform for field, uniform in fields)
    errors = {s["path"]: {fit["form"]: fit["error"] for fit in s["decay"]["fits"]} for s in sites}
    quadratic = sum(bool(e) and e["quadratic"] < e["exponential"] for e in errors.values())
    falls = sum(bool(e) and min(e.values()) < 0.5 for e in errors.values())
    smooth = sum(s["mean"]["low_frequency"] for s in sites) / len(sites)
    total = len(sites)
    return [
        f"{near} of {total} sites have a receptive field below {NEARBY} x {NEARBY} tokens; in {flat} of {total} it is "
        "no smaller than that of a map that gives every key the same, so that nothing is near there.",
        f"In {falls} of {total} sites the distance alone explains most of the mean attention (error of the best fit "
        f"below 0.5); the inverse square is closer than the exponential in {quadratic} of {total}.",
        f"The filter takes {human(smooth, 'share')} of the attention away as smooth, on the mean over sites.",
    ]


def _row(numbered: tuple[int, dict[str, Any]]) -> tuple[str, ...]:
    """The cells of one site in the table."""
    number, site = numbered
    mean, summary = site["mean"], site["summary"]
    fits = "; ".join(f"{fit['form']} {fit['error']:.2f}" for fit in site["decay"]["fits"]) or DASH
    heads = [each["receptive_field"] for each in site["by_head"] if each["receptive_field"] is not None]
    return (
        f"{number} {site['path']}",
        f"{site['grid'][0]}×{site['grid'][1]}",
        str(mean["receptive_field"] or DASH),
        str(summary["uniform_receptive_field"]),
        f"{min(heads)} to {max(heads)}" if heads else DASH,
        human(summary["locality_mass"], "share"),
        human(summary["uniform_mass"], "share"),
        human(mean["low_frequency"], "share"),
        human(mean["artefacts"], "share"),
        human(mean["entropy"], "nat"),
        fits,
    )


HEADS = (
    "site",
    "grid",
    "receptive field",
    "of a uniform map",
    "of single heads",
    "mass in the window",
    "of a uniform map",
    "low frequencies",
    "artefact tokens",
    "entropy",
    "decay: error of each form",
)
"""Of the table's columns."""
