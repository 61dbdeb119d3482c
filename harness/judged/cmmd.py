"""CMMD (Jayasumana et al., arXiv 2401.09603): MMD^2 of CLIP embeddings of length 1, with a Gaussian kernel, times 1000.

    k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), sigma = 10

Unbiased, as in the paper's equation; the authors' code keeps each image's value with itself, which adds about
1000 (1 - mean k) (1 / N + 1 / M). Shapes: N, M images, D features.
"""

import torch
from torch import Tensor

from harness.judged.mmd import checked, mmd

SIGMA = 10.0
SCALE = 1000.0


def gaussian(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    """exp(-|x - y|^2 / (2 sigma^2)) of every pair of unit vectors, whose squared distance is 2 - 2 x.y."""
    return torch.exp((x_ND @ y_MD.T - 1) / SIGMA**2)


def units(x_ND: Tensor) -> Tensor:
    """Rows at length 1; ValueError for a row of zeros, which has no direction."""
    if not x_ND.any(dim=1).all():
        raise ValueError("embeddings hold a row of length 0: it has no direction")
    return torch.nn.functional.normalize(x_ND, eps=0.0)


def cmmd(x_ND: Tensor, y_MD: Tensor) -> float:
    """CMMD of two sets of CLIP embeddings of any length: about zero for one distribution, also below it."""
    x_ND, y_MD = checked(x_ND, y_MD)
    return SCALE * mmd(units(x_ND), units(y_MD), gaussian)
