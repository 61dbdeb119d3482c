"""The gate: is this code as good as what was written down, or as the commit that it is to replace? One verdict.

Three tiers. Exact: what each mixer costs, counted, against a text in git. Speed: against a base commit in the same job,
or against a baseline of this machine. Quality: image by image against stored values, with a margin. Unlike protocols or
settings are never compared, and what could not be compared is said.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.measured.load import Load
from harness.measured.timing import disturbance
from harness.records.case import BadInput, Case
from harness.records.machine import describe, git, same_make
from harness.records.record import Reading, Record
from harness.regression import exact, history, quality
from harness.regression.baseline import Baseline, Entry, locate, name_of
from harness.regression.quality import value_of
from harness.regression.ratios import Ratio, rise
from harness.regression.speed import Speed
from harness.regression.tell import Tell
from harness.regression.verdict import RENEW, Verdict, weighed

PRICES = ("FLOP", "parameter")
PROJECTED = ("projected_memory",)
MEASURED = ("ms", "byte")
RATIO = "x"
MAKE = ("cpu", "gpu")
"""What speeds of two machines have to share; threads are set by the gate."""


@dataclass(frozen=True)
class NoGate:
    """Judges nothing."""

    def check(self, cases: Sequence[Case]) -> None:
        """Nothing can be wrong."""

    def __call__(self, records: Sequence[Record]) -> list[Verdict]:
        """No verdicts."""
        return []


@dataclass(frozen=True)
class Gate:
    """Judges a run's records by the baseline file; with `update`, writes them down as the baseline instead.

    exact: the text of counted costs; None leaves that tier out. speed: how speeds are compared; None leaves it out.
    tolerance: share by which a time, or a ratio of measured values, may not rise. margin: share of a score that may be
    lost. reference: the variant that measured values are divided by. force: write a baseline though the machine was
    disturbed or a case failed. tell: who else hears of it. history: a file to which the numbers of a committed tree are
    added.
    """

    baseline: str
    exact: str | None = None
    update: bool = False
    force: bool = False
    tolerance: float = 0.05
    margin: float = 0.02
    reference: str = "self_attention"
    speed: Speed | None = None
    tell: Tell = field(default_factory=Tell)
    history: str | None = None

    def check(self, cases: Sequence[Case]) -> None:
        """BadInput, before anything is measured, for settings, files, worlds, machines or commits that do not fit."""
        self._check_shares()
        if self.speed:
            self.speed.check()
        if self.update:
            return
        baseline = Baseline.load(locate(self.baseline))
        if self.exact:
            exact.Exact.load(locate(self.exact))
        for case in cases:
            then = baseline.cases.get(name_of(case))
            if then and then.settings.get("world", case.world) != case.world:
                raise BadInput(
                    f"the baseline was taken in the world {then.settings['world']!r} and this run is in "
                    f"{case.world!r}: give world=, another gate.baseline=FILE, or write it anew with gate.update=true"
                )
        here = describe(cases[0].device if cases else "cpu")
        if self.speed and not self.speed.base and baseline.speed and not _same(here, baseline.machine):
            raise BadInput(
                f"the baseline's speeds are of {_make(baseline.machine)} and this is {_make(here)}: compare two "
                "commits here with gate.speed.base=COMMIT, write a baseline of this machine with gate.update=true, or "
                "leave speed out with gate.speed=null"
            )

    def __call__(self, records: Sequence[Record]) -> list[Verdict]:
        """A verdict for each reading of run or baseline; BadInput for a baseline that cannot be read or written."""
        self._check_shares()
        if self.update:
            return self._write(records)
        run, baseline = Baseline.of(records), Baseline.load(locate(self.baseline))
        verdicts = []
        for name in sorted(run.cases.keys() | baseline.cases.keys()):
            verdicts += self._case(name, run, baseline)
        if not run.cases and not baseline.cases:
            return [_unsure("baseline", "every case", "there is nothing to compare: give the sweep some cases")]
        if self.exact:
            verdicts += exact.judge(exact.Exact.of(records), exact.Exact.load(locate(self.exact)))
        verdicts = weighed([*verdicts, *self._speed(baseline)])
        if self.history:
            history.append(Path(self.history), history.results_of(records, verdicts))
        self.tell(verdicts)
        return verdicts

    def _speed(self, baseline: Baseline) -> list[Verdict]:
        if self.speed is None:
            return []
        if self.speed.base:
            return self.speed.against_base(self.tolerance)
        if baseline.speed:
            return self.speed.against_file(baseline.speed, self.reference, self.tolerance)
        why = "speed was not compared: the baseline keeps none, and gate.speed.base=COMMIT was not given"
        return [Verdict("speed", "speed", "pass", None, None, why, "speed")]

    def _write(self, records: Sequence[Record]) -> list[Verdict]:
        """Write the run down, unless a case of it failed or the machine was disturbed while it was measured."""
        failed = [record for record in records if record.status == "failed"]
        if failed and not self.force:
            raise BadInput(
                f"{name_of(failed[0].case)} failed ({failed[0].reason}), and what fails like a baseline would pass: "
                "mend it, or give gate.force=true"
            )
        noisy = [r.details["noisy"] for record in records for r in record.readings if r.details.get("noisy")]
        if noisy and not self.force:
            raise BadInput(
                f"the machine was disturbed while {len(noisy)} readings were taken ({noisy[0]}), and a baseline would "
                "carry that on: try again when it is quiet, or give gate.force=true"
            )
        baseline = Baseline.of(records, git(Path.cwd(), "config", "user.name") or "")
        if self.speed and not self.speed.base:
            if (busy := _disturbed()) and not self.force:
                raise BadInput(
                    f"{busy}, and speeds of a disturbed machine would be a baseline for all that follow: try again "
                    "when it is quiet, give gate.force=true, or leave them out with gate.speed=null"
                )
            baseline = replace(baseline, speed=self.speed.speeds(self.reference))
        baseline.save(locate(self.baseline))
        if self.exact:
            exact.Exact.of(records).save(locate(self.exact))
        return [Verdict("baseline", name_of(r.case), "pass", None, None, "written down") for r in records]

    def _case(self, name: str, run: Baseline, baseline: Baseline) -> list[Verdict]:
        """Verdicts on one case, which run or baseline may lack."""
        if name not in baseline.cases:
            return [_unsure("baseline", name, "the baseline lacks this case")]
        if name not in run.cases:
            return [_unsure("baseline", name, "the baseline has this case, the run does not")]
        now, then = run.cases[name], baseline.cases[name]
        verdicts = _status(name, now, then)
        for reading in sorted(now.readings.keys() | then.readings.keys()):
            if now.status == then.status or reading in now.readings:
                verdicts += self._reading(reading, name, run, baseline)
        return verdicts

    def _reading(self, reading: str, name: str, run: Baseline, baseline: Baseline) -> list[Verdict]:
        """The verdict on one reading; none where it has no direction or is its own reference."""
        mine, theirs = run.cases[name], baseline.cases[name]
        now, then = mine.readings.get(reading), theirs.readings.get(reading)
        if then is None:
            return [_unsure(reading, name, "the baseline lacks this reading", now)]
        if now is None:
            why = mine.dashes.get(reading, "it was not asked for")
            return [_unsure(reading, name, f"the baseline has this reading, the run does not ({why})", then=then)]
        if now.protocol != then.protocol:
            told = f"it was taken as {now.protocol!r}, the baseline as {then.protocol!r}"
            return [_unsure(reading, name, told, now, then)]
        if now.unit in PRICES or now.metric in PROJECTED:
            return [_price(name, now, then)]
        if differing := _differing(mine, theirs):
            return [_unsure(reading, name, f"the settings differ ({differing})", now, then)]
        if now.metric == "ingredients":
            return quality.ingredients(name, now, then)
        if now.unit == RATIO:
            return [self._rise(name, Ratio(value_of(now), (now,)), Ratio(value_of(then), (then,)), run, baseline)]
        if now.unit in MEASURED:
            taken = all(f"{now.name}_ratio" in side.readings for side in (mine, theirs))
            return [] if taken else self._measured(name, now, then, run, baseline)
        if now.better == "neither":
            return []
        changed = quality.changes(mine.readings.get("ingredients"), theirs.readings.get("ingredients"))
        return [quality.score(name, now, then, self.margin, changed)]

    def _measured(self, name: str, now: Reading, then: Reading, run: Baseline, baseline: Baseline) -> list[Verdict]:
        """Ratio to the reference variant now, over that ratio then."""
        model, variant, *rest = name.split(" ")
        if variant == self.reference:
            return []
        beside = " ".join([model, self.reference, *rest])
        references = [side.cases[beside].readings.get(now.name) for side in (run, baseline) if beside in side.cases]
        if len(references) < 2 or references[0] is None or references[1] is None:
            return [_unsure(now.name, name, f"there is no {self.reference} of the same run to divide by", now, then)]
        if not all(value_of(reading) > 0 for reading in (now, then, references[0], references[1])):
            return [_unsure(now.name, name, "a ratio to or of zero says nothing", now, then)]
        given = Ratio(value_of(now) / value_of(references[0]), (now, references[0]))
        expected = Ratio(value_of(then) / value_of(references[1]), (then, references[1]))
        return [self._rise(name, given, expected, run, baseline)]

    def _rise(self, name: str, now: Ratio, then: Ratio, run: Baseline, baseline: Baseline) -> Verdict:
        return rise(name, now, then, self.reference, self.tolerance, same_make(run.machine, baseline.machine))

    def _check_shares(self) -> None:
        if not (self.tolerance > 0 and self.margin > 0):
            raise BadInput(
                f"gate.tolerance={self.tolerance} and gate.margin={self.margin} are shares above zero: two runs of the "
                "same code differ by some, so give one, as in 0.05"
            )


def _disturbed() -> str:
    """What else keeps this machine busy, in a second in which we do nothing; empty if hardly anything."""
    load = Load.begin()
    time.sleep(1)
    return disturbance(load.end())


def _status(name: str, now: Entry, then: Entry) -> list[Verdict]:
    """A case that no longer ends as it did."""
    if now.status == then.status:
        return []
    why = f" ({now.reason})" if now.reason else ""
    told = f"the case ended {now.status}{why}, in the baseline {then.status}"
    worse = then.status == "ok" and now.status != "unavailable"
    return [Verdict("status", name, "regression" if worse else "inconclusive", None, None, told)]


def _price(name: str, now: Reading, then: Reading) -> Verdict:
    if now.value == then.value:
        return Verdict(now.name, name, "pass", now.value, then.value, "equal", "exact")
    told = f"{now.name} is {now.value} {now.unit}, the baseline {then.value}, and prices must be equal: {RENEW}"
    return Verdict(now.name, name, "regression", now.value, then.value, told, "exact")


def _differing(now: Entry, then: Entry) -> str:
    names = [name for name in then.settings if now.settings.get(name) != then.settings[name]]
    return ", ".join(f"{name} {now.settings.get(name)} against {then.settings[name]}" for name in names)


def _unsure(name: str, case: str, reason: str, now: Reading | None = None, then: Reading | None = None) -> Verdict:
    given, expected = now.value if now else None, then.value if then else None
    return Verdict(name, case, "inconclusive", given, expected, f"{reason}: {RENEW}", decide=RENEW)


def _same(here: dict[str, Any], there: dict[str, Any]) -> bool:
    return all(here.get(name) == there.get(name) for name in MAKE)


def _make(machine: dict[str, Any]) -> str:
    return " with ".join(str(machine[name]) for name in MAKE if machine.get(name)) or "an unknown machine"
