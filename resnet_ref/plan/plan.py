"""A network for one shape of images as a program: layers fused, an algorithm for each, memory laid out."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from resnet_ref.handle import Handle
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.convolution import Method
from resnet_ref.kernels.vector.prepared import Program
from resnet_ref.kernels.vector.step import Target
from resnet_ref.plan.fusing import fused, value_of
from resnet_ref.plan.lowering import Lowering
from resnet_ref.shapes import Shapes, Spec

RESULT = "result"
Describe = Callable[[Handle], tuple[Handle, MutableMapping[str, Any]]]


def named_outputs(describe: Describe, shapes: Shapes, images: Spec) -> dict[str, Spec]:
    """What a network gives for images: end points by name, and RESULT, the probabilities, or what it ends in."""
    net, end_points = describe(Handle(shapes, images))
    return {**end_points, RESULT: end_points.get("predictions", net.value)}


class Plan:
    """Runs a network on images [N, H, W, C] of one shape; not to be called by two threads at once.

    describe: given a handle, slim's (net, end_points); inference only. outputs: what a call gives, as `named_outputs`
    names it.
    """

    def __init__(
        self,
        describe: Describe,
        weights: Mapping[str, Array],
        target: Target,
        shape: tuple[int, ...],
        outputs: Sequence[str],
        choose: Method,
    ) -> None:
        shapes, images = Shapes(), Spec(shape)
        named = named_outputs(describe, shapes, images)
        wanted = {name: named[name] for name in outputs}
        values = [value_of(spec) for spec in wanted.values()]
        lowered = Lowering(fused(shapes.layers, values), images, values, weights, target, choose)
        self._images = lowered.maps[images]
        self._outputs = {name: (lowered.maps[value_of(spec)], spec.shape) for name, spec in wanted.items()}
        kept = [self._images, *(m for m, _ in self._outputs.values())]
        self.program = Program(target, lowered.steps, kept, lowered.widest)

    def __call__(self, images: Array) -> dict[str, Array]:
        """The outputs for images, in memory of their own."""
        self.program.view(self._images)[...] = images
        self.program.run()
        return {name: self.program.view(m).reshape(shape).copy() for name, (m, shape) in self._outputs.items()}
