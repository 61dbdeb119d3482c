"""A quality run that is killed inside its cases and started again has the scores of a run that nothing disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BATCHES = 5

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def quality(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command and its environment: all scores of a teacher and of a student, 50 images each in 5 batches."""
    command = [sys.executable, "-m", "harness", "+sweep=quality", "models=[tiny_sd]", "resolutions=[64]"]
    command += ["variants=[self_attention,linfusion]", "n=50", "batch=10", "steps=2"]
    command += ["tracker=none", f"out={folder / 'out'}"]
    return command, {**os.environ, "HF_HUB_OFFLINE": "1", "DELTABENCH_CACHE": str(folder / "cache")}


def count(pattern: Path) -> int:
    return len(list(pattern.parent.glob(pattern.name)))


def killed(folder: Path, moment: Callable[[], bool]) -> None:
    """A run that is sent SIGKILL at a moment."""
    command, environment = quality(folder)
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        try:
            while not moment() and run.poll() is None:
                time.sleep(0.005)
        finally:
            run.kill()
        said = run.stderr.read() if run.stderr else b""
    assert run.returncode == -signal.SIGKILL, said.decode()


def whole(folder: Path) -> dict[str, Any]:
    """All that the readings of a run to its end say, but when and by what they were taken."""
    command, environment = quality(folder)
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = {}
    for path in (folder / "out" / "records").glob("*.json"):
        for reading in json.loads(path.read_text())["readings"]:
            found[f"{path.stem} {reading['name']}"] = {key: value for key, value in reading.items() if key != "origin"}
    return found


def test_scores_intervals_and_details_are_those_of_a_run_that_was_never_killed(tmp_path):
    folder = tmp_path / "killed"
    features, records = folder / "out" / "features" / "*.safetensors", folder / "out" / "records" / "*.json"
    killed(folder, lambda: count(features) >= 2)
    assert (count(records), count(features) < BATCHES) == (0, True)
    killed(folder, lambda: count(features) >= BATCHES + 3)
    assert (count(records), count(features) < 2 * BATCHES) == (1, True)
    again, undisturbed = whole(folder), whole(tmp_path / "undisturbed")
    assert {"attributes", "clip_score", "fdd", "ds", "kd", "psnr"} <= {name.split()[1] for name in undisturbed}
    assert all(reading["value"] is not None for name, reading in undisturbed.items() if name.endswith(("fdd", "ds")))
    assert again == undisturbed
