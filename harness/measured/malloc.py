"""The C library's heap, held so that the resident set shows what is allocated and not what malloc keeps.

glibc serves a large block from a free chunk of its heap, which stays resident when the block is freed; only one that no
chunk can serve is mapped anew, and goes back to the system at once. So all free chunks are occupied for a while by
blocks that nobody touches, and every block of 64 KiB or more is a new one, as with `MALLOC_MMAP_THRESHOLD_=65536`.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from harness.seats.mixer import Unavailable

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # names of glibc's mallopt
SMALL_BLOCK, LARGE_BLOCK = 2**16, 2**25
LARGEST_CHUNK = 2**32
NEEDED = (
    "measured peak memory on the CPU needs the malloc of glibc 2.33 or later, which can be told to keep no freed "
    "block: projected_memory works everywhere"
)


class MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`: how many blocks lie outside the heap, their bytes, and those in use inside it."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    )
    hblks: int
    hblkhd: int
    uordblks: int


def glibc() -> ctypes.CDLL:
    """The process's C library; raises Unavailable unless it is a glibc that serves malloc and tells what it holds."""
    try:
        library = ctypes.CDLL(None)
        library.mallinfo2.restype = MallInfo
    except (AttributeError, OSError, TypeError) as error:
        raise Unavailable(f"the C library of this process has no mallinfo2: {NEEDED}") from error
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    before = held(library)
    block = library.malloc(SMALL_BLOCK)
    served = held(library) - before
    library.free(block)
    if served < SMALL_BLOCK // 2:
        raise Unavailable(f"another malloc stands before that of the C library (LD_PRELOAD): {NEEDED}")
    return library


def held(library: ctypes.CDLL) -> int:
    """Bytes that are allocated, in all."""
    seen = library.mallinfo2()
    return int(seen.uordblks + seen.hblkhd)


@contextmanager
def every_block_returned() -> Iterator[None]:
    """While open glibc keeps no freed block of 64 KiB or more; Unavailable where there is no such glibc.

    Afterwards the thresholds are the ceiling that glibc's own adjustment reaches once a block of 32 MiB was freed.
    """
    library = glibc()
    library.mallopt(MMAP_THRESHOLD, SMALL_BLOCK)
    occupied = free_chunks(library)
    try:
        library.malloc_trim(0)
        yield
    finally:
        for block in occupied:
            library.free(block)
        library.mallopt(MMAP_THRESHOLD, LARGE_BLOCK)
        library.mallopt(TRIM_THRESHOLD, 2 * LARGE_BLOCK)


def free_chunks(library: ctypes.CDLL) -> list[int]:
    """Blocks that now occupy every free chunk of 64 KiB or more of the calling thread's heap, the largest first."""
    occupied, size = [], LARGEST_CHUNK
    while size >= SMALL_BLOCK:
        outside = library.mallinfo2().hblks
        block = library.malloc(size)
        if block and library.mallinfo2().hblks == outside:
            occupied.append(block)
            continue
        library.free(block)
        size //= 2
    return occupied
