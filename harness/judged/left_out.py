"""Fréchet distances without a group of images, for a jackknife: the whole's sums less the group's.

Where features are many and images far more, the root's trace is moved by its derivative instead of taken again:

    d Tr (S1 S2)^(1/2) = <T12, dS1> / 2 + <T21, dS2> / 2,   T12 = S1^(-1/2) (S1^(1/2) S2 S1^(1/2))^(1/2) S1^(-1/2)

with the optimal maps T from one normal distribution to the other (T21 is the inverse of T12). As <T12, S1> and
<T21, S2> are the trace itself, that without a group is the mean of both with the covariances without it.
Shapes: N, M images, D features, G groups.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.judged.frechet import FEW, Array, Moments, Sums, distance, distance_of, origin

AMPLE = 4
"""Images a feature from which the derivative serves: left-out groups are then small changes of the covariances."""

Groups = NDArray[np.int64]
Without = Callable[[frozenset[int]], float]


def without(x_ND: NDArray[Any], y_MD: NDArray[Any], group_N: Groups, group_M: Groups) -> Without:
    """The distance as a function of the groups that are left out on both sides."""
    images, features = min(len(x_ND), len(y_MD)), x_ND.shape[1]
    if features > FEW and images > AMPLE * features:
        return _moved(x_ND, y_MD, group_N, group_M) or _again(x_ND, y_MD, group_N, group_M)
    if features <= FEW and images > 2 * features:
        return _less(x_ND, y_MD, group_N, group_M)
    return _again(x_ND, y_MD, group_N, group_M)


def _again(x_ND: NDArray[Any], y_MD: NDArray[Any], group_N: Groups, group_M: Groups) -> Without:
    """From the features that are left."""

    def take(left_out: frozenset[int]) -> float:
        gone = list(left_out)
        return distance_of(x_ND[~np.isin(group_N, gone)], y_MD[~np.isin(group_M, gone)])

    return take


def _less(x_ND: NDArray[Any], y_MD: NDArray[Any], group_N: Groups, group_M: Groups) -> Without:
    """From sums that are left."""
    origin_D, count = origin(y_MD), 1 + max(int(group_N.max()), int(group_M.max()))
    sides = [
        (Sums.of(z, origin_D), [Sums.of(z[group == one], origin_D) for one in range(count)])
        for z, group in ((x_ND, group_N), (y_MD, group_M))
    ]

    def take(left_out: frozenset[int]) -> float:
        kept = []
        for whole, parts in sides:
            for one in left_out:
                whole = whole - parts[one]
            kept.append(Moments.of(whole))
        return distance(*kept)

    return take


@dataclass(frozen=True)
class _Side:
    """What is kept of one set, by group: counts, sums, traces of outer products, and their products with the map."""

    map_DD: Array
    n_G: Array
    sum_GD: Array
    trace_G: Array
    mapped_G: Array

    @classmethod
    def of(cls, z_ND: NDArray[Any], group_N: Groups, origin_D: Array, map_DD: Array) -> "_Side":
        kept = []
        for one in range(1 + int(group_N.max())):
            sums = Sums.of(z_ND[group_N == one], origin_D)
            mapped = float(np.vdot(map_DD, sums.outer_DD))
            kept.append((sums.n, sums.sum_D, float(sums.outer_DD.trace()), mapped))
        n, sum_D, trace, mapped_G = zip(*kept, strict=True)
        return cls(map_DD, np.array(n), np.array(sum_D), np.array(trace), np.array(mapped_G))

    def left(self, left_out: frozenset[int]) -> tuple[Array, float, float]:
        """Mean, trace of the covariance, and its product with the map, without some groups."""
        kept_G = np.array([group not in left_out for group in range(len(self.n_G))])
        n, sum_D = float(self.n_G[kept_G].sum()), self.sum_GD[kept_G].sum(axis=0)
        mean_D = sum_D / n
        trace = (self.trace_G[kept_G].sum() - sum_D @ mean_D) / (n - 1)
        mapped = (self.mapped_G[kept_G].sum() - sum_D @ (self.map_DD @ mean_D)) / (n - 1)
        return mean_D, float(trace), float(mapped)


def _moved(x_ND: NDArray[Any], y_MD: NDArray[Any], group_N: Groups, group_M: Groups) -> Without | None:
    """By the derivative; None where a covariance is singular."""
    origin_D = origin(y_MD)
    maps = _maps(*(Moments.of(Sums.of(z, origin_D)).covariance_DD for z in (x_ND, y_MD)))
    if maps is None:
        return None
    one, other = _Side.of(x_ND, group_N, origin_D, maps[0]), _Side.of(y_MD, group_M, origin_D, maps[1])

    def take(left_out: frozenset[int]) -> float:
        (mean_D, trace, root), (mean_too_D, trace_too, root_too) = one.left(left_out), other.left(left_out)
        apart_D = mean_D - mean_too_D
        return float(apart_D @ apart_D) + trace + trace_too - (root + root_too)

    return take


def _maps(one_DD: Array, other_DD: Array) -> tuple[Array, Array] | None:
    """T12 and T21 of two covariances."""
    from scipy.linalg import LinAlgError, cholesky, eigh, solve_triangular

    try:
        lower_DD = cholesky(one_DD, lower=True)
    except LinAlgError:
        return None
    values_D, vectors_DD = eigh(lower_DD.T @ other_DD @ lower_DD)
    if values_D[0] <= np.finfo(np.float64).eps * values_D[-1]:
        return None
    outward_DD = solve_triangular(lower_DD, vectors_DD, lower=True, trans="T") * values_D**0.25
    inward_DD = lower_DD @ vectors_DD / values_D**0.25
    return outward_DD @ outward_DD.T, inward_DD @ inward_DD.T
