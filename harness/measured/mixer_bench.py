"""One site at a time: the variant's mixer at each level of a model, against the measured limits of this machine.

For each level of the denoiser its first site, by itself with random weights: forward, and forward with backward. The
floor is the roofline of what this machine was seen to reach (`limits`): FLOPs at the rate of a large matrix product,
compulsory bytes (tokens in and out, weights, each once) at the rate of a large copy. How many times its floor a mixer
takes tells an implementation from its method: what is far above can be made faster, what is near it cannot. FLOPs are
the price of the mixer's definition: a forward that does with fewer may come below its floor.

A level is named by its channels and by the pixels of a token's side: c320_p8 is the top of SD1.5 at any resolution.
Shapes: B batch, N tokens, C channels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from harness.measured.conformance import breach
from harness.measured.distinct_sites import DistinctSite, distinct_sites, mixer_at, tokens_at
from harness.measured.rates import limits, too_slow
from harness.measured.timing import Timing, check_batch, clock_name, observed, reading_of
from harness.models.model import DTYPES
from harness.records.record import Reading
from harness.seats.mixer import Grid, TokenMixer

if TYPE_CHECKING:
    from harness.trial import Trial

PASSES = {"forward": 1, "training": 3}
"""Work in forwards: a backward pass finds the gradients of tokens and of weights, and is priced at two."""


@dataclass(frozen=True)
class Taken:
    """How long one direction took at one level; its details hold the floor, the least time that is possible."""

    timing: Timing
    details: dict[str, Any]


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
        """Raise BadInput for a batch without images."""
        check_batch(self.name, self.batch)

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
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

    def _times(self, label: str, distinct: DistinctSite, trial: "Trial", batch: int, scope: str) -> dict[str, Reading]:
        """The time of each direction, or its dash."""
        readings = {}
        for direction, taken in self._level(distinct, trial, batch).items():
            name, protocol = f"{direction}_{label}", f"{direction}/v1: first site of a level {scope}"
            if isinstance(taken, str):
                readings[direction] = Reading(self.name, name, None, "ms", "lower", protocol, reason=taken)
            else:
                readings[direction] = reading_of(taken.timing, self.name, protocol, taken.details, name)
        return readings

    def _level(self, distinct: DistinctSite, trial: "Trial", batch: int) -> dict[str, Taken | str]:
        """Each direction, or the reason why it was not timed."""
        case, flops = trial.case, batch * distinct.flops
        reason = too_slow(flops, self.patience, case.device, DTYPES[case.dtype])
        if reason:
            return dict.fromkeys(PASSES, reason)
        mixer, tokens_BNC = mixer_at(distinct, trial), tokens_at(distinct, trial, batch)
        if reason := breach(mixer, distinct.site, tokens_BNC):
            return dict.fromkeys(PASSES, reason)
        traffic = distinct.traffic(batch) * tokens_BNC.element_size()
        forward = self._taken(_forward(mixer, tokens_BNC, distinct.grid), "forward", distinct, trial, flops, traffic)
        expected_s = PASSES["training"] * forward.timing.median_ms / 1e3
        if expected_s > self.patience:
            return {
                "forward": forward,
                "training": f"about {expected_s:.0f} s by its forward; the patience is {self.patience:g} s",
            }
        work = _training(mixer, tokens_BNC, distinct.grid)
        return {"forward": forward, "training": self._taken(work, "training", distinct, trial, flops, traffic)}

    def _taken(
        self, work: Callable[[], object], name: str, distinct: DistinctSite, trial: "Trial", flops: int, traffic: int
    ) -> Taken:
        """Time one direction, with its floor among the details; flops and traffic are those of a forward."""
        machine = limits(trial.case.device, DTYPES[trial.case.dtype])
        timing, details = observed(work, self.seconds, self.least, trial.case.device)
        flops, traffic = PASSES[name] * flops, PASSES[name] * traffic
        price = {
            "site": distinct.site.path,
            "channels": distinct.site.channels,
            "heads": distinct.site.heads,
            "grid": list(distinct.grid),
            "flops": flops,
            "bytes": traffic,
            "floor": machine.floor_ms(flops, traffic),
            "bound": machine.bound(flops, traffic),
            "machine_flops_per_s": machine.flops_per_s,
            "machine_bytes_per_s": machine.bytes_per_s,
        }
        return Taken(timing, price | details)


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


def levels(trial: "Trial") -> dict[str, DistinctSite]:
    """The first distinct site of each level of the denoiser, by the level's name."""
    found: dict[str, DistinctSite] = {}
    for distinct in distinct_sites(trial):
        pixels = round(trial.case.resolution.height / distinct.grid[0])
        found.setdefault(f"c{distinct.site.channels}_p{pixels}", distinct)
    return found


def _forward(mixer: TokenMixer, tokens_BNC: Tensor, grid: Grid) -> Callable[[], object]:
    def work() -> object:
        with torch.no_grad():
            return mixer(tokens_BNC, grid)

    return work


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
