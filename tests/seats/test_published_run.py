"""Published weights through the harness: a setting of a variant, in a case's identity, accounted for in its record."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import test_published
import tiny_pipelines
import torch
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from safetensors.torch import save_file
from test_run import Brightness, World, streams

import baselines
from baselines import NeighborhoodAttention, ReLULinearAttention, SelfAttention
from deltaconv import DeltaConvBlock
from harness.__main__ import catalog
from harness.experiment import Catalog, Experiment
from harness.models.unet import UNetModel
from harness.records.case import BadInput
from harness.records.store import Store
from harness.run import run

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "blocks.safetensors"
    save_file(test_published.convfusion(tiny_pipelines.unet(), triton=True), path)
    return path


@pytest.fixture
def made(tmp_path: Path) -> Any:
    source = str(tiny_pipelines.save("sd", tmp_path / "teacher"))

    def make(variant: partial[Any], presets: dict[str, Any] | None = None, **settings: Any) -> Experiment:
        model = UNetModel("tiny", source=source, presets={"blocks": presets or {}})
        known = Catalog({"tiny": model}, {"blocks": variant}, {"brightness": Brightness()}, {"noise": World()})  # type: ignore[dict-item]
        chosen: dict[str, Any] = {"models": ["tiny"], "variants": ["blocks"], "metrics": ["brightness"]}
        chosen |= {"resolutions": [32], "world": "noise", "out": tmp_path / "out", "n": 1, "steps": 2, "batch": 1}
        return Experiment(known, **(chosen | settings))

    return make


def test_a_case_with_published_weights_has_images_and_the_account_in_its_record(
    made: Any, weights: Path, tmp_path: Path
) -> None:
    experiment = made(partial(DeltaConvBlock.for_site, kernel_size=5, published=str(weights)))
    assert run(experiment, streams()[0]) == 0
    (record,) = Store(tmp_path / "out").records()
    assert record.reading("brightness").value is not None  # type: ignore[union-attr]
    assert record.notes == (
        f"published weights, {weights}: 56 tensors loaded at 7 sites; 14 missing biases are zero, the first "
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.gates.0.conv_spatial.bias",
    )
    assert record.case.weights.endswith(experiment.jobs()[0].student.key)


def test_other_weights_are_another_case_and_a_models_preset_can_name_them(made: Any, weights: Path) -> None:
    block = partial(DeltaConvBlock.for_site, kernel_size=5)
    by_preset = made(block, presets={"published": str(weights)})
    (first,) = by_preset.jobs()
    assert "published" not in first.factory.keywords
    assert first.case == made(partial(block, published=str(weights))).jobs()[0].case
    save_file(test_published.convfusion(tiny_pipelines.unet()), weights)
    assert made(block, presets={"published": str(weights)}).jobs()[0].case != first.case
    assert made(block).jobs()[0].case != first.case


def test_weights_that_do_not_fit_end_the_run_in_a_sentence(made: Any, weights: Path) -> None:
    with pytest.raises(
        BadInput, match=rf"^{weights} does not fit site down_blocks.0.*kernel_size, scales or pooling d"
    ):
        run(made(partial(DeltaConvBlock.for_site, kernel_size=3, published=str(weights))), streams()[0])
    with pytest.raises(BadInput, match=r"^blocks is the teacher's own attention and takes no weights: leave out publ"):
        made(partial(SelfAttention.for_site, published=str(weights))).jobs()


def test_a_student_of_another_mixer_or_setting_ends_the_run_in_a_sentence(made: Any, tmp_path: Path) -> None:
    unet = tiny_pipelines.unet()
    baselines.apply(unet, NeighborhoodAttention, kernel_size=3)
    near = str(baselines.save(unet, tmp_path / "near"))
    with pytest.raises(BadInput, match=rf"^{near} is a student of NeighborhoodAttention, not of ReLULinearAttention"):
        run(made(partial(ReLULinearAttention.for_site, published=near)), streams()[0])
    with pytest.raises(BadInput, match=rf"^{near} is a student with kernel_size=3, not with kernel_size=13, at site"):
        run(made(partial(NeighborhoodAttention.for_site, published=near)), streams()[0])
    assert run(made(partial(NeighborhoodAttention.for_site, kernel_size=3, published=near)), streams()[0]) == 0


def test_a_dry_run_downloads_nothing(made: Any) -> None:
    blocks = partial(DeltaConvBlock.for_site, published="nobody/nothing")
    (job,) = made(blocks, dry_run=True).jobs()
    assert job.case.weights == "not fetched"
    with pytest.raises(BadInput, match=r"^nobody/nothing could not be fetched from the model hub"):
        made(blocks).jobs()


def test_the_command_line_names_published_weights() -> None:
    file = "pkg://harness.shapes/weights/students/tiny_sd-linfusion.safetensors"
    ConfigStore.instance().store(name="catalog", node=catalog([]), package="catalog")
    with initialize_config_module("conf", version_base="1.3"):
        named = f"+catalog.variants.linfusion.published={file}"
        config = compose("config", overrides=["+sweep=smoke", "variants=[linfusion]", named])
    (job,) = instantiate(config, _convert_="all").jobs()
    student = job.student
    assert student.published == file
    assert student.available
    model = job.model.load("meta")
    found = student.checkpoint().names(job.factory.func.__self__)  # type: ignore[attr-defined]
    assert set(found) == {site.path for site in model.sites()}
    assert all(torch.is_tensor(value) for value in student.checkpoint().tensors.values())
