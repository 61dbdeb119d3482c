"""Intervals: one bootstrap, one jackknife, one t; they know what they should of samples whose truth is known."""

import math

import numpy as np
import pytest

from harness.records.statistics import bootstrap, bootstrap_mean, dealt, jackknife, middle, shuffled, t_975


def drawn(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n)


@pytest.mark.parametrize(("freedom", "known"), [(1, 12.7062), (5, 2.5706), (10, 2.2281), (19, 2.0930), (100, 1.9840)])
def test_the_quantile_of_students_t_is_that_of_the_tables(freedom: int, known: float) -> None:
    assert t_975(freedom) == pytest.approx(known, abs=5e-5)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x_N = drawn(40)
    spread = jackknife(40, lambda group: float(x_N[np.arange(40) != group].mean()))
    assert spread.error == pytest.approx(float(x_N.std(ddof=1)) / math.sqrt(40), rel=1e-9)


def test_images_of_one_prompt_stay_in_one_group() -> None:
    group_N = dealt([i // 2 for i in range(200)], groups=20)
    assert np.array_equal(group_N[0::2], group_N[1::2])
    assert np.bincount(group_N).tolist() == [10] * 20


def test_groups_are_dealt_as_those_of_kept_numbers_were() -> None:
    torch = pytest.importorskip("torch")
    for n in (1, 2, 7, 512):
        for seed in (0, 3):
            known = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
            assert shuffled(n, seed).tolist() == known.tolist()


def test_the_bootstrap_of_a_mean_is_as_wide_as_the_normal_interval() -> None:
    x_N = drawn(400)
    half_width = 1.96 * float(x_N.std(ddof=1)) / 20
    for low, high in (bootstrap_mean(x_N.tolist()), bootstrap(x_N.tolist(), np.mean)):
        assert (high - low) / 2 == pytest.approx(half_width, rel=0.05)  # 10,000 draws place the ends to about 2 %
        assert low < float(x_N.mean()) < high


def test_seeds_of_one_prompt_are_no_independent_images() -> None:
    x_N = drawn(100)
    single = bootstrap_mean(x_N.tolist())
    fourfold = bootstrap_mean(np.tile(x_N, 4).tolist(), list(range(100)) * 4)
    assert fourfold == pytest.approx(single)


def test_the_middle_of_a_few_values_is_all_of_them_and_infinite_ones_count() -> None:
    assert middle(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)
    assert middle(np.array([1.0] * 9 + [math.inf])) == (1.0, math.inf)
