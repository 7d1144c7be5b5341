"""A network for one shape of images as a program: layers fused, an algorithm for each, memory laid out."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from resnet_ref.handle import Handle
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.planned import Convolution, can_take_dense
from resnet_ref.kernels.max_pool2d.planned import max_pool
from resnet_ref.kernels.pointwise.planned import add
from resnet_ref.kernels.softmax.planned import softmax
from resnet_ref.kernels.spatial_mean.planned import mean
from resnet_ref.kernels.vector.step import Map, Step, Target, new_map
from resnet_ref.network import Network
from resnet_ref.plan.choice import Chooser
from resnet_ref.plan.folding import folded
from resnet_ref.plan.fusing import Fused, fused, value_of
from resnet_ref.plan.program import Program
from resnet_ref.shapes import Shapes, Spec

RESULT = "result"


class Plan:
    """Runs a network on images of one shape; `outputs` names what a run gives: end points, or RESULT."""

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Array],
        target: Target,
        shape: tuple[int, int, int, int],
        outputs: Sequence[str],
        choose: Chooser,
    ) -> None:
        shapes, images = Shapes(), Spec(shape)
        net, end_points = network.describe(Handle(shapes, images))
        named = {**end_points, RESULT: end_points.get("predictions", net.value)}
        wanted = {name: named[name] for name in outputs}
        layers = fused(shapes.layers, list(wanted.values()))
        lanes = target.library.isa.lanes
        self._maps: dict[Spec, Map] = {images: _images(shape, images, layers, lanes)}
        self._target, self._weights, self._choose = target, weights, choose
        steps = [step for layer in layers for step in self._prepare(layer)]
        self._images = self._maps[images]
        self._outputs = {name: (self._maps[value_of(spec)], spec.shape) for name, spec in wanted.items()}
        kept = [self._images, *(m for m, _ in self._outputs.values())]
        widest = max(m.pitch for m in self._maps.values())
        self.program = Program(target, steps, kept, widest)

    def __call__(self, images: Array) -> dict[str, Array]:
        """The outputs for images [N, H, W, C], new arrays."""
        self.program.view(self._images)[...] = images
        self.program.run()
        return {name: self.program.view(m).reshape(shape) for name, (m, shape) in self._outputs.items()}

    def _prepare(self, layer: Fused) -> Sequence[Step]:
        """The steps of a layer, its output's memory among them."""
        output = layer.output
        n, h, w, c = output.shape if len(output.shape) == 4 else (output.shape[0], 1, 1, output.shape[1])
        y = self._maps[output] = new_map(n, h, w, c, self._target.library.isa.lanes)
        x, target, name, op = self._maps[layer.inputs[0]], self._target, layer.layer.scope, layer.layer.op
        rows, cols = layer.layer.rows, layer.layer.cols
        if op == "conv2d":
            assert rows is not None and cols is not None
            fold = partial(folded, self._weights, name, layer.layer.normalizer)
            residual = None if layer.residual is None else self._maps[layer.residual]
            bound = 6.0 if layer.bounded else None
            conv = Convolution(
                name, x, y, rows, cols, fold, layer.activation, residual, layer.residual_stride, bound
            )
            return self._choose(target, conv)
        if op == "max_pool2d":
            assert rows is not None and cols is not None
            return [max_pool(target, name, x, y, rows, cols)]
        if op == "subsample":
            assert rows is not None
            return [add(target, name, x, y, stride=rows.stride, activation=None)]
        if op == "spatial_mean":
            return [mean(target, name, x, y)]
        if op == "softmax":
            return [softmax(target, name, x, y)]
        return [add(target, name, x, y, residual=self._maps[layer.inputs[1]], activation=layer.activation)]


def _images(shape: tuple[int, int, int, int], images: Spec, layers: Sequence[Fused], lanes: int) -> Map:
    """Images as they come, where all that read them take that; else with whole vectors for each pixel."""
    readers = [layer for layer in layers if images in layer.inputs]
    dense = new_map(*shape, 1)
    if readers and all(
        layer.layer.op == "conv2d" and images is not layer.residual and can_take_dense(layer.layer.cols, shape[3], lanes)
        for layer in readers
    ):
        return dense
    return new_map(*shape, lanes)


__all__ = ["RESULT", "Plan", "np"]
