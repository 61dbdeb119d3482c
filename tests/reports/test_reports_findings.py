"""In short: verdicts follow the intervals of paired differences, and say no more than these carry."""

import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.case import Case
from harness.records.comparison import difference
from harness.records.record import Reading, Record
from harness.records.statistics import Estimate
from harness.records.store import Store
from harness.records.units import spoken
from reports import read
from reports.answers import answer, beside_the_teacher
from reports.compare import groups
from reports.differences import with_ends
from reports.findings import Brief, briefs

N = 64
BASE = [random.Random(image).gauss(90, 8) for image in range(N)]


def score(shift: float, noise: float = 0.5, name: str = "clip_score", better: str = "higher", n: int = N) -> Reading:
    """Images that differ much from one another, and little from the same image of another variant."""
    draw = random.Random(name)
    samples = tuple(value + shift + draw.gauss(0, noise) for value in BASE)
    mean, half = statistics.fmean(samples), 2 * statistics.stdev(samples) / N**0.5
    return Reading(name, name, mean, "1", better, "clip/v1", n, mean - half, mean + half, samples=samples)


def flops(value: int) -> Reading:
    return Reading("flops", "flops", value, "FLOP", "lower", "flops/v1")


@pytest.fixture
def brief(tmp_path: Path, make_case: Callable[..., Case]) -> Callable[..., list[Brief]]:
    """Briefs of a store with self_attention and one other variant."""

    def make(*readings: Reading, **changes: Reading) -> list[Brief]:
        store = Store(tmp_path)
        for variant, taken in (("self_attention", (flops(200), *changes.values())), ("linfusion", readings)):
            store.put(
                Record(
                    make_case(variant=variant),
                    "ok",
                    readings=taken,
                    machine={"cpu": "x"},
                    started="2026-01-01T00:00:00+00:00",
                )
            )
        return briefs(groups(read.load(tmp_path).records))

    return make


def test_a_loss_that_pairs_show_is_told_though_the_two_intervals_overlap(brief):
    mine, other = score(-1.0), score(0.0, noise=0.0)
    assert mine.high is not None
    assert other.low is not None
    assert mine.high > other.low
    (found,) = brief(flops(150), mine, clip=other)
    (row,) = found.rows
    assert (row.verdict, row.tone) == ("loses CLIP score", "worse")
    assert row.scores[0].startswith("CLIP score −1.")
    assert row.costs == ("FLOPs 0.75×",)


def test_what_intervals_leave_open_is_no_loss_and_asks_for_more_images(brief):
    (found,) = brief(flops(150), score(-0.05, noise=4.0), clip=score(0.0, noise=0.0))
    assert (found.rows[0].verdict, found.rows[0].tone) == ("not told apart", "")
    assert found.open


def test_of_runs_with_more_and_fewer_images_the_greater_speaks_and_its_number_is_told(tmp_path, make_case):
    store = Store(tmp_path)
    for variant, shift, n in [
        ("self_attention", 0.0, 32),
        ("linfusion", 0.0, 32),
        ("neighborhood", -1.0, 32),
        ("self_attention", 0.0, N),
        ("linfusion", -1.0, N),
    ]:
        taken = score(shift, 0.1, n=n)
        taken = replace(taken, samples=taken.samples[:n])
        store.put(Record(make_case(variant=variant, n=n), "ok", readings=(flops(150), taken), machine={"cpu": "x"}))
    (found,) = briefs(groups(read.load(tmp_path).records))
    told = {row.series.variant: beside_the_teacher(found, row) for row in found.rows}
    assert "(n = 64) its images lose against the teacher's: CLIP score −1.0" in told["linfusion"]
    assert "(n = 32) its images lose against the teacher's: CLIP score −1.0" in told["neighborhood"]
    assert found.images == "32 to 64"


def test_a_lower_distance_is_a_gain(brief):
    (found,) = brief(flops(150), score(-3.0, name="fdd", better="lower"), fdd=score(0.0, 0.0, "fdd", "lower"))
    assert (found.rows[0].verdict, found.rows[0].tone) == ("gains FDD", "better")
    assert not found.open


def test_costs_alone_make_no_verdict(brief):
    (found,) = brief(flops(100))
    assert (found.rows[0].verdict, found.rows[0].scores, found.rows[0].costs) == (
        "no scores taken",
        (),
        ("FLOPs 0.50×",),
    )


def test_shares_differ_by_points(brief):
    mine, other = (
        replace(score(shift, noise, "attributes"), unit="share", value=value)
        for shift, noise, value in ((-2.0, 0.1, 0.90), (0.0, 0.0, 0.92))
    )
    (found,) = brief(flops(100), mine, attributes=other)
    assert found.rows[0].scores[0].startswith("Attributes −2 points (")


def test_without_pairs_the_two_intervals_are_added_in_squares():
    mine, other = (
        Reading("fdd", "fdd", value, "1", "lower", "fdd/v1", low=value - 3, high=value + 3) for value in (9.0, 4.0)
    )
    apart = difference(mine, other)
    assert apart.value == 5.0
    assert apart.half_width == pytest.approx(3 * 2**0.5)
    assert difference(mine, replace(other, low=None)) is None


def with_margin(reading: Reading, margin: float, **details: object) -> Reading:
    return replace(reading, details={"margin": margin, **details})


@pytest.mark.parametrize(
    ("shift", "noise", "outcome", "said"),
    [
        (-0.1, 0.5, "pass", "within its margin of 1"),
        (-3.0, 0.5, "fail", "beyond its margin of 1"),
        (-0.8, 3.0, "inconclusive", "open against its margin of 1.0, about "),
    ],
)
def test_a_score_is_within_its_margin_beyond_it_or_open(brief, shift, noise, outcome, said):
    (found,) = brief(flops(150), score(shift, noise), clip=with_margin(score(0.0, 0.0), 1.0))
    (one,) = found.rows[0].differences
    assert one.verdict.outcome == outcome
    assert said in one.text
    assert (one.verdict.needed is not None) == (outcome == "inconclusive")


@pytest.mark.parametrize(
    ("shift", "noise", "verdict", "tone", "said"),
    [
        (
            -0.5,
            0.2,
            "not inferior; loses CLIP score",
            "",
            "its images are not inferior to the teacher's: CLIP",
        ),
        (0.0, 0.5, "not inferior; not told apart", "", "are not told apart from the teacher's, nor inferior"),
        (
            -3.0,
            0.5,
            "inferior in CLIP score; loses CLIP score",
            "worse",
            "are inferior to the teacher's: CLIP ",
        ),
        (-0.2, 5.0, "open in CLIP score; not told apart", "", "may be inferior to the teacher's: CLIP "),
    ],
)
def test_a_loss_within_its_margin_is_said_and_makes_nothing_inferior(brief, shift, noise, verdict, tone, said):
    (found,) = brief(flops(150), score(shift, noise), clip=with_margin(score(0.0, 0.0), 1.0))
    (row,) = found.rows
    assert (row.verdict, row.tone) == (verdict, tone)
    assert row.stands_in == verdict.startswith("not inferior")
    assert found.open == verdict.startswith("open")
    assert said in beside_the_teacher(found, row)


def test_no_number_of_images_is_told_that_nobody_would_make(brief):
    (found,) = brief(flops(150), score(-1.0), clip=score(0.0, 0.0))
    loss = -found.rows[0].differences[0].estimate.value
    for beyond, told in ((0.02, True), (1e-5, False)):
        (found,) = brief(flops(150), score(-1.0), clip=with_margin(score(0.0, 0.0), loss + beyond))
        (one,) = found.rows[0].differences
        assert one.verdict.outcome == "inconclusive"
        assert ("images would tell" in one.text) == told


def test_beside_a_verdict_stands_what_its_margin_is_made_of(brief):
    teacher = with_margin(score(0.0, 0.0), 1.0, margin_is="1 % of the teacher's")
    (found,) = brief(flops(150), score(-0.1), clip=teacher)
    assert found.rows[0].scores[0].endswith("), within its margin of 1.0 (1 % of the teacher's)")
    share, point = replace(score(0.0, 0.1), unit="share"), replace(with_margin(score(0.0, 0.0), 0.01), unit="share")
    (found,) = brief(flops(150), share, clip=point)
    assert "its margin of 1 point" in found.rows[0].scores[0]
    assert "points" not in found.rows[0].scores[0].rpartition("margin")[2]


def test_of_a_distance_more_is_worse(brief):
    teacher = with_margin(score(0.0, 0.0, "fdd", "lower"), 1.0)
    (found,) = brief(flops(150), score(3.0, 0.5, "fdd", "lower"), fdd=teacher)
    assert found.rows[0].differences[0].verdict.outcome == "fail"


def test_without_a_margin_there_is_no_verdict_of_that_kind(brief):
    (found,) = brief(flops(150), score(-1.0), clip=score(0.0, 0.0))
    assert found.rows[0].differences[0].verdict is None
    assert "margin" not in found.rows[0].differences[0].text


def test_a_score_that_cannot_be_trusted_and_a_teacher_that_fails_give_no_verdict(brief):
    doubtful = with_margin(score(0.0, 0.0), 1.0, untrusted="noise of 0.0, 0.4 gives 3, 4, which is out of order")
    (found,) = brief(flops(150), score(-3.0), clip=doubtful)
    assert found.rows[0].verdict == "no verdict"
    assert found.refused.startswith("CLIP score cannot be trusted at")
    assert found.rows[0].differences[0].verdict is None
    failing = with_margin(score(0.0, 0.0), 1.0, real=200.0)
    (found,) = brief(flops(150), score(-3.0), clip=failing)
    assert "the teacher itself fails" in found.refused
    assert found.rows[0].differences[0].verdict is None


def test_a_teacher_as_its_own_student_is_never_beyond_its_margin_more_often_than_chance_allows():
    """A/A over 100 splits of one population: at most five false failures among all cells after correction."""
    from harness.records.comparison import non_inferiority

    source, false = random.Random(5), 0
    for _ in range(100):
        cells = []
        for _ in range(8):
            one, other = ([source.gauss(90, 4) for _ in range(N)] for _ in range(2))
            pair = [
                Reading("c", "c", statistics.fmean(v), "1", "higher", "c", N, samples=tuple(v)) for v in (one, other)
            ]
            cells.append((difference(*pair), 0.1, N))
        false += any(verdict.outcome == "fail" for verdict in non_inferiority(cells))
    assert false <= 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flops_mixers", "FLOPs, mixers only"),
        ("clip_score", "CLIP score"),
        ("fd_infinite", "FD at infinite n"),
        ("patch_fdd", "Patch FDD"),
        ("dino_cos", "DINO cosine"),
        ("cmmd", "CMMD"),
        ("scenes_right", "Scenes right"),
    ],
)
def test_a_reading_is_called_as_the_field_writes_it(name, said):
    assert spoken(name) == said


def test_without_its_teacher_a_variant_is_compared_with_nothing(make_record: Callable[..., Record]) -> None:
    own = groups([make_record(variant="linfusion")])
    told = answer("tiny_sd", own, briefs(own), {})
    assert told.sentence == (
        "tiny_sd: self_attention was not taken here, so there is nothing to compare with "
        "(variants=[self_attention,...] takes it)."
    )
    assert (briefs(own), told.told) == ([], ())


def test_it_is_said_whose_cost_was_not_taken(make_record: Callable[..., Record]) -> None:
    def doubts(*priced: str) -> tuple[str, ...]:
        variants = ("self_attention", "linfusion", "deltaconv")
        taken = {name: (score(0.0), flops(100)) if name in priced else (score(0.0),) for name in variants}
        own = groups([make_record(readings, variant=name) for name, readings in taken.items()])
        return answer("tiny_sd", own, briefs(own), {}).doubts

    said = "The cost of deltaconv was not taken here (metrics=[flops,latency] takes it)."
    assert doubts("self_attention", "linfusion") == (said,)
    assert doubts("self_attention", "linfusion", "deltaconv") == doubts() == ()


def test_rounding_is_no_difference() -> None:
    assert with_ends(Estimate(-4e-9, 0.01), "share") == "0 points (−2 to +2)"
    assert with_ends(Estimate(-0.012, 0.001), "share") == "−1.2 points (−1.4 to −1)"
    assert with_ends(Estimate(1e-9, 0.5), "1").startswith("0")
