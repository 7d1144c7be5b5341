"""A network on a gpu for whatever shapes of images come, one batch after the other or several in flight."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import numpy as np

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.gpu import require_precision
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.plan.gpu.choice import ALGORITHMS, Choose, by_model
from resnet_ref.plan.gpu.lowering import Lowering
from resnet_ref.plan.gpu.plan import GpuPlan
from resnet_ref.plan.gpu.plans import Flight, Key, Plans
from resnet_ref.plan.gpu.program import GpuProgram
from resnet_ref.plan.gpu.room import NoRoomError, allocated
from resnet_ref.plan.gpu.tuning import medians, tuned
from resnet_ref.plan.gpu.weights import DeviceWeights
from resnet_ref.plan.plan import RESULT, Describe, named_outputs
from resnet_ref.plan.planner import most_images
from resnet_ref.shapes import Shapes, Spec

DEPTH = 2  # parts of batches in flight: while one computes, the other's images or outputs are copied


class GpuPlanner:
    """Runs a network by plans (see GpuPlan), one for each shape of images and each choice of outputs.

    precision: of convolutions' products. algorithm: "auto" chooses tiles by the model, the same on all devices with as
    many multiprocessors; "tuned" times the model's best few on this device and remembers the choice, so that last
    digits may differ. Larger batches go in parts, as many images at once as there is memory for. Calls from several
    threads are safe. DeviceError for an unknown precision or algorithm, and where the weights, or one image, do not fit
    in the device's memory.
    """

    def __init__(
        self,
        describe: Describe,
        weights: Mapping[str, Array],
        runtime: Runtime,
        precision: str = "float32",
        algorithm: str = "auto",
    ) -> None:
        require_precision(runtime, precision)
        if algorithm not in ALGORITHMS:
            raise DeviceError(f'on device "gpu" algorithm must be one of {", ".join(ALGORITHMS)}; got {algorithm!r}')
        self._describe, self._runtime, self._precision, self._algorithm = describe, runtime, precision, algorithm
        self._weights = DeviceWeights(runtime, weights)
        self._plans = Plans(runtime)
        self._fewer: dict[Any, int] = {}  # images at once, where memory is what bounds them
        self._tuned = lru_cache(maxsize=64)(self._tune)
        self._tuning = Lock()
        self._shapes = lru_cache(maxsize=64)(self._output_shapes)

    def __call__(self, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        """The outputs (end points by name, or RESULT) for images [N, H, W, C] in float32, contiguous: NumPy arrays for
        one, and new arrays on the device for one that lies there."""
        if self._runtime.owns(images):
            return self._there(images, tuple(outputs))
        (found,) = self.stream([images], outputs)
        return found

    def stream(self, batches: Iterable[Array], outputs: Sequence[str]) -> Iterator[dict[str, Array]]:
        """What a call gives for each batch, in order; up to DEPTH of them are in flight before the first is given.

        A batch that lies on the device is computed at once. However this ends, nothing is left running.
        """
        names = tuple(outputs)
        line: deque[_Batch] = deque()
        try:
            for images in batches:
                line.append(_Batch(images))
                if self._runtime.owns(images):
                    line[-1].results, line[-1].begun = self._there(images, names), images.shape[0]
                else:
                    shapes = self._shapes(images.shape, names)
                    line[-1].results = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
                while line[-1].begun < images.shape[0]:
                    self._begin(line, names)
                while len(line) > 1 and not line[0].flights:
                    yield line.popleft().results
            while line:
                line[0].land()
                if not line[0].flights:
                    yield line.popleft().results
        finally:
            for batch in line:
                for flight in batch.flights:
                    flight.land()

    def plan(self, shape: Sequence[int], outputs: Sequence[str]) -> GpuPlan:
        """A new plan for images of a shape, no more than `most_images`."""
        choose = self._choice(tuple(shape))
        plan = self._plans.make(partial(self._made, (tuple(shape), tuple(outputs)), choose))
        self._plans.done()  # from now on it is the caller's
        return plan

    def _begin(self, line: "deque[_Batch]", names: tuple[str, ...]) -> None:
        """Sends some images of the last batch, once there are few enough in flight."""
        flying = [batch for batch in line if batch.flights]
        if sum(len(batch.flights) for batch in flying) >= DEPTH:
            flying[0].land()
        batch = line[-1]
        key, plan = self._next(batch.images.shape, batch.begun, names)
        first, last = batch.begun, batch.begun + key[0][0]
        into = {name: whole[first:last] for name, whole in batch.results.items()}
        batch.flights.append(self._plans.fly(key, plan, batch.images[first:last], into))
        batch.begun = last

    def _there(self, images: Array, names: tuple[str, ...]) -> dict[str, Array]:
        """The outputs on the device."""
        shapes, begun = self._shapes(images.shape, names), 0
        results = self._plans.make(lambda: {name: allocated(self._runtime, shape) for name, shape in shapes.items()})
        self._plans.done()
        while begun < images.shape[0]:
            begun = self._part_there(images, begun, names, results)
        return results

    def _part_there(self, images: Array, begun: int, names: tuple[str, ...], results: Mapping[str, Array]) -> int:
        """Some images on the device, after those that have begun; how many now have."""
        key, plan = self._next(images.shape, begun, names)
        part = slice(begun, begun + key[0][0])
        try:
            plan.run_there(images[part], {name: whole[part] for name, whole in results.items()})
        except BaseException:
            self._plans.discard(plan)
            raise
        self._plans.give(key, plan)
        return part.stop

    def _next(self, shape: tuple[int, ...], begun: int, names: tuple[str, ...]) -> tuple[Key, GpuPlan]:
        """A plan for the next images of a batch, of which so many have begun: in parts of about one size."""
        batch, size = shape[0], shape[1:]
        while True:
            most = min(most_images(*size[:2]), self._fewer.get((size, names), batch))
            parts = -(-(batch - begun) // most)
            key = ((-(-(batch - begun) // parts), *size), names)
            choose = self._choice(key[0])
            try:
                return key, self._plans.make(partial(self._made, key, choose), key)
            except NoRoomError as short:
                images = key[0][0]
                if images == 1:
                    raise
                self._fewer[size, names] = short.fewer(images)

    def _made(self, key: Key, choose: Choose) -> GpuPlan:
        return GpuPlan(self._runtime, self._lowered(*key, choose))

    def _lowered(self, shape: tuple[int, ...], names: Sequence[str], choose: Choose) -> Lowering:
        return Lowering(self._describe, self._weights, shape, names, choose)

    def _choice(self, shape: tuple[int, ...]) -> Choose:
        """How convolutions are computed for images of a shape."""
        if self._algorithm == "auto":
            return by_model(self._runtime, self._precision)
        with self._tuning:
            return self._tuned(shape)

    def _tune(self, shape: tuple[int, ...]) -> Choose:
        return tuned(self._runtime, self._precision, partial(self._lowered, shape, [RESULT]), self._measure)

    def _measure(self, lowered: Lowering) -> Sequence[float]:
        seconds = self._plans.make(lambda: medians(GpuProgram(self._runtime, lowered)))
        self._plans.done()
        return seconds

    def _output_shapes(self, shape: tuple[int, ...], names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        specs = named_outputs(self._describe, Shapes(), Spec(shape))
        return {name: specs[name].shape for name in names}


class _Batch:
    """Of a stream: so many of its images have begun, and their outputs go into `results`."""

    def __init__(self, images: Array) -> None:
        self.images = images
        self.begun = 0
        self.results: dict[str, Array] = {}
        self.flights: deque[Flight] = deque()

    def land(self) -> None:
        """Waits for the first of its flights, where there is one."""
        if self.flights and (error := self.flights.popleft().land()) is not None:
            raise error
