"""How much faster the mixers are than attention, on the two layers where it is dearest: ratios of one interleaved run.

Run it on an idle machine, with the figures printed: pytest --slow -s tests/test_mixers_race.py
"""

import statistics
from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from baselines import LinFusionAttention, NeighborhoodAttention, SelfAttention
from baselines.neighborhood import neighbours
from deltaconv import DeltaConvBlock
from harness.measured.timing import wall_clock
from harness.seats.mixer import Grid

pytestmark = [pytest.mark.slow, pytest.mark.skipif(torch.cuda.is_available(), reason="states ratios of a CPU")]
ROUNDS = 7


def race(mixers: Mapping[str, Callable[[Tensor, Grid], Tensor]], channels: int, grid: Grid) -> dict[str, float]:
    """Median milliseconds of each, called in turn, fp32, batch 1."""
    x_BNC = torch.randn(1, grid[0] * grid[1], channels)
    times: dict[str, list[float]] = {name: [] for name in mixers}
    with torch.no_grad():
        for turn in range(ROUNDS + 1):
            for name, mixer in mixers.items():
                took = wall_clock(partial(mixer, x_BNC, grid))
                if turn:  # the first call of each is its warm-up
                    times[name].append(took)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name, taken in times.items():
        print(f"{channels} {grid} {name:16s} {medians[name]:9.1f} ms ({min(taken):.1f} to {max(taken):.1f})")
    return medians


@pytest.mark.parametrize(
    ("channels", "heads", "grid", "over_attention", "over_linfusion"),
    [(320, 8, (128, 128), 75.0, 5.5), (1152, 16, (64, 64), 9.0, 6.5)],
    ids=["SD1.5 at 1024", "PixArt at 1024"],
)
def test_a_delta_block_outruns_attention_and_linfusion(
    channels: int, heads: int, grid: Grid, over_attention: float, over_linfusion: float
) -> None:
    mixers: dict[str, nn.Module] = {
        "self_attention": SelfAttention(channels, heads),
        "linfusion": LinFusionAttention(channels, heads),
        "neighborhood 13": NeighborhoodAttention(channels, heads, 13),
        "deltaconv 13": DeltaConvBlock(channels, 13),
        "deltaconv 7": DeltaConvBlock(channels, 7),
    }
    took = race(mixers, channels, grid)
    print({name: round(took["self_attention"] / time, 2) for name, time in took.items()}, "times as fast as attention")
    print({name: round(took["linfusion"] / time, 2) for name, time in took.items()}, "times as fast as LinFusion")
    assert took["self_attention"] / took["deltaconv 7"] >= over_attention
    assert took["linfusion"] / took["deltaconv 7"] >= over_linfusion


def test_tiles_outrun_attention_with_a_dense_mask() -> None:
    mixer, grid = NeighborhoodAttention(320, 8, 13), (64, 64)
    near_LL = torch.zeros(64, 64, dtype=torch.bool).scatter(1, neighbours(64, 13, 1, torch.device("cpu")), True)
    mask_NN = (near_LL[:, None, :, None] & near_LL[None, :, None, :]).reshape(4096, 4096)

    def masked(tokens_BNC: Tensor, grid: Grid) -> Tensor:
        q, k, v = (mixer.split(project(tokens_BNC)) for project in (mixer.to_q, mixer.to_k, mixer.to_v))
        return mixer.merge(scaled_dot_product_attention(q, k, v, attn_mask=mask_NN))

    tokens = torch.randn(1, 4096, 320)
    torch.testing.assert_close(masked(tokens, grid), mixer(tokens, grid), rtol=0, atol=1e-5)
    took = race({"tiled": mixer, "masked": masked}, 320, grid)
    print(f"tiles are {took['masked'] / took['tiled']:.2f} times as fast")
    assert took["masked"] / took["tiled"] >= 3.0
