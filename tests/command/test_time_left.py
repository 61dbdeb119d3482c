"""The time left is told within a factor of 1.5 from a tenth of the way on, on a machine that nobody predicted."""

from collections.abc import Sequence
from typing import Any

import pytest
from test_identity import experiment

from harness.time_left import CountedCalls, Pace
from harness.work import Works

SPEEDS = [(1.0, 1.0, 1.0, 1.0, 1.0), (5.0, 1.2, 3.0, 4.0, 1.0), (0.3, 1.0, 0.2, 0.1, 1.0), (2.0, 0.8, 8.0, 0.5, 1.0)]
"""How many times as long as predicted each kind of work takes."""
SECONDS = """
    19.9 45.5 9.0 13.6 0.6    19.5 133.9 7.1 7.5 0.3    16.7 42.9 7.5 6.8 0.1    13.8 42.4 7.7 6.1 0.1
    14.7 28.7 5.1 7.4 32.3    13.7 30.9 5.1 4.7 8.7     13.4 30.0 4.9 4.6 9.9    13.1 24.0 4.6 6.1 7.5
    3.6 0.9 0.7 1.1 1.2 1.4   0.8 0.2 0.3 0.5 0.7 1.5   0.2 0.1 0.1 0.1 0.1 0.3   0.3 0.1 0.1 0.1 0.1 0.3
    2.7 0.5 0.6 0.6 0.7 0.8   0.3 0.1 0.1 0.1 0.3 0.7   0.2 0.1 0.1 0.1 0.1 0.4   0.2 0.1 0.1 0.1 0.1 0.3
"""
"""What the cases of the main job took on two cores of a laptop's kind, where another program doubled the seventh."""


@pytest.fixture(scope="module")
def jobs() -> Any:
    return experiment("+sweep=resolution", "tracker=none", "dry_run=true").jobs()


def furthest(jobs: Sequence[Any], took: Sequence[float], until: float) -> float:
    """How many times too long or too short the time left is told at worst, from a tenth of the way on."""
    pace, total, gone, worst = Pace(jobs), sum(took), 0.0, 1.0
    for job, seconds in zip(jobs, took, strict=True):
        pace.took(job.case.key, seconds)
        gone += seconds
        if 0.1 * total <= gone <= until * total:
            ratio = pace.left_s() / (total - gone)
            worst = max(worst, ratio, 1 / ratio)
    return worst


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_time_left_is_within_a_factor_of_one_and_a_half_from_a_tenth_on(jobs: Any, speed: Any) -> None:
    # A case that runs something takes a second more than its work, and one in three a quarter longer than the others.
    took = []
    for place, (job, work) in enumerate(zip(jobs, map(Works(CountedCalls()).work, jobs), strict=True)):
        seconds = sum(s * w for s, w in zip(speed, work, strict=True)) * (1.25 if place % 3 == 0 else 1)
        took.append(seconds + (job.counted != job.case.metrics))
    assert furthest(jobs, took, until=0.95) < 1.5


def test_it_is_so_for_a_main_job_that_was_run_and_disturbed(jobs: Any) -> None:
    assert furthest(jobs, [float(seconds) for seconds in SECONDS.split()], until=0.98) < 1.5


def test_it_is_so_where_images_are_made_and_nothing_is_timed() -> None:
    quality = experiment("+sweep=quality", "tracker=none", "dry_run=true").jobs()
    predicted = Works(CountedCalls())
    took = [sum(s * w for s, w in zip((1.0, 1.0, 0.4, 2.0, 1.0), predicted.work(job), strict=True)) for job in quality]
    assert furthest(quality, took, until=0.95) < 1.5


def test_a_student_is_trained_by_the_first_case_that_wants_it() -> None:
    wanting = experiment("variants=[pooling]", "resolutions=[64,128]", "metrics=[clip_score]", "tracker=none").jobs()
    predicted = Works(CountedCalls())
    first, second = (predicted.work(job)[-1] for job in wanting)
    assert first > 60
    assert second == 0
    assert Pace(wanting).training_s(wanting[1]) == first


def test_a_budget_in_minutes_bounds_what_training_takes() -> None:
    (job,) = experiment(
        "variants=[pooling]", "metrics=[clip_score]", "resolutions=[64]", "train.minutes=2", "tracker=none"
    ).jobs()
    assert Pace([job]).training_s(job) <= 120 + 1e-6


def test_cases_that_run_side_by_side_take_their_share(jobs: Any) -> None:
    judged = experiment("+sweep=quality", "tracker=none").jobs()
    assert Pace(judged, workers=2).left_s() == pytest.approx(Pace(judged).left_s() / 2)
    timed = [job for job in jobs if job.case.model == "tiny_sd" and job.case.pixels == 64**2]
    assert Pace(timed, workers=2).left_s() == Pace(timed).left_s()


def test_a_case_that_is_done_is_no_part_of_the_rest(jobs: Any) -> None:
    pace, predicted = Pace(jobs[:2]), Works(CountedCalls())
    first, second = (sum(predicted.work(job)) for job in jobs[:2])
    assert pace.left_s() == pytest.approx(first + second)
    pace.took(jobs[0].case.key, first)
    assert pace.left_s() == pytest.approx(second, rel=0.05)
    pace.took("unheard of", 99.0)
    pace.took(jobs[1].case.key, second)
    assert pace.left_s() == 0.0


def test_a_mixer_that_cannot_be_counted_ends_no_run_and_the_rest_is_told_as_the_least(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(denoiser: Any, body: Any) -> Any:
        raise LookupError("a user's own mixer breaks as it likes")

    timed = [job for job in jobs if len(job.counted) < len(job.case.metrics)][:1]
    pace = Pace(timed)
    whole_s = pace.left_s()
    assert pace.whole
    monkeypatch.setattr("harness.time_left.cost_of", broken)
    pace = Pace(timed)
    assert 0 < pace.left_s() < whole_s
    assert not pace.whole
