"""Steps as a program in memory, ready to run."""

import time
from collections.abc import Sequence

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.vector import team
from resnet_ref.kernels.vector.arena import barriers, lay_out
from resnet_ref.kernels.vector.emit import FLOAT, LINE
from resnet_ref.kernels.vector.memory import ALIGNMENT, aligned
from resnet_ref.kernels.vector.program import HEADER, PROGRAM
from resnet_ref.kernels.vector.step import LOWEST, Buffer, Map, Memory, Step, Target, require_addressable


class Program:
    """Runs its steps; between runs its memory is nobody's but the caller's. Not to be run by two threads at once."""

    def __init__(self, target: Target, steps: Sequence[Step], kept: Sequence[Map], widest: int) -> None:
        """kept: maps that are filled before a run or read after it. widest: floats of the widest pixel there is."""
        self.target, self.steps = target, tuple(steps)
        zeros, lowest, waste = (Buffer(widest * FLOAT) for _ in range(3))
        nbytes = lay_out(steps, [zeros, lowest, waste, *(m.buffer for m in kept)])
        require_addressable(nbytes)
        self._arena = aligned(nbytes)
        self.memory = Memory(self._arena, zeros, lowest, waste)
        self._floats(lowest)[:] = LOWEST
        self._records = [step.record(self.memory, wait) for step, wait in zip(steps, barriers(steps), strict=True)]
        self._addresses = np.array([record.ctypes.data for record in self._records], np.int64)
        self._counters = aligned((len(steps) * target.threads + 1) * LINE)
        self._ticks = np.zeros(len(steps) + 1, np.int64)
        scratch = -(-max((step.scratch for step in steps), default=0) // ALIGNMENT) * ALIGNMENT
        # A page between the threads' scratch, so that what one prefetches is not what the other writes.
        self._scratch_step = scratch + 4096 + ALIGNMENT
        self._scratch = aligned(self._scratch_step * target.threads)
        self._program = self._record(0)
        self._profiled = self._record(self._ticks.ctypes.data)

    def _record(self, ticks: int) -> Array:
        counters = self._counters.ctypes.data
        return np.array(
            PROGRAM.pack(
                records=self._addresses.ctypes.data,
                operations=len(self.steps),
                counters=counters + LINE,
                waiting=counters,
                threads=self.target.threads,
                ticks=ticks,
            ),
            np.int64,
        )

    def _floats(self, buffer: Buffer) -> Array:
        return self._arena[buffer.offset : buffer.offset + buffer.nbytes].view(np.float32)

    def view(self, of: Map) -> Array:
        """A kept map's memory as an array [N, H, W, C]."""
        return self._floats(of.buffer).reshape(of.n, of.h, of.w, of.pitch)[..., : of.c]

    @property
    def nbytes(self) -> int:
        """Bytes of memory besides the weights."""
        return self._arena.nbytes + self._scratch.nbytes

    def run(self) -> None:
        """From what `view` was filled with to what it then shows."""
        self._run(self._program)

    def seconds(self) -> Array:
        """How long each step took in one run in which all threads wait for each other after every step: [steps]."""
        slot = HEADER.slot("barrier")
        usual = [int(record[slot]) for record in self._records]
        for record in self._records:
            record[slot] = 1
        start = time.perf_counter()
        self._run(self._profiled)
        whole = time.perf_counter() - start
        for record, barrier in zip(self._records, usual, strict=True):
            record[slot] = barrier
        # The CPU's clock ticks evenly, at a rate of its own.
        taken = np.diff(self._ticks)
        return whole * taken / max(1, int(taken.sum()))

    def _run(self, program: Array) -> None:
        if not self.steps:
            return
        self._counters[:] = 0
        library, threads = self.target.library, self.target.threads
        team.run(library, program.ctypes.data, threads, self._scratch.ctypes.data, self._scratch_step)
