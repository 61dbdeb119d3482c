"""SD1.5, SDXL and PixArt on shapes alone: every site seated at 1024x1536, and filled by the published files."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

import conf
from baselines import LinFusionAttention
from deltaconv import DeltaConvBlock
from harness.records.case import Resolution
from harness.seats.checkpoint import Checkpoint, Weighted
from harness.seats.surgery import seated

KERNELS = {
    "sd15": {
        "down_blocks.0": 7,
        "down_blocks.1": 9,
        "down_blocks.2": 5,
        "mid_block": 3,
        "up_blocks.1": 5,
        "up_blocks.2": 9,
        "up_blocks.3": 11,
    },
    "sdxl": {"down_blocks.1": 9, "down_blocks.2": 7, "mid_block": 9, "up_blocks.0": 9, "up_blocks.1": 13},
    "pixart": {"transformer_blocks": 13},
}
"""Of the released blocks, by level."""
SITES = {"sd15": 16, "sdxl": 70, "pixart": 28}
SHARE = {"sd15": 1, "sdxl": 16, "pixart": 1}
"""Channels over the width of LinFusion's perceptrons."""
GRIDS = {  # (height, width) of the first and the smallest site at 1024x1536 pixels
    "sd15": ((192, 128), (24, 16)),
    "sdxl": ((96, 64), (48, 32)),
    "pixart": ((96, 64), (96, 64)),
}


@pytest.fixture(scope="module", params=KERNELS)
def real(request: pytest.FixtureRequest) -> Any:
    """A model of the catalogue on the meta device."""
    return instantiate(OmegaConf.load(Path(conf.__path__[0]) / "model" / f"{request.param}.yaml")).on_meta()


def state(denoiser: torch.nn.Module) -> list[Any]:
    """Every module, weight, flag and hook, by identity."""
    modules = [
        (path, id(module), module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
        for path, module in denoiser.named_modules()
    ]
    return [modules, [(name, id(weight), weight.requires_grad) for name, weight in denoiser.named_parameters()]]


@torch.no_grad()
def test_every_site_is_seated_at_1024x1536_and_unseated_again(real: Any) -> None:
    before = state(real.denoiser)
    arguments = real.example(Resolution(1024, 1536))
    factory = partial(DeltaConvBlock.for_site, **real.presets["deltaconv"])
    with seated(real.denoiser, factory) as seats:
        predicted = real.denoiser(**arguments)[0]
        assert len(seats) == SITES[real.name]
        grids = [seat.grid for seat in seats.values() if seat.grid is not None]
        assert (grids[0], min(grids)) == GRIDS[real.name]
        assert all(isinstance(seat.mixer, DeltaConvBlock) for seat in seats.values())
    assert tuple(predicted.shape[-2:]) == (192, 128)
    assert state(real.denoiser) == before


def one_site(channels: int, heads: int, kernel: int, share: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of one site of either published file, without the numbers in them."""
    with torch.device("meta"):
        block = DeltaConvBlock(channels, kernel).state_dict()
        linear = LinFusionAttention(channels, heads, channels // share).state_dict()
    return block, linear


def test_the_names_and_shapes_of_the_published_files_fit(real: Any) -> None:
    kernels, share = KERNELS[real.name], SHARE[real.name]
    blocks: dict[str, Tensor] = {}
    linear: dict[str, Tensor] = {}
    for index, site in enumerate(real.sites()):
        kernel = next(size for level, size in kernels.items() if site.path.startswith(level))
        block, attention = one_site(site.channels, site.heads, kernel, share)
        blocks |= {f"{site.path.removesuffix('attn1')}conv1.{own}": value for own, value in block.items()}
        linear |= {f"{index}.{own}": value for own, value in attention.items()}
    config = {"modules_list": [{"module_name": site.path} for site in real.sites()]}
    convfusion, linfusion = Checkpoint("7eu7d7/ConvFusion", blocks), Checkpoint("Yuanshi/LinFusion", linear, config)
    for mixer, variant, checkpoint in (
        (DeltaConvBlock, "deltaconv", convfusion),
        (LinFusionAttention, "linfusion", linfusion),
    ):
        weighted = Weighted(partial(mixer.for_site, **real.presets.get(variant, {})), checkpoint)
        with seated(real.denoiser, weighted):
            found = weighted.account()
        assert found.sites == SITES[real.name]
        assert len(found.loaded) == len(checkpoint.tensors)
        assert found.left_over == ()
    gate = "sigmoid" if real.name == "pixart" else "scaled"
    implied = {"kernel_size": kernels if len(kernels) > 1 else 13, "gate": gate, "pooling": True}
    assert DeltaConvBlock.settings_of(convfusion.states(DeltaConvBlock)) == implied
    assert LinFusionAttention.settings_of(linfusion.states(LinFusionAttention)) == {"mid_divisor": share}
