"""`metrics=[]` trains students and measures nothing: what cannot be trained is said before anything is made."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_identity import experiment

from harness.__main__ import main
from harness.console import Console
from harness.distillation.recipe import Recipe
from harness.distillation.training import Diverged
from harness.records.case import BadInput
from harness.run import run

pytestmark = pytest.mark.usefixtures("cache")


def trained(*settings: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, last line and stderr of a run that only trains."""
    out, err = io.StringIO(), io.StringIO()
    status = run(experiment("metrics=[]", "tracker=none", "++train.steps=3", *settings), Console(out, err))
    return status, json.loads(out.getvalue().splitlines()[-1]), err.getvalue()


HYBRID = ("models=[tiny_pixart]", "variants=[hybrid]")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([*HYBRID, "++catalog.variants.hybrid.share=0.5", "++catalog.variants.hybrid.order=deeep"], "order 'deeep' is"),
        ([*HYBRID, "++train.sizes=[63]"], "tiny_pixart cannot make 63 pixels"),
        (
            [*HYBRID, "++catalog.models.tiny_pixart.source=random"],
            r"tiny_pixart has random weights, which teach nothing: give catalog\.models\.tiny_pixart\.source=",
        ),
        (
            [*HYBRID, "++catalog.models.tiny_pixart.source=random", "++untrained=true"],
            r"give catalog\.models\.tiny_pixart\.config=pixart or pixart_512 or pixart_alpha, or catalog",
        ),
        ([*HYBRID, "world=laion"], "has nothing to distil a student on"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_training_is_announced(
    settings: list[str], sentence: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput, match=sentence):
        trained(*settings)
    assert "training one" not in capsys.readouterr().err
    assert not cache.exists()


def test_a_caption_without_an_image_among_others_teaches_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "1.png")
    (tmp_path / "metadata.jsonl").write_text('{"text": "red"}\n{"text": "red", "file_name": "1.png"}\n')
    world = ["world=own", f"++catalog.worlds.own.training_folder={tmp_path}", "++train.samples=2"]
    with pytest.raises(BadInput, match="line 1 is a caption without an image: nothing can be distilled on it"):
        trained(*HYBRID, *world)


def test_a_hybrid_that_replaces_nothing_is_its_teacher_and_is_not_trained(cache: Path) -> None:
    nothing = "++catalog.variants.hybrid.share=0"
    status, last, said = trained(*HYBRID, nothing)
    assert (status, last["students"]) == (0, {})
    assert "nothing here has anything to learn" in said
    assert not cache.exists()
    (job,) = experiment(*HYBRID, nothing, "metrics=[attributes]", "resolutions=[64]", "tracker=none").jobs()
    assert job.student.exact
    assert not job.trains


def test_a_dry_run_tells_how_long_the_trainings_take(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measured.rates.matrix_rate", lambda device, dtype: 1e9)
    chosen = ["models=[tiny_sd]", "variants=[self_attention,linfusion]", "++dry_run=true", "++train.steps=null"]
    status, last, _ = trained(*chosen, "++train.minutes=1")
    assert (status, last["cases"], last["kept"], last["predicted_s"]) == (0, 1, 0, 60.0)
    assert not cache.exists()
    monkeypatch.setattr(Recipe, "wants", lambda self, student: False)
    _, last, _ = trained(*chosen, "++train.minutes=1")
    assert (last["cases"], last["kept"], last["predicted_s"]) == (1, 1, 0.0)
    _, last, _ = trained(*chosen, "variants=[self_attention]")
    assert (last["cases"], last["predicted_s"]) == (0, 0)


def test_a_training_that_goes_wrong_keeps_no_other_from_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(self: Recipe, student: Any, *given: Any) -> Path:
        if student.variant == "deltaconv":
            raise Diverged("the loss became nan")
        return Path(student.variant)

    monkeypatch.setattr(Recipe, "run", diverges)
    status, last, said = trained("models=[tiny_sd]", "variants=[deltaconv,linfusion]")
    assert (status, last["students"], last["failed"]) == (1, {"tiny_sd linfusion": "linfusion"}, 1)
    assert "the loss became nan" in said


@pytest.mark.parametrize("setting", ["steps=2.5", "images=abc", "minutes=inf", "minutes=nan"])
def test_a_budget_that_is_none_is_named_as_it_was_typed(
    setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["harness", "models=[tiny_sd]", "metrics=[]", "tracker=none", f"train.{setting}"])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"train.{setting} is not possible: give a")
