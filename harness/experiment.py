"""An experiment: what a configuration asks for, checked, and spelled out as jobs. Plain Python, fit for a notebook."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from harness.distillation.recipe import Recipe, named
from harness.distillation.student import Student
from harness.executor import Executor, InProcess
from harness.features.world import World, untaught
from harness.job import NEEDS, ON_DEVICE, ON_SHAPES, ON_WEIGHTS, Job, Metric, identity_of
from harness.kept_images import Keeping, how_many
from harness.lacking import lacking
from harness.models import sampler
from harness.models.model import DTYPES, Model
from harness.models.sampler import DEFAULT
from harness.records.case import BadInput, Case, Resolution, is_whole
from harness.records.machine import processor
from harness.records.record import Record
from harness.records.spelled import settings_of, spelled
from harness.regression.gate import NoGate
from harness.regression.verdict import Verdict
from harness.row import Row
from harness.seats.mixer import TokenMixer
from harness.tracking.track import NoTracker, Tracker

Value = TypeVar("Value", int, str)

LARGEST_SEED = 10**12
"""An image's own is made of it and of the number of its prompt, and has to fit into 64 bits."""
SHAPES = "shapes"
"""The weights of a case that needs none: no file is read and no network asked."""
NOT_FETCHED = "not fetched"
"""The weights of a dry run's case that are not here: it downloads nothing to give them a name."""
UNTRAINED = "untrained"
"""In the place of a student's key: what nothing has trained, and nothing will train for this case."""


@dataclass(frozen=True)
class Catalog:
    """What exists, by name: every file of the configuration groups of the same names; of `train` those of students."""

    models: Mapping[str, Model]
    variants: Mapping[str, partial[TokenMixer]]
    metrics: Mapping[str, Metric]
    worlds: Mapping[str, World]
    recipes: Mapping[str, Recipe] = field(default_factory=dict)


class Judge(Protocol):
    """Refuses a run that cannot be judged before it begins, and gives verdicts when it is over."""

    def check(self, cases: Sequence[Case]) -> None: ...

    def __call__(self, records: Sequence[Record]) -> list[Verdict]: ...


@dataclass(frozen=True)
class Experiment:
    """Settings of one run.

    resolutions: None lets each model take its own. steps, batch, dtype: one value, or a list for a case each.
    cpu_limits: model -> metric -> the longest image side in pixels at which a CPU takes the metric (0: never); no limit
    where there is no entry, nor on other devices. train: the recipe for missing students, None to train nothing; with
    `metrics=[]` training is all that is done. recipes: several instead, each a row of its own for every variant that
    learns: `paper`, or `paper-6` with another seed, on the budget of `train`. untrained: let quality be taken of
    untrained students. again: measure anew what the store has. sampler: of every model; None leaves each its own. keep:
    how many images of a case become files, or `all`.
    """

    catalog: Catalog
    models: Sequence[str]
    variants: Sequence[str]
    metrics: Sequence[str]
    resolutions: Sequence[int | str] | None = None
    name: str = "experiment"
    out: str | Path = "outputs/experiment"
    cpu_limits: Mapping[str, Mapping[str, int]] | None = None
    world: str = "shapes"
    n: int = 60
    steps: int | Sequence[int] = 10
    guidance: float = 3.0
    sampler: str | None = None
    seeds: Sequence[int] = (0,)
    batch: int | Sequence[int] = 16
    dtype: str | Sequence[str] = "fp32"
    device: str = "cpu"
    train: Recipe | None = None
    recipes: Sequence[str] = ()
    untrained: bool = False
    again: bool = False
    keep: int | str = 8
    gate: Judge = field(default_factory=NoGate)
    tracker: Tracker = field(default_factory=NoTracker)
    executor: Executor = field(default_factory=InProcess)
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Raise BadInput for the first setting that cannot be used."""
        _known("model", self.models, self.catalog.models)
        _known("variant", self.variants, self.catalog.variants)
        if not self.metrics and self.train is not None and not self.train.on_demand:
            raise BadInput("metrics=[] only trains, which train.on_demand=false forbids: leave out one of the two")
        if self.metrics or self.train is None:
            _known("metric", self.metrics, self.catalog.metrics)
        if self.resolutions is not None:
            _listed("resolutions", self.resolutions)
            if not self.resolutions:
                raise BadInput("resolutions=[] leaves nothing to do: give sizes, or null for each model's own")
        for setting in ("n", "guidance", "world", "device"):
            if isinstance(value := getattr(self, setting), Sequence) and not isinstance(value, str):
                raise BadInput(f"{setting}={value} is a list: give one value; steps, batch and dtype may be lists")
        _known("world", [self.world], self.catalog.worlds)
        for model, limits in (self.cpu_limits or {}).items():
            _known("model", [model], self.catalog.models)
            _known("metric", list(limits) or self.metrics, self.catalog.metrics)
        self._recipes()
        for setting in ("n", "steps", "batch"):
            for value in _each(setting, getattr(self, setting)):
                if not is_whole(value, 1):
                    raise BadInput(f"{setting}={value} is not possible: give a whole number of at least 1")
        if self.sampler is not None:
            sampler.known(self.sampler)
        how_many(self.keep)
        _listed("seeds", self.seeds)
        if not self.seeds or not all(is_whole(seed, 0) for seed in self.seeds):
            raise BadInput(f"seeds={list(self.seeds)} is not possible: give whole numbers of at least 0, such as [0,1]")
        if len(set(self.seeds)) < len(self.seeds) or max(self.seeds) > LARGEST_SEED:
            raise BadInput(f"seeds={list(self.seeds)} is not possible: give each once, and none above {LARGEST_SEED}")
        for dtype in _each("dtype", self.dtype):
            if dtype not in DTYPES:
                raise BadInput(f"dtype {dtype!r} is not known: choose from {', '.join(DTYPES)}")
            _check_device(self.device, dtype)

    def jobs(self) -> list[Job]:
        """Every case with at least one metric to take, once; the slow things (model, dtype, variant) change last."""
        rows = self.rows
        found = (
            job
            for name, dtype in itertools.product(self.models, _each("dtype", self.dtype))
            for row in rows
            if row.model.name == name
            for size in self._resolutions(row.model)
            for batch in _each("batch", self.batch)
            for steps in _each("steps", self.steps)
            for job in self._jobs(row, dtype, size, batch, steps)
        )
        jobs = list({job.case: job for job in found}.values())
        if not jobs:
            raise BadInput(
                "nothing is left to take: give other resolutions=, or cpu_limits=null if those leave no metric"
            )
        return jobs

    @cached_property
    def rows(self) -> list[Row]:
        """Each variant on each model, by each recipe."""
        found = []
        for name, variant in itertools.product(self.models, self.variants):
            row = Row(self._models[name], variant, self.catalog.variants[variant], self.train, self._world)
            taught = self._recipes() if self.recipes and row.learns else {}
            found += [replace(row, recipe=recipe, taught=name) for name, recipe in taught.items()] or [row]
        return found

    def _recipes(self) -> dict[str, Recipe]:
        """The recipes that are compared, on the budget of `train`; BadInput for one that is not known."""
        _listed("recipes", self.recipes)
        if self.recipes and self.train is None:
            raise BadInput(f"recipes={list(self.recipes)} has the budget of train, and train=null gives none")
        return {name: named(name, self.catalog.recipes, self.train) for name in self.recipes if self.train}

    @property
    def anew(self) -> bool:
        """Whether what the store has is measured again: a gate judges the code as it is, and no kept number."""
        judged = not isinstance(self.gate, NoGate)
        return self.again or judged or (self.train is not None and self.train.force)

    def lacking(self, job: Job, kept: Record | None) -> Job:
        """The job for those of its metrics that have to be taken, beside what the store keeps of its case."""
        return job if self.anew else lacking(job, kept, getattr(self.executor, "timeout_s", None))

    @cached_property
    def _models(self) -> dict[str, Model]:
        """The chosen models, with the chosen sampler."""
        found = {name: self.catalog.models[name] for name in self.models}
        if self.sampler is None:
            return found
        return {name: type(model)(**(settings_of(model) | {"sampler": self.sampler})) for name, model in found.items()}

    @cached_property
    def _keeping(self) -> Keeping:
        return Keeping(Path(self.out), how_many(self.keep), time.time() if self.anew else 0.0)

    @property
    def _world(self) -> World:
        return self.catalog.worlds[self.world]

    @cached_property
    def _spelled_world(self) -> Any:
        return spelled(self._world)

    def _resolutions(self, model: Model) -> list[Resolution]:
        sizes = model.resolutions if self.resolutions is None else [Resolution.parse(size) for size in self.resolutions]
        for size in sizes:
            model.check(size)
        return list(dict.fromkeys(sizes))

    def _jobs(self, row: Row, dtype: str, size: Resolution, batch: int, steps: int) -> Iterator[Job]:
        """The job of one case; none where a limit leaves it no metric."""
        limits = (self.cpu_limits or {}).get(row.model.name, {}) if self.device.startswith("cpu") else {}
        longest = max(size.width, size.height)
        metrics = {n: self.catalog.metrics[n] for n in self.metrics if longest <= limits.get(n, longest)}
        if not metrics:
            return
        for metric in metrics.values():
            if (look := getattr(metric, "check", None)) is not None:
                look(row.model, size)
        needs = NEEDS[max(NEEDS.index(metric.needs) for metric in metrics.values())]
        case = Case(
            model=row.model.name,
            variant=row.name,
            resolution=size,
            metrics=tuple(metrics),
            world=self.world,
            n=self.n,
            steps=steps,
            guidance=float(self.guidance),
            seeds=tuple(self.seeds),
            batch=batch,
            dtype=dtype,
            device=self.device,
            weights=self._weights(row, needs),
            mixer=row.mixer,
            config=row.config,
            processor=processor(self.device),
            sampler=row.model.sampler if row.model.sampler != DEFAULT else "",
        )
        taught = case.weights not in (SHAPES, NOT_FETCHED) and not case.weights.endswith(UNTRAINED)
        world = self._spelled_world if needs == ON_WEIGHTS else None
        yield Job(
            case=case,
            model=row.model,
            factory=row.factory,
            world=self._world,
            student=row.student if taught else Student(row.model.name, row.variant),
            metrics=metrics,
            identities={name: identity_of(case, metric, world) for name, metric in metrics.items()},
            folder=Path(self.out),
            recipe=row.recipe if row.recipe is not None and row.recipe.on_demand else None,
            audience=self.tracker.trainings(Path(self.out)),
            untrained=self.untrained,
            keeping=self._keeping,
        )

    def _weights(self, row: Row, needs: str) -> str:
        """A name for the case's weights, by what they are made of, so that it is known before they are trained."""
        if needs == ON_SHAPES:
            return SHAPES
        if self.dry_run and not row.at_hand:
            return NOT_FETCHED
        fingerprint = row.model.fingerprint()
        if needs == ON_DEVICE or row.student.exact:
            return fingerprint
        trained = row.student.available or not (self.untrained or untaught(self._world))
        return f"{fingerprint}+{row.student.key if trained else UNTRAINED}"


def _known(kind: str, given: Sequence[str], known: Mapping[str, object]) -> None:
    _listed(f"{kind}s", given)
    if not given:
        raise BadInput(f"no {kind} was given: choose from {', '.join(sorted(known))}")
    for name in given:
        if name not in known:
            raise BadInput(f"{kind} {name!r} is not known: choose from {', '.join(sorted(known))}")
        if (called := getattr(known[name], "name", name)) != name:  # records and remedies go by what it is called
            raise BadInput(f"{kind} {name!r} has name: {called}, and would be taken for that: write name: {name}")


def _listed(setting: str, given: object) -> None:
    """Raise BadInput for a single value where a list belongs: a name would be taken letter by letter."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise BadInput(f"{setting}={given} is not a list: write {setting}=[{given}]")


def _each(setting: str, value: Value | Sequence[Value]) -> Sequence[Value]:
    """The values of a setting that is one value or a list of them; BadInput for an empty list."""
    values: Sequence[Value] = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values:
        raise BadInput(f"{setting}=[] leaves nothing to do: give one value or a list of them")
    return values


def _check_device(name: str, dtype: str) -> None:
    from harness.models.opening import device_of, require

    require(device_of(name), DTYPES[dtype])
