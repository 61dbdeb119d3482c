"""A full disk, a cache that cannot be written, memory under a limit: a record with the true reason, and on it goes."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from slow_and_deadly import Counts
from test_run import Brightness, Fails, made, streams  # noqa: F401, `made` is a fixture

from harness.distillation.recipe import Recipe
from harness.distillation.stages import EndToEnd
from harness.distillation.training import Schedule
from harness.records import files
from harness.records.case import BadInput
from harness.records.store import Store
from harness.run import run

pytestmark = pytest.mark.usefixtures("cache")
SMALL = {"resolutions": [32], "n": 3, "batch": 2}
RECIPE = Recipe([EndToEnd(Schedule(steps=2, learning_rate=1e-3, warmup=1, precision="fp32"))], samples=4, batch=2)


@dataclass
class FullDisk:
    """Has no room for files of that ending."""

    ending: str

    def __call__(self, path: Path, content: str | bytes) -> None:
        if path.name.endswith(self.ending):
            raise OSError(errno.ENOSPC, "No space left on device")
        PLAIN(path, content)


PLAIN = files.write_whole


@pytest.fixture
def full(monkeypatch):
    """Makes the disk too full for files of an ending."""

    def fill(ending: str) -> None:
        for module in ("harness.kept_images", "harness.features.kept", "harness.job", "harness.records.store"):
            monkeypatch.setattr(f"{module}.write_whole", FullDisk(ending))

    return fill


def the_record(tmp_path):
    (record,) = Store(tmp_path / "out").records()
    return record


def test_a_disk_too_full_for_images_fails_the_case_and_keeps_its_numbers(made, tmp_path, full):  # noqa: F811
    full(".png")
    assert run(made({"counts": Counts(), "brightness": Brightness()}, **SMALL), streams()[0]) == 1
    record = the_record(tmp_path)
    assert (record.status, record.reason) == ("failed", "OSError [Errno 28] No space left on device")
    assert {reading.name for reading in record.readings} == {"counts", "brightness"}


def test_a_disk_too_full_for_features_is_noted_and_costs_no_number(made, tmp_path, full):  # noqa: F811
    full(".safetensors")
    assert run(made({"brightness": Brightness()}, **SMALL), streams()[0]) == 0
    record = the_record(tmp_path)
    assert record.status == "ok"
    assert "features cannot be kept (No space left on device): another run makes them again" in record.notes


def test_a_disk_too_full_for_a_traceback_still_says_what_broke(made, tmp_path, full):  # noqa: F811
    full(".txt")
    assert run(made({"fails": Fails(KeyError("odd"))}, resolutions=[64]), streams()[0]) == 1
    record = the_record(tmp_path)
    assert (record.reason, record.artifacts) == ("KeyError 'odd'", {})


def test_a_disk_too_full_for_a_record_ends_the_run_in_one_sentence(made, full):  # noqa: F811
    full(".json")
    with pytest.raises(BadInput, match=r"cannot be written .*No space left on device.*what was kept before is still"):
        run(made({"counts": Counts()}, **SMALL), streams()[0])


@pytest.mark.parametrize("variable", ["DELTABENCH_CACHE", "HOME"])
def test_a_cache_or_home_that_cannot_be_written_is_a_record_and_what_was_counted_is_kept(
    made,  # noqa: F811
    tmp_path,
    monkeypatch,
    variable,
):
    (tmp_path / "file").touch()
    monkeypatch.delenv("DELTABENCH_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    metrics, settings = {"counts": Counts(), "brightness": Brightness()}, {"variants": ["linfusion"], "train": RECIPE}
    assert run(made(metrics, **SMALL, **settings), streams()[0]) == 1
    record = the_record(tmp_path)
    assert record.status == "failed"
    assert os.strerror(errno.ENOTDIR) in record.reason
    assert record.reading("counts").value == 32
