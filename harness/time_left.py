"""How long the rest of a run will take, by how fast this machine does each kind of work that the cases hold.

The times of finished cases give a factor for each kind of predicted work (least squares on logarithms, robust against
disturbed cases, regularised towards 1), and so the time of the rest.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy.optimize import least_squares

from harness.counted.flops import Body, body_of, cost_of
from harness.counted.site_calls import body_key
from harness.job import Job, raised_by, timed
from harness.work import KINDS, Work, Works

RATE = 6e10
"""FLOPs a second, assumed until cases are done."""
PULL = 0.2
"""Weight of the regularisation, beside one of a case."""
SHORT_S = 0.5
"""Cases that take less count less."""
OUTLIER = 0.2
"""Share of its time by which a case may be off before it counts less."""


class CountedCalls:
    """Seconds of a denoiser call, by its FLOPs at the assumed rate; what the variants of a model share is counted once.

    whole: whether every call could be counted; one that could not takes no time here, and the record of its case says
    why.
    """

    def __init__(self) -> None:
        self._bodies: dict[object, Body] = {}
        self.whole = True

    def __call__(self, job: Job) -> float:
        found: list[float] = []
        if raised_by(lambda: found.append(self._flops(job))) is not None:
            self.whole = False
        return sum(found) / RATE

    def _flops(self, job: Job) -> float:
        trial = job.trial()
        with trial.meta_denoiser() as (denoiser, arguments):
            if (key := body_key(trial)) not in self._bodies:
                self._bodies[key] = body_of(denoiser, arguments)
            return cost_of(denoiser, self._bodies[key]).total


class Pace:
    """What the cases of a run take, corrected by those that are done."""

    def __init__(self, jobs: Sequence[Job], workers: int = 1) -> None:
        """workers: how many cases run side by side; one that times something runs alone."""
        self._jobs = {job.case.key: job for job in jobs}
        self._side_by_side = {key: 1 if timed(job) else workers for key, job in self._jobs.items()}
        self._calls = CountedCalls()
        self._works = Works(self._calls)
        self._taken: dict[str, float] = {}

    def took(self, key: str, elapsed_s: float) -> None:
        if key in self._jobs:
            self._taken[key] = elapsed_s

    def left_s(self) -> float:
        rest = [np.array(self._predicted[key]) / self._side_by_side[key] for key in self._jobs.keys() - self._taken]
        return float(sum(rest, np.zeros(KINDS)) @ self._factors())

    @property
    def whole(self) -> bool:
        """Whether nothing is missing from the time left."""
        return self._calls.whole

    def training_s(self, job: Job) -> float:
        return float(self._works.training_s(job) * self._factors()[-1])

    @cached_property
    def _predicted(self) -> dict[str, Work]:
        """Of each case; first asked for after a first case."""
        return {key: self._works.work(job) for key, job in self._jobs.items()}

    def _factors(self) -> "np.ndarray":
        """How many times as long as predicted each kind of work takes here."""
        if not self._taken:
            return np.ones(KINDS)
        predicted = np.array([self._predicted[key] for key in self._taken])
        taken = np.array(list(self._taken.values()))

        def off(logarithms: "np.ndarray") -> "np.ndarray":
            ratios = np.log((predicted @ np.exp(logarithms) + SHORT_S) / (taken + SHORT_S))
            return np.concatenate([ratios, PULL * logarithms])

        found: np.ndarray = np.exp(least_squares(off, np.zeros(KINDS), loss="soft_l1", f_scale=OUTLIER).x)
        return found
