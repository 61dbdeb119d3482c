"""Steps in a history: found where they are, not where a single result strays, and hardly ever in noise."""

import random
import statistics

import pytest

from harness.regression.steps import Step, _spreads, steps_of


def test_the_running_spread_is_that_of_the_definition():
    values = [random.Random(0).gauss(0, 1) for _ in range(30)]
    for n, spread in enumerate(_spreads(values), 1):
        middle = statistics.median(values[:n])
        assert spread == pytest.approx(sum(abs(value - middle) for value in values[:n]), abs=1e-9)


def test_exact_numbers_step_at_once_and_equal_ones_never():
    assert steps_of([5, 5, 5, 6]) == [Step(3, 5, 6)]
    assert steps_of([5] * 9) == []
    assert steps_of([]) == steps_of([1]) == []


def noisy(seed: int, *levels: tuple[int, float]) -> list[float]:
    source = random.Random(seed)
    return [source.gauss(level, 1.0) for n, level in levels for _ in range(n)]


def test_a_step_of_five_times_the_noise_is_found_at_its_place_with_both_levels():
    (step,) = steps_of(noisy(1, (12, 0.0), (10, 5.0)))
    assert step.index == 12
    assert step.before == pytest.approx(0, abs=1)
    assert step.after == pytest.approx(5, abs=1)


def test_a_way_up_and_down_again_is_two_steps():
    assert [step.index for step in steps_of(noisy(3, (10, 0.0), (10, 6.0), (10, 0.0)))] == [10, 20]


def test_one_stray_result_is_no_step():
    values = noisy(2, (20, 0.0))
    values[9] = 30.0
    assert steps_of(values) == []


@pytest.mark.parametrize("n", [8, 20, 60])
def test_noise_alone_has_a_step_in_at_most_one_series_in_twenty(n):
    assert sum(bool(steps_of(noisy(seed, (n, 0.0)))) for seed in range(100)) <= 5
