"""The section on sensitivity: what the output loses where a site is replaced, and which profile follows from it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.case import Resolution
from harness.records.record import Reading, Record
from harness.records.units import human
from reports.axes import LEGEND, axis, framed, words
from reports.locality_charts import Figure

PROFILE = "deltabench profile, version 1"
"""As harness/locality/profile.py reads it."""
KINDS = {
    "variant": ("its mixer", "--series-3"),
    "mean_map": ("its mean map", "--series-1"),
    "identity": ("the identity map", "--series-5"),
}


@dataclass(frozen=True)
class Part:
    """A variant of a model at a size: what was found in words, charts, and a table of sites, levels and all."""

    model: str
    variant: str
    resolution: str
    finding: str
    figures: tuple[Figure, ...]
    rows: tuple[tuple[str, ...], ...]


HEADS = ("replaced", "grid", "FLOPs left", "error: mixer", "mean map", "identity map", "per GFLOP saved", "CLIP score")


def parts(records: Sequence[Record]) -> list[Part]:
    """One part for each variant, model and size; the latest record speaks for it."""
    found: dict[tuple[str, Resolution, str], Reading] = {}
    for record in records:
        if reading := record.number("sensitivity"):
            found[record.case.model, record.case.resolution, record.case.variant] = reading
    return [_part(place[0], place[2], str(place[1]), found[place]) for place in sorted(found)]


def _part(model: str, variant: str, size: str, reading: Reading) -> Part:
    sites = reading.details["sites"]
    levels = [_row(f"level of {_grid(level)}", level) for level in reading.details["levels"]]
    rows = [_row(f"{number} {site['paths'][0]}", site) for number, site in enumerate(sites, 1)]
    rows += [*levels, _row("all sites", reading.details["whole"])]
    found = _finding(sites, reading.details["whole"], variant)
    return Part(model, variant, size, found, tuple(_figures(sites, variant, reading.protocol)), tuple(rows))


def _finding(sites: Sequence[dict[str, Any]], whole: dict[str, Any], variant: str) -> str:
    """How much is lost, and where."""
    errors = [site["error"]["variant"] for site in sites]
    worst = max(range(len(sites)), key=lambda index: errors[index])
    share = errors[worst] / sum(errors) if sum(errors) else 0.0
    return (
        f"With {variant} at all {len(sites)} sites the prediction errs by {whole['error']['variant']:.2g} of its "
        f"variance; of what they lose one by one, site {worst + 1} ({sites[worst]['paths'][0]}) makes {share:.0%}."
    )


def _figures(sites: Sequence[dict[str, Any]], variant: str, protocol: str) -> list[Figure]:
    at = [str(number) for number in range(1, len(sites) + 1)]
    errors = {"yaxis": axis() | {"type": "log", "title": words("error of the output")}}
    bars = [
        {"type": "bar", "x": at, "y": [site["error"].get(kind) for site in sites], "name": name, "marker": {"color": c}}
        for kind, (name, c) in KINDS.items()
    ]
    saved = [site["flops"]["self_attention"] - site["flops"]["variant"] for site in sites]
    marks = {
        "type": "scatter",
        "mode": "markers+text",
        "x": saved,
        "y": [max(site["error"]["variant"], 1e-7) for site in sites],
        "text": at,
        "textposition": "top center",
        "marker": {"color": "--series-3", "size": 9},
        "hovertemplate": "site %{text}: %{y:.3g}<extra></extra>",
    }
    return [
        Figure(
            f"What the output loses where one site is {variant}",
            "A site whose mean map costs as little as its mixer does not answer to the image; one whose identity map "
            "costs nothing looks at nothing but itself; what towers over the others should be kept.",
            (protocol,),
            {"data": bars, "layout": framed("site") | LEGEND | errors},
        ),
        Figure(
            "What a site saves, and what that costs",
            "Sites at the bottom right are to be replaced first, sites at the top left last.",
            (protocol,),
            {"data": [marks], "layout": framed("FLOPs saved by replacing the site") | errors},
        ),
    ]


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    flops, errors = found["flops"], found["error"]
    saved = flops["self_attention"] - flops["variant"]
    score = found.get("clip_score")
    return (
        name,
        _grid(found),
        human(flops["variant"] / flops["self_attention"], "share"),
        *(f"{errors[kind]:.2g}" if kind in errors else human(None, "1") for kind in KINDS),
        f"{errors['variant'] / saved * 1e9:.2g}" if saved > 0 else human(None, "1"),
        f"{score['change']:+.2f} ({score['low']:+.2f} to {score['high']:+.2f})" if score else human(None, "1"),
    )


def _grid(found: dict[str, Any]) -> str:
    return f"{found['grid'][0]}×{found['grid'][1]}"


def profiles(records: Sequence[Record]) -> dict[str, str]:
    """Model -> its profile as JSON: receptive fields and prices of the latest records, at the smallest size of each."""
    found: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda one: one.case.resolution, reverse=True):
        fields, lost = record.number("locality_receptive_field"), record.number("sensitivity")
        if fields or lost:
            profile = found.setdefault(record.case.model, {"format": PROFILE, "receptive_fields": {}, "prices": {}})
            profile["resolution"], profile["weights"] = str(record.case.resolution), record.case.weights
        if fields:
            sites = fields.details["sites"]
            profile["receptive_fields"] = {site["path"]: site["mean"]["receptive_field"] or 1 for site in sites}
        if lost:
            profile["prices"][lost.details["variant"]] = {
                site["paths"][0]: {
                    "kept": site["flops"]["self_attention"],
                    "replaced": site["flops"]["variant"],
                    "error": site["error"]["variant"],
                }
                for site in lost.details["sites"]
            }
    return {model: json.dumps(profile, indent=1) + "\n" for model, profile in found.items()}


def export(folder: Path, records: Sequence[Record]) -> None:
    """Write `profiles/<model>.json` beside the page for every model that was measured."""
    for model, text in profiles(records).items():
        (folder / "profiles").mkdir(exist_ok=True)
        (folder / "profiles" / f"{model}.json").write_text(text, encoding="utf-8")
