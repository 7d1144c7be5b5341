"""From the names and shapes in a checkpoint to the network they belong to."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resnet_ref.elsewhere.translation import NOT_USED
from resnet_ref.errors import CheckpointError
from resnet_ref.network import Network
from resnet_ref.resnet_v1 import BASE_DEPTHS, UNITS
from resnet_ref.weights.differences import differences, listed

Shapes = Mapping[str, tuple[int, ...]]
_UNIT = re.compile(r"^(?P<scope>.+)/block(?P<block>\d{1,4})/unit_(?P<unit>\d{1,4})/bottleneck_v1/conv1/weights$")
# What a checkpoint of slim holds besides the network: the step, the mean of the training images, and per variable the
# optimizer's slots and moving averages, whose names end in these.
_SLOTS = re.compile(
    r"/(Momentum(_\d+)?|ExponentialMovingAverage|RMSProp(_\d+)?|Adam(_\d+)?|Adagrad|Adadelta(_\d+)?|Ftrl(_\d+)?|"
    r"OptimizerSlots|\.OPTIMIZER_SLOT/.*)$"
)
_BESIDE = re.compile(r"(^|/)(global_step|mean_rgb|save_counter|beta[12]_power)$")


@dataclass(frozen=True)
class Recognised:
    """The network, and what else the checkpoint holds: name -> why it is left out."""

    network: Network
    skipped: Mapping[str, str]


def recognise(shapes: Shapes, overrides: Mapping[str, Any] | None = None, strict: bool = True) -> Recognised:
    """The ResNet v1 whose variables these are.

    shapes: every numeric variable's name and shape. overrides: entries of Network.from_json that are taken instead of
    what is recognised. strict: refuse variables that are not the network's, instead of leaving them out.
    CheckpointError says what is missing, unexpected or cannot be told from variables.
    """
    overrides = overrides or {}
    scope = overrides.get("scope")
    described = {"function", "blocks", "scope"} <= set(overrides)
    if not described:
        _require_scope(shapes, scope)
    skipped = {name: reason for name in shapes if (reason := _beside(name, scope))}
    rest = {name: shape for name, shape in shapes.items() if name not in skipped}
    call = {**({} if described else _call(rest, overrides)), **overrides}
    network = Network.from_json(call)
    if not strict:
        unused = rest.keys() - network.variables()
        skipped |= dict.fromkeys(sorted(unused), NOT_USED)
        rest = {name: shape for name, shape in rest.items() if name not in unused}
    _compare(network, rest)
    return Recognised(network, skipped)


def _beside(name: str, scope: str | None) -> str | None:
    if _SLOTS.search(name):
        return "moving average of a weight" if name.endswith("ExponentialMovingAverage") else "optimizer slot"
    if _BESIDE.search(name):
        return "not part of the network"
    if scope is not None and not name.startswith(f"{scope}/"):
        return "outside the scope that was asked for"
    return None


def _require_scope(shapes: Shapes, wanted: str | None) -> None:
    """CheckpointError unless there is a ResNet v1, under the scope that is wanted."""
    scopes = sorted({match["scope"] for name in shapes if (match := _UNIT.match(name))})
    if not scopes or (wanted is not None and wanted not in scopes):
        near = f"the scopes with such blocks are {', '.join(scopes)}" if scopes else "no variable has such a name"
        raise CheckpointError(
            "this is no ResNet v1 of slim: expected variables like SCOPE/block1/unit_1/bottleneck_v1/conv1/weights"
            + (f" with scope {wanted}" if wanted else "")
            + f"; {near}. It holds {', '.join(list(shapes)[:3]) or 'nothing'} ..."
        )


def _call(shapes: Shapes, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The call that has these variables, as far as variables tell."""
    matches = [match for name in shapes if (match := _UNIT.match(name))]
    scopes = sorted({match["scope"] for match in matches})
    if len(scopes) > 1:
        raise CheckpointError(f"this holds several networks, {', '.join(scopes)}; choose one with --scope")
    scope = scopes[0]
    units = _units_per_block(matches, scope)
    call: dict[str, Any] = {"scope": scope, **_variant(units, scope, overrides)}
    if not {"depth_multiplier", "min_base_depth", "blocks"} & set(overrides):
        call |= _width(scope, [_depth(shapes, f"{scope}/block{b}/unit_1/bottleneck_v1/conv1/weights") for b in units])
    if f"{scope}/logits/weights" in shapes:
        call["num_classes"] = _depth(shapes, f"{scope}/logits/weights")
    has_norm = any(name.startswith(f"{scope}/") and name.endswith("/BatchNorm/beta") for name in shapes)
    has_gamma = any(name.startswith(f"{scope}/") and name.endswith("/BatchNorm/gamma") for name in shapes)
    arg_scope = {} if has_norm else {"use_batch_norm": False}
    if has_norm and not has_gamma:
        arg_scope["batch_norm_scale"] = False
    return call | ({"arg_scope": arg_scope} if arg_scope else {})


def _depth(shapes: Shapes, name: str) -> int:
    """The number of outputs of a convolution."""
    if not shapes.get(name):
        got = f"it has shape {list(shapes[name])}" if name in shapes else "it is missing"
        raise CheckpointError(f"expected a convolution's weights [KH, KW, C, F] at {name}; {got}")
    return shapes[name][-1]


def _units_per_block(matches: list["re.Match[str]"], scope: str) -> dict[int, int]:
    """Block number -> the largest unit number in it."""
    last: dict[int, int] = {}
    for match in matches:
        if match["scope"] == scope:
            last[int(match["block"])] = max(last.get(int(match["block"]), 0), int(match["unit"]))
    return dict(sorted(last.items()))


def _variant(units: dict[int, int], scope: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    if "function" in overrides:
        return {}
    for function, expected in UNITS.items():
        if units == dict(enumerate(expected, 1)):
            return {"function": function}
    known = "; ".join(f"{function} {expected}" for function, expected in UNITS.items())
    found = ", ".join(f"{count} units in block{block}" for block, count in units.items())
    raise CheckpointError(
        f"{scope} has {found}; the known variants are {known}. Strides cannot be told from variables: describe the "
        "network with --network FILE.json"
    )


def _width(scope: str, depths: list[int]) -> dict[str, Any]:
    """depth_multiplier and min_base_depth that give these base depths; slim's defaults are left out."""
    for least in (8, min(depths)):
        free = [(depth, base) for depth, base in zip(depths, BASE_DEPTHS, strict=False) if depth != least]
        low = max((depth / base for depth, base in free), default=0)
        high = min(((depth + 1) / base for depth, base in free), default=least / BASE_DEPTHS[-1])
        multiplier = _shortest_decimal(low, high)
        if multiplier is not None and [max(int(d * multiplier), least) for d in BASE_DEPTHS] == depths:
            found = {} if multiplier == 1 else {"depth_multiplier": multiplier}
            return found | ({} if least == 8 else {"min_base_depth": least})
    raise CheckpointError(
        f"{scope}: the base depths {depths} are not max(int(d * depth_multiplier), min_base_depth) for d in "
        f"{list(BASE_DEPTHS)}; give --depth-multiplier and --min-base-depth, or describe the network with "
        "--network FILE.json"
    )


def _shortest_decimal(low: float, high: float) -> float | None:
    """The number in [low, high) with the fewest decimals: most likely what somebody typed."""
    for decimals in range(10):
        candidate = math.ceil(low * 10**decimals) / 10**decimals
        if low <= candidate < high:
            return candidate
    return None


def _compare(network: Network, shapes: Shapes) -> None:
    if problems := differences(shapes, network.variables()):
        raise CheckpointError(
            f"this looks like {network.to_json()}, but {listed(problems)}. "
            "If it is another network, say which with the options of `resnet-ref convert`"
        )
