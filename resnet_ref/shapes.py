"""The interpreter that computes nothing: which layers, variables and shapes a network has, and what they cost."""

from dataclasses import dataclass, field

from resnet_ref.arg_scope import BatchNorm
from resnet_ref.errors import ShapeError
from resnet_ref.kernels.geometry import Window, subsampled


@dataclass(frozen=True, eq=False)
class Spec:
    """A value that is only a shape. of: the value that this one is, where only the shape differs."""

    shape: tuple[int, ...]
    of: "Spec | None" = None

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a network: what goes in, what comes out, and the arithmetic between.

    `flops` counts a multiply-add as two and convolutions' products alone (biases, batch norm and activations are
    below 1 %). `parameters` counts all of the layer's variables, moving averages included. scope: its variables'.
    name: no other layer's.
    """

    op: str
    name: str
    scope: str
    inputs: tuple[Spec, ...]
    output: Spec
    rows: Window | None = None
    cols: Window | None = None
    parameters: int = 0
    flops: int = 0
    normalizer: BatchNorm | None = None
    activation: str | None = None


class Names:
    """Gives each layer a name of its own: its scope, or where an earlier layer is called that, the first of scope_1,
    scope_2, ... that is free (TensorFlow's unique_name)."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, scope: str) -> str:
        """The name of the next layer of this scope."""
        name, number = scope, 0
        while name in self._taken:
            number += 1
            name = f"{scope}_{number}"
        self._taken.add(name)
        return name


@dataclass
class Shapes:
    """Interprets a network description; afterwards `layers` and `variables` hold it, in order of creation.

    variables: slim's name -> shape. ShapeError where two layers use one variable with different shapes.
    """

    layers: list[Layer] = field(default_factory=list)
    variables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _name: Names = field(default_factory=Names, repr=False)

    def conv2d(
        self,
        x: Spec,
        scope: str,
        depth: int,
        rows: Window,
        cols: Window,
        *,
        normalizer: BatchNorm | None,
        activation: str | None,
    ) -> Spec:
        """Notes the convolution and its variables."""
        n, h, w, c = x.shape
        output = Spec((n, rows.out(h), cols.out(w), depth))
        if n == 0 and normalizer is not None and normalizer.is_training:
            raise ShapeError(f"{scope}: batch norm in training mode needs an image; or pass is_training=False")
        weights = self._variable(f"{scope}/weights", (rows.size, cols.size, c, depth))
        parameters = weights + sum(self._variable(f"{scope}/{name}", (depth,)) for name in _per_channel(normalizer))
        flops = 2 * output.size * rows.size * cols.size * c
        name, cost = self._name(scope), (parameters, flops)
        layer = Layer("conv2d", name, scope, (x,), output, rows, cols, *cost, normalizer, activation)
        self.layers.append(layer)
        return output

    def max_pool2d(self, x: Spec, scope: str, rows: Window, cols: Window) -> Spec:
        """Notes the pooling."""
        n, h, w, c = x.shape
        return self._add("max_pool2d", scope, (x,), (n, rows.out(h), cols.out(w), c), rows, cols)

    def subsample(self, x: Spec, scope: str, factor: int) -> Spec:
        """Notes the subsampling."""
        n, h, w, c = x.shape
        window = Window(1, factor)
        return self._add("subsample", scope, (x,), (n, subsampled(h, factor), subsampled(w, factor), c), window, window)

    def spatial_mean(self, x: Spec) -> Spec:
        """Notes the mean."""
        return self._add("spatial_mean", "global_pool", (x,), (x.shape[0], 1, 1, x.shape[3]))

    def add_relu(self, shortcut: Spec, residual: Spec, scope: str, *, bounded: bool) -> Spec:
        """Notes the sum."""
        return self._add("add_relu6" if bounded else "add_relu", scope, (shortcut, residual), residual.shape)

    def squeeze(self, x: Spec) -> Spec:
        """Notes nothing: no value changes."""
        return Spec((x.shape[0], x.shape[3]), of=x)

    def softmax(self, x: Spec) -> Spec:
        """Notes the softmax."""
        return self._add("softmax", "predictions", (x,), x.shape)

    def _add(
        self,
        op: str,
        scope: str,
        inputs: tuple[Spec, ...],
        shape: tuple[int, ...],
        rows: Window | None = None,
        cols: Window | None = None,
    ) -> Spec:
        output = Spec(shape)
        self.layers.append(Layer(op, self._name(scope), scope, inputs, output, rows, cols))
        return output

    def _variable(self, name: str, shape: tuple[int, ...]) -> int:
        known = self.variables.setdefault(name, shape)
        if known != shape:
            raise ShapeError(
                f"variable {name} is wanted with shapes {list(known)} and {list(shape)}; give the two layers "
                "different scopes, or the same sizes to share it"
            )
        return Spec(shape).size


def _per_channel(normalizer: BatchNorm | None) -> tuple[str, ...]:
    """The names below a convolution's scope that hold one number per output channel."""
    if normalizer is None:
        return ("biases",)
    gamma = ("BatchNorm/gamma",) if normalizer.scale else ()
    return (*gamma, "BatchNorm/beta", "BatchNorm/moving_mean", "BatchNorm/moving_variance")
