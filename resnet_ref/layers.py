"""The layers that slim's ResNet v1 is made of, over handles: slim.conv2d, slim.max_pool2d and their like.

For a unit function of your own in a `Block`: they have slim's names, arguments and defaults. Activations are names
instead of functions, and what comes after `padding` is given by name.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_ref.arg_scope import BatchNorm
from resnet_ref.errors import ShapeError
from resnet_ref.handle import Handle
from resnet_ref.kernels import geometry
from resnet_ref.kernels.scalars import positive, whole

FROM_ARG_SCOPE: Any = "as the arg scope says"
Size = int | Sequence[int]


def conv2d(
    inputs: Handle,
    num_outputs: int,
    kernel_size: Size,
    stride: Size = 1,
    padding: str = "SAME",
    *,
    rate: int = 1,
    activation_fn: str | None = FROM_ARG_SCOPE,
    normalizer_fn: BatchNorm | None = FROM_ARG_SCOPE,
    scope: str = "Conv",
) -> Handle:
    """slim.conv2d: convolution, then batch norm or biases, then the activation; recorded as an end point.

    inputs [N, H, W, C] -> [N, OH, OW, num_outputs]. kernel_size, stride: one number, or [height, width]. padding:
    "SAME", "VALID", or "FIXED" (conv2d_same's explicit padding). activation_fn: "relu", "relu6" or None.
    normalizer_fn: None gives the convolution biases instead of batch norm. Variables: `weights` [KH, KW, C,
    num_outputs], and `BatchNorm/{gamma,beta,moving_mean,moving_variance}` or `biases`. ShapeError for a rank other than
    4, sizes below 1, or both stride and rate above 1.
    """
    inputs = _described(inputs)
    if len(inputs.shape) != 4:
        raise ShapeError(f"{inputs.name(scope)}: a convolution needs [N, H, W, C], got shape {list(inputs.shape)}")
    depth = positive(f"{inputs.name(scope)}: num_outputs", num_outputs)
    sizes, strides = _pair("kernel_size", kernel_size), _pair("stride", stride)
    if max(strides) > 1 and rate > 1:
        raise ShapeError(
            f"{inputs.name(scope)}: stride {stride} > 1 is not supported together with rate {rate} > 1, as in slim; "
            "set one of them to 1"
        )
    rows, cols = (geometry.padded(padding, *axis, rate) for axis in zip(inputs.shape[1:3], sizes, strides, strict=True))
    scoped = inputs.within(scope)
    value = inputs.interpreter.conv2d(
        inputs.value,
        scoped.scope,
        depth,
        rows,
        cols,
        normalizer=inputs.arg_scope.batch_norm if normalizer_fn is FROM_ARG_SCOPE else normalizer_fn,
        activation=inputs.arg_scope.activation_fn if activation_fn is FROM_ARG_SCOPE else activation_fn,
    )
    return scoped.holding(value).collect(scoped.scope).at(inputs)


def max_pool2d(
    inputs: Handle, kernel_size: Size, stride: Size = 2, padding: str = FROM_ARG_SCOPE, *, scope: str = "MaxPool2D"
) -> Handle:
    """slim.max_pool2d under resnet_arg_scope: [N, H, W, C] -> [N, OH, OW, C]; sizes and padding as in conv2d."""
    inputs = _described(inputs)
    sizes, strides = _pair("kernel_size", kernel_size), _pair("stride", stride)
    if padding is FROM_ARG_SCOPE:
        padding = inputs.arg_scope.max_pool2d_padding
    rows, cols = (geometry.padded(padding, *axis) for axis in zip(inputs.shape[1:3], sizes, strides, strict=True))
    return inputs.holding(inputs.interpreter.max_pool2d(inputs.value, inputs.name(scope), rows, cols))


def spatial_mean(inputs: Handle) -> Handle:
    """tf.reduce_mean over axes 1 and 2, kept: [N, H, W, C] -> [N, 1, 1, C]."""
    return inputs.holding(inputs.interpreter.spatial_mean(inputs.value))


def add_relu(shortcut: Handle, residual: Handle, *, bounded: bool = False) -> Handle:
    """relu(shortcut + residual), or with `bounded` relu6(shortcut + clip(residual, -6, 6)); two equal shapes."""
    if shortcut.shape != residual.shape:
        raise ShapeError(
            f"{shortcut.scope}: shortcut {list(shortcut.shape)} and residual {list(residual.shape)} differ in shape; "
            "a unit's depth, stride and rate must lead both to the same one"
        )
    add = shortcut.interpreter.add_relu
    return shortcut.holding(add(shortcut.value, residual.value, shortcut.scope, bounded=bounded))


def spatial_squeeze(inputs: Handle) -> Handle:
    """tf.squeeze(inputs, [1, 2]): [N, 1, 1, C] -> [N, C]; ShapeError where height or width is not 1."""
    if inputs.shape[1:3] != (1, 1):
        raise ShapeError(
            f"{inputs.scope}/SpatialSqueeze: can not squeeze axes 1 and 2 of {list(inputs.shape)}, "
            "expected sizes of 1; pass spatial_squeeze=False for a map of logits, or keep global_pool=True"
        )
    return inputs.holding(inputs.interpreter.squeeze(inputs.value))


def softmax(inputs: Handle) -> Handle:
    """slim.softmax: over the last axis."""
    return inputs.holding(inputs.interpreter.softmax(inputs.value))


def _described(inputs: Any) -> Handle:
    if not isinstance(inputs, Handle):
        raise ShapeError(
            f"layers take the net that a unit function is called with, got {type(inputs).__name__}; "
            "put the unit function into a Block, and give the array to resnet_v1 or stack_blocks_dense"
        )
    return inputs


def _pair(name: str, size: Size) -> tuple[int, int]:
    """(height, width) of one number or two."""
    one = whole(size)
    pair = [one, one] if one is not None else list(map(whole, size)) if isinstance(size, Sequence | np.ndarray) else []
    found = [n for n in pair if n is not None and n >= 1]
    if len(pair) != 2 or len(found) != 2:
        raise ShapeError(f"{name} must be a whole number of at least 1, or two of them, got {size!r}")
    return found[0], found[1]
