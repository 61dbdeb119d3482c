"""Every recipe of conf/train takes its steps on every kind of model, and its losses are those of its paper."""

import hashlib
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from hydra.utils import instantiate
from omegaconf import OmegaConf
from worlds import Noise

import conf
from deltaconv import DeltaConvBlock
from harness.distillation.losses import distance, min_snr, weighted
from harness.distillation.pair import Pair
from harness.distillation.recipe import Recipe
from harness.distillation.resume import Progress
from harness.distillation.samples import Samples, check_prediction
from harness.distillation.stages import EndToEnd
from harness.distillation.student import Student, ingredients
from harness.distillation.training import Line, Schedule
from harness.models.model import Model
from harness.records.case import BadInput, Resolution

pytestmark = pytest.mark.usefixtures("cache")
FILES = {path.stem: OmegaConf.load(path) for path in sorted((Path(conf.__path__[0]) / "train").glob("*.yaml"))}
RECIPES = [name for name, file in FILES.items() if str(file.get("_target_")).endswith("Recipe")]
BLOCK = partial(DeltaConvBlock.for_site, kernel_size=3)


def recipe_of(name: str, **settings: Any) -> Recipe:
    recipe: Recipe = instantiate(FILES[name], _convert_="all")
    return replace(recipe, **({"sizes": [32], "samples": 4, "batch": 2, "steps": 3} | settings))


def hash_of(model: Model) -> str:
    """Over all weights of all parts."""
    total = hashlib.sha256()
    for part, module in model.pipeline.components.items():
        for name, value in module.state_dict().items() if isinstance(module, torch.nn.Module) else ():
            total.update(f"{part} {name}".encode() + value.numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("kind", ["sd", "sdxl", "alpha"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_its_steps_and_touches_nothing_but_the_mixers(name: str, kind: str, tmp_path: Path) -> None:
    model = tiny_pipelines.model(kind, tmp_path / "teacher").load()
    recipe = recipe_of(name)
    student = Student("tiny", "deltaconv", ingredients(recipe, model.fingerprint(), BLOCK, "noise"))
    before = hash_of(model)
    recipe.run(student, model, BLOCK, Noise(), "cpu")  # type: ignore[arg-type]
    assert hash_of(model) == before
    tensors = student.checkpoint().tensors
    assert {".attn1." in tensor for tensor in tensors} == {True}
    assert all(value.isfinite().all() for value in tensors.values())
    assert student.cached.with_suffix(".md").read_text().startswith("# deltaconv of tiny\n")


def test_the_recipes_are_those_that_the_issue_names() -> None:
    assert {"paper", "released", "linfusion", "grafting", "lit", "ours"} <= set(RECIPES)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_is_that_of_diffusers(kind: str) -> None:
    schedule = DDPMScheduler(prediction_type=kind)
    times = torch.tensor([0, 10, 500, 999])
    snr = compute_snr(schedule, times)
    divisor = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones(4)}[kind]
    torch.testing.assert_close(min_snr(schedule, times, 5.0), snr.clamp(max=5) / divisor, rtol=1e-4, atol=1e-6)


def test_min_snr_of_noise_alone_is_finite() -> None:
    schedule = DDPMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    # min(SNR, gamma) / SNR is 1 below gamma, down to no signal at all.
    assert float(min_snr(schedule, torch.tensor([999]), 5.0)) == pytest.approx(1.0)


def test_distances_are_in_units_of_the_spread() -> None:
    made, wanted = torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.0])
    assert float(distance(made, wanted, 4.0)) == 0.5
    assert float(distance(made, wanted, 4.0, "l1")) == 0.5
    # Huber: half the square up to 1, then linear.
    assert float(distance(made, wanted, 4.0, "huber")) == 0.25
    assert float(distance(torch.tensor([6.0]), torch.tensor([0.0]), 4.0, "huber")) == 2.5
    assert float(weighted(made.view(2, 1), wanted.view(2, 1), torch.tensor([1.0, 0.5]))) == 1.0


def test_the_paper_adds_its_features_up_and_weighs_both_errors_by_time(tmp_path: Path) -> None:
    """L = L_z + 0.001 L_f by hand, on one batch."""
    model = tiny_pipelines.model("sd", tmp_path / "teacher").load()
    samples = Samples(model, Noise(), [Resolution(32, 32)], 4, 2, 0.0, 5)  # type: ignore[arg-type]
    pair = Pair(model, BLOCK, samples)
    stage = recipe_of("paper").stages[0]
    assert isinstance(stage, EndToEnd)
    with stage.opened(pair) as loss, torch.no_grad():
        found = loss(7)
    batch = samples(7)
    with torch.no_grad():
        taught: dict[str, torch.Tensor] = {}
        shown: dict[str, torch.Tensor] = {}
        for denoiser, kept in ((pair.teacher, taught), (pair.student, shown)):
            for path in pair.mixers:
                denoiser.get_submodule(path).register_forward_hook(
                    lambda module, args, output, path=path, kept=kept: kept.__setitem__(path, output)
                )
        expected, made = pair.teacher(**batch.arguments)[0], pair.student(**batch.arguments)[0]
    snr = compute_snr(model.noise_schedule, batch.times_B)
    weights = (5 / snr).clamp(max=1)[:, None, None, None]
    prediction = (weights * ((made - batch.target_BChw) ** 2 + (made - expected) ** 2)).mean()
    features = sum(((shown[path] - taught[path]) ** 2).mean() for path in taught)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, prediction + 0.001 * features, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sigma"])
def test_what_a_step_is_conditioned_on_is_what_the_pipeline_samples_with(kind: str, tmp_path: Path) -> None:
    model = tiny_pipelines.model(kind, tmp_path / "teacher").load()
    dropping = Samples(model, Noise(), [Resolution(32, 32)], 4, 2, 1.0, 5)(0).arguments  # type: ignore[arg-type]
    keeping = Samples(model, Noise(), [Resolution(32, 32)], 2, 2, 0.0, 5)  # type: ignore[arg-type]
    none, words = model.text_states([None]), model.text_states(["a cat", "a dog"])
    given = keeping(0).arguments["encoder_hidden_states"]
    torch.testing.assert_close(dropping["encoder_hidden_states"][:1], none["encoder_hidden_states"])
    assert all(any(torch.allclose(row, known, atol=1e-5) for known in words["encoder_hidden_states"]) for row in given)
    if kind == "sdxl":
        assert not dropping["encoder_hidden_states"].any()
        assert dropping["added_cond_kwargs"]["time_ids"][0].tolist() == [32, 32, 0, 0, 32, 32]


def test_a_prediction_without_a_loss_is_refused() -> None:
    class Strange:
        name = "strange"
        noise_schedule = type("Schedule", (), {"config": type("Config", (), {"prediction_type": "flow"})})

    with pytest.raises(BadInput, match="strange predicts 'flow', for which there is no loss: epsilon, v_prediction"):
        check_prediction(Strange())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"steps": 0}, r"train.steps=0 trains nothing: give a whole number above 0"),
        ({"steps": 2.5}, r"train.steps=2.5 trains nothing"),
        ({"minutes": math.inf}, r"train.minutes=inf trains nothing"),
        ({"minutes": math.nan}, r"train.minutes=nan trains nothing"),
        ({"minutes": -1.0}, r"train.minutes=-1.0 trains nothing"),
        ({"images": 0}, r"train.images=0 trains nothing"),
        ({"batch": 0}, r"train.batch=0 is not possible"),
        ({"samples": 0}, r"train.samples=0 is not possible"),
        ({"drop": 1.5}, r"train.drop=1.5 is not possible"),
        ({"seed": -1}, r"train.seed=-1 is not possible"),
    ],
)
def test_a_budget_that_trains_nothing_is_refused(budget: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        recipe_of("ours", **budget)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_a_small_budget_is_spent_to_its_last_step(steps: int) -> None:
    for name in ("ours", "paper", "released", "linfusion", "grafting", "lit"):
        assert sum(schedule.steps for schedule in recipe_of(name, steps=steps).schedules()) == steps
        assert sum(schedule.steps for schedule in recipe_of(name, steps=None, images=1).schedules()) == 1


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"learning_rate": -1e-3}, {"accumulate": 0}, {"save_every": 0}])
def test_a_schedule_of_no_training_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"schedule\.\w+=\S+ is not possible: give at least"):
        Schedule(**({"steps": 1, "learning_rate": 1e-3} | wrong))


def test_budgets_stretch_all_stages_alike() -> None:
    own = recipe_of("ours", steps=None).schedules()
    by_steps = recipe_of("ours", steps=40).schedules()
    by_images = recipe_of("ours", steps=None, images=80).schedules()
    by_minutes = recipe_of("ours", steps=None, minutes=4.0).schedules()
    share = own[0].steps / sum(schedule.steps for schedule in own)
    assert [schedule.steps for schedule in by_steps] == [schedule.steps for schedule in by_images]
    assert by_steps[0].steps == pytest.approx(40 * share, abs=1)
    assert by_minutes[0].minutes == pytest.approx(4 * share)
    told = [recipe_of("ours", steps=None, minutes=minutes).budget() for minutes in (1.0, 2.5)]
    assert told == ["1 minute", "2.5 minutes"]


def test_minutes_end_a_training_and_its_rates_decay_by_them() -> None:
    schedule = Schedule(10**9, 1e-3, warmup=10, minutes=1.0)
    assert schedule.done(5, elapsed_s=30.0) == 0.5
    assert schedule.share(100, elapsed_s=6.0) == pytest.approx(1.0, abs=0.05)
    assert schedule.share(100, elapsed_s=60.0) == pytest.approx(0.02, abs=0.01)
    assert not math.isnan(schedule.share(0))


def test_progress_names_the_last_step_where_one_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    Line("ours", Schedule(500, 1e-3)).show(Progress(step=100))
    assert "ours: step 100/500, loss" in capsys.readouterr().err
    Line("ours", Schedule(10**12, 1e-3, minutes=2.0), before=99).show(Progress(step=100, elapsed_s=60.0))
    told = capsys.readouterr().err
    assert "ours: step 100, loss" in told
    assert told.endswith("1.0 min left\n")
