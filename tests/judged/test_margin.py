"""Margins: what they add up to, and that they can be set."""

import pytest

from harness.judged.attributes import Attributes
from harness.judged.clip_score import ClipScore
from harness.judged.dino_score import DinoScore
from harness.judged.fdd import Fdd
from harness.judged.margin import Margin
from harness.records.case import BadInput
from harness.records.record import Reading


def reading(value: float | None, half: float) -> Reading:
    if value is None:
        return Reading("x", "x", None, "1", "lower", "x/v1", reason="not taken")
    return Reading("x", "x", value, "1", "lower", "x/v1", low=value - half, high=value + half)


@pytest.mark.parametrize(
    ("metric", "margin", "made_of"),
    [
        (Attributes(), 0.01, "1 point"),
        (ClipScore(), 0.02, "1 % of the teacher's"),
        (DinoScore(), 0.10, "5 % of the teacher's"),
        (Fdd(), 0.2 + 0.3, "10 % of the teacher's and 1 half-width of its interval"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_student_must_keep_what_lets_it_stand_in_for_its_teacher(metric, margin, made_of):
    found = metric.margin.beside(reading(2.0, 0.3))
    assert found.details == {"margin": pytest.approx(margin), "margin_is": made_of}
    assert metric.margin.beside(reading(None, 0.3)) == reading(None, 0.3)


def test_a_margin_is_the_sum_of_its_parts_and_none_is_below_zero():
    assert Margin().beside(reading(2.0, 0.3)).details == {"margin": 0.0, "margin_is": ""}
    found = Margin(0.5, 2.0, 2.0).beside(reading(2.0, 0.25)).details
    assert found["margin"] == pytest.approx(1.0 + 0.02 + 0.5)
    assert found["margin_is"] == "50 % of the teacher's and 2 points and 2 half-widths of its interval"
    with pytest.raises(BadInput, match=r"margin.share=-0.1 is not possible: give a number of at least 0"):
        Margin(share=-0.1)
