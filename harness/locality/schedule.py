"""Which sites to replace for a budget of FLOPs: those whose errors add up to the least.

Errors of single sites are taken to add up, as they nearly do where they are small. The choice is exact: a knapsack,
solved as an integer program.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.records.case import BadInput


@dataclass(frozen=True)
class Price:
    """FLOPs of one site with the teacher's attention and replaced, and the error of the output when it is replaced."""

    kept: int
    replaced: int
    error: float


def schedule(prices: Mapping[str, Price], budget: float) -> list[str]:
    """Paths of the sites to replace, so that all sites together cost at most this share of what the teacher's cost.

    BadInput for a share outside of (0, 1], and for one that no schedule meets: the sentence names the least.
    """
    if not 0 < budget <= 1:
        raise BadInput(f"flops={budget} is not possible: give the share of the teacher's FLOPs, above 0 and up to 1")
    whole = sum(price.kept for price in prices.values())
    least = sum(min(price.kept, price.replaced) for price in prices.values()) / whole
    if budget < least:
        raise BadInput(
            f"flops={budget:g} is met by no schedule: with all sites replaced {least:.3g} of the teacher's FLOPs are "
            "left; give at least so much, or a cheaper mixer"
        )
    chosen = _knapsack(list(prices.values()), budget * whole)
    return [path for path, replace in zip(prices, chosen, strict=True) if replace]


def _knapsack(prices: list[Price], most: float) -> list[bool]:
    """Whether each site is replaced: the least sum of errors whose FLOPs are at most `most`."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    whole = sum(price.kept for price in prices)
    saved = np.array([price.kept - price.replaced for price in prices]) / whole
    errors = np.array([price.error for price in prices])
    found = milp(
        errors / max(errors.max(), 1e-30),
        constraints=LinearConstraint(saved, lb=1 - most / whole - 1e-12),
        integrality=np.ones(len(prices)),
        bounds=Bounds(0, 1),
    )
    return [bool(round(value)) for value in found.x]
