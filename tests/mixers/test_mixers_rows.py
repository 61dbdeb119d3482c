"""The further rows against their methods written a second time: windows, merging, compression, pooling, convolution."""

import math

import pytest
import torch

from baselines import (
    DepthwiseConvolution,
    GlobalPooling,
    KeyValueCompression,
    SelfAttention,
    ShiftedWindowAttention,
    TokenMerging,
)
from harness.seats.mixer import Grid, Site


def masked_attention(mixer: torch.nn.Module, x_NC: torch.Tensor, seen_NN: torch.Tensor) -> torch.Tensor:
    """Dense attention of one image with a mask."""
    q, k, v = (project(x_NC).unflatten(-1, (mixer.heads, -1)) for project in (mixer.to_q, mixer.to_k, mixer.to_v))
    scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~seen_NN, -math.inf).softmax(-1)
    return mixer.to_out[0](torch.einsum("hij,jhd->ihd", weights, v).flatten(1))


@pytest.mark.parametrize(("grid", "size", "shift"), [((8, 12), 4, 0), ((8, 12), 4, 2), ((7, 13), 4, 2), ((5, 3), 8, 4)])
@torch.no_grad()
def test_windows_are_swins_regions(grid: Grid, size: int, shift: int) -> None:
    torch.manual_seed(0)
    mixer = ShiftedWindowAttention(12, 3, size, shift).double()
    x_NC = torch.randn(grid[0] * grid[1], 12, dtype=torch.float64)
    rows, columns = ((torch.arange(length) - shift).div(size, rounding_mode="floor") for length in grid)
    region = (100 * rows[:, None] + columns).flatten()
    expected = masked_attention(mixer, x_NC, region[:, None] == region)
    torch.testing.assert_close(mixer(x_NC[None], grid)[0], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_shift_is_swins_roll_with_its_mask() -> None:
    torch.manual_seed(0)
    mixer, (height, width), size, shift = ShiftedWindowAttention(12, 3, 4, 2).double(), (8, 12), 4, 2
    x = torch.randn(height, width, 12, dtype=torch.float64)
    rolled = x.roll((-shift, -shift), (0, 1))
    bands = [torch.tensor([0] * (side - size) + [1] * (size - shift) + [2] * shift) for side in (height, width)]
    region = bands[0][:, None] * 3 + bands[1]
    window = torch.arange(height)[:, None] // size * 100 + torch.arange(width) // size
    label = (window * 10 + region).flatten()
    mixed = masked_attention(mixer, rolled.flatten(0, 1), label[:, None] == label)
    expected = mixed.view(height, width, 12).roll((shift, shift), (0, 1)).flatten(0, 1)
    torch.testing.assert_close(mixer(x.view(1, -1, 12), (height, width))[0], expected, rtol=0, atol=1e-12)


def test_every_second_site_shifts_by_half_a_window() -> None:
    from variants import Teacher

    paths = [f"transformer_blocks.{block}.attn1" for block in range(4)]
    mixers = [ShiftedWindowAttention.for_site(Site(path, 12, 3), Teacher(12)) for path in paths]
    assert [mixer.shift for mixer in mixers] == [0, 4, 0, 4]
    assert ShiftedWindowAttention.for_site(Site(paths[1], 12, 3), Teacher(12), shift=0).shift == 0


def merged_by_hand(mixer: TokenMerging, x_NC: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Token merging of one image, token by token."""
    height, width = grid
    tall, wide = min(2, height), min(2, width)
    targets = [y * width + x for y in range(0, height - tall + 1, tall) for x in range(0, width - wide + 1, wide)]
    sources = [place for place in range(height * width) if place not in targets]
    unit = x_NC / x_NC.norm(dim=1, keepdim=True)
    best = {source: max(targets, key=lambda target: float(unit[source] @ unit[target])) for source in sources}
    ranked = sorted(sources, key=lambda source: -float(unit[source] @ unit[best[source]]))
    gone = ranked[: min(len(sources), int(height * width * mixer.ratio))]
    left = [place for place in range(height * width) if place not in gone]
    groups = [[place, *(source for source in gone if best[source] == place)] for place in left]
    short = torch.stack([x_NC[group].mean(dim=0) for group in groups])
    mixed = masked_attention(mixer, short, torch.ones(len(left), len(left), dtype=torch.bool))
    return torch.stack([mixed[left.index(best[place] if place in gone else place)] for place in range(height * width)])


@pytest.mark.parametrize("grid", [(6, 8), (7, 5), (1, 9)])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.9])
@torch.no_grad()
def test_token_merging_is_its_steps_by_hand(grid: Grid, ratio: float) -> None:
    torch.manual_seed(0)
    mixer = TokenMerging(12, 3, ratio).double()
    x_BNC = torch.randn(2, grid[0] * grid[1], 12, dtype=torch.float64)
    expected = torch.stack([merged_by_hand(mixer, x_NC, grid) for x_NC in x_BNC])
    torch.testing.assert_close(mixer(x_BNC, grid), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_merging_tokens_that_are_alike_changes_nothing() -> None:
    torch.manual_seed(0)
    grid, whole, mixer = (4, 6), SelfAttention(12, 3).double(), TokenMerging(12, 3, 0.75).double()
    mixer.load_state_dict(whole.state_dict())
    cells = torch.randn(1, 2, 3, 12, dtype=torch.float64)
    x_BNC = cells.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)
    torch.testing.assert_close(mixer(x_BNC, grid), whole(x_BNC, grid), rtol=0, atol=1e-12)


@torch.no_grad()
def test_fresh_compression_averages_cells_and_normalises_them() -> None:
    torch.manual_seed(0)
    mixer = KeyValueCompression(12, 3, 2).double()
    x_BNC = torch.randn(1, 35, 12, dtype=torch.float64)
    pooled = []
    for project in (mixer.to_k, mixer.to_v):
        cells = project(x_BNC)[0].view(5, 7, 12)[:4, :6].reshape(2, 2, 3, 2, 12).mean(dim=(1, 3)).flatten(0, 1)
        pooled.append(
            (cells - cells.mean(-1, keepdim=True)) / (cells.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        )
    q, k, v = (part.unflatten(-1, (3, 4)) for part in (mixer.to_q(x_BNC)[0], *pooled))
    weights = (torch.einsum("ihd,jhd->hij", q, k) / 2).softmax(-1)
    expected = mixer.to_out[0](torch.einsum("hij,jhd->ihd", weights, v).flatten(1))
    torch.testing.assert_close(mixer(x_BNC, (5, 7))[0], expected, rtol=0, atol=1e-12)
    assert mixer.note((5, 7)) == "no keys from the last 1 rows and 1 columns"


@torch.no_grad()
def test_compression_by_one_is_self_attention() -> None:
    torch.manual_seed(0)
    mixer, whole = KeyValueCompression(12, 3, 1).double(), SelfAttention(12, 3).double()
    mixer.load_state_dict(whole.state_dict())
    x_BNC = torch.randn(2, 35, 12, dtype=torch.float64)
    torch.testing.assert_close(mixer(x_BNC, (5, 7)), whole(x_BNC, (5, 7)), rtol=0, atol=1e-12)
    assert mixer.flops((5, 7)) == whole.flops((5, 7))


@torch.no_grad()
def test_pooling_gives_every_token_the_mapped_mean() -> None:
    torch.manual_seed(0)
    mixer, x_BNC = GlobalPooling(6), torch.randn(2, 12, 6)
    expected = mixer.project(x_BNC.sum(1) / 12)
    assert all(torch.allclose(mixer(x_BNC, (3, 4))[:, token], expected, atol=1e-6) for token in range(12))


@torch.no_grad()
def test_a_depthwise_convolution_sees_no_further_than_half_its_kernel() -> None:
    torch.manual_seed(0)
    mixer, x_BNC = DepthwiseConvolution(6, 5).double(), torch.zeros(2, 81, 6, dtype=torch.float64)
    x_BNC[1, 40] = 1
    change = (mixer(x_BNC, (9, 9))[1] - mixer(x_BNC, (9, 9))[0]).abs().sum(-1).view(9, 9) > 1e-12
    assert change[2:7, 2:7].all()
    assert change.sum() == 25


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ShiftedWindowAttention(12, 3, 0), "window_size is 0: a window has at least 1 token along each side"),
        (lambda: ShiftedWindowAttention(12, 3, 4, 4), "shift is 4: give 0 to 3 for windows of 4"),
        (lambda: TokenMerging(12, 3, 1.0), "ratio is 1: give the share of tokens to merge, from 0 to below 1"),
        (lambda: KeyValueCompression(12, 3, 0), "ratio is 0: give 1 for none, or the number of tokens along each side"),
        (
            lambda: KeyValueCompression(12, 3, 2).flops((1, 9)),
            "ratio 2 empties a map of 1 x 9 tokens: choose a smaller",
        ),
        (lambda: DepthwiseConvolution(12, 4), "kernel_size is 4, but the kernel needs a centre: give an odd number"),
    ],
)
def test_settings_that_make_no_mixer_are_refused_in_a_sentence(make: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        make()  # type: ignore[operator]
