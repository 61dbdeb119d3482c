"""The limits of this machine, measured: how fast it multiplies matrices in a dtype, and how fast it moves bytes.

They give a mixer's roofline (Williams, Waterman, Patterson 2009): no call is faster than its FLOPs at the rate of a
square matrix product, nor than the bytes that it must read and write at the rate of a copy. Two kinds of calls can beat
it all the same: a convolution in float32 on CUDA, where cuDNN computes in TF32 and these matrix products do not, and a
call whose data lie in a cache. A rate is the best of several tries, on random data: a GPU multiplies constants faster.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from harness.measured.timing import clock_for

TRIES = 5
SIDES = (256, 512, 1024, 2048, 4096, 8192)
LONG_ENOUGH_MS = 100.0
COPIED = {"cpu": 2**28, "cuda": 2**30}  # bytes; more than any cache holds
BLOCK = 2**20  # random bytes, which are repeated: to draw all would take longer than to copy them


@dataclass(frozen=True)
class Limits:
    """Matrix products in FLOPs a second (2 per multiply-add), copies in bytes a second (read and written both)."""

    flops_per_s: float
    bytes_per_s: float

    def floor_ms(self, flops: int, traffic: int) -> float:
        """No call that does so many FLOPs and moves so many bytes is faster; one that does with fewer may be."""
        return 1e3 * max(flops / self.flops_per_s, traffic / self.bytes_per_s)

    def bound(self, flops: int, traffic: int) -> Literal["compute", "memory"]:
        """Which of the two the floor comes from."""
        return "compute" if flops / self.flops_per_s >= traffic / self.bytes_per_s else "memory"


def limits(device: str, dtype: torch.dtype) -> Limits:
    """The limits of a device in a dtype."""
    return Limits(matrix_rate(device, dtype), copy_rate(device))


@cache
def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """FLOPs a second, the best over growing sides, until a product takes long enough. Found once."""
    best, clock = 0.0, clock_for(device)
    for side in SIDES:
        matrix = torch.randn(side, side, device=device, dtype=dtype, generator=generator(device)) / side**0.5
        fastest_ms = min(clock(lambda m=matrix: m @ m) for _ in range(TRIES))  # type: ignore[misc]
        best = max(best, 2e3 * side**3 / fastest_ms)
        if fastest_ms > LONG_ENOUGH_MS:
            break
    return best


@cache
def copy_rate(device: str) -> float:
    """Bytes a second, read and written both. Found once."""
    clock = clock_for(device)
    block = torch.randint(256, (BLOCK,), dtype=torch.uint8, device=device, generator=generator(device))
    source = block.repeat(COPIED[torch.device(device).type] // BLOCK)
    target = torch.zeros_like(source)
    fastest_ms = min(clock(lambda: target.copy_(source)) for _ in range(TRIES))
    return 2e3 * source.numel() / fastest_ms


def generator(device: str) -> torch.Generator:
    """Random numbers of our own: those of everybody else stay where they are."""
    return torch.Generator(device).manual_seed(0)


def too_slow(flops: int, patience_s: float, device: str, dtype: torch.dtype) -> str:
    """One sentence where a call needs longer than the patience even at the best rate; empty where it does not."""
    rate = matrix_rate(device, dtype)
    if flops / rate <= patience_s:
        return ""
    return (
        f"one call is {flops:.3g} FLOPs, at least {flops / rate:.0f} s at the {rate:.3g} FLOPs a second of this device "
        f"in {str(dtype).removeprefix('torch.')}, and the patience is {patience_s:g} s"
    )
