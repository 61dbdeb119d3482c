"""The page: everything a store has to say, in one HTML file that fetches nothing."""

import datetime
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import units
from harness.records.record import Record
from reports import (
    charts,
    largest_size,
    locality,
    pareto,
    pictures,
    provenance,
    read,
    roofline,
    sensitivity,
    sites,
    tables,
)
from reports.compare import REFERENCE, Group, groups, name_order, variant_order
from reports.findings import briefs
from reports.law_tables import law_table
from reports.laws import laws

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent


def render(folder: str | Path) -> Path:
    """Write report.html, readings.csv and summary.md into a store's folder; raise BadStore if that cannot be done."""
    store = read.load(folder)
    blocks = tables.summary(store.records)
    path = store.folder / "report.html"
    text = _environment().get_template("report.html").render(**_context(store, blocks))
    try:
        tables.export(store, blocks)
        sensitivity.export(store.folder, store.records)
        tables.write_whole(path, text)
    except OSError as error:
        raise read.BadStore(
            f"{str(folder)!r} cannot be written ({error.strerror}): the report goes beside its records"
        ) from error
    return path


def _environment() -> "jinja2.Environment":
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


def _context(store: read.Store, blocks: Sequence[tables.Block]) -> dict[str, Any]:
    records = store.records
    found = groups(records)
    colours = charts.palette(r.case.variant for r in records)
    marks = provenance.protocols(records)
    models = [_model(name, records, blocks, found, colours) for name in _models(records)]
    choices = list(dict.fromkeys(chart.choice for model in models for chart in model["tradeoffs"]))
    return {
        "head": _headline(store),
        "colours": colours,
        "glyphs": charts.GLYPHS,
        "models": models,
        "choices": choices,
        "chosen": next((name for name in choices if name.endswith("latency")), choices[0] if choices else ""),
        "sheets": _of_models(pictures.sheets(store.folder, records), records),
        "sites": [table for _, mine in _of_models(sites.site_tables(records), records) for table in mine],
        "locality": locality.parts(records, colours),
        "locality_heads": locality.HEADS,
        "sensitivity": sensitivity.parts(records),
        "sensitivity_heads": sensitivity.HEADS,
        "long": _long(records),
        "failures": provenance.failures(records),
        "dashes": provenance.dashes(records),
        "remarks": provenance.remarks(records),
        "protocols": marks,
        "marks": {p.text: p.mark for p in marks},
        "devices": roofline.devices(),
        "machines": provenance.machines(records),
        "commands": provenance.commands(store.folder.resolve().name, records),
        "notices": store.notices,
        "reference": REFERENCE,
        "repeats": sum(len(r.readings) for r in records) - sum(len(g.points) for g in found),
        **_inlined(),
    }


def _inlined() -> dict[str, Any]:
    """Our own style and script, and plotly.js: the only text that goes into the page unescaped."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return {
        "style": Markup((HERE / "report.css").read_text(encoding="utf-8")),
        "script": Markup((HERE / "report.js").read_text(encoding="utf-8")),
        "plotly": Markup(get_plotlyjs()),
    }


def _headline(store: read.Store) -> dict[str, Any]:
    records = store.records
    started = sorted(r.started for r in records if r.started)
    counts = Counter(r.status for r in records)
    sizes = sorted({r.case.resolution for r in records})
    return {
        "name": store.folder.resolve().name,
        "folder": str(store.folder),
        "variants": sorted({r.case.variant for r in records} - {REFERENCE}, key=variant_order),
        "models": _models(records),
        "smallest": sizes[0],
        "largest": sizes[-1],
        "machines": [m.name for m in provenance.machines(records)],
        "first": _day(started[0]) if started else "",
        "last": _day(started[-1]) if started else "",
        "elapsed": units.duration(sum(r.elapsed_s for r in records)),
        "counts": sorted(counts.items(), key=lambda item: (item[0] != "ok", item[0])),
        "total": len(records),
    }


def _day(started: str) -> str:
    try:
        return datetime.datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return started


def _model(
    name: str,
    records: Sequence[Record],
    blocks: Sequence[tables.Block],
    found: Sequence[Group],
    colours: charts.Palette,
) -> dict[str, Any]:
    """What the page shows of a model: its summary tables (the fullest and the largest first) and its charts."""
    mine = [b for b in blocks if b.model == name and b.columns]
    fullest = max(mine, key=lambda b: (b.layer == 0, len(b.columns), b.resolution), default=None)
    largest = max(mine, key=lambda b: (b.layer == 0, b.filled > 0, b.resolution), default=None)
    first = [b for b in dict.fromkeys((fullest, largest)) if b is not None]
    own = [g for g in found if g.model == name]
    held = [r for r in records if r.case.model == name]
    fitted = laws(own)
    return {
        "name": name,
        "briefs": briefs(own),
        "blocks": first,
        "other_blocks": [b for b in mine if b not in first],
        "costs": charts.cost_charts(own, records, colours, fitted),
        "largest_sizes": largest_size.largest_sizes(held),
        "laws": law_table(own, fitted),
        "on_devices": roofline.device_tables(held),
        "scores": charts.score_charts(own, colours),
        "tradeoffs": pareto.tradeoff_charts(own, colours),
    }


def _models(records: Sequence[Record]) -> list[str]:
    """Models with scores first: theirs is the fuller story."""
    scored = {r.case.model for r in records if any(not units.is_cost(x.unit, x.better) for x in r.readings)}
    return sorted({r.case.model for r in records}, key=lambda model: (model not in scored, model))


def _of_models(found: Sequence[Any], records: Sequence[Record]) -> list[tuple[str, list[Any]]]:
    """Things that belong to a model, by model in the order of the page."""
    ordered = [(model, [one for one in found if one.model == model]) for model in _models(records)]
    return [(model, mine) for model, mine in ordered if mine]


def _long(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Every reading as a row, in order of model, size, variant and name."""
    ordered = sorted(
        records,
        key=lambda r: (r.case.model, r.case.resolution, variant_order(r.case.variant), r.started),
    )
    rows = []
    for record in ordered:
        for r in sorted(record.readings, key=lambda reading: name_order(reading.name)):
            text, interval = units.with_interval(r.value, r.low, r.high, r.unit)
            rows.append({"record": record, "reading": r, "text": text, "interval": interval})
    return rows
