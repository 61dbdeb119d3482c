"""Measured memory, in a process whose heap no other test has touched; and how such a process is judged."""

from pathlib import Path

import pytest
from own_process import passes_alone


def test_measured_memory_is_that_of_known_blocks_and_of_projections() -> None:
    passes_alone(Path(__file__).with_name("measured_peak_memory.py"))


SKIPPED = """
import pytest
@pytest.mark.skip(reason="the moon is full")
def test_this(): pass
@pytest.mark.skip(reason="it rains")
def test_that(): pass
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SKIPPED, "^the moon is full; it rains$"),
        ("import pytest\npytest.skip('not here', allow_module_level=True)", "^not here$"),
    ],
    ids=["each", "the whole file"],
)
def test_a_file_of_which_nothing_ran_is_skipped_with_its_reasons(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(text)
    with pytest.raises(pytest.skip.Exception, match=said):
        passes_alone(tmp_path / "test_inner.py")


@pytest.mark.parametrize("text", ["def test_this(): assert 1 == 2", ""], ids=["red", "empty"])
def test_a_file_that_fails_or_holds_no_test_fails(text: str, tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(text)
    with pytest.raises(AssertionError):
        passes_alone(tmp_path / "test_inner.py")


def test_a_file_of_which_something_ran_passes_in_its_environment(tmp_path: Path) -> None:
    text = SKIPPED + "\ndef test_it():\n    import os\n    assert os.environ['COLOUR'] == 'blue'\n"
    (tmp_path / "test_inner.py").write_text(text)
    passes_alone(tmp_path / "test_inner.py", COLOUR="blue")
