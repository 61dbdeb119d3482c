"""One site at a time: the variant's mixer at each level of a model, against the measured limits of this machine.

For each level of the denoiser its first site, by itself with random weights: forward, and forward with backward. The
floor is this machine's measured roofline (`harness.measured.rates`): FLOPs at the rate of a large matrix product, bytes
that must be moved (tokens in and out, weights) at the rate of a large copy. What is far above its floor can be made
faster. FLOPs are those of the mixer's definition: a forward that does with fewer may come below its floor.

A level is named by its channels and by the pixels of a token's side: c320_p8 is the top of SD1.5 at any resolution.
Shapes: B batch, N tokens, C channels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.measured.conformance import breach
from harness.measured.distinct_sites import DistinctSite, distinct_sites, mixer_at, tokens_at
from harness.measured.rates import Limits, limits, too_slow
from harness.measured.timing import check_batch, clock_name, observed, reading_of
from harness.models.model import DTYPES
from harness.records.record import Reading
from harness.seats.mixer import Grid, TokenMixer
from harness.trial import Trial

PASSES = {"forward": 1, "training": 3}
"""Work in forwards: a backward pass finds the gradients of tokens and of weights, and is priced at two."""


@dataclass(frozen=True)
class MixerBench:
    """Time at each level, and how many times its floor that is; about `seconds` of samples a level and direction.

    batch: images a call; None for the case's. patience: a call that needs more seconds than this even at the machine's
    best rate is not tried.
    """

    name: str = "mixer_bench"
    seconds: float = 0.5
    least: int = 7
    patience: float = 10.0
    batch: int | None = 1
    needs: ClassVar[str] = "shapes"
    runs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_batch(self.name, self.batch)

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """mixer_bench, the forwards of all levels over their floors; then each level's times, and each over its own."""
        batch = trial.case.batch if self.batch is None else self.batch
        scope = f"by itself, batch {batch}, random weights, eager, warm, median of {clock_name(trial.case.device)}"
        found = {label: self._times(label, distinct, trial, batch, scope) for label, distinct in levels(trial).items()}
        protocol = f"{self.name}/v2: forwards over floors of the first site of each level {scope}"
        yield over_floor(self.name, self.name, [times["forward"] for times in found.values()], protocol)
        for label, times in found.items():
            for direction, time in times.items():
                name = f"{direction}_over_floor"
                yield time
                yield over_floor(self.name, f"{name}_{label}", [time], f"{name}/v1: first site of a level {scope}")

    def _times(self, label: str, distinct: DistinctSite, trial: Trial, batch: int, scope: str) -> dict[str, Reading]:
        """The time of each direction, with its floor among the details, or a dash with the reason."""
        device, dtype, flops = trial.case.device, DTYPES[trial.case.dtype], batch * distinct.flops

        def dash(name: str, why: str) -> Reading:
            protocol = f"{name}/v1: first site of a level {scope}"
            return Reading(self.name, f"{name}_{label}", None, "ms", "lower", protocol, reason=why)

        if why := too_slow(flops, self.patience, device, dtype):
            return {name: dash(name, why) for name in PASSES}
        mixer, tokens_BNC = mixer_at(distinct, trial), tokens_at(distinct, trial, batch)
        if why := breach(mixer, distinct.site, tokens_BNC):
            return {name: dash(name, why) for name in PASSES}
        traffic, machine = distinct.traffic(batch) * tokens_BNC.element_size(), limits(device, dtype)

        def timed(name: str, work: Callable[[], object]) -> Reading:
            timing, details = observed(work, self.seconds, self.least, device)
            price = floor(PASSES[name] * flops, PASSES[name] * traffic, machine)
            protocol = f"{name}/v1: first site of a level {scope}"
            return reading_of(timing, self.name, protocol, distinct.shape | price | details, f"{name}_{label}")

        @torch.no_grad()
        def once() -> object:
            return mixer(tokens_BNC, distinct.grid)

        forward = timed("forward", once)
        expected_s = PASSES["training"] * float(forward.value or 0) / 1e3
        if expected_s > self.patience:
            why = f"about {expected_s:.0f} s by its forward; the patience is {self.patience:g} s"
            return {"forward": forward, "training": dash("training", why)}
        return {"forward": forward, "training": timed("training", _training(mixer, tokens_BNC, distinct.grid))}


def floor(flops: int, traffic: int, machine: Limits) -> dict[str, Any]:
    """What the details say of a call's work, of the least time that it can take, and of the rates behind that."""
    return {
        "flops": flops,
        "bytes": traffic,
        "floor": machine.floor_ms(flops, traffic),
        "bound": machine.bound(flops, traffic),
        "machine_flops_per_s": machine.flops_per_s,
        "machine_bytes_per_s": machine.bytes_per_s,
    }


def over_floor(metric: str, name: str, times: Sequence[Reading], protocol: str) -> Reading:
    """The sum of times over that of their floors; a dash where one of them is.

    The interval is that of the times, which vary independently: half-widths add in squares.
    """
    medians_ms = [time.value for time in times if time.value is not None]
    if len(medians_ms) < len(times):
        first = next(time for time in times if time.value is None)
        return Reading(metric, name, None, "x", "lower", protocol, reason=f"{first.name}: {first.reason}")
    value_ms, floor_ms = math.fsum(medians_ms), math.fsum(time.details["floor"] for time in times)
    low = high = None
    ends_ms = [(time.low, time.high) for time in times if time.low is not None and time.high is not None]
    if len(ends_ms) == len(times):
        pairs = list(zip(medians_ms, ends_ms, strict=True))
        low = (value_ms - math.hypot(*(median - end for median, (end, _) in pairs))) / floor_ms
        high = (value_ms + math.hypot(*(end - median for median, (_, end) in pairs))) / floor_ms
    noisy = "; ".join(f"{time.name}: {time.details['noisy']}" for time in times if time.details["noisy"])
    n = min(time.n for time in times)
    details = {"floor": floor_ms, "noisy": noisy}
    return Reading(metric, name, value_ms / floor_ms, "x", "lower", protocol, n, low, high, details=details)


def levels(trial: Trial) -> dict[str, DistinctSite]:
    """The first distinct site of each level of the denoiser, by the level's name."""
    found: dict[str, DistinctSite] = {}
    for distinct in distinct_sites(trial):
        pixels = round(trial.case.resolution.height / distinct.grid[0])
        found.setdefault(f"c{distinct.site.channels}_p{pixels}", distinct)
    return found


def _training(mixer: TokenMixer, tokens_BNC: Tensor, grid: Grid) -> Callable[[], object]:
    """Forward and backward to tokens and weights; gradients are let go as an optimiser does."""
    leaf_BNC = tokens_BNC.clone().requires_grad_()
    gradient_BNC = torch.ones_like(tokens_BNC)
    mixer.train().requires_grad_()

    def work() -> None:
        mixer.zero_grad(set_to_none=True)
        leaf_BNC.grad = None
        mixer(leaf_BNC, grid).backward(gradient_BNC)

    return work
