"""A job: one case with all that it takes to measure it, as a value that plain pickle sends anywhere, and its running.

An experiment spells out its jobs once; from then on nobody asks it again. Everything in a job is inert until it is
run: a model or a world is loaded by the case that first needs it, and what stays loaded for the next case is a cache.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from harness.distillation.recipe import Recipe
from harness.distillation.student import Student
from harness.features.world import World
from harness.models import weights
from harness.models.model import Model
from harness.records.case import BadInput, Case
from harness.records.machine import describe, threads
from harness.records.record import TRACEBACK, Reading, Record, SiteAccount, Status
from harness.records.spelled import digest, spelled
from harness.records.store import PROMPTS
from harness.seats.mixer import TokenMixer, Unavailable
from harness.seats.surgery import Seat
from harness.trial import Trial

NEEDS = ("shapes", "device", "weights")
"""What a metric needs of a model, each including the one before: its shapes, a device to run on, trained weights."""
ON_SHAPES, ON_DEVICE, ON_WEIGHTS = NEEDS
KEPT_IMAGES = 8
NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


class Metric(Protocol):
    """Takes readings of a trial. One that needs no more than shapes, and runs all the same, says `runs = True`.

    One that cannot be taken of every model at every size has a `check(model, resolution)` that raises BadInput.
    """

    needs: ClassVar[str]

    def __call__(self, trial: Trial) -> Iterator[Reading]: ...


def runs(metric: Metric) -> bool:
    """Whether a metric runs anything on the device of the case, which takes time and memory there."""
    return bool(getattr(metric, "runs", metric.needs != ON_SHAPES))


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

    factory: makes the variant's mixers on this model, presets laid over. metrics: by name, those of the case.
    identities: of each metric, a digest of all that can change its readings. folder: of the store, where images go.
    recipe: how the student is trained if it is missing; None where it is not. untrained: take quality of an untrained
    student all the same. spared: why only what is counted is taken, if so.
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
    untrained: bool = False
    spared: str = ""

    def taking(self, metrics: tuple[str, ...]) -> "Job":
        """The same for some of its metrics."""
        return replace(self, case=replace(self.case, metrics=metrics))

    def trial(self) -> Trial:
        """The case come alive."""
        return Trial(self.case, self.model, self.factory, self.world, self.student, self.untrained)

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
        able = self.recipe is not None and not self.untrained and self.model.source != weights.RANDOM
        return able and self.judged and not (self.student.exact or self.student.available)


def run_case(job: Job) -> Record:
    """Measure one case and return its record; what goes wrong is in its status and reason.

    What is counted comes first: a device that is too small for the rest loses none of it. Where a metric fails, those
    after it are taken all the same, but not where memory or a needed package is missing.
    """
    begun = time.monotonic()
    origin = {"started": datetime.now(UTC).isoformat(timespec="seconds")} | describe(job.case.device)
    trial, taken = job.trial(), _Taken(origin)
    for name in job.counted:
        taken.take(job.metrics[name], trial)
    taken.attempt(lambda: taken.sites.extend(_accounts(trial, taken.readings)))
    if not job.spared:
        if job.trains:
            taken.attempt(lambda: _train(job))
        for name in (name for name in job.case.metrics if name not in job.counted):
            taken.take(job.metrics[name], trial)
        taken.attempt(lambda: taken.artifacts.update(_keep_images(trial, job)))
        taken.attempt(lambda: taken.note_again(trial))
    elif taken.status == "ok":
        taken.status, taken.reason = "out_of_memory", f"not tried: {job.spared}"
    return Record(
        case=job.case,
        status=taken.status,
        reason=taken.reason,
        readings=tuple(taken.readings),
        sites=tuple(taken.sites),
        notes=trial.notes(),
        artifacts=taken.artifacts | _keep_traceback(taken.tracebacks, job),
        machine={name: value for name, value in origin.items() if name != "started"},
        started=str(origin["started"]),
        elapsed_s=round(time.monotonic() - begun, 3),
        identities={name: job.identities[name] for name in job.case.metrics},
    )


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
        self._ended = False

    def take(self, metric: Metric, trial: Trial) -> None:
        """A metric's readings, all or none."""
        self.attempt(lambda: self.readings.extend([replace(reading, origin=self.origin) for reading in metric(trial)]))

    def note_again(self, trial: Trial) -> None:
        """What mixers say of a site once they have run there: the layout that was faster, for one."""
        seats = trial.seats() if self.sites else {}
        self.sites = [replace(site, note=seats[site.path].mixer.note(site.grid)) for site in self.sites]

    def attempt(self, action: Callable[[], object]) -> None:
        """Do it, unless a failure has ended the case before; note its own."""
        if self._ended:
            return
        try:
            action()
        except Unavailable as error:
            self._fail("unavailable", error, ends=True)
        except BadInput as error:
            self._fail("failed", error)
        except Exception as error:  # noqa: BLE001, whatever a case does, the sweep goes on
            if _is_out_of_memory(error):
                self._fail("out_of_memory", error, ends=True)
            else:
                self.tracebacks.append("".join(traceback.format_exception(error)))
                self._fail("failed", error)

    def _fail(self, status: Status, error: Exception, ends: bool = False) -> None:
        self._ended |= ends
        if self.status == "ok":
            said = " ".join(str(error).split())
            plain = isinstance(error, RuntimeError | ValueError | MemoryError) and said
            self.status, self.reason = status, said if plain else f"{type(error).__name__} {said}".strip()


def _train(job: Job) -> None:
    """Distil the missing student."""
    assert job.recipe is not None
    job.recipe.run(job.student, job.model, job.factory, job.world, job.case.device)


def _is_out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(words in str(error) for words in NO_MEMORY)


def _keep_images(trial: Trial, job: Job) -> dict[str, str]:
    """Write the first images of the case, one file a prompt, and their prompts; their names in the record.

    Beside the teacher's stand the real images of the same prompts, where the world has some.
    """
    from torchvision.utils import save_image

    if trial.made_images is None:
        return {}
    folder, prompts = job.folder / "images" / job.case.key, trial.prompts[:KEPT_IMAGES]
    folder.mkdir(parents=True, exist_ok=True)
    images = {f"image/{index}": image for index, image in enumerate(trial.made_images[:KEPT_IMAGES])}
    if trial.exact and trial.world.pictured:
        row = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        real = trial.references(len(row))
        images |= {f"real/{index}": real[row[prompt]] for index, prompt in enumerate(prompts)}
    kept = {}
    for name, image in images.items():
        path = folder / f"{name.replace('image/', '').replace('/', '_')}.png"
        save_image(image, path)
        kept[name] = path.relative_to(job.folder).as_posix()
    (folder / PROMPTS).write_text(json.dumps(prompts) + "\n", encoding="utf-8")
    return kept


def _keep_traceback(tracebacks: list[str], job: Job) -> dict[str, str]:
    """Where a case broke, in a file beside its record; one of an earlier try goes."""
    path = job.folder / "records" / f"{job.case.key}.txt"
    if not tracebacks:
        path.unlink(missing_ok=True)
        return {}
    path.write_text("\n".join(tracebacks), encoding="utf-8")
    return {TRACEBACK: path.relative_to(job.folder).as_posix()}


def _accounts(trial: Trial, readings: list[Reading]) -> Iterator[SiteAccount]:
    """The account of each site, where the FLOPs were counted."""
    for flops in (reading for reading in readings if reading.name == "flops_mixers"):
        yield from (_account(seat, flops) for seat in trial.seats().values())


def _account(seat: Seat, flops: Reading) -> SiteAccount:
    site, mixer = seat.site, seat.mixer
    height, width = flops.details["grids"][site.path]
    parameters = sum(weight.numel() for weight in mixer.parameters())
    price, note = flops.details["sites"][site.path], mixer.note((height, width))
    return SiteAccount(
        site.path, site.channels, site.heads, (height, width), type(mixer).__name__, price, parameters, note
    )
