"""How long the rest of a run will take: what kinds of work its cases hold, and how fast this machine does each kind.

Every case is predicted roughly, in seconds of five kinds of work. The times of finished cases give a factor for each
kind (least squares on logarithms, robust against disturbed cases, regularised towards 1), and so the time of the rest.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from scipy.optimize import least_squares

from harness.counted.flops import Body, body_of, cost_of
from harness.counted.site_calls import body_key
from harness.job import ON_WEIGHTS, Job, raised_by, runs, timed
from harness.judged.paired import Paired
from harness.measured.latency import ImageLatency
from harness.records.case import Resolution
from harness.trial import Trial

COUNTING_S, SIZE_S, MODEL_S = 0.1, 0.25, 1.45
"""Of a metric that is counted; how much longer the first case of a size takes, and the first of a model."""
RATE = 6e10
"""FLOPs a second."""
TIMED_CALLS = 2
"""Calls of a timed metric beyond its seconds: the first, and one that these cut short."""
IMAGE_S, CALL_S = 0.04, 0.005
"""Of an image beside its denoiser calls, and of a call of a batch, whatever it computes."""
TRAINING = 4
"""Calls of a training step: the teacher, the student, and its way back."""
PULL = 0.2
"""Weight of the regularisation, beside one of a case."""
SHORT_S = 0.5
"""Cases that take less count less."""
OUTLIER = 0.2
"""Share of its time by which a case may be off before it counts less."""

KINDS = 5
Work = tuple[float, float, float, float, float]
"""Predicted seconds: what is counted, what is timed for its seconds, FLOPs of calls, images by number, training."""


class Works:
    """Predicts the work of each case of a run, in the order of the run: what several need, the first of them does.

    whole: whether every denoiser call could be counted; one that could not is left out, and the record of its case says
    why.
    """

    def __init__(self) -> None:
        self._bodies: dict[object, Body] = {}
        self._known: set[object] = set()
        self.whole = True

    def work(self, job: Job) -> Work:
        case = job.case
        running = [metric for metric in (job.metrics[name] for name in case.metrics) if runs(metric)]
        timing = [metric for metric in running if metric.needs != ON_WEIGHTS]
        calls = job.model.calls(case.steps, case.guidance)
        images = case.n if job.judged else 0
        if any(isinstance(metric, Paired) for metric in running) and not job.student.exact:
            images += case.n * self._first(("teacher's images", case.model, case.resolution))
        made = images * calls + sum(TIMED_CALLS * (calls if isinstance(m, ImageLatency) else 1) for m in timing)
        return (
            self._counting_s(job),
            sum(float(getattr(metric, "seconds", 1.0)) for metric in timing),
            made * self._flops(job) / RATE if made else 0.0,
            images * IMAGE_S + images / case.batch * calls * CALL_S,
            self.training_s(job) if job.trains and self._first(job.student) else 0.0,
        )

    def training_s(self, job: Job) -> float:
        assert job.recipe is not None
        sizes = job.recipe.resolutions(job.model)
        step_s = TRAINING * job.recipe.batch * sum(self._flops(job, size) for size in sizes) / len(sizes) / RATE
        schedules = job.recipe.schedules()
        bounds = [np.inf if schedule.minutes is None else 60 * schedule.minutes for schedule in schedules]
        return float(sum(min(s.last * s.accumulate * step_s, most) for s, most in zip(schedules, bounds, strict=True)))

    def _flops(self, job: Job, resolution: Resolution | None = None) -> float:
        """Of a denoiser call of a case, at its own size or another."""
        trial = replace(job, case=replace(job.case, resolution=resolution or job.case.resolution)).trial()
        found: list[float] = []
        if raised_by(lambda: found.append(self._counted(trial))) is not None:
            self.whole = False
        return sum(found)

    def _counted(self, trial: Trial) -> float:
        """FLOPs of a call; what the variants of a model have in common is counted once a size."""
        with trial.meta_denoiser() as (denoiser, arguments):
            if (key := body_key(trial)) not in self._bodies:
                self._bodies[key] = body_of(denoiser, arguments)
            return cost_of(denoiser, self._bodies[key]).total

    def _counting_s(self, job: Job) -> float:
        if not job.counted:
            return 0.0
        model, size = self._first(job.case.model), self._first((job.case.model, job.case.resolution))
        return (COUNTING_S + model * MODEL_S + size * SIZE_S) * len(job.counted)

    def _first(self, thing: object) -> bool:
        """Whether it has not been asked of this before."""
        new = thing not in self._known
        self._known.add(thing)
        return new


class Pace:
    """What the cases of a run take, corrected by those that are done."""

    def __init__(self, jobs: Sequence[Job], workers: int = 1) -> None:
        """workers: how many cases run side by side; one that times something runs alone."""
        self._jobs = {job.case.key: job for job in jobs}
        self._side_by_side = {key: 1 if timed(job) else workers for key, job in self._jobs.items()}
        self._works = Works()
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
        return self._works.whole

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
