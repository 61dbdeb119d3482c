"""Neighborhood attention by its authors' own kernels, the package natten (0.20 or newer), where it is installed.

Its fused kernels want CUDA, 16 or 32 bits, head sizes that are multiples of 8 and at least 2 keys a side; without them
it has a slow path for some sizes. The call takes and gives (B, H, W, heads, d).
"""

from functools import cache

import torch
from torch import Tensor

from harness.seats.mixer import Unavailable

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def attend(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """Neighborhood attention of (B, H, W, h, d) maps; Unavailable where natten is missing or cannot do this one."""
    try:
        from natten.functional import na2d
    except ImportError as error:
        raise Unavailable(
            "backend natten needs the package natten, which cannot be imported: install natten>=0.20 built for this "
            "torch and GPU (natten.org lists the wheels), or take backend=tiled"
        ) from error
    if min(kernel) < 2:
        raise Unavailable(
            f"natten wants windows of at least 2 x 2 keys, not {kernel[0]} x {kernel[1]}: take backend=tiled"
        )
    try:
        mixed: Tensor = na2d(q, k, v, kernel_size=kernel, dilation=dilation)
    except NotImplementedError as error:
        raise Unavailable(f"natten cannot do this ({error}): take backend=tiled") from error
    return mixed


@cache
def has_kernels() -> bool:
    """Whether natten is installed with its compiled kernels, for whatever GPU they were made."""
    try:
        import natten
    except ImportError:
        return False
    return bool(getattr(natten, "HAS_LIBNATTEN", False))


def serves(head_size: int, kernel: tuple[int, int], dtype: torch.dtype) -> bool:
    """Whether the fused kernels do such heads and windows on CUDA."""
    return head_size % 8 == 0 and min(kernel) >= 2 and dtype in DTYPES and has_kernels()
