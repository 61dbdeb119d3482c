"""What this machine's processor is faster with: asked, or tried once and kept for the process.

A choice that was measured on one processor is wrong on the next: a planar copy for large depthwise kernels is 2.6 times
as fast on one CPU and 4.8 times as slow on another. Shapes: B batch, C channels, H x W map.
"""

import platform
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

ROUNDS, PATIENCE_S = 5, 0.3  # timed calls of each layout, and seconds after which no further round begins
LARGEST_TRIED = 2**22  # elements; a larger map is tried on its first rows: long before this, no cache holds it


@cache
def has_bf16_units() -> bool:
    """Whether the CPU multiplies in bf16; one that does not emulates it, far below its pace in fp32."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class Convolution(NamedTuple):
    """All that decides which layout is faster, beside the processor."""

    device: str
    threads: int
    dtype: torch.dtype
    channels: int
    kernel_size: int
    size: tuple[int, int]


_planar_is_faster: dict[Convolution, bool] = {}
"""What was found in this process. Threads that meet here find the same or a tie."""


def depthwise(convolution: nn.Conv2d, map_BCHW: Tensor, after: Callable[[Tensor], Tensor]) -> Tensor:
    """after(convolution(map)), on the channels-last map as it is or on a planar copy, whichever is faster here.

    Both are tried at the first call of a size. The map stays as it is where nothing can be tried, and in training on
    the CPU: the layouts differ in the last bits of gradients, and a resumed run must repeat an unbroken one exactly.
    """
    learning = torch.is_grad_enabled() and (map_BCHW.requires_grad or convolution.weight.requires_grad)
    if (learning and map_BCHW.device.type == "cpu") or not _can_try(map_BCHW):
        return after(convolution(map_BCHW))
    key = _key(convolution, map_BCHW)
    if key not in _planar_is_faster:
        _planar_is_faster.setdefault(key, _try_both(convolution, map_BCHW, after))
    return after(convolution(map_BCHW.contiguous() if _planar_is_faster[key] else map_BCHW))


def layouts_said(convolution: nn.Conv2d, sizes: list[tuple[int, int]]) -> str:
    """What was found in this process for such a convolution at these sizes, for the record; empty if nothing was."""
    like = (convolution.weight.dtype, convolution.in_channels, convolution.kernel_size[0])
    said = [
        f"{'a planar copy' if planar else 'channels-last'} at {key.size[0]}x{key.size[1]} on {key.device}"
        for key, planar in _planar_is_faster.items()
        if key[2:5] == like and key.size in sizes
    ]
    return f"convolved as {', '.join(dict.fromkeys(said))}, which was tried to be faster" if said else ""


def _key(convolution: nn.Conv2d, map_BCHW: Tensor) -> Convolution:
    device, (channels, height, width) = map_BCHW.device, map_BCHW.shape[1:]
    threads, kernel_size = torch.get_num_threads() if device.type == "cpu" else 0, convolution.kernel_size[0]
    return Convolution(str(device), threads, map_BCHW.dtype, channels, kernel_size, (height, width))


def _can_try(map_BCHW: Tensor) -> bool:
    """Whether calls may be made here that only take time."""
    if (
        map_BCHW.device.type not in ("cpu", "cuda")
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
    ):
        return False
    if map_BCHW.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return _get_current_dispatch_mode() is None


@torch.no_grad()
def _try_both(convolution: nn.Conv2d, map_BCHW: Tensor, after: Callable[[Tensor], Tensor]) -> bool:
    """Whether the planar copy of one image of the map takes less time, the copy included."""
    rows = max(1, LARGEST_TRIED // (map_BCHW.shape[1] * map_BCHW.shape[3]))
    one_1CHW = map_BCHW[:1, :, :rows]
    ways: list[Callable[[], Tensor]] = [
        lambda: after(convolution(one_1CHW)),
        lambda: after(convolution(one_1CHW.contiguous())),
    ]
    for way in ways:
        way()
    fastest_s = [float("inf")] * len(ways)
    begun = time.perf_counter()
    for turn in range(ROUNDS):
        for index in (0, 1) if turn % 2 == 0 else (1, 0):
            fastest_s[index] = min(fastest_s[index], _seconds(ways[index], map_BCHW.device))
        if time.perf_counter() - begun > PATIENCE_S:
            break
    return fastest_s[1] < fastest_s[0]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun
