"""Alternation: the teacher is itself, who begins takes turns, and the ratio holds under noise that has a memory."""

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import tiny_pipelines
import torch
from torch import Tensor, nn

from baselines import LinFusionAttention, SelfAttention
from harness.measured.alternation import FLOOR, Pair, Sides, alternate, ratio_of, teacher_flops
from harness.measured.timing import wall_clock
from harness.models.model import Model
from harness.models.unet import UNetModel
from harness.records.case import Resolution
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import seated
from harness.seats.teacher import TeacherAttention

TRIALS = 40
PLANTED = 1.10


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return tiny_pipelines.model("sd", tmp_path_factory.mktemp("sd")).load()


def call(model: Model, size: int = 64) -> Tensor:
    with torch.no_grad():
        prediction: Tensor = model.denoiser(**model.example(Resolution(size, size)))[0]
    return prediction


# The two sides


def test_the_teacher_in_the_seats_is_the_denoiser_bit_for_bit_and_the_variant_comes_back(model):
    untouched = call(model)
    sides = Sides(LinFusionAttention.for_site)
    with seated(model.denoiser, sides):
        variant = call(model)
        sides.seat_teacher(model.denoiser)
        assert torch.equal(call(model), untouched)
        sides.seat_variant(model.denoiser)
        assert torch.equal(call(model), variant)
        assert not torch.equal(variant, untouched)
        sides.seat_teacher(model.denoiser)
    assert torch.equal(call(model), untouched)


def test_the_teachers_price_is_that_of_self_attention(model):
    with seated(model.denoiser, Sides(SelfAttention.for_site)) as seats:
        call(model)
        prices = [seat.mixer.flops(seat.grid) for seat in seats.values()]
        assert teacher_flops(model.denoiser, batch=3) == 3 * sum(prices)


# The pairs


def test_who_begins_takes_turns():
    begun: list[str] = []

    def side(name: str) -> float:
        begun.append(name)
        return 10.0

    pairs = alternate(lambda: side("V"), lambda: side("T"), seconds=0.2)
    assert "".join(begun) == "VTTV" * 5
    assert pairs == ((10.0, 10.0),) * 10


@pytest.mark.parametrize(
    ("pair_ms", "count"),
    [
        (20, 50),  # the second is full
        (150, 10),  # longer than that, for the tenth block
        (300, 7),  # twice as long, and no further
        (2500, 1),
    ],
)
def test_the_number_of_pairs_follows_the_budget(pair_ms, count):
    assert len(alternate(lambda: pair_ms / 2, lambda: pair_ms / 2, seconds=1.0)) == count


# The ratio


def test_a_constant_ratio_is_found_through_any_drift():
    drifting = [(1.5 * pace, pace) for pace in range(10, 110)]
    ratio = ratio_of(drifting)
    assert ratio.value == pytest.approx(1.5)
    assert ratio.low == pytest.approx(1.5)
    assert ratio.high == pytest.approx(1.5)
    assert ratio.told_apart


def test_one_wild_call_does_not_move_a_block():
    pairs = [(10.0, 10.0)] * 100
    pairs[35] = (900.0, 10.0)
    assert ratio_of(pairs).value == 1.0


def test_without_a_budget_there_is_a_pair():
    assert len(alternate(lambda: 1.0, lambda: 1.0, seconds=0.0)) == 1


def test_five_pairs_have_no_interval_and_tell_nothing_apart():
    ratio = ratio_of([(20.0, 10.0)] * 5)
    assert (ratio.value, ratio.low, ratio.high, ratio.told_apart) == (pytest.approx(2.0), None, None, False)


@pytest.mark.parametrize(
    ("factor", "apart"), [(1 + FLOOR / 2, False), (1 + 2 * FLOOR, True), (1 / (1 + 2 * FLOOR), True)]
)
def test_what_two_seatings_of_the_same_code_may_differ_by_is_no_difference(factor, apart):
    assert ratio_of([(factor * 10, 10.0)] * 20).told_apart is apart


def shared_machine(calls: int, seed: int) -> list[float]:
    """How much longer each call takes on a machine with company.

    A made-up model in three parts, fitted to no machine: a pace that wanders (autoregressive, 0.98 from call to
    call, 15 % in all), another's bursts that double a call and last ten of them, and 4 % of each call's own.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(calls, 2, generator=generator).tolist()
    turns = torch.rand(calls, generator=generator).tolist()
    wander, burst, slow = 0.0, False, []
    for (step, own), turn in zip(noise, turns, strict=True):
        wander = 0.98 * wander + 0.15 * math.sqrt(1 - 0.98**2) * step
        burst = turn > 0.1 if burst else turn < 0.01
        slow.append(math.exp(wander + 0.04 * abs(own)) * (2.0 if burst else 1.0))
    return slow


def noisy_pairs(factor: float, seed: int) -> tuple[Pair, ...]:
    """1.5 seconds of a 10 ms call in alternation, the variant slower by a factor."""
    slow = iter(shared_machine(400, seed))
    return alternate(lambda: 10 * factor * next(slow), lambda: 10 * next(slow), seconds=1.5)


def test_identical_variants_are_told_apart_in_at_most_5_percent_of_40_noisy_trials():
    assert sum(ratio_of(noisy_pairs(1.0, seed)).told_apart for seed in range(TRIALS)) <= 2


def test_a_planted_slow_down_of_10_percent_is_found_in_at_least_95_percent_of_40_noisy_trials():
    ratios = [ratio_of(noisy_pairs(PLANTED, seed)) for seed in range(TRIALS)]
    assert sum(ratio.told_apart and ratio.value > 1 for ratio in ratios) >= 38


def test_two_timings_one_after_the_other_would_have_told_identical_variants_apart():
    """Why it is done: intervals of two separate medians, on the same noise, exclude equality far too often."""
    from harness.records.statistics import bootstrap

    apart = 0
    for seed in range(TRIALS):
        slow = shared_machine(200, seed)
        (low, high), (under, over) = (bootstrap(half, np.median, draws=200) for half in (slow[:100], slow[100:]))
        apart += high < under or over < low
    assert apart > TRIALS / 4


# On this machine: pytest --slow tests/test_alternation.py, when it is idle


class Slower(TokenMixer):
    """The teacher's attention, and then nothing for a while."""

    def __init__(self, attention: nn.Module, extra_ms: float) -> None:
        super().__init__()
        self.own = TeacherAttention(attention)
        self.extra_ms = extra_ms

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        mixed_BNC: Tensor = self.own(tokens_BNC, grid)
        end = time.perf_counter() + self.extra_ms / 1e3
        while time.perf_counter() < end:
            pass
        return mixed_BNC


@contextmanager
def two_sides(model: Model, extra_ms: float) -> Iterator[tuple[Sides, nn.Module]]:
    def factory(site: Site, attention: nn.Module) -> TokenMixer:
        return Slower(attention, extra_ms) if extra_ms else TeacherAttention(attention)

    sides = Sides(factory)
    with seated(model.denoiser, sides), torch.no_grad():
        yield sides, model.denoiser


def trials(model: Model, planted: float) -> int:
    """How many of 40 trials tell the sides apart; each seats them anew and takes 1.5 seconds of a call at 64 pixels.

    What is planted is a share of the call at that moment: a shared machine changes its pace within minutes.
    """
    arguments = model.example(Resolution(64, 64))
    apart = 0
    for _ in range(TRIALS):
        with torch.no_grad():
            call_ms = statistics.median(wall_clock(lambda: model.denoiser(**arguments)) for _ in range(20))
        with two_sides(model, (planted - 1) * call_ms / len(model.sites())) as (sides, denoiser):

            def timed(seat, denoiser=denoiser) -> float:  # type: ignore[no-untyped-def]
                seat(denoiser)
                return wall_clock(lambda: denoiser(**arguments))

            timed(sides.seat_teacher)
            pairs = alternate(lambda: timed(sides.seat_variant), lambda: timed(sides.seat_teacher), seconds=1.5)
        apart += ratio_of(pairs).told_apart
    return apart


@pytest.fixture(scope="module")
def shipped() -> Model:
    return UNetModel("tiny_sd", "pkg://harness.shapes/weights/tiny_sd").load()


@pytest.mark.slow
def test_identical_variants_are_not_told_apart_on_this_machine(shipped):
    assert trials(shipped, 1.0) <= 2


@pytest.mark.slow
def test_a_planted_slow_down_of_10_percent_is_found_on_this_machine(shipped):
    assert trials(shipped, PLANTED) >= 38
