"""The interpreter that computes like Eager and remembers every layer, so that a value can be followed to the pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from resnet_ref.arg_scope import BatchNorm
from resnet_ref.eager import Eager
from resnet_ref.errors import ShapeError
from resnet_ref.handle import Handle
from resnet_ref.kernels import Tier, for_numpy
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window
from resnet_ref.model import Model
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.shapes import Names, Shapes, Spec

IMAGES = "images"


@dataclass(frozen=True, eq=False)
class Step:
    """One layer of a run: what it read and what it gave, the network's own arrays.

    op: "images", or a layer as the interpreter names it. name: no other step's. scope: its variables'. number: in order
    of computation. sums: a convolution's sums of products before batch norm, where there is one.
    """

    op: str
    name: str
    scope: str
    number: int
    inputs: tuple["Step", ...]
    output: Array
    rows: Window | None = None
    cols: Window | None = None
    sums: Array | None = None
    normalizer: BatchNorm | None = None
    activation: str | None = None
    bounded: bool = False


class Tracer(Eager):
    """Computes like Eager; `steps` holds every layer and its output. preprocessing: that made the images of pixels."""

    def __init__(
        self,
        tier: Tier,
        weights: Mapping[str, Array],
        dtype: Any,
        images: Array,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__(tier, weights, dtype)
        self.preprocessing = preprocessing
        self.steps = [Step("images", IMAGES, IMAGES, 0, (), images)]
        self._by_output = {id(images): self.steps[0]}
        self._sums: Array | None = None
        self._name = Names()

    def step_of(self, output: Array) -> Step:
        """The step that gave an array."""
        return self._by_output[id(output)]

    def conv2d(self, x: Array, scope: str, depth: int, rows: Window, cols: Window, **how: Any) -> Array:
        """Remembered with its sums."""
        self._sums = None
        y = super().conv2d(x, scope, depth, rows, cols, **how)
        return self._note("conv2d", scope, (x,), y, rows=rows, cols=cols, sums=self._sums, **how)

    def max_pool2d(self, x: Array, scope: str, rows: Window, cols: Window) -> Array:
        """Remembered."""
        return self._note("max_pool2d", scope, (x,), super().max_pool2d(x, scope, rows, cols), rows=rows, cols=cols)

    def subsample(self, x: Array, scope: str, factor: int) -> Array:
        """Remembered."""
        window = Window(1, factor)
        return self._note("subsample", scope, (x,), super().subsample(x, scope, factor), rows=window, cols=window)

    def spatial_mean(self, x: Array) -> Array:
        """Remembered."""
        return self._note("spatial_mean", "global_pool", (x,), super().spatial_mean(x))

    def add_relu(self, shortcut: Array, residual: Array, scope: str, *, bounded: bool) -> Array:
        """Remembered."""
        y = super().add_relu(shortcut, residual, scope, bounded=bounded)
        return self._note("add_relu", scope, (shortcut, residual), y, bounded=bounded)

    def squeeze(self, x: Array) -> Array:
        """Remembered."""
        scope = f"{self.step_of(x).scope.rpartition('/')[0]}/spatial_squeeze"
        return self._note("squeeze", scope, (x,), super().squeeze(x))

    def softmax(self, x: Array) -> Array:
        """Remembered."""
        return self._note("softmax", "predictions", (x,), super().softmax(x))

    def _batch_norm(self, y: Array, scope: str, normalizer: BatchNorm, activation: str | None) -> Array:
        self._sums = y.copy()  # normalised in place
        return super()._batch_norm(y, scope, normalizer, activation)

    def _note(self, op: str, scope: str, inputs: tuple[Array, ...], output: Array, **how: Any) -> Array:
        read = tuple(self._by_output[id(array)] for array in inputs)
        step = Step(op, self._name(scope), scope, len(self.steps), read, output, **how)
        self.steps.append(step)
        self._by_output[id(output)] = step
        return output


class _Reached(Exception):  # noqa: N818  no error: it ends a run early
    """The end point that was asked for is there."""


class _Until(dict[str, Any]):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if name == self.name:
            raise _Reached


def traced(model: Model, image: Array, name: str) -> tuple[Tracer, Step]:
    """Run a model on one image [H, W, C] as far as `name`: the tracer, and the step that gave it.

    name: an end point, or a layer by its scope (pool1 is no end point). ShapeError for any other name.
    """
    images = np.ascontiguousarray(image[None], model.dtype)
    shapes = Shapes()
    _, specs = model.network.describe(Handle(shapes, Spec(images.shape)))
    layers = [layer.name for layer in shapes.layers]
    if name not in specs and name not in layers and name != IMAGES:
        known = [IMAGES, *specs, *layers]
        near = get_close_matches(name, known, 3, 0.4)
        hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(known[:3])} ... {known[-1]}"
        raise ShapeError(f"{model.network.scope} has no end point or layer {name!r}; {hint}")
    tracer = Tracer(for_numpy(model.tier), model.weights, model.dtype, images, model.preprocessing)
    sink = _Until(name)
    try:
        model.network.describe(Handle(tracer, images, end_points=sink))
    except _Reached:
        return tracer, tracer.step_of(sink[name])
    return tracer, next(step for step in tracer.steps if step.name == name)
