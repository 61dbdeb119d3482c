"""Projected peak memory of one mixer call as the grid grows: linear in the tokens where the method is.

The peaks are exact: live storages of one call, traced on the meta device, fp32, batch 1. Measured ones lie within a few
percent of them: tests/measured/measured_peak_memory.py.
"""

import math

import pytest
import torch
from torch import nn
from variants import SITE, VARIANTS, build

from baselines import NeighborhoodAttention, SelfAttention
from deltaconv import DeltaConvBlock
from harness.counted.counters import Definition
from harness.counted.live_bytes import rise_of

SIDES = (64, 128, 256, 512)
MIXERS = {
    "neighborhood": lambda channels: NeighborhoodAttention(channels, 8, 13),
    "dilated": lambda channels: NeighborhoodAttention(channels, 8, 7, dilation=2),
    "deltaconv": lambda channels: DeltaConvBlock(channels, 13),
}


def projected(mixer: nn.Module, side: int, channels: int) -> int:
    """Bytes that one call on a square grid adds at its highest point, its output included."""
    return rise_of(mixer.to("meta"), torch.empty(1, side * side, channels, device="meta"), (side, side)).size


def exponent(sizes: list[int], peaks: list[int]) -> float:
    """Slope of the least-squares line through log peak over log tokens: 1 is linear."""
    x, y = ([math.log(value) for value in values] for values in (sizes, peaks))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - mean_x) ** 2 for a in x)


@pytest.mark.parametrize("name", MIXERS)
def test_the_projected_peak_is_a_line_through_four_sizes(name: str) -> None:
    tokens = [side * side for side in SIDES]
    peaks = [projected(MIXERS[name](320), side, 320) for side in SIDES]
    bytes_a_token = peaks[-1] / tokens[-1]
    assert exponent(tokens, peaks) < 1.01
    assert bytes_a_token < 8 * 4 * 320  # so many maps of the tokens at once, however large the window
    # A row of tiles and the masks of its windows grow with the side alone: all that lies above the line.
    assert all(peak <= bytes_a_token * count * 1.2 for count, peak in zip(tokens, peaks, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_what_lives_on_the_meta_device_is_what_lives_on_the_cpu(variant: str) -> None:
    mixer, grid = build(variant, dtype=torch.float32), (16, 24)
    here, there = (
        rise_of(mixer.to(device), torch.zeros(1, 16 * 24, SITE.channels, device=device), grid).size
        for device in ("cpu", "meta")
    )
    assert there == here


def test_a_fit_of_the_definition_of_self_attention_is_not_a_line() -> None:
    sides = SIDES[:3]
    peaks = [projected(Definition(SelfAttention(320, 8)), side, 320) for side in sides]
    assert exponent([side * side for side in sides], peaks) > 1.9
