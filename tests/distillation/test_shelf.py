"""`python -m harness students` lists what is here, and removes what nobody uses."""

from pathlib import Path

import pytest

from harness.distillation.alone import alone
from harness.distillation.shelf import kept, students
from harness.distillation.student import Student
from harness.records.case import BadInput


@pytest.fixture
def student(cache: Path) -> Student:
    found = Student("tiny", "linfusion", '{"recipe": "a"}')
    found.cached.parent.mkdir(parents=True)
    found.save({}, found.cached, {"loss_1": "0.5"})
    return found


def test_students_are_listed_and_removed(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["list"], ["--help"]):
        assert students(words) == 0
        assert f"{student.key}  tiny-linfusion" in (listed := capsys.readouterr().out)
        assert "loss_1 0.5" in listed
        assert ("students remove KEY" in listed) == (words == ["--help"])
    with pytest.raises(BadInput, match="no cached student has the key abc"):
        students(["remove", "abc"])
    with pytest.raises(BadInput, match="students throw is not understood"):
        students(["throw"])
    students(["remove", student.key])
    assert not list(student.cached.parent.glob(f"*{student.key}*"))


def test_a_shipped_student_stays_and_an_empty_cache_is_said(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = next(each for each in kept() if each.shipped)
    for key in shipped.keys:
        with pytest.raises(BadInput, match=rf"{key} is {shipped.path.stem}, which is shipped and stays"):
            students(["remove", key])
    assert students(["remove", "all"]) == 0
    assert capsys.readouterr().out == f"nothing of that is in {cache}: nothing was removed\n"


@pytest.mark.parametrize("place", ["unfinished", "encoded"])
def test_what_trainings_left_is_listed_and_removed_unless_one_uses_it(
    place: str, student: Student, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used, other = ("tiny-0123", "sd-0123") if place == "encoded" else (student.key, "0123")
    for name in (used, other):
        (cache / place / name / "text").mkdir(parents=True)
        (cache / place / name / "text" / "0-1.safetensors").write_bytes(b"12345")
    students([])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(place))
    assert " 2 x " in line
    assert "10 B" in line.replace("\u00a0", " ")
    with alone(student):
        students(["remove", place])
    assert (cache / place / used).exists()
    assert not (cache / place / other).exists()
    assert f"{cache / place / used} stays: a training uses it" in capsys.readouterr().out
    students(["remove", place])
    assert not (cache / place / used).exists()
    assert student.cached.exists()
