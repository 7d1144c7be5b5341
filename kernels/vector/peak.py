"""The most that a CPU's multiply-add units do: the roof that GFLOP/s are measured against."""

import statistics
import threading
import time

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.vector.emit import FLOAT, I64, POINTER, Emitter
from resnet_ref.kernels.vector.isa import isa_named
from resnet_ref.kernels.vector.memory import floats
from resnet_ref.kernels.vector.objects import Library, compile_object, link
from resnet_ref.kernels.vector.team import native

SUMS = 12  # independent ones: two units with a latency of 4 or 5 need 10, and AVX2 has 16 registers
ROUNDS = 1 << 22
REPEATS = 5


def emit_peak(e: Emitter) -> None:
    """`peak(rounds, out)`: SUMS multiply-adds a round, on registers alone."""
    with e.function("peak", [I64, POINTER]) as (rounds, out):
        factor, term = e.constant(0.5), e.constant(1.0)
        start = [e.constant(float(i)) for i in range(SUMS)]
        sums = e.fold(rounds, start, lambda _, sums: [e.multiply_add(value, factor, term) for value in sums])
        for i, value in enumerate(sums):
            e.store(value, e.at(out, i * e.isa.lanes * FLOAT))


def fma_peak(threads: int, isa: str | None = None) -> float:
    """GFLOP/s of multiply-adds (counted as two) that so many threads do together: the median of a few measurements."""
    e = Emitter(isa_named(isa))
    emit_peak(e)
    library = link(e.isa, compile_object(e), ["peak"])
    flops = 2 * SUMS * e.isa.lanes * ROUNDS * threads
    return statistics.median(flops / _seconds(library, threads) for _ in range(REPEATS)) / 1e9


def _seconds(library: Library, threads: int) -> float:
    run = native(library, "peak", 2)

    def measured(out: Array) -> None:
        run(ROUNDS, out.ctypes.data)

    # Each holds what it uses, should Ctrl-C end the wait for it.
    outs = [floats(SUMS * library.isa.lanes) for _ in range(threads)]
    team = [threading.Thread(target=measured, args=(out,)) for out in outs]
    start = time.perf_counter()
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return time.perf_counter() - start
