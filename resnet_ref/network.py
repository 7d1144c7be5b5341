"""A network as plain data: the call of slim's function that a weights file records, and back again."""

import inspect
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any

from resnet_ref import resnet_v1 as nets
from resnet_ref.arg_scope import ArgScope
from resnet_ref.errors import ResnetRefError, ShapeError, WeightsError
from resnet_ref.handle import Handle
from resnet_ref.kernels.scalars import real, whole
from resnet_ref.resnet_utils import Block, resnet_arg_scope
from resnet_ref.shapes import Shapes, Spec

FUNCTIONS = ("resnet_v1", *nets.UNITS)
# What a call may set, besides `inputs`: slim's parameters, less those that say how to run rather than what.
_NOT_RECORDED = ("inputs", "is_training", "reuse", "blocks")
_MOST_UNITS = 2000
_WIDEST = 1 << 20


@dataclass(frozen=True)
class Network:
    """One of slim's functions with its arguments; `blocks` (of bottlenecks) only for function "resnet_v1".

    arguments: num_classes, depth_multiplier, scope, output_stride ... as slim names them; absent ones have slim's
    defaults. arg_scope: what differs from resnet_arg_scope()'s defaults. channels: the depth of the images.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    arg_scope: ArgScope = field(default_factory=ArgScope)
    blocks: tuple[Block, ...] = ()
    channels: int = 3

    @property
    def scope(self) -> str:
        """The scope that all variables' names start with."""
        return self.arguments.get("scope", self.function) or "resnet_v1"

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for a network without logits."""
        return self.arguments.get("num_classes") or None

    def describe(self, inputs: Handle, **changes: Any) -> tuple[Handle, MutableMapping[str, Any]]:
        """Call slim's function on a handle, in inference unless `changes`, which replace arguments, say otherwise."""
        arguments = {"is_training": False, **self.arguments, **changes}
        if self.function == "resnet_v1":
            arguments["blocks"] = self.blocks
        return getattr(nets, self.function)(inputs, arg_scope=self.arg_scope, **arguments)

    def shapes(self, batch: int, height: int, width: int, **changes: Any) -> Shapes:
        """What the network is for images [batch, height, width, channels]."""
        shapes = Shapes()
        self.describe(Handle(shapes, Spec((batch, height, width, self.channels))), **changes)
        return shapes

    def variables(self) -> dict[str, tuple[int, ...]]:
        """slim's name -> shape, in order of creation. The shapes do not depend on the images' size."""
        return self.shapes(1, 1, 1).variables

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` takes."""
        defaults = asdict(ArgScope())
        data: dict[str, Any] = {"function": self.function, **self.arguments}
        if changed := {k: v for k, v in asdict(self.arg_scope).items() if v != defaults[k]}:
            data["arg_scope"] = changed
        if self.function == "resnet_v1":
            data["blocks"] = [{"scope": b.scope, "args": [dict(unit) for unit in b.args]} for b in self.blocks]
        if self.channels != 3:
            data["channels"] = self.channels
        return data

    @classmethod
    def from_json(cls, data: Any) -> "Network":
        """The network that plain data describes.

        data: {"function": one of FUNCTIONS, and by slim's names num_classes, depth_multiplier ...; "arg_scope":
        {...}; for "resnet_v1" "blocks": [{"scope", "args": [{depth, depth_bottleneck, stride}]}]; "channels"}.
        WeightsError names what is unknown, missing or out of bounds.
        """
        if not isinstance(data, Mapping) or data.get("function") not in FUNCTIONS:
            functions = ", ".join(FUNCTIONS)
            raise WeightsError(
                f'a network is described as {{"function": F, ...}} with F one of {functions}; got {_shown(data)}'
            )
        rest = dict(data)
        function, blocks, channels = rest.pop("function"), rest.pop("blocks", None), rest.pop("channels", 3)
        try:
            arg_scope = _arg_scope(rest.pop("arg_scope", {}))
            allowed = _parameters(getattr(nets, function))
            arguments = {name: _argument(name, value, allowed) for name, value in rest.items()}
            channels = _number("channels", channels, 1, whole)
            network = cls(function, arguments, arg_scope, _blocks(function, blocks), channels)
            network.variables()
        except (TypeError, ResnetRefError) as error:
            raise WeightsError(f"the network's description is wrong: {error}; it was {_shown(data)}") from None
        return network


def _shown(value: Any) -> str:
    """The value as an error message shows it."""
    try:
        return f"{value!r:.200}"
    except ValueError:  # Python prints no integer of thousands of digits
        return f"{type(value).__name__} too long to show"


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """slim's parameters and their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in _NOT_RECORDED}


def _argument(name: str, value: Any, allowed: Mapping[str, Any]) -> Any:
    if name not in allowed:
        raise ShapeError(f"unknown argument {name!r}, expected some of {', '.join(allowed)}")
    if name == "scope":
        if value is not None:
            _check_scope(value)
    elif isinstance(allowed[name], bool):
        _check_flag(name, value)
    elif value is not None or allowed[name] is not None:
        return _number(name, value, 0, real if name == "depth_multiplier" else whole)
    return value


def _check_scope(scope: Any) -> None:
    if not isinstance(scope, str) or not all(scope.split("/")) or not scope.isprintable():
        raise ShapeError(f"a scope must be text like resnet_v1_50 or a/b, got {scope!a:.100}")


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ShapeError(f"{name} must be true or false, got {value!r}")


def _number(name: str, value: Any, least: int, kind: Callable[[Any], Any]) -> Any:
    """The value as `kind` makes it Python's: whole or real."""
    found = kind(value)
    if found is None or not least <= found <= _WIDEST:
        expected = "a whole number" if kind is whole else "a number"
        raise ShapeError(f"{name} must be {expected} from {least} to {_WIDEST}, got {_shown(value)}")
    return found


def _arg_scope(changed: Any) -> ArgScope:
    if not isinstance(changed, Mapping):
        raise ShapeError(f'"arg_scope" must hold names and values, got {changed!r:.100}')
    defaults = asdict(ArgScope())
    for name, value in changed.items():
        if isinstance(defaults.get(name), bool):
            _check_flag(name, value)
        elif isinstance(defaults.get(name), float):
            _number(name, value, 0, real)
    return resnet_arg_scope(**changed)


def _blocks(function: str, blocks: Any) -> tuple[Block, ...]:
    if (function == "resnet_v1") != isinstance(blocks, list | tuple):
        raise ShapeError('"blocks" must be a list for function "resnet_v1", and absent for the others')
    made = []
    for block in blocks or ():
        if isinstance(block, Block):
            if block.unit_fn is not nets.bottleneck:
                raise ShapeError(
                    f"block {block.scope} has a unit_fn that is not bottleneck; a file records bottlenecks only"
                )
            block = {"scope": block.scope, "args": block.args}
        if not isinstance(block, Mapping) or set(block) != {"scope", "args"}:
            raise ShapeError(f'a block is {{"scope": text, "args": [units]}}, got {block!r:.100}')
        _check_scope(block["scope"])
        if not isinstance(block["args"], list | tuple):
            raise ShapeError(f"the args of block {block['scope']} must be a list of units, got {block['args']!r:.100}")
        made.append(Block(block["scope"], nets.bottleneck, [_unit(unit) for unit in block["args"]]))
    if sum(len(block.args) for block in made) > _MOST_UNITS:
        raise ShapeError(f"more than {_MOST_UNITS} units")
    return tuple(made)


def _unit(unit: Any) -> dict[str, Any]:
    if not isinstance(unit, Mapping):
        raise ShapeError(f"a unit is {{depth, depth_bottleneck, stride}}, got {unit!r:.100}")
    checked = dict(unit)
    for name, value in unit.items():
        if name == "use_bounded_activations":
            _check_flag(name, value)
        elif name not in ("depth", "depth_bottleneck", "stride"):
            raise ShapeError(f"a unit has depth, depth_bottleneck and stride, and no {name!r:.100}")
        else:
            checked[name] = _number(name, value, 1, whole)
    return checked
