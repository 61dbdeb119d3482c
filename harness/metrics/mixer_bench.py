"""One site at a time: the variant's mixer at each level of a model, against the measured limits of this machine.

For each level of the denoiser its first site, by itself with random weights: forward, and forward with backward. The
floor is the roofline of what this machine was seen to reach (`limits`): FLOPs at the rate of a large matrix product,
compulsory bytes (tokens in and out, weights, each once) at the rate of a large copy. The share of it that a mixer
reaches tells an implementation from its method: what is far below can be made faster, what is near it cannot.

A level is named by its channels and by the pixels of a token's side: c320_p8 is the top of SD1.5 at any resolution.
Shapes: B batch, N tokens, C channels.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from harness.metrics.conformance import breach
from harness.metrics.limits import limits, too_slow
from harness.metrics.places import Place, mixer_at, places, tokens_at
from harness.metrics.timing import Timing, check_batch, clock_name, observed
from harness.mixer import Grid, TokenMixer
from harness.model import DTYPES
from harness.record import Reading

if TYPE_CHECKING:
    from harness.trial import Trial

PASSES = {"forward": 1, "training": 3}
"""Work in forwards: a backward pass finds the gradients of tokens and of weights, and is priced at two."""


@dataclass(frozen=True)
class Taken:
    """One direction at one level: how long it took, the floor below it, and what is known of both."""

    timing: Timing
    floor_ms: float
    details: dict[str, Any]

    @property
    def share(self) -> float:
        """How much of the machine's limit was reached."""
        return self.floor_ms / self.timing.median_ms


@dataclass(frozen=True)
class MixerBench:
    """Time and share of the limits at each level; about `seconds` of samples a level and direction.

    batch: images a call; None for the case's. patience: a call that needs more seconds than this even at the machine's
    best rate is not tried.
    """

    name: str = "mixer_bench"
    seconds: float = 0.5
    least: int = 7
    patience: float = 10.0
    batch: int | None = 1
    needs: ClassVar[str] = "shapes"

    def __post_init__(self) -> None:
        """Raise BadInput for a batch without images."""
        check_batch(self.name, self.batch)

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        """mixer_bench, the share that the forwards of all levels reach together; then each level's times and share."""
        batch = trial.case.batch if self.batch is None else self.batch
        scope = f"by itself, batch {batch}, random weights, eager, warm, median of {clock_name(trial.case.device)}"
        found = {label: self._level(place, trial, batch) for label, place in levels(trial).items()}
        yield self._together({label: taken["forward"] for label, taken in found.items()}, scope)
        for label, level in found.items():
            for name, taken in level.items():
                yield self._time(f"{name}_{label}", taken, f"{name}/v1: first site of a level {scope}")
            yield self._share(f"share_{label}", level["forward"], f"share/v1: floor over forward, {scope}")

    def _level(self, place: Place, trial: "Trial", batch: int) -> dict[str, Taken | str]:
        """Each direction, or the reason why it was not timed."""
        case, flops = trial.case, batch * place.flops
        reason = too_slow(flops, self.patience, case.device, DTYPES[case.dtype])
        if reason:
            return dict.fromkeys(PASSES, reason)
        mixer, tokens_BNC = mixer_at(place, trial), tokens_at(place, trial, batch)
        if reason := breach(mixer, place.site, tokens_BNC):
            return dict.fromkeys(PASSES, reason)
        traffic = place.traffic(batch) * tokens_BNC.element_size()
        forward = self._taken(_forward(mixer, tokens_BNC, place.grid), "forward", place, trial, flops, traffic)
        expected_s = PASSES["training"] * forward.timing.median_ms / 1e3
        if expected_s > self.patience:
            return {
                "forward": forward,
                "training": f"about {expected_s:.0f} s by its forward; the patience is {self.patience:g} s",
            }
        work = _training(mixer, tokens_BNC, place.grid)
        return {"forward": forward, "training": self._taken(work, "training", place, trial, flops, traffic)}

    def _taken(
        self, work: Callable[[], object], name: str, place: Place, trial: "Trial", flops: int, traffic: int
    ) -> Taken:
        """Time one direction and lay the floor beside it; flops and traffic are those of a forward."""
        machine = limits(trial.case.device, DTYPES[trial.case.dtype])
        timing, details = observed(work, self.seconds, self.least, trial.case.device)
        flops, traffic = PASSES[name] * flops, PASSES[name] * traffic
        floor_ms = machine.floor_ms(flops, traffic)
        price = {
            "site": place.site.path,
            "channels": place.site.channels,
            "heads": place.site.heads,
            "grid": list(place.grid),
            "flops": flops,
            "bytes": traffic,
            "floor": floor_ms,
            "share": floor_ms / timing.median_ms,
            "bound": machine.bound(flops, traffic),
            "machine_flops_per_s": machine.flops_per_s,
            "machine_bytes_per_s": machine.bytes_per_s,
        }
        return Taken(timing, floor_ms, price | details)

    def _time(self, name: str, taken: Taken | str, protocol: str) -> Reading:
        if isinstance(taken, str):
            return Reading(self.name, name, None, "ms", "lower", protocol, reason=taken)
        low, high = taken.timing.interval_ms()
        samples = taken.timing.samples_ms
        return Reading(
            self.name,
            name,
            taken.timing.median_ms,
            "ms",
            "lower",
            protocol,
            n=len(samples),
            low=low,
            high=high,
            samples=samples,
            details=taken.details,
        )

    def _share(self, name: str, taken: Taken | str, protocol: str) -> Reading:
        if isinstance(taken, str):
            return Reading(self.name, name, None, "share", "higher", protocol, reason=taken)
        return Reading(self.name, name, taken.share, "share", "higher", protocol, n=len(taken.timing.samples_ms))

    def _together(self, found: Mapping[str, Taken | str], scope: str) -> Reading:
        """The floors of all levels over their forwards; a dash where a level is one."""
        protocol = f"{self.name}/v1: floors over forwards of the first site of each level {scope}"
        missing = [f"{label}: {taken}" for label, taken in found.items() if isinstance(taken, str)]
        if missing:
            return Reading(self.name, self.name, None, "share", "higher", protocol, reason=missing[0])
        taken = [level for level in found.values() if isinstance(level, Taken)]
        floor_ms = math.fsum(level.floor_ms for level in taken)
        share = floor_ms / math.fsum(level.timing.median_ms for level in taken)
        return Reading(self.name, self.name, share, "share", "higher", protocol)


def levels(trial: "Trial") -> dict[str, Place]:
    """The first place of each level of the denoiser, by the level's name."""
    found: dict[str, Place] = {}
    for place in places(trial):
        pixels = round(trial.case.resolution.height / place.grid[0])
        found.setdefault(f"c{place.site.channels}_p{pixels}", place)
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
