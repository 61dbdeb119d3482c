"""An error of each image as one reading: lower is better, and none is below zero."""

from collections.abc import Sequence
from typing import Any

from harness.records.record import Reading
from harness.records.statistics import mean_of


def mean_error(metric: str, name: str, protocol: str, samples: Sequence[float], details: dict[str, Any]) -> Reading:
    """The mean of a share that is an error of each image, with its interval where there are two."""
    mean = mean_of(samples) if len(samples) > 1 else None
    return Reading(
        metric=metric,
        name=name,
        value=sum(samples) / len(samples),
        unit="share",
        better="lower",
        protocol=protocol,
        n=len(samples),
        low=max(0.0, mean.low) if mean else None,
        high=mean.high if mean else None,
        samples=tuple(samples),
        details=details,
    )
