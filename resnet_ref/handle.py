"""What stands for a tensor while a network is described: a value, and the interpreter that says what layers do to it.

slim's functions take `inputs` and ask nothing else of it. Here `inputs` is a `Handle`; its scope and arg scope take the
place of TensorFlow's ambient ones, so there is no global state, and its interpreter decides whether a layer computes
(Eager), or only notes shapes (Shapes).
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from resnet_ref.arg_scope import ArgScope, BatchNorm
from resnet_ref.kernels.geometry import Window


class Interpreter(Protocol):
    """What "computing a layer" means. Values are opaque but for `.shape`; the scope names a layer and its variables."""

    def conv2d(
        self,
        x: Any,
        scope: str,
        depth: int,
        rows: Window,
        cols: Window,
        *,
        normalizer: BatchNorm | None,
        activation: str | None,
    ) -> Any:
        """Convolution to `depth` channels, then batch norm (or, without a normalizer, biases), then the activation."""

    def max_pool2d(self, x: Any, scope: str, rows: Window, cols: Window) -> Any:
        """Max pooling."""

    def subsample(self, x: Any, scope: str, factor: int) -> Any:
        """Every factor-th row and column."""

    def spatial_mean(self, x: Any) -> Any:
        """Mean over height and width, both kept as 1."""

    def add_relu(self, shortcut: Any, residual: Any, scope: str, *, bounded: bool) -> Any:
        """The end of a residual unit."""

    def squeeze(self, x: Any) -> Any:
        """[N, 1, 1, C] -> [N, C]."""

    def softmax(self, x: Any) -> Any:
        """Softmax over the last axis."""


@dataclass(frozen=True)
class Handle:
    """A value inside a network. `end_points` receives the named outputs as they are made."""

    interpreter: Interpreter
    value: Any
    scope: str = ""
    arg_scope: ArgScope = field(default_factory=ArgScope)
    end_points: MutableMapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape."""
        return tuple(self.value.shape)

    def name(self, scope: str) -> str:
        """`scope` below this handle's own."""
        return f"{self.scope}/{scope}" if self.scope else scope

    def within(self, scope: str) -> "Handle":
        """The same value one scope further in (slim's variable_scope)."""
        return replace(self, scope=self.name(scope))

    def at(self, other: "Handle") -> "Handle":
        """This value with the scope, arg scope and end points of `other`: how a function leaves what it entered."""
        return replace(other, value=self.value)

    def holding(self, value: Any) -> "Handle":
        """Another value in this handle's place."""
        return replace(self, value=value)

    def with_arg_scope(self, **changes: Any) -> "Handle":
        """The same value under an arg scope with some fields changed (slim's arg_scope)."""
        return replace(self, arg_scope=replace(self.arg_scope, **changes))

    def collect(self, name: str) -> "Handle":
        """Record this value as the end point `name` (slim's collect_named_outputs)."""
        self.end_points[name] = self.value
        return self
