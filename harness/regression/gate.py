"""The gate: a run against a committed baseline. Prices exactly, timings as ratios within a run, scores by intervals.

- A price (FLOPs, parameters, projected bytes) passes if it is equal.
- What was measured is judged as a ratio, because two runs of the same code differ by tens of percent. Where a metric
  took the ratio itself (latency_ratio: variant and teacher in alternation), by that; otherwise (bytes, other
  latencies) the value is divided by the reference variant of the same run, on either side. It passes if the ratio rose
  by no more than `tolerance`; it is a regression if the 95 % interval of the rise lies beyond that, the machine was
  quiet, and it is of the baseline's make.
- A score is compared image by image (or jackknife group by group): it passes if the upper end of its loss is within
  `margin` of the baseline, is a regression if the lower end is not, and is inconclusive between. A score that was kept
  without raw values passes if its loss is within `margin`, and is a regression only if the whole interval is not.

Unlike protocols or settings are never compared, and what could not be compared is said: a gate that compares nothing
must not be green.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.records.case import BadInput
from harness.records.comparison import paired_half_width
from harness.records.machine import same_make
from harness.records.record import Reading, Record
from harness.regression.baseline import Baseline, Entry, locate, name_of

Outcome = Literal["pass", "regression", "inconclusive"]

PRICES = ("FLOP", "parameter")
PROJECTED = ("projected_memory",)
MEASURED = ("ms", "byte")
RATIO = "x"
RENEW = "if that is meant, gate.update=true writes it down"


@dataclass(frozen=True)
class Verdict:
    """What became of one reading of one case: what the run gave, what the baseline expects, and why so judged."""

    name: str
    case: str
    outcome: Outcome
    given: float | None
    expected: float | None
    reason: str


@dataclass(frozen=True)
class Ratio:
    """A ratio and the readings that it is made of: one that is a ratio itself, or two, the first over the second."""

    value: float
    of: tuple[Reading, ...]


@dataclass(frozen=True)
class NoGate:
    """Judges nothing."""

    def __call__(self, records: Sequence[Record]) -> list[Verdict]:
        """No verdicts."""
        return []


@dataclass(frozen=True)
class Gate:
    """Judges a run's records by the baseline file; with `update`, writes them down as the baseline instead.

    tolerance: share by which a ratio of measured values may rise. margin: share of a score that may be lost.
    reference: the variant that measured values are divided by.
    """

    baseline: str
    update: bool = False
    tolerance: float = 0.25
    margin: float = 0.02
    reference: str = "self_attention"

    def __call__(self, records: Sequence[Record]) -> list[Verdict]:
        """A verdict for each reading of run or baseline; BadInput for a baseline that cannot be read or written."""
        if not (self.tolerance >= 0 and self.margin >= 0):
            raise BadInput(
                f"gate.tolerance={self.tolerance} and gate.margin={self.margin} are shares: give 0 or more, as in 0.25"
            )
        path = locate(self.baseline)
        if self.update:
            Baseline.of(records).save(path)
            return [Verdict("baseline", name_of(r.case), "pass", None, None, "written down") for r in records]
        run, baseline = Baseline.of(records), Baseline.load(path)
        verdicts = []
        for name in sorted(run.cases.keys() | baseline.cases.keys()):
            verdicts += self._case(name, run, baseline)
        return verdicts or [_unsure("baseline", "every case", "there is nothing to compare: give the sweep some cases")]

    def _case(self, name: str, run: Baseline, baseline: Baseline) -> list[Verdict]:
        """Verdicts on one case, which run or baseline may lack."""
        if name not in baseline.cases:
            return [_unsure("baseline", name, f"the baseline lacks this case: {RENEW}")]
        if name not in run.cases:
            return [_unsure("baseline", name, f"the baseline has this case, the run does not: {RENEW}")]
        now, then = run.cases[name], baseline.cases[name]
        verdicts = _status(name, now, then)
        for reading in sorted(now.readings.keys() | then.readings.keys()):
            if now.status == then.status or reading in now.readings:
                verdicts += self._reading(reading, name, run, baseline)
        return verdicts

    def _reading(self, reading: str, name: str, run: Baseline, baseline: Baseline) -> list[Verdict]:
        """The verdict on one reading; none where it has no direction or is its own reference."""
        now, then = run.cases[name].readings.get(reading), baseline.cases[name].readings.get(reading)
        if then is None:
            return [_unsure(reading, name, f"the baseline lacks this reading: {RENEW}", now)]
        if now is None:
            why = run.cases[name].dashes.get(reading, "it was not asked for")
            return [
                _unsure(reading, name, f"the baseline has this reading, the run does not ({why}): {RENEW}", then=then)
            ]
        if now.protocol != then.protocol:
            told = f"it was taken as {now.protocol!r}, the baseline as {then.protocol!r}: {RENEW}"
            return [_unsure(reading, name, told, now, then)]
        if now.unit in PRICES or now.metric in PROJECTED:
            return [_price(name, now, then)]
        if differing := _differing(run.cases[name], baseline.cases[name]):
            return [_unsure(reading, name, f"the settings differ ({differing}): {RENEW}", now, then)]
        if now.unit == RATIO:
            return [self._rise(name, Ratio(_value(now), (now,)), Ratio(_value(then), (then,)), run, baseline)]
        if now.unit in MEASURED:
            taken = all(f"{now.name}_ratio" in side.cases[name].readings for side in (run, baseline))
            return [] if taken else self._measured(name, now, then, run, baseline)
        return [] if now.better == "neither" else [_score(name, now, then, self.margin)]

    def _measured(self, name: str, now: Reading, then: Reading, run: Baseline, baseline: Baseline) -> list[Verdict]:
        """Ratio to the reference variant now, over that ratio then."""
        model, variant, *rest = name.split(" ")
        if variant == self.reference:
            return []
        beside = " ".join([model, self.reference, *rest])
        references = [side.cases[beside].readings.get(now.name) for side in (run, baseline) if beside in side.cases]
        if len(references) < 2 or references[0] is None or references[1] is None:
            return [_unsure(now.name, name, f"there is no {self.reference} of the same run to divide by", now, then)]
        if not all(_value(reading) > 0 for reading in (now, then, references[0], references[1])):
            return [_unsure(now.name, name, "a ratio to or of zero says nothing", now, then)]
        given = Ratio(_value(now) / _value(references[0]), (now, references[0]))
        expected = Ratio(_value(then) / _value(references[1]), (then, references[1]))
        return [self._rise(name, given, expected, run, baseline)]

    def _rise(self, name: str, now: Ratio, then: Ratio, run: Baseline, baseline: Baseline) -> Verdict:
        """Judge how much a ratio rose."""
        reading, given, expected = now.of[0].name, now.value, then.value
        base = "its floor" if now.of[0].metric == "mixer_bench" else self.reference
        rise = math.log(given / expected)
        half = math.hypot(*(_log_half_width(one) for one in (*now.of, *then.of)))
        limit = math.log1p(self.tolerance)
        interval = f"{math.expm1(rise - half):+.1%} to {math.expm1(rise + half):+.1%}"
        interval = interval if math.isfinite(half) else "too few samples for an interval"
        told = (
            f"{reading} is {given:.3g} x {base}, the baseline {expected:.3g} x: {math.expm1(rise):+.1%} "
            f"({interval}), tolerance {self.tolerance:.0%}"
        )
        doubts = [one.details["noisy"] for one in now.of if one.details.get("noisy")]
        if not same_make(run.machine, baseline.machine):
            doubts.append("the baseline was taken on another machine")
        if rise <= limit:
            return Verdict(reading, name, "pass", given, expected, told)
        if rise - half > limit and not doubts:
            return Verdict(reading, name, "regression", given, expected, told)
        return Verdict(reading, name, "inconclusive", given, expected, "; ".join([told, *doubts]))


def exit_status(verdicts: Sequence[Verdict]) -> int:
    """0 if all pass, 1 if there is a regression, else 3."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return 1 if "regression" in outcomes else 3 if "inconclusive" in outcomes else 0


def _status(name: str, now: Entry, then: Entry) -> list[Verdict]:
    """A case that no longer ends as it did."""
    if now.status == then.status:
        return []
    told = f"the case ended {now.status}, in the baseline {then.status}"
    worse = then.status == "ok" and now.status != "unavailable"
    return [Verdict("status", name, "regression" if worse else "inconclusive", None, None, told)]


def _price(name: str, now: Reading, then: Reading) -> Verdict:
    if now.value == then.value:
        return Verdict(now.name, name, "pass", now.value, then.value, "equal")
    told = f"{now.name} is {now.value} {now.unit}, the baseline {then.value}, and prices must be equal: {RENEW}"
    return Verdict(now.name, name, "regression", now.value, then.value, told)


def _score(name: str, now: Reading, then: Reading, share: float) -> Verdict:
    """Non-inferiority of a score: paired where the raw values allow it."""
    given, expected = _value(now), _value(then)
    sign = 1 if now.better == "lower" else -1
    loss, margin = sign * (given - expected), share * abs(expected)
    paired = paired_half_width(now, then)
    half = math.hypot(_half_width(now), _half_width(then)) if paired is None else paired
    told = (
        f"{now.name} is {given:.4g}, the baseline {expected:.4g}: a loss of {loss:.3g} "
        f"({loss - half:.3g} to {loss + half:.3g}), margin {margin:.3g}"
    )
    if loss - half > margin:
        return Verdict(now.name, name, "regression", given, expected, told)
    if (loss if paired is None else loss + half) <= margin:
        return Verdict(now.name, name, "pass", given, expected, told)
    if loss < margin:
        told += f"; about n = {math.ceil(now.n * (half / (margin - loss)) ** 2)} images would tell"
    return Verdict(now.name, name, "inconclusive", given, expected, told)


def _value(reading: Reading) -> float:
    assert reading.value is not None, "a baseline keeps no dashes"
    return reading.value


def _log_half_width(reading: Reading) -> float:
    """Half of the interval on a log scale; unbounded for a timing without one, nothing for bytes, which hardly vary."""
    if reading.low is None or reading.high is None or reading.low <= 0:
        return 0.0 if reading.unit == "byte" else math.inf
    return math.log(reading.high / reading.low) / 2


def _half_width(reading: Reading) -> float:
    return 0.0 if reading.low is None or reading.high is None else (reading.high - reading.low) / 2


def _differing(now: Entry, then: Entry) -> str:
    names = [name for name in then.settings if now.settings.get(name) != then.settings[name]]
    return ", ".join(f"{name} {now.settings.get(name)} against {then.settings[name]}" for name in names)


def _unsure(name: str, case: str, reason: str, now: Reading | None = None, then: Reading | None = None) -> Verdict:
    return Verdict(name, case, "inconclusive", now.value if now else None, then.value if then else None, reason)
