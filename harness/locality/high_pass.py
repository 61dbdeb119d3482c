"""The high-frequency part of attention: a Butterworth high-pass over each query's map (arXiv 2504.21292, section 3).

The paper gives neither its order, its cut-off nor what becomes of negative values: all three are parameters here. The
gain at a frequency of f cycles a token is 1 / (1 + (cutoff / f)^(2 order)), the form of image processing (Gonzalez and
Woods), 1/2 at the cut-off and 0 at f = 0; the grid is taken to repeat beyond its borders. Shapes: N = H * W keys.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.seats.mixer import BadInput, Grid


@dataclass(frozen=True)
class HighPass:
    """cutoff: cycles a token (0.5 is the finest that a grid holds). negative: what becomes of values below zero.

    A filtered map sums to zero, so that something must be done with its negative half before it can be a mass: `clip`
    makes it zero, `absolute` counts it as if it were positive.
    """

    order: int = 2
    cutoff: float = 0.1
    negative: Literal["clip", "absolute"] = "clip"

    def __post_init__(self) -> None:
        if self.order < 1:
            raise BadInput(f"order={self.order} is no Butterworth filter: give a whole number of at least 1")
        if not 0 < self.cutoff <= 0.5:
            raise BadInput(f"cutoff={self.cutoff} is no frequency of a grid: give cycles a token, above 0 up to 0.5")
        if self.negative not in ("clip", "absolute"):
            raise BadInput(f"negative={self.negative!r} is not known: choose from clip, absolute")

    def __call__(self, maps: Tensor, grid: Grid) -> Tensor:
        """Maps (..., N) without their low frequencies; no value of what is left is negative."""
        waves: Tensor = torch.fft.rfft2(maps.view(*maps.shape[:-1], *grid))
        waves *= self.gain(grid).to(waves)
        sharp: Tensor = torch.fft.irfft2(waves, s=grid)
        return (sharp.clamp_(min=0) if self.negative == "clip" else sharp.abs_()).flatten(-2)

    def gain(self, grid: Grid) -> Tensor:
        """(H, W // 2 + 1) factors from 0 to 1 of the real transform's frequencies."""
        rows, columns = torch.fft.fftfreq(grid[0]), torch.fft.rfftfreq(grid[1])
        frequency: Tensor = (rows[:, None] ** 2 + columns**2).double().sqrt()
        return 1 / (1 + (self.cutoff / frequency) ** (2 * self.order))

    def __str__(self) -> str:
        fate = "set to 0" if self.negative == "clip" else "made positive"
        return (
            f"Butterworth high-pass, order {self.order}, cut-off {self.cutoff:g} cycles/token, negative values {fate}"
        )
