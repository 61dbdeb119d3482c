"""A git repository whose `harness` answers a duel without torch: how fast it claims to be stands in a file of it."""

import subprocess
from pathlib import Path

ANSWERS = """
import importlib, json, pathlib, random, sys
importlib.import_module("harness.{imported}")  # as Hydra imports what a configuration names
here = pathlib.Path(__file__).parent
speeds = json.loads((here / "speeds.json").read_text())
asked = json.loads(sys.stdin.readline())
if "broken" in speeds:
    sys.exit(speeds["broken"])
units = [{{"case": "tiny linfusion 64 fp32 cpu", "site": site, "mixer": mixer, "alike": 1}} for site, mixer in (
    ("down.attn1", "LinFusionAttention"), ("up.attn1", "LinFusionAttention"), ("the whole call", ""))]
units = units[: speeds.get("units", 3)]
if "reference" in speeds:
    units += [unit | {{"case": "tiny self_attention 64 fp32 cpu"}} for unit in units]
    speeds["ms"] += speeds["reference"]
print(json.dumps({{"protocol": "fake", "packages": {{"harness": str(here)}}, "units": units}}), flush=True)
source = random.Random()
for line in sys.stdin:
    index, seconds = line.split()
    each = speeds["ms"][int(index)]
    print(json.dumps([each * source.uniform(1, 1 + speeds.get("noise", 0.02)) for _ in range(20)]), flush=True)
"""


def git(folder: Path, *arguments: str) -> str:
    """What git says."""
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, speeds: str, slow_import: float = 0.0) -> str:
    """Commit such a harness; `slow_import` is how many seconds one of its modules sleeps."""
    package = folder / "harness"
    package.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
        (folder / ".gitignore").write_text("__pycache__\n")
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text(f"import time\ntime.sleep({0.05 + slow_import})\n")
    (package / "__main__.py").write_text(ANSWERS.format(imported="part"))
    (package / "speeds.json").write_text(speeds)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a state", "--allow-empty")
    return git(folder, "rev-parse", "HEAD")
