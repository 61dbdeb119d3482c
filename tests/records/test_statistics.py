"""Intervals: one bootstrap, one jackknife, one t; they know what they should of samples whose truth is known."""

import math
import random
import statistics as known
from dataclasses import replace

import numpy as np
import pytest

from harness.records.statistics import (
    Estimate,
    Jackknife,
    bootstrap,
    holm,
    jackknife,
    mean_of,
    middle,
    t_quantile,
)

DRAWN = [random.Random(0).gauss(0, 1) for _ in range(40)]


@pytest.mark.parametrize(("freedom", "known"), [(1, 12.7062), (5, 2.5706), (10, 2.2281), (19, 2.0930), (100, 1.9840)])
def test_the_quantile_of_students_t_is_that_of_the_tables(freedom: int, known: float) -> None:
    assert t_quantile(freedom) == pytest.approx(known, abs=5e-5)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(5, 2.570582), (19, 2.093024), (100, 1.983972), (math.inf, 1.959964)]
)
def test_quantiles_are_those_of_the_tables(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, abs=1e-6)


def test_the_interval_of_a_mean_is_students():
    found = mean_of(DRAWN)
    error = known.stdev(DRAWN) / math.sqrt(40)
    assert (found.value, found.error) == pytest.approx((known.mean(DRAWN), error))
    assert found.half_width == pytest.approx(t_quantile(39) * error)
    assert replace(found, skew=0.0).high - found.value == pytest.approx(t_quantile(39) * error)


def test_the_interval_of_a_mean_of_skewed_values_reaches_farther_to_the_side_of_the_few():
    """Nine images of ten are right: the mean of all may lie far below this one, and not as far above."""
    found = mean_of([1.0] * 36 + [0.0] * 4)
    assert found.skew == pytest.approx((0.1 - 0.9) / math.sqrt(0.1 * 0.9) / math.sqrt(40))
    assert found.value - found.low > 1.2 * found.half_width
    assert found.high - found.value == pytest.approx(found.half_width)
    turned = -found
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert mean_of([1.0] * 17 + [0.0] * 2).skew == 0  # of few values nobody knows it
    assert mean_of([1.0] * 40).skew == 0


@pytest.mark.parametrize("skew", [-0.6, -0.1, 0.0, 0.3])
def test_an_end_of_an_interval_is_where_p_falls_below_a_fortieth(skew):
    found = Estimate(2.0, 0.3, 49, skew)
    assert max(found.above(found.low), (-found).above(-found.high)) == pytest.approx(0.025)
    assert found.above(found.low - 0.01) < 0.025 < found.above(found.low + 0.01)
    nearly, plain = Estimate(2.0, 0.3, 49, 1e-17), Estimate(2.0, 0.3, 49)
    assert (nearly.low, nearly.above(1.5)) == pytest.approx((plain.low, plain.above(1.5)))


def test_seeds_of_one_prompt_are_no_independent_images():
    single, fourfold = mean_of(DRAWN), mean_of(DRAWN * 4, list(range(40)) * 4)
    assert (fourfold.value, fourfold.error, fourfold.freedom) == pytest.approx(
        (single.value, single.error, single.freedom)
    )
    with pytest.raises(ValueError, match="at least two values of different prompts"):
        mean_of([1.0, 2.0], ["a", "a"])


@pytest.mark.parametrize("pairs", [False, True])
def test_the_jackknife_of_a_mean_is_its_standard_error(pairs):
    def without(gone):
        return known.mean(value for i, value in enumerate(DRAWN) if i not in gone)

    assert jackknife(40, without, pairs).error == pytest.approx(known.stdev(DRAWN) / math.sqrt(40))


def test_pairs_take_back_half_of_what_a_quadratic_number_counts_twice():
    """The square of a mean around zero: of its variance all is between pairs."""

    def without(gone):
        return known.mean(value for i, value in enumerate(values) if i not in gone) ** 2

    source = random.Random(3)
    ratios = []
    for _ in range(60):
        values = [source.gauss(0, 1) for _ in range(20)]
        ratios.append((jackknife(20, without, True).error / jackknife(20, without).error) ** 2)
    assert all(0.499 < ratio < 1.001 for ratio in ratios)
    assert known.mean(ratios) < 0.95


def test_an_interval_of_factors_is_students_of_the_logarithm_and_begins_at_zero_for_what_is_as_good_as_zero():
    spread = Jackknife(0.1, (1.0,) * 20)
    half = t_quantile(19) * 0.1
    assert spread.times(2.0) == pytest.approx((2 * math.exp(-half / 2), 2 * math.exp(half / 2)))
    assert spread.times(0.01) == pytest.approx((0.0, 0.01 + half))
    assert Jackknife(0.0, (0.0,) * 20).times(0.0) == (0.0, 0.0)
    assert Jackknife(0.0, (1.0,) * 20).times(1.0) == (1.0, 1.0)


def test_the_bootstrap_of_a_mean_is_as_wide_as_the_normal_interval() -> None:
    x_N = np.random.default_rng(0).standard_normal(400)
    half_width = 1.96 * float(x_N.std(ddof=1)) / 20
    low, high = bootstrap(x_N.tolist(), np.mean)
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.05)  # 10,000 draws place the ends to about 2 %
    assert low < float(x_N.mean()) < high


def test_the_middle_of_a_few_values_is_all_of_them_and_infinite_ones_count() -> None:
    assert middle(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)
    assert middle(np.array([1.0] * 9 + [math.inf])) == (1.0, math.inf)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.05]) == [True]
    assert holm([0.02, 0.02, 0.9]) == [False, False, False]
    assert holm([]) == []
    with pytest.raises(ValueError, match="no probability"):
        holm([math.nan])


def test_holm_rejects_no_true_hypothesis_more_often_than_it_says():
    source = random.Random(1)
    wrong = sum(any(holm([source.random() for _ in range(12)])) for _ in range(1000))
    assert wrong < 75  # 50 expected, three and a half sigma more
