"""What a run of a network is made of, so that a hypothesis about it is a changed copy."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from resnet_ref.delegating import Delegating
from resnet_ref.eager import Eager
from resnet_ref.handle import Handle, Interpreter
from resnet_ref.kernels.arrays import Array
from resnet_ref.network import Network
from resnet_ref.shapes import Shapes, Spec
from resnet_ref.variables import check_variables

Alter = Callable[[Interpreter], Interpreter]


@dataclass(frozen=True)
class Setup:
    """A network, its variables and its inputs [N, H, W, C].

    is_training: the batch-norm mode. alter: what stands between the description and the arithmetic. given: layers that
    are not computed, by scope, with what they are taken to give.
    """

    network: Network
    variables: Mapping[str, Array]
    inputs: Array
    is_training: bool = False
    alter: Alter | None = None
    given: Mapping[str, Array] = field(default_factory=dict)

    def check(self) -> dict[str, tuple[int, ...]]:
        """The end points' shapes, from shapes alone; ShapeError or WeightsError where the parts do not fit."""
        shapes = Shapes()
        specs = self.describe(shapes, Spec(self.inputs.shape), {})
        check_variables(self.variables, shapes.variables)
        return {name: spec.shape for name, spec in specs.items()}

    def eager(self, tier: Any, dtype: Any) -> Interpreter:
        """The interpreter that computes this network on a tier."""
        eager: Interpreter = Eager(tier, self.variables, dtype)
        return _Given(eager, self.given) if self.given else eager

    def describe(self, interpreter: Interpreter, value: Any, sink: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Run the description; `sink` receives the end points."""
        interpreter = interpreter if self.alter is None else self.alter(interpreter)
        return self.network.describe(Handle(interpreter, value, end_points=sink), is_training=self.is_training)[1]


class _Given(Delegating):
    """Takes some convolutions' outputs as given."""

    def __init__(self, inner: Interpreter, given: Mapping[str, Array]) -> None:
        super().__init__(inner)
        self.given = given

    def conv2d(self, x: Any, scope: str, *args: Any, **kwargs: Any) -> Any:
        """What is given for the scope, in x's dtype, or the convolution."""
        if scope in self.given:
            return self.given[scope].astype(x.dtype)
        return self.inner.conv2d(x, scope, *args, **kwargs)
