"""How time is taken: after a warm-up, with every sample kept and what the machine did meanwhile.

CUDA events on a GPU, a monotonic clock on the CPU, both around an idle device. Calls are thrown away until three in a
row agree, then repeated for a fixed time. The median is the value: a mean follows whatever else the machine does. A
machine that was busy with other work is said to be noisy. Compare only within one run, as ratios.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.measured.load import Load
from harness.records.case import BadInput
from harness.records.record import Reading
from harness.records.statistics import bootstrap

Clock = Callable[[Callable[[], object]], float]  # milliseconds that some work takes

AGREEMENT = 0.05
DRAWS = 1000
ENOUGH_FOR_INTERVAL = 6  # below six samples even their whole range covers the median with less than 95 %


def check_batch(metric: str, batch: int | None) -> None:
    """Raise BadInput for a timed call without images; None stands for the case's own batch."""
    if batch is not None and batch < 1:
        raise BadInput(f"{metric}.batch={batch} is not possible: give at least 1, or null for the case's batch")


@dataclass(frozen=True)
class Timing:
    """Raw samples in milliseconds, and the calls that were thrown away before them."""

    samples_ms: tuple[float, ...]
    warm_up_ms: tuple[float, ...]
    stable: bool

    def interval_ms(self) -> tuple[float, float] | tuple[None, None]:
        """95 % bootstrap interval of the median; none below six samples."""
        if len(self.samples_ms) < ENOUGH_FOR_INTERVAL:
            return None, None
        return bootstrap(self.samples_ms, np.median, DRAWS)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms)


def wall_clock(work: Callable[[], object]) -> float:
    """Monotonic time on the CPU."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def cuda_clock(work: Callable[[], object]) -> float:
    """Time between two events of the stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def clock_for(device: str) -> Clock:
    """CUDA events on CUDA; elsewhere the monotonic clock."""
    return cuda_clock if torch.device(device).type == "cuda" else wall_clock


def clock_name(device: str) -> str:
    """The clock as a protocol says it."""
    return "CUDA event times" if torch.device(device).type == "cuda" else "monotonic wall times"


def repeat(work: Callable[[], object], seconds: float, least: int, clock: Clock = wall_clock) -> Timing:
    """Warm up for at most a third of `seconds`, then sample for the rest of it and until there are `least`.

    Slow work still ends: past twice `seconds` any number of samples will do, and where the very first call took that
    long, it is the only sample, and a cold one (no call was thrown away).
    """
    first_ms = clock(work)
    if first_ms > 2e3 * seconds:
        return Timing((first_ms,), (), stable=False)
    warm_up_ms = [first_ms]
    while not _agree(warm_up_ms) and sum(warm_up_ms) < 1e3 * seconds / 3:
        warm_up_ms.append(clock(work))
    samples_ms: list[float] = []
    while not _done(samples_ms, seconds, least):
        samples_ms.append(clock(work))
    return Timing(tuple(samples_ms), tuple(warm_up_ms), _agree(warm_up_ms))


def _done(samples_ms: Sequence[float], seconds: float, least: int) -> bool:
    elapsed_s = sum(samples_ms) / 1e3
    return bool(samples_ms) and elapsed_s >= seconds * 2 / 3 and (len(samples_ms) >= least or elapsed_s >= 2 * seconds)


def _agree(samples_ms: Sequence[float]) -> bool:
    """Three in a row within five percent."""
    last = samples_ms[-3:]
    return len(last) == 3 and max(last) <= min(last) * (1 + AGREEMENT)


def percentile(samples: Sequence[float], share: float) -> float:
    """By linear interpolation between the ranks."""
    return float(np.quantile(samples, share))


def observed(work: Callable[[], object], seconds: float, least: int, device: str) -> tuple[Timing, dict[str, Any]]:
    """Time some work on a device; beside it what belongs there: tail, drift, threads, load, and what makes it noisy.

    On CUDA a call is thrown away before `repeat` judges how slow the work is: at the first of a shape, libraries load
    and compile kernels, which can take thousands of times as long as the next.
    """
    if torch.device(device).type == "cuda":
        cuda_clock(work)
    load = Load.begin()
    timing = repeat(work, seconds, least, clock_for(device))
    details = summary(timing) | load.end()
    return timing, details | {"noisy": noise(details)}


def reading_of(timing: Timing, metric: str, protocol: str, details: dict[str, Any], name: str = "") -> Reading:
    """A timing as a reading, which bears its metric's name unless it is given one."""
    low, high = timing.interval_ms()
    value, samples = timing.median_ms, timing.samples_ms
    n, name = len(samples), name or metric
    return Reading(metric, name, value, "ms", "lower", protocol, n, low, high, samples=samples, details=details)


def summary(timing: Timing) -> dict[str, Any]:
    """What belongs beside the median: tail, best case, drift from first half to second half, warm-up."""
    samples = timing.samples_ms
    half = len(samples) // 2
    drift = statistics.median(samples[-half:]) / statistics.median(samples[:half]) - 1 if half else 0.0
    return {
        "p90": percentile(samples, 0.9),
        "min": min(samples),
        "drift": drift,
        "first_call": (timing.warm_up_ms or samples)[0],
        "warm_up_calls": len(timing.warm_up_ms),
        "stable": timing.stable,
        "spread": percentile(samples, 0.75) / percentile(samples, 0.25) - 1,
    }


def disturbance(load: dict[str, Any]) -> str:
    """What else the machine did meanwhile, by what `Load.end` tells; empty if nothing worth the name."""
    causes = [
        (load["other_cores"] > 0.25, f"other work kept {load['other_cores']:.1f} cores busy"),
        (load["stolen"] > 0.02, f"the host took {load['stolen']:.0%} of the time"),
    ]
    return ", ".join(sentence for present, sentence in causes if present)


def noise(details: dict[str, Any]) -> str:
    """What speaks against the number: a machine that was not quiet, a call that was not warm; empty if nothing does."""
    disturbed = disturbance(details)
    causes = [
        (not details["warm_up_calls"], "this is a single cold call, too slow for its budget"),
        (bool(disturbed), disturbed),
        (abs(details["drift"]) > 0.1, f"the second half of the samples is {details['drift']:+.0%} off the first"),
        (details["spread"] > 0.1, f"the middle half of the samples spreads over {details['spread']:.0%}"),
    ]
    return ", ".join(sentence for present, sentence in causes if present)
