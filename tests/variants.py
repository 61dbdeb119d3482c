"""The variants of conf/variant as the tests build them: for one small site, on a stand-in for its attention."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

import conf
from baselines import LinFusionAttention, NeighborhoodAttention, SelfAttention
from deltaconv import DeltaConvBlock
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import Factory

ROOT = Path(next(iter(conf.__path__)))
VARIANTS = sorted(path.stem for path in ROOT.glob("variant/*.yaml"))
SITE = Site("down_blocks.0.attentions.1.transformer_blocks.0.attn1", channels=24, heads=3)
FACTORIES: dict[str, Factory] = {
    "self_attention": SelfAttention.for_site,
    "neighborhood": NeighborhoodAttention.for_site,
    "linfusion": LinFusionAttention.for_site,
    "deltaconv": DeltaConvBlock.for_site,
}
"""Four of them as the code makes them, whatever their files in conf say."""


class Teacher(nn.Module):
    """The parts of a diffusers Attention that a mixer takes over."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels, bias=bias) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Dropout(0.0)])


def factory(variant: str, grid: Grid = (8, 8)) -> Any:
    """The variant's factory; on a single row without the scales and cells that would leave nothing of it."""
    made = instantiate(OmegaConf.load(ROOT / "variant" / f"{variant}.yaml"))
    return narrow(made) if min(grid) == 1 else made


def narrow(made: Any) -> Any:
    if isinstance(made, partial) and "choices" in made.keywords:
        return partial(made, choices={name: narrow(choice) for name, choice in made.keywords["choices"].items()})
    if made.func.__qualname__ == "DeltaConvBlock.for_site":
        return partial(made, scales=(1.0,))
    if made.func.__qualname__ == "KeyValueCompression.for_site":
        return partial(made, ratio=1)
    return made


def build(variant: str, grid: Grid = (8, 8), dtype: torch.dtype = torch.float64) -> TokenMixer:
    """The variant's mixer at SITE, with the weights of seed 1."""
    torch.manual_seed(1)
    mixer: TokenMixer = factory(variant, grid)(SITE, Teacher(SITE.channels)).to(dtype)
    return mixer


def tokens(grid: Grid, batch: int = 2, channels: int = 24, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(batch, grid[0] * grid[1], channels, generator=torch.Generator().manual_seed(2)).to(dtype)
