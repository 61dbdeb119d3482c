"""A clone of this repository in which the gate is called as its users call it."""

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file
from speed_repository import git

from harness.seats.sources import header_of

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "harness/shapes/weights"


class Clone:
    """A clone of this repository, and a baseline of a few cases that was taken in it."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder / "clone"
        git(ROOT, "clone", "-q", "--no-local", str(ROOT), str(self.folder))
        self.sound = git(self.folder, "rev-parse", "HEAD")
        files = f"gate.baseline={folder}/gate.json gate.exact={folder}/exact.txt tracker=none"
        self._settings = f"models=[tiny_pixart] {settings} {files}".split()
        self.baseline = folder / "gate.json"
        self.environment = os.environ | {"PYTHONPATH": str(self.folder), "DELTABENCH_CACHE": str(folder / "cache")}
        written = self.gate("gate.update=true", "gate.speed=null")
        assert written.returncode == 0, written.stderr

    def gate(self, *arguments: str, settings: bool = True) -> subprocess.CompletedProcess[str]:
        """`python -m harness gate`, in the clone; what is given last of a setting counts."""
        verb = [word for word in arguments if word.isalpha()]
        given = [*(self._settings if settings else []), *(word for word in arguments if word not in verb)]
        command = [sys.executable, "-m", "harness", "gate", *verb, *given]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def judged(self, minutes: float) -> tuple[int, str]:
        """Commit what was changed, compare it with the sound commit; the exit status, and what the gate says."""
        git(self.folder, "commit", "-qam", "a plant", "--allow-empty")
        done = self.gate("base=HEAD~1", f"gate.speed.minutes={minutes}")
        print(done.stdout, done.stderr)
        git(self.folder, "reset", "-q", "--hard", self.sound)
        return done.returncode, done.stderr

    def replace(self, file: str, old: str, new: str) -> None:
        """Change a text that stands in a file once."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def append(self, file: str, more: str) -> None:
        """Write below a file."""
        with (self.folder / file).open("a", encoding="utf-8") as opened:
            opened.write(more)

    def disturb(self, weights: str, share: float) -> None:
        """Noise on weights, of so many of their own standard deviations."""
        import torch

        path, source = self.folder / WEIGHTS / weights, torch.Generator().manual_seed(0)
        state = load_file(path)
        noisy = {
            name: value + share * value.float().std(correction=0) * torch.randn(value.shape, generator=source)
            for name, value in state.items()
        }
        save_file({name: value.to(state[name].dtype) for name, value in noisy.items()}, path, header_of(path))
