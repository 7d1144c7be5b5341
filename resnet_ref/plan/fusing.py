"""Which layers run as one: the end of a residual unit goes into the convolution before it.

    conv3 -> + shortcut -> relu      becomes      conv3 with a residual and a relu
    shortcut: subsample(x, 2)        becomes      a residual that is read with stride 2

A value that somebody asked for, or that another layer reads too, stays a value of its own. Batch norm and activations
are part of a convolution in the description already.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from resnet_ref.kernels.geometry import Window
from resnet_ref.shapes import Layer, Spec


@dataclass(frozen=True, eq=False)
class Fused:
    """A layer, and what follows it in the same kernel.

    output: the value that is written. residual: added before the activation, read with `residual_stride`; bounded:
    first clip the layer's own result to [-6, 6] (slim's use_bounded_activations).
    """

    layer: Layer
    output: Spec
    activation: str | None
    residual: Spec | None = None
    residual_stride: int = 1
    bounded: bool = False

    @property
    def inputs(self) -> tuple[Spec, ...]:
        """The values that are read."""
        own = tuple(map(value_of, self.layer.inputs))
        return own if self.residual is None else (*own, self.residual)

    @property
    def windows(self) -> tuple[Window, Window]:
        """How the layer walks rows and columns; for an operation that does."""
        assert self.layer.rows is not None
        assert self.layer.cols is not None
        return self.layer.rows, self.layer.cols


def value_of(spec: Spec) -> Spec:
    """The value itself, where the spec is one under another shape."""
    while spec.of is not None:
        spec = spec.of
    return spec


def fused(layers: Sequence[Layer], wanted: Sequence[Spec]) -> list[Fused]:
    """The layers in an order in which they can run, fused where nobody sees the difference."""
    readers = Counter(value_of(spec) for layer in layers for spec in layer.inputs)
    readers.update(value_of(spec) for spec in wanted)
    made_by = {layer.output: layer for layer in layers}
    taken: set[Layer] = set()
    ends: dict[Layer, Fused] = {}
    for layer in layers:
        if layer.op in ("add_relu", "add_relu6"):
            shortcut, residual = map(value_of, layer.inputs)
            conv = made_by.get(residual)
            if conv is not None and conv.op == "conv2d" and conv.activation is None and readers[residual] == 1:
                taken.add(conv)
                ends[layer] = _end(layer, conv, shortcut, made_by.get(shortcut), readers, taken)
    return [ends.get(layer) or Fused(layer, layer.output, _activation(layer)) for layer in layers if layer not in taken]


def _end(
    add: Layer, conv: Layer, shortcut: Spec, before: Layer | None, readers: Counter[Spec], taken: set[Layer]
) -> Fused:
    stride = 1
    if before is not None and before.op == "subsample" and before.rows is not None and readers[shortcut] == 1:
        taken.add(before)
        shortcut, stride = value_of(before.inputs[0]), before.rows.stride
    return Fused(conv, add.output, _activation(add), shortcut, stride, add.op == "add_relu6")


def _activation(layer: Layer) -> str | None:
    return {"add_relu": "relu", "add_relu6": "relu6"}.get(layer.op, layer.activation)
