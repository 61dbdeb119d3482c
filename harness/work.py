"""What a case will take, predicted in seconds of five kinds of work.

Before a run `forecast` sums them up, with what the store knows of denoiser calls; during it `time_left` corrects each
kind by the cases that are done.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.job import ON_WEIGHTS, Job, Metric, runs
from harness.judged.paired import Paired
from harness.measured.latency import ImageLatency
from harness.models.sampler import branches

COUNTING_S, SIZE_S, MODEL_S = 0.1, 0.25, 1.45
"""Of a metric that is counted; how much longer the first case of a size takes, and the first of a model."""
TIMED_CALLS = 2
"""Calls of a timed metric beyond its seconds: the first, and one that these cut short."""
IMAGE_S, CALL_S = 0.04, 0.005
"""Of an image beside its denoiser calls, and of a call of a batch, whatever it computes."""
TRAINING = 4
"""Calls of a training step: the teacher, the student, and its way back."""

KINDS = 5
Work = tuple[float, float, float, float, float]
"""Seconds: of what is counted, of what is timed for a set time, of denoiser calls, of images by number, of training."""


class Works:
    """Predicts the work of each case, in the order of the run: what several need, the first of them does.

    call_s: seconds of a denoiser call on one image, at the size of the job's case.
    """

    def __init__(self, call_s: Callable[[Job], float]) -> None:
        self._call_s = call_s
        self._known: set[object] = set()

    def work(self, job: Job) -> Work:
        case = job.case
        running = [metric for metric in (job.metrics[name] for name in case.metrics) if runs(metric)]
        timing = [metric for metric in running if metric.needs != ON_WEIGHTS]
        calls = job.model.calls(case.steps, case.guidance)
        images = case.n if job.judged else 0
        if any(isinstance(metric, Paired) for metric in running) and not job.student.exact:
            images += case.n * self._first(("teacher's images", case.model, case.resolution))
        call_s = self._call_s(job) if images or timing else 0.0
        return (
            self._counting_s(job),
            sum(float(getattr(metric, "seconds", 1.0)) for metric in timing),
            images * calls * call_s + sum(_beyond_s(metric, job, call_s) for metric in timing),
            images * IMAGE_S + images / case.batch * calls * CALL_S,
            self.training_s(job) if job.trains and self._first(job.student) else 0.0,
        )

    def training_s(self, job: Job) -> float:
        """Seconds in which the job's student is trained."""
        assert job.recipe is not None
        sizes = job.recipe.resolutions(job.model)
        calls_s = [self._call_s(replace(job, case=replace(job.case, resolution=size))) for size in sizes]
        step_s = TRAINING * job.recipe.batch * sum(calls_s) / len(sizes)
        schedules = job.recipe.schedules()
        bounds = [np.inf if schedule.minutes is None else 60 * schedule.minutes for schedule in schedules]
        return float(sum(min(s.last * s.accumulate * step_s, most) for s, most in zip(schedules, bounds, strict=True)))

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


def rows(metric: Metric, job: Job) -> int:
    """Images of the largest denoiser call that a metric makes: its own batch, or the case's where that is None."""
    if isinstance(metric, ImageLatency):
        return branches(job.model.layout, job.model.part, job.case.guidance)
    own = getattr(metric, "batch", 1)
    return job.case.batch if own is None else int(own)


def _beyond_s(metric: Metric, job: Job, call_s: float) -> float:
    """Of the calls that a timed metric makes beyond its seconds; at most its patience."""
    case = job.case
    calls = job.model.calls(case.steps, case.guidance) if isinstance(metric, ImageLatency) else rows(metric, job)
    return min(TIMED_CALLS * calls * call_s, float(getattr(metric, "patience", np.inf)))
