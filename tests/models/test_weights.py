"""Where weights come from: folders, packages, the hub, nowhere; and what is refused, with the user's sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipelines import KINDS, TALL
from torch import Tensor

from harness.models import layout, opening, weights
from harness.models.dit import PixArtModel
from harness.models.model import Model
from harness.models.unet import UNetModel
from harness.records.case import BadInput, Resolution

pytest_plugins = ["saved_pipelines"]
# The schedulers of diffusers hand tensors to numpy, and those of torch know no `copy` (numpy 2 migration guide).
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_loading_again_does_nothing(model: Model) -> None:
    before = model.denoiser
    assert model.load("cpu", "fp32") is model
    assert model.denoiser is before


def test_constructing_a_model_touches_nothing(tmp_path: Path) -> None:
    model = UNetModel("x", str(tmp_path / "nowhere"), "nothing", [512, "768x512"], {"deltaconv": {"kernel_size": 5}})
    assert model.resolutions == (Resolution(512, 512), Resolution(768, 512))
    with pytest.raises(RuntimeError, match="model x is not loaded"):
        _ = model.denoiser


def test_a_packaged_source_is_found_in_its_package(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    package = folders["sd"].parent / "boxed"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    shutil.copytree(folders["sd"], package / "weights" / "tiny", dirs_exist_ok=True)
    monkeypatch.syspath_prepend(package.parent)
    model = UNetModel("boxed", "pkg://boxed/weights/tiny")
    assert model.fingerprint() == UNetModel("sd", str(folders["sd"])).fingerprint()
    assert model.load().generate(["a"], [1], TALL, 1, 1.0).shape == (1, 3, 64, 40)


def test_random_weights_come_from_the_configuration_and_are_the_same_again(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "CONFIGS", folders["sd"].parent)
    for kind, family in KINDS.items():
        first, again = (family(kind, "random", kind).load() for _ in range(2))
        assert first.pipeline.text_encoder is None
        assert first.fingerprint() == "random"
        image = first.generate(["a", "b"], [1, 1], TALL, 2, 4.5)
        assert torch.equal(image, again.generate(["a", "b"], [1, 1], TALL, 2, 4.5))
        assert not torch.equal(image[0], image[1])


def test_a_fetched_model_of_other_shapes_than_its_configuration_is_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import DiffusionPipeline

    monkeypatch.setattr(DiffusionPipeline, "download", lambda *args, **given: str(folders["sd"]))
    with pytest.raises(BadInput, match="has a unet of other shapes than the configuration sd15: download it"):
        UNetModel("x", "a/b", "sd15").load()
    monkeypatch.setattr(layout, "CONFIGS", folders["sd"].parent)
    assert UNetModel("x", "a/b", "sd").load().fingerprint() == UNetModel("sd", str(folders["sd"])).fingerprint()


def test_the_fingerprint_changes_with_the_weights_and_what_else_decides_an_image(copied: Path) -> None:
    seen = [UNetModel("x", str(copied)).fingerprint()]
    assert len(seen[0]) == 12
    assert int(seen[0], 16) >= 0
    (copied / "README.md").write_text("says nothing")
    assert UNetModel("x", str(copied)).fingerprint() == seen[0]
    tensors = load_file(copied / WEIGHTS)
    tensors["conv_in.bias"] += 1
    save_file(tensors, copied / WEIGHTS)
    seen.append(UNetModel("x", str(copied)).fingerprint())
    scheduler = copied / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace('"epsilon"', '"v_prediction"'))
    seen.append(UNetModel("x", str(copied)).fingerprint())
    assert len(set(seen)) == 3


def test_checkpoints_with_the_names_that_the_hub_still_has_load_as_well(copied: Path, models: dict[str, Model]) -> None:
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    path = copied / "vae/diffusion_pytorch_model.safetensors"
    renamed = {}
    for name, tensor in load_file(path).items():
        for new, former in old.items():
            name = name.replace(new, former)
        renamed[name] = tensor
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, path)
    changed_index(safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])(copied)
    made = UNetModel("old", str(copied)).load().generate(["a"], [1], TALL, 1, 4.5)
    assert torch.equal(made, models["sd"].generate(["a"], [1], TALL, 1, 4.5))


def sharded(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    index = folder / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.bias": "part-00001-of-00002.safetensors"}}))


def without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.bin")


def truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1000])


def garbage(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"<html>not found</html>")


def one_tensor_short(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["conv_in.bias"]
    save_file(tensors, folder / WEIGHTS)


def short_text(folder: Path) -> None:
    path = folder / "text_encoder/model.safetensors"
    tensors = load_file(path)
    save_file(dict(list(tensors.items())[1:]), path, metadata={"format": "pt"})


def one_tensor_wide(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"conv_in.bias": torch.zeros(3)}, folder / WEIGHTS)


def no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def no_words(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def broken_json(folder: Path) -> None:
    (folder / "unet/config.json").write_text("{")


def changed_index(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def rewritten(change: Callable[[str, Tensor], Tensor], part: str = WEIGHTS) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / part)
        save_file({name: change(name, value) for name, value in tensors.items()}, folder / part, {"format": "pt"})

    return rewrite


def changed_config(part: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


BREAKAGES: list[tuple[Callable[[Path], None], str]] = [
    (without_weights, r"unet has no weights: diffusion_pytorch_model.safetensors is what is looked for"),
    (pickled, r"unet has pickled weights only \(diffusion_pytorch_model.bin\), and loading a pickle can run any code"),
    (sharded, r"part-00001-of-00002.safetensors is missing, though .* names it: fetch the rest of the weights"),
    (truncated, r"unet/diffusion_pytorch_model.safetensors is missing, truncated or corrupt"),
    (garbage, r"unet/diffusion_pytorch_model.safetensors is missing, truncated or corrupt"),
    (one_tensor_short, r"unet cannot be loaded \(tensors missing from its files: 1, the first is conv_in.bias\)"),
    (short_text, r"text_encoder cannot be loaded \(tensors missing from its files: 1"),
    (one_tensor_wide, r"unet cannot be loaded \(Cannot load because conv_in.bias expected shape"),
    (no_index, r"is not a diffusers pipeline, it has no model_index.json"),
    (no_words, r"tokenizer has no vocabulary: tokenizer.json or vocab.json or spiece.model"),
    (broken_json, r"unet/config.json cannot be read as JSON \(.*: write the pipeline again with save_pretrained"),
    (changed_index(_class_name="FluxPipeline"), r"is a StableDiffusionPipeline or .*, but .* holds a FluxPipeline"),
    (changed_index(_class_name="StableDiffusionXLPipeline"), r"text_encoder_2 has no weights"),
    (changed_index(unet=[]), r"model_index.json names \[\] as its unet, not a library and a class: write the pipeline"),
    (changed_index(vae="AutoencoderKL"), r"model_index.json names 'AutoencoderKL' as its vae, not a library and a"),
    (changed_index(_class_name=["StableDiffusionPipeline"]), r"holds a \['StableDiffusionPipeline'\]: give a pipeline"),
    (changed_config("unet", cross_attention_dim="wide"), r"unet cannot be loaded \(.*got str"),
    (
        changed_config("unet", in_channels="four"),
        r"unet has a configuration with in_channels='four', where a whole",
    ),
    (changed_config("vae", latent_channels=[4]), r"vae has a configuration with latent_channels=\[4\], where a whole"),
    (changed_config("text_encoder", hidden_size="wide"), r"text_encoder cannot be loaded \(.*expected int, got str"),
    (changed_config("text_encoder", hidden_size=20), r"text_encoder cannot be loaded \(tensors of another shape: 34"),
    (
        changed_config("unet", in_channels=9),
        r"has a unet of 9 input channels, but latents of 4: it wants more",
    ),
    (
        rewritten(lambda name, value: (64 * value).to(torch.int8)),
        r"holds conv_in.bias in I8, quantised: give weights",
    ),
    (
        rewritten(lambda name, value: (value * float("nan")) if name == "conv_out.weight" else value),
        r"unet has weights that are not finite in float32, the first is conv_out.weight: fetch them again$",
    ),
    (changed_index(scheduler=["evil", "Scheduler"]), r"wants evil.Scheduler as its scheduler: only diffusers' own"),
]


def test_a_denoiser_for_more_than_text_is_refused_before_its_costs_are_counted(copied: Path) -> None:
    changed_config("unet", in_channels=9)(copied)
    with pytest.raises(BadInput, match="has a unet of 9 input channels, but latents of 4"):
        UNetModel("x", str(copied)).on_meta()


def test_weights_that_fp16_cannot_hold_are_told_apart_from_damaged_ones(copied: Path) -> None:
    rewritten(lambda name, value: value + 1e6 if name == "conv_in.bias" else value)(copied)
    with pytest.raises(
        BadInput, match=r"not finite in float16, the first is conv_in.bias: take dtype bf16 or fp32, or f"
    ):
        UNetModel("x", str(copied)).load("cpu", "fp16")
    UNetModel("x", str(copied)).load("cpu", "bf16")


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_a_folder_of_fp16_files_is_a_folder_of_weights(copied: Path, sharded: bool) -> None:
    pipeline = UNetModel("whole", str(copied)).load().pipeline
    size = "20KB" if sharded else "5GB"
    pipeline.to(torch.float16).save_pretrained(copied, variant="fp16", max_shard_size=size)
    for path in copied.glob("*/*.safetensors"):
        if "fp16" not in path.name:
            path.unlink()
    assert sorted(path.name for path in copied.glob("unet/*.safetensors"))[0].startswith("diffusion_pytorch_model.fp16")
    model = UNetModel("half", str(copied)).load()
    assert len(model.fingerprint()) == 12
    weights = {name: value.half() for name, value in pipeline.unet.state_dict().items()}
    assert all(torch.equal(value.half(), weights[name]) for name, value in model.denoiser.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_denoiser_alone_brings_no_other_part_until_all_are_asked_for(
    kind: str, folders: dict[str, Path], models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_part = opening.read_part
    monkeypatch.setattr(
        opening, "read_part", lambda layout, part, dtype: (read.append(part), read_part(layout, part, dtype))[1]
    )
    model = KINDS[kind](kind, str(folders[kind])).load(parts="denoiser")
    assert read == [model.part]
    alone = model.load(parts="denoiser").denoiser
    example, expected = model.example(TALL), models[kind].example(TALL)
    assert {name: value.shape for name, value in example.items() if isinstance(value, Tensor)} == {
        name: value.shape for name, value in expected.items() if isinstance(value, Tensor)
    }
    with torch.no_grad():
        assert torch.equal(alone(**example)[0], models[kind].denoiser(**expected)[0])
    assert model.on_meta().text_shapes() == models[kind].text_shapes()
    with pytest.raises(RuntimeError, match="has no weights to generate with"):
        model.generate(["a"], [1], TALL, 2, 4.5)
    assert model.load().denoiser is alone
    assert sorted(read) == sorted(weights.PARTS[model.layout.pipeline])
    assert torch.equal(model.generate(["a"], [1], TALL, 2, 4.5), models[kind].generate(["a"], [1], TALL, 2, 4.5))
    assert model.load(parts="denoiser").pipeline is not None


@pytest.mark.parametrize(
    ("breakage", "sentence"), BREAKAGES, ids=[b.__qualname__.partition(".")[0] for b, _ in BREAKAGES]
)
def test_a_folder_that_cannot_be_loaded_is_named_with_the_reason(
    copied: Path, breakage: Callable[[Path], None], sentence: str
) -> None:
    breakage(copied)
    with pytest.raises(BadInput, match=sentence) as caught:
        UNetModel("x", str(copied)).load()
    assert "\n" not in str(caught.value)


def test_a_pipeline_of_the_other_family_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(
        BadInput, match=r"is a PixArtAlphaPipeline or PixArtSigmaPipeline, but .* a StableDiffusionPipeline"
    ):
        PixArtModel("x", str(folders["sd"])).load()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("./nowhere", r"\./nowhere does not exist: give a diffusers pipeline folder, or a hub id written owner/name"),
        ("pkg://harness/nowhere", "pkg://harness/nowhere does not exist"),
        ("nobody/nothing", r"x could not be fetched from the model hub as nobody/nothing .* catalog.models.x.source="),
        (None, "x has shapes only: set catalog.models.x.source="),
    ],
)
def test_a_source_that_is_not_there_is_answered_with_what_to_do(source: str | None, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        UNetModel("x", source, "sd15").load()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"device": "tpu9"}, "device 'tpu9' is not known"),
        ({"device": "cuda:99"}, "device cuda:99 is not there"),
        ({"dtype": "int8"}, "dtype 'int8' is not known: choose from fp32, fp16, bf16"),
    ],
)
def test_a_device_or_dtype_that_cannot_be_is_refused(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        UNetModel("x", "random", "sd15").load(**given)


def test_an_unknown_configuration_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="'sd3': choose from pixart, pixart_512, pixart_alpha, sd15, sdxl"):
        UNetModel("x", None, "sd3").load("meta")
    with pytest.raises(BadInput, match="model x has no configuration"):
        UNetModel("x").load("meta")
