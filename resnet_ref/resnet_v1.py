"""Residual networks in their original form (He et al. 2015, arXiv:1512.03385), as slim's nets/resnet_v1.py builds them.

    images [N, H, W, 3] -> conv1 7x7/2 -> pool1 3x3/2 -> block1 .. block4 -> mean over H, W -> logits -> softmax

The stride of a block is in its LAST unit. Each function takes an array (then pass `weights=`) or a `Handle` (then it
describes), with slim's parameters, order and defaults; see `resnet_ref.calling.describes` for the keyword-only
arguments that all of them add.
"""

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import Any

from resnet_ref import layers
from resnet_ref.calling import describes
from resnet_ref.errors import ShapeError
from resnet_ref.handle import Handle
from resnet_ref.kernels.scalars import real, whole
from resnet_ref.resnet_utils import (
    Block,
    collection,
    conv2d_same,
    resnet_arg_scope,
    stack_blocks_dense,
    subsample,
)

__all__ = [
    "DEFAULT_IMAGE_SIZE",
    "UNITS",
    "bottleneck",
    "resnet_arg_scope",
    "resnet_v1",
    "resnet_v1_50",
    "resnet_v1_101",
    "resnet_v1_152",
    "resnet_v1_200",
    "resnet_v1_block",
]

DEFAULT_IMAGE_SIZE = 224
# The architecture: units per block of each variant, and what the variants share.
UNITS = {
    "resnet_v1_50": (3, 4, 6, 3),
    "resnet_v1_101": (3, 4, 23, 3),
    "resnet_v1_152": (3, 8, 36, 3),
    "resnet_v1_200": (3, 24, 36, 3),
}
BASE_DEPTHS = (64, 128, 256, 512)
STRIDES = (2, 2, 2, 1)


@describes("use_bounded_activations")
def bottleneck(
    inputs: Handle,
    depth: int,
    depth_bottleneck: int,
    stride: int,
    rate: int = 1,
    outputs_collections: MutableMapping[str, Any] | None = None,
    scope: str | None = None,
    use_bounded_activations: bool = False,
) -> Handle:
    """The residual unit: relu(shortcut + conv1x1(conv3x3(conv1x1(inputs)))) (slim's bottleneck).

    inputs [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), depth]. The shortcut is the input, subsampled, where
    C == depth, else a 1x1 convolution. The stride and the atrous rate are the 3x3 convolution's. outputs_collections:
    a dict that receives every named output of the call. use_bounded_activations: relu6 in place of relu, and the
    residual clipped to [-6, 6].
    """
    net = inputs.within(scope or "bottleneck_v1")
    if outputs_collections is not None:
        net = replace(net, end_points=collection(outputs_collections))
    if depth == inputs.shape[-1]:
        shortcut = subsample(net, stride, scope="shortcut")
    else:
        bounded = "relu6" if use_bounded_activations else None
        shortcut = layers.conv2d(net, depth, 1, stride, activation_fn=bounded, scope="shortcut")
    residual = layers.conv2d(net, depth_bottleneck, 1, scope="conv1")
    residual = conv2d_same(residual, depth_bottleneck, 3, stride, rate=rate, scope="conv2")
    residual = layers.conv2d(residual, depth, 1, activation_fn=None, scope="conv3")
    output = layers.add_relu(shortcut, residual, bounded=use_bounded_activations)
    return output.collect(net.scope).at(inputs)


@describes()
def resnet_v1(
    inputs: Handle,
    blocks: Sequence[Block],
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    include_root_block: bool = True,
    spatial_squeeze: bool = True,
    store_non_strided_activations: bool = False,
    reuse: bool | None = None,
    scope: str | None = None,
) -> tuple[Handle, MutableMapping[str, Any]]:
    """A ResNet v1 of any blocks (slim's resnet_v1): (net, end_points).

    inputs [N, H, W, C]: images less their channels' means. net: logits [N, num_classes], or [N, h, w, num_classes]
    without spatial_squeeze; without num_classes (None or 0) the features [N, h, w, depth]. h = w = 1 under
    global_pool, else h = ceil(H / output_stride). end_points: slim's name -> array, in slim's order.

    is_training: True (slim's default!) normalises by the batch; False by the moving averages; None as the arg scope
    says. output_stride: None or the wanted ratio of input to output size; with the root block a multiple of 4. reuse:
    accepted; variables always come from `weights`, so nothing is ever created twice. ShapeError (a ValueError, as in
    slim) for an output_stride that cannot be, or a spatial_squeeze of more than one pixel.
    """
    net = inputs.within(scope or "resnet_v1")
    if is_training not in (True, False, None):
        raise ShapeError(f"is_training must be True, False or None, got {is_training!r}")
    if output_stride is not None and whole(output_stride) is None:
        raise ShapeError(f"output_stride must be None or a whole number, got {output_stride!r}")
    if is_training is not None:
        net = net.with_arg_scope(is_training=is_training)
    stride: float | None = output_stride
    if include_root_block:
        if output_stride is not None:
            if output_stride % 4 != 0:
                raise ShapeError(
                    f"The output_stride needs to be a multiple of 4. Got {output_stride}; "
                    "the root block alone has stride 4: use 4, 8, 16, 32 or None"
                )
            stride = output_stride / 4
        net = conv2d_same(net, 64, 7, stride=2, scope="conv1")
        net = layers.max_pool2d(net, 3, stride=2, scope="pool1")
    net = stack_blocks_dense(net, blocks, stride, store_non_strided_activations)
    if global_pool:
        net = layers.spatial_mean(net).collect("global_pool")
    if num_classes:
        net = layers.conv2d(net, num_classes, 1, activation_fn=None, normalizer_fn=None, scope="logits")
        if spatial_squeeze:
            net = layers.spatial_squeeze(net).collect(net.name("spatial_squeeze"))
        layers.softmax(net).collect("predictions")
    return net.at(inputs), net.end_points


def resnet_v1_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of bottlenecks of depth 4 * base_depth, the stride in the last (slim's resnet_v1_block)."""
    unit = {"depth": base_depth * 4, "depth_bottleneck": base_depth, "stride": 1}
    return Block(scope, bottleneck, [unit] * (num_units - 1) + [{**unit, "stride": stride}])


def variant_blocks(variant: str, min_base_depth: int = 8, depth_multiplier: float = 1) -> list[Block]:
    """The four blocks of a variant; each base depth d becomes max(int(d * depth_multiplier), min_base_depth)."""
    for name, number in (("min_base_depth", min_base_depth), ("depth_multiplier", depth_multiplier)):
        if real(number) is None or not 0 <= number < math.inf:
            raise ShapeError(f"{name} must be a number of at least 0, got {number!r}")
    depths = [max(int(depth * depth_multiplier), min_base_depth) for depth in BASE_DEPTHS]
    return [
        resnet_v1_block(f"block{number}", depth, units, stride)
        for number, depth, units, stride in zip(range(1, 5), depths, UNITS[variant], STRIDES, strict=True)
    ]


@describes()
def resnet_v1_50(
    inputs: Handle,
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    store_non_strided_activations: bool = False,
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_50",
) -> tuple[Handle, MutableMapping[str, Any]]:
    """ResNet-50: blocks of 3, 4, 6, 3 units, as deep as `variant_blocks` says; otherwise `resnet_v1`."""
    return _variant(variant="resnet_v1_50", **locals())


@describes()
def resnet_v1_101(
    inputs: Handle,
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    store_non_strided_activations: bool = False,
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_101",
) -> tuple[Handle, MutableMapping[str, Any]]:
    """ResNet-101: blocks of 3, 4, 23, 3 units, as deep as `variant_blocks` says; otherwise `resnet_v1`."""
    return _variant(variant="resnet_v1_101", **locals())


@describes()
def resnet_v1_152(
    inputs: Handle,
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    store_non_strided_activations: bool = False,
    spatial_squeeze: bool = True,
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_152",
) -> tuple[Handle, MutableMapping[str, Any]]:
    """ResNet-152: blocks of 3, 8, 36, 3 units, as deep as `variant_blocks` says; otherwise `resnet_v1`."""
    return _variant(variant="resnet_v1_152", **locals())


@describes()
def resnet_v1_200(
    inputs: Handle,
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    store_non_strided_activations: bool = False,
    spatial_squeeze: bool = True,
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_200",
) -> tuple[Handle, MutableMapping[str, Any]]:
    """ResNet-200: blocks of 3, 24, 36, 3 units, as deep as `variant_blocks` says; otherwise `resnet_v1`."""
    return _variant(variant="resnet_v1_200", **locals())


def _variant(
    inputs: Handle, min_base_depth: int, depth_multiplier: float, scope: str | None, variant: str, **arguments: Any
) -> tuple[Handle, MutableMapping[str, Any]]:
    blocks = variant_blocks(variant, min_base_depth, depth_multiplier)
    return resnet_v1(inputs, blocks, scope=scope, **arguments)


for _network in (resnet_v1, resnet_v1_50, resnet_v1_101, resnet_v1_152, resnet_v1_200):
    _network.default_image_size = DEFAULT_IMAGE_SIZE  # type: ignore[attr-defined]
