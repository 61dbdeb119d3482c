"""Peak memory of one denoiser call, measured where it runs.

Weights plus activations, as in harness/counted/projected_memory.py. Weights are the bytes of the denoiser's storages;
activations are what one call adds at its highest point: on CUDA the allocator's own peak, on the CPU the high-water
mark of the resident set (VmHWM, which the kernel keeps), set back just before the call.

Three things would blur that mark in a long-lived process, and each is met:
- The first call pages in code. So there is a warm-up at the smallest size, and the least of several calls is taken.
- malloc keeps freed blocks for later. harness/measured/malloc.py has each returned at once, as on CUDA.
- Pages of files (the code of libraries) that come or go during the call. Such a call is made again.
"""

import gc
import mmap
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from harness.counted.live_bytes import storages
from harness.measured.malloc import every_block_returned
from harness.records.case import Resolution, at_least
from harness.records.record import Reading
from harness.seats.mixer import Unavailable
from harness.trial import Trial

MEASURED = {
    "cuda": "peak_memory/cuda-v1: one denoiser call, batch 1, least of few: weights + rise of max_memory_allocated",
    "cpu": "peak_memory/cpu-v2: one denoiser call, batch 1, least of few: weights + rise of VmHWM, no freed block kept",
}
CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
WARM_UP_TILES = 4
LEAST = 2  # calls: the first at a size also pays, once in a process, for kernels that are generated for its shapes
TRIES = 5  # calls made while pages of files come and go, before a measurement is given up
CPUS = os.cpu_count() or 1
LAG = max(32, 2 * CPUS) * CPUS * mmap.PAGESIZE
"""Bytes by which a counter of resident pages may be behind: Linux lets every CPU keep so many to itself."""
MOVED_SHARE = 0.01
"""Share of the rise, where that is more than the lag, by which resident files may change during a call that counts."""


@dataclass(frozen=True)
class PeakMemory:
    """What one denoiser call needed on the case's device: the least of two calls, or `most` in `seconds` of its time.

    Peaks repeat to the page; what the first call has on top is paid once in a process, not in a call.
    """

    name: str = "peak_memory"
    seconds: float = 3.0
    most: int = 3
    needs: ClassVar[str] = "device"

    def __post_init__(self) -> None:
        at_least(self, self.name, most=1)

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """One reading; details: weights, activations and, on CUDA, reserved. A dash where the system keeps no mark."""
        kind = torch.device(trial.case.device).type
        protocol = MEASURED.get(kind, f"peak_memory/{kind}")
        try:
            with trial.denoiser(parts="denoiser") as denoiser, torch.no_grad():
                weights = sum(storages(denoiser).values())
                _warm_up(trial, denoiser)
                arguments = trial.model.example(trial.case.resolution)
                calls = self._measured(lambda: denoiser(**arguments), kind)
        except Unavailable as reason:
            yield Reading(self.name, "peak_memory", None, "byte", "lower", protocol, reason=str(reason))
            return
        seen = min(calls, key=lambda call: call["activations"])
        samples = tuple(weights + call["activations"] for call in calls)
        details, name, n = {"weights": weights, **seen}, "peak_memory", len(calls)
        yield Reading(self.name, name, min(samples), "byte", "lower", protocol, n, samples=samples, details=details)

    def _measured(self, work: Callable[[], object], kind: str) -> list[dict[str, int]]:
        begun = time.process_time()
        calls = [measure(work, kind)]
        while len(calls) < LEAST or (len(calls) < self.most and time.process_time() - begun < self.seconds):
            calls.append(measure(work, kind))
        return calls


def _warm_up(trial: Trial, denoiser: nn.Module) -> None:
    """One call of a few latent patches a side: every kernel is loaded, next to nothing is allocated.

    A variant that cannot do so few (a pyramid's scale would empty its map) is called at the size itself.
    """
    side, wanted = WARM_UP_TILES * trial.model.multiple, trial.case.resolution
    try:
        denoiser(**trial.model.example(Resolution(min(side, wanted.width), min(side, wanted.height))))
    except Unavailable:
        denoiser(**trial.model.example(wanted))


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
    """How far the resident set rises while `work` runs; raises Unavailable where no mark is kept, or none is clear."""
    gc.collect()
    try:
        with every_block_returned():
            for _ in range(TRIES):
                rise, moved = _rise_and_files(work)
                if abs(moved) <= max(LAG, MOVED_SHARE * rise):
                    return rise
    except (OSError, KeyError) as error:
        raise Unavailable(
            f"the high-water mark of this process cannot be set back ({error}): "
            "measured peak memory on the CPU needs Linux with /proc/self/clear_refs; projected_memory works everywhere"
        ) from error
    raise Unavailable(
        f"pages of files came in or were taken back by the system during each of {TRIES} calls, the last time "
        f"{moved:+} bytes, which blurs the peak by as much: free some memory and run again; projected_memory works "
        "everywhere"
    )


def _rise_and_files(work: Callable[[], object]) -> tuple[int, int]:
    """Bytes by which the resident set rose, and by which its files grew."""
    CLEAR.write_text("5")
    before, files = resident("VmRSS"), resident("RssFile")
    work()
    return max(0, resident("VmHWM") - before), resident("RssFile") - files


def resident(field: str) -> int:
    """Bytes of a line of /proc/self/status, such as VmRSS, VmHWM or RssFile."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024
