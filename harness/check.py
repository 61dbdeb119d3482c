"""Faults that are found before the first case is measured: in a variant's settings, in weights, in a world's images."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from harness.features.world import untaught
from harness.job import ON_SHAPES, Job
from harness.models import weights
from harness.records.case import BadInput
from harness.records.faults import no_memory
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
        yield (case.model, "files"), lambda: _check_files(job)
    yield (case.model, case.mixer, case.weights), lambda: _check_mixers(job)
    if job.judged:
        yield (case.model, case.steps), lambda: job.model.calls(case.steps, case.guidance)  # by a sampler that can
        yield case.world, lambda: job.world.prompts(case.prompt_count)  # it reads its files when it is first asked
        if job.trains and (recipe := job.recipe):
            yield (case.model, "sizes"), lambda: recipe.resolutions(job.model)
            yield (case.world, "training"), lambda: _check_training(job)


def _check_files(job: Job) -> None:
    """The headers of the model's files of weights."""
    source = job.model.source
    if source is not None and source != weights.RANDOM:
        weights.check(weights.fetch(source, job.model.name))


def _check_mixers(job: Job) -> None:
    """A mixer for every site, on the meta device, with the published weights if there are any."""
    twin = job.model.on_meta(job.case.dtype)
    if seating := seating_of(twin.denoiser):
        seating.undo()
    try:
        with seated(twin.denoiser, _filled(job)):
            pass
    except Unavailable:
        return  # the record of each case says it
    except BadInput as error:
        raise BadInput(f"{error}{_preset(job)}") from error
    except (TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise BadInput(f"{job.case.variant} cannot be made on {job.case.model} ({said}){_preset(job)}") from error


def _filled(job: Job) -> Factory:
    """The factory, with published weights where there are any: their shapes, since the meta device holds no values."""
    if job.student.published is None:
        return job.factory
    found = job.student.checkpoint()
    shapes = {name: value.to("meta") for name, value in found.tensors.items()}
    return Weighted(job.factory, replace(found, tensors=shapes))


def _preset(job: Job) -> str:
    """Whose settings these are, where the model presets some of them, and what changes them."""
    variant, model = job.case.variant, job.case.model
    name, preset = job.model.presets_of(variant)
    if not preset:
        return ""
    return (
        f" ({model} presets {', '.join(preset)} of {name}: catalog.variants.{variant}.{next(iter(preset))}=... changes "
        f"it on every model, catalog.models.{model}.presets.{name}={{}} drops them)"
    )


def _check_training(job: Job) -> None:
    """What students learn from, where a world can lack it."""
    look = getattr(job.world, "require_training", None)
    if look and job.recipe:
        look(job.recipe.samples)
