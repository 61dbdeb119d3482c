"""Squared maximum mean discrepancy (Gretton et al., JMLR 2012, eq. 3), unbiased: the mean of a kernel within two sets,
without an image's value with itself, less twice its mean between them.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

Sums are taken block by block and kept by group of images, so that no N x M matrix is held and the number without a
group costs nothing more. Shapes: N, M images, D features, G groups.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]  # (N, D) and (M, D) to (N, M)
BLOCK = 512


def mmd(x_ND: Tensor, y_MD: Tensor, kernel: Kernel) -> float:
    """Unbiased MMD^2 of two sets of at least two rows each."""
    groups = [torch.zeros(len(rows), dtype=torch.long) for rows in (x_ND, y_MD)]
    return KernelSums.of(x_ND, y_MD, groups[0], groups[1], kernel).mmd()


@dataclass(frozen=True)
class KernelSums:
    """Sums of a kernel over pairs of groups, and how many images each group holds; own pairs are left out."""

    xx_GG: Tensor
    yy_GG: Tensor
    xy_GG: Tensor
    n_G: Tensor
    m_G: Tensor

    @classmethod
    def of(cls, x_ND: Tensor, y_MD: Tensor, group_N: Tensor, group_M: Tensor, kernel: Kernel) -> "KernelSums":
        """Of features in float64; group numbers start at 0 on both sides."""
        x_ND, y_MD = checked(x_ND, y_MD)
        count = 1 + max(int(group_N.max()), int(group_M.max()))
        return cls(
            xx_GG=_sums(x_ND, x_ND, group_N, group_N, count, kernel, own=False),
            yy_GG=_sums(y_MD, y_MD, group_M, group_M, count, kernel, own=False),
            xy_GG=_sums(x_ND, y_MD, group_N, group_M, count, kernel, own=True),
            n_G=group_N.bincount(minlength=count).double(),
            m_G=group_M.bincount(minlength=count).double(),
        )

    def mmd(self, without: frozenset[int] = frozenset()) -> float:
        """The number without some groups."""
        kept = torch.tensor([group not in without for group in range(len(self.n_G))]).double()
        n, m = float(kept @ self.n_G), float(kept @ self.m_G)
        xx, yy, xy = (float(kept @ sums @ kept) for sums in (self.xx_GG, self.yy_GG, self.xy_GG))
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


def checked(x_ND: Tensor, y_MD: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64 on the CPU; ValueError for what no distance can be taken of."""
    shapes = f"{tuple(x_ND.shape)} and {tuple(y_MD.shape)}"
    if x_ND.ndim != 2 or y_MD.ndim != 2 or x_ND.shape[1] != y_MD.shape[1] or min(len(x_ND), len(y_MD)) < 2:
        raise ValueError(f"features of {shapes} have no distance: give (N, D) and (M, D), at least two rows each")
    if not (x_ND.isfinite().all() and y_MD.isfinite().all()):
        raise ValueError("features hold values that are not finite")
    return x_ND.detach().double().cpu(), y_MD.detach().double().cpu()


def _sums(
    x_ND: Tensor, y_MD: Tensor, group_N: Tensor, group_M: Tensor, count: int, kernel: Kernel, own: bool
) -> Tensor:
    """(G, G) sums of the kernel; without `own`, x and y are one set and the diagonal is left out."""
    sums_GG = torch.zeros(count, count, dtype=torch.float64)
    for start in range(0, len(x_ND), BLOCK):
        rows = slice(start, start + BLOCK)
        values_BM = kernel(x_ND[rows], y_MD)
        if not own:
            values_BM.diagonal(start).zero_()
        by_group_BG = values_BM.new_zeros(len(values_BM), count).index_add_(1, group_M, values_BM)
        sums_GG.index_add_(0, group_N[rows], by_group_BG)
    return sums_GG
