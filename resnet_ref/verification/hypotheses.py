"""Why a network may depart from slim: each cause is a changed `Setup` that is run, and either restores slim's numbers
or does not.

`hypotheses` lists those about the network and its inputs; `weights` has those about single variables.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref import layers
from resnet_ref import resnet_v1 as nets
from resnet_ref.arg_scope import ArgScope
from resnet_ref.delegating import Delegating
from resnet_ref.handle import Handle, Interpreter
from resnet_ref.kernels import geometry
from resnet_ref.kernels.geometry import Window
from resnet_ref.network import Network
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.resnet_utils import Block, conv2d_same, subsample
from resnet_ref.verification.setup import Setup

EPSILONS = (1e-3, 1e-4, 1e-5, 1.001e-5, 1e-2, 1e-6, 0.0)


@dataclass(frozen=True)
class Hypothesis:
    """A cause: its short name, which belongs to a kind, what the report says of it, and the setup that it makes."""

    kind: str
    name: str
    says: str
    change: Callable[[Setup], Setup]


def hypotheses(setup: Setup, recorded: Network | None, preprocessing: Preprocessing | None) -> Iterator[Hypothesis]:
    """What may be wrong with the network or its inputs, the likelier first."""
    yield from _of_inputs((preprocessing or Preprocessing()).means)
    yield from _of_batch_norm(setup)
    yield from _of_padding()
    yield from _of_strides(setup.network)
    yield from differences_of_call(setup.network, recorded)
    yield from _of_activations(setup.network)
    yield from _of_classes()


def _of_inputs(means: Any) -> Iterator[Hypothesis]:
    m = np.asarray(means, np.float32)
    changes: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
        "BGR for RGB": ("slim's weights met the channels in the other order", lambda x: x[..., ::-1]),
        "means not subtracted": ("these weights belong to pixels of 0..255", lambda x: x + m),
        "means subtracted twice": ("the network subtracts means itself", lambda x: x - m),
        "pixels divided by 255": ("these weights belong to pixels of [0, 1]", lambda x: (x + m) / np.float32(255)),
        "inputs divided by 255": ("these weights belong to inputs 255 times smaller", lambda x: x / np.float32(255)),
        "inputs multiplied by 255": ("these weights belong to inputs 255 times larger", lambda x: x * np.float32(255)),
        "pixels scaled to [-1, 1]": (
            "these weights belong to Inception's preprocessing",
            lambda x: (x + m) / np.float32(127.5) - np.float32(1),
        ),
        "rows and columns swapped": ("slim's images were transposed", lambda x: x.swapaxes(1, 2)),
        "mirrored": ("slim's images were flipped left to right", lambda x: x[:, :, ::-1]),
    }
    for name, (says, change) in changes.items():
        yield Hypothesis("inputs", name, says, partial(_with_inputs, change=change))


def _with_inputs(setup: Setup, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Setup:
    return replace(setup, inputs=np.ascontiguousarray(change(setup.inputs), np.float32))


def _of_batch_norm(setup: Setup) -> Iterator[Hypothesis]:
    scope = setup.network.arg_scope
    if not scope.use_batch_norm:
        return
    training = not setup.is_training
    yield Hypothesis(
        "batch norm mode",
        f"batch norm in {'training' if training else 'inference'} mode",
        f"slim normalised by the {'batch' if training else 'moving averages'}: it ran with is_training={training}",
        lambda s: replace(s, is_training=not s.is_training),
    )
    for epsilon in EPSILONS:
        if epsilon != scope.batch_norm_epsilon:
            yield _epsilon(epsilon, scope)


def _epsilon(epsilon: float, own: ArgScope) -> Hypothesis:
    says = f"slim's batch norm used {epsilon:g}, this network says {own.batch_norm_epsilon:g}"
    return Hypothesis("epsilon", f"epsilon {epsilon:g}", says, lambda s: _with_scope(s, batch_norm_epsilon=epsilon))


def _with_scope(setup: Setup, **changes: Any) -> Setup:
    network = replace(setup.network, arg_scope=replace(setup.network.arg_scope, **changes))
    return replace(setup, network=network)


Repad = Callable[[int, Window], Window]  # from an axis' length and slim's own window


class _Padded(Delegating):
    """Pads convolutions and pools otherwise than slim."""

    def __init__(self, inner: Interpreter, convolution: Repad | None = None, pool: Repad | None = None) -> None:
        super().__init__(inner)
        self.convolution, self.pool = convolution or _own, pool or _own

    def conv2d(self, x: Any, scope: str, depth: int, rows: Window, cols: Window, **rest: Any) -> Any:
        """With its windows changed."""
        windows = self.convolution(x.shape[1], rows), self.convolution(x.shape[2], cols)
        return self.inner.conv2d(x, scope, depth, *windows, **rest)

    def max_pool2d(self, x: Any, scope: str, rows: Window, cols: Window) -> Any:
        """With its windows changed."""
        return self.inner.max_pool2d(x, scope, self.pool(x.shape[1], rows), self.pool(x.shape[2], cols))


def _own(n: int, own: Window) -> Window:
    return own


def _same_where_strided(n: int, own: Window) -> Window:
    return geometry.same(n, own.size, own.stride, own.rate) if own.stride > 1 else own


def _valid(n: int, own: Window) -> Window:
    return geometry.valid(own.size, own.stride, own.rate)


def _symmetric(n: int, own: Window) -> Window:
    return geometry.fixed(own.size, own.stride, own.rate)


def _of_padding() -> Iterator[Hypothesis]:
    cases: dict[str, tuple[str, dict[str, Repad]]] = {
        "pool1 padded symmetrically": (
            "slim's SAME pads an even size at its end only; Keras and PyTorch pad both ends",
            {"pool": _symmetric},
        ),
        "SAME padding in strided convolutions": (
            "slim's conv2d_same pads both sides alike whatever the size; plain SAME does not",
            {"convolution": _same_where_strided},
        ),
        "SAME padding in strided convolutions, and pool1 padded symmetrically": (
            "neither pads as slim does",
            {"convolution": _same_where_strided, "pool": _symmetric},
        ),
        "pool1 without padding": ("slim's pooling is VALID outside of resnet_arg_scope", {"pool": _valid}),
    }
    for name, (says, how) in cases.items():
        yield Hypothesis("padding", name, says, partial(_repadded, how=how))


def _repadded(setup: Setup, how: Mapping[str, Repad]) -> Setup:
    before = setup.alter or (lambda interpreter: interpreter)
    return replace(setup, alter=lambda interpreter: _Padded(before(interpreter), **how))


def _of_strides(network: Network) -> Iterator[Hypothesis]:
    """The stride in the first unit instead of the last, one block later, in conv1 instead of conv2, or several."""
    for place in ("", "the first unit of each block", "the first unit of the next block"):
        for convolution in ("", "the unit's first convolution"):
            name = " and ".join(part for part in (place, convolution) if part)
            if name:
                says = "slim strides in the 3x3 convolution of a block's last unit"
                change = partial(_restrided, first=bool(place), later="next" in place, early=bool(convolution))
                yield Hypothesis("stride", f"stride in {name}", says, change)


def _restrided(setup: Setup, first: bool, later: bool, early: bool) -> Setup:
    """The blocks' strides in their first units, one block later, and early in each unit, where asked for."""
    network = setup.network
    blocks, arguments = list(network.blocks), dict(network.arguments)
    if network.function != "resnet_v1":
        sizes = {k: arguments.pop(k) for k in ("min_base_depth", "depth_multiplier") if k in arguments}
        blocks = nets.variant_blocks(network.function, **sizes)
        arguments["scope"] = network.scope
    own = [[unit.get("stride", 1) for unit in block.args] for block in blocks]
    totals = [math.prod(strides) for strides in own]
    if later:
        totals = [1, *totals[:-1]]
    made = []
    for block, strides, total in zip(blocks, own, totals, strict=True):
        placed = [total] + [1] * (len(strides) - 1) if first else strides
        args = [{**unit, "stride": stride} for unit, stride in zip(block.args, placed, strict=True)]
        made.append(Block(block.scope, _strided_in_conv1 if early else block.unit_fn, args))
    return replace(setup, network=Network("resnet_v1", arguments, network.arg_scope, tuple(made), network.channels))


def _strided_in_conv1(
    inputs: Handle, depth: int, depth_bottleneck: int, stride: int, rate: int = 1, use_bounded_activations: bool = False
) -> Handle:
    """A bottleneck whose first 1x1 convolution has the stride, as Caffe's and Keras' have it."""
    net = inputs.within("bottleneck_v1")
    bound = "relu6" if use_bounded_activations else None
    if depth == inputs.shape[-1]:
        shortcut = subsample(net, stride, scope="shortcut")
    else:
        shortcut = layers.conv2d(net, depth, 1, stride, activation_fn=bound, scope="shortcut")
    residual = layers.conv2d(net, depth_bottleneck, 1, stride, scope="conv1")
    residual = conv2d_same(residual, depth_bottleneck, 3, 1, rate=rate, scope="conv2")
    residual = layers.conv2d(residual, depth, 1, activation_fn=None, scope="conv3")
    return layers.add_relu(shortcut, residual, bounded=use_bounded_activations).collect(net.scope).at(inputs)


def differences_of_call(network: Network, recorded: Network | None) -> Iterator[Hypothesis]:
    """Each argument in which the recorded call differs, and the whole of it."""
    if recorded is None:
        return
    ours, slims = network.to_json(), recorded.to_json()
    differing = [name for name in sorted({*ours, *slims} - {"scope"}) if ours.get(name) != slims.get(name)]
    for name in sorted(set(differing) - {"function", "blocks", "channels", "arg_scope"}):
        says = f"slim was called with {name}={slims.get(name)!r}, the weights file says {ours.get(name)!r}"
        change = partial(_with_argument, name=name, arguments=recorded.arguments)
        yield Hypothesis("call", f"{name}={slims.get(name)!r}", says, change)
    for name in ArgScope.__dataclass_fields__:
        own, other = getattr(network.arg_scope, name), getattr(recorded.arg_scope, name)
        if own == other or name == "weight_decay":
            continue
        if name == "batch_norm_epsilon":
            yield _epsilon(other, network.arg_scope)
            continue
        says = f"slim's arg scope has {name}={other!r}, the weights file says {own!r}"
        yield Hypothesis("call", f"{name}={other!r}", says, partial(_with_scope, **{name: other}))
    if len(differing) > 1 or {"function", "blocks"} & set(differing):
        says = f"the weights file's call differs in {', '.join(differing)}"
        whole = replace(recorded, arguments={**recorded.arguments, "scope": network.scope})
        yield Hypothesis("call", "slim's call as recorded", says, lambda s: replace(s, network=whole))


def _with_argument(setup: Setup, name: str, arguments: Mapping[str, Any]) -> Setup:
    kept = {key: value for key, value in setup.network.arguments.items() if key != name}
    changed = {**kept, **({name: arguments[name]} if name in arguments else {})}
    return replace(setup, network=replace(setup.network, arguments=changed))


def _of_activations(network: Network) -> Iterator[Hypothesis]:
    own = network.arg_scope
    for activation in ("relu", "relu6", None):
        if activation != own.activation_fn:
            says = f"slim's hidden layers ended in {activation}, here in {own.activation_fn}"
            change = partial(_with_scope, activation_fn=activation)
            yield Hypothesis("activation", f"activation {activation}", says, change)
    bounded = not own.use_bounded_activations
    says = f"slim's units ran with use_bounded_activations={bounded}"
    name = f"{'bounded' if bounded else 'unbounded'} activations"
    yield Hypothesis("activation", name, says, partial(_with_scope, use_bounded_activations=bounded))


def _of_classes() -> Iterator[Hypothesis]:
    for by, sign in ((1, "-"), (-1, "+")):
        says = f"slim's class i is class i {sign} 1 here: one of the two counts a background"
        yield Hypothesis("classes", "classes off by one", says, partial(_rolled, by=by))


def _rolled(setup: Setup, by: int) -> Setup:
    """The classes moved by one, the last becoming the first or the other way."""
    names = [f"{setup.network.scope}/logits/{leaf}" for leaf in ("weights", "biases")]
    rolled = {name: np.roll(setup.variables[name], by, axis=-1) for name in names if name in setup.variables}
    return replace(setup, variables={**setup.variables, **rolled})
