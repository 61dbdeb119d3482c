"""A mixer is checked against its definition, on the device and in the dtype at hand, before it is timed.

The grids are small and awkward, one narrower than most kernels.
Shapes: B batch, N = height * width tokens, C channels.
"""

import torch
from torch import Tensor, nn

from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import Seat

GRIDS: tuple[Grid, ...] = ((7, 13), (16, 15))
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Relative to the largest entry: rounding of a few hundred additions in that dtype."""
TF32 = 5e-3  # the same on CUDA for float32: cuDNN convolves with the 10-bit mantissas of TF32 unless told otherwise


def first_breach(denoiser: nn.Module) -> str:
    """The sentence about the first seat whose mixer breaches its definition; empty if none does."""
    seats = [module for module in denoiser.modules() if isinstance(module, Seat)]
    like = next(denoiser.parameters())
    return next(filter(None, (breach(seat.mixer, seat.site, like) for seat in seats)), "")


def breach(mixer: TokenMixer, site: Site, like: Tensor) -> str:
    """One sentence if the mixer and its definition differ on the device and dtype of `like`, else empty."""
    if type(mixer).definition is TokenMixer.definition:
        return ""
    tolerance = TF32 if like.is_cuda and like.dtype == torch.float32 else TOLERANCES[like.dtype]
    for grid in GRIDS:
        gap = relative_gap(mixer, site.channels, grid, like.device, like.dtype)
        if not gap <= tolerance:
            return (
                f"{type(mixer).__name__} at {site.path} is {gap:.1e} off its definition on a {grid[0]}x{grid[1]} "
                f"grid ({like.dtype}, {like.device.type}): it is not timed until they agree"
            )
    return ""


def relative_gap(mixer: TokenMixer, channels: int, grid: Grid, device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference between forward and definition over the largest entry of the definition."""
    generator = torch.Generator().manual_seed(0)
    tokens_BNC = torch.randn(2, grid[0] * grid[1], channels, generator=generator).to(device, dtype)
    with torch.no_grad():
        expected_BNC = mixer.definition(tokens_BNC, grid).double()
        given_BNC = mixer(tokens_BNC, grid).double()
    return float((given_BNC - expected_BNC).abs().max() / expected_BNC.abs().max().clamp_min(1e-30))
