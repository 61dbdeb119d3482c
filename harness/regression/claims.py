"""Claims: sentences of the README, each with what is measured to see whether it still holds.

A claim compares a reading of one case, or its ratio to another case's, with a limit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.job import Job, run_case
from harness.records.case import BadInput, Case
from harness.records.record import Reading, Record
from harness.records.typed import reader
from harness.regression.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Claim:
    """A sentence and its measure: `reading` of the case `of` ("sd15 deltaconv 1024"), over that of `over` if given.

    metric: takes the reading, which bears its name if no other is given. slow: verified on demand alone. settings:
    others of the experiment.
    """

    say: str
    metric: str
    of: str
    reading: str = ""
    over: str | None = None
    at_most: float = math.inf
    at_least: float = -math.inf
    slow: bool = False
    settings: dict[str, Any] | None = None

    @property
    def cases(self) -> list[str]:
        """The case, and what it is laid over."""
        return [self.of, self.over] if self.over else [self.of]

    def judge(self, of: Reading, over: Reading | None) -> Verdict:
        """Whether it holds; inconclusive where the interval holds the limit."""
        if of.value is None or (over is not None and not over.value):
            why = of.reason or (over.reason if over else "") or "a ratio to zero says nothing"
            return Verdict(self.say, self.of, "inconclusive", None, None, why, decide="a number that can be taken")
        value, low, high = _ratio(of, over)
        limit = self.at_most if math.isfinite(self.at_most) else self.at_least
        asked = f"at most {limit:g}" if limit == self.at_most else f"at least {limit:g}"
        beside = f" over {self.over}" if self.over else ""
        told = f"{of.name} of {self.of}{beside} is {value:.4g} ({low:.4g} to {high:.4g}), claimed is {asked}"
        outcome: Outcome = "regression"
        if self.at_least <= low and high <= self.at_most:
            outcome = "pass"
        elif self.at_least <= high and low <= self.at_most:
            outcome = "inconclusive"
        return Verdict(self.say, self.of, outcome, value, limit, told, decide="a quieter machine, or more samples")


@dataclass(frozen=True)
class Claims:
    """A file of claims, and the README's table, which is written from the file `table`, and that from the `store`.

    labels: names of the table's rows by variant, in their order. slow: verify the slow claims as well.
    """

    claims: Sequence[Mapping[str, Any]]
    table: str = "pkg://conf/gate/table.json"
    readme: str | None = "README.md"
    labels: Mapping[str, str] | None = None
    store: str = "outputs/quality"
    slow: bool = False

    def check(self, cases: Sequence[Case]) -> None:
        """BadInput for a file without claims, or one that is none."""
        list(self._each())

    def __call__(self, records: Sequence[Record]) -> list[Verdict]:
        """Refuse: claims take measurements of their own (`verify`)."""
        raise BadInput("claims are verified by `python -m harness gate claims`, and are no gate of a sweep")

    def verify(self, experiment: Any) -> Iterator[Verdict]:
        """A verdict for each claim, as it is measured; slow ones are left out unless they are asked for."""
        chosen = [claim for claim in self._each() if self.slow or not claim.slow]
        asked = [[_job(experiment, claim, case) for case in claim.cases] for claim in chosen]
        taken: dict[object, Record] = {}
        for claim, jobs in zip(chosen, asked, strict=True):
            found = []
            for job in jobs:
                if (job.case, claim.metric) not in taken:
                    taken[job.case, claim.metric] = run_case(job)
                found.append(_reading(taken[job.case, claim.metric], claim))
            yield claim.judge(found[0], found[1] if claim.over else None)

    def left_out(self) -> int:
        """Claims that are slow, and not asked for."""
        return 0 if self.slow else sum(claim.slow for claim in self._each())

    def _each(self) -> Iterator[Claim]:
        if not self.claims:
            raise BadInput("the file of claims is empty, so nothing would be verified: add a claim to it")
        for number, given in enumerate(self.claims, 1):
            kind: Any = Claim
            try:
                claim: Claim = reader(kind)(given, "")
            except ValueError as error:
                needs = "it has say, metric, of, and at_most or at_least"
                raise BadInput(f"claim {number} is none ({error}): {needs}") from error
            if math.isfinite(claim.at_most) == math.isfinite(claim.at_least):
                raise BadInput(f"claim {claim.say!r} needs one of at_most and at_least, as a number")
            for case in claim.cases:
                if len(case.split()) != 3:
                    raise BadInput(f"claim {claim.say!r} names the case {case!r}: write MODEL VARIANT SIZE")
            yield claim


def _job(experiment: Any, claim: Claim, case: str) -> Job:
    """What takes that metric alone of that case; BadInput where the claim's settings make of it none, or several."""
    model, variant, size = case.split()
    wanted = {"models": [model], "variants": [variant], "resolutions": [size], "metrics": [claim.metric]}
    settings = (claim.settings or {}) | wanted | {"cpu_limits": None}
    unknown = sorted(settings.keys() - {each.name for each in fields(experiment)})
    jobs: list[Job] = [] if unknown else replace(experiment, **settings).jobs()
    if len(jobs) != 1:
        why = f"sets {unknown[0]}, which no run has" if unknown else f"makes {len(jobs)} cases of {case!r}"
        raise BadInput(f"claim {claim.say!r} {why}: give settings that leave one case, such as {{n: 500}}")
    return jobs[0]


def _reading(record: Record, claim: Claim) -> Reading:
    """The claim's reading, or a dash that says why it is not there."""
    name = claim.reading or claim.metric
    found = record.reading(name)
    why = record.reason or f"{claim.metric} takes no reading {name}"
    return found or Reading(claim.metric, name, None, "1", "neither", "none", reason=why)


def _ratio(of: Reading, over: Reading | None) -> tuple[float, float, float]:
    """Value and interval; intervals of a ratio add in squares of logarithms."""
    assert of.value is not None
    if over is None:
        return of.value, of.value if of.low is None else of.low, of.value if of.high is None else of.high
    assert over.value is not None
    value, half = of.value / over.value, math.hypot(of.log_half_width or 0.0, over.log_half_width or 0.0)
    return value, value * math.exp(-half), value * math.exp(half)
