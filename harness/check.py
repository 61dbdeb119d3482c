"""Faults that are found before the first case is measured: in a variant's settings, in weights, in a world's images."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from harness.distillation.recipe import Recipe, unteachable
from harness.features.world import World, untaught
from harness.job import ON_SHAPES, Job
from harness.models import weights
from harness.models.model import Model
from harness.records.case import BadInput
from harness.records.faults import no_memory
from harness.row import Row
from harness.seats.checkpoint import Weighted
from harness.seats.mixer import Unavailable
from harness.seats.surgery import Factory, seated, seating_of

Look = Callable[[], object]


def check(jobs: Iterable[Job], tell: Callable[[str], None]) -> None:
    """Raise BadInput for a fault that no case can do without mending; each model, variant and world is looked at once.

    tell: hears of a world that can teach no student; what needs no training is measured all the same.
    """
    looked: set[object] = set()
    for job in jobs:
        why = untaught(job.world) if job.judged and job.wanting and not job.untrained else ""
        if why and (job.case.world, "untaught") not in looked:
            looked.add((job.case.world, "untaught"))
            tell(f"{why}; only what needs no training is judged")
        for what, look in _looks(job):
            if what not in looked:
                looked.add(what)
                _unless_memory_is_short(look)


def check_trainings(rows: Iterable[Row], untrained: bool) -> None:
    """The same of rows that are trained and not measured. untrained: also from a teacher that nothing has trained."""
    for row in rows:
        assert row.recipe is not None
        if not row.recipe.wants(row.student):
            continue
        if not untrained and (why := unteachable(row.model, row.world)):
            raise BadInput(why)
        _check_files(row.model)
        _check_mixers(row, row.name, "fp32")
        row.recipe.resolutions(row.model)
        _check_training(row.world, row.recipe)


def _unless_memory_is_short(look: Look) -> None:
    """Look, and let it pass where memory is full: each case will say so in its record."""
    try:
        look()
    except Exception as error:
        if no_memory(error) is None:
            raise


def _looks(job: Job) -> Iterator[tuple[object, Look]]:
    """What is to be looked at for a job, by what it is of."""
    case = job.case
    if any(job.metrics[name].needs != ON_SHAPES for name in case.metrics):
        yield (case.model, "files"), lambda: _check_files(job.model)
    yield (case.model, case.mixer, case.weights), lambda: _check_mixers(job, case.variant, case.dtype)
    if job.judged:
        yield (case.model, case.steps), lambda: job.model.calls(case.steps, case.guidance)  # by a sampler that can
        yield case.world, lambda: job.world.prompts(case.prompt_count)  # it reads its files when it is first asked
        if job.trains and (recipe := job.recipe):
            yield (case.model, "sizes"), lambda: recipe.resolutions(job.model)
            yield (case.world, "training"), lambda: _check_training(job.world, recipe)


def _check_files(model: Model) -> None:
    """The headers of the model's files of weights."""
    if model.source is not None and model.source != weights.RANDOM:
        weights.check(weights.fetch(model.source, model.name))


def _check_mixers(one: Job | Row, variant: str, dtype: str) -> None:
    """A mixer for every site, on the meta device, with the published weights if there are any."""
    twin = one.model.on_meta(dtype)
    if seating := seating_of(twin.denoiser):
        seating.undo()
    try:
        with seated(twin.denoiser, _filled(one)):
            pass
    except Unavailable:
        return  # the record of each case says it
    except BadInput as error:
        raise BadInput(f"{error}{_preset(one.model, variant)}") from error
    except (TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise BadInput(f"{variant} cannot be made on {one.model.name} ({said}){_preset(one.model, variant)}") from error


def _filled(one: Job | Row) -> Factory:
    """The factory, with published weights where there are any: their shapes, since the meta device holds no values."""
    if one.student.published is None:
        return one.factory
    found = one.student.checkpoint()
    shapes = {name: value.to("meta") for name, value in found.tensors.items()}
    return Weighted(one.factory, replace(found, tensors=shapes))


def _preset(model: Model, variant: str) -> str:
    """Whose settings these are, where the model presets some of them, and what changes them."""
    name, preset = model.presets_of(variant)
    if not preset:
        return ""
    return (
        f" ({model.name} presets {', '.join(preset)} of {name}: catalog.variants.{variant}.{next(iter(preset))}=... "
        f"changes it on every model, catalog.models.{model.name}.presets.{name}={{}} drops them)"
    )


def _check_training(world: World, recipe: Recipe) -> None:
    """What students learn from, where a world can lack it."""
    look = getattr(world, "require_training", None)
    if look:
        look(recipe.samples)
