"""Per-site accounts: for every self-attention layer, what each variant put there and what it costs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records.case import Resolution
from harness.records.record import Record, SiteAccount
from reports.compare import REFERENCE, variant_order

NAMED = 3
"""The rarest mixer's sites are named up to so many, and counted beyond."""


@dataclass(frozen=True)
class SiteRow:
    """One layer: where and how wide it is, and what sits there under each variant (None where it is not known)."""

    path: str
    channels: int
    heads: int
    grid: tuple[int, int]
    seated: tuple[SiteAccount | None, ...]
    reference: int | None


@dataclass(frozen=True)
class SiteTable:
    """All layers of a model at a resolution, one column a variant with its mixers; `peak` is the highest price."""

    model: str
    resolution: Resolution
    variants: tuple[str, ...]
    mixers: tuple[tuple[str, ...], ...]
    rows: tuple[SiteRow, ...]
    totals: tuple[int, ...]
    peak: int


def site_tables(records: Sequence[Record]) -> list[SiteTable]:
    """One table for each model and resolution with accounts; the latest record of a variant speaks for it."""
    found: dict[tuple[str, Resolution], dict[str, Record]] = {}
    for record in records:
        if record.sites:
            found.setdefault((record.case.model, record.case.resolution), {})[record.case.variant] = record
    return [_table(*place, found[place]) for place in sorted(found)]


def mixtures(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Of each variant with several mixers in one model: how many sites each has, and which are the rarest one's."""
    seated = {(r.case.variant, r.case.model): r.sites for r in records if r.sites}
    found = []
    for (variant, model), sites in sorted(seated.items()):
        counts = Counter(site.mixer for site in sites).most_common()
        if len(counts) > 1:
            shares = ", ".join(f"{mixer} at {count}" for mixer, count in counts)
            rarest = [site.path for site in sites if site.mixer == counts[-1][0]]
            named = f" ({', '.join(rarest)})" if len(rarest) <= NAMED else ""
            found.append((f"{variant} on {model}", f"of {len(sites)} sites, {shares}{named}"))
    return found


def _table(model: str, resolution: Resolution, seated: dict[str, Record]) -> SiteTable:
    variants = sorted(seated, key=variant_order)
    at = {name: {_place(site): site for site in seated[name].sites} for name in variants}
    places = dict.fromkeys(_place(site) for name in variants for site in seated[name].sites)
    rows = []
    for place in places:
        sites = tuple(at[name].get(place) for name in variants)
        own = at.get(REFERENCE, {}).get(place)
        rows.append(SiteRow(*place, seated=sites, reference=own.flops if own else None))
    totals = tuple(sum(site.flops for site in seated[name].sites) for name in variants)
    peak = max(site.flops for name in variants for site in seated[name].sites)
    mixers = tuple(tuple(dict.fromkeys(site.mixer for site in seated[name].sites)) for name in variants)
    return SiteTable(model, resolution, tuple(variants), mixers, tuple(rows), totals, peak)


def _place(site: SiteAccount) -> tuple[str, int, int, tuple[int, int]]:
    return (site.path, site.channels, site.heads, site.grid)
