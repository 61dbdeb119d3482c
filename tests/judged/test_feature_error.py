"""What training left of a student's learning is read as it is, and where nothing was left a dash says why."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.distillation.student import Student
from harness.judged.feature_error import FeatureError
from harness.records.record import Reading

CURVE = {"seed": 6, "sizes": ["64", "128"], "points": [{"steps": 0}], "end": {"features": [0.1, 0.3]}}


def taken(curve: Any, trained: bool = True, exact: bool = False) -> Reading:
    model = SimpleNamespace(buckets=[64, 128])
    case = SimpleNamespace(model="tiny", variant="mine")
    trial = SimpleNamespace(learning_curve=curve, exact=exact, trained=trained, untrained_allowed=False)
    trial.model, trial.case = model, case
    (reading,) = FeatureError()(trial)  # type: ignore[arg-type]
    return reading


def test_it_is_the_mean_over_the_images_with_the_curve_beside_it() -> None:
    reading = taken(CURVE)
    assert reading.value == pytest.approx(0.2)
    assert (reading.n, reading.samples, reading.details) == (2, (0.1, 0.3), {"seed": 6, "points": [{"steps": 0}]})
    assert reading.low == 0.0
    assert reading.protocol == taken(None).protocol


@pytest.mark.parametrize(
    ("trial", "why"),
    [
        ({"exact": True}, "the teacher is what others are compared with"),
        ({"trained": False}, "mine has no trained weights on tiny"),
        ({}, "no learning curve was kept of this student"),
    ],
)
def test_where_nothing_was_kept_a_dash_says_why(trial: Any, why: str) -> None:
    reading = taken(None, **trial)
    assert reading.value is None
    assert reading.reason.startswith(why)


def test_a_student_has_the_curve_that_lies_beside_its_own_file(cache: Path) -> None:
    student = Student("tiny", "mine", "{}")
    student.cached.parent.mkdir(parents=True)
    student.curve.write_text(json.dumps(CURVE))
    assert student.learning_curve() is None
    student.save({}, student.cached, {})
    assert student.learning_curve() == CURVE
    student.curve.write_text(json.dumps(CURVE)[:-9])
    assert student.learning_curve() is None
