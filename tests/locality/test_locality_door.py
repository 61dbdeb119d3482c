"""The door for plain scripts: tidy rows of a diffusers pipeline, which is afterwards as it was."""

from typing import Any

import pytest
import tiny_pipelines
import torch

import deltaconv
from harness.records.case import BadInput
from harness.seats.surgery import sites

SIZE = {"height": 32, "width": 48}


@pytest.fixture(params=["sd", "sdxl", "sigma"])
def pipe(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


def made(kind: str) -> Any:
    torch.manual_seed(0)
    pipe: Any = tiny_pipelines.MAKERS[kind]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def called(pipe: Any) -> dict[str, Any]:
    more = {"use_resolution_binning": False, "clean_caption": False} if hasattr(pipe, "transformer") else {}
    return SIZE | more


def test_rows_are_tidy_and_the_pipeline_is_as_it_was(pipe: Any) -> None:
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    before = {path: id(module) for path, module in denoiser.named_modules()}
    rows = deltaconv.locality(pipe, ["a cat", "red"], times=(900, 100), steps=3, **called(pipe))
    assert {path: id(module) for path, module in denoiser.named_modules()} == before
    assert not denoiser._forward_pre_hooks
    assert list(rows.columns) == ["site", "height", "width", "scope", "which", "quantity", "window", "value"]
    assert rows.site.unique().tolist() == [site.path for site in sites(denoiser)]
    assert not rows.duplicated(["site", "scope", "which", "quantity", "window"]).any()
    whole = rows[(rows.quantity == "raw_mass") & (rows.window == 2 * rows[["height", "width"]].max(axis=1) - 1)]
    assert whole.value.tolist() == pytest.approx([1.0] * len(sites(denoiser)), rel=1e-5)
    assert set(rows.scope) == {"mean", "time", "head"}
    assert rows[rows.scope == "time"].which.nunique() == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prompts": []}, "prompts=[] is no list of prompts"),
        ({"prompts": "a cat"}, "prompts='a cat' is no list of prompts"),
        ({"times": [1000]}, "times=[1000] is not possible: give training timesteps from 0 (clean) to 999 (noise)"),
        ({"times": []}, "times=[] is not possible"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        deltaconv.locality(made("sd"), **({"prompts": ["a cat"]} | settings))
    assert str(error.value).startswith(sentence)


def test_a_variant_without_maps_is_refused() -> None:
    pipe = made("sd")
    deltaconv.apply(pipe, kernel_size=3)
    with pytest.raises(BadInput, match="a DeltaConvBlock is seated in this pipeline, which has no attention map"):
        deltaconv.locality(pipe, ["a cat"])


def test_a_model_without_maps_is_refused() -> None:
    pipe = made("sd")
    pipe.unet = torch.nn.Sequential(torch.nn.Linear(1, 1))
    with pytest.raises(BadInput, match="there are no attention maps: Sequential has no self-attention layer"):
        deltaconv.locality(pipe, ["a cat"])


def test_a_denoiser_alone_is_refused() -> None:
    with pytest.raises(BadInput, match="a denoiser alone is not enough: give the pipeline"):
        deltaconv.locality(made("sd").unet, ["a cat"])
