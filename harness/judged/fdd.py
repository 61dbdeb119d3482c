"""FDD: Fréchet distance between the DINO features of generated and of reference images.

Of two samples of one distribution it is not zero but about Tr S (1/n1 + 1/n2) and more, so the distance between two
halves of the references, as large as the set of images where possible, stands beside every value as its floor. Images
and references share their captions, the halves do not: a perfect model may lie a little below the floor.
Shapes: N, M images, D features.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.features.dino import Dino
from harness.features.kept import Reader, content
from harness.judged.checks import once, some_references, untrusted_distance
from harness.judged.frechet import Moments, Sums, arrays, distance, distance_of, frechet_distance, origin
from harness.judged.left_out import without
from harness.judged.margin import Margin
from harness.judged.refusal import refusal, unpictured
from harness.records.groups import dealt, shuffled
from harness.records.record import Reading
from harness.records.statistics import jackknife, mean_of
from harness.trial import Trial

DRAWS = 8
STEADY = 0.02  # relative error of the floor at which no further draw is taken


def split_half_floor(y_MD: Tensor, n: int) -> tuple[float, int]:
    """Mean distance between two random halves of the references, at most n each, and how many each half has."""
    half = min(n, len(y_MD) // 2)
    rows_MD, _ = arrays(y_MD[: 2 * half], y_MD[: 2 * half])
    between = _between_halves(rows_MD)
    found: list[float] = []
    for seed in range(DRAWS):
        found.append(between(shuffled(2 * half, seed)))
        if len(found) >= 3 and mean_of(found).error <= STEADY * sum(found) / len(found):
            break
    return sum(found) / len(found), half


def _between_halves(rows_MD: NDArray[Any]) -> Callable[[NDArray[np.int64]], float]:
    """The distance between the first and the second half of an order of the rows."""
    half = len(rows_MD) // 2
    if half <= rows_MD.shape[1]:
        return lambda order: distance_of(rows_MD[order[:half]], rows_MD[order[half:]])
    origin_D = origin(rows_MD)
    whole = Sums.of(rows_MD, origin_D)

    def between(order: NDArray[np.int64]) -> float:
        part = Sums.of(rows_MD[order[:half]], origin_D)
        return distance(Moments.of(part), Moments.of(whole - part))

    return between


@dataclass(frozen=True)
class Fdd:
    """FDD of a trial's images against real references.

    `least`: below it there is no number. Between it and the number of features the number stands, with a warning.
    The interval is about the value at this n: it tells sampling noise, not the bias, which the floor tells. It holds
    factors, not differences: a few bad images move a distance and its error alike, and whoever drew none of them knows
    of no error (of 200 sets of 64 images, intervals of differences held the truth in 85 to 90 %).
    """

    name: str = "fdd"
    least: int = 50
    margin: Margin = field(default=Margin(share=0.10, half_widths=1.0))
    needs: ClassVar[str] = "weights"

    def readers(self, trial: Trial) -> list[Reader]:
        return [features_of(trial.world.dino)]

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        why = refusal(trial, self.least) or unpictured(trial)
        if why:
            yield Reading(self.name, "fdd", None, "1", "lower", self.name, trial.case.n, reason=why)
            return
        dino = trial.world.dino
        x_ND, spare_MD = trial.rows(features_of(dino)), trial.reference_rows(features_of(dino), spare(trial))
        n, y_MD = len(x_ND), spare_MD[: len(x_ND)]
        floor, half = trial.real.once(["split-half floor/v1", n], spare_MD, lambda: split_half_floor(spare_MD, n))
        protocol = f"fdd {dino.protocol} ref={trial.world.name} n={n}/{len(y_MD)}"
        units = trial.prompts, trial.world.prompts(len(y_MD))
        reading = reading_of(self.name, x_ND, y_MD, units, protocol, (floor, int(half)))
        real = some_references(trial)
        apart = once(
            trial,
            ["fdd", dino.protocol, content(real)],
            lambda changed: frechet_distance(dino.features(changed), dino.features(real)),
        )
        doubt = untrusted_distance(real, apart)
        yield self.margin.beside(replace(reading, details=reading.details | ({"untrusted": doubt} if doubt else {})))


def features_of(dino: Dino) -> Reader:
    """Its features of images."""
    return Reader(dino.protocol, dino.features)


def spare(trial: Trial) -> int:
    """Twice as many references as images, or as many as the world holds, so that the floor is taken at the same n."""
    return max(trial.case.n, trial.world.held(2 * trial.case.n))


def reading_of(
    name: str, x_ND: Tensor, y_MD: Tensor, units: tuple[list[str], list[str]], protocol: str, floor: tuple[float, int]
) -> Reading:
    """The distance of two sets, by the prompts of both (`units`), which the interval leaves out group by group.

    floor: a distance that means no difference, and the number of images that it was taken with.
    """
    group_N, group_M = dealt(*units)
    take = without(*arrays(x_ND, y_MD), group_N, group_M)
    value = take(frozenset())
    n, features = min(len(x_ND), len(y_MD)), x_ND.shape[1]
    spread = jackknife(1 + int(group_N.max()), take)
    details = {
        "floor": floor[0],
        "floor_n": floor[1],
        "features": features,
        "references": len(y_MD),
        "error": spread.error,
        "replicates": list(spread.replicates),
    }
    few = f"{n} images do not span {features} features: mostly bias, read it against its floor and at this n only"
    unlike = f"the floor is taken of {floor[1]} images, not {n}: fewer lie farther apart"
    if told := [few] * (n <= features) + [unlike] * (floor[1] < n):
        details["warning"] = "; ".join(told)
    return Reading(name, name, value, "1", "lower", protocol, len(x_ND), *spread.times(value), details=details)
