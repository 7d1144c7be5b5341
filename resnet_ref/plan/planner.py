"""Plans for whatever shapes of images come, kept while they are used."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.choice import Way, by_model
from resnet_ref.kernels.conv2d.convolution import Method
from resnet_ref.kernels.library import library
from resnet_ref.kernels.vector.executor import thread_count
from resnet_ref.kernels.vector.forking import new_lock
from resnet_ref.kernels.vector.isa import Isa
from resnet_ref.kernels.vector.step import Target
from resnet_ref.plan import tuning
from resnet_ref.plan.plan import RESULT, Describe, Plan, named_outputs
from resnet_ref.shapes import Shapes, Spec

MOST_PLANS = 8  # that are kept for later; one at work is not among them
MOST_BYTES = 1 << 30  # of their memory, but for the last one's
MOST_PIXELS = 1 << 22  # of images that go through a plan at once; larger batches go in parts
Key = tuple[tuple[int, ...], tuple[str, ...]]

_lock = new_lock()  # held for a moment, while a planner looks through its plans


def most_images(height: int, width: int) -> int:
    """How many images of a size go through a plan at once."""
    return max(1, MOST_PIXELS // (height * width))


class Planner:
    """Runs a network by plans (see Plan), one for each shape of images and each choice of outputs.

    Calls from several threads are safe: a plan serves one call at a time, and a second call finds or makes another.
    """

    def __init__(self, describe: Describe, weights: Mapping[str, Array], isa: Isa, threads: int, way: Way) -> None:
        self._describe, self._weights, self._way = describe, weights, way
        # Threads that wait for each other want a core each.
        self._target = Target(library(isa), min(threads, thread_count(None)))
        self._tuned = lru_cache(maxsize=64)(self._tune)
        self._idle: OrderedDict[int, tuple[Key, Plan]] = OrderedDict()  # the least recently used first

    def __call__(self, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        """The outputs (end points by name, or RESULT) for images [N, H, W, C] in float32."""
        names = tuple(outputs)
        batch, height, width, _ = images.shape
        part = most_images(height, width)
        parts = [self._run(images[start : start + part], names) for start in range(0, batch, part)]
        if not parts:
            return self._nothing(images.shape, names)
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def plan(self, shape: Sequence[int], outputs: Sequence[str]) -> Plan:
        """A new plan for images of a shape, no more than `most_images`."""
        choose = self._tuned(tuple(shape)) if self._way.algorithm == tuning.ALGORITHM else by_model(self._way)
        return self._made(shape, outputs, choose)

    def _made(self, shape: Sequence[int], outputs: Sequence[str], choose: Method) -> Plan:
        return Plan(self._describe, self._weights, self._target, tuple(shape), outputs, choose)

    def _tune(self, shape: tuple[int, ...]) -> Method:
        return tuning.tuned(self._target, lambda choose: self._made(shape, [RESULT], choose))

    def _run(self, images: Array, outputs: tuple[str, ...]) -> dict[str, Array]:
        key = (images.shape, outputs)
        plan = self._take(key) or self.plan(*key)
        results = plan(images)
        self._give(key, plan)
        return results

    def _take(self, key: Key) -> Plan | None:
        with _lock:
            for number, (known, plan) in self._idle.items():
                if known == key:
                    del self._idle[number]
                    return plan
        return None

    def _give(self, key: Key, plan: Plan) -> None:
        with _lock:
            self._idle[id(plan)] = (key, plan)
            while len(self._idle) > MOST_PLANS or (len(self._idle) > 1 and self._bytes() > MOST_BYTES):
                self._idle.popitem(last=False)

    def _bytes(self) -> int:
        return sum(plan.program.nbytes for _, plan in self._idle.values())

    def _nothing(self, shape: tuple[int, ...], outputs: Sequence[str]) -> dict[str, Array]:
        specs = named_outputs(self._describe, Shapes(), Spec(shape))
        return {name: np.zeros(specs[name].shape, np.float32) for name in outputs}
