"""Steps as launches on one piece of a device's memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import cast

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import Launch
from resnet_ref.kernels.cuda.runtime import Graph, Runtime
from resnet_ref.kernels.vector.step import Buffer
from resnet_ref.plan.gpu.lowering import Lowering, Step
from resnet_ref.plan.gpu.room import FLOAT, allocated

REPEATS = 5  # of a step that is timed, so that the time before its launch hardly counts


@dataclass(frozen=True)
class Launched:
    """A step and what it launches."""

    step: Step
    launches: Sequence[Launch]

    @property
    def name(self) -> str:
        """The layer's."""
        return self.step.name

    @property
    def algorithm(self) -> str:
        """How it is computed."""
        return self.step.algorithm

    @property
    def tasks(self) -> int:
        """Blocks of all its launches."""
        return sum(prod(launch.grid) for launch in self.launches)

    @property
    def flops(self) -> int:
        """A multiply-add counted as two, as the layer defines it."""
        return self.step.flops

    @property
    def weights(self) -> Sequence[Array]:
        """That it reads."""
        return self.step.weights

    def run(self, runtime: Runtime) -> None:
        """In the current stream."""
        for launch in self.launches:
            runtime.launch(launch)


class GpuProgram:
    """Runs its steps, in whatever stream is current; between runs its memory is nobody's but the caller's.

    NoRoomError where the device has too little memory.
    """

    def __init__(self, runtime: Runtime, lowered: Lowering) -> None:
        self.runtime = runtime
        self._arena = allocated(runtime, (lowered.nbytes // FLOAT,))
        self.wait()  # for what this stream still does in memory that it had before; other streams do not
        self.images = self.view(lowered.images.buffer, lowered.images.shape)
        self.steps = tuple(Launched(step, self._launches(step)) for step in lowered.steps)

    def _launches(self, step: Step) -> Sequence[Launch]:
        recorder = _Recorder(self.runtime)
        step.run(cast(Runtime, recorder), self.view)
        return recorder.launches

    def view(self, buffer: Buffer, shape: tuple[int, ...]) -> Array:
        """A buffer's memory as an array."""
        start = buffer.offset // FLOAT
        return self._arena[start : start + prod(shape)].reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory besides the weights."""
        return self._arena.nbytes

    def run(self) -> None:
        """From what the images' memory holds to what the outputs' then holds; does not wait for it."""
        for step in self.steps:
            step.run(self.runtime)

    def wait(self) -> None:
        """Until all is done that the current stream has got."""
        self.runtime.synchronize()

    def seconds(self) -> list[float]:
        """How long the device takes for each step, one by one."""
        return [self.runtime.seconds(graph.launch, 1)[0] / REPEATS for graph in self._timed]

    @cached_property
    def _timed(self) -> Sequence[Graph]:
        """Each step some times over: from a graph launches follow each other without delay."""
        images = self.runtime.pinned(self.images.shape, np.float32)
        images[...] = np.random.default_rng(0).standard_normal(images.shape)  # a device is faster on zeros
        self.runtime.copy_in(images, self.images)
        self.run()  # what is captured must have run before
        self.wait()
        return [self.runtime.capture(partial(self._repeat, step)) for step in self.steps]

    def _repeat(self, step: Launched) -> None:
        for _ in range(REPEATS):
            step.run(self.runtime)


class _Recorder:
    """Stands for a runtime while a launcher says what it would launch; has nothing that would allocate."""

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.architecture, self.multiprocessors = runtime.name, runtime.architecture, runtime.multiprocessors
        self.launches: list[Launch] = []

    def launch(self, launch: Launch) -> None:
        self.launches.append(launch.check())
