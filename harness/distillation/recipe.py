"""How a student is made from its teacher: a start, then stages, of which none trains anything but the mixers.

Budgets (`steps`, `images` seen or `minutes` of training) stretch or shorten all stages alike; the first that is used up
ends them. The files in `conf/train` say where a recipe is from.
"""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

import torch

from harness.distillation.alone import alone, announce
from harness.distillation.audience import Audience, Hearer
from harness.distillation.curve import Curve
from harness.distillation.informed_start import begin
from harness.distillation.pair import Pair
from harness.distillation.previews import Previews
from harness.distillation.processes import agreed, device_of, is_first, wait
from harness.distillation.resume import Progress
from harness.distillation.samples import Samples
from harness.distillation.stages import Stage
from harness.distillation.student import Student, cache_folder
from harness.distillation.telling import Telling
from harness.distillation.training import Schedule, train
from harness.features.world import World, untaught
from harness.models.model import Model
from harness.models.weights import RANDOM
from harness.records.case import BadInput, Resolution, at_least
from harness.records.files import writable
from harness.seats.surgery import Factory

UNLIMITED = 10**9  # steps of a stage that minutes alone end


@dataclass(frozen=True)
class Recipe:
    """Stages in their order, the data that they see, and how long they last.

    start: mixers begin as they are made (`made`), with closing maps by least squares (`closing`), or as well as what
    their teacher's attention does on average (`informed`). sizes: images' sizes in equal shares; None for the model's
    own. samples: how many images there are. drop: share of captions left out. steps, images, minutes: budgets in the
    place of the stages' own. on_demand: False trains nothing. force: train what is there again, once a run (`begun`).
    """

    stages: Sequence[Stage]
    start: Literal["made", "closing", "informed"] = "made"
    sizes: Sequence[int | str] | None = None
    samples: int = 8192
    batch: int = 32
    drop: float = 0.1
    seed: int = 5
    steps: int | None = None
    images: int | None = None
    minutes: float | None = None
    on_demand: bool = True
    force: bool = False
    begun: float = field(default_factory=time.time, repr=False, compare=False)

    def __post_init__(self) -> None:
        """BadInput for a budget or a number of samples that trains nothing."""
        for name in ("steps", "images", "minutes"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
            if value is not None and not (number and (name == "minutes" or value % 1 == 0)):
                kind = "number" if name == "minutes" else "whole number"
                raise BadInput(
                    f"train.{name}={value} trains nothing: give a {kind} above 0, or null for no such budget"
                )
        at_least(self, "train", samples=1, batch=1, seed=0, drop=0)
        if self.drop > 1:
            raise BadInput(f"train.drop={self.drop} is not possible: give a share of the captions, from 0 to 1")
        if self.stages and not any(stage.schedule.steps for stage in self.stages):
            raise BadInput("train.stages take no step: give one of them schedule.steps above 0")

    def wants(self, student: Student) -> bool:
        """Whether the student is to be trained: it is missing, or this run is told to train it anew and has not yet."""
        path = student.path
        return path is None or (self.force and path.stat().st_mtime < self.begun)

    def run(
        self,
        student: Student,
        model: Model,
        factory: Factory,
        world: World,
        device: str,
        audience: Audience | None = None,
    ) -> Path:
        """Train the student on the loaded model and keep it in the cache; returns its file.

        Of several runs that want one student the first trains it, and the others wait for it. audience: is told of the
        training while it goes on.
        """
        with alone(student):
            path = student.path
            if path is not None and not self.wants(student):
                return path
            if is_first():
                announce(student, self.budget())
            with self._heard(student, world, audience) as hearer:
                self._train(student, model, factory, world, device, hearer)
        wait()
        return student.cached

    def budget(self) -> str:
        """How long it trains, in words."""
        if self.minutes is not None:
            return f"{self.minutes:g} minute{'s' * (self.minutes != 1)}"
        steps = sum(schedule.last for schedule in self.schedules())
        return f"{steps} steps of {self.batch} images"

    def _heard(
        self, student: Student, world: World, audience: Audience | None
    ) -> AbstractContextManager[Hearer | None]:
        if audience is None or not is_first():
            return nullcontext()
        return audience.training(student, {"budget": self.budget(), "world": world.name})

    def _train(
        self, student: Student, model: Model, factory: Factory, world: World, device: str, hearer: Hearer | None
    ) -> None:
        model.load(device_of(device), "fp32")
        samples = Samples(model, world, self.resolutions(model), self.samples, self.batch, self.drop, self.seed)
        torch.manual_seed(self.seed)
        pair = Pair(model, factory, samples)
        telling = Telling(hearer, Previews(pair, world), pair.terms) if hearer is not None else None
        progress = Progress(elapsed_s=self._started(pair))
        work = cache_folder() / "unfinished" / student.key
        curve, schedules = Curve(pair, telling) if pair.learners else None, self.schedules()
        facts = {"world": world.name, "seed": str(self.seed)}
        for index, (stage, schedule) in enumerate(zip(self.stages, schedules, strict=True), start=1):
            name = f"{student.variant} of {student.model}, {stage.title} ({index} of {len(schedules)})"
            checkpoint, last = work / f"{index}.safetensors", 0.0
            if curve is not None and schedule.steps:
                images = self.batch * schedule.accumulate
                curve.opens(schedule.steps / sum(each.steps for each in schedules), images)
                with pair.learning() as module, stage.opened(pair) as loss:
                    setting = f"train.stages.{index - 1}.schedule"
                    last = train(module, loss, schedule, name, checkpoint, images, curve, progress, setting)
            facts[f"loss_{index}"] = f"{last:.5f}"
            progress = Progress(curve=progress.curve)
        if is_first():
            with writable(f"the student {student.cached}", "free space there, and the same command ends what is left"):
                if curve is not None:
                    facts |= curve.keep(progress, student.curve, {"key": student.key, "seed": self.seed})
                student.save(pair.mixers, student.cached, facts)
            shutil.rmtree(work, ignore_errors=True)

    def _started(self, pair: Pair) -> float:
        """Start the mixers; the seconds that it took, which are part of a budget of minutes."""
        begun = time.monotonic()
        if self.start != "made":
            begin(pair, imitate=self.start == "informed")
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return agreed(time.monotonic() - begun)

    def resolutions(self, model: Model) -> list[Resolution]:
        """The sizes of the images; BadInput for one that the model cannot do."""
        own = model.buckets or [model.layout.native(model.part)]
        sizes = list(own) if self.sizes is None else [Resolution.parse(size) for size in self.sizes]
        if not sizes:
            raise BadInput("train.sizes=[] leaves nothing to train on: give sizes, or null for the model's own")
        for size in sizes:
            model.check(size)
        return sizes

    def schedules(self) -> list[Schedule]:
        """The stages' schedules, stretched or shortened to the budget."""
        own = [stage.schedule for stage in self.stages]
        total = sum(schedule.steps for schedule in own)
        longest = min(self.steps or UNLIMITED, max(1, (self.images or UNLIMITED * self.batch) // self.batch))
        if longest == UNLIMITED and self.minutes is None:
            return own
        ends = [0, *(round(longest * done / total) for done in accumulate(schedule.steps for schedule in own))]
        return [
            replace(
                schedule,
                steps=end - begin,
                minutes=None if self.minutes is None else self.minutes * schedule.steps / total,
            )
            for schedule, (begin, end) in zip(own, pairwise(ends), strict=True)
        ]


def unteachable(model: Model, world: World) -> str:
    """Why no student of the model can learn from the world, or nothing."""
    if model.source == RANDOM:
        return (
            f"model {model.name} has random weights, which teach nothing: give catalog.models.{model.name}.source= a "
            "folder or a hub id, or untrained=true to train on them all the same"
        )
    return untaught(world)


def named(name: str, known: Mapping[str, Recipe], budget: Recipe) -> Recipe:
    """The recipe of a name such as `paper`, or `paper-6` with its seed: budget, sizes and demand are another's.

    BadInput for a name that is not known.
    """
    plain, _, seed = name.rpartition("-")
    if name in known:
        recipe = known[name]
    elif plain in known and seed.isdecimal():
        recipe = replace(known[plain], seed=int(seed))
    else:
        choice = ", ".join(sorted(known))
        raise BadInput(f"recipe {name!r} is not known: choose from {choice}, or give one a seed, as in paper-6")
    shared = ("steps", "images", "minutes", "sizes", "on_demand", "force", "begun")
    return replace(recipe, **{setting: getattr(budget, setting) for setting in shared})
