"""Radial power spectrum: does an image hold as much fine structure as a real one?

Blur shows as missing power at high frequencies, repeated texture as too much. Power of luminance without its mean,
Hann-windowed, averaged over rings of equal width up to half a cycle a pixel. Shapes: N images, H, W pixels, R rings.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.features.kept import Reader
from harness.judged.means import mean_score
from harness.judged.refusal import refusal, unpictured
from harness.records.case import at_least
from harness.records.record import Reading
from harness.trial import Trial

LUMINANCE = (0.299, 0.587, 0.114)
FINE = 0.25  # cycles a pixel from which structure is called fine
LEAST_POWER = 1e-12  # of an image without structure: below the power of rounding to 8 bits


def radial_spectrum(images_N3HW: Tensor, rings: int = 16) -> Tensor:
    """(N, R) mean power of each ring; ring r holds frequencies from r to r + 1 of R parts of half a cycle a pixel."""
    weight_3 = images_N3HW.new_tensor(LUMINANCE).double()
    gray_NHW = torch.einsum("nchw,c->nhw", images_N3HW.double(), weight_3)
    height, width = gray_NHW.shape[-2:]
    window_HW = torch.outer(*(torch.hann_window(side, periodic=False, dtype=torch.float64) for side in (height, width)))
    gray_NHW = (gray_NHW - gray_NHW.mean(dim=(1, 2), keepdim=True)) * window_HW
    power_NHW = torch.fft.fft2(gray_NHW).abs().square() / window_HW.square().sum()
    radius_HW = torch.hypot(*torch.meshgrid(torch.fft.fftfreq(height), torch.fft.fftfreq(width), indexing="ij"))
    ring_P = (radius_HW * 2 * rings).floor().long().flatten()
    inside_P = ring_P < rings
    sums_NR = power_NHW.new_zeros(len(power_NHW), rings)
    sums_NR.index_add_(1, ring_P[inside_P], power_NHW.flatten(1)[:, inside_P])
    counts_R = ring_P[inside_P].bincount(minlength=rings).clamp(min=1)
    return torch.div(sums_NR, counts_R)


def decibels(power: Tensor) -> Tensor:
    """Ten times the decimal logarithm, of no less than what rounding holds."""
    return 10 * power.clamp(min=LEAST_POWER).log10()


@dataclass(frozen=True)
class Spectrum:
    """Power of fine structure over that of the same prompt's real image, in decibels: zero is as much."""

    name: str = "spectrum"
    rings: int = 16
    least: int = 8
    needs: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        at_least(self, self.name, rings=2)

    def readers(self, trial: Trial) -> list[Reader]:
        return [Reader(f"radial spectrum/v1 rings={self.rings}", lambda images: radial_spectrum(images, self.rings))]

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        why = refusal(trial, self.least) or unpictured(trial) or resized(trial)
        if why:
            yield Reading(self.name, "fine_structure", None, "dB", "neither", self.name, trial.case.n, reason=why)
            return
        (reader,) = self.readers(trial)
        count = -(-trial.case.n // len(trial.case.seeds))
        rows = [i // len(trial.case.seeds) for i in range(trial.case.n)]
        made_NR, real_NR = trial.rows(reader), trial.reference_rows(reader, count)[rows]
        fine = math.ceil(2 * FINE * self.rings)
        apart_N = decibels(made_NR[:, fine:].mean(dim=1)) - decibels(real_NR[:, fine:].mean(dim=1))
        protocol = f"fine_structure/v1 above {FINE:g} cycles a pixel, hann, ref={trial.world.name} n={len(rows)}"
        sides = {"made_dB": made_NR, "real_dB": real_NR}
        details = {side: decibels(power_NR.mean(dim=0)).tolist() for side, power_NR in sides.items()}
        scores, prompts = apart_N.tolist(), trial.prompts
        yield mean_score(self.name, "fine_structure", "dB", "neither", protocol, scores, prompts, details)


def resized(trial: Trial) -> str:
    """Why real images show another structure than their own, or nothing."""
    size = trial.case.resolution
    if tuple(trial.references(1).shape[-2:]) == (size.height, size.width):
        return ""
    return f"world {trial.world.name} gives its references resized: spectra need them at the size of the images"
