"""The section on locality: what the sites of a model look at, teacher and students side by side.

Sites are named by their place in the order of execution, `1` to `n`; the table has their paths too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.units import DASH, human
from reports.charts import Palette
from reports.heatmaps import Sheet, sheet
from reports.locality_charts import Figure, of_gradients, of_maps

NEARBY = 15
"""The window within which the paper finds PixArt's receptive fields in most layers."""
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
"""Of the table's columns; those of kernels come after the third."""


@dataclass(frozen=True)
class Part:
    """A model at a size: what was found in words, pictures of maps, charts, and a table of all sites."""

    model: str
    resolution: str
    findings: tuple[str, ...]
    sheet: Sheet | None
    figures: tuple[Figure, ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def parts(records: Sequence[Record], colours: Palette) -> list[Part]:
    """One part for each model and size that the metric was taken of; the latest record of a variant speaks for it."""
    found: dict[tuple[str, Resolution], dict[str, Record]] = {}
    for record in records:
        if any(reading.metric == "locality" and "section" in reading.details for reading in record.readings):
            found.setdefault((record.case.model, record.case.resolution), {})[record.case.variant] = record
    return [_part(model, str(size), found[model, size], colours) for model, size in sorted(found)]


def _part(model: str, size: str, by_variant: dict[str, Record], colours: Palette) -> Part:
    maps = next((r for record in by_variant.values() if (r := record.number("locality_receptive_field"))), None)
    sites = maps.details["sites"] if maps else []
    figures = [*of_maps(sites, maps.protocol if maps else ""), *of_gradients(by_variant, sites, colours)]
    shown = sheet(maps.details["pictures"]) if maps else None
    kernels = {variant: found for variant, record in by_variant.items() if (found := kernels_of(record, sites))}
    rows = tuple(_row(number, site, [found[number] for found in kernels.values()]) for number, site in enumerate(sites))
    words = [*_findings(sites), *(reached(variant, found, sites) for variant, found in kernels.items())]
    heads = (*HEADS[:3], *(f"kernel of {variant}" for variant in kernels), *HEADS[3:])
    return Part(model, size, tuple(words), shown, tuple(figures), heads, rows)


def kernels_of(record: Record, sites: Sequence[dict[str, Any]]) -> list[int]:
    """The kernel that a variant has at each site, by its settings; none for a variant without kernels."""
    made = json.loads(record.case.mixer)["parameters"] if record.case.mixer else {}
    setting = made.get("kernel_size")
    if isinstance(setting, int):
        return [setting] * len(sites)
    patterns = setting if isinstance(setting, list) else []
    found = [next((size for pattern, size in patterns if _fits(site["path"], pattern)), None) for site in sites]
    return [] if None in found else [size for size in found if size is not None]


def _fits(path: str, pattern: str) -> bool:
    """As `Site.pick` reads a pattern: a prefix at a dot or a shell pattern, `|` between alternatives."""
    parts = pattern.split("|")
    return any(path == part or path.startswith(f"{part}.") or fnmatchcase(path, part) for part in parts)


def reached(variant: str, kernels: Sequence[int], sites: Sequence[dict[str, Any]]) -> str:
    """How a variant's kernels compare with what was measured."""
    fields = [site["mean"]["receptive_field"] for site in sites]
    count = sum(field is None or kernel >= field for kernel, field in zip(kernels, fields, strict=True))
    sizes = sorted(set(kernels))
    listed = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"The kernels of {variant} ({listed}) are as large as the receptive field in {count} of {len(sites)} sites."


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
    wide = f"in {flat} it is no smaller than" if flat else "it is everywhere smaller than"
    return [
        f"{near} of {total} sites have a receptive field below {NEARBY} x {NEARBY} tokens; {wide} that of a uniform map"
        f"{', where attention is not local at all' if flat else ''}.",
        f"In {falls} of {total} sites the distance alone explains most of the mean attention (error of the best fit "
        f"below 0.5); the inverse square is closer than the exponential in {quadratic} of {total}.",
        f"The filter takes {human(smooth, 'share')} of the attention away as smooth, on the mean over sites.",
    ]


def _row(number: int, site: dict[str, Any], kernels: Sequence[int]) -> tuple[str, ...]:
    """The cells of one site in the table."""
    mean, summary = site["mean"], site["summary"]
    fits = "; ".join(f"{fit['form']} {fit['error']:.2f}" for fit in site["decay"]["fits"]) or DASH
    heads = [each["receptive_field"] for each in site["by_head"] if each["receptive_field"] is not None]
    return (
        f"{number + 1} {site['path']}",
        f"{site['grid'][0]}×{site['grid'][1]}",
        str(mean["receptive_field"] or DASH),
        *map(str, kernels),
        str(summary["uniform_receptive_field"]),
        f"{min(heads)} to {max(heads)}" if heads else DASH,
        human(summary["locality_mass"], "share"),
        human(summary["uniform_mass"], "share"),
        human(mean["low_frequency"], "share"),
        human(mean["artefacts"], "share"),
        human(mean["entropy"], "nat"),
        fits,
    )
