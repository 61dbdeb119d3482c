"""What changed between two stores: before and after a commit, two machines, two recipes; by the same paired statistics.

Cases are matched by model, variant and size, and by all settings that count for a reading except the machine, the
weights and what a variant is made of: these may be what changed, and are listed. Counts are compared exactly, scores of
the same prompts and seeds in pairs, with Holm's correction for all of them. The quotient of times of two runs is shown
and concludes nothing; a change of the alternated ratio to the teacher does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.records.case import Resolution
from harness.records.comparison import difference, told_apart
from harness.records.record import Reading, Record
from harness.records.statistics import Estimate
from harness.records.units import human, in_full, is_cost, ratio, spoken
from reports.compare import in_words, name_order, relevant_settings, variant_order
from reports.differences import signed, with_ends
from reports.provenance import flat
from reports.ratios import disturbance, is_counted
from reports.read import BadStore, Store

Place = tuple[str, str, Resolution, str, str, tuple[str, ...]]
"""Model, variant, size, reading, protocol, settings that count."""


@dataclass(frozen=True)
class Change:
    """One reading in both stores. verdict: better, worse, changed, same or open; note: why nothing is concluded.

    gain: how much better it is, where that is tested.
    """

    model: str
    variant: str
    resolution: Resolution
    name: str
    before: str
    after: str
    said: str
    verdict: str
    note: str
    keys: tuple[str, str]
    gain: Estimate | None = None

    @property
    def title(self) -> str:
        return spoken(self.name)


@dataclass(frozen=True)
class Compared:
    """Two stores: what changed, what is in one of them alone, and how the two differ as a whole."""

    changes: tuple[Change, ...]
    only: tuple[tuple[str, tuple[str, ...]], ...]
    unlike: tuple[tuple[str, str, str], ...]

    @property
    def sentence(self) -> str:
        verdicts = [change.verdict for change in self.changes]
        told = [f"{verdicts.count(word)} {word}" for word in ("worse", "better", "changed", "same", "open")]
        return f"Of {len(self.changes)} readings that both hold: {', '.join(told)}."


def compared(one: Store, other: Store) -> Compared:
    """`one` is before, `other` after; raises BadStore where they have no reading in common."""
    before, after = _placed(one.records), _placed(other.records)
    both = [place for place in before if place in after]
    if not both:
        raise BadStore(
            f"{str(one.folder)!r} and {str(other.folder)!r} have no reading in common (same model, variant, size, "
            f"protocol and settings): the first holds {_holds(one.records)}; the second {_holds(other.records)}"
        )
    changes = _corrected([_change(place, before[place], after[place]) for place in sorted(both, key=_order)])
    only = tuple(
        (str(store.folder), tuple(_cases(set(mine) - set(others))))
        for store, mine, others in ((one, before, after), (other, after, before))
    )
    return Compared(tuple(changes), only, tuple(_unlike(one.records, other.records)))


def _placed(records: Sequence[Record]) -> dict[Place, tuple[Record, Reading]]:
    """Every number by what it is; the latest speaks."""
    found: dict[Place, tuple[Record, Reading]] = {}
    for record in records:
        case = record.case
        for r in record.readings:
            if r.value is None or "section" in r.details:
                continue
            settings = relevant_settings(record, r)
            counting = in_words({name: value for name, value in settings.items() if name != "machine"})
            found[case.model, case.variant, case.resolution, r.name, r.protocol, counting] = (record, r)
    return found


def _order(place: Place) -> tuple[Any, ...]:
    model, variant, size, name, protocol, settings = place
    return model, size, variant_order(variant), name_order(name), protocol, settings


def _change(place: Place, one: tuple[Record, Reading], other: tuple[Record, Reading]) -> Change:
    (_, before), (_, after) = one, other
    keys = one[0].case.key, other[0].case.key
    change = Change(*place[:4], _shown(before), _shown(after), "", "open", "", keys)
    value, earlier = float(after.value or 0), float(before.value or 0)
    times = ratio(value / earlier) if earlier else ""
    if _alike(before, after):
        return replace(change, said="the same", verdict="same")
    if is_counted(before):
        good = (value < earlier) == (before.better == "lower")
        verdict = "changed" if before.better == "neither" else "better" if good else "worse"
        return replace(change, said=times, verdict=verdict)
    if disturbed := disturbance(before) or disturbance(after):
        return replace(change, said=times, note=f"disturbed: {disturbed}")
    if before.unit in ("ms", "byte") and is_cost(before.unit, before.better):
        note = "separate runs: their quotient concludes nothing" if before.unit == "ms" else "without intervals"
        return replace(change, said=times, note=note)
    if before.unit == "x":  # the pairs are within a run, not between two
        before, after = replace(before, samples=()), replace(after, samples=())
    estimate = difference(after, before)
    if estimate is None:
        return replace(change, said=signed(value - earlier, before.unit), note="without intervals")
    gain = {"higher": estimate, "lower": -estimate}.get(before.better)
    return replace(change, said=with_ends(estimate, before.unit), gain=gain)


def _alike(before: Reading, after: Reading) -> bool:
    """Whether all that was measured is the same to the last bit."""
    return all(getattr(before, name) == getattr(after, name) for name in ("value", "low", "high", "samples"))


def _shown(reading: Reading) -> str:
    return in_full(reading.value, reading.low, reading.high, reading.unit)


def _corrected(changes: Sequence[Change]) -> list[Change]:
    """All differences that are tested, told apart from nothing together."""
    real = iter(told_apart([change.gain for change in changes if change.gain]))
    found = []
    for change in changes:
        if change.gain and next(real):
            change = replace(change, verdict="better" if change.gain.value > 0 else "worse")
        elif change.gain:
            change = replace(change, note="not told apart")
        found.append(change)
    return found


def _holds(records: Sequence[Record]) -> str:
    cases = sorted({f"{r.case.model} {r.case.variant} at {r.case.resolution}" for r in records})
    return ", ".join(cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")


def _cases(places: set[Place]) -> list[str]:
    sizes: dict[tuple[str, str, str], set[Resolution]] = {}
    for model, variant, size, name, _, _ in places:
        sizes.setdefault((model, variant, name), set()).add(size)
    return [
        f"{model} {variant} at {', '.join(map(str, sorted(found)))}: {spoken(name)}"
        for (model, variant, name), found in sorted(sizes.items())
    ]


def _unlike(one: Sequence[Record], other: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """Facts of the machines, and weights and mixers of the cases, that are not the same in both."""
    before, after = _facts(one), _facts(other)
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield name, _listed(before.get(name, set())), _listed(after.get(name, set()))


def _facts(records: Sequence[Record]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        case = record.case
        named = f"{case.model} {case.variant}"
        told = dict(flat(record.machine)) | {f"weights of {named}": case.weights, f"mixer of {named}": case.mixer}
        for name, value in told.items():
            if value not in (None, "") and name not in ("load", "started"):
                found.setdefault(name, set()).add(human(value, "byte") if name.endswith("memory") else str(value))
    return found


def _listed(values: set[str]) -> str:
    return ", ".join(sorted(values)) or "–"
