"""Mass, receptive field, entropy and artefacts of maps whose answers are known by closed form."""

import math

import pytest
import torch
from known_maps import Grid, delta, gaussian, uniform

from harness.locality.bias import artefact_tokens, entropy
from harness.locality.mass import (
    attention_score_mass,
    effective_receptive_field,
    mass_curve,
    smallest_window,
    uniform_mass,
    window_sizes,
)
from harness.locality.offsets import all_queries, offset_pairs, offset_sums, rows_at_once, spread_queries

GRIDS = [(16, 16), (7, 13), (24, 9), (1, 11), (1, 1)]
EXACT = 1e-9
"""Sums of float64: what differs is the order of adding up."""


def gaussian_mass(grid: Grid, width: float, size: int) -> float:
    """The mass of a Gaussian within a window: a product of two axes, each added up one by one, borders included."""
    shares = []
    for side in grid:
        weight = {d: math.exp(-(d**2) / (2 * width**2)) for d in range(-80, 81)}
        inside = [sum(weight[k - q] for k in range(side) if abs(k - q) < size / 2) for q in range(side)]
        shares.append(sum(inside) / side / sum(weight.values()))
    return shares[0] * shares[1]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [1, 2, 5, 9, 31])
def test_a_gaussians_mass_is_the_product_of_its_axes(grid: Grid, size: int) -> None:
    found = attention_score_mass(gaussian(grid, 1.5), grid, size)
    assert found == pytest.approx(gaussian_mass(grid, 1.5, size), rel=EXACT)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_curve_holds_the_mass_of_every_window(grid: Grid) -> None:
    sums = offset_sums(gaussian(grid, 2.0)[None], all_queries(grid), grid)[0]
    wanted = [gaussian_mass(grid, 2.0, size) * grid[0] * grid[1] for size in window_sizes(grid)]
    assert mass_curve(sums).tolist() == pytest.approx(wanted, rel=EXACT)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [0, 1, 4, 5, 40])
def test_the_uniform_mass_is_that_of_the_uniform_map(grid: Grid, size: int) -> None:
    assert uniform_mass(grid, size) == pytest.approx(attention_score_mass(uniform(grid), grid, size), rel=EXACT)


def test_a_window_of_fifteen_holds_half_of_a_uniform_map_of_sixteen() -> None:
    """Along an axis 36 of the 256 pairs are eight and more apart to each side."""
    assert uniform_mass((16, 16), 15) == pytest.approx(((256 - 72) / 256) ** 2, rel=EXACT)
    assert effective_receptive_field(uniform((16, 16)), (16, 16)) == 23  # 20 pairs left out: 0.85; 21 leaves 30: 0.78


@pytest.mark.parametrize("grid", GRIDS)
def test_attention_to_oneself_has_the_smallest_receptive_field(grid: Grid) -> None:
    assert effective_receptive_field(delta(grid), grid) == 1
    assert effective_receptive_field(delta(grid), grid, share=1.0) == 1


@pytest.mark.parametrize(("width", "wanted"), [(0.3, 1), (1.0, 5), (2.0, 7), (4.0, 13)])
def test_a_gaussians_receptive_field_grows_with_its_width(width: float, wanted: int) -> None:
    """On 64 tokens a side; without borders 80 % of a plane's Gaussian lie within 1.62 widths along both axes."""
    grid = (64, 64)
    total = gaussian_mass(grid, width, 127)
    assert wanted == next(k for k in range(1, 128, 2) if gaussian_mass(grid, width, k) >= 0.8 * total)
    assert effective_receptive_field(gaussian(grid, width), grid) == wanted


def test_the_receptive_field_counts_shares_of_what_the_map_holds() -> None:
    grid = (9, 9)
    assert effective_receptive_field(0.01 * gaussian(grid, 1.0), grid) == effective_receptive_field(
        gaussian(grid, 1.0), grid
    )


def test_a_share_reached_to_float_precision_is_reached() -> None:
    five_NN = torch.zeros(5, 5, dtype=torch.float32)
    five_NN[torch.arange(5), torch.arange(5)] = 0.8
    five_NN[torch.arange(5), (torch.arange(5) + 2) % 5] = 0.2
    assert effective_receptive_field(five_NN, (1, 5)) == 1


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, math.nan])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share=.* is not possible: give more than 0 and at most 1"):
        effective_receptive_field(delta((3, 3)), (3, 3), share)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_map_that_holds_nothing_has_no_receptive_field(value: float) -> None:
    with pytest.raises(ValueError, match="where nothing is left there is no receptive field"):
        effective_receptive_field(torch.full((9, 9), value), (3, 3))
    with pytest.raises(ValueError, match="there is no receptive field"):
        smallest_window(torch.tensor([0.0, 0.0]))


@pytest.mark.parametrize("grid", GRIDS)
def test_whole_rows_add_up_as_single_queries_do(grid: Grid) -> None:
    maps_MQN = torch.rand(3, grid[0] * grid[1], grid[0] * grid[1], dtype=torch.float64)
    for first in {0, grid[0] // 2}:
        queries_Q = all_queries(grid)[grid[1] * first :]
        at_once = rows_at_once(maps_MQN[:, queries_Q], first, grid)
        assert torch.allclose(at_once, offset_sums(maps_MQN[:, queries_Q], queries_Q, grid), rtol=1e-12)


def test_maps_of_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="give 3 queries with 6 keys"):
        offset_sums(torch.ones(1, 2, 6), torch.arange(3), (2, 3))


@pytest.mark.parametrize("grid", GRIDS)
def test_every_pair_of_query_and_key_is_counted_once(grid: Grid) -> None:
    """A map of ones adds up to the pairs, whichever queries there are and however often."""
    counts_N = torch.randint(3, (grid[0] * grid[1],), generator=torch.Generator().manual_seed(0))
    queries_Q = torch.repeat_interleave(all_queries(grid), counts_N)
    ones_1QN = torch.ones(1, len(queries_Q), grid[0] * grid[1])
    assert torch.equal(offset_pairs(counts_N, grid), offset_sums(ones_1QN, queries_Q, grid)[0].double())


@pytest.mark.parametrize("grid", [(16, 16), (64, 64), (5, 100), (1, 1)])
@pytest.mark.parametrize("most", [1, 10, 256])
def test_spread_queries_are_a_centred_lattice(grid: Grid, most: int) -> None:
    chosen = spread_queries(grid, most)
    assert 1 <= len(chosen) <= most
    assert len(chosen.unique()) == len(chosen)
    if grid[0] * grid[1] <= most:
        assert torch.equal(chosen, all_queries(grid))
    rows = (chosen // grid[1]).unique()
    assert abs(int(rows[0]) - (grid[0] - 1 - int(rows[-1]))) <= 1


def test_entropy_is_that_of_the_keys_that_share_it() -> None:
    maps_MQN = torch.stack([delta((4, 4)), uniform((4, 4))])
    assert entropy(maps_MQN).tolist() == pytest.approx([0.0, math.log(16)], abs=1e-12)


def test_a_token_that_all_queries_look_at_is_an_artefact() -> None:
    tokens = 64
    map_NN = 0.75 * delta((8, 8)) + 0.25 * torch.eye(tokens)[[tokens - 1]].expand(tokens, -1)
    received_N = map_NN.mean(dim=0)
    assert artefact_tokens(received_N, factor=5).tolist() == [tokens - 1]
    assert float(received_N[-1]) == pytest.approx(0.25 + 0.75 / tokens, rel=EXACT)
    assert artefact_tokens(delta((8, 8)).mean(dim=0), factor=5).tolist() == []
