"""A number of each image, and their mean as one reading."""

import math
from collections.abc import Sequence
from typing import Any

from harness.records.groups import units_of
from harness.records.record import Better, Reading
from harness.records.statistics import mean_of


def mean_score(
    metric: str,
    name: str,
    unit: str,
    better: Better,
    protocol: str,
    scores: Sequence[float],
    prompts: Sequence[str],
    details: dict[str, Any] | None = None,
    least: float = -math.inf,
    most: float = math.inf,
) -> Reading:
    """The mean, with its interval over prompts, which ends at the least and the most that a score can be."""
    mean = mean_of(scores, prompts)
    low, high = max(least, mean.low), min(most, mean.high)
    told = (details or {}) | units_of(prompts)
    samples, n = tuple(scores), len(scores)
    return Reading(metric, name, mean.value, unit, better, protocol, n, low, high, samples=samples, details=told)


def mean_error(metric: str, name: str, protocol: str, errors: Sequence[float], details: dict[str, Any]) -> Reading:
    """The mean of a share that is an error of each image, with its interval where there are two."""
    value, n = sum(errors) / len(errors), len(errors)
    low = high = None
    if n > 1:
        mean = mean_of(errors)
        low, high = max(0.0, mean.low), mean.high
    samples = tuple(errors)
    return Reading(metric, name, value, "share", "lower", protocol, n, low, high, samples=samples, details=details)
