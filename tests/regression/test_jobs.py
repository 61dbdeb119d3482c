"""The jobs that users copy: their steps run here as a runner would, in a clone and in a repository of a user's own."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from omegaconf import OmegaConf
from speed_repository import git

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "conf" / "gate"

MIXER = '''"""A mixer of a user's own."""

import time

import torch
from torch import nn

from harness.seats.mixer import TokenMixer


class Mine(TokenMixer):
    """One map of the mean; slower by so many milliseconds."""

    def __init__(self, channels):
        super().__init__()
        self.project = nn.Linear(channels, channels, bias=BIAS)

    @classmethod
    def for_site(cls, site, attention):
        return cls(site.channels)

    def forward(self, tokens_BNC, grid):
        begun = time.perf_counter()
        mixed = self.project(tokens_BNC.mean(dim=1, keepdim=True)).expand_as(tokens_BNC)
        while not tokens_BNC.is_meta and time.perf_counter() < begun + LEAST_S:
            pass
        return mixed

    def flops(self, grid):
        return 2 * self.project.in_features * self.project.out_features
'''
SETTINGS = (
    "--config-dir my_folder models=[tiny_pixart] variants=[mine] metrics=[site_costs] tracker=none "
    "gate.baseline=my_folder/gate.json gate.exact=my_folder/exact.txt"
)


def github_steps() -> list[str]:
    job = yaml.safe_load((JOBS / "github.yml").read_text())["jobs"]["gate"]
    return [step["run"] for step in job["steps"] if "run" in step]


def gitlab_steps() -> list[str]:
    return yaml.safe_load((JOBS / "gitlab.yml").read_text())["gate"]["script"]


def run(step: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A step as a runner runs it: by bash that stops at the first error."""
    command = ["bash", "-eo", "pipefail", "-c", step]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def environment(tmp_path: Path, base: str, settings: str, **more: str) -> dict[str, str]:
    """An interpreter of its own that sees what is installed here, and what a runner sets."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    (next((home / "lib").glob("python*")) / "site-packages" / "here.pth").write_text("\n".join(filter(None, sys.path)))
    return os.environ | {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "BASE": base,
        "SETTINGS": settings,
        "GITHUB_STEP_SUMMARY": str(tmp_path / "step_summary.md"),
        **more,
    }


def users_repository(folder: Path, least_s: float, bias: str) -> None:
    """What a user has: a package, a folder of configurations, and nothing else; committed."""
    (folder / "my_package").mkdir(parents=True, exist_ok=True)
    (folder / "my_package" / "__init__.py").write_text(MIXER.replace("LEAST_S", str(least_s)).replace("BIAS", bias))
    (folder / "my_folder" / "variant").mkdir(parents=True, exist_ok=True)
    text = "_target_: my_package.Mine.for_site\n_partial_: true\n"
    (folder / "my_folder" / "variant" / "mine.yaml").write_text(text)
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
        (folder / ".gitignore").write_text("__pycache__\noutputs\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a state")


def test_both_jobs_run_the_same_commands_and_name_the_files_that_are_written():
    install, gate, summary = github_steps()
    assert gitlab_steps() == [install, gate]
    assert summary.startswith("cat outputs/gate/gate.md")
    written = yaml.safe_load((JOBS / "baseline.yaml").read_text())["tell"]
    assert (written["summary"], written["junit"]) == ("${out}/gate.md", "${out}/gate.xml")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_users_own_variant_is_gated_in_a_users_own_repository(tmp_path):
    folder = tmp_path / "theirs"
    users_repository(folder, 0.002, "False")
    told = environment(tmp_path, "HEAD~1", f"{SETTINGS} gate.speed.minutes=12", PYTHONPATH=str(ROOT))
    renewed = run(f"python -m harness gate gate.update=true gate.speed=null {SETTINGS}", folder, told)
    assert renewed.returncode == 0, renewed.stderr
    users_repository(folder, 0.0025, "True")
    _, gate, summary = github_steps()
    done = run(gate, folder, told | {"GITHUB_ACTIONS": "true"})
    assert done.returncode == 1, done.stderr
    assert "Mine at transformer_blocks.0.attn1 and 5 more: parameters 16,384 -> 16,512 (+128, +0.78%)" in done.stderr
    assert "Mine at transformer_blocks.0.attn1 takes +2" in done.stderr
    assert "::error title=tiny_pixart mine 64 fp32" in done.stderr
    assert run(summary, folder, told).returncode == 0
    assert (tmp_path / "step_summary.md").read_text().startswith("## ❌ Gate: regression")
    root = ElementTree.parse(folder / "outputs" / "gate" / "gate.xml").getroot()
    assert any(True for _ in root.iter("failure"))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_steps_run_from_a_fresh_clone(tmp_path):
    pytest.importorskip("editables", reason="pip install -e needs it, and may not fetch it here")
    folder = tmp_path / "clone"
    git(ROOT, "clone", "-q", "--no-local", str(ROOT), str(folder))
    git(folder, "commit", "-q", "--allow-empty", "-m", "nothing changed")
    few = "models=[tiny_pixart] variants=[self_attention] metrics=[site_costs] tracker=none"
    settings = f"{few} gate.baseline={tmp_path}/gate.json gate.exact={tmp_path}/exact.txt"
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "PYTHONPATH": ""}
    told = environment(tmp_path, "HEAD~1", f"{settings} gate.speed.minutes=8", **offline)
    install, gate, summary = github_steps()
    installed = run(install.replace("pip install", "python -m pip install"), folder, told)
    assert installed.returncode == 0, installed.stderr
    renewed = run(f"python -m harness gate gate.update=true gate.speed=null {settings}", folder, told)
    assert renewed.returncode == 0, renewed.stderr
    done = run(gate, folder, told)
    assert done.returncode in (0, 3), done.stderr  # 3 where other work keeps this machine from deciding
    assert run(summary, folder, told).returncode == 0
    assert "❌" not in (tmp_path / "step_summary.md").read_text()


def test_annotations_are_written_on_github_alone(monkeypatch):
    found = []
    for value in ("", "true"):
        monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
        if value:
            monkeypatch.setenv("GITHUB_ACTIONS", value)
        found.append(OmegaConf.load(JOBS / "baseline.yaml").tell.annotations)
    assert found == [False, True]
