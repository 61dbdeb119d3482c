"""Fréchet distance extrapolated to endlessly many images (Chong and Forsyth, arXiv 1911.07023; sizes as dgm-eval).

Distances of growing parts of the generated images to all references are regressed on 1 / n; the intercept is the
distance without bias of the generated side. Only with more images than features is it a line: R^2 says how much of one.
Shapes: N, M images, D features, S sizes.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from harness.judged.frechet import frechet_distance
from harness.records.groups import shuffled
from harness.records.statistics import Estimate, Floats

SIZES = 15
LARGEST_START = 5000


@dataclass(frozen=True)
class Line:
    """distance = value + slope / n, with the error of the value and the share of the spread that the line explains."""

    value: Estimate
    slope: float
    r2: float


def frechet_distance_infinite(x_ND: Tensor, y_MD: Tensor, sizes: int = SIZES) -> Line:
    """The line through the distances of `sizes` parts of x, from a tenth of it (5,000 at most) to the whole."""
    n = len(x_ND)
    parts = np.linspace(min(LARGEST_START, n // 10), n, sizes).astype(int)
    if parts[0] < 2 or sizes < 3:
        raise ValueError(f"{n} images have no line of {sizes} sizes: give at least 20 images and 3 sizes")
    order = shuffled(n)
    distances = [frechet_distance(x_ND[order[:part]], y_MD) for part in parts]
    return line(1 / parts, np.array(distances))


def line(inverse_S: Floats, distance_S: Floats) -> Line:
    """Least squares through distances over 1 / n."""
    design_S2 = np.stack([np.ones_like(inverse_S), inverse_S], axis=1)
    fitted, *_ = np.linalg.lstsq(design_S2, distance_S)
    left_S = distance_S - design_S2 @ fitted
    freedom = len(distance_S) - 2
    variance = float(left_S @ left_S) / freedom * float(np.linalg.inv(design_S2.T @ design_S2)[0, 0])
    spread = float(((distance_S - distance_S.mean()) ** 2).sum())
    r2 = 1 - float(left_S @ left_S) / spread if spread else 1.0
    return Line(Estimate(float(fitted[0]), variance**0.5, freedom), float(fitted[1]), r2)
