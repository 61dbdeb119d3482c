"""The section on learning: how near each recipe brings a student to its teacher, and how soon."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.records.record import Reading, Record
from harness.records.units import DASH, duration, human, in_full
from reports.axes import LEGEND, axis, framed, words
from reports.locality_charts import Figure

OLD, NEW = "paper", "ours"
"""Recipes of which it is said how long the second takes to come where the first ends."""
SCORES = ("feature_error", "attributes", "clip_score", "fdd")
COLUMNS = ("error of features", "attributes", "CLIP score", "FDD")
CURVES = {"features": "error of features", "prediction": "error of the prediction"}
"""Of a student in training, drawn against time."""
HEADS = ("student", "minutes", "steps", "images", *COLUMNS, "as near as paper")


@dataclass(frozen=True)
class Student:
    """One student: what it is called, the same without its seed, and its curve."""

    name: str
    taught: str
    record: Record
    reading: Reading

    @property
    def points(self) -> list[dict[str, float]]:
        """Its curve, from the start on."""
        found: list[dict[str, float]] = self.reading.details["points"]
        return found

    @property
    def end(self) -> dict[str, float]:
        return self.points[-1]

    def reaches(self, error: float) -> float | None:
        """Minutes until it was seen to be as near to its teacher; None if it never was."""
        return next((point["minutes"] for point in self.points if point["features"] <= error), None)


@dataclass(frozen=True)
class Part:
    """Students of one mixer on one model."""

    model: str
    mixer: str
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def told(self) -> tuple[str, ...]:
        """The sentences, each with its mixer."""
        return tuple(f"With {self.mixer}, {sentence}" for sentence in self.sentences)


def parts(records: Sequence[Record]) -> list[Part]:
    """One part for each model and mixer; the latest record of a student speaks for it."""
    held: dict[tuple[str, str], dict[str, Student]] = {}
    for record in records:
        if reading := record.number("feature_error"):
            name, seed = record.case.variant, reading.details["seed"]
            found = Student(name, name.removesuffix(f"-{seed}"), record, reading)
            held.setdefault((record.case.model, record.case.mixer), {})[name] = found
    return [_part(model, list(students.values())) for (model, _), students in sorted(held.items())]


def _part(model: str, students: Sequence[Student]) -> Part:
    students = sorted(students, key=lambda student: student.name)
    ends = [student.end["features"] for student in _by(students, OLD)]
    goal = fmean(ends) if ends else None
    return Part(
        model,
        _mixer(students[0].record),
        tuple(_sentences(students, goal)),
        tuple(_figure(students, of, title) for of, title in CURVES.items()),
        tuple(_row(student, goal) for student in students),
    )


def _mixer(record: Record) -> str:
    """The class of the mixers, as their factory names it."""
    try:
        return str(json.loads(record.case.mixer)["mixer"]).split(".")[-2]
    except (ValueError, KeyError, IndexError):
        return record.case.variant


def _by(students: Sequence[Student], recipe: str) -> list[Student]:
    return [student for student in students if student.taught.endswith(f"-{recipe}")]


def _sentences(students: Sequence[Student], goal: float | None) -> Iterator[str]:
    old, new = _by(students, OLD), _by(students, NEW)
    if goal is None or not new:
        return
    whole = fmean(student.end["minutes"] for student in old)
    taken = [found for student in new if (found := student.reaches(goal)) is not None]
    ended = f"{OLD} ends at an error of features of {goal:.3g} after {_lasting(whole)}"
    if len(taken) < len(new):
        yield f"{ended}; {len(new) - len(taken)} of {len(new)} students of {NEW} never come as near."
        return
    spread = f" ({_lasting(min(taken))} to {_lasting(max(taken))} of {len(taken)} seeds)" if len(taken) > 1 else ""
    mean = fmean(taken)
    yield f"{ended}; {NEW} is as near after {_lasting(mean)}{spread}, {human(mean / whole, 'share')} of that time."


def _lasting(minutes: float) -> str:
    return duration(60 * minutes).removesuffix(" 0 s")


def _figure(students: Sequence[Student], of: str, title: str) -> Figure:
    recipes = list(dict.fromkeys(student.taught for student in students))
    seeds = {name: sum(student.taught == name for student in students) for name in recipes}
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [point["minutes"] for point in student.points],
            "y": [point[of] for point in student.points],
            "name": student.taught,
            "legendgroup": student.taught,
            "showlegend": student is next(each for each in students if each.taught == student.taught),
            "line": {
                "color": f"--series-{recipes.index(student.taught) % 10}",
                "width": 1 if seeds[student.taught] > 1 else 2,
            },
            "hovertemplate": f"{student.name}: %{{y:.3g}} after %{{x:.2g}} min<extra></extra>",
        }
        for student in students
    ]
    frame = framed("minutes of training") | LEGEND
    frame["yaxis"] = axis() | {"type": "log", "dtick": "D2", "title": words(title)}
    protocols = tuple(dict.fromkeys(student.reading.protocol for student in students))
    says = "The lower a line ends, the nearer the student is; the sooner it falls, the less training that takes."
    return Figure(f"{title.capitalize()} against time", says, protocols, {"data": lines, "layout": frame})


def _row(student: Student, goal: float | None) -> tuple[str, ...]:
    reached = None if goal is None else student.reaches(goal)
    end = student.end
    counts = (f"{end['minutes']:.2f}", f"{end['steps']:.0f}", f"{end['images']:.0f}")
    scores = (student.record.number(name) for name in SCORES)
    told = (in_full(one.value, one.low, one.high, one.unit) if one else DASH for one in scores)
    return student.name, *counts, *told, f"{reached:.2f} min" if reached is not None else DASH
