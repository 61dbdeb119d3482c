"""A checkout of a commit, and a process of it that is asked slice by slice how fast it is, and what it imports."""

import compileall
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from harness.records.case import BadInput

IMPORTS = "import time:"
START = """
import importlib, importlib.util, runpy, sys
def import_module(name, package=None):
    name = importlib.util.resolve_name(name, package)
    __import__(name)
    return sys.modules[name]
importlib.import_module = import_module
runpy.run_module("harness", run_name="__main__", alter_sys=True)
"""
"""`python -m harness` whose imports by name, which is how Hydra finds a variant, are timed like import statements."""


class Broken(RuntimeError):
    """A side's process ended; the message is the last line that it wrote."""


@dataclass(frozen=True)
class Checkout:
    """A folder with code, what it is called, and the command line of the gate that it is measured under."""

    name: str
    folder: Path
    arguments: tuple[str, ...]
    python_path: tuple[str, ...] = (".",)
    threads: int = 1

    def packages(self) -> list[str]:
        """The packages in this folder."""
        roots = [self.folder / part for part in self.python_path]
        return sorted({path.parent.name for root in roots for path in root.glob("*/__init__.py")})

    def compiled(self) -> None:
        """Compile the packages, so that no process pays for that within its imports."""
        for root in self.python_path:
            for package in self.packages():
                compileall.compile_dir(self.folder / root / package, quiet=2)

    def environment(self) -> dict[str, str]:
        """This process's, with the folder's packages before all others."""
        ahead = [str((self.folder / part).resolve()) for part in self.python_path]
        threads = str(self.threads)
        path = os.pathsep.join([*ahead, *filter(None, [os.environ.get("PYTHONPATH")])])
        return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


@dataclass
class Side:
    """A process of a checkout. `imports_ms`: own time of each module of the checkout's packages, once it has begun."""

    checkout: Checkout
    units: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start; it imports while others start as well. `begin` waits for it."""
        command = [sys.executable, "-X", "importtime", "-c", START, "gate", "slices", *self.checkout.arguments]
        self._errors = TemporaryFile("w+", errors="replace")  # noqa: SIM115, it lives as long as the process
        self._process = subprocess.Popen(
            command,
            cwd=self.checkout.folder,
            env=self.checkout.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def begin(self) -> None:
        """Say what is to be answered, and read which units there are; Broken where the code does not run."""
        packages = self.checkout.packages()
        self._tell(json.dumps({"packages": packages, "threads": self.checkout.threads}))
        told = self._answer()
        self.units = told["units"]
        for name, path in told["packages"].items():
            if not Path(path).resolve().is_relative_to(self.checkout.folder.resolve()):
                raise Broken(f"package {name} was imported from elsewhere, so this commit was not measured")

    def samples_ms(self, index: int, seconds: float) -> list[float]:
        """Milliseconds of the calls of one slice of a unit."""
        self._tell(f"{index} {seconds}")
        found: list[float] = self._answer()
        return found

    def hold(self, cores: set[int]) -> None:
        """Let it compute on these cores alone."""
        with suppress(OSError):  # it has ended, which the next answer tells
            os.sched_setaffinity(self._process.pid, cores)

    def imports_ms(self) -> dict[str, float]:
        """Own milliseconds of every module that was imported, by name."""
        self._errors.seek(0)
        rows = [line.removeprefix(IMPORTS).split("|") for line in self._errors if line.startswith(IMPORTS)]
        return {row[2].strip(): float(row[0]) / 1e3 for row in rows if len(row) == 3 and row[0].strip().isdigit()}

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended, which the next answer tells
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Broken(self._last_word())
        return json.loads(line)

    def _last_word(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        said = [line.strip() for line in self._errors if line.strip() and not line.startswith(IMPORTS)]
        return said[-1][:300] if said else f"it ended with status {self._process.returncode} and said nothing"


def begun(sides: Sequence[Side], base: Checkout) -> None:
    """Wait until both answer. A base that does not run is BadInput; a head that does not is Broken."""
    for side in sides:
        try:
            side.begin()
        except Broken as error:
            if side.checkout is not base:
                raise
            raise BadInput(
                f"the base {base.name} does not run here ({error}): give another commit with gate.speed.base=, or "
                "gate.speed.base=null to compare with the baseline file"
            ) from error


def together(sides: Sequence[Side], turn: int) -> None:
    """Hold all to the same cores, one a thread, from turn to turn to other ones; nothing where no system call does."""
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        for side in sides:
            threads = side.checkout.threads
            side.hold({allowed[(turn * threads + offset) % len(allowed)] for offset in range(threads)})
