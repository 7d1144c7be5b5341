"""Memory that kernels work in: aligned for vectors, in huge pages where there is enough of it to matter."""

import mmap

import numpy as np

from resnet_ref.kernels.arrays import Array

ALIGNMENT = 64  # bytes: a cache line, and a register of 16 lanes
HUGE_PAGE = 2 << 20
SLACK = 4096  # bytes that prefetches, and vectors at the end of a map, may touch beyond
# mmap's own default is memory that a forked child and its parent both write: each must have its own.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def aligned(nbytes: int) -> Array:
    """Zeroed bytes at an address divisible by ALIGNMENT, with SLACK more behind them; freed with the last view."""
    total = nbytes + ALIGNMENT + SLACK
    if total < HUGE_PAGE:
        raw = np.zeros(total, np.uint8)
    else:
        try:
            region = mmap.mmap(-1, -(-total // HUGE_PAGE) * HUGE_PAGE, **_PRIVATE)
        except OSError as error:
            raise MemoryError(f"the system does not give {nbytes} bytes at once ({error.strerror})") from None
        if hasattr(mmap, "MADV_HUGEPAGE"):
            region.madvise(mmap.MADV_HUGEPAGE)
        raw = np.frombuffer(region, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def floats(*shape: int) -> Array:
    """Zeros in float32, aligned."""
    return aligned(4 * int(np.prod(shape))).view(np.float32).reshape(shape)
