"""How often the speed tier cries wolf and what it finds: rates over gates of synthetic timings, and the rule itself."""

import math

import numpy as np
import pytest

from harness.regression import decision
from harness.regression.decision import Rise, outcome_of, pairs_to_decide, resolution_of, rise_between, rise_of, settled

UNITS = 16
"""Mixers at their sites and whole calls of one gate."""
MOST = 8
"""Pairs that two minutes hold."""


def rise(low, high):
    return Rise((low + high) / 2, low, high, 6)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.01, 0.01, "pass"),
        (0.026, 0.045, "pass"),
        (0.03, 0.07, "regression"),
        (0.02, 0.07, "inconclusive"),
        (-0.07, -0.03, "improvement"),
        (-0.07, 0.07, "inconclusive"),
        (-math.inf, math.inf, "inconclusive"),
    ],
)
def test_an_interval_below_the_tolerance_passes_and_one_above_half_of_it_that_reaches_it_does_not(low, high, outcome):
    assert outcome_of(rise(low, high), 0.05) == outcome


def test_what_is_not_a_pass_has_to_come_out_twice():
    assert settled(["pass"])
    assert not settled(["regression"])
    assert settled(["regression", "regression"])
    assert not settled(["regression", "improvement"])
    assert not settled(["inconclusive"])


def test_too_few_pairs_have_no_interval():
    assert rise_of([0.1] * 3).half == math.inf
    assert rise_of([]).half == math.inf
    assert "too few pairs" in str(rise_of([0.1]))


@pytest.mark.parametrize("n", [4, 6, 8])
def test_the_interval_covers_the_truth_in_at_least_93_of_100_sets_of_pairs(n):
    source, sets = np.random.default_rng(n), 400
    found = [rise_of(source.normal(0.05, 0.02, n).tolist()) for _ in range(sets)]
    assert np.mean([one.low <= 0.05 <= one.high for one in found]) >= 0.93


def test_a_difference_of_two_means_is_as_uncertain_as_both():
    source = np.random.default_rng(0)
    now, then = source.normal(0.3, 0.01, 6).tolist(), source.normal(0.2, 0.01, 6).tolist()
    found = rise_between(now, then)
    assert found.low < 0.1 < found.high
    assert found.half > max(rise_of(now).half, rise_of(then).half)


def test_it_is_said_how_many_pairs_would_decide():
    needed = pairs_to_decide(Rise(0.0, -0.1, 0.1, 4), 0.05)
    assert needed == math.ceil(4 * (0.1 / math.log1p(0.05)) ** 2)
    assert pairs_to_decide(rise_of([0.1]), 0.05) is None


def test_the_resolution_is_what_nine_of_ten_units_decide_on():
    rises = [rise(-0.01, 0.01)] * 9 + [rise(-0.5, 0.5)]
    assert resolution_of(rises) == pytest.approx(math.expm1(0.02))
    assert resolution_of([]) == math.inf


def gate(source: np.random.Generator, plant: float, noise: float, stray: float = 0.0) -> list[str]:
    """The outcomes of one gate: its first unit is slower by `plant`; a share of pairs is eight times as noisy."""
    outcomes = []
    for unit in range(UNITS):
        logs, looks = [], []
        while len(logs) < MOST and not settled(looks):
            spread = noise * (8 if source.random() < stray else 1)
            logs.append(source.normal(math.log1p(plant if unit == 0 else 0.0), spread))
            if len(logs) >= decision.LEAST:
                looks.append(outcome_of(rise_of(logs), 0.05))
        outcomes.append(looks[-1] if settled(looks) else "inconclusive")
    return outcomes


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    monkeypatch.setattr(decision, "DRAWS", 400)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.01, 0.02])
@pytest.mark.parametrize("stray", [0.0, 0.1])
def test_of_a_hundred_gates_of_the_same_code_two_at_most_cry_wolf(noise, stray):
    source = np.random.default_rng(1)
    alarms = [any(o != "pass" and o != "inconclusive" for o in gate(source, 0.0, noise, stray)) for _ in range(100)]
    print(f"A/A, noise {noise:.0%}, stray pairs {stray:.0%}: {sum(alarms)} of 100 gates of {UNITS} units cry wolf")
    assert sum(alarms) <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "noise", "stray", "least"), [(0.10, 0.02, 0.0, 48), (0.10, 0.01, 0.05, 45), (0.05, 0.01, 0.0, 40)]
)
def test_of_fifty_planted_slow_downs_nearly_all_are_found(plant, noise, stray, least):
    source = np.random.default_rng(2)
    found = sum(gate(source, plant, noise, stray)[0] == "regression" for _ in range(50))
    print(f"plant {plant:.0%}, noise {noise:.0%}, stray pairs {stray:.0%}: {found} of 50 found")
    assert found >= least
