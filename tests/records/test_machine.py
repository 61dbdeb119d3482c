"""The description of the machine is complete, goes to JSON, and names neither host nor path."""

import getpass
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records import machine


@pytest.fixture(scope="module")
def described():
    return machine.describe("cpu")


def test_it_knows_the_machine(described):
    accelerator, source = {"gpu", "gpu_memory", "cuda"}, {"python", "packages", "commit", "dirty"}
    assert described.keys() == {"cpu", "cores", "threads", "memory", "os", "load"} | accelerator | source
    assert described["threads"] >= 1
    assert described["memory"] > 2**28
    assert described["python"] == platform.python_version()
    assert described["packages"].keys() == set(machine.PACKAGES)
    assert described["packages"]["torch"] is not None
    assert described["gpu"] is None


def test_it_is_the_same_after_json(described):
    assert json.loads(json.dumps(described)) == described


def test_it_names_neither_host_nor_user_nor_path(described):
    text = json.dumps(described)
    assert str(Path.home()) not in text
    assert str(Path(machine.__file__).parent.parent) not in text
    words = set(text.replace('"', " ").split())
    assert platform.node() not in words
    assert getpass.getuser() not in words


def test_it_imports_no_torch_for_the_cpu():
    code = "import sys; from harness.records.machine import describe; describe('cpu'); print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert answer.stdout.strip() == "False"


def test_the_commit_is_that_of_the_checkout_and_changes_are_flagged(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    assert machine._checkout(tmp_path) == {"commit": None, "dirty": None}
    git("init")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-m", "x")
    clean = machine._checkout(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "file").write_text("b")
    assert machine._checkout(tmp_path) == clean | {"dirty": True}
    assert machine._checkout(tmp_path / "below") == {"commit": None, "dirty": None}


def test_machines_of_one_make_may_be_compared(described):
    assert machine.same_make(described, described | {"load": 9.0, "commit": "other"})
    assert not machine.same_make(described, described | {"cpu": "another"})


@pytest.mark.gpu
def test_it_knows_the_accelerator():
    described = machine.describe("cuda")
    assert described["gpu"]
    assert described["gpu_memory"] > 2**30
