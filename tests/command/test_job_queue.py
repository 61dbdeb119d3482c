"""Who gets which job: a model stays where it is loaded, and what is timed has the machine for itself."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.job import Job, timed
from harness.job_queue import Deal, loaded_by


@dataclass(frozen=True)
class Judges:
    needs: str = "weights"


@dataclass(frozen=True)
class Times:
    needs: str = "device"


@pytest.fixture
def job(make_case):
    """A job of some model that judges, or times."""

    def make(model: str, variant: str = "a", times: bool = False) -> Job:
        case = make_case(model=model, variant=variant, metrics=("it",))
        metric = Times() if times else Judges()
        parts = SimpleNamespace()
        return Job(case, parts, parts, parts, parts, {"it": metric}, {"it": ""}, Path())  # type: ignore[arg-type]

    return make


def names(jobs: list[Job | None]) -> list[str]:
    return ["" if job is None else f"{job.case.model}{job.case.variant}" for job in jobs]


def test_each_worker_stays_with_its_model_and_then_helps_where_most_is_left(job):
    jobs = [job(model, variant) for model in "xy" for variant in "abcd"]
    deal, one, other = Deal(jobs), loaded_by(job("x")), loaded_by(job("y"))
    first = deal.next(None, [None], busy=False)
    second = deal.next(None, [one], busy=True)
    assert names([first, second]) == ["xa", "ya"]
    assert names([deal.next(one, [other], True) for _ in range(3)]) == ["xb", "xc", "xd"]
    assert names([deal.next(one, [other], True), deal.next(other, [other], True)]) == ["yb", "yc"]


def test_what_is_timed_comes_last_and_waits_until_nobody_works(job):
    deal = Deal([job("x", "a", times=True), job("x", "b"), job("x", "c", times=True)])
    assert names([deal.next(None, [], False)]) == ["xb"]
    assert names([deal.next(None, [], True), deal.next(None, [], False), deal.next(None, [], False)]) == [
        "",
        "xa",
        "xc",
    ]
    assert not deal


def test_a_job_that_was_put_back_comes_next_and_is_not_timed_any_more(job):
    deal, lost = Deal([job("x", "b")]), replace(job("x", "a", times=True), ended=("failed", "its worker was killed"))
    assert not timed(lost)
    deal.back(lost)
    assert names([deal.next(None, [], True), deal.next(None, [], True)]) == ["xa", "xb"]
