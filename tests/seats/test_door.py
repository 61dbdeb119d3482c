"""The door for plain diffusers scripts: seated until removed, saved and loaded, the pipeline bit for bit back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import test_published
import tiny_pipelines
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import baselines
import deltaconv
from baselines import LinFusionAttention, NeighborhoodAttention, SelfAttention
from deltaconv import DeltaConvBlock
from harness.distillation.student import SHIPPED
from harness.records.case import BadInput
from harness.seats.surgery import Seat, seated, sites

PACKAGED = "pkg://harness.shapes/weights/students"


@pytest.fixture(params=["sd", "sdxl", "sigma"])
def pipe(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


@pytest.fixture
def sd() -> Any:
    return made("sd")


def made(kind: str) -> Any:
    """A pipeline in the mode that from_pretrained leaves it in."""
    torch.manual_seed(0)
    pipe: Any = tiny_pipelines.MAKERS[kind]()
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipe


def image(pipe: Any) -> Tensor:
    """One image as a user makes it, always from the same noise."""
    more = {"use_resolution_binning": False, "clean_caption": False} if hasattr(pipe, "transformer") else {}
    made: Tensor = pipe(
        "a cat",
        height=32,
        width=32,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        **more,
    ).images
    return made


def state(pipe: Any) -> tuple[list[str], list[int], list[Tensor]]:
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    return (
        [path for path, _ in denoiser.named_modules()],
        [id(weight) for weight in denoiser.parameters()],
        [weight.clone() for weight in denoiser.state_dict().values()],
    )


def test_a_pipeline_makes_other_images_until_the_blocks_are_removed_and_then_the_very_same(pipe: Any) -> None:
    before, teacher = state(pipe), image(pipe)
    applied = deltaconv.apply(pipe, kernel_size=3)
    assert applied.account is None
    assert all(isinstance(mixer, DeltaConvBlock) for mixer in applied.mixers.values())
    student = image(pipe)
    assert torch.equal(image(pipe), student)
    assert not torch.equal(student, teacher)
    deltaconv.remove(pipe)
    after = state(pipe)
    assert after[:2] == before[:2]
    assert all(map(torch.equal, after[2], before[2]))
    assert torch.equal(image(pipe), teacher)


def test_a_saved_student_is_loaded_with_its_settings_and_makes_the_same_image(pipe: Any, tmp_path: Path) -> None:
    deltaconv.apply(pipe, kernel_size=5, gate="sigmoid", scales=["1", "1/3"])
    first = image(pipe)
    folder = deltaconv.save(pipe, tmp_path / "student", base="somebody/model")
    deltaconv.remove(pipe)
    applied = deltaconv.apply(pipe, folder)
    assert torch.equal(image(pipe), first)
    assert applied.account is not None
    assert applied.account.left_over == applied.account.missing == ()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["settings"] == {"kernel_size": 5, "gate": "sigmoid", "scales": ["1", "1/3"]}
    assert config["sites"] == len(applied.mixers)
    assert config["parameters"] == sum(value.numel() for value in load_file(folder / "model.safetensors").values())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: diffusers\n")
    assert "base_model: somebody/model\n---\n# DeltaConvBlock for somebody/model" in card
    assert 'pipe = DiffusionPipeline.from_pretrained("somebody/model")\ndeltaconv.apply(pipe, "student")' in card


def test_the_baselines_have_the_same_door(sd: Any, tmp_path: Path) -> None:
    teacher = image(sd)
    baselines.apply(sd, NeighborhoodAttention, kernel_size=3)
    first = image(sd)
    assert not torch.equal(first, teacher)
    folder = baselines.save(sd, tmp_path / "near")
    baselines.remove(sd)
    applied = baselines.apply(sd, NeighborhoodAttention, folder)
    assert {mixer.kernel_size for mixer in applied.mixers.values()} == {3}
    assert torch.equal(image(sd), first)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert 'baselines.apply(pipe, baselines.NeighborhoodAttention, "near")' in card
    baselines.remove(sd)
    baselines.apply(sd, SelfAttention)
    # The same attention by another order of the same sums.
    torch.testing.assert_close(image(sd), teacher, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("model", "kind"), [("tiny_sd", "unet"), ("tiny_pixart", "transformer")])
@torch.no_grad()
def test_a_shipped_student_applies_to_its_pipeline_by_its_file_alone(model: str, kind: str) -> None:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(SHIPPED.parent / model)
    teacher = image(pipe)
    applied = deltaconv.apply(pipe, f"{PACKAGED}/{model}-deltaconv.safetensors")
    assert {mixer.kernel_size for mixer in applied.mixers.values()} == {5}
    weights = load_file(SHIPPED / f"{model}-deltaconv.safetensors")
    for path, mixer in applied.mixers.items():
        assert all(torch.equal(value, weights[f"{path}.{name}"].float()) for name, value in mixer.state_dict().items())
    student = image(pipe)
    deltaconv.remove(pipe)
    assert torch.equal(image(pipe), teacher)
    with seated(getattr(pipe, kind), lambda site, _: applied.mixers[site.path]):
        assert torch.equal(image(pipe), student)


def test_published_weights_bring_the_settings_that_their_shapes_imply(sd: Any, tmp_path: Path) -> None:
    save_file(test_published.convfusion(sd.unet), tmp_path / "blocks.safetensors")
    applied = deltaconv.apply(sd, tmp_path / "blocks.safetensors")
    assert {(mixer.kernel_size, mixer.gates[0].gain is None) for mixer in applied.mixers.values()} == {(5, False)}
    assert image(sd).isfinite().all()
    deltaconv.remove(sd)
    transformer = tiny_pipelines.transformer()
    save_file(test_published.convfusion(transformer), tmp_path / "blocks.safetensors")
    applied = deltaconv.apply(transformer, tmp_path / "blocks.safetensors")
    assert all(mixer.gates[0].gain is None for mixer in applied.mixers.values())
    tensors, config = test_published.linfusion(sd.unet)
    save_file(tensors, tmp_path / "blocks.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    applied = baselines.apply(sd, LinFusionAttention, tmp_path)
    assert applied.account is not None
    assert applied.account.loaded == tuple(sorted(tensors))


def test_what_is_removed_follows_a_pipeline_that_was_cast_in_between(sd: Any) -> None:
    deltaconv.apply(sd, kernel_size=3)
    sd.to(torch.float64)
    deltaconv.remove(sd)
    assert {weight.dtype for weight in sd.unet.parameters()} == {torch.float64}
    assert image(sd).isfinite().all()


def test_the_seats_hold_no_weights_of_the_teacher(sd: Any) -> None:
    replaced = {id(weight) for site in sites(sd.unet) for weight in sd.unet.get_submodule(site.path).parameters()}
    deltaconv.apply(sd, kernel_size=3)
    assert not replaced & {id(weight) for weight in sd.unet.parameters()}
    assert sum(isinstance(module, Seat) for module in sd.unet.modules()) == len(sites(sd.unet))


def test_what_cannot_be_applied_is_said_and_leaves_the_pipeline_as_it_was(sd: Any, tmp_path: Path) -> None:
    before = state(sd)
    deltaconv.apply(sd, kernel_size=3)
    folder = deltaconv.save(sd, tmp_path / "student")
    deltaconv.remove(sd)
    other = tiny_pipelines.transformer()
    refusals = [
        (lambda: deltaconv.remove(sd), r"nothing is seated in this UNet2DConditionModel: apply a variant first"),
        (lambda: deltaconv.save(sd, folder), r"nothing is seated in this UNet2DConditionModel"),
        (lambda: deltaconv.apply(sd, kernel_size=4), r"kernel_size is 4, but the kernel needs a centre: give an odd"),
        (lambda: deltaconv.apply(sd, heads=4), r"DeltaConvBlock cannot be made with \{'heads': 4\}: .*heads"),
        (lambda: deltaconv.apply(other, folder), rf"{folder} is a checkpoint of another model: its 7 sites run from"),
        (lambda: deltaconv.apply(sd, folder, kernel_size=5), rf"{folder} does not fit site down_blocks.0.*kernel_size"),
        (
            lambda: baselines.apply(sd, LinFusionAttention, folder),
            rf"{folder} is a student of DeltaConvBlock, not of LinFusionAttention: apply it as what it is",
        ),
        (lambda: deltaconv.apply("sd"), r"str has no denoiser named unet or transformer: give a diffusers pipeline of"),
    ]
    for call, sentence in refusals:
        with pytest.raises(BadInput, match=f"^{sentence}"):
            call()
        assert state(sd)[:2] == before[:2]
    deltaconv.apply(sd, folder)
    with pytest.raises(BadInput, match=r"^a variant is seated in this UNet2DConditionModel already: remove it first$"):
        deltaconv.apply(sd, folder)


def test_importing_the_doors_brings_no_hydra_no_mlflow_and_no_diffusers() -> None:
    heavy = "{'hydra', 'omegaconf', 'mlflow', 'diffusers'}"
    code = f"import sys, deltaconv, baselines; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
