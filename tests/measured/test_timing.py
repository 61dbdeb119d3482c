"""Timing: a sleep is found, slow work ends, the interval covers, a noisy machine is said."""

import itertools
import re
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from harness.measured import timing
from harness.measured.load import Load
from harness.measured.timing import Timing, cuda_clock, noise, percentile, repeat, summary
from harness.records.statistics import bootstrap

QUIET = {"other_cores": 0.0, "stolen": 0.0, "drift": 0.0, "spread": 0.0}


def scripted(durations_ms: list[float]):  # type: ignore[no-untyped-def]
    """A clock that reads off a script, then repeats its last entry."""
    script = itertools.chain(durations_ms, itertools.repeat(durations_ms[-1]))
    return lambda work: next(script)


def test_a_sleep_is_found() -> None:
    """A loaded machine oversleeps, by any time, and never undersleeps."""
    timing = repeat(lambda: time.sleep(0.01), seconds=0.3, least=7)
    assert min(timing.samples_ms) >= 10.0
    assert len(timing.samples_ms) >= 7


def test_warm_up_goes_on_until_three_agree_and_is_thrown_away() -> None:
    timing = repeat(lambda: None, seconds=1.0, least=5, clock=scripted([90, 40, 20, 10, 10.1, 10.2, 10]))
    assert timing.warm_up_ms == (90, 40, 20, 10, 10.1, 10.2)
    assert timing.stable
    assert set(timing.samples_ms) == {10}


def test_a_warm_up_that_never_settles_ends_and_is_said() -> None:
    timing = repeat(lambda: None, seconds=1.0, least=5, clock=scripted([100, 50] * 200))
    assert not timing.stable
    assert sum(timing.warm_up_ms) < 1e3 / 3 + 100


@pytest.mark.parametrize(
    ("call_ms", "samples"),
    [
        (1.0, 667),  # fast: two thirds of a second are full
        (120.0, 7),  # slower: the least is reached
        (400.0, 5),  # slower still: past twice the budget
        (1900.0, 2),
        (2001.0, 1),  # one call has eaten it all
    ],
)
def test_the_number_of_samples_follows_the_budget(call_ms: float, samples: int) -> None:
    timing = repeat(lambda: None, seconds=1.0, least=7, clock=scripted([call_ms]))
    assert len(timing.samples_ms) == samples


def test_a_call_that_eats_the_budget_runs_once_and_is_cold() -> None:
    calls: list[int] = []

    def clock(work: object) -> float:
        calls.append(1)
        return 60_000.0

    timing = repeat(lambda: None, seconds=1.0, least=7, clock=clock)
    assert (timing.samples_ms, timing.warm_up_ms, timing.stable) == ((60_000.0,), (), False)
    assert len(calls) == 1
    assert timing.interval_ms() == (None, None)
    assert "cold" in noise(summary(timing) | {"other_cores": 0.0, "stolen": 0.0})


def test_on_cuda_the_call_that_loads_and_compiles_is_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "cuda_clock", scripted([60_000, 1.0]))
    taken, details = timing.observed(lambda: None, seconds=0.1, least=7, device="cuda:0")
    assert {*taken.samples_ms, *taken.warm_up_ms} == {1.0}
    assert "cold" not in details["noisy"]


def test_too_few_samples_have_no_interval() -> None:
    assert Timing((1.0,) * 5, (), True).interval_ms() == (None, None)
    assert Timing((1.0,) * 6, (), True).interval_ms() == (1.0, 1.0)


def test_the_bootstrap_interval_covers_the_median_as_often_as_it_says() -> None:
    """60 draws of 25 from a skewed population: 95 % of 60 is 57; fewer than 50 has odds below one in a thousand."""
    generator = torch.Generator().manual_seed(0)
    population = torch.empty(60, 25).exponential_(generator=generator)
    truth = float(torch.log(torch.tensor(2.0)))
    covered = 0
    for sample in population.tolist():
        low, high = bootstrap(sample, np.median, draws=300)
        covered += low <= truth <= high
    assert covered >= 50


def test_the_interval_is_the_same_at_every_call() -> None:
    samples = [1.0, 5.0, 2.0, 8.0, 3.0, 9.0]
    assert bootstrap(samples, np.median) == bootstrap(samples, np.median)


def test_percentiles_by_hand() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([0.0, 10.0], 0.9) == 9.0
    assert percentile([4.0], 0.9) == 4.0


def test_a_quiet_machine_is_not_called_noisy() -> None:
    assert noise(summary(Timing((10.0,) * 20, (10.0,) * 3, True)) | {"other_cores": 0.0, "stolen": 0.0}) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"other_cores": 1.4}, "other work kept 1.4 cores busy"),
        ({"stolen": 0.07}, "the host took 7% of the time"),
        ({"drift": 0.25}, r"the second half of the samples is \+25% off the first"),
        ({"spread": 0.3}, "the middle half of the samples spreads over 30%"),
    ],
)
def test_a_noisy_machine_is_said_so(change: dict[str, float], said: str) -> None:
    details = summary(Timing((10.0,) * 20, (10.0,) * 3, True)) | QUIET | change
    assert re.fullmatch(said, noise(details))


def test_drift_is_what_the_second_half_adds() -> None:
    assert summary(Timing((10.0,) * 4 + (12.0,) * 4, (), True))["drift"] == pytest.approx(0.2)


class Times(NamedTuple):
    """Seconds of two cores; a guest's are counted among the user's too."""

    user: float = 50.0
    idle: float = 90.0
    iowait: float = 3.0
    steal: float = 2.0
    guest: float = 1.0


@pytest.mark.parametrize(
    ("own_s", "after", "other_cores", "stolen"),
    [
        (0.3, Times(user=50.3, idle=90.3), 0.0, 0.0),  # own work is not taken for a stranger's
        (0.3, Times(user=50.6), 1.0, 0.0),
        (0.6, Times(user=50.6), 0.0, 0.0),
        (0.6, Times(user=50.59), 0.0, 0.0),  # counters tick
        (0.0, Times(user=50.3, guest=1.3), 1.0, 0.0),
        (0.0, Times(idle=90.3, iowait=3.3), 0.0, 0.0),
        (0.3, Times(user=50.3, steal=2.06), 0.0, 0.1),
    ],
)
def test_the_load_is_what_the_counters_rose_by_in_three_tenths_of_a_second(
    own_s: float, after: Times, other_cores: float, stolen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters, walls, owns = iter([Times(), after]), iter([7.0, 7.3]), iter([5.0, 5.0 + own_s])
    clocks = SimpleNamespace(perf_counter=lambda: next(walls), process_time=lambda: next(owns))
    monkeypatch.setattr("psutil.cpu_times", lambda: next(counters))
    monkeypatch.setattr("harness.measured.load.time", clocks)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    seen = Load.begin().end()
    assert seen["other_cores"] == pytest.approx(other_cores, abs=1e-9)
    assert seen["stolen"] == pytest.approx(stolen, abs=1e-9)
    assert seen["threads"] == torch.get_num_threads()


@pytest.mark.gpu
def test_cuda_events_time_what_the_stream_does() -> None:
    square = torch.ones(4096, 4096, device="cuda")
    one, four = (
        np.median([cuda_clock(lambda times=times: [square @ square for _ in range(times)]) for _ in range(20)])  # type: ignore[misc]
        for times in (1, 4)
    )
    assert four / one == pytest.approx(4, rel=0.5)
