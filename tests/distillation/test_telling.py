"""What is told of a training while it goes on is what happens in it, and changes no bit of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from distil_by_itself import RECIPE
from safetensors.torch import load_file
from torch import Tensor
from worlds import Noise

from baselines import LinFusionAttention
from harness.distillation.losses import Terms
from harness.distillation.previews import Previews
from harness.distillation.recipe import Recipe
from harness.distillation.student import Student, ingredients
from harness.distillation.telling import Telling

pytestmark = pytest.mark.usefixtures("cache")
FACTORY = partial(LinFusionAttention.for_site)
SHORT = replace(RECIPE, stages=RECIPE.stages[:1], start="made")


class Prompted(Noise):
    """With prompts to draw."""

    def prompts(self, n: int) -> list[str]:
        return [f"a cat {number}" for number in range(n)]


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.points: dict[int, dict[str, float]] = {}
        self.pictures: dict[int, Tensor] = {}
        self.listening, self.told = True, dict[str, str]()

    @contextmanager
    def training(self, student: Student, told: Mapping[str, str]) -> "Iterator[Listener]":
        self.told = dict(told)
        yield self

    def point(self, step: int, values: Mapping[str, float]) -> None:
        self.points[step] = dict(values)

    def picture(self, step: int, picture_3HW: Tensor) -> None:
        self.pictures[step] = picture_3HW


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return tiny_pipelines.model("sd", tmp_path / "teacher").load()


@pytest.fixture
def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and pictures, however long they take."""
    monkeypatch.setattr("harness.distillation.curve.COST", 1e6)
    monkeypatch.setattr("harness.distillation.previews.COST", 1e6)


def weights(model: Any, audience: Any, name: str, recipe: Recipe = RECIPE) -> dict[str, Tensor]:
    """What a training ends with, to the last bit of the file."""
    student = Student(name, "linfusion", ingredients(recipe, model.fingerprint(), FACTORY, "noise"))
    return load_file(recipe.run(student, model, FACTORY, Prompted(), "cpu", audience))  # type: ignore[arg-type]


def test_what_is_told_of_a_training_is_what_happens_and_changes_no_bit_of_it(model: Any, dear: None) -> None:
    listener = Listener()
    plain, heard = weights(model, None, "plain"), weights(model, listener, "heard")
    assert plain.keys() == heard.keys()
    assert all(torch.equal(plain[key], heard[key]) for key in plain)
    assert getattr(model.pipeline, model.part) is model.denoiser
    assert listener.told == {"budget": "36 steps of 4 images", "world": "noise"}
    shows_teacher_and_student(listener)
    holds_errors_terms_and_speed(listener)


def shows_teacher_and_student(listener: Listener) -> None:
    """As the student is at that time."""
    pictures = [picture for _, picture in sorted(listener.pictures.items())]
    assert len(pictures) >= 4
    assert max(listener.pictures) == 36
    assert {picture.shape for picture in pictures} == {(3, 4 * 34 + 2, 2 * 34 + 2)}  # 32 pixels, and 2 between them
    teachers, students = zip(*((picture[:, :, :34], picture[:, :, 36:68]) for picture in pictures), strict=True)
    assert all(torch.equal(teachers[0], each) for each in teachers)
    assert not torch.equal(students[0], students[-1])
    assert not torch.equal(teachers[-1][:, :, 2:], students[-1])


def holds_errors_terms_and_speed(listener: Listener) -> None:
    """Of all stages, by the step of the whole training."""
    first, *_, last = (values for _, values in sorted(listener.points.items()))
    assert first.keys() == {"features", "prediction", "minutes"}
    assert {"loss", "loss.output", "loss.feature"} <= last.keys()
    assert last["loss"] == pytest.approx(last["loss.output"] + last["loss.feature"])
    named = {name for values in listener.points.values() for name in values}
    assert {"loss.layers", "loss.task", "images_per_second"} <= named


def test_the_loss_is_told_every_few_seconds_and_less_often_in_a_long_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, listener, terms = [0.0], Listener(), Terms()
    monkeypatch.setattr("harness.distillation.telling.time.monotonic", lambda: now_s[0])
    telling = Telling(listener, None, terms)  # type: ignore[arg-type]
    terms.note(task=torch.tensor(2.0))
    for step in range(10_000):
        now_s[0] = float(step)
        telling.step({"steps": step, "minutes": step / 60, "images": 4 * step})
    told = sorted(listener.points)
    assert told[:3] == [10, 20, 30]
    assert told[-1] - told[-2] > 40
    assert listener.points[20] == {"minutes": 20 / 60, "loss.task": 2.0, "loss": 2.0, "images_per_second": 4.0}


def test_the_last_picture_has_its_share_of_the_time() -> None:
    previews = Previews(None, None)  # type: ignore[arg-type]

    def due(share: float) -> bool:
        return previews.due({"share": share, "minutes": 10 * share}, look_s=1.5)

    assert [due(share) for share in (0.01, 0.07, 0.1, 0.3)] == [False, True, False, True]
    previews.spent_s = previews.one_s = 15.0
    assert [due(share) for share in (0.6, 1.0)] == [False, True]


def test_a_short_training_is_not_kept_waiting_by_pictures(model: Any) -> None:
    listener = Listener()
    weights(model, listener, "tiny", SHORT)
    assert listener.points
    assert not listener.pictures


def test_a_picture_that_cannot_be_drawn_costs_a_sentence(
    model: Any, dear: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(type(model), "generate", lambda *_: 1 / 0)
    assert weights(model, Listener(), "tiny", SHORT)
    assert (
        "no preview of this training could be drawn (division by zero): it goes on without" in capsys.readouterr().err
    )


def test_nobody_listening_ends_the_pictures_and_not_the_training(model: Any, dear: None) -> None:
    deaf = Listener()
    deaf.listening = False
    assert weights(model, deaf, "tiny", SHORT)
    assert not deaf.pictures


def test_terms_are_means_over_what_came_lately() -> None:
    terms = Terms()
    for value in (1.0, 2.0):
        terms.note(one=torch.tensor(value))
    assert terms.values() == {"one": pytest.approx(1.02)}
    terms.forget()
    assert terms.values() == {}
