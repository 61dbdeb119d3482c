"""A job: one case with all that measuring it takes, as a value that pickle can send to another process; `run_case`.

A job loads nothing until it is run: a model or a world is loaded by the first case that needs it, and stays loaded for
the next ones.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from harness.distillation.audience import Audience
from harness.distillation.recipe import Recipe, unteachable
from harness.distillation.student import Student
from harness.features.kept import Reader
from harness.features.world import World
from harness.kept_images import NOTHING_KEPT, Keeping
from harness.models.model import Model
from harness.records.case import BadInput, Case
from harness.records.faults import no_memory
from harness.records.files import write_whole
from harness.records.machine import describe, threads
from harness.records.record import CAPTIONS, TRACEBACK, Reading, Record, SiteAccount, Status
from harness.records.spelled import digest, spelled
from harness.seats.mixer import TokenMixer, Unavailable
from harness.trial import Trial

NEEDS = ("shapes", "device", "weights")
"""What a metric needs of a model, each including the one before: its shapes, a device to run on, trained weights."""
ON_SHAPES, ON_DEVICE, ON_WEIGHTS = NEEDS
TRAINING, REST = "training", "rest"
"""What a case takes time for beside its metrics, among a record's seconds."""
Ended = tuple[Status, str]
"""How a case ended, and why."""


class Metric(Protocol):
    """Takes readings of a trial. One that needs only shapes, but runs something on the device, says `runs = True`.

    One that cannot be taken of every model at every size has a `check(model, resolution)` that raises BadInput.
    """

    needs: ClassVar[str]

    def __call__(self, trial: Trial) -> Iterator[Reading]: ...


@runtime_checkable
class ReadsImages(Protocol):
    """A metric that looks at images. It names its readers: each image is made once and seen by those of all metrics."""

    def readers(self, trial: Trial) -> list[Reader]: ...


def runs(metric: Metric) -> bool:
    """Whether a metric runs anything on the device of the case, which takes time and memory there."""
    return bool(getattr(metric, "runs", metric.needs != ON_SHAPES))


def timed(job: "Job") -> bool:
    """Whether it times or weighs something, and so wants the machine for itself."""
    running = (job.metrics[name] for name in job.case.metrics if runs(job.metrics[name]))
    return job.ended is None and any(metric.needs != ON_WEIGHTS for metric in running)


def identity_of(case: Case, metric: Metric, world: Any) -> str:
    """A digest of all that can change a metric's readings of a case. world: the case's, spelled out."""
    made_of = {"case": case.identity(), "metric": spelled(metric)}
    if metric.needs == ON_WEIGHTS:
        made_of["world"] = world
    if runs(metric) and case.device.startswith("cpu"):
        made_of["threads"] = threads()
    return digest(made_of)


@dataclass(frozen=True)
class Job:
    """A case and what it is measured with.

    factory: makes the variant's mixers on this model, presets laid over. identities: of each metric, a digest of all
    that can change its readings. folder: of the store. recipe: how a missing student is trained; None where it is not.
    audience: hears of that. untrained: take quality of an untrained student all the same. ended: known before it runs
    that the case fails (its worker died, a smaller case filled memory): only its counted metrics are taken.
    """

    case: Case
    model: Model
    factory: partial[TokenMixer]
    world: World
    student: Student
    metrics: Mapping[str, Metric]
    identities: Mapping[str, str]
    folder: Path
    recipe: Recipe | None = None
    audience: Audience | None = None
    untrained: bool = False
    keeping: Keeping = NOTHING_KEPT
    ended: Ended | None = None

    def taking(self, metrics: tuple[str, ...]) -> "Job":
        """The same job for some of its metrics alone."""
        return replace(self, case=replace(self.case, metrics=metrics))

    def trial(self) -> Trial:
        """What its metrics are given."""
        parts = (self.case, self.model, self.factory, self.world, self.student)
        return Trial(*parts, self.untrained, self.keeping, self.readers)

    def readers(self, trial: Trial) -> list[Reader]:
        """The readers of all its metrics; a metric that cannot name its own fails when it is taken."""
        found: list[Reader] = []
        for metric in (self.metrics[name] for name in self.case.metrics):
            with suppress(Exception):
                found += metric.readers(trial) if isinstance(metric, ReadsImages) else []
        return found

    @property
    def counted(self) -> tuple[str, ...]:
        """The metrics of the case that run nothing on its device."""
        return tuple(name for name in self.case.metrics if not runs(self.metrics[name]))

    @property
    def judged(self) -> bool:
        """Whether a metric looks at images."""
        return any(self.metrics[name].needs == ON_WEIGHTS for name in self.case.metrics)

    @property
    def trains(self) -> bool:
        """Whether its student is missing, asked for, and trained before it is judged."""
        able = self.judged and self.wanting and not self.untrained
        return able and not unteachable(self.model, self.world)

    @property
    def wanting(self) -> bool:
        """Whether its student lacks weights that its recipe can give it."""
        own = not self.student.exact and self.student.published is None
        return own and self.recipe is not None and self.recipe.wants(self.student)


def run_case(job: Job) -> Record:
    """Measure one case and return its record; what goes wrong is in its status and reason.

    What is counted comes first, so that a device too small for the rest loses none of it. A metric that fails does not
    keep the others from being taken, unless memory or a needed package is missing.
    """
    trial, taken = job.trial(), _Taken(_origin(job))
    for name in job.counted:
        taken.take(name, job.metrics[name], trial)
    taken.attempt(lambda: taken.sites.extend(_accounts(trial, taken.readings)))
    if job.ended is None:
        if job.trains:
            taken.attempt(lambda: _train(job), TRAINING)
        for name in (name for name in job.case.metrics if name not in job.counted):
            taken.take(name, job.metrics[name], trial)
        taken.attempt(lambda: taken.artifacts.update(trial.kept_images()))
        taken.attempt(lambda: taken.note_again(trial))
        taken.attempt(trial.dismiss_judges)
    elif taken.status == "ok":
        taken.status, taken.reason = job.ended
    return _record(job, taken, trial.notes())


def lost(job: Job) -> Record:
    """The record of a case of which nothing could be taken."""
    assert job.ended is not None
    taken = _Taken(_origin(job))
    taken.status, taken.reason = job.ended
    return _record(job, taken, ())


def _origin(job: Job) -> dict[str, Any]:
    """When and on what it is measured."""
    return {"started": datetime.now(UTC).isoformat(timespec="seconds")} | describe(job.case.device)


def _record(job: Job, taken: "_Taken", notes: tuple[str, ...]) -> Record:
    seconds = dict.fromkeys(job.case.metrics, 0.0) | {name: round(spent, 3) for name, spent in taken.seconds.items()}
    return Record(
        case=job.case,
        status=taken.status,
        reason=taken.reason,
        readings=tuple(taken.readings),
        sites=tuple(taken.sites),
        notes=notes,
        artifacts=taken.artifacts | _keep_traceback(taken.tracebacks, job),
        machine={name: value for name, value in taken.origin.items() if name != "started"},
        started=str(taken.origin["started"]),
        elapsed_s=round(sum(seconds.values()), 3),
        seconds=seconds,
        identities={name: job.identities[name] for name in job.case.metrics},
    )


def raised_by(action: Callable[[], object]) -> Exception | None:
    """What an action raises, or None: a sweep goes on, whatever a user's own parts raise."""
    try:
        action()
    except Exception as error:  # noqa: BLE001, the one place where it is contained
        return error
    return None


class _Taken:
    """What has been taken of a case so far, and what has gone wrong."""

    def __init__(self, origin: dict[str, Any]) -> None:
        self.origin = origin
        self.readings: list[Reading] = []
        self.sites: list[SiteAccount] = []
        self.artifacts: dict[str, str] = {}
        self.status: Status = "ok"
        self.reason = ""
        self.tracebacks: list[str] = []
        self.seconds: dict[str, float] = {}
        self._ended = False

    def take(self, name: str, metric: Metric, trial: Trial) -> None:
        """A metric's readings, all or none."""
        looks = isinstance(metric, ReadsImages)
        self.attempt(lambda: self.readings.extend([self._stamped(one, trial, looks) for one in metric(trial)]), name)

    def _stamped(self, reading: Reading, trial: Trial, looks: bool) -> Reading:
        """With its origin and captions; a dash may heal where a missing student can be trained another time."""
        heals = reading.heals or (reading.value is None and not trial.trained)
        details = (
            reading.details | {CAPTIONS: trial.captions} if looks and reading.value is not None else reading.details
        )
        return replace(reading, origin=self.origin, heals=heals, details=details)

    def note_again(self, trial: Trial) -> None:
        """What mixers say of a site once they have run there: the layout that was faster, for one."""
        seats = trial.seats() if self.sites else {}
        self.sites = [replace(site, note=seats[site.path].mixer.note(site.grid)) for site in self.sites]

    def attempt(self, action: Callable[[], object], name: str = REST) -> None:
        """Do it, unless an earlier failure has ended the case; note a failure, and under `name` the seconds it took."""
        if self._ended:
            return
        begun = time.monotonic()
        error = raised_by(action)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
        if error is None:
            return
        if (full := no_memory(error)) is not None:
            self._fail("out_of_memory", full, ends=True)
        elif isinstance(error, Unavailable):
            self._fail("unavailable", error, ends=True)
        else:
            self._fail("failed", error)
            if not isinstance(error, BadInput):
                self.tracebacks.append("".join(traceback.format_exception(error)))

    def _fail(self, status: Status, error: BaseException, ends: bool = False) -> None:
        self._ended |= ends
        if self.status == "ok":
            said = " ".join(str(error).split())
            plain = isinstance(error, RuntimeError | ValueError | MemoryError) and said
            self.status, self.reason = status, said if plain else f"{type(error).__name__} {said}".strip()


def _train(job: Job) -> None:
    assert job.recipe is not None
    job.recipe.run(job.student, job.model, job.factory, job.world, job.case.device, job.audience)


def _keep_traceback(tracebacks: list[str], job: Job) -> dict[str, str]:
    """Write tracebacks to a file beside the record; without any, delete that of an earlier try."""
    path = job.folder / "records" / f"{job.case.key}.txt"
    try:
        if not tracebacks:
            path.unlink(missing_ok=True)
            return {}
        write_whole(path, "\n".join(tracebacks))
    except OSError:  # the disk is full; the record, which is shorter, may still find room
        return {}
    return {TRACEBACK: path.relative_to(job.folder).as_posix()}


def _accounts(trial: Trial, readings: list[Reading]) -> Iterator[SiteAccount]:
    """The account of each site, where the FLOPs were counted."""
    for flops in (reading for reading in readings if reading.name == "flops_mixers"):
        for seat in trial.seats().values():
            site, mixer = seat.site, seat.mixer
            height, width = flops.details["grids"][site.path]
            yield SiteAccount(
                path=site.path,
                channels=site.channels,
                heads=site.heads,
                grid=(height, width),
                mixer=type(mixer).__name__,
                flops=flops.details["sites"][site.path],
                parameters=sum(weight.numel() for weight in mixer.parameters()),
                note=mixer.note((height, width)),
            )
