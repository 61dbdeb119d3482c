"""How often the speed tier cries wolf and what it finds, on real timings: pairs of processes, dealt again as gates.

A hundred whole gates take hours. Their pairs do not know of each other, so many are taken once, of every mixer at its
sites and of whole calls, and each gate draws from them what it needs.
"""

import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from cloned import Clone
from speed_repository import git
from test_plants import SLOWER

from harness.regression.checkout import Checkout
from harness.regression.decision import LEAST, outcome_of, rise_of, settled
from harness.regression.duel import Key, duel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

MINUTES = 4.5
"""For the pairs of one condition."""
MOST = 8
"""Pairs that one gate may take; a gate of the shipped cases holds fewer in its three minutes."""
TOLERANCE = 0.05
SETTINGS = "variants=[linfusion,deltaconv] metrics=[site_costs]"
Logs = dict[Key, list[float]]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("replayed"), SETTINGS)


@contextmanager
def other_work() -> Iterator[None]:
    """A process that keeps one core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            yield
        finally:
            busy.kill()


def pairs_of(clone: Clone, tmp_path, share: float) -> tuple[Logs, dict[Key, str]]:
    """Logarithms of each unit's ratios, head over base, with ∆ConvBlocks slower by that share in the head."""
    git(clone.folder, "worktree", "add", "-q", "--detach", str(tmp_path / "base"), clone.sound)
    if share:
        clone.append("deltaconv/block.py", SLOWER.format(mixer="DeltaConvBlock", share=share))
    arguments = ("+sweep=ci", "models=[tiny_pixart]", *SETTINGS.split())
    base, head = (
        Checkout(name, folder, arguments) for name, folder in (("base", tmp_path / "base"), ("head", clone.folder))
    )
    try:
        found = duel(base, head, MINUTES, None)
    finally:
        git(clone.folder, "checkout", "-q", "--", ".")
        git(clone.folder, "worktree", "remove", "--force", str(tmp_path / "base"))
    assert found.count >= MOST
    return {key: unit.logs for key, unit in found.units.items()}, {key: unit.mixer for key, unit in found.units.items()}


def gate(logs: Logs, source: np.random.Generator) -> dict[Key, str]:
    """How each unit ends in one gate, which takes pairs until all are settled."""
    count = len(next(iter(logs.values())))
    order = source.permutation(count)[:MOST]
    outcomes = {}
    for key, taken in logs.items():
        looks = []
        for pairs in range(LEAST, len(order) + 1):
            looks.append(outcome_of(rise_of([taken[pair] for pair in order[:pairs]]), TOLERANCE))
            if settled(looks):
                break
        outcomes[key] = looks[-1] if settled(looks) else "inconclusive"
    return outcomes


def spread(logs: Logs) -> str:
    """Of one pair, over units, and how many pairs there are."""
    spreads = [float(np.std(taken, ddof=1)) for taken in logs.values()]
    return f"{len(next(iter(logs.values())))} pairs, spread of one {min(spreads):.1%} to {max(spreads):.1%}"


def test_of_a_hundred_gates_of_the_same_code_beside_other_work_two_at_most_cry_wolf(clone, tmp_path):
    with other_work():
        logs, _ = pairs_of(clone, tmp_path, 0.0)
    source = np.random.default_rng(0)
    ends = [gate(logs, source) for _ in range(100)]
    alarms = sum(any(one in ("regression", "improvement") for one in end.values()) for end in ends)
    passed = sum(all(one == "pass" for one in end.values()) for end in ends)
    print(f"A/A beside other work: {alarms} of 100 gates cry wolf, {passed} pass whole ({spread(logs)})")
    assert alarms <= 2


@pytest.mark.parametrize(("share", "least"), [(0.10, 48), (0.05, 40)])
def test_of_fifty_gates_of_a_slower_mixer_nearly_all_find_it(clone, tmp_path, share, least):
    logs, mixers = pairs_of(clone, tmp_path, share)
    source = np.random.default_rng(0)
    ends = [gate(logs, source) for _ in range(50)]
    planted = [key for key, mixer in mixers.items() if mixer == "DeltaConvBlock"]
    found = sum(any(end[key] == "regression" for key in planted) for end in ends)
    others = [key for key in logs if key[0].split(" ")[1] == "linfusion"]
    blamed = sum(any(end[key] in ("regression", "improvement") for key in others) for end in ends)
    rise = math.expm1(float(np.mean([logs[key] for key in planted])))
    print(f"{share:.0%} planted, {rise:+.1%} seen: {found} of 50 found, {blamed} blame another ({spread(logs)})")
    assert found >= least
    assert blamed <= 1
