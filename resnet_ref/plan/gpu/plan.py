"""A network for one shape of images, ready to run: a program, captured as a graph, and memory for what it is given."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property

import numpy as np

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.runtime import Event, HostArray, Runtime
from resnet_ref.kernels.subsample.gpu import subsample_into
from resnet_ref.plan.gpu.lowering import Lowering
from resnet_ref.plan.gpu.program import GpuProgram


class GpuPlan:
    """Runs a network on images [N, H, W, C] of one shape, one batch at a time. `shapes`: the outputs', by name."""

    def __init__(self, runtime: Runtime, lowered: Lowering) -> None:
        self._runtime = runtime
        self.program = GpuProgram(runtime, lowered)
        self.shapes = {name: value.shape for name, value in lowered.outputs.items()}
        self._images = self.program.view(lowered.images.buffer, lowered.images.shape)
        self._outputs = {n: self.program.view(value.buffer, value.shape) for n, value in lowered.outputs.items()}
        self._stream = runtime.stream()
        with self._working():
            self.program.run()
            self._stream.synchronize()
        self._graph = runtime.capture(self.program.run)

    def __call__(self, images: HostArray) -> dict[str, HostArray]:
        """The outputs for images in float32."""
        return self.submit(images).result()

    def submit(self, images: HostArray) -> "Ticket":
        """Begins with a batch, once the one before it is waited for. `images` may change afterwards."""
        given, outputs = self._pinned
        np.copyto(given, images)
        with self._working():
            self._runtime.copy_in(given, self._images)
            self._graph.launch()
            for name, output in self._outputs.items():
                self._runtime.copy_out(output, outputs[name])
            return Ticket(self._stream.record(), outputs)

    def run_there(self, images: Array, outputs: Mapping[str, Array]) -> None:
        """Device arrays into device arrays, in the current stream; returns when it is done."""
        _copy(self._runtime, images, self._images)
        self._graph.launch()
        for name, output in self._outputs.items():
            _copy(self._runtime, output, outputs[name])
        self.program.wait()  # before another stream uses this memory

    @cached_property
    def _pinned(self) -> tuple[HostArray, dict[str, HostArray]]:
        """Where the images and the outputs lie on the host while they are copied."""
        new = self._runtime.pinned
        outputs = {name: new(shape, np.float32) for name, shape in self.shapes.items()}
        return new(self._images.shape, np.float32), outputs

    @contextmanager
    def _working(self) -> Iterator[None]:
        """In the plan's stream; where something fails, nothing is left running."""
        try:
            with self._stream:
                yield
        except BaseException:
            with suppress(DeviceError):
                self._stream.synchronize()
            raise


class Ticket:
    """A batch that a plan is at work on."""

    def __init__(self, event: Event, outputs: Mapping[str, HostArray]) -> None:
        self._event, self._outputs = event, outputs

    def result(self) -> dict[str, HostArray]:
        """The outputs, once they are there."""
        return {name: output.copy() for name, output in self.wait().items()}

    def wait(self) -> Mapping[str, HostArray]:
        """The outputs in memory that the plan's next batch overwrites."""
        self._event.synchronize()
        return self._outputs


def _copy(runtime: Runtime, x: Array, y: Array) -> None:
    """y = x, by a kernel of ours."""
    pixels = (-1, 1, 1, x.shape[-1])
    subsample_into(runtime, x.reshape(pixels), 1, y.reshape(pixels))
