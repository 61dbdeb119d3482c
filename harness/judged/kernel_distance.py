"""Kernel distance (KD; Binkowski et al., arXiv 1801.01401): unbiased MMD^2 with the kernel (x.y / D + 1)^3.

Over all images at once, not over random subsets, whose spread is no interval. Shapes: N, M images, D features.
"""

from torch import Tensor

from harness.judged.mmd import mmd


def cubic(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    """(x.y / D + 1)^3 of every pair."""
    return (x_ND @ y_MD.T / x_ND.shape[1] + 1) ** 3


def kernel_distance(x_ND: Tensor, y_MD: Tensor) -> float:
    """KD of two sets of features: about zero for one distribution, also below it."""
    return mmd(x_ND, y_MD, cubic)
