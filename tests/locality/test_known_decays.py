"""The high-pass, the decay with distance and the flat bias of maps whose answers are known by closed form."""

import math

import pytest
import torch
from known_maps import Grid, delta, distances, gaussian, uniform

from harness.locality.bias import low_frequency_share
from harness.locality.decay import FORMS, fits, profile
from harness.locality.high_pass import HighPass
from harness.locality.offsets import all_queries, offset_pairs, offset_sums
from harness.seats.mixer import BadInput

GRIDS = [(16, 16), (7, 13), (32, 12)]
FOURIER = 1e-12
"""A float64 transform there and back, of values up to 1."""
SEARCHED = 1e-4
"""The width of a fit is searched for to 1e-7 of its logarithm, and least squares are flat at their minimum."""


def fitted(attention_NN: torch.Tensor, grid: Grid):
    sums = offset_sums(attention_NN[None], all_queries(grid), grid)[0]
    return fits(*profile(sums, offset_pairs(torch.ones(grid[0] * grid[1]), grid)))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_uniform_map_leaves_nothing(grid: Grid) -> None:
    left = HighPass()(uniform(grid), grid)
    assert float(left.max()) < FOURIER
    assert low_frequency_share(float(left.sum(dim=-1).mean())) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("cutoff", [0.05, 0.125, 0.3])
def test_a_wave_keeps_the_gain_of_its_frequency(order: int, cutoff: float) -> None:
    grid, cycles = (8, 16), 2
    wave = torch.cos(2 * math.pi * cycles * torch.arange(16).double() / 16).expand(8, 16).flatten()
    gain = 1 / (1 + (cutoff / (cycles / 16)) ** (2 * order))
    left = HighPass(order, cutoff)(1 + wave, grid)
    assert left == pytest.approx(gain * wave.clamp(min=0), abs=FOURIER)
    both = HighPass(order, cutoff, negative="absolute")(1 + wave, grid)
    assert both == pytest.approx(gain * wave.abs(), abs=FOURIER)


def test_the_gain_is_half_at_the_cut_off_and_nothing_at_rest() -> None:
    gain = HighPass(order=3, cutoff=0.25).gain((8, 8))
    assert gain[0, 0] == 0.0
    assert gain[0, 2] == gain[2, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("grid", GRIDS)
def test_attention_to_oneself_loses_what_the_filter_takes_of_a_point(grid: Grid) -> None:
    """A point's spectrum is flat, so the middle keeps the mean gain of all frequencies."""
    rows, columns = (torch.fft.fftfreq(side).double() for side in grid)
    frequency = (rows[:, None] ** 2 + columns**2).sqrt()
    mean_gain = float((1 / (1 + (0.1 / frequency) ** 4)).mean())
    left = HighPass()(delta(grid), grid)
    assert left.diagonal() == pytest.approx(torch.full_like(left.diagonal(), mean_gain), abs=1e-7)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bias", [0.1, 0.5, 0.9])
def test_the_low_frequency_share_is_linear_in_a_uniform_bias(grid: Grid, bias: float) -> None:
    def share(attention_NN: torch.Tensor) -> float:
        return low_frequency_share(float(HighPass()(attention_NN, grid).sum(dim=-1).mean()))

    sharp = gaussian(grid, 1.0)
    mixed = share((1 - bias) * sharp + bias * uniform(grid))
    assert mixed == pytest.approx(1 - (1 - bias) * (1 - share(sharp)), rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"order": 0}, "order=0 is no Butterworth filter"),
        ({"cutoff": 0.0}, "cutoff=0.0 is no frequency of a grid"),
        ({"cutoff": 0.6}, "cutoff=0.6 is no frequency of a grid"),
        ({"negative": "keep"}, "negative='keep' is not known: choose from clip, absolute"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(settings, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        HighPass(**settings)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("floor", [0.0, 0.002])
def test_each_form_is_known_by_its_own_decay(grid: Grid, form: str, floor: float) -> None:
    attention_NN = 0.2 * torch.from_numpy(FORMS[form](distances(grid).numpy() / 1.7)) + floor
    best = fitted(attention_NN, grid)[0]
    assert best.form == form
    assert best.width == pytest.approx(1.7, rel=SEARCHED)
    assert best.height == pytest.approx(0.2, rel=SEARCHED)
    assert best.floor == pytest.approx(floor, abs=1e-6)
    assert best.error < SEARCHED


@pytest.mark.parametrize("bias", [0.0, 0.3, 0.8])
def test_the_floor_of_a_gaussian_plus_bias_is_the_bias(bias: float) -> None:
    """Rows that sum to one: those at a border are higher, by which the fit is off; 3 % of all attention at most."""
    grid = (20, 28)
    sharp = gaussian(grid, 1.2)
    sharp /= sharp.sum(dim=-1, keepdim=True)
    best = fitted((1 - bias) * sharp + bias * uniform(grid), grid)[0]
    assert best.form == "gaussian"
    assert best.floor * grid[0] * grid[1] == pytest.approx(bias, abs=0.03)
    assert best.width == pytest.approx(1.2, rel=0.03)


def test_a_flat_map_is_flat_in_every_form() -> None:
    for fit in fitted(uniform((9, 9)), (9, 9)):
        flat = FORMS[fit.form](distances((9, 9)).numpy() / fit.width) * fit.height + fit.floor
        assert flat == pytest.approx(1 / 81, rel=1e-6)


def test_a_grid_of_three_distances_has_no_fit() -> None:
    assert fitted(delta((1, 3)), (1, 3)) == []


def test_the_profile_is_the_mean_over_pairs() -> None:
    grid = (5, 6)
    distance, attention, pairs = profile(
        offset_sums(distances(grid)[None], all_queries(grid), grid)[0],
        offset_pairs(torch.ones(grid[0] * grid[1]), grid),
    )
    assert torch.allclose(distance, attention)
    assert pairs.sum() == 30**2
