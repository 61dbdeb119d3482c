"""The difference of two scores that were taken of the same prompts and seeds, with its 95 % interval."""

import math
from typing import Any, Protocol

NORMAL_975 = 1.959963984540054
LEAST = 6
"""Fewer pairs have no interval."""


class Score(Protocol):
    """What is known of a score: raw values one an image, or replicates of a jackknife among the details."""

    @property
    def value(self) -> float | int | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def samples(self) -> tuple[float, ...]: ...
    @property
    def details(self) -> dict[str, Any]: ...


def difference(mine: Score, other: Score) -> tuple[float, float, float] | None:
    """Low end, value and high end of mine less other: paired where the raw values allow it. None without intervals."""
    if mine.value is None or other.value is None:
        return None
    half = paired_half_width(mine, other)
    if half is None:
        ends = (mine.low, mine.high, other.low, other.high)
        if any(end is None for end in ends):
            return None
        low, high, under, over = (float(end) for end in ends if end is not None)
        half = math.hypot((high - low) / 2, (over - under) / 2)
    value = mine.value - other.value
    return value - half, value, value + half


def paired_half_width(mine: Score, other: Score) -> float | None:
    """Of the interval of the difference, image by image or group by group; None where that cannot be had."""
    for one, two, jackknife in (
        (mine.samples, other.samples, False),
        (mine.details.get("replicates", ()), other.details.get("replicates", ()), True),
    ):
        n = len(one)
        if n < LEAST or n != len(two):
            continue
        differences = [a - b for a, b in zip(one, two, strict=True)]
        mean = math.fsum(differences) / n
        squares = math.fsum((difference - mean) ** 2 for difference in differences)
        return t_975(n - 1) * math.sqrt(squares * (n - 1) / n if jackknife else squares / (n - 1) / n)
    return None


def t_975(freedom: int) -> float:
    """97.5 % quantile of Student's t: the expansion around the normal quantile, right to 1 % from five degrees on."""
    z = NORMAL_975
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
