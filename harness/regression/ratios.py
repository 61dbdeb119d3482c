"""Measured values of one run beside an earlier one's: as ratios within each, since absolute times do not compare.

Where a metric took the ratio itself (latency_ratio: variant and teacher in alternation), by that; otherwise the value
is divided by the reference variant's of the same run. A rise within the tolerance passes; it is a regression if the
95 % interval lies beyond it, on a quiet machine of the baseline's make.
"""

import math
from dataclasses import dataclass

from harness.records.record import Reading
from harness.regression.verdict import Verdict

FLOOR = 0.02
"""Two processes of the same code differ by where their tensors happen to lie; no interval of one process shows that."""


@dataclass(frozen=True)
class Ratio:
    """A ratio and the readings that it is made of: one that is a ratio itself, or two, the first over the second."""

    value: float
    of: tuple[Reading, ...]


def rise(case: str, now: Ratio, then: Ratio, reference: str, tolerance: float, same_machine: bool) -> Verdict:
    """Judge how much a ratio rose."""
    reading, given, expected = now.of[0].name, now.value, then.value
    base = "its floor" if now.of[0].metric == "mixer_bench" else reference
    grown = math.log(given / expected)
    taken = (*now.of, *then.of)
    apart = 0.0 if all(one.unit == "byte" for one in taken) else math.log1p(FLOOR)
    half = math.hypot(*map(_log_half_width, taken), apart)
    limit = math.log1p(tolerance)
    interval = f"{math.expm1(grown - half):+.1%} to {math.expm1(grown + half):+.1%}"
    interval = interval if math.isfinite(half) else "too few samples for an interval"
    told = (
        f"{reading} is {given:.3g} x {base}, the baseline {expected:.3g} x: {math.expm1(grown):+.1%} "
        f"({interval}), tolerance {tolerance:.0%}"
    )
    doubts = [one.details["noisy"] for one in now.of if one.details.get("noisy")]
    if not same_machine:
        doubts.append("the baseline was taken on another machine")
    if grown <= limit:
        return Verdict(reading, case, "pass", given, expected, told, "speed")
    if grown - half > limit and not doubts:
        return Verdict(reading, case, "regression", given, expected, told, "speed")
    decide = "a quiet machine of the baseline's make, or gate.speed.base=COMMIT, which compares on this one"
    return Verdict(reading, case, "inconclusive", given, expected, "; ".join([told, *doubts]), "speed", decide)


def _log_half_width(reading: Reading) -> float:
    """Nothing for bytes without an interval, which hardly vary; unbounded for other readings without one."""
    unknown = 0.0 if reading.unit == "byte" else math.inf
    return unknown if reading.log_half_width is None else reading.log_half_width
