"""A network for one shape of images, ready to run: a program, captured as a graph, and memory for what it is given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property

import numpy as np

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.runtime import Event, Graph, HostArray, Runtime
from resnet_ref.kernels.subsample.gpu import subsample_into
from resnet_ref.plan.gpu.lowering import Lowering
from resnet_ref.plan.gpu.program import GpuProgram


class GpuPlan:
    """Runs a network on images [N, H, W, C] of one shape, one batch at a time."""

    def __init__(self, runtime: Runtime, lowered: Lowering) -> None:
        self._runtime = runtime
        self.program = GpuProgram(runtime, lowered)
        self._images = self.program.images
        self._outputs = {n: self.program.view(value.buffer, value.shape) for n, value in lowered.outputs.items()}
        self._stream = runtime.stream()
        self._graph: Graph | None = None

    def __call__(self, images: HostArray) -> dict[str, HostArray]:
        """The outputs for images in float32."""
        return self.submit(images).result()

    def submit(self, images: HostArray) -> "Ticket":
        """Begins with a batch, once the one before it is waited for. `images` may change afterwards."""
        given, outputs = self._pinned
        np.copyto(given, images)
        with _finishing(self._stream.synchronize), self._stream:
            self._runtime.copy_in(given, self._images)
            self._run()
            for name, output in self._outputs.items():
                self._runtime.copy_out(output, outputs[name])
            return Ticket(self._stream.record(), outputs)

    def run_there(self, images: Array, outputs: Mapping[str, Array]) -> None:
        """Device arrays into device arrays, in the current stream; returns when it is done."""
        with _finishing(self.program.wait):
            _copy(self._runtime, images, self._images)
            self._run()
            for name, output in self._outputs.items():
                _copy(self._runtime, output, outputs[name])
        self.program.wait()  # before another stream uses this memory

    def close(self) -> None:
        """Gives the device's memory back, whoever still refers to the plan; it cannot be used any more."""
        vars(self).clear()

    def _run(self) -> None:
        """The program in the current stream: from its graph, once it has run and its kernels are loaded."""
        if self._graph is None:
            self.program.run()
            self._graph = self._runtime.capture(self.program.run)
        else:
            self._graph.launch()

    @cached_property
    def _pinned(self) -> tuple[HostArray, dict[str, HostArray]]:
        """Where the images and the outputs lie on the host while they are copied."""
        new = self._runtime.pinned
        outputs = {name: new(output.shape, np.float32) for name, output in self._outputs.items()}
        return new(self._images.shape, np.float32), outputs


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


@contextmanager
def _finishing(wait: Callable[[], None]) -> Iterator[None]:
    """Where something fails, nothing is left running in memory that is then freed."""
    try:
        yield
    except BaseException:
        with suppress(DeviceError):
            wait()
        raise
