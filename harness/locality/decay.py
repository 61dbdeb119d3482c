"""How attention falls with distance: quadratically, or exponentially?

The mean attention at each distance r is fitted by a f(r / w) + c with three forms of f; c is a flat bias, and c N the
share of all attention that it holds. The paper (arXiv 2504.21292, section 3) says "quadratic" and gives no formula:
here it is the inverse square. All pairs of query and key count alike. Shapes: R distances, ascending.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[tuple[int], np.dtype[np.float64]]

FORMS: dict[str, Callable[[Array], Array]] = {
    "quadratic": lambda r: 1 / (1 + r**2),
    "exponential": lambda r: np.exp(-r),
    "gaussian": lambda r: np.exp(-(r**2) / 2),
}
"""f of each form, of the distance in widths; all have as many parameters."""
WIDTHS = 48  # widths that are tried before the best is refined


@dataclass(frozen=True)
class Fit:
    """a f(r / width) + floor; error: relative, 0 where the form is exact and 1 where a constant does as well."""

    form: str
    height: float
    width: float
    floor: float
    error: float


def profile(sums: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (R,) in tokens, mean attention at each, and how many pairs of query and key it is the mean of."""
    rows, columns = (torch.arange(side, device=sums.device) - side // 2 for side in sums.shape)
    squares, where = torch.unique((rows[:, None] ** 2 + columns**2).flatten(), return_inverse=True)
    empty = torch.zeros(len(squares), dtype=torch.float64, device=sums.device)
    attention_R, pairs_R = (empty.index_add(0, where, each.flatten().to(empty)) for each in (sums, pairs))
    there = pairs_R > 0
    return squares[there].double().sqrt(), (attention_R / pairs_R)[there], pairs_R[there]


def fits(distance_R: Tensor, attention_R: Tensor, pairs_R: Tensor) -> list[Fit]:
    """The best fit of each form, the most exact first; none where there are fewer than four distances."""
    distance, attention, weight = (each.cpu().double().numpy() for each in (distance_R, attention_R, pairs_R))
    if len(distance) < 4:
        return []
    return sorted((_fit(form, distance, attention, weight) for form in FORMS), key=lambda fit: fit.error)


def _fit(form: str, distance: Array, attention: Array, weight: Array) -> Fit:
    """For a given width the rest is linear, so the width is searched for by itself, from coarse to fine."""
    from scipy.optimize import minimize_scalar

    def error(log_width: float) -> float:
        return _linear(form, np.exp(log_width), distance, attention, weight)[2]

    tried = np.linspace(np.log(0.1), np.log(4 * distance[-1]), WIDTHS)
    best = int(np.argmin([error(width) for width in tried]))
    around = tried[max(best - 1, 0)], tried[min(best + 1, WIDTHS - 1)]
    width = float(np.exp(minimize_scalar(error, bounds=around, method="bounded", options={"xatol": 1e-7}).x))
    height, floor, residual = _linear(form, width, distance, attention, weight)
    return Fit(form, height, width, floor, residual)


def _linear(form: str, width: float, distance: Array, attention: Array, weight: Array) -> tuple[float, float, float]:
    """Height and floor, neither negative, by least squares, and the relative error."""
    from scipy.optimize import nnls

    root = np.sqrt(weight)
    shape = np.stack([FORMS[form](distance / width), np.ones_like(distance)], axis=1)
    (height, floor), residual = nnls(shape * root[:, None], attention * root)
    mean = np.average(attention, weights=weight)
    spread = float(np.linalg.norm((attention - mean) * root))
    return float(height), float(floor), float(residual) / spread if spread > 0 else 0.0
