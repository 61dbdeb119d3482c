"""How long the rest of a run will take: what kinds of work its cases hold, and how fast this machine does each kind.

Every case is predicted in seconds of four kinds of work, roughly. What the finished cases took says how far each kind
is off on this machine (non-negative least squares, drawn towards the prediction), and so what the others will take.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from harness.job import ON_WEIGHTS, Job, runs

COUNTING_S = 0.7
"""Of a metric that is counted."""
PIXEL_S = 4e-6
"""Of a denoiser call, for each pixel of its image: half a GFLOP at 64 pixels, thirty GFLOPs a second."""
ATTENTION_PIXELS = 256**2
"""From here on attention, which is quadratic, outweighs the rest."""
TIMED_CALLS = 12
"""Calls of a metric that is timed, where they outlast its seconds."""
TRAINING = 4
"""Calls of a training step: the teacher, the student, and its way back."""
PULL = 0.3
"""How much a prediction weighs beside a case of one second."""

Work = tuple[float, float, float, float]
"""Predicted seconds: what is counted, what is timed by its seconds, what is timed by its calls, images and training."""


def work(job: Job) -> Work:
    """The work of a case, predicted in seconds."""
    case = job.case
    timed = [job.metrics[name] for name in case.metrics if name not in job.counted]
    timed = [metric for metric in timed if runs(metric) and metric.needs != ON_WEIGHTS]
    call_s = PIXEL_S * case.pixels * (1 + case.pixels / ATTENTION_PIXELS)
    images = case.n * job.model.calls(case.steps, case.guidance) if job.judged else 0
    return (
        COUNTING_S * len(job.counted),
        sum(2 * float(getattr(metric, "seconds", 1.0)) for metric in timed),
        TIMED_CALLS * call_s * len(timed),
        images * call_s + training_s(job),
    )


def training_s(job: Job) -> float:
    """Predicted seconds of training a missing student; none where there is none to train, or only on shapes."""
    if not job.trains or job.recipe is None:
        return 0.0
    sizes = job.recipe.resolutions(job.model)
    pixels = sum(size.pixels for size in sizes) / len(sizes)
    return TRAINING * PIXEL_S * pixels * job.recipe.batch * sum(schedule.steps for schedule in job.recipe.schedules())


class Pace:
    """What the cases of a run take, corrected by those that are done."""

    def __init__(self, jobs: Sequence[Job] = ()) -> None:
        self._rest: dict[str, Work] = {job.case.key: work(job) for job in jobs}
        self._done: list[tuple[Work, float]] = []

    def took(self, key: str, elapsed_s: float) -> None:
        """A case is done."""
        if (predicted := self._rest.pop(key, None)) is not None:
            self._done.append((predicted, elapsed_s))

    def left_s(self) -> float:
        """Seconds of the cases that are not done."""
        rest = np.array(list(self._rest.values())).reshape(-1, 4).sum(axis=0)
        return float(rest @ self._factors())

    def _factors(self) -> "np.ndarray":
        """How many times as long as predicted each kind of work takes here."""
        if not self._done:
            return np.ones(4)
        predicted = np.array([work for work, _ in self._done])
        taken = np.array([elapsed_s for _, elapsed_s in self._done])
        weight = 1 / np.sqrt(taken + 1)
        rows = np.vstack([predicted * weight[:, None], PULL * np.eye(4)])
        found: np.ndarray = nnls(rows, np.concatenate([taken * weight, PULL * np.ones(4)]))[0]
        return found
