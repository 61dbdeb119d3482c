"""The metrics on whole trials: what they read, what they refuse, and what the report and a profile make of it."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_pipelines
import torch
from torch import Tensor

import reports
from baselines import DepthwiseConvolution, GlobalPooling, SelfAttention
from deltaconv import DeltaConvBlock
from harness.distillation.student import Student
from harness.locality.influence import influence
from harness.locality.metric import READINGS, Locality
from harness.locality.profile import settled
from harness.locality.sensitivity import Sensitivity
from harness.locality.stand_ins import IdentityMap, MeanMap, mean_maps
from harness.models.model import Model
from harness.records.case import BadInput, Case, Resolution
from harness.records.record import Reading, Record
from harness.records.store import Store
from harness.seats.mixer import TokenMixer
from harness.seats.surgery import seated
from harness.seats.teacher import TeacherAttention
from harness.trial import Trial

BLOCK = partial(DeltaConvBlock.for_site, kernel_size=3, scales=(1.0,))
QUICK: dict[str, Any] = {"images": 2, "times": (900, 100), "window": 3, "gradients": 4}


class World:
    """Prompts, and embeddings of images that hang on their brightness."""

    name = "noise"

    def __init__(self) -> None:
        self.clip = SimpleNamespace(images=self._embedded, texts=lambda prompts: torch.ones(len(prompts), 2))

    def prompts(self, n: int) -> list[str]:
        return ["a cat", "a dog", "red", ""][:n]

    @staticmethod
    def _embedded(images: Tensor) -> Tensor:
        return torch.stack([torch.ones(len(images)), images.mean(dim=(1, 2, 3))], dim=1)


@pytest.fixture(params=["sd", "sigma"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    return tiny_pipelines.model(request.param, tmp_path / "teacher")


@pytest.fixture
def sd(tmp_path: Path) -> Model:
    return tiny_pipelines.model("sd", tmp_path / "teacher")


def trial(model: Model, variant: str = "self_attention", factory: Any = SelfAttention.for_site, **said: Any) -> Trial:
    case = Case(
        model=model.name,
        variant=variant,
        resolution=Resolution(48, 32),
        metrics=("locality", "sensitivity"),
        world="noise",
        n=4,
        steps=4,
        guidance=3.0,
        seeds=(0,),
        batch=2,
        dtype="fp32",
        device="cpu",
        weights="abc",
    )
    student = Student(model.name, variant, exact=variant == "self_attention")
    return Trial(case, model, factory, World(), student, **({"untrained_allowed": True} | said))  # type: ignore[arg-type]


def stored(folder: Path, one: Trial, readings: list[Reading]) -> Path:
    Store(folder).put(Record(one.case, "ok", readings=tuple(readings)))
    return folder


def test_the_teacher_is_read_by_maps_and_gradients(model: Model, tmp_path: Path) -> None:
    one = trial(model)
    readings = list(Locality(**QUICK)(one))
    assert [(each.name, each.unit) for each in readings] == list(READINGS)
    assert all(each.value is not None for each in readings)
    sites = readings[1].details["sites"]
    for site in sites:
        assert site["mean"]["raw"][-1] == pytest.approx(1.0, rel=1e-4)
        assert len(site["times"]) == 2
        assert len(site["by_head"]) == site["heads"]
    folder = stored(tmp_path / "out", one, readings)
    page = reports.render(folder).read_text(encoding="utf-8")
    assert 'id="locality"' in page
    for sentence in ("Where a line crosses 80 % is the receptive field", "Orange is where the framed token looks"):
        assert sentence in page
    laid = settled({"kernel_size": "erf"}, str(folder / "profiles" / f"{model.name}.json"), model.name)
    assert laid["kernel_size"] == {site["path"]: site["mean"]["receptive_field"] for site in sites}


def test_a_variant_without_maps_is_read_by_gradients_alone(model: Model) -> None:
    readings = list(Locality(**QUICK)(trial(model, "deltaconv", BLOCK)))
    assert readings[0].value is not None
    assert {each.reason for each in readings[1:]} == {
        "deltaconv has no attention map: its gradients stand beside the teacher's"
    }


def test_an_untrained_student_says_nothing(sd: Model) -> None:
    for metric in (Locality(**QUICK), Sensitivity()):
        readings = list(metric(trial(sd, "deltaconv", BLOCK, untrained_allowed=False)))
        assert all(each.value is None and "has no trained weights on tiny" in each.reason for each in readings)


def test_the_moments_are_sampled_once_for_all_variants(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Locality(**QUICK)
    first = list(metric(trial(sd, "deltaconv", BLOCK)))
    monkeypatch.setattr(Model, "generate", lambda *given: pytest.fail("sampled again"))
    again = list(metric(trial(sd, "deltaconv", BLOCK)))
    assert len(again) == len(first)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"queries": [[0.5, 1.0]]}, r"query \[0.5, 1.0\] lies outside of the image: give \[down, right\]"),
        ({"queries": [[-0.1, 0.5]]}, r"query \[-0.1, 0.5\] lies outside of the image"),
        ({"window": 0}, "locality.window=0 is not possible: give at least 1"),
        ({"share": 1.5}, "locality.share=1.5 is not possible: give more than 0 and at most 1"),
        ({"cutoff": 0.9}, "cutoff=0.9 is no frequency of a grid"),
    ],
)
def test_settings_that_no_model_can_have_are_refused_at_once(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        Locality(**settings)


def test_what_a_model_does_not_have_is_refused_before_it_is_loaded(sd: Model) -> None:
    with pytest.raises(BadInput, match=r"window=13 is larger than the grid of tiny at 48x32 pixels, 12 tokens a side"):
        Locality(window=13).check(sd, Resolution(48, 32))
    with pytest.raises(BadInput, match=r"times=\[1000\] is not possible with tiny: give training timesteps from 0"):
        Locality(times=[1000], window=3).check(sd, Resolution(48, 32))
    Locality(window=12).check(sd, Resolution(48, 32))


def test_what_is_replaced_by_itself_loses_nothing_and_saves_nothing(sd: Model) -> None:
    (reading,) = Sensitivity(images=2, times=(900, 100), judged=0)(trial(sd, "twin", SelfAttention.for_site))
    assert reading.value == pytest.approx(0.0, abs=1e-9)
    for site in reading.details["sites"]:
        assert site["flops"]["variant"] == site["flops"]["self_attention"]
        assert site["flops"]["identity"] < site["flops"]["mean_map"] < site["flops"]["self_attention"]
        assert site["error"]["variant"] < 1e-9


def test_sensitivity_reads_sites_levels_and_all(model: Model, tmp_path: Path) -> None:
    one = trial(model, "deltaconv", BLOCK)
    (reading,) = Sensitivity(images=2, times=(900, 100), judged=2)(one)
    assert reading.value is not None
    paths = [site["paths"] for site in reading.details["sites"]]
    assert [path for (path,) in paths] == [site.path for site in model.sites()]
    levels = [path for level in reading.details["levels"] for path in level["paths"]]
    assert sorted(levels) == sorted(path for (path,) in paths)
    assert reading.details["whole"]["error"]["variant"] == reading.value
    assert set(reading.details["whole"]["clip_score"]) == {"change", "low", "high"}
    folder = stored(tmp_path / "out", one, [reading])
    assert 'id="sensitivity"' in reports.render(folder).read_text(encoding="utf-8")
    profile = str(folder / "profiles" / f"{model.name}.json")
    laid = settled({"flops": 1.0, "replacement": "deltaconv"}, profile, model.name)
    assert laid["sites"] == {"*": "self_attention"}
    with pytest.raises(BadInput, match="is met by no schedule"):
        settled({"flops": 0.001, "replacement": "deltaconv"}, profile, model.name)
    assert json.loads(Path(profile).read_text())["prices"]["deltaconv"].keys() == {path for (path,) in paths}


def test_the_teacher_has_nothing_to_replace_itself_with(sd: Model) -> None:
    (reading,) = Sensitivity()(trial(sd))
    assert reading.reason == "self_attention is the teacher itself: there is nothing to replace it with"


def test_a_mean_map_of_one_moment_is_that_moments_attention(sd: Model) -> None:
    from harness.locality.moments import Sampling, moments

    taken, _ = moments(sd.load(), Sampling(Resolution(48, 32), 4, 1.0, (500,)), ["a cat"], [0])
    wanted = taken[0].call(sd.denoiser)
    maps = mean_maps(sd.denoiser, taken)
    with seated(sd.denoiser, lambda site, attention: MeanMap(attention, maps[site.path])):
        assert torch.allclose(taken[0].call(sd.denoiser), wanted, atol=1e-4)
    with seated(sd.denoiser, lambda site, attention: TeacherAttention(attention)):
        assert torch.equal(taken[0].call(sd.denoiser), wanted)


def test_on_a_single_token_the_identity_map_is_attention(sd: Model) -> None:
    layer = sd.load().denoiser.get_submodule(sd.sites()[0].path)
    token_11C = torch.randn(1, 1, sd.sites()[0].channels)
    assert torch.allclose(IdentityMap(layer)(token_11C, (1, 1)), layer(token_11C), atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_convolution_is_felt_inside_its_kernel_alone(size: int) -> None:
    torch.manual_seed(0)
    felt_NN = felt(DepthwiseConvolution(8, size), (7, 9))
    rows, columns = (at.flatten() for at in torch.meshgrid(torch.arange(7), torch.arange(9), indexing="ij"))
    apart = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
    assert torch.equal(felt_NN > 0, apart <= size // 2)
    assert torch.allclose(felt_NN.sum(dim=1), torch.ones(63))


def test_pooling_feels_all_tokens_alike() -> None:
    assert torch.allclose(felt(GlobalPooling(8), (4, 5)), torch.full((20, 20), 1 / 20))


def felt(mixer: TokenMixer, grid: tuple[int, int]) -> Tensor:
    tokens_1NC = torch.randn(1, grid[0] * grid[1], 8)
    return influence(mixer, tokens_1NC, grid, torch.arange(grid[0] * grid[1]))
