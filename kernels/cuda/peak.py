"""The most that a GPU does: the roofs that GFLOP/s and GB/s are measured against."""

import statistics

import numpy as np

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, float32, int32, source
from resnet_ref.kernels.cuda.runtime import Runtime

CHAINS, STEPS = 8, 32  # multiply-adds that wait for none of each other, and of each chain before a loop turns
SOURCE = source("cuda/peak.cu", CHAINS=CHAINS, STEPS=STEPS)
RESIDENT = 8  # blocks that a multiprocessor holds at once: 2048 threads
ROUNDS = 1 << 12
ELEMENTS = 1 << 27  # 512 MiB to read and as many to write: ten times the largest cache
REPEATS = 5


def fma_peak(runtime: Runtime, rounds: int = ROUNDS, repeats: int = REPEATS) -> float:
    """GFLOP/s of float32 multiply-adds (counted as two): the median of `repeats` runs, after one to wake the device.

    Every chain does rounds * STEPS of them. DeviceError where the numbers that come out are not what so many make.
    """
    blocks = RESIDENT * runtime.multiprocessors
    y = runtime.empty((blocks * BLOCK,), np.float32)
    launch = Launch(SOURCE, "multiply_adds", (blocks, 1, 1), BLOCK, (*float32(1, 1), *int32(rounds), y))
    taken = runtime.seconds(lambda: runtime.launch(launch), repeats + 1)[1:]
    total = CHAINS * rounds * STEPS + sum(range(CHAINS))
    if not (runtime.download(y) == total).all():
        raise DeviceError(f"{runtime} multiplies and adds wrongly: {total} was to come out of {SOURCE.file}")
    return 2 * CHAINS * STEPS * rounds * y.size / statistics.median(taken) / 1e9


def copy_peak(runtime: Runtime, elements: int = ELEMENTS, repeats: int = REPEATS) -> float:
    """GB/s of a copy of so many float32 (a multiple of 4), read and written bytes counted together; as `fma_peak`."""
    pattern = np.arange(elements, dtype=np.float32)
    x, y = runtime.upload(pattern), runtime.empty((elements,), np.float32)
    count = elements // 4
    launch = Launch(SOURCE, "copy", (-(-count // BLOCK), 1, 1), BLOCK, (x, y, *int32(count)))
    taken = runtime.seconds(lambda: runtime.launch(launch), repeats + 1)[1:]
    if not np.array_equal(runtime.download(y), pattern):
        raise DeviceError(f"{runtime} copies wrongly, by {SOURCE.file}")
    return (x.nbytes + y.nbytes) / statistics.median(taken) / 1e9
