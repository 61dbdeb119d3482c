"""Students: named by what makes them, trained in two stages, kept, and nearer to the teacher than untrained ones."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from test_training import Stopped
from worlds import Noise

from baselines import LinFusionAttention
from harness.distillation.recipe import Recipe
from harness.distillation.stages import EndToEnd, Layerwise
from harness.distillation.student import Student, cache_folder, ingredients
from harness.distillation.training import Schedule
from harness.records.case import BadInput, Resolution
from harness.seats.checkpoint import Checkpoint, Weighted
from harness.seats.surgery import seated

pytestmark = pytest.mark.usefixtures("cache")
QUICK = Schedule(steps=12, learning_rate=3e-3, warmup=2, average=0.5, precision="fp32", save_every=5)
FEW = Schedule(steps=2, learning_rate=1e-4, precision="fp32")
DATA = {"sizes": [32], "samples": 8, "batch": 4}
RECIPE = Recipe([Layerwise(QUICK), EndToEnd(FEW)], **DATA)
FACTORY = partial(LinFusionAttention.for_site, inherit=False)


@pytest.fixture(params=["sd", "sigma"])
def model(request, tmp_path):
    return tiny_pipelines.model(request.param, tmp_path / "teacher")


def gap(model, factory) -> float:
    """Mean squared distance of the student's prediction from the teacher's."""
    arguments = model.example(Resolution(32, 32))
    with torch.no_grad():
        wanted = model.denoiser(**arguments)[0]
        with seated(model.denoiser, factory):
            made = model.denoiser(**arguments)[0]
    return float(((made - wanted) ** 2).mean())


def student_of(model) -> Student:
    return Student(model.name, "linfusion", ingredients(RECIPE, model.fingerprint(), FACTORY, "noise"))


def test_a_student_is_kept_and_is_nearer_to_its_teacher_than_an_untrained_one(model):
    student = student_of(model)
    assert not student.available
    RECIPE.run(student, model, FACTORY, Noise(), "cpu")
    assert student.available
    torch.manual_seed(RECIPE.seed)
    untrained = gap(model, FACTORY)
    assert gap(model, Weighted(FACTORY, student.checkpoint())) < untrained


def test_distillation_leaves_the_teacher_as_it_was(model):
    before = {name: value.clone() for name, value in model.load().denoiser.state_dict().items()}
    RECIPE.run(student_of(model), model, FACTORY, Noise(), "cpu")
    after = model.denoiser.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module._forward_hooks for module in model.denoiser.modules())


def test_a_run_stopped_in_its_second_stage_takes_no_step_of_the_first_again(model, monkeypatch):
    unbroken = student_of(model)
    RECIPE.run(unbroken, model, FACTORY, Noise(), "cpu")
    wanted = unbroken.checkpoint()
    unbroken.cached.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(EndToEnd, "opened", stopped)
        with pytest.raises(Stopped):
            RECIPE.run(student_of(model), model, FACTORY, Noise(), "cpu")
    monkeypatch.setattr(Layerwise, "opened", losing)
    RECIPE.run(student_of(model), model, FACTORY, Noise(), "cpu")
    found = student_of(model).checkpoint()
    assert found.header | {"minutes": ""} == wanted.header | {"minutes": ""}
    assert all(torch.equal(found.tensors[name], value) for name, value in wanted.tensors.items())
    assert not list((cache_folder() / "unfinished").rglob("*.safetensors"))


def test_a_training_that_goes_wrong_keeps_no_student_and_names_what_to_set(model, monkeypatch):
    monkeypatch.setattr(EndToEnd, "opened", without_a_number)
    told = "the loss became nan by step 1 .*, with train.stages.1.schedule.learning_rate=5e-05$"
    with pytest.raises(BadInput, match=told):
        RECIPE.run(student_of(model), model, FACTORY, Noise(), "cpu")
    assert not student_of(model).available


@contextmanager
def without_a_number(stage, pair):
    yield lambda step: sum(weight.sum() for weight in pair.mixers[next(iter(pair.mixers))].parameters()) * float("nan")


def stopped(*given):
    raise Stopped


@contextmanager
def losing(*given):
    yield stopped


def test_the_name_of_a_student_changes_with_whatever_made_it():
    def key(recipe=RECIPE, weights="abc", factory=FACTORY, world="noise"):
        return Student("tiny", "linfusion", ingredients(recipe, weights, factory, world)).key

    others = [
        key(recipe=Recipe([Layerwise(QUICK), EndToEnd(QUICK)], **DATA)),
        key(weights="abd"),
        key(factory=partial(LinFusionAttention.for_site, inherit=True)),
        key(world="shapes"),
    ]
    assert len({key(), *others}) == 5
    on_demand = replace(RECIPE, on_demand=False)
    assert key(recipe=on_demand) == key()


def test_a_file_of_another_recipe_is_not_taken_for_the_student(model, tmp_path):
    student = student_of(model)
    RECIPE.run(student, model, FACTORY, Noise(), "cpu")
    other = Student(model.name, "linfusion", student.ingredients + " ")
    Path(other.cached).parent.mkdir(parents=True, exist_ok=True)
    student.cached.rename(other.cached)
    assert not other.available


def test_every_mixer_of_a_student_gets_its_own_weights(model):
    model.load()
    with seated(model.denoiser, FACTORY) as seats:
        mixers = {path: seat.mixer for path, seat in seats.items()}
    tensors = {f"{path}.{name}": value for path, mixer in mixers.items() for name, value in mixer.state_dict().items()}
    with seated(model.denoiser, Weighted(FACTORY, Checkpoint("memory", tensors))) as seats:
        for path, seat in seats.items():
            own = seat.mixer.state_dict()
            assert all(torch.equal(own[name], value) for name, value in mixers[path].state_dict().items())
