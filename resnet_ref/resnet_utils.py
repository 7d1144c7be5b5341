"""What slim's residual networks share: Block, subsample, conv2d_same, stack_blocks_dense, resnet_arg_scope.

Function by function slim's nets/resnet_utils.py, with its names, parameters, order and defaults. Each takes an array
(then pass `weights=`) or a `Handle` (then it describes); see `resnet_ref.calling.describes` for the keyword-only
arguments that all of them add.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from resnet_ref import layers
from resnet_ref.arg_scope import ArgScope
from resnet_ref.calling import describes
from resnet_ref.errors import ShapeError
from resnet_ref.handle import Handle
from resnet_ref.kernels import geometry
from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.scalars import positive, real


class Block(NamedTuple):
    """A ResNet block: `unit_fn(net, rate=..., **args[i])` is unit i, in `scope`/unit_<i + 1>.

    args: one dict per unit; for `bottleneck` dict(depth=, depth_bottleneck=, stride=).
    """

    scope: str
    unit_fn: Callable[..., Handle]
    args: Sequence[Mapping[str, Any]]


@describes()
def subsample(inputs: Handle, factor: int, scope: str | None = None) -> Handle:
    """inputs[:, ::factor, ::factor, :]; the input itself for factor 1 (slim's subsample, a 1x1 max pool)."""
    step = positive("factor", factor)
    if step == 1:
        return inputs
    return inputs.holding(inputs.interpreter.subsample(inputs.value, inputs.name(scope or "MaxPool2D"), step))


@describes()
def conv2d_same(
    inputs: Handle, num_outputs: int, kernel_size: int, stride: int, rate: int = 1, scope: str | None = None
) -> Handle:
    """Convolution whose output with stride s is its output with stride 1, subsampled by s (slim's conv2d_same).

    inputs [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), num_outputs]. SAME padding for stride 1; else padding
    that does not depend on the input's size, which differs from SAME on even sizes. ShapeError for stride and rate
    both above 1.
    """
    padding = "SAME" if stride == 1 else "FIXED"
    return layers.conv2d(inputs, num_outputs, kernel_size, stride, padding, rate=rate, scope=scope or "Conv")


@describes()
def stack_blocks_dense(
    net: Handle,
    blocks: Sequence[Block],
    output_stride: float | None = None,
    store_non_strided_activations: bool = False,
    outputs_collections: MutableMapping[str, Any] | None = None,
) -> Handle:
    """The blocks one after the other, at most `output_stride` coarser than the input (slim's stack_blocks_dense).

    Once the stride so far equals output_stride, units run with stride 1, and the strides they gave up multiply the
    atrous rate of those that follow. output_stride: a product of the first units' strides, or None for all of them;
    ShapeError otherwise. store_non_strided_activations: the last unit of a block runs with stride 1, its output is
    the block's end point, and the subsampling comes after. outputs_collections: a dict that receives every named
    output of the call (slim: the name of a graph collection).
    """
    require_blocks(blocks)
    inner = net if outputs_collections is None else replace(net, end_points=collection(outputs_collections))
    current_stride = rate = 1
    for block in blocks:
        block_stride = 1
        scoped = inner.within(block.scope)
        for number, unit in enumerate(block.args, 1):
            if store_non_strided_activations and number == len(block.args):
                block_stride, unit = _stride_of(unit), {**unit, "stride": 1}
            unit_net = scoped.within(f"unit_{number}")
            if current_stride == output_stride:
                unit_net = block.unit_fn(unit_net, rate=rate, **{**unit, "stride": 1})
                rate *= _stride_of(unit)
            else:
                unit_net = block.unit_fn(unit_net, rate=1, **unit)
                current_stride *= _stride_of(unit)
                _require(output_stride is None or current_stride <= output_stride, output_stride, current_stride)
            if not isinstance(unit_net, Handle):
                raise ShapeError(f"{scoped.scope}: unit_fn must return the unit's output, got {unit_net!r:.100}")
            scoped = unit_net.at(scoped)
        inner = scoped.collect(scoped.scope).at(inner)
        if current_stride == output_stride:
            rate *= block_stride
        else:
            inner = subsample(inner, block_stride)
            current_stride *= block_stride
            _require(output_stride is None or current_stride <= output_stride, output_stride, current_stride)
    _require(output_stride in (None, current_stride), output_stride, current_stride)
    return inner.at(net)


def resnet_arg_scope(
    weight_decay: float = 0.0001,
    batch_norm_decay: float = 0.997,
    batch_norm_epsilon: float = 1e-5,
    batch_norm_scale: bool = True,
    activation_fn: str | None = "relu",
    use_batch_norm: bool = True,
    batch_norm_updates_collections: Any = None,
    *,
    is_training: bool = True,
    use_bounded_activations: bool = False,
    max_pool2d_padding: str = "SAME",
) -> ArgScope:
    """The defaults of a ResNet's layers (slim's resnet_arg_scope); pass the result as `arg_scope=`.

    weight_decay: regularises training; changes no output. batch_norm_decay: of the moving averages.
    batch_norm_epsilon: added to the variance. batch_norm_scale: whether there is a gamma. activation_fn: "relu",
    "relu6" or None (slim: a function); the last one of a unit is fixed. use_batch_norm: False gives every convolution
    biases instead. batch_norm_updates_collections: accepted and unused; `batch_norm_updates=` receives the updates.
    is_training: the batch-norm mode where a network is called with is_training=None. use_bounded_activations: that
    argument of `bottleneck` where its caller gives none. max_pool2d_padding: of pool1, as `layers.max_pool2d` takes it
    (slim: an arg scope of its own); "FIXED" is what Keras and PyTorch do.
    """
    bounds(activation_fn)
    geometry.padded(max_pool2d_padding, 1, 1)
    numbers = {"weight_decay": weight_decay, "batch_norm_epsilon": batch_norm_epsilon}
    for name, number in {**numbers, "batch_norm_decay": batch_norm_decay}.items():
        if real(number) is None or not number >= 0:
            raise ShapeError(f"{name} must be a number of at least 0, got {number!r}")
    if batch_norm_decay > 1:
        raise ShapeError(f"batch_norm_decay must be from 0 to 1, got {batch_norm_decay!r}")
    flags = {"batch_norm_scale": batch_norm_scale, "use_batch_norm": use_batch_norm, "is_training": is_training}
    for name, flag in {**flags, "use_bounded_activations": use_bounded_activations}.items():
        if not isinstance(flag, bool):
            raise ShapeError(f"{name} must be True or False, got {flag!r}")
    return ArgScope(
        weight_decay=float(weight_decay),
        batch_norm_decay=float(batch_norm_decay),
        batch_norm_epsilon=float(batch_norm_epsilon),
        batch_norm_scale=batch_norm_scale,
        activation_fn=activation_fn,
        use_batch_norm=use_batch_norm,
        is_training=is_training,
        use_bounded_activations=use_bounded_activations,
        max_pool2d_padding=max_pool2d_padding,
    )


def require_blocks(blocks: Any) -> None:
    """ShapeError unless these are Blocks, each with units."""
    if isinstance(blocks, Block) or not isinstance(blocks, Sequence):
        raise ShapeError(f"blocks must be a list of Blocks, got {type(blocks).__name__}")
    for block in blocks:
        if not isinstance(block, tuple) or len(block) != 3 or not callable(block[1]):
            raise ShapeError(f"blocks must be a list of Block(scope, unit_fn, args), got {block!r:.100} in it")


def _stride_of(unit: Mapping[str, Any]) -> int:
    return positive("a unit's stride", unit.get("stride", 1))


def _require(reached: bool, output_stride: float | None, current_stride: int) -> None:
    if not reached:
        raise ShapeError(
            "The target output_stride cannot be reached. "
            f"The blocks were asked for {output_stride:g}, a root block's 4 divided out; their units' strides multiply "
            f"to {current_stride}. Give a product of the first units' strides, or None"
        )


def collection(outputs_collections: Any) -> MutableMapping[str, Any]:
    """The dict that receives named outputs; ShapeError for anything else, such as slim's name of a collection."""
    if not isinstance(outputs_collections, MutableMapping):
        raise ShapeError(
            f"outputs_collections must be a dict that receives the outputs, got {outputs_collections!r}; "
            "slim names a graph collection here, but there is no graph"
        )
    return outputs_collections
