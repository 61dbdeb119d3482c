"""The time left is told within a factor of 1.5 from a tenth of the way on, on a machine that nobody predicted."""

from typing import Any

import pytest
from test_identity import experiment

from harness.pace import Pace, work

SPEEDS = [(1.0, 1.0, 1.0, 1.0), (5.0, 1.2, 3.0, 4.0), (0.3, 1.0, 0.2, 0.1), (2.0, 0.8, 8.0, 0.5)]
"""How many times as long as predicted each kind of work takes."""


@pytest.fixture(scope="module")
def jobs() -> Any:
    return experiment("+sweep=resolution", "tracker=none", "dry_run=true").jobs()


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_time_left_is_within_a_factor_of_one_and_a_half_from_a_tenth_on(jobs: Any, speed: Any) -> None:
    # A case takes a second more than its work, and one in three a quarter longer than the others.
    took = [
        1 + sum(s * w for s, w in zip(speed, work(job), strict=True)) * (1.25 if place % 3 == 0 else 1)
        for place, job in enumerate(jobs)
    ]
    pace, total, gone = Pace(jobs), sum(took), 0.0
    for job, seconds in zip(jobs, took, strict=True):
        pace.took(job.case.key, seconds)
        gone += seconds
        if 0.1 * total <= gone <= 0.95 * total:
            assert 1 / 1.5 < pace.left_s() / (total - gone) < 1.5, (job.case, gone / total)


def test_a_case_that_is_done_is_no_part_of_the_rest(jobs: Any) -> None:
    pace = Pace(jobs[:2])
    first, second = (sum(work(job)) for job in jobs[:2])
    assert pace.left_s() == pytest.approx(first + second)
    pace.took(jobs[0].case.key, first)
    assert pace.left_s() == pytest.approx(second, rel=0.05)
    pace.took("unheard of", 99.0)
    pace.took(jobs[1].case.key, second)
    assert pace.left_s() == 0.0
