"""Differences and non-inferiority: closed forms and known cases."""

import math
import random
import statistics as known
from dataclasses import replace

import pytest

from harness.records.comparison import difference, non_inferiority, paired_half_width, told_apart, weighted_sum
from harness.records.record import Reading
from harness.records.statistics import Estimate, t_quantile

DRAWN = [random.Random(0).gauss(0, 1) for _ in range(40)]


def test_a_gain_passes_fails_or_is_told_what_would_decide():
    clear, worse, open_ = Estimate(0.1, 0.2, 50), Estimate(-3.0, 0.2, 50), Estimate(-0.8, 0.2, 50)
    verdicts = non_inferiority([(clear, 1.0, 64), (worse, 1.0, 64), (open_, 1.0, 64)])
    assert [verdict.outcome for verdict in verdicts] == ["pass", "fail", "inconclusive"]
    assert verdicts[0].needed is verdicts[1].needed is None
    needed = verdicts[2].needed
    assert needed is not None
    assert 64 * 4 < needed < 64 * 9  # 0.2 from the margin with an error of 0.2: two to three times as narrow
    assert non_inferiority([(Estimate(0.0, 0.0, 5), 0.1, 64)])[0].outcome == "pass"
    assert non_inferiority([(Estimate(-1.0, 0.0, 5), 1.0, 64)])[0].needed is None


def test_the_number_that_would_decide_does():
    verdict = non_inferiority([(Estimate(-0.8, 0.2), 1.0, 100)])[0]
    assert verdict.needed is not None
    narrower = Estimate(-0.8, 0.2 * math.sqrt(100 / verdict.needed))
    assert non_inferiority([(narrower, 1.0, verdict.needed)])[0].outcome == "pass"


@pytest.mark.parametrize("skew", [-0.4, -0.1, 0.0, 0.1, 0.4])
@pytest.mark.parametrize("gain", [-1.6, -1.3, -0.8, -0.65])
def test_more_images_than_there_are_would_tell_also_of_skewed_scores(gain, skew):
    """A few bad images of fifty leave open what the normal distribution would have decided."""
    (verdict,) = non_inferiority([(Estimate(gain, 0.16, 49, skew), 1.0, 50)])
    assert verdict.needed is None or verdict.needed > 50
    assert (verdict.needed is None) == (verdict.outcome != "inconclusive")
    if gain == -0.65:
        assert verdict.outcome == ("inconclusive" if skew < -0.2 else "pass")


def reading(value, **more):
    return Reading("x", "x", value, "1", "higher", "x/v1", n=40, **more)


def test_differences_are_paired_by_image_by_part_or_by_group():
    base = [random.Random(2).gauss(5, 3) for _ in range(40)]
    near = [value + 0.1 + 0.01 * noise for value, noise in zip(base, DRAWN, strict=True)]
    mine, other = (reading(known.mean(values), samples=tuple(values)) for values in (near, base))
    apart = difference(mine, other)
    assert apart is not None
    assert apart.value == pytest.approx(0.1, abs=0.01)
    assert apart.half_width == pytest.approx(t_quantile(39) * 0.01 * known.stdev(DRAWN) / math.sqrt(40))
    parts = difference(*(reading(1.0, details={"parts": values[:10]}) for values in (near, base)))
    assert parts is not None
    assert parts.freedom == 9
    left_out = difference(*(reading(1.0, details={"replicates": values[:20]}) for values in (near, base)))
    assert left_out is not None
    spread = known.pstdev(a - b for a, b in zip(near[:20], base[:20], strict=True))
    assert left_out.error == pytest.approx(math.sqrt(19) * spread)


def test_images_of_other_captions_are_no_pairs():
    values = tuple(random.Random(2).gauss(5, 3) for _ in range(40))
    one, same, other = (
        reading(5.0, samples=values, low=4.0, high=6.0, details={"captions": captions}) for captions in ("a", "a", "b")
    )
    for score, half in ((same, 0.0), (replace(one, details={}), 0.0), (other, math.sqrt(2))):
        found = difference(score, one)
        assert found is not None
        assert found.half_width == pytest.approx(half)


def test_a_weighted_sum_is_paired_over_all_its_scores_or_adds_their_intervals_in_squares():
    base = [random.Random(3).gauss(5, 3) for _ in range(40)]
    grown = [
        [value + step + 0.01 * noise * step for value, noise in zip(base, DRAWN, strict=True)] for step in range(3)
    ]
    scores = [reading(known.mean(values), samples=tuple(values)) for values in grown]
    slope = weighted_sum(scores, (-0.5, 0.0, 0.5))
    assert slope is not None
    assert slope.value == pytest.approx(1 + 0.01 * known.mean(DRAWN))
    assert slope.error == pytest.approx(0.01 * known.stdev(DRAWN) / math.sqrt(40))
    assert slope.freedom == 39
    wide = weighted_sum([reading(value, low=value - 3, high=value + 3) for value in (1.0, 2.0, 3.0)], (-0.5, 0.0, 0.5))
    assert wide is not None
    assert (wide.value, wide.half_width) == (1.0, pytest.approx(3 * math.sqrt(0.5)))
    assert weighted_sum([*scores, reading(1.0)], (1.0, 1.0, 1.0, 1.0)) is None


def test_what_differs_from_nothing_is_told_whichever_way_after_correction():
    clear, other_way, unclear, none = Estimate(3.0, 1.0), Estimate(-3.0, 1.0), Estimate(0.1, 1.0), Estimate(0.0, 0.0)
    assert told_apart([clear, unclear, other_way, none]) == [True, False, True, False]
    assert told_apart([Estimate(2.1, 1.0)]) == [True]
    assert told_apart([Estimate(2.1, 1.0)] * 4) == [False] * 4


def test_images_of_one_prompt_are_compared_together():
    units = {"units": [i // 2 for i in range(40)]}
    mine, other = reading(1.0, samples=tuple(DRAWN), details=units), reading(0.0, samples=(0.0,) * 40, details=units)
    apart = difference(mine, other)
    assert apart is not None
    assert apart.freedom == 19


def test_without_pairs_or_intervals_there_is_no_difference():
    few = reading(1.0, samples=(1.0, 2.0))
    assert paired_half_width(few, few) is None
    assert difference(few, few) is None
    assert difference(replace(few, low=0.0, high=2.0), replace(few, low=0.0, high=2.0)) is not None


@pytest.mark.parametrize("foreign", ["0.1, 0.2", [["a"]] * 20, {"a": 1}, 3])
def test_details_that_are_no_numbers_are_not_compared(foreign):
    assert paired_half_width(*[reading(1.0, details={"replicates": foreign, "parts": foreign})] * 2) is None
