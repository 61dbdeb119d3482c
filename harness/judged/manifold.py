"""Precision, recall, density and coverage: how two sets of features overlap, by balls to the k-th nearest neighbour.

Precision is the share of generated images inside a ball of the real ones, recall the share of real images inside a ball
of the generated ones (Kynkäänniemi et al., arXiv 1904.06991; a ball holds its surface). Density counts in how many real
balls a generated image lies, over k, and coverage is the share of real balls with a generated image inside (Naeem et
al., arXiv 2002.09797; without the surface).
Shapes: N generated images, M real images, D features, B images of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.judged.mmd import checked

BLOCK = 512
ROUNDING = 1e-12  # of the squared length: squared distances that differ by less are one distance


@dataclass(frozen=True)
class Overlap:
    """Values an image, whose means are the four numbers."""

    precise_N: Tensor
    recalled_M: Tensor
    dense_N: Tensor
    covered_M: Tensor


def precision_recall(x_ND: Tensor, y_MD: Tensor, k: int = 5) -> tuple[float, float]:
    """Precision and recall of generated x against real y."""
    found = overlap(x_ND, y_MD, k)
    return float(found.precise_N.mean()), float(found.recalled_M.mean())


def density_coverage(x_ND: Tensor, y_MD: Tensor, k: int = 5) -> tuple[float, float]:
    """Density (which may exceed 1) and coverage of generated x against real y."""
    found = overlap(x_ND, y_MD, k)
    return float(found.dense_N.mean()), float(found.covered_M.mean())


def overlap(x_ND: Tensor, y_MD: Tensor, k: int = 5) -> Overlap:
    """Who lies in whose balls; ValueError where a set has no k-th neighbour."""
    if not 1 <= k < min(len(x_ND), len(y_MD)):
        raise ValueError(f"sets of {len(x_ND)} and {len(y_MD)} have no {k}-th neighbour: give at least {k + 1} of both")
    x_ND, y_MD = checked(x_ND, y_MD)
    centre_D = y_MD.mean(dim=0)
    x_ND, y_MD = x_ND - centre_D, y_MD - centre_D
    x_radius_N, y_radius_M = radii(x_ND, k), radii(y_MD, k)
    slack = ROUNDING * float(max(x_ND.square().sum(1).max(), y_MD.square().sum(1).max()))
    recalled_M, covered_M = (torch.zeros(len(y_MD), dtype=torch.bool) for _ in range(2))
    precise, dense = [], []
    for rows, squares_BM in _blocks(x_ND, y_MD):
        precise.append((squares_BM <= y_radius_M + slack).any(dim=1))
        recalled_M |= (squares_BM <= x_radius_N[rows, None] + slack).any(dim=0)
        inside_BM = squares_BM < y_radius_M - slack
        dense.append(inside_BM.sum(dim=1) / k)
        covered_M |= inside_BM.any(dim=0)
    return Overlap(torch.cat(precise).double(), recalled_M.double(), torch.cat(dense).double(), covered_M.double())


def radii(x_ND: Tensor, k: int) -> Tensor:
    """(N,) squared distance of each row to its k-th nearest other row."""
    nearest = []
    for rows, squares_BN in _blocks(x_ND, x_ND):
        squares_BN.diagonal(rows.start).fill_(torch.inf)
        nearest.append(squares_BN.kthvalue(k, dim=1).values)
    return torch.cat(nearest)


def _blocks(x_ND: Tensor, y_MD: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of x, and their squared distances (B, M) to all of y."""
    lengths_M = y_MD.square().sum(dim=1)
    for start in range(0, len(x_ND), BLOCK):
        rows = slice(start, start + BLOCK)
        x_BD = x_ND[rows]
        squares_BM = x_BD.square().sum(dim=1, keepdim=True) + lengths_M - 2 * (x_BD @ y_MD.T)
        yield rows, squares_BM.clamp_(min=0)
