"""Where mixers begin: nearer to their teacher than they were made, and at the optimum of what least squares can set."""

from functools import partial
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from torch import Tensor
from torch.nn import functional as F
from worlds import Noise

from baselines import LinFusionAttention, ReLULinearAttention
from deltaconv import DeltaConvBlock, imitation
from harness.distillation.informed_start import LeastSquares, begin
from harness.distillation.pair import Pair
from harness.distillation.samples import Samples
from harness.records.case import Resolution

GRID = (6, 7)


def block(**settings: object) -> DeltaConvBlock:
    torch.manual_seed(0)
    return DeltaConvBlock(16, kernel_size=3, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{}, {"gate": "sigmoid"}, {"form": "paper", "scales": (0.5,)}, {"scales": ()}])
def test_least_squares_finds_closing_maps_that_are_there(settings: dict[str, object]) -> None:
    """The target is the block's own with other closing maps: these must come back, up to the ridge's pull."""
    mixer, x_BNC = block(**settings), torch.randn(64, 42, 16)
    for layer in mixer.closing_maps():
        torch.nn.init.normal_(layer.weight)
    with torch.no_grad():
        wanted = mixer(x_BNC, GRID)
    for layer in mixer.closing_maps():
        torch.nn.init.zeros_(layer.weight)
    sums = LeastSquares(mixer)
    sums.add(x_BNC[:32], wanted[:32], GRID)
    sums.add(x_BNC[32:], wanted[32:], GRID)
    sums.solve()
    with torch.no_grad():
        # A ridge of 1 % leaves at most (1 %)^2 of the variance where features have nothing in common; some have.
        assert F.mse_loss(mixer(x_BNC, GRID), wanted) < 2e-3 * wanted.var()


def test_attention_by_offset_is_a_mean_of_maps(attention: torch.nn.Module) -> None:
    """Where every query attends alike, each offset that exists has the share 1 / N."""
    attention.to_q.weight.data.zero_()  # type: ignore[union-attr, operator]
    mean_hHW = imitation.attention_by_offset(attention, torch.randn(2, 42, 16), GRID)
    assert mean_hHW.shape == (2, 11, 13)
    torch.testing.assert_close(mean_hHW, torch.full_like(mean_hHW, 1 / 42))


def test_kernels_are_what_attention_adds_nearby(attention: torch.nn.Module) -> None:
    attention.to_q.weight.data.zero_()  # type: ignore[union-attr, operator]
    kernels_hKK = imitation.kernels_of(attention, [(torch.randn(2, 42, 16), GRID)], 3, 1.0)
    # Uniform attention has no neighbourhood: all of it is the pooling branch's.
    torch.testing.assert_close(kernels_hKK, torch.zeros(2, 3, 3), atol=1e-6, rtol=0)


@pytest.fixture
def attention() -> torch.nn.Module:
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    return Attention(16, heads=2, dim_head=8).requires_grad_(False)


def test_directions_explain_the_most_first(attention: torch.nn.Module) -> None:
    tokens = torch.randn(500, 16)
    found = imitation.directions(attention, tokens, torch.ones(2))
    strengths = [direction.strength for direction in found]
    assert strengths == sorted(strengths, reverse=True)
    assert len(found) == 16
    # What each reads has variance one, so that no kernel begins louder than another.
    torch.testing.assert_close((tokens @ found[0].read_C).var(), torch.tensor(1.0), atol=0.02, rtol=0)


def begun(factory: object, folder: Path, imitate: bool) -> tuple[float, float]:
    """Mean error before and after the start."""
    model = tiny_pipelines.model("sd", folder).load()
    samples = Samples(model, Noise(), [Resolution(32, 32), Resolution(64, 32)], 8, 8, 0.1, 5)  # type: ignore[arg-type]
    torch.manual_seed(5)
    pair = Pair(model, factory, samples)  # type: ignore[arg-type]
    before = sum(errors(pair).values())
    begin(pair, imitate)
    return before, sum(errors(pair).values())


def errors(pair: Pair) -> dict[str, float]:
    """Each mixer's error on the teacher's inputs, on a batch that the start has not seen."""
    kept: dict[str, tuple[Tensor, Tensor]] = {}
    for size, seen in pair.calls(5):
        kept, last = dict(seen), size
    found: dict[str, float] = {}
    with torch.no_grad():
        for path, mixer in pair.mixers.items():
            tokens, wanted = kept[path]
            found[path] = float(F.mse_loss(mixer(tokens, pair.grids[last][path]), wanted) / pair.spread[path])
    return found


@pytest.mark.parametrize("imitate", [False, True])
@pytest.mark.parametrize(
    "factory",
    [
        partial(DeltaConvBlock.for_site, kernel_size=3),
        partial(LinFusionAttention.for_site),
        partial(ReLULinearAttention.for_site),
    ],
    ids=["deltaconv", "linfusion", "relu_linear"],
)
def test_a_start_is_nearer_to_the_teacher(factory: object, imitate: bool, tmp_path: Path) -> None:
    before, after = begun(factory, tmp_path / "teacher", imitate)
    assert after < 0.8 * before
