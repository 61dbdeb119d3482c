"""FDD: Fréchet distance between the DINO features of generated and of reference images.

    FD = |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2)

The last trace is the nuclear norm of F1 F2^T for factors F^T F = S; F comes from the eigenvectors of S whose eigenvalue
is above rounding, so that fewer images than features are no special case, and no root of a product, which may turn out
complex, is ever taken. FD of two samples of one distribution is not zero but about Tr S (1/n1 + 1/n2) and more, so the
distance between two halves of the references, as large as the set of images where the world has that many, stands
beside every value as its floor. Images and references share their captions, the halves do not: a perfect model may lie
a little below the floor.
Shapes: N, M images, D features, R rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from harness.judged.refusal import refusal
from harness.records.case import BadInput
from harness.records.record import Reading
from harness.records.statistics import dealt, jackknife, shuffled

if TYPE_CHECKING:
    from harness.trial import Trial


@dataclass(frozen=True)
class Moments:
    """Mean and covariance (divisor N - 1) of features, in float64."""

    mean_D: Tensor
    covariance_DD: Tensor

    @classmethod
    def of(cls, x_ND: Tensor) -> "Moments":
        """Moments of at least two rows of finite values."""
        if x_ND.ndim != 2 or len(x_ND) < 2:
            raise ValueError(f"features of {tuple(x_ND.shape)} have no covariance: give (N, D) with N of at least 2")
        x_ND = x_ND.detach().double().cpu()
        if not x_ND.isfinite().all():
            raise ValueError("features hold values that are not finite")
        mean_D = x_ND.mean(dim=0)
        centred_ND = x_ND - mean_D
        covariance_DD: Tensor = centred_ND.T @ centred_ND / (len(x_ND) - 1)
        return cls(mean_D, covariance_DD)

    @cached_property
    def factor_RD(self) -> Tensor:
        """F with F^T F = S, one row for each eigenvalue above rounding."""
        values, vectors = torch.linalg.eigh(self.covariance_DD)
        kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        factor: Tensor = (vectors[:, kept] * values[kept].sqrt()).T
        return factor

    def distance(self, other: "Moments") -> float:
        """Fréchet distance of the two normal distributions."""
        means = (self.mean_D - other.mean_D).square().sum()
        traces = self.covariance_DD.trace() + other.covariance_DD.trace()
        shared = torch.linalg.svdvals(self.factor_RD @ other.factor_RD.T).sum()
        return max(0.0, float(means + traces - 2 * shared))


def frechet_distance(x_ND: Tensor, y_MD: Tensor) -> float:
    """Fréchet distance of two sets of features: zero for equal sets, symmetric, never negative."""
    if x_ND.shape[1:] != y_MD.shape[1:]:
        raise ValueError(f"features of {tuple(x_ND.shape)} and {tuple(y_MD.shape)} have unlike sizes")
    return Moments.of(x_ND).distance(Moments.of(y_MD))


def split_half_floor(y_MD: Tensor, n: int, draws: int = 8) -> tuple[float, int]:
    """Mean distance between two random halves of the references, at most n each, and how many each half has."""
    half = min(n, len(y_MD) // 2)
    orders = [shuffled(len(y_MD), seed) for seed in range(draws)]
    distances = [frechet_distance(y_MD[order[:half]], y_MD[order[half : 2 * half]]) for order in orders]
    return sum(distances) / draws, half


@dataclass(frozen=True)
class Fdd:
    """FDD of a trial's images against real references.

    `least`: below it there is no number. Between it and the number of features the number stands, with a warning.
    The interval is about the value at this n: it tells sampling noise, not the bias, which the floor tells.
    """

    name: str = "fdd"
    least: int = 64
    needs: ClassVar[str] = "weights"

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        why = refusal(trial, self.least)
        if why:
            yield Reading(self.name, "fdd", None, "1", "lower", self.name, trial.case.n, reason=why)
            return
        dino = trial.world.dino
        x_ND, spare_MD = dino.features(trial.images()), dino.features(_spare_references(trial))
        y_MD = spare_MD[: len(x_ND)]
        protocol = f"fdd {dino.protocol} ref={trial.world.name} n={len(x_ND)}/{len(y_MD)}"
        units = trial.prompts, trial.world.prompts(len(y_MD))
        yield reading_of(self.name, x_ND, y_MD, units, protocol, split_half_floor(spare_MD, len(x_ND)))


def _spare_references(trial: "Trial") -> Tensor:
    """Twice as many references as images where the world holds them, so that the floor is taken at the same n."""
    try:
        return trial.references(2 * trial.case.n)
    except BadInput:
        return trial.references()


def reading_of(
    name: str,
    x_ND: Tensor,
    y_MD: Tensor,
    units: tuple[list[str], list[str]],
    protocol: str,
    floor: tuple[float, int],
) -> Reading:
    """The distance of any two sets: to real images (quality) or to a teacher's (fidelity), which the protocol says.

    units: the prompt of each image of both sets. A prompt is left out with all that belongs to it, on both sides.
    floor: a distance that means no difference, and the number of images that it was taken with.
    """
    value = frechet_distance(x_ND, y_MD)
    group_N, group_M = torch.split(torch.from_numpy(dealt(units[0] + units[1])), [len(x_ND), len(y_MD)])
    groups = 1 + min(int(group_N.max()), int(group_M.max()))
    spread = jackknife(groups, lambda group: frechet_distance(x_ND[group_N != group], y_MD[group_M != group]))
    details = {
        "floor": floor[0],
        "floor_n": floor[1],
        "features": x_ND.shape[1],
        "references": len(y_MD),
        "error": spread.error,
        "replicates": list(spread.replicates),
    }
    if min(len(x_ND), len(y_MD)) <= x_ND.shape[1]:
        details["warning"] = (
            f"{min(len(x_ND), len(y_MD))} images do not span {x_ND.shape[1]} features: "
            "mostly bias, read it against its floor and at this n only"
        )
    low, high = max(0.0, value - spread.half_width()), value + spread.half_width()
    return Reading(name, name, value, "1", "lower", protocol, len(x_ND), low, high, details=details)
