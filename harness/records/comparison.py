"""Is one score worse than another? Their difference, paired where prompts and seeds are the same, and a verdict.

A difference is a weighted sum of scores, and so is the slope of a score over sizes. What is paired are images (by
prompt), disjoint parts (the splits of DS), or jackknife replicates without the same group of images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.records.record import CAPTIONS, Reading
from harness.records.statistics import NORMAL_975, Estimate, Floats, holm, mean_of, t_quantile

LEAST = 6
"""Fewer pairs have no interval."""
LEVEL = 0.025
"""One-sided level of a verdict, which so agrees with the 95 % interval."""
Outcome = Literal["pass", "fail", "inconclusive"]


def difference(mine: Reading, other: Reading) -> Estimate | None:
    """Mine less other: paired where the raw values allow it; by both intervals otherwise; None without intervals."""
    return weighted_sum((mine, other), (1.0, -1.0))


def weighted_sum(scores: Sequence[Reading], weights: Sequence[float]) -> Estimate | None:
    """Of scores of the same prompts and seeds, paired where the raw values allow it; None without intervals."""
    values = [score.value for score in scores if score.value is not None]
    if len(values) < len(scores):
        return None
    value = sum(weight * float(one) for weight, one in zip(weights, values, strict=True))
    paired = _paired(scores, weights)
    if paired is not None:
        return replace(paired, value=value)
    widths = [score.high - score.low for score in scores if score.low is not None and score.high is not None]
    if len(widths) < len(scores):
        return None
    wide = math.hypot(*(weight * width for weight, width in zip(weights, widths, strict=True)))
    return Estimate(value, wide / 2 / NORMAL_975)


def paired_half_width(mine: Reading, other: Reading) -> float | None:
    """Half of the 95 % interval of the paired difference; None where nothing can be paired."""
    paired = _paired((mine, other), (1.0, -1.0))
    return None if paired is None else paired.half_width


def _paired(scores: Sequence[Reading], weights: Sequence[float]) -> Estimate | None:
    """The sum with its error by values an image, independent parts, or left-out groups; None of unlike captions."""
    if len({str(found) for score in scores if (found := score.details.get(CAPTIONS))}) > 1:
        return None
    summed = _summed([np.asarray(score.samples, dtype=np.float64) for score in scores], weights)
    if summed is not None:
        units = _numbers(scores[0], "units").tolist()
        units = units if len(units) == len(summed) else list(range(len(summed)))
        if len(set(units)) >= LEAST:
            return mean_of(summed.tolist(), units)
    for name, of_jackknife in (("parts", False), ("replicates", True)):
        summed = _summed([_numbers(score, name) for score in scores], weights)
        if summed is not None:
            n, squares = len(summed), float(((summed - summed.mean()) ** 2).sum())
            error = math.sqrt(squares * (n - 1) / n if of_jackknife else squares / (n - 1) / n)
            return Estimate(float(summed.mean()), error, n - 1)
    return None


def _summed(numbers: Sequence[Floats], weights: Sequence[float]) -> Floats | None:
    """The weighted sum of as many numbers of each; None where they are few, or not as many."""
    n = len(numbers[0])
    if n < LEAST or any(len(one) != n for one in numbers):
        return None
    return np.asarray(sum(weight * one for weight, one in zip(weights, numbers, strict=True)), dtype=np.float64)


def told_apart(estimates: Sequence[Estimate]) -> list[bool]:
    """Which differ from nothing at the 5 % level, whichever way, after Holm's correction for their number."""
    return holm([min(1.0, 2 * min(one.above(0), (-one).above(0))) for one in estimates])


@dataclass(frozen=True)
class NonInferiority:
    """Is a score worse by a margin or more?

    needed: how many images would decide, should the gain stay as it is; None where it is decided or none would.
    """

    outcome: Outcome
    needed: int | None = None


def non_inferiority(gains: Sequence[tuple[Estimate, float, int]]) -> list[NonInferiority]:
    """A verdict for each (gain, margin, n images) of one family, gains above 0 being better. By Holm's correction one
    family in forty holds a false pass, and one a false failure.
    """
    passed = holm([gain.above(-margin) for gain, margin, _ in gains], LEVEL)
    failed = holm([(-gain).above(margin) for gain, margin, _ in gains], LEVEL)
    verdicts = []
    for (gain, margin, n), well, badly in zip(gains, passed, failed, strict=True):
        outcome: Outcome = "pass" if well else "fail" if badly else "inconclusive"
        needed = None if well or badly else _needed(gain, margin, n, len(gains))
        verdicts.append(NonInferiority(outcome, needed))
    return verdicts


def enough(n: int, reach: float, clear: float) -> int:
    """Of n images an interval reaches that far: of how many, in two digits, it would end clear of a bound."""
    needed = n * (reach / clear) ** 2
    digits: int = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / digits) * digits


def _needed(gain: Estimate, margin: float, n: int, cells: int) -> int | None:
    """Images at which the gain, as it is, would lie clear of the margin in the hardest place of Holm's order."""
    clear = gain.value + margin
    if clear == 0:
        return None
    towards = gain if clear > 0 else -gain
    return enough(n, towards.below(t_quantile(gain.freedom, 1 - LEVEL / cells)), abs(clear))


def _numbers(score: Reading, name: str) -> Floats:
    """A list of numbers among the details, which a foreign file may hold in any form; empty where it is none."""
    found = score.details.get(name)
    numbers = isinstance(found, list | tuple) and all(isinstance(one, int | float) for one in found)
    return np.array(found if numbers else (), dtype=np.float64)
