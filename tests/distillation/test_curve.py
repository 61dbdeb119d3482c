"""A learning curve is of one batch, costs the training nothing, and goes on where a stopped run was."""

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from distil_by_itself import RECIPE
from torch import Tensor, nn
from worlds import Noise

from baselines import LinFusionAttention, SelfAttention
from harness.distillation.curve import Curve
from harness.distillation.pair import Pair
from harness.distillation.recipe import Recipe, named
from harness.distillation.resume import Progress
from harness.distillation.samples import Samples
from harness.distillation.shelf import students
from harness.distillation.student import Student, ingredients
from harness.distillation.training import Schedule, train
from harness.records.case import BadInput, Resolution

pytestmark = pytest.mark.usefixtures("cache")
FACTORY = partial(LinFusionAttention.for_site)


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return tiny_pipelines.model("sd", tmp_path / "teacher").load()


def pair_of(model: Any, factory: Any = FACTORY, seed: int = 5, batch: int = 4) -> Pair:
    return Pair(model, factory, Samples(model, Noise(), [Resolution.parse(32)], 8, batch, 0.1, seed))  # type: ignore[arg-type]


def trained(model: Any, recipe: Recipe) -> Student:
    student = Student("tiny", "linfusion", ingredients(recipe, model.fingerprint(), FACTORY, "noise"))
    recipe.run(student, model, FACTORY, Noise(), "cpu")  # type: ignore[arg-type]
    return student


def test_a_student_is_kept_with_its_curve_and_its_card_says_where_that_ends(model: Any) -> None:
    student = trained(model, RECIPE)
    curve = json.loads(student.curve.read_text())
    first, *_, last = points = curve["points"]
    assert (first["steps"], last["steps"], last["images"], last["share"]) == (0, 36, 144, 1.0)
    assert all(before["minutes"] < after["minutes"] for before, after in pairwise(points))
    assert last["features"] != first["features"]
    assert sum(curve["end"]["features"]) / 8 == pytest.approx(last["features"])
    card = student.cached.with_suffix(".md").read_text()
    assert "- world: noise\n- seed: 5\n" in card
    assert "- steps: 36\n- images: 144\n" in card
    assert f"- feature_error: {last['features']:.5f}" in card
    students(["remove", student.key])
    assert not student.curve.exists()


def test_every_recipe_and_seed_is_watched_on_the_same_batch(model: Any) -> None:
    one, other = (Curve(pair_of(model, SelfAttention.for_site, seed, batch)) for seed, batch in ((5, 4), (6, 2)))  # type: ignore[arg-type]
    size = Resolution.parse(32)
    drawn = [curve.samples(0, size) for curve in (one, other)]
    assert torch.equal(drawn[0].arguments["sample"], drawn[1].arguments["sample"])
    assert torch.equal(drawn[0].times_B, drawn[1].times_B)


def test_the_error_is_relative_to_what_the_teacher_gives_out(model: Any) -> None:
    pair = pair_of(model)
    for mixer in pair.mixers.values():  # whose outputs become nought
        for value in mixer.parameters():
            value.data.zero_()
    with torch.no_grad():
        features_B, _ = Curve(pair).errors()  # type: ignore[arg-type]
    # E[t^2] / Var[t] is 1 + mean^2 / variance.
    assert 1.0 <= float(features_B.mean()) < 3.0


class Looks:
    """A watch that wants to look at every moment, and waits before it has seen enough."""

    def __init__(self, module: nn.Linear) -> None:
        self.module = module
        self.seen: list[Tensor] = []

    def due(self, progress: Progress, done: float) -> bool:
        return True

    def look(self, progress: Progress) -> None:
        self.seen.append(self.module.weight.detach().clone())


def test_looking_shows_the_averaged_weights_and_changes_no_bit_of_a_training() -> None:
    schedule = Schedule(steps=30, learning_rate=0.1, warmup=3, average=0.9, precision="fp32")

    def ended(watched: bool) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(0)
        module = nn.Linear(3, 1)
        looks = Looks(module)
        train(
            module,
            lambda step: module(torch.ones(2, 3)).square().mean(),
            schedule,
            "line",
            watch=looks if watched else None,
        )
        return module.weight.detach(), looks.seen

    (plain, _), (watched, seen) = ended(False), ended(True)
    assert torch.equal(plain, watched)
    assert len(seen) == 31
    assert torch.equal(seen[-1], watched)


def test_looks_are_denser_at_the_beginning_and_fewer_where_they_are_dear(model: Any) -> None:
    def moments(look_s: float) -> list[float]:
        curve, progress, found = Curve(pair_of(model)), Progress(), []  # type: ignore[arg-type]
        curve.look_s = look_s
        curve.opens(1.0, 4)
        for step in range(1001):
            progress.step, progress.elapsed_s = step, step / 10
            if curve.due(progress, step / 1000):
                found.append(step / 1000)
                progress.curve.append(curve.now)
        return found

    cheap, dear = moments(0.0), moments(0.5)
    assert 24 <= len(cheap) <= 33
    assert sum(moment < 0.25 for moment in cheap) > 10
    # A twentieth of 100 s holds ten looks of half a second.
    assert len(dear) <= 11


def test_a_curve_goes_on_where_a_stopped_run_was(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.distillation.curve.COST", 1e6)
    student = trained(model, RECIPE)
    whole = json.loads(student.curve.read_text())["points"]
    students(["remove", student.key])
    saved = Curve.look

    def breaks(curve: Curve, progress: Progress) -> None:
        if curve.now["steps"] >= 19:
            raise KeyboardInterrupt
        saved(curve, progress)

    monkeypatch.setattr(Curve, "look", breaks)
    with pytest.raises(KeyboardInterrupt):
        trained(model, RECIPE)
    monkeypatch.setattr(Curve, "look", saved)
    points = json.loads(trained(model, RECIPE).curve.read_text())["points"]
    assert {"minutes"} == {
        name for one, other in zip(points, whole, strict=True) for name in one if one[name] != other[name]
    }


def test_a_recipe_of_a_name_has_its_seed_and_the_budget_of_another() -> None:
    budget = replace(RECIPE, minutes=2.0, seed=1, on_demand=False, sizes=[64])
    found = named("ours-7", {"ours": replace(RECIPE, batch=3)}, budget)
    assert (found.seed, found.batch, found.minutes, found.sizes, found.on_demand) == (7, 3, 2.0, [64], False)
    assert named("ours", {"ours": RECIPE}, budget).seed == RECIPE.seed
    for wrong in ("theirs", "ours-x", "theirs-7"):
        with pytest.raises(
            BadInput, match=rf"recipe '{wrong}' is not known: choose from lit, ours, or give one a seed"
        ):
            named(wrong, {"ours": RECIPE, "lit": RECIPE}, budget)
