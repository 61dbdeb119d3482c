"""Verdicts on students of which the truth is known: the teacher itself, and one whose weights were disturbed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from harness.distillation.student import SHIPPED
from reports import read
from reports.compare import groups
from reports.findings import briefs

ROOT = Path(__file__).resolve().parents[2]
STUDENT = SHIPPED / "tiny_sd-linfusion.safetensors"
SCORES = {"attributes", "clip_score", "fdd", "ds"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def disturbed(path: Path, share: float) -> Path:
    """The shipped student with noise on every tensor, as strong as that share of its spread."""
    source = torch.Generator().manual_seed(0)
    tensors = {
        name: value + share * value.float().std().nan_to_num() * torch.randn(value.shape, generator=source)
        for name, value in load_file(STUDENT).items()
    }
    with safe_open(STUDENT, framework="pt") as file:
        header = file.metadata()
    save_file({name: value.half() for name, value in tensors.items()}, path, header)
    return path


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Outcome of each score by variant: judged by the command, told as the report tells it."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "variant").mkdir()
    own, linear = "baselines.SelfAttention.for_site", "baselines.LinFusionAttention.for_site"
    noisy = f"_target_: {linear}\n_partial_: true\npublished: {disturbed(folder / 'noisy.safetensors', 1.0)}\n"
    (folder / "variant" / "twin.yaml").write_text(f"# The teacher itself.\n_target_: {own}\n_partial_: true\n")
    (folder / "variant" / "noisy.yaml").write_text(f"# A student with noise on its weights.\n{noisy}")
    command = [sys.executable, "-m", "harness", "--config-dir", str(folder), "+sweep=quality", "models=[tiny_sd]"]
    command += ["variants=[self_attention,twin,noisy]", "resolutions=[64]", f"metrics=[{','.join(SCORES)}]", "n=50"]
    command += ["steps=8", "tracker=none", f"out={folder / 'out'}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DELTABENCH_CACHE": str(folder / "cache")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (brief,) = briefs(groups(read.load(folder / "out").records))
    assert brief.refused == ""
    return {
        row.series.variant: {one.name: one.verdict.outcome for one in row.differences if one.verdict}
        for row in brief.rows
    }


def test_the_teacher_as_its_own_student_passes(verdicts):
    assert verdicts["twin"] == dict.fromkeys(SCORES, "pass")


def test_a_student_with_noise_on_its_weights_fails(verdicts):
    assert verdicts["noisy"].keys() == SCORES
    assert "pass" not in verdicts["noisy"].values()
    assert {"attributes", "clip_score", "fdd"} <= {name for name, found in verdicts["noisy"].items() if found == "fail"}
