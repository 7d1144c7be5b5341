"""From layers to steps on buffers, whose places in memory are found before there is any."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.gpu import Epilogue, conv2d_into, workspace_size
from resnet_ref.kernels.cuda.launch import ADDRESSABLE
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.max_pool2d.gpu import max_pool2d_into
from resnet_ref.kernels.pointwise.gpu import add_into
from resnet_ref.kernels.softmax.gpu import softmax_into
from resnet_ref.kernels.spatial_mean.gpu import spatial_mean_into
from resnet_ref.kernels.subsample.gpu import subsample_into
from resnet_ref.kernels.vector.arena import lay_out
from resnet_ref.kernels.vector.step import Buffer
from resnet_ref.plan.fusing import Fused, fused, value_of
from resnet_ref.plan.gpu.choice import Choose, Convolution
from resnet_ref.plan.gpu.room import FLOAT, NoRoomError
from resnet_ref.plan.gpu.weights import DeviceWeights
from resnet_ref.plan.plan import Describe, named_outputs
from resnet_ref.plan.table import row_of
from resnet_ref.shapes import Shapes, Spec

ALIGNMENT = 256  # bytes, as cudaMalloc's
BOUND = 6.0  # of slim's bounded activations

View = Callable[[Buffer, tuple[int, ...]], Array]  # a buffer's memory as an array


@dataclass(eq=False)
class Step:
    """A layer, with what follows it in the same kernel. run: launches it, given the memory. kind: a convolution's."""

    name: str
    algorithm: str
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    run: Callable[[Runtime, View], None]
    flops: int = 0
    weights: tuple[Array, ...] = ()
    kind: str | None = None


@dataclass(frozen=True, eq=False)
class Value:
    """A buffer that callers see."""

    buffer: Buffer
    shape: tuple[int, ...]


class Lowering:
    """Steps for images [N, H, W, C]; between them, `images` and the `outputs` by name, they need `nbytes`.

    NoRoomError where a value has more elements than a kernel indexes.
    """

    def __init__(
        self, describe: Describe, weights: DeviceWeights, shape: Sequence[int], outputs: Sequence[str], choose: Choose
    ) -> None:
        self._weights, self._choose = weights, choose
        shapes, images = Shapes(), Spec(tuple(shape))
        named = named_outputs(describe, shapes, images)
        wanted = {name: named[name] for name in outputs}
        layers = fused(shapes.layers, [value_of(spec) for spec in wanted.values()])
        _require_addressable([images, *(layer.output for layer in layers)])
        self._buffers = {spec: Buffer(FLOAT * spec.size) for spec in [images, *(layer.output for layer in layers)]}
        self.steps = [self._step(layer) for layer in layers]
        self.images = Value(self._buffers[images], images.shape)
        self.outputs = {name: Value(self._buffers[value_of(spec)], spec.shape) for name, spec in wanted.items()}
        kept = [value.buffer for value in (self.images, *self.outputs.values())]
        self.nbytes = lay_out(self.steps, kept, ALIGNMENT)

    def _step(self, layer: Fused) -> Step:
        return row_of(_STEPS, layer.layer, "gpu")(self, layer)

    def _max_pool2d(self, layer: Fused) -> Step:
        return self._simple(layer, "maximum", partial(_max_pool, *layer.windows))

    def _subsample(self, layer: Fused) -> Step:
        return self._simple(layer, "subsample", partial(_subsample, layer.windows[0].stride))

    def _add(self, layer: Fused, bound: float = math.inf) -> Step:
        return self._simple(layer, "pointwise", partial(_add, layer.activation, bound))

    def _bounded_add(self, layer: Fused) -> Step:
        return self._add(layer, BOUND)

    def _spatial_mean(self, layer: Fused) -> Step:
        return self._simple(layer, "mean", spatial_mean_into)

    def _softmax(self, layer: Fused) -> Step:
        return self._simple(layer, "softmax", softmax_into)

    def _simple(self, layer: Fused, algorithm: str, into: Callable[..., None]) -> Step:
        """into: takes a runtime, the layer's inputs and its output."""
        reads, y = tuple(self._buffers[spec] for spec in layer.inputs), self._buffers[layer.output]
        shapes = [spec.shape for spec in layer.layer.inputs]

        def run(runtime: Runtime, view: View) -> None:
            into(runtime, *map(view, reads, shapes), view(y, layer.output.shape))

        return Step(layer.layer.name, algorithm, reads, (y,), run)

    def _conv2d(self, layer: Fused) -> Step:
        (rows, cols), x, y = layer.windows, layer.inputs[0], layer.output
        w, bias = self._weights.of(layer.layer.scope, layer.layer.normalizer)
        conv = Convolution(x.shape, w.shape, rows, cols, layer.residual is not None)
        way = self._choose(conv)
        size = workspace_size(way, y.size // y.shape[3], y.shape[3])
        workspace = Buffer(FLOAT * size)
        bound = BOUND if layer.bounded else math.inf

        def run(runtime: Runtime, view: View) -> None:
            arrays = [view(buffer, spec.shape) for buffer, spec in zip(reads, layer.inputs, strict=True)]
            residual = arrays[1] if layer.residual is not None else None
            epilogue = Epilogue(bias, residual, layer.residual_stride, layer.activation, bound)
            sums = view(workspace, (size,)) if size else None
            conv2d_into(runtime, arrays[0], w, rows, cols, epilogue, view(writes[0], y.shape), way, sums)

        reads = tuple(self._buffers[spec] for spec in layer.inputs)
        writes = (self._buffers[y], *([workspace] if size else []))
        return Step(layer.layer.name, way.name, reads, writes, run, layer.layer.flops, (w, bias), conv.kind)


_STEPS: Mapping[str, Callable[[Lowering, Fused], Step]] = {
    "conv2d": Lowering._conv2d,
    "max_pool2d": Lowering._max_pool2d,
    "subsample": Lowering._subsample,
    "add_relu": Lowering._add,
    "add_relu6": Lowering._bounded_add,
    "spatial_mean": Lowering._spatial_mean,
    "softmax": Lowering._softmax,
}


def _max_pool(rows: Window, cols: Window, runtime: Runtime, x: Array, y: Array) -> None:
    max_pool2d_into(runtime, x, rows, cols, y)


def _subsample(factor: int, runtime: Runtime, x: Array, y: Array) -> None:
    subsample_into(runtime, x, factor, y)


def _add(activation: str | None, bound: float, runtime: Runtime, shortcut: Array, residual: Array, y: Array) -> None:
    add_into(runtime, shortcut, residual, activation, bound, y)


def _require_addressable(specs: Sequence[Spec]) -> None:
    largest = max(spec.size for spec in specs)
    if largest > ADDRESSABLE:
        raise NoRoomError("a value has more numbers than a gpu kernel indexes", largest, ADDRESSABLE)
