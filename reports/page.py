"""The page: everything a store has to say, in one HTML file that fetches nothing."""

import datetime
import gc
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import units
from harness.records.by_key import grouped
from harness.records.files import write_whole
from harness.records.record import Record
from reports import (
    charts,
    files,
    glossary,
    learning,
    locality,
    pictures,
    provenance,
    read,
    roofline,
    sensitivity,
    sites,
    slopes,
)
from reports.compare import REFERENCE, Group, groups, name_order, variant_order
from reports.model_section import ModelSection, model_section
from reports.paper import paper_rows
from reports.payload import Payload, packed, zipped
from reports.ratios import disturbance
from reports.summary import summary_text

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent / "template"
MOST_SHEETS = 400


@contextmanager
def _no_collection() -> Iterator[None]:
    """The cycle collector stands still: a page makes millions of objects, and looking through them all again and again
    takes a quarter of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_no_collection()
def render(folder: str | Path, asked: Collection[str] = ()) -> Path:
    """Write report.html, readings.csv and summary.md into a store's folder; raise BadStore if that cannot be done.

    asked: keys of the cases that a run asked for; their models come first, and the page says which they are.
    """
    store = read.load(folder)
    everything = groups(store.records)
    names = _models(store.records, asked)
    sections = _sections(names, store, everything)
    text = environment().get_template("report.html").render(**_context(store, sections, everything, asked))
    path = store.folder / "report.html"
    try:
        files.export(store, summary_text(sections, _headline(store, names), _asked_words(store.records, asked)))
        sensitivity.export(store.folder, store.records)
        write_whole(path, text)
    except OSError as error:
        raise read.BadStore(
            f"{str(folder)!r} cannot be written ({error.strerror}): the report goes beside its records"
        ) from error
    return path


def _sections(names: Sequence[str], store: read.Store, everything: Sequence[Group]) -> list[ModelSection]:
    """What there is to say of each model, in the order of the page."""
    held = grouped(store.records, lambda record: record.case.model)
    own = grouped(everything, lambda group: group.model)
    colours = charts.palette(r.case.variant for r in store.records)
    room = pictures.Room()
    return [model_section(name, held[name], own.get(name, []), colours, store.folder, room) for name in names]


def environment() -> "jinja2.Environment":
    """Templates that escape everything foreign."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"human": units.human, "ratio": units.ratio, "spoken": units.spoken}
    return found


def _context(
    store: read.Store, sections: Sequence[ModelSection], everything: Sequence[Group], asked: Collection[str]
) -> dict[str, Any]:
    records = store.records
    names = [section.name for section in sections]
    marks = provenance.protocols(records)
    colours = charts.palette(r.case.variant for r in records)
    where_it_looks, prices = locality.parts(records, colours), sensitivity.parts(records)
    choices = list(dict.fromkeys(chart.choice for section in sections for chart in section.tradeoffs))
    sheets = [sheet for section in sections for sheet in section.sheets][:MOST_SHEETS]
    return {
        "head": _headline(store, names),
        "asked": _asked_words(records, asked),
        "colours": colours,
        "glyphs": charts.GLYPHS,
        "glossary": _glossary(records, names),
        "models": sections,
        "choices": choices,
        "chosen": next((name for name in choices if name.endswith("latency")), choices[0] if choices else ""),
        "sites": _sites(names, records),
        "locality": where_it_looks,
        "learning": [part for section in sections for part in section.taught],
        "learning_heads": learning.HEADS,
        "slope_heads": slopes.HEADS,
        "sensitivity": prices,
        "looked": _looked(where_it_looks, prices),
        "sensitivity_heads": sensitivity.HEADS,
        "paper": paper_rows(records),
        "failures": provenance.failures(records),
        "dashes": provenance.dashes(records),
        "remarks": provenance.remarks(records),
        "disturbed": provenance.disturbed(records),
        "protocols": marks,
        "marks": {p.text: p.mark for p in marks},
        "devices": roofline.devices(),
        "machines": provenance.machines(records),
        "commands": provenance.commands(store.folder.resolve().name, records),
        "notices": store.notices,
        "reference": REFERENCE,
        "repeats": sum(len(r.readings) for r in records) - sum(len(g.points) for g in everything),
        "payload": Payload(),
        "sheets": [_sheet_data(sheet, colours) for sheet in sheets],
        "readings": packed(_long(records, {p.text: p.mark for p in marks}, colours)),
        "total_readings": sum(len(r.readings) for r in records),
        **inlined(),
    }


def _looked(where_it_looks: Sequence[locality.Part], prices: Sequence[sensitivity.Part]) -> dict[str, list[str]]:
    """What was found of each model's attention, in sentences."""
    found: dict[str, list[str]] = {}
    for part in where_it_looks:
        found.setdefault(part.model, []).extend(part.findings[:2])
    for price in prices:
        found.setdefault(price.model, []).append(price.finding)
    return found


def _sites(names: Sequence[str], records: Sequence[Record]) -> list[tuple[str, list[sites.SiteTable]]]:
    found = sites.site_tables(records)
    return [(name, mine) for name in names if (mine := [table for table in found if table.model == name])]


@cache
def inlined() -> dict[str, Any]:
    """Our own style and script, and plotly.js: the only text that goes into the page unescaped."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    scripts = ("payload.js", "charts.js", "tables.js", "images.js")
    return {
        "style": Markup((HERE / "report.css").read_text(encoding="utf-8")),
        "script": Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in scripts)),
        "plotly": zipped(get_plotlyjs()),
    }


def _glossary(records: Sequence[Record], names: Sequence[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    variants = sorted({r.case.variant for r in records}, key=variant_order)
    taken = sorted({reading.name for r in records for reading in r.readings}, key=name_order)
    readings = [(units.spoken(name), line) for name, line in glossary.known(taken, glossary.READINGS)]
    found = [
        ("models", glossary.known(names, glossary.MODELS)),
        ("variants", [*glossary.known(variants, glossary.VARIANTS), *sites.mixtures(records)]),
        ("metrics", readings),
        ("world", [("shapes", glossary.EMBEDDED)] if any(r.case.world == "shapes" for r in records) else []),
    ]
    return [(title, lines) for title, lines in found if lines]


def _headline(store: read.Store, names: Sequence[str]) -> dict[str, Any]:
    records = store.records
    started = sorted(r.started for r in records if r.started)
    counts = Counter(r.status for r in records)
    sizes = sorted({r.case.resolution for r in records})
    return {
        "name": store.folder.resolve().name,
        "folder": str(store.folder),
        "variants": sorted({r.case.variant for r in records} - {REFERENCE}, key=variant_order),
        "models": names,
        "smallest": sizes[0],
        "largest": sizes[-1],
        "machines": [m.name for m in provenance.machines(records)],
        "first": _day(started[0]) if started else "",
        "last": _day(started[-1]) if started else "",
        "elapsed": units.duration(sum(r.elapsed_s for r in records)),
        "counts": sorted(counts.items(), key=lambda item: (item[0] != "ok", item[0])),
        "total": len(records),
    }


def _asked_words(records: Sequence[Record], asked: Collection[str]) -> str:
    """Which of the folder's records the last run asked for, where these are not all."""
    mine = [record for record in records if record.case.key in asked]
    if not asked or len(mine) == len(records):
        return ""
    models = ", ".join(dict.fromkeys(record.case.model for record in mine)) or "none that could be kept"
    return (
        f"The last run in this folder asked for {len(mine)} of these {len(records)} records ({models}), which come "
        "first; the others are of earlier runs."
    )


def _day(started: str) -> str:
    return datetime.datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M %Z").strip()


def _models(records: Sequence[Record], asked: Collection[str]) -> list[str]:
    """Models that were asked for first, then those with scores: theirs is the fuller story."""
    scored = {r.case.model for r in records if any(not units.is_cost(x.unit, x.better) for x in r.readings)}
    wanted = {r.case.model for r in records if r.case.key in asked}
    return sorted({r.case.model for r in records}, key=lambda name: (name not in wanted, name not in scored, name))


def _sheet_data(sheet: pictures.Sheet, colours: charts.Palette) -> dict[str, Any]:
    """A sheet as the script of the page reads it."""
    series = [
        {"label": s.label, "variant": s.variant, "colour": colours.get(s.variant, -1)}
        | {"glyph": charts.GLYPHS[colours[s.variant]] if s.variant in colours else "○"}
        for s in sheet.series
    ]
    rows = [
        {"prompt": words, "cells": [{k: v for k, v in vars(one).items() if v not in ("", None, {})} for one in cells]}
        for words, cells in sheet.rows
    ]
    size = {"width": sheet.resolution.width, "height": sheet.resolution.height, "size": str(sheet.resolution)}
    return {"model": sheet.model, **size, "settings": ", ".join(sheet.settings), "series": series, "rows": rows}


def _long(records: Sequence[Record], marks: dict[str, str], colours: charts.Palette) -> list[list[Any]]:
    """Every reading as a row, in order of model, size, variant and name."""
    ordered = sorted(records, key=lambda r: (r.case.model, r.case.resolution, variant_order(r.case.variant), r.started))
    rows = []
    for record in ordered:
        case = record.case
        head = [case.key, case.model, str(case.resolution), case.variant, colours[case.variant], case.weights]
        for r in sorted(record.readings, key=lambda reading: name_order(reading.name)):
            text, interval = units.with_interval(r.value, r.low, r.high, r.unit)
            body = [r.name, units.spoken(r.name), r.value, text, interval, r.n, marks[r.protocol], r.reason]
            rows.append([*head, *body, disturbance(r)])
    return rows
