"""What holds for every mixer in conf/variant: shape, definition, gradient, price, independence of the batch, refusals.

Tolerances: 1e-10 in fp64 and 1e-5 in fp32 leave a few hundred roundings of outputs of order one.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from variants import SITE, VARIANTS, Teacher, build, factory, tokens

from baselines.projections import ProjectedMixer
from harness.seats.mixer import Grid, Site
from harness.seats.surgery import Seat

GRIDS = [(7, 13), (17, 17), (8, 8), (1, 19), (20, 26)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_forward_equals_its_definition(variant: str, grid: Grid) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        mixer, x_BNC = build(variant, grid, dtype), tokens(grid, dtype=dtype)
        mixed = mixer(x_BNC, grid)
        assert mixed.shape == x_BNC.shape
        assert mixed.dtype == dtype
        torch.testing.assert_close(mixed, mixer.definition(x_BNC, grid), rtol=0, atol=tolerance)


@pytest.mark.parametrize("grid", [*GRIDS, (64, 48)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_price_is_that_of_the_traced_definition(variant: str, grid: Grid) -> None:
    mixer = build(variant, grid).to("meta")
    x_BNC = torch.empty(1, grid[0] * grid[1], 24, device="meta", dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        mixer.definition(x_BNC, grid)
    assert type(mixer.flops(grid)) is int
    assert mixer.flops(grid) == counter.get_total_flops()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_finite_differences(variant: str) -> None:
    site = Site(SITE.path, channels=8, heads=2)
    torch.manual_seed(3)
    mixer = factory(variant)(site, Teacher(8)).double()
    grid = (4, 5)
    x_BNC = tokens(grid, batch=1, channels=8).requires_grad_()
    names = [name for name, _ in mixer.named_parameters()]

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        values = dict(zip(names, parameters, strict=True))
        mixed: torch.Tensor = torch.func.functional_call(mixer, values, (x, grid))
        return mixed

    assert torch.autograd.gradcheck(run, (x_BNC, *mixer.parameters()), fast_mode=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradients_of_forward_are_those_of_the_definition(variant: str) -> None:
    grid = (9, 14)
    mixer, x_BNC = build(variant), tokens(grid).requires_grad_()
    weights = torch.linspace(-1, 1, x_BNC.numel(), dtype=torch.float64).view_as(x_BNC)
    inputs = (x_BNC, *mixer.parameters())
    fast, slow = (
        torch.autograd.grad((run(x_BNC, grid) * weights).sum(), inputs) for run in (mixer.forward, mixer.definition)
    )
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_does_not_depend_on_its_batch(variant: str) -> None:
    grid = (9, 10)
    mixer, x_BNC = build(variant), tokens(grid, batch=3)
    together = mixer(x_BNC, grid)
    for image in range(3):
        torch.testing.assert_close(mixer(x_BNC[image : image + 1], grid)[0], together[image], rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_that_do_not_fill_the_grid_are_refused_in_a_sentence(variant: str) -> None:
    with pytest.raises(ValueError, match=r"^63 tokens do not fill a grid of 8 x 8 = 64: hand over the grid"):
        build(variant)(tokens((7, 9)), (8, 8))


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_attention_mask_is_refused_in_a_sentence(variant: str) -> None:
    seat, x_BNC = Seat(SITE, build(variant)), tokens((8, 8))
    with pytest.raises(
        ValueError, match=r"^the seat at down_blocks.0.* was given attention_mask, which a mixer cannot"
    ):
        seat(x_BNC, attention_mask=torch.zeros(2, 1, 64))
    torch.testing.assert_close(seat(x_BNC, token_grid=(8, 8)), seat.mixer(x_BNC, (8, 8)), rtol=0, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_heads_that_do_not_divide_the_channels_are_refused_where_there_are_heads(variant: str) -> None:
    site = Site(SITE.path, channels=24, heads=5)
    if isinstance(build(variant), ProjectedMixer):
        with pytest.raises(ValueError, match=r"^5 heads do not divide 24 channels: choose a divisor of 24$"):
            factory(variant)(site, Teacher(24))
    else:
        assert not hasattr(factory(variant)(site, Teacher(24)), "heads")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_mixer_for_a_layer_without_memory_takes_none(variant: str) -> None:
    with torch.device("meta"):
        teacher = Teacher(SITE.channels)
    mixer = factory(variant)(SITE, teacher)
    assert all(parameter.is_meta for parameter in mixer.parameters())
    assert mixer(torch.empty(1, 63, 24, device="meta"), (7, 9)).shape == (1, 63, 24)


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_stays_near_single_precision(variant: str) -> None:
    grid = (12, 12)
    x_BNC = tokens(grid, dtype=torch.float32)
    single = build(variant, dtype=torch.float32)(x_BNC, grid)
    half = build(variant, dtype=torch.bfloat16)(x_BNC.bfloat16(), grid)
    assert half.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits; a few roundings of an output of this spread, the merging of near ties aside.
    assert (half.float() - single).abs().mean() < (0.2 if variant == "token_merging" else 0.03) * single.std()


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast_stays_near_single_precision_where_no_gradient_is_recorded(variant: str) -> None:
    grid = (12, 12)
    mixer, x_BNC = build(variant, dtype=torch.float32), tokens(grid, dtype=torch.float32)
    with torch.no_grad():
        single = mixer(x_BNC, grid)
        with torch.autocast("cpu", torch.bfloat16):
            half = mixer(x_BNC, grid)
    # As many roundings; the tokens themselves are not rounded, so that the same ones merge.
    assert (half.float() - single).abs().mean() < 0.03 * single.std()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_note_is_a_sentence_without_a_line_break(variant: str) -> None:
    for grid in ((8, 8), (64, 48)):
        note = build(variant).note(grid)
        assert note == note.strip()
        assert "\n" not in note
