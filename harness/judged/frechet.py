"""Fréchet distance of two sets of features, as that of the normal distributions with their moments.

    FD = |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2)

The trace of the root is the sum of the roots of the eigenvalues of S1 S2, taken as a symmetric problem; where rounding
would show in it (fewer images than features, features that depend on one another), it is the nuclear norm of F1 F2^T
for factors F^T F = S, which costs more. float64 throughout, block by block: a distance holds a few D x D matrices.
Shapes: N, M images, D features, R rank, B images of a block.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor

Array = NDArray[np.float64]

BLOCK = 1024
FEW = 256
"""Features, or images, with which a root takes milliseconds."""


@dataclass(frozen=True)
class Sums:
    """Count, sum and sum of outer products of features less an origin; a group's can be taken from the whole's."""

    n: int
    sum_D: Array
    outer_DD: Array

    @classmethod
    def of(cls, x_ND: NDArray[Any], origin_D: Array) -> "Sums":
        """Of rows of any float type, of which no copy in float64 is made."""
        sum_D, outer_DD = np.zeros(len(origin_D)), np.zeros((len(origin_D),) * 2)
        with threads_for(len(origin_D)):
            for start in range(0, len(x_ND), BLOCK):
                block_BD = x_ND[start : start + BLOCK] - origin_D
                sum_D += block_BD.sum(axis=0)
                outer_DD += block_BD.T @ block_BD
        return cls(len(x_ND), sum_D, outer_DD)

    def __sub__(self, group: "Sums") -> "Sums":
        return Sums(self.n - group.n, self.sum_D - group.sum_D, self.outer_DD - group.outer_DD)


@dataclass(frozen=True)
class Moments:
    """Mean (less the origin) and covariance (divisor N - 1) of N rows."""

    n: int
    mean_D: Array
    covariance_DD: Array

    @classmethod
    def of(cls, sums: Sums) -> "Moments":
        mean_D = sums.sum_D / sums.n
        covariance_DD = (sums.outer_DD - np.outer(sums.sum_D, mean_D)) / (sums.n - 1)
        return cls(sums.n, mean_D, covariance_DD)

    @cached_property
    def factor_RD(self) -> Array:
        """F with F^T F = S, one row for each eigenvalue above rounding."""
        values, vectors = np.linalg.eigh(self.covariance_DD)
        kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
        factor_RD: Array = (vectors[:, kept] * np.sqrt(values[kept])).T
        return factor_RD


def frechet_distance(x_ND: Tensor, y_MD: Tensor) -> float:
    """Fréchet distance of two sets of features: zero for equal sets, symmetric, never negative."""
    return distance_of(*arrays(x_ND, y_MD))


def distance_of(x_ND: NDArray[Any], y_MD: NDArray[Any]) -> float:
    """The same of arrays that were checked."""
    if min(len(x_ND), len(y_MD)) > x_ND.shape[1]:
        origin_D = origin(y_MD)
        return distance(*(Moments.of(Sums.of(z, origin_D)) for z in (x_ND, y_MD)))
    with threads_for(x_ND.shape[1]):
        return _of_few(x_ND, y_MD)


def _of_few(x_ND: NDArray[Any], y_MD: NDArray[Any]) -> float:
    """The distance of fewer images than features, from the images themselves."""
    x_ND, y_MD = x_ND.astype(np.float64), y_MD.astype(np.float64)
    means = [z.mean(axis=0) for z in (x_ND, y_MD)]
    a_ND, b_MD = ((z - mean) / np.sqrt(len(z) - 1) for z, mean in zip((x_ND, y_MD), means, strict=True))
    traces = float((a_ND**2).sum() + (b_MD**2).sum())
    return _assembled(means[0] - means[1], traces, _nuclear_norm(_narrow(a_ND), _narrow(b_MD)))


def distance(one: Moments, other: Moments) -> float:
    """Fréchet distance of the two normal distributions; both means are less the same origin."""
    traces = float(one.covariance_DD.trace() + other.covariance_DD.trace())
    with threads_for(len(one.mean_D)):
        shared = _eigenvalue_root(one, other)
        if shared is None:
            shared = _nuclear_norm(one.factor_RD, other.factor_RD)
    return _assembled(one.mean_D - other.mean_D, traces, shared)


@contextmanager
def threads_for(features: int) -> Iterator[None]:
    """One thread for small matrices, on which several wait for one another: beside other work 300 times as long."""
    with _blas().limit(limits=1 if features <= FEW else None):
        yield


@cache
def _blas() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401, it brings a BLAS of its own

    return ThreadpoolController().select(internal_api="openblas")


def _assembled(apart_D: Array, traces: float, shared: float) -> float:
    return max(0.0, float(apart_D @ apart_D) + traces - 2 * shared)


def _eigenvalue_root(one: Moments, other: Moments) -> float | None:
    """Tr (S1 S2)^(1/2) by the eigenvalues of S1 S2; None where one of them is no more than rounding of the largest.

    Otherwise it is as exact as the nuclear norm: on spectra that fall as 1 / i and faster both agree to 1e-12.
    """
    from scipy.linalg import LinAlgError, eigh

    if min(one.n, other.n) <= len(one.mean_D):
        return None
    try:
        values_D = eigh(one.covariance_DD, other.covariance_DD, type=2, eigvals_only=True, check_finite=False)
    except LinAlgError:  # the second has no Cholesky factor: it is singular
        return None
    if values_D[0] <= np.finfo(np.float64).eps * values_D[-1]:
        return None
    return float(np.sqrt(values_D).sum())


def _nuclear_norm(one_RD: Array, other_RD: Array) -> float:
    return float(np.linalg.svd(one_RD @ other_RD.T, compute_uv=False).sum()) if min(len(one_RD), len(other_RD)) else 0.0


def _narrow(rows_ND: Array) -> Array:
    """Rows with the same F^T F, at most as many as columns."""
    return rows_ND if len(rows_ND) <= rows_ND.shape[1] else np.linalg.qr(rows_ND).R


def origin(y_MD: NDArray[Any]) -> Array:
    """A point near the middle: sums about it keep their digits, wherever the features lie."""
    origin_D: Array = y_MD[:: max(1, len(y_MD) // BLOCK)].mean(axis=0, dtype=np.float64)
    return origin_D


def arrays(x_ND: Tensor, y_MD: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both sets as arrays without a copy; ValueError for what no distance can be taken of."""
    if x_ND.shape[1:] != y_MD.shape[1:]:
        raise ValueError(f"features of {tuple(x_ND.shape)} and {tuple(y_MD.shape)} have unlike sizes")
    for z in (x_ND, y_MD):
        if z.ndim != 2 or len(z) < 2:
            raise ValueError(f"features of {tuple(z.shape)} have no covariance: give (N, D) with N of at least 2")
        if not z.isfinite().all():
            raise ValueError("features hold values that are not finite")
    one, other = (z.detach().cpu().float() if z.element_size() < 4 else z.detach().cpu() for z in (x_ND, y_MD))
    return one.numpy(), other.numpy()
