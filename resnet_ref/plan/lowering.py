"""From layers to steps, on maps in memory.

The first layers of a network have large activations and small weights, the last ones the reverse. So a batch goes
through the first layers a few images at a time, as many as a cache holds, and through the others all at once, so that
weights are read once. Every pass has buffers of its own, but the same bytes, since they are not needed together.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.choice import reads_dense
from resnet_ref.kernels.conv2d.convolution import Convolution, Method
from resnet_ref.kernels.max_pool2d.planned import max_pool
from resnet_ref.kernels.pointwise.planned import add
from resnet_ref.kernels.softmax.planned import softmax
from resnet_ref.kernels.spatial_mean.planned import mean
from resnet_ref.kernels.vector.emit import FLOAT
from resnet_ref.kernels.vector.step import Map, Step, Target, new_map
from resnet_ref.plan.folding import folded
from resnet_ref.plan.fusing import Fused
from resnet_ref.plan.table import row_of
from resnet_ref.shapes import Spec

CACHE = 8 << 20  # bytes of activations that images may take together


class Lowering:
    """Steps for `layers` (fused) on `images`; `wanted` values keep their memory whole. `maps`: what outlives a pass."""

    def __init__(
        self,
        layers: Sequence[Fused],
        images: Spec,
        wanted: Sequence[Spec],
        weights: Mapping[str, Array],
        target: Target,
        choose: Method,
    ) -> None:
        self._weights, self._target, self._choose = weights, target, choose
        self.maps: dict[Spec, Map] = {images: _images(layers, images, target.library.isa.lanes)}
        self.widest = self.maps[images].pitch
        first = _light(layers)
        early, late = layers[:first], layers[first:]
        read_later = {spec for layer in late for spec in layer.inputs} | set(wanted)
        batch = images.shape[0]
        few = max(1, min(batch, CACHE // max((_bytes(layer) // batch for layer in early), default=1)))
        for layer in early:
            if layer.output in read_later:
                self.maps[layer.output] = self._new(layer.output, batch)
        self.steps: list[Step] = []
        for start in range(0, batch, few):
            self._pass(early, start, min(start + few, batch))
        for layer in late:
            self.maps[layer.output] = self._new(layer.output, batch)
            self.steps += self._prepare(layer, self.maps)

    def _pass(self, layers: Sequence[Fused], first: int, last: int) -> None:
        """The layers for images first .. last - 1."""
        maps = {spec: whole.images(first, last) for spec, whole in self.maps.items()}
        for layer in layers:
            if layer.output not in maps:
                maps[layer.output] = self._new(layer.output, last - first)
            self.steps += self._prepare(layer, maps)

    def _new(self, spec: Spec, images: int) -> Map:
        _, h, w, c = _nhwc(spec)
        made = new_map(images, h, w, c, self._target.library.isa.lanes)
        self.widest = max(self.widest, made.pitch)
        return made

    def _prepare(self, layer: Fused, maps: Mapping[Spec, Map]) -> Sequence[Step]:
        inputs = [maps[spec] for spec in layer.inputs]
        return row_of(_STEPS, layer.layer, "cpu")(self, layer, inputs, maps[layer.output])

    def _conv2d(self, layer: Fused, inputs: Sequence[Map], y: Map) -> Sequence[Step]:
        fold = partial(folded, self._weights, layer.layer.scope, layer.layer.normalizer)
        rows, cols = layer.windows
        residual = None if layer.residual is None else inputs[1]
        conv = Convolution(
            layer.layer.name, inputs[0], y, rows, cols, fold, layer.activation, residual, layer.residual_stride,
            6.0 if layer.bounded else None,
        )  # fmt: skip
        return self._choose(self._target, conv)

    def _max_pool2d(self, layer: Fused, inputs: Sequence[Map], y: Map) -> Sequence[Step]:
        return [max_pool(self._target, layer.layer.name, inputs[0], y, *layer.windows)]

    def _subsample(self, layer: Fused, inputs: Sequence[Map], y: Map) -> Sequence[Step]:
        stride = layer.windows[0].stride
        return [add(self._target, layer.layer.name, inputs[0], y, stride=stride, activation=None)]

    def _add(self, layer: Fused, inputs: Sequence[Map], y: Map) -> Sequence[Step]:
        return [add(self._target, layer.layer.name, inputs[0], y, residual=inputs[1], activation=layer.activation)]

    def _spatial_mean(self, layer: Fused, inputs: Sequence[Map], y: Map) -> Sequence[Step]:
        return [mean(self._target, layer.layer.name, inputs[0], y)]

    def _softmax(self, layer: Fused, inputs: Sequence[Map], y: Map) -> Sequence[Step]:
        return [softmax(self._target, layer.layer.name, inputs[0], y)]


_STEPS: Mapping[str, Callable[[Lowering, Fused, Sequence[Map], Map], Sequence[Step]]] = {
    "conv2d": Lowering._conv2d,
    "max_pool2d": Lowering._max_pool2d,
    "subsample": Lowering._subsample,
    "add_relu": Lowering._add,
    "add_relu6": Lowering._add,
    "spatial_mean": Lowering._spatial_mean,
    "softmax": Lowering._softmax,
}


def _light(layers: Sequence[Fused]) -> int:
    """How many of the first layers have more activations for one image than weights."""
    for number, layer in enumerate(layers):
        if FLOAT * layer.layer.parameters > _bytes(layer) // max(1, layer.output.shape[0]):
            return number
    return len(layers)


def _bytes(layer: Fused) -> int:
    return FLOAT * (layer.output.size + sum(spec.size for spec in layer.inputs))


def _nhwc(spec: Spec) -> tuple[int, ...]:
    return spec.shape if len(spec.shape) == 4 else (spec.shape[0], 1, 1, spec.shape[1])


def _images(layers: Sequence[Fused], images: Spec, lanes: int) -> Map:
    """Images as they come, where all that read them take that; else with whole vectors for each pixel."""
    n, h, w, c = images.shape
    dense = all(_takes_dense(layer, images, lanes) for layer in layers if images in layer.inputs)
    return new_map(n, h, w, c, 1 if dense else lanes)


def _takes_dense(reader: Fused, images: Spec, lanes: int) -> bool:
    """Whether that layer can read images whose pixels lie side by side, whatever algorithm is chosen for it."""
    rows, cols = reader.layer.rows, reader.layer.cols
    if reader.layer.op != "conv2d" or images is reader.residual or rows is None or cols is None:
        return False
    return reads_dense(rows, cols, images.shape[3], lanes)
