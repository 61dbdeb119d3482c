"""Peak memory of one denoiser call: projected on the meta device at any size, and measured where it runs.

Both are weights plus activations, so that they can be laid side by side. Weights are the bytes of the denoiser's own
storages; activations are what one call adds at its highest point. Measured, that is on CUDA the allocator's own peak,
and on the CPU the high-water mark of the resident set (the kernel keeps it, nothing is sampled), set back just before
the call. In one long-lived process two things would hide a peak, and both are taken away first: freed blocks that
malloc keeps (malloc_trim), and code that is paged in by the first call (a warm-up call at the smallest size).
"""

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from harness.case import Resolution
from harness.metrics.footprint import Body, body_of, footprint, storages
from harness.metrics.visits import body_key
from harness.mixer import Unavailable
from harness.record import Reading

if TYPE_CHECKING:
    from harness.trial import Trial

PROJECTED = (
    "projected_memory/v1: one denoiser call, batch 1, case dtype, live storages traced on the meta device, "
    "scaled_dot_product_attention fused, workspace inside operators not counted"
)
MEASURED = {
    "cuda": "peak_memory/cuda-v1: weights + rise of max_memory_allocated over one warm denoiser call, batch 1",
    "cpu": "peak_memory/cpu-v1: weights + rise of VmHWM (reset, heap trimmed) over one warm denoiser call, batch 1",
}
CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
WARM_UP_TILES = 4


@dataclass(frozen=True)
class ProjectedMemory:
    """What one denoiser call would need, hardware-free and exact; allocates nothing."""

    name: str = "projected_memory"
    bodies: dict[object, Body] = field(default_factory=dict, repr=False, compare=False)
    needs: ClassVar[str] = "shapes"

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        """One reading; details: weights, activations, the operator at the peak, the most that a mixer adds."""
        with trial.meta_denoiser() as (denoiser, arguments):
            key = body_key(trial, denoiser)
            if key not in self.bodies:
                self.bodies[key] = body_of(denoiser, arguments)
            seen = footprint(denoiser, self.bodies[key])
        yield Reading(self.name, "projected_memory", seen.peak, "byte", "lower", PROJECTED, details=asdict(seen))


@dataclass(frozen=True)
class PeakMemory:
    """What one denoiser call needed on the case's device."""

    name: str = "peak_memory"
    needs: ClassVar[str] = "device"

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        """One reading; details: weights, activations and, on CUDA, reserved. A dash where the system keeps no mark."""
        kind = torch.device(trial.case.device).type
        protocol = MEASURED.get(kind, f"peak_memory/{kind}")
        try:
            with trial.denoiser() as denoiser, torch.no_grad():
                weights = sum(storages(denoiser).values())
                denoiser(**trial.model.example(_smallest(trial)))
                arguments = trial.model.example(trial.case.resolution)
                seen = measure(lambda: denoiser(**arguments), kind)
        except Unavailable as reason:
            yield Reading(self.name, "peak_memory", None, "byte", "lower", protocol, reason=str(reason))
            return
        details = {"weights": weights, **seen}
        peak = weights + seen["activations"]
        yield Reading(self.name, "peak_memory", peak, "byte", "lower", protocol, details=details)


def _smallest(trial: "Trial") -> Resolution:
    """A few latent patches a side: every kernel is loaded, next to nothing is allocated."""
    side = WARM_UP_TILES * trial.model.multiple
    wanted = trial.case.resolution
    return Resolution(min(side, wanted.width), min(side, wanted.height))


def measure(work: Callable[[], object], kind: str) -> dict[str, int]:
    """Bytes that `work` adds at its highest point (`activations`), by the means of the device."""
    if kind == "cuda":
        return _cuda_rise(work)
    if kind == "cpu":
        return {"activations": resident_rise(work)}
    raise Unavailable(f"peak memory cannot be measured on {kind}: use device=cpu or device=cuda")


def _cuda_rise(work: Callable[[], object]) -> dict[str, int]:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return {
        "activations": torch.cuda.max_memory_allocated() - before,
        "reserved": torch.cuda.max_memory_reserved(),
        "reserved_before": reserved,
    }


def resident_rise(work: Callable[[], object]) -> int:
    """How far the resident set rises while `work` runs; raises Unavailable where nobody keeps the mark."""
    gc.collect()
    _return_freed_blocks()
    try:
        CLEAR.write_text("5")
        before = resident("VmRSS")
        work()
        return max(0, resident("VmHWM") - before)
    except (OSError, KeyError) as error:
        raise Unavailable(
            f"the high-water mark of this process cannot be set back ({error}): "
            "measured peak memory on the CPU needs Linux with /proc/self/clear_refs; projected_memory works everywhere"
        ) from error


def resident(field: str) -> int:
    """Bytes of a line of /proc/self/status, such as VmRSS or VmHWM."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def _return_freed_blocks() -> None:
    """glibc keeps freed blocks resident, and a call that fits into them would cost nothing."""
    if os.name == "posix":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
