"""Latency of one denoiser call, and of one image. How time is taken is in `timing`.

A denoiser call is also timed in alternation with the teacher's own attention in the same seats: that ratio is what a
gate judges. So the teacher is timed in every case, and the latency's details say how far the teacher's own time moved
since the first case of the run.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from harness.measured.alternation import LEAST, Pair, Sides, alternate, ratio_of, teacher_flops
from harness.measured.conformance import first_breach
from harness.measured.load import Load
from harness.measured.rates import matrix_rate
from harness.measured.timing import check_batch, clock_for, clock_name, disturbance, observed, reading_of
from harness.records.record import Reading
from harness.trial import Trial

MOVED = 0.1
"""The teacher's pace changed by more than this since the run's first case: latencies of the run do not compare."""


@dataclass(frozen=True)
class Alternated:
    """Pairs of calls of variant and teacher, and what disturbed the machine meanwhile; or why there are none."""

    pairs: tuple[Pair, ...]
    reason: str = ""
    noisy: str = ""


@dataclass(frozen=True)
class Latency:
    """One denoiser call: about `seconds` of samples, at least `least` unless it is too slow for that, and as long again
    beside the teacher. batch: images a call; None for the case's.
    """

    name: str = "latency"
    seconds: float = 1.5
    least: int = 7
    batch: int | None = 1
    teacher_paces: dict[object, float] = field(default_factory=dict, repr=False, compare=False)
    needs: ClassVar[str] = "device"

    def __post_init__(self) -> None:
        check_batch(self.name, self.batch)

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """latency and latency_ratio. A mixer that breaches its definition is not timed: dashes with the reason."""
        case, sides = trial.case, Sides(trial.factory)
        batch = case.batch if self.batch is None else self.batch
        call = f"one denoiser call, batch {batch}, eager, warm"
        protocol = f"{self.name}/v1: {call}, median of {clock_name(case.device)}"
        with trial.denoiser(sides, parts="denoiser") as denoiser, torch.no_grad():
            breach = first_breach(denoiser)
            if breach:
                yield Reading(self.name, self.name, None, "ms", "lower", protocol, reason=breach, heals=True)
                yield self._ratio(Alternated((), breach), call)
                return
            arguments = trial.model.example(case.resolution, batch)
            timing, details = observed(lambda: denoiser(**arguments), self.seconds, self.least, case.device)
            alternated = self._alternated(denoiser, sides, arguments, timing.median_ms, case.device, batch)
        if alternated.pairs:
            pace = self._pace((case.model, case.resolution, case.dtype, case.device, batch), alternated.pairs)
            moved = f"the teacher's own call is {pace['moved']:+.0%} off the first case of this run"
            told = [details["noisy"], moved if abs(pace["moved"]) > MOVED else ""]
            details |= {"teacher": pace, "noisy": ", ".join(filter(None, told))}
        yield reading_of(timing, self.name, protocol, details)
        yield self._ratio(alternated, call)

    def _alternated(
        self, denoiser: nn.Module, sides: Sides, arguments: dict[str, Any], call_ms: float, device: str, batch: int
    ) -> Alternated:
        """Calls of variant and teacher in alternation, or the reason why there are none."""
        clock = clock_for(device)

        def timed(take_seats: Callable[[nn.Module], None]) -> float:
            take_seats(denoiser)
            return clock(lambda: denoiser(**arguments))

        variant, teacher = partial(timed, sides.seat_variant), partial(timed, sides.seat_teacher)
        rate = matrix_rate(device, next(denoiser.parameters()).dtype)
        reason = self._too_long(call_ms, 1e3 * teacher_flops(denoiser, batch) / rate, "needs at least")
        if not reason:
            teacher()  # warm
            reason = self._too_long(call_ms, teacher(), "takes") and self._too_long(call_ms, teacher(), "takes")
        if reason:
            return Alternated((), reason)
        load = Load.begin()
        pairs = alternate(variant, teacher, self.seconds)
        return Alternated(pairs, noisy=disturbance(load.end()))

    def _too_long(self, call_ms: float, teacher_ms: float, verb: str) -> str:
        """One sentence where so few pairs fit into twice the budget that they would have no interval."""
        if LEAST * (call_ms + teacher_ms) <= 2e3 * self.seconds:
            return ""
        return (
            f"the teacher's call {verb} {teacher_ms / 1e3:.2g} s beside {call_ms / 1e3:.2g} s, too long for {LEAST} "
            f"pairs in seconds={self.seconds:g}"
        )

    def _pace(self, key: object, pairs: tuple[Pair, ...]) -> dict[str, float]:
        """The teacher's median now, and how far it moved since the first case of the run at this size."""
        now_ms = statistics.median(teacher_ms for _, teacher_ms in pairs)
        return {"median": now_ms, "moved": now_ms / self.teacher_paces.setdefault(key, now_ms) - 1}

    def _ratio(self, alternated: Alternated, call: str) -> Reading:
        name = f"{self.name}_ratio"
        protocol = f"{name}/v1: {call}, over the teacher's own attention in the same seats, in alternation"
        if not alternated.pairs:
            return Reading(self.name, name, None, "x", "lower", protocol, reason=alternated.reason)
        ratio = ratio_of(alternated.pairs)
        samples = tuple(variant_ms / teacher_ms for variant_ms, teacher_ms in alternated.pairs)
        teacher_ms = [teacher_ms for _, teacher_ms in alternated.pairs]
        details = {"told_apart": ratio.told_apart, "teacher_ms": teacher_ms, "noisy": alternated.noisy}
        value, low, high, n = ratio.value, ratio.low, ratio.high, len(samples)
        return Reading(self.name, name, value, "x", "lower", protocol, n, low, high, samples=samples, details=details)


@dataclass(frozen=True)
class ImageLatency:
    """One image: all steps with guidance, and the decoder; its prompt is encoded before, in the warm-up."""

    name: str = "image_latency"
    seconds: float = 1.5
    least: int = 3
    needs: ClassVar[str] = "device"

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """One reading; steps and guidance are the case's. A mixer that breaches its definition is not timed."""
        case = trial.case
        protocol = (
            f"{self.name}/v1: one image, all steps with guidance, decoder, eager, warm, "
            f"median of {clock_name(case.device)}"
        )
        with trial.denoiser() as denoiser:
            breach = first_breach(denoiser)
            if breach:
                yield Reading(self.name, self.name, None, "ms", "lower", protocol, reason=breach, heals=True)
                return
            image = trial.prompts[:1], [case.seeds[0]], case.resolution, case.steps, case.guidance
            timing, details = observed(lambda: trial.model.generate(*image), self.seconds, self.least, case.device)
        yield reading_of(timing, self.name, protocol, details)
