"""Published weights of a whole denoiser: their names and layouts, every tensor accounted for, and what is refused."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import test_deltaconv
import test_linfusion
import tiny_pipelines
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from baselines import LinFusionAttention, NeighborhoodAttention
from deltaconv import DeltaConvBlock
from harness.records.case import BadInput
from harness.seats.checkpoint import Account, Checkpoint, Weighted, digest, read
from harness.seats.surgery import Factory, seated, sites

KERNEL = 5
DENOISERS = {"unet": tiny_pipelines.unet, "pixart": tiny_pipelines.transformer}
BLOCK = partial(DeltaConvBlock.for_site, kernel_size=KERNEL)


def convfusion(denoiser: nn.Module, prefix: str = "", triton: bool = False) -> dict[str, Tensor]:
    """A file as the authors of ΔConvFusion write it; in the layout of their Triton code without depthwise biases."""
    tensors = {}
    for index, site in enumerate(sites(denoiser)):
        for name, value in test_deltaconv.random_weights(site.channels, KERNEL, 2, index).items():
            if triton and "spatial.bias" in name:
                continue
            arranged = value.squeeze(1).permute(1, 2, 0) if triton and "spatial.weight" in name else value
            tensors[f"{prefix}{site.path.removesuffix('attn1')}conv1.{name}"] = arranged.float().contiguous()
    return tensors


def linfusion(denoiser: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file and its config.json as the authors of LinFusion write them, numbered as named_modules lists the sites."""
    by_path = {site.path: site for site in sites(denoiser)}
    order = [by_path[path] for path, _ in denoiser.named_modules() if path in by_path]
    tensors = {
        f"{index}.{name}": value.float()
        for index, site in enumerate(order)
        for name, value in test_linfusion.published(site.channels, site.channels, index).items()
    }
    modules = [{"module_name": site.path, "dim_n": site.channels, "heads": site.heads} for site in order]
    return tensors, {"_class_name": "LinFusion", "modules_list": modules}


def tokens(number: int, channels: int) -> Tensor:
    """(1, N, C), always the same."""
    return torch.randn(1, number, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def load(denoiser: nn.Module, factory: Factory, checkpoint: Checkpoint) -> tuple[dict[str, Any], Account]:
    weighted = Weighted(factory, checkpoint)
    with seated(denoiser, weighted) as seats:
        return {path: seat.mixer for path, seat in seats.items()}, weighted.account()


@pytest.mark.parametrize(("prefix", "triton"), [("", False), ("base:", True), ("denoiser.", True)])
@pytest.mark.parametrize("kind", DENOISERS)
@torch.no_grad()
def test_published_blocks_fill_every_site_and_compute_the_published_formula(
    kind: str, prefix: str, triton: bool, tmp_path: Path
) -> None:
    denoiser = DENOISERS[kind]()
    tensors = convfusion(denoiser, prefix, triton)
    save_file(tensors, tmp_path / "ConvFusion-132000.safetensors")
    mixers, found = load(denoiser, BLOCK, read(tmp_path))
    assert found.loaded == tuple(sorted(tensors))
    assert found.left_over == ()
    assert found.sites == len(mixers) == len(sites(denoiser))
    depthwise = {f"{path}.gates.{i}.conv_spatial.bias" for path in mixers for i in range(2)}
    assert set(found.missing) == (depthwise if triton else set())
    for index, site in enumerate(sites(denoiser)):
        weights = test_deltaconv.random_weights(site.channels, KERNEL, 2, index)
        weights |= {name: 0 * value for name, value in weights.items() if triton and "spatial.bias" in name}
        x_BNC = tokens(6 * 9, site.channels)
        expected = test_deltaconv.released(weights, x_BNC, (6, 9), (1.0, 0.5), sigmoid=False)
        # The file holds float32.
        torch.testing.assert_close(mixers[site.path].double()(x_BNC, (6, 9)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", DENOISERS)
@torch.no_grad()
def test_published_linfusion_goes_by_its_numbers_and_computes_the_published_formula(kind: str, tmp_path: Path) -> None:
    denoiser = DENOISERS[kind]()
    tensors, config = linfusion(denoiser)
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    mixers, found = load(denoiser, LinFusionAttention.for_site, read(tmp_path))
    assert found.loaded == tuple(sorted(tensors))
    biases = {f"{path}.{name}.bias" for path in mixers for name in ("to_q", "to_k", "to_v")}
    assert set(found.missing) == (biases if kind == "pixart" else set())
    for index, module in enumerate(config["modules_list"]):
        weights = test_linfusion.published(module["dim_n"], module["dim_n"], index)
        x_BNC = tokens(35, module["dim_n"])
        expected = test_linfusion.formula(weights, x_BNC, module["heads"])
        mixer = mixers[module["module_name"]].double()
        torch.testing.assert_close(mixer(x_BNC, (5, 7)), expected, rtol=1e-3, atol=1e-3)


def test_what_no_site_takes_is_left_over_and_said() -> None:
    denoiser = tiny_pipelines.unet()
    tensors = convfusion(denoiser) | {"conv_in.weight": torch.zeros(1)}
    tensors.pop("mid_block.attentions.0.transformer_blocks.0.conv1.conv_up.bias")
    _, found = load(denoiser, BLOCK, Checkpoint("somebody/blocks", tensors))
    assert found.left_over == ("conv_in.weight",)
    assert str(found) == (
        f"somebody/blocks: {len(tensors) - 1} tensors loaded at 7 sites; 1 missing biases are zero, the first "
        "mid_block.attentions.0.transformer_blocks.0.attn1.conv_up.bias; 1 tensors left over, the first conv_in.weight"
    )


FIRST = "down_blocks.0.attentions.0.transformer_blocks.0"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {f"{FIRST}.conv1.conv_pool.weight": None},
            rf"file does not fit site {FIRST}.attn1: the ∆ConvBlock weights lack",
        ),
        (
            {f"{FIRST}.conv1.conv_up.weight": (4, 16)},
            rf"file does not fit site {FIRST}.attn1: conv_up.weight of the ∆ConvBlock weights is \(4, 16\), not",
        ),
        (
            {f"{FIRST}.conv1.gates.2.conv_spatial.weight": (8, 1, 5, 5)},
            "file does not fit .* hold gates.2.conv_spatial.w",
        ),
        (
            {f"{FIRST}.attn1.conv_up.weight": (8, 16)},
            rf"file holds {FIRST}.conv1.conv_up.weight and {FIRST}.attn1.conv_up.weight for one parameter: leave one",
        ),
    ],
)
def test_a_misfit_names_its_site(change: dict[str, Any], sentence: str) -> None:
    denoiser = tiny_pipelines.unet()
    tensors = convfusion(denoiser) | {name: torch.zeros(shape) for name, shape in change.items() if shape}
    for name in (name for name, shape in change.items() if shape is None):
        del tensors[name]
    with pytest.raises(BadInput, match=f"^{sentence}"):
        load(denoiser, BLOCK, Checkpoint("file", tensors))
    assert not any(hasattr(module, "mixer") for module in denoiser.modules())


def test_a_checkpoint_of_another_model_is_refused_in_one_sentence() -> None:
    unet, transformer = tiny_pipelines.unet(), tiny_pipelines.transformer()
    sentence = (
        r"^file is a checkpoint of another model: its 3 sites run from transformer_blocks.0.attn1 to "
        r"transformer_blocks.2.attn1, this model's 7 from down_blocks.0\S+ to up_blocks.1\S+$"
    )
    with pytest.raises(BadInput, match=sentence):
        load(unet, BLOCK, Checkpoint("file", convfusion(transformer)))
    larger = convfusion(tiny_pipelines.transformer(num_layers=4))
    with pytest.raises(BadInput, match=r"^file is a checkpoint of another model: its 4 sites .* this model's 3 from"):
        load(transformer, BLOCK, Checkpoint("file", larger))
    part = {name: value for name, value in convfusion(transformer).items() if "blocks.1." not in name}
    with pytest.raises(
        BadInput, match=r"^file has 2 of this model's 3 sites and lacks transformer_blocks.1.attn1: give"
    ):
        load(transformer, BLOCK, Checkpoint("file", part))
    with pytest.raises(
        BadInput, match=r"^file holds no weights of a DeltaConvBlock: what it holds begins with conv_in$"
    ):
        load(unet, BLOCK, Checkpoint("file", {"conv_in": torch.zeros(1)}))
    with pytest.raises(BadInput, match=r"^file holds no weights of a NeighborhoodAttention"):
        load(unet, NeighborhoodAttention.for_site, Checkpoint("file", convfusion(unet)))


def test_numbers_without_a_list_of_their_sites_are_refused() -> None:
    tensors, config = linfusion(tiny_pipelines.unet())
    checkpoint = Checkpoint("file", tensors, {"modules_list": config["modules_list"][:2]})
    with pytest.raises(BadInput, match=r"^2\.\S+ is published by number, but no modules_list says which site that is"):
        load(tiny_pipelines.unet(), LinFusionAttention.for_site, checkpoint)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth"])
def test_pickles_are_refused_with_the_reason(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"never read")
    for source in (path, tmp_path):
        with pytest.raises(
            BadInput, match=rf"model{suffix} is a pickle, and loading a pickle can run any code: convert"
        ):
            read(source)


def test_a_source_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    ways = "give a .safetensors file, a folder with one, or a hub id written owner/name or owner/name/file.safetensors"
    for missing in (str(tmp_path / "no.safetensors"), "weights/no.safetensors", "no.safetensors", "./a/b", "nothing"):
        with pytest.raises(BadInput, match=rf"^{missing} does not exist: {ways}$"):
            read(missing)
    with pytest.raises(BadInput, match=r"^one .safetensors file is looked for in .* and there is none: give"):
        read(tmp_path)
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(BadInput, match=r"notes.txt is no .safetensors file: give"):
        read(tmp_path / "notes.txt")
    (tmp_path / "a.safetensors").write_bytes(b"cut off")
    with pytest.raises(BadInput, match=r"a.safetensors is truncated or corrupt \(.*\): fetch or write it again$"):
        read(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match=r"there is 2 of them \(a.safetensors, b.safetensors\): give"):
        read(tmp_path)


def test_a_hub_out_of_reach_is_said_in_a_sentence() -> None:
    for source in ("nobody/nothing", "nobody/nothing/blocks.safetensors"):
        with pytest.raises(
            BadInput, match=rf"^{source} could not be fetched from the model hub \(\w+\): get online, or"
        ):
            read(source)


def test_the_digest_is_of_the_weights_and_of_what_names_them(tmp_path: Path) -> None:
    seen = set()
    for value, config in ((0.0, None), (1.0, None), (1.0, "{}"), (1.0, '{"modules_list": []}')):
        save_file({"a": torch.full((1,), value)}, tmp_path / "w.safetensors")
        if config:
            (tmp_path / "config.json").write_text(config)
        seen.add(digest(tmp_path))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda value: (64 * value).to(torch.int8), "weights is int8, quantised: give weights in fp32, fp16 or bf16"),
        (lambda value: value * float("nan"), "weights is not finite: fetch or train them again"),
    ],
    ids=["int8", "nan"],
)
def test_tensors_that_are_no_weights_are_refused(tmp_path: Path, change: Any, sentence: str) -> None:
    denoiser = tiny_pipelines.unet()
    tensors = convfusion(denoiser)
    name = next(iter(tensors))
    save_file(tensors | {name: change(tensors[name])}, tmp_path / "blocks.safetensors")
    with pytest.raises(BadInput, match=sentence):
        load(denoiser, BLOCK, read(tmp_path / "blocks.safetensors"))
    assert not any("mixer" in path for path, _ in denoiser.named_modules())
