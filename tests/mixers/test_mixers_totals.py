"""Prices summed over the replaced layers of SD1.5 and PixArt: the known totals in GFLOP, to the digit printed."""

from collections.abc import Callable, Iterator

import pytest
import torch
from omegaconf import OmegaConf

from baselines import LinFusionAttention, NeighborhoodAttention, ReLULinearAttention, SelfAttention
from deltaconv import DeltaConvBlock
from harness.seats.mixer import Grid, Site, TokenMixer

SD15_LEVELS = {  # level: (layers, channels, pixels a token)
    "down_blocks.0": (2, 320, 8),
    "down_blocks.1": (2, 640, 16),
    "down_blocks.2": (2, 1280, 32),
    "mid_block": (1, 1280, 64),
    "up_blocks.1": (3, 1280, 32),
    "up_blocks.2": (3, 640, 16),
    "up_blocks.3": (3, 320, 8),
}
KERNELS = dict(zip(SD15_LEVELS, (7, 9, 5, 3, 5, 9, 11), strict=True))


def layers(model: str, side: int) -> Iterator[tuple[Site, Grid]]:
    """Sites and grids of a square image."""
    levels = SD15_LEVELS if model == "sd15" else {"transformer_blocks": (28, 1152, 16)}
    heads = 8 if model == "sd15" else 16
    for level, (count, channels, pixels) in levels.items():
        for layer in range(count):
            grid = (side // pixels, side // pixels)
            yield Site(f"{level}.attentions.{layer}.transformer_blocks.0.attn1", channels, heads), grid


def total(make: Callable[[Site], TokenMixer], model: str, side: int) -> float:
    with torch.device("meta"):
        return round(sum(make(site).flops(grid) for site, grid in layers(model, side)) / 1e9, 1)


MAKERS: dict[str, Callable[[Site], TokenMixer]] = {
    "self_attention": lambda site: SelfAttention(site.channels, site.heads),
    "neighborhood": lambda site: NeighborhoodAttention(site.channels, site.heads, 13),
    "linear": lambda site: ReLULinearAttention(site.channels, site.heads),
    "linfusion": lambda site: LinFusionAttention(site.channels, site.heads),
    "deltaconv": lambda site: DeltaConvBlock(site.channels, 13),
}


@pytest.mark.parametrize(
    ("model", "side", "totals"),
    [
        ("sd15", 512, (173.7, 58.9, 54.4, 105.6, 15.3)),
        ("sd15", 1024, (2164.6, 235.9, 217.6, 422.2, 61.0)),
        ("pixart", 512, (439.7, 326.7, 314.0, 618.4, 83.2)),
        ("pixart", 1024, (3382.3, 1306.9, 1255.9, 2473.6, 332.4)),
    ],
)
def test_totals_are_those_of_the_literature(model: str, side: int, totals: tuple[float, ...]) -> None:
    assert tuple(total(make, model, side) for make in MAKERS.values()) == totals


def test_the_published_kernels_of_sd15_give_the_published_sizes() -> None:
    def make(site: Site) -> DeltaConvBlock:
        return DeltaConvBlock.for_site(site, torch.nn.Linear(1, 1, device="meta"), OmegaConf.create(KERNELS))

    prices = [sum(make(site).flops(grid) for site, grid in layers("sd15", side)) / 1e9 for side in (512, 1024)]
    assert [round(price, 2) for price in prices] == [13.96, 55.75]
    parameters = sum(parameter.numel() for site, _ in layers("sd15", 512) for parameter in make(site).parameters())
    assert round(parameters / 1e6, 2) == 25.40


@pytest.mark.parametrize(("side", "gigaflops"), [(512, 49.67), (1024, 714.08)])
def test_the_papers_cells_are_our_price_of_a_top_layer_twice_and_its_softmax(side: int, gigaflops: float) -> None:
    tokens = (side // 8) ** 2
    price = 2 * (SelfAttention(320, 8).flops((side // 8, side // 8)) + 4 * tokens * 320)
    assert round(price / 1e9, 2) == gigaflops
