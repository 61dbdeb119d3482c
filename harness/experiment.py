"""An experiment: what a configuration asks for, checked, and spelled out as cases. Plain Python, fit for a notebook."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from harness.distillation.recipe import Recipe
from harness.distillation.student import Student, ingredients, spelled
from harness.executor import Executor, InProcess
from harness.features.world import World
from harness.locality.profile import settled
from harness.models.model import DTYPES, Model
from harness.models.weights import at_hand
from harness.records.case import BadInput, Case, Resolution
from harness.records.record import Reading
from harness.regression.gate import Gate
from harness.seats import checkpoint
from harness.seats.mixer import TokenMixer
from harness.tracking.track import Tracker
from harness.trial import Trial

NEEDS = ("shapes", "device", "weights")
"""What a metric needs of a model, each including the one before: its shapes, a device to run on, trained weights."""

Value = TypeVar("Value", int, str)

SHAPES = "shapes"
"""The weights of a case that needs none: no file is read and no network asked."""
NOT_FETCHED = "not fetched"
"""The weights of a dry run's case that are not here: it downloads nothing to give them a name."""


class Metric(Protocol):
    """Takes readings of a trial. One that needs no more than shapes, and runs all the same, says `runs = True`.

    One that cannot be taken of every model at every size has a `check(model, resolution)` that raises BadInput.
    """

    needs: ClassVar[str]

    def __call__(self, trial: Trial) -> Iterator[Reading]: ...


def runs(metric: Metric) -> bool:
    """Whether a metric runs anything on the device of the case, which takes time and memory there."""
    return bool(getattr(metric, "runs", metric.needs != SHAPES))


@dataclass(frozen=True)
class Catalog:
    """What exists, by name: every file of the configuration groups of the same names."""

    models: Mapping[str, Model]
    variants: Mapping[str, partial[TokenMixer]]
    metrics: Mapping[str, Metric]
    worlds: Mapping[str, World]


@dataclass(frozen=True)
class Experiment:
    """Settings of one run; design section 5 lists them.

    resolutions: None lets each model take its own. steps, batch, dtype: one value, or a list for a case each.
    cpu_limits: model -> metric -> the longest image side in pixels at which the metric is taken on a CPU (0: never);
    None, no entry, or another device: taken everywhere. train: the recipe for missing students, or None to train
    nothing. untrained: let quality be taken of untrained students, which has to be said in so many words.
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
    n: int = 64
    steps: int | Sequence[int] = 20
    guidance: float = 4.0
    seeds: Sequence[int] = (0,)
    batch: int | Sequence[int] = 16
    dtype: str | Sequence[str] = "fp32"
    device: str = "cpu"
    train: Recipe | None = None
    untrained: bool = False
    gate: Gate | None = None
    tracker: Tracker | None = None
    executor: Executor = field(default_factory=InProcess)
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Raise BadInput for the first setting that cannot be used."""
        _known("model", self.models, self.catalog.models)
        _known("variant", self.variants, self.catalog.variants)
        _known("metric", self.metrics, self.catalog.metrics)
        if self.resolutions is not None:
            _listed("resolutions", self.resolutions)
            if not self.resolutions:
                raise BadInput("resolutions=[] leaves nothing to do: give sizes, or null for each model's own")
        for setting in ("n", "guidance", "world", "device"):
            if isinstance(value := getattr(self, setting), Sequence) and not isinstance(value, str):
                raise BadInput(f"{setting}={value} is a list: give one value; steps, batch and dtype may be lists")
        _known("world", [self.world], self.catalog.worlds)
        for setting in ("n", "steps", "batch"):
            for value in _each(setting, getattr(self, setting)):
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise BadInput(f"{setting}={value} is not possible: give a whole number of at least 1")
        _listed("seeds", self.seeds)
        if not self.seeds or any(
            isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in self.seeds
        ):
            raise BadInput(f"seeds={list(self.seeds)} is not possible: give whole numbers of at least 0, such as [0,1]")
        for dtype in _each("dtype", self.dtype):
            if dtype not in DTYPES:
                raise BadInput(f"dtype {dtype!r} is not known: choose from {', '.join(DTYPES)}")
            _check_device(self.device, dtype)

    def cases(self) -> list[Case]:
        """Every case with at least one metric to take; the slow things (model, dtype, variant) change last."""
        cases = [
            replace(case, batch=batch, steps=steps)
            for model, dtype, variant in itertools.product(self.models, _each("dtype", self.dtype), self.variants)
            for resolution in self._resolutions(self.catalog.models[model])
            if (case := self._case(self.catalog.models[model], variant, resolution, dtype)).metrics
            for batch in _each("batch", self.batch)
            for steps in _each("steps", self.steps)
        ]
        return list(dict.fromkeys(cases))

    def trial(self, case: Case) -> Trial:
        """A case come alive."""
        model = self.catalog.models[case.model]
        factory = self.factory(case.model, case.variant)
        on_shapes = case.weights == SHAPES
        student = Student(case.model, case.variant) if on_shapes else self.student(case.model, case.variant)
        return Trial(case, model, factory, self.catalog.worlds[case.world], student, self.untrained)

    def factory(self, model: str, variant: str) -> partial[TokenMixer]:
        """What makes the variant's mixers on that model: the catalogue's factory with the model's presets for it.

        `published` among its settings says where its weights are, and is no setting of a mixer.
        """
        chosen = self.catalog.variants[variant]
        settings = {name: value for name, value in self._settings(model, variant).items() if name != "published"}
        return partial(chosen.func, *chosen.args, **settings)

    def _settings(self, model: str, variant: str) -> dict[str, Any]:
        """The catalogue's settings under the model's presets; `hybrid-50` has those of `hybrid`, if none of its own."""
        presets = self.catalog.models[model].presets
        own = presets.get(variant, presets.get(variant.partition("-")[0], {}))
        laid = overlaid(self.catalog.variants[variant].keywords, own)
        return settled(laid, self.catalog.models[model].profile, model)

    def student(self, model: str, variant: str) -> Student:
        """The student that stands for the variant on that model, trained or not."""
        factory, published = self.factory(model, variant), self._settings(model, variant).get("published")
        if _is_exact(factory):
            if published is not None:
                raise BadInput(f"{variant} is the teacher's own attention and takes no weights: leave out published=")
            return Student(model, variant, "", exact=True)
        if published is not None:
            made_of = ingredients(None, checkpoint.digest(published), factory, "published")
            return Student(model, variant, made_of, published=str(published))
        fingerprint = self.catalog.models[model].fingerprint()
        return Student(model, variant, ingredients(self.train, fingerprint, factory, self.world))

    def _resolutions(self, model: Model) -> list[Resolution]:
        sizes = model.resolutions if self.resolutions is None else [Resolution.parse(size) for size in self.resolutions]
        for size in sizes:
            model.check(size)
        return list(dict.fromkeys(sizes))

    def _case(self, model: Model, variant: str, resolution: Resolution, dtype: str) -> Case:
        """The case at the first batch and steps."""
        limits = (self.cpu_limits or {}).get(model.name, {}) if self.device.startswith("cpu") else {}
        longest = max(resolution.width, resolution.height)
        metrics = tuple(name for name in self.metrics if longest <= limits.get(name, longest))
        for name in metrics:
            if (check := getattr(self.catalog.metrics[name], "check", None)) is not None:
                check(model, resolution)
        needs = max((NEEDS.index(self.catalog.metrics[name].needs) for name in metrics), default=0)
        case = Case(
            model=model.name,
            variant=variant,
            resolution=resolution,
            metrics=metrics,
            world=self.world,
            n=self.n,
            steps=_each("steps", self.steps)[0],
            guidance=float(self.guidance),
            seeds=tuple(self.seeds),
            batch=_each("batch", self.batch)[0],
            dtype=dtype,
            device=self.device,
            weights=SHAPES,
            mixer=spelled(self.factory(model.name, variant)),
        )
        return replace(case, weights=self._weights(model, variant, NEEDS[needs]))

    def _weights(self, model: Model, variant: str, needs: str) -> str:
        """A name for the weights in force, by what they were made of, so that it is known before they are trained."""
        if needs == "shapes":
            return SHAPES
        published = self._settings(model.name, variant).get("published")
        if self.dry_run and not (at_hand(model.source) and (published is None or checkpoint.local(published))):
            return NOT_FETCHED
        if needs == "device":
            return model.fingerprint()
        student = self.student(model.name, variant)
        return model.fingerprint() if student.exact else f"{model.fingerprint()}+{student.key}"


def overlaid(settings: Mapping[str, Any], presets: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with presets in their place; of a factory among them (one of a hybrid's choices) those it is given."""
    laid = dict(settings)
    for name, preset in presets.items():
        own = settings.get(name)
        if isinstance(own, partial):
            laid[name] = partial(own.func, *own.args, **overlaid(own.keywords, preset))
        elif isinstance(own, Mapping) and any(isinstance(value, partial) for value in own.values()):
            laid[name] = overlaid(own, preset)
        else:
            laid[name] = preset
    return laid


def _known(kind: str, given: Sequence[str], known: Mapping[str, object]) -> None:
    _listed(f"{kind}s", given)
    if not given:
        raise BadInput(f"no {kind} was given: choose from {', '.join(sorted(known))}")
    for name in given:
        if name not in known:
            raise BadInput(f"{kind} {name!r} is not known: choose from {', '.join(sorted(known))}")


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


def _is_exact(factory: partial[TokenMixer]) -> bool:
    """Whether the factory's mixer is the teacher's own attention, which has nothing to learn."""
    mixer = getattr(factory.func, "__self__", None)
    return isinstance(mixer, type) and issubclass(mixer, TokenMixer) and mixer.exact
