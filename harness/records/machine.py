"""The machine that a number was taken on: processor, memory, accelerator, versions, commit, load.

No host name and no path is kept, so records can be published.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("torch", "diffusers", "transformers", "timm", "open_clip_torch", "natten")
IDENTITY = ("cpu", "threads", "gpu")
VERSIONS = ("torch", "diffusers")


def describe(device: str = "cpu") -> dict[str, Any]:
    """What must be known beside a timing, as JSON values; what cannot be found out is None.

    `memory` is in bytes, `threads` are torch's, `load` is the average of the last minute: near `threads`, others were
    at work.
    """
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "threads": threads(),
        "memory": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        **_accelerator(device),
        **_checkout(Path(__file__).resolve().parents[2]),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def threads() -> int:
    """Threads that torch computes with: as it says once it is loaded, else OMP_NUM_THREADS or one for each core."""
    torch, asked = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS", "")
    if torch:
        return int(torch.get_num_threads())
    return int(asked) if asked.isdigit() and int(asked) else usable_cores()


def usable_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor(device: str) -> str:
    """The name of what computes: the accelerator's, or the processor's."""
    return str(_accelerator(device)["gpu"] or _cpu_name())


def same_make(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether timings taken on the two may be expected to agree."""
    return all(one.get(name) == other.get(name) for name in IDENTITY)


def differences(origin: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In words, how a number's origin differs from this run's: hardware, threads, torch, diffusers, source."""
    if not origin:
        return ["it is not known where"]
    said = [f"{name} {origin.get(name)}" for name in IDENTITY if origin.get(name) != here.get(name)]
    versions = [dict(side.get("packages") or {}) for side in (origin, here)]
    said += [f"{name} {versions[0].get(name)}" for name in VERSIONS if versions[0].get(name) != versions[1].get(name)]
    if origin.get("commit") != here.get("commit"):
        said.append(f"commit {str(origin.get('commit'))[:8]}")
    elif origin.get("dirty") or here.get("dirty"):
        said.append("source with changes that are not committed")
    return said


def room(machine: dict[str, Any]) -> int | None:
    """Bytes that a case may fill there: the accelerator's, or else the system's."""
    return machine.get("gpu_memory") or machine.get("memory")


def _cpu_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, None) or platform.processor() or platform.machine() or None


def version(package: str) -> str | None:
    """The version of a package that is installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _accelerator(device: str) -> dict[str, Any]:
    """Name, memory in bytes and CUDA version of the device, where it is one."""
    if not device.startswith("cuda"):
        return {"gpu": None, "gpu_memory": None, "cuda": None}
    import torch

    if not torch.cuda.is_available():
        return {"gpu": None, "gpu_memory": None, "cuda": torch.version.cuda}
    properties = torch.cuda.get_device_properties(torch.device(device))
    return {"gpu": properties.name, "gpu_memory": properties.total_memory, "cuda": torch.version.cuda}


def _checkout(root: Path) -> dict[str, Any]:
    """The commit of the source and whether it was changed since; None for an installed package."""
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    commit = git(root, "rev-parse", "HEAD", timeout_s=5)
    changes = git(root, "status", "--porcelain", "--untracked-files=no", timeout_s=5)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def git(folder: Path, *arguments: str, timeout_s: float | None = None) -> str | None:
    """What git answers in a folder; None where it refuses, is not installed, or takes too long."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
