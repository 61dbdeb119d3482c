"""A training that is killed, shared, repeated or goes wrong: it ends where it should, or says why it does not."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from distil_by_itself import RECIPE
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from worlds import Noise

from baselines import LinFusionAttention
from harness.distillation.alone import alone
from harness.distillation.student import Student, ingredients
from harness.distillation.training import Diverged, Schedule, train
from harness.records.case import BadInput

SCRIPT = Path(__file__).with_name("distil_by_itself.py")
FACTORY = partial(LinFusionAttention.for_site)
QUICK = Schedule(steps=40, learning_rate=0.2, warmup=4, average=0.5, precision="fp32", save_every=10)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save("sd", tmp_path_factory.mktemp("teacher") / "sd")


def started(teacher: Path, cache: Path, **environment: str) -> subprocess.Popen[str]:
    places = os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parents[1]), *sys.path])
    given = os.environ | {"DELTABENCH_CACHE": str(cache), "PYTHONPATH": places, "OMP_NUM_THREADS": "1"} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(teacher)], env=given, **pipes)  # type: ignore[call-overload, no-any-return]


def path_of(process: subprocess.Popen[str]) -> str:
    return path_and_said(process)[0]


def path_and_said(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return str(out.strip().splitlines()[-1]), err


def ended(process: subprocess.Popen[str]) -> dict[str, Tensor]:
    return load_file(path_of(process))


@pytest.fixture(scope="module")
def whole(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return path_of(started(teacher, tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(scope="module")
def undisturbed(whole: str) -> dict[str, Tensor]:
    return load_file(whole)


def losses(path: str) -> list[float]:
    """The smoothed losses at the end of both stages."""
    with safe_open(path, framework="pt") as file:
        return [float(file.metadata()[f"loss_{stage}"]) for stage in (1, 2)]


@pytest.mark.parametrize("moment", ["data", "1.safetensors", "2.safetensors"])
def test_a_killed_training_ends_bit_for_bit_where_an_undisturbed_one_does(
    moment: str, teacher: Path, undisturbed: dict[str, Tensor], tmp_path: Path
) -> None:
    process = started(teacher, tmp_path)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if moment == "data" and (tmp_path / "students").is_dir():
            break
        if list((tmp_path / "unfinished").glob(f"*/{moment}")):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = ended(started(teacher, tmp_path))
    assert found.keys() == undisturbed.keys()
    assert all(torch.equal(value, undisturbed[name]) for name, value in found.items())


def test_two_processes_end_where_one_does(teacher: Path, whole: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [
        started(teacher, tmp_path, **shared, RANK=rank, LOCAL_RANK=rank, LOCAL_WORLD_SIZE="2") for rank in ("0", "1")
    ]
    (found, said), (other, second) = map(path_and_said, both)
    assert other == found
    assert ("training one" in said, "training one" in second) == (True, False)
    # Sums of halves round otherwise than sums of wholes, and 24 steps of AdamW make of it what they do.
    assert losses(found) == pytest.approx(losses(whole), rel=1e-3)


def going_wrong(module: nn.Module, step: int, values: bool) -> Callable[[int], Tensor]:
    """A loss that is nan at a step; or that has its value there, and gradients that are nan."""

    def loss(now: int) -> Tensor:
        value = module(torch.ones(2, 3)).square().mean()
        nothing = (value * 0).sqrt()  # 0, whose gradient is 0 * inf
        return value * (float("nan") if values else 1.0) + nothing if now == step - 1 else value  # type: ignore[no-any-return]

    return loss


@pytest.mark.parametrize("values", [True, False])
def test_what_is_no_number_stops_with_a_sentence_and_the_last_good_state_stays(values: bool, tmp_path: Path) -> None:
    module, checkpoint = nn.Linear(3, 1), tmp_path / "line.safetensors"
    became = "the loss became nan" if values else "the weights became infinite or nan"
    remedy = r"line\.safetensors: train slower, with train\.schedule\.learning_rate=0\.1$"
    with pytest.raises(Diverged, match=rf"line: {became} by step 20 .* the last good state is in .*{remedy}"):
        train(module, going_wrong(module, 20, values), QUICK, "line", checkpoint)
    assert all(value.isfinite().all() for value in load_file(checkpoint).values())
    with safe_open(checkpoint, framework="pt") as file:
        assert file.metadata()["step"] == "10"


def test_no_state_is_promised_where_none_was_kept(tmp_path: Path) -> None:
    module = nn.Linear(3, 1)
    with pytest.raises(Diverged, match="by step 6 and training stopped; nothing of it was kept: "):
        train(module, going_wrong(module, 6, True), QUICK, "line", tmp_path / "line.safetensors")


@pytest.mark.parametrize("kept", [True, False])
def test_no_training_ends_with_weights_that_are_no_numbers(kept: bool, tmp_path: Path) -> None:
    module, checkpoint = nn.Linear(3, 1), tmp_path / "line.safetensors" if kept else None
    with pytest.raises(Diverged, match="the weights became infinite or nan by step 40"):
        train(module, going_wrong(module, 40, False), QUICK, "line", checkpoint)


def test_what_minutes_end_is_looked_at_as_well(tmp_path: Path) -> None:
    module, checkpoint = nn.Linear(3, 1), tmp_path / "line.safetensors"
    bad = going_wrong(module, 3, False)

    def slow(step: int) -> Tensor:
        time.sleep(0.3 if step == 2 else 0.0)
        return bad(step)

    with pytest.raises(Diverged, match=r"the weights became infinite or nan by step 3 .* nothing of it was kept"):
        train(module, slow, replace(QUICK, minutes=0.3 / 60), "line", checkpoint)
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    module, checkpoint = nn.Linear(3, 1), tmp_path / "line.safetensors"

    def loss(step: int) -> Tensor:
        return module(torch.ones(2, 3)).square().mean()  # type: ignore[no-any-return]

    train(module, loss, QUICK, "line", checkpoint)
    with pytest.raises(BadInput, match="is of another recipe: remove it to begin again"):
        train(module, loss, replace(QUICK, learning_rate=0.1), "line", checkpoint)


def test_a_checkpoint_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    module = nn.Linear(3, 1)
    with pytest.raises(BadInput, match=r"cannot be written .* set DELTABENCH_CACHE"):
        train(module, lambda step: module(torch.ones(2, 3)).mean(), QUICK, "line", tmp_path / "file" / "x.safetensors")


@pytest.fixture
def student(cache: Path, teacher: Path) -> Student:
    model = tiny_pipelines.KINDS["sd"]("tiny", source=str(teacher))
    return Student("tiny", "linfusion", ingredients(RECIPE, model.fingerprint(), FACTORY, "noise"))


def test_who_comes_second_waits_says_so_and_trains_nothing(
    student: Student, teacher: Path, cache: Path, undisturbed: dict[str, Tensor]
) -> None:
    with alone(student):
        process = started(teacher, cache)
        assert process.stderr is not None
        said = next(line for line in process.stderr if "another run" in line)
        assert said == "another run trains linfusion of tiny: waiting for it\n"
        # The first run's result, which the second finds when its turn comes.
        save_file(undisturbed, student.cached, {"key": student.key, "ingredients": student.ingredients})
    out, rest = process.communicate(timeout=120)
    assert out.strip() == str(student.cached)
    assert "training one" not in rest


def test_force_trains_what_is_there_once_a_run(
    student: Student, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_pipelines.KINDS["sd"]("tiny", source=str(teacher))
    RECIPE.run(student, model, FACTORY, Noise(), "cpu")  # type: ignore[arg-type]
    assert "no student of linfusion on tiny is here: training one for 36 steps" in capsys.readouterr().err
    RECIPE.run(student, model, FACTORY, Noise(), "cpu")  # type: ignore[arg-type]
    assert "training one" not in capsys.readouterr().err
    again = replace(RECIPE, force=True, begun=time.time())
    assert student.key == Student("tiny", "linfusion", ingredients(again, model.fingerprint(), FACTORY, "noise")).key
    assert again.wants(student)
    again.run(student, model, FACTORY, Noise(), "cpu")  # type: ignore[arg-type]
    assert not again.wants(student)
