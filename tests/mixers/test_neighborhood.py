"""Neighborhood Attention against loops over single queries and keys, written from NATTEN's rule alone."""

import math
from typing import Any

import pytest
import torch

from baselines import NeighborhoodAttention
from baselines.neighborhood import neighbours
from baselines.neighborhood_tiled import TILE
from harness.seats.mixer import Grid, Site


def keys_of(query: int, length: int, kernel: int, dilation: int) -> list[int]:
    """The keys of a query along an axis, by NATTEN's rule in plain Python."""
    residue = query % dilation
    members = list(range(residue, length, dilation))
    start = min(max(query // dilation - kernel // 2, 0), len(members) - kernel)
    return members[start : start + kernel]


def brute_force(
    mixer: NeighborhoodAttention, x_NC: torch.Tensor, grid: Grid, kernel: Grid, dilation: Grid
) -> torch.Tensor:
    """One query, one head at a time."""
    q, k, v = mixer.to_q(x_NC), mixer.to_k(x_NC), mixer.to_v(x_NC)
    size = mixer.channels // mixer.heads
    mixed = torch.zeros_like(x_NC)
    for row in range(grid[0]):
        for column in range(grid[1]):
            query = row * grid[1] + column
            keys = [
                y * grid[1] + x
                for y in keys_of(row, grid[0], kernel[0], dilation[0])
                for x in keys_of(column, grid[1], kernel[1], dilation[1])
            ]
            for head in range(mixer.heads):
                part = slice(head * size, (head + 1) * size)
                weights = torch.softmax(k[keys, part] @ q[query, part] / math.sqrt(size), dim=0)
                mixed[query, part] = weights @ v[keys, part]
    return mixer.to_out[0](mixed)


@pytest.mark.parametrize(
    ("grid", "kernel", "dilation"),
    [
        ((7, 13), 3, 1),
        ((7, 13), 4, 1),
        ((7, 13), 7, 1),
        ((9, 11), 6, 1),
        ((2 * TILE + 1, TILE - 1), 5, 1),
        ((12, 15), 3, 2),
        ((11, 16), 4, 2),
        ((15, 16), 5, 3),
        ((6, 6), 1, 1),
        ((6, 6), 2, 3),
    ],
)
@torch.no_grad()
def test_both_ways_equal_a_loop_over_queries(grid: Grid, kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    mixer = NeighborhoodAttention(10, 2, kernel, dilation, bias=True).double()
    x_BNC = torch.randn(2, grid[0] * grid[1], 10, dtype=torch.float64)
    expected = torch.stack([brute_force(mixer, x, grid, (kernel, kernel), (dilation, dilation)) for x in x_BNC])
    torch.testing.assert_close(mixer(x_BNC, grid), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(mixer.definition(x_BNC, grid), expected, rtol=0, atol=1e-12)
    assert mixer.note(grid) == "backend tiled"


@pytest.mark.parametrize(
    ("grid", "kernel", "dilation", "seen", "step", "note"),
    [
        ((8, 8), 13, 1, (8, 8), (1, 1), "kernel 13x13 dilation 1 clamped to 8x8 dilation 1x1 on a 8x8 grid"),
        ((1, 17), 13, 1, (1, 13), (1, 1), "kernel 13x13 dilation 1 clamped to 1x13 dilation 1x1 on a 1x17 grid"),
        ((7, 13), 5, 2, (3, 5), (2, 2), "kernel 5x5 dilation 2 clamped to 3x5 dilation 2x2 on a 7x13 grid"),
        ((2, 13), 3, 4, (1, 3), (2, 4), "kernel 3x3 dilation 4 clamped to 1x3 dilation 2x4 on a 2x13 grid"),
    ],
)
@torch.no_grad()
def test_a_window_larger_than_the_grid_is_clamped_and_says_so(
    grid: Grid, kernel: int, dilation: int, seen: Grid, step: Grid, note: str
) -> None:
    torch.manual_seed(0)
    mixer = NeighborhoodAttention(8, 2, kernel, dilation).double()
    x_BNC = torch.randn(1, grid[0] * grid[1], 8, dtype=torch.float64)
    expected = brute_force(mixer, x_BNC[0], grid, seen, step)
    torch.testing.assert_close(mixer(x_BNC, grid)[0], expected, rtol=0, atol=1e-12)
    assert mixer.note(grid) == f"backend tiled; {note}"
    assert mixer.flops(grid) == 8 * x_BNC.shape[1] * 64 + 4 * x_BNC.shape[1] * seen[0] * seen[1] * 8


@pytest.mark.parametrize(("length", "kernel", "dilation"), [(9, 4, 2), (13, 13, 1), (14, 3, 4), (5, 5, 1)])
def test_every_query_has_exactly_its_kernel_of_keys(length: int, kernel: int, dilation: int) -> None:
    rows = neighbours(length, kernel, dilation, torch.device("cpu")).tolist()
    assert rows == [keys_of(query, length, kernel, dilation) for query in range(length)]
    assert all(len(set(keys)) == kernel for keys in rows)


@torch.no_grad()
def test_a_window_over_the_whole_grid_is_self_attention() -> None:
    from baselines import SelfAttention

    torch.manual_seed(0)
    mixer, whole = NeighborhoodAttention(16, 2, 9), SelfAttention(16, 2)
    mixer.load_state_dict(whole.state_dict())
    x_BNC = torch.randn(2, 81, 16)
    torch.testing.assert_close(mixer(x_BNC, (9, 9)), whole(x_BNC, (9, 9)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [5, 40, 72, 80])
@torch.no_grad()
def test_any_head_size_works(size: int) -> None:
    torch.manual_seed(0)
    mixer = NeighborhoodAttention(2 * size, 2, 3)
    x_BNC = torch.randn(1, 35, 2 * size)
    torch.testing.assert_close(mixer(x_BNC, (5, 7)), mixer.definition(x_BNC, (5, 7)), rtol=0, atol=1e-5)


def test_no_tensor_of_a_call_grows_faster_than_the_tokens() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
            return result

    mixer = NeighborhoodAttention(80, 2, 13)
    seen = []
    for side in (48, 96):
        with torch.no_grad(), Largest() as largest:
            mixer(torch.randn(1, side * side, 80), (side, side))
        seen.append(largest.elements)
        assert largest.elements < side * side * 80 * 8
    assert seen[1] <= 4 * seen[0]


def test_kernels_may_differ_by_level() -> None:
    kernels = {"down_blocks.0": 7, "*.attentions.1.*": 5, "*": 3}
    paths = {"down_blocks.0.attentions.1.attn1": 7, "up_blocks.0.attentions.1.attn1": 5, "mid_block.attn1": 3}
    for path, kernel in paths.items():
        assert Site(path, 8, 2).pick(kernels, "kernel_size") == kernel


def test_a_site_that_no_pattern_names_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^kernel_size says nothing about site mid_block.attn1: its patterns are down"
    ):
        Site("mid_block.attn1", 8, 2).pick({"down_blocks.0": 7}, "kernel_size")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((10, 3, 5), "3 heads do not divide 10 channels: choose a divisor of 10"),
        ((10, 0, 5), "0 heads do not divide 10 channels: choose a divisor of 10"),
        ((8, 2, 0), "kernel_size is 0: a window has at least 1 key along each side"),
        ((8, 2, 3, 0), "dilation is 0: give 1 for dense windows or more for spread ones"),
        ((8, 2, 3, 1, False, "fast"), "backend 'fast' is not known: choose from auto, tiled, flex, natten"),
    ],
)
def test_what_makes_no_window_is_refused_in_a_sentence(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        NeighborhoodAttention(*arguments)
