"""slim's own unit tests of resnet_v1, with their numbers, on every device.

The small network has base depths 1, 2, 4, 8, units 3, 3, 3, 2 and strides 2, 2, 2, 1. Inputs are x[b, i, j, c] = i + j.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from variables import random_variables

from resnet_ref import kernels, layers, resnet_utils, resnet_v1
from resnet_ref.calling import describes
from resnet_ref.handle import Handle
from resnet_ref.resnet_utils import resnet_arg_scope
from resnet_ref.resnet_v1 import resnet_v1_block
from resnet_ref.shapes import Shapes, Spec

Array = NDArray[Any]
Shape = tuple[int, ...]
INFERENCE = resnet_arg_scope(is_training=False)
SMALL = [
    resnet_v1_block(f"block{i + 1}", 2**i, units, stride)
    for i, (units, stride) in enumerate(zip((3, 3, 3, 2), (2, 2, 2, 1), strict=True))
]
PLAIN = [resnet_v1_block(f"block{i + 1}", 2**i, 2, stride) for i, stride in enumerate((2, 2, 2, 1))]
VARIANTS = ["resnet_v1_50", "resnet_v1_101", "resnet_v1_152", "resnet_v1_200"]

devices = pytest.mark.parametrize("device", ["definition", "cpu"])
# "shapes" computes nothing: what slim's tests of static shapes do.
shape_devices = pytest.mark.parametrize("device", ["shapes", "definition", "cpu"])


def ramp(batch: int, height: int, width: int, channels: int) -> Array:
    """x[b, i, j, c] = i + j."""
    picture = np.arange(height)[:, None] + np.arange(width)
    return np.tile(picture[None, :, :, None], (batch, 1, 1, channels)).astype(np.float32)


def computed(describe: Callable[..., Any], images: Array, device: str, **options: Any) -> Any:
    """describe(images) with random variables, which depend on their names and shapes alone."""
    shapes = Shapes()
    describe(Handle(shapes, Spec(images.shape)), **options)
    return describe(images, weights=random_variables(shapes.variables), device=device, **options)


def small(device: str, shape: Shape, num_classes: int | None = 10, **options: Any) -> tuple[Shape, Mapping[str, Shape]]:
    """Shapes of the small network's output and end points."""
    call = functools.partial(resnet_v1.resnet_v1, blocks=SMALL, num_classes=num_classes, scope="resnet", **options)
    if device == "shapes":
        net, end_points = call(Handle(Shapes(), Spec(shape)))
    else:
        net, end_points = computed(call, ramp(*shape), device)
    return net.shape, {name: value.shape for name, value in end_points.items()}


def block_shapes(end_points: Mapping[str, Shape], scope: str = "resnet") -> list[Shape]:
    return [end_points[f"{scope}/block{number}"] for number in (1, 2, 3, 4)]


@devices
@pytest.mark.parametrize(("size", "want"), [(3, [0, 2, 6, 8]), (4, [0, 2, 8, 10])])
def test_subsample_three_by_three_and_four_by_four(device: str, size: int, want: list[int]) -> None:
    x = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1)
    y = resnet_utils.subsample(x, 2, device=device)
    assert y.shape == (1, 2, 2, 1)
    assert y.ravel().tolist() == want


@describes()
def plain_conv2d(inputs: Handle, stride: int) -> Handle:
    return layers.conv2d(inputs, 1, [3, 3], stride=stride, scope="Conv")


def same_convolutions(device: str, size: int) -> tuple[Any, ...]:
    """Stride 1, that subsampled, conv2d_same with stride 2, plain SAME with stride 2; weights w[i, j] = i + j."""
    w = ramp(1, 3, 3, 1).reshape(3, 3, 1, 1)
    how = {"weights": {"Conv/weights": w, "Conv/biases": np.zeros(1, np.float32)}, "device": device}
    how["arg_scope"] = resnet_arg_scope(use_batch_norm=False)
    x = ramp(1, size, size, 1)
    dense = plain_conv2d(x, 1, **how)
    subsampled = resnet_utils.subsample(dense, 2, device=device)
    results = dense, subsampled, resnet_utils.conv2d_same(x, 1, 3, stride=2, **how), plain_conv2d(x, 2, **how)
    return tuple(y[0, :, :, 0].tolist() for y in results)


@devices
def test_conv2d_same_even(device: str) -> None:
    dense, subsampled, same, plain = same_convolutions(device, 4)
    assert dense == [[14, 28, 43, 26], [28, 48, 66, 37], [43, 66, 84, 46], [26, 37, 46, 22]]
    assert subsampled == [[14, 43], [43, 84]]
    assert same == [[14, 43], [43, 84]]
    assert plain == [[48, 37], [37, 22]]


@devices
def test_conv2d_same_odd(device: str) -> None:
    dense, *strided = same_convolutions(device, 5)
    assert dense == [
        [14, 28, 43, 58, 34],
        [28, 48, 66, 84, 46],
        [43, 66, 84, 102, 55],
        [58, 84, 102, 120, 64],
        [34, 46, 55, 64, 30],
    ]
    assert strided == [[[14, 43, 34], [43, 84, 55], [34, 55, 30]]] * 3


@describes()
def tiny(
    net: Handle,
    blocks: Any,
    end_points: Any = None,
    output_stride: int | None = None,
    store_non_strided_activations: bool = False,
) -> Handle:
    """The blocks alone, within a scope."""
    net = net.within("tiny")
    return resnet_utils.stack_blocks_dense(net, blocks, output_stride, store_non_strided_activations, end_points)


@devices
def test_end_points_v1(device: str) -> None:
    """Two blocks of two units have fourteen convolutions."""
    blocks = [resnet_v1_block("block1", 1, 2, 2), resnet_v1_block("block2", 2, 2, 1)]
    found: dict[str, Array] = {}
    y = computed(tiny, ramp(2, 32, 16, 3), device, blocks=blocks, end_points=found)
    convolutions = [
        f"tiny/block{block}/unit_{unit}/bottleneck_v1/{name}"
        for block in (1, 2)
        for unit in (1, 2)
        for name in ("shortcut", "conv1", "conv2", "conv3")[unit - 1 :]
    ]
    assert len(convolutions) == 14
    assert [name for name in found if "/bottleneck_v1/" in name] == convolutions
    others = [
        f"tiny/block{block}{end}" for block in (1, 2) for end in ("", *(f"/unit_{u}/bottleneck_v1" for u in (1, 2)))
    ]
    assert sorted(set(found) - set(convolutions)) == sorted(others)
    assert y.shape == (2, 16, 8, 8)


@describes()
def nondense(net: Handle, blocks: Any) -> Handle:
    """The units one after the other, each with its own stride and rate 1."""
    net = net.within("tiny")
    for block in blocks:
        for number, unit in enumerate(block.args, 1):
            inner = net.within(block.scope).within(f"unit_{number}")
            net = block.unit_fn(inner, rate=1, **unit).at(net)
    return net


@devices
@pytest.mark.parametrize("output_stride", [1, 2, 4, 8, None])
def test_atrous_values_bottleneck(device: str, output_stride: int | None) -> None:
    """Dense features, subsampled, are the strided network's, for an even height and an odd width."""
    images = ramp(1, 30, 31, 3)
    dense = computed(tiny, images, device, blocks=PLAIN, output_stride=output_stride, arg_scope=INFERENCE)
    want = computed(nondense, images, device, blocks=PLAIN, arg_scope=INFERENCE)
    got = resnet_utils.subsample(dense, 8 // output_stride if output_stride else 1, device=device)
    assert want.shape == (1, 4, 4, 32)
    assert dense.shape == (1, *(-(-n // (output_stride or 8)) for n in (30, 31)), 32)
    assert (want > 0.1).mean() > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@devices
@pytest.mark.parametrize("output_stride", [1, 2, 4, 8, None])
def test_striding_last_unit_vs_subsample_block_end(device: str, output_stride: int | None) -> None:
    """store_non_strided_activations changes no output, and block ends by the subsampling alone."""
    images = ramp(1, 30, 31, 3)
    ends: dict[str, Array] = {}
    stored_ends: dict[str, Array] = {}
    given = {"blocks": PLAIN, "output_stride": output_stride, "arg_scope": INFERENCE}
    plain = computed(tiny, images, device, end_points=ends, **given)
    stored = computed(tiny, images, device, end_points=stored_ends, store_non_strided_activations=True, **given)
    np.testing.assert_allclose(stored, plain, rtol=1e-4, atol=1e-4)
    for i in range(3):
        want = stored_ends[f"tiny/block{i + 1}"]
        if output_stride is None or 2**i < output_stride:
            want = resnet_utils.subsample(want, 2, device=device)
        np.testing.assert_allclose(ends[f"tiny/block{i + 1}"], want, rtol=1e-4, atol=1e-4)


@shape_devices
@pytest.mark.parametrize("is_training", [True, None])
def test_classification_end_points_also_with_the_mode_left_to_the_arg_scope(
    device: str, is_training: bool | None
) -> None:
    logits, end_points = small(device, (2, 224, 224, 3), is_training=is_training, spatial_squeeze=False)
    assert logits == end_points["resnet/logits"] == end_points["predictions"] == (2, 1, 1, 10)
    assert end_points["global_pool"] == (2, 1, 1, 32)


@devices
def test_without_a_mode_batch_norm_runs_as_the_arg_scope_says(device: str) -> None:
    def logits(**options: Any) -> Array:
        network = functools.partial(resnet_v1.resnet_v1, blocks=SMALL, num_classes=10, scope="resnet")
        return computed(network, ramp(2, 65, 65, 3), device, **options)[0]  # type: ignore[no-any-return]

    training, inference = logits(is_training=True), logits(is_training=False)
    np.testing.assert_array_equal(logits(is_training=None), training)
    np.testing.assert_array_equal(logits(), training)
    np.testing.assert_array_equal(logits(is_training=None, arg_scope=INFERENCE), inference)
    np.testing.assert_array_equal(logits(is_training=True, arg_scope=INFERENCE), training)
    assert abs(training - inference).max() > 0.1


@shape_devices
def test_endpoint_names(device: str) -> None:
    _, end_points = small(device, (2, 224, 224, 3))
    want = ["resnet/conv1", "global_pool", "resnet/logits", "resnet/spatial_squeeze", "predictions"]
    for block, units in enumerate((3, 3, 3, 2), 1):
        want += [f"resnet/block{block}", f"resnet/block{block}/unit_1/bottleneck_v1/shortcut"]
        for unit in range(1, units + 1):
            scope = f"resnet/block{block}/unit_{unit}/bottleneck_v1"
            want += [scope, *(f"{scope}/conv{number}" for number in (1, 2, 3))]
    assert sorted(end_points) == sorted(want)


@shape_devices
@pytest.mark.parametrize(
    ("size", "options", "sizes"),
    [
        (224, {}, [28, 14, 7, 7]),
        (321, {"global_pool": False, "spatial_squeeze": False}, [41, 21, 11, 11]),
        (128, {"include_root_block": False, "spatial_squeeze": False}, [64, 32, 16, 16]),
        (321, {"global_pool": False, "spatial_squeeze": False, "output_stride": 8}, [41, 41, 41, 41]),
    ],
    ids=["classification", "fully convolutional", "rootless", "atrous fully convolutional"],
)
def test_end_point_shapes(device: str, size: int, options: dict[str, Any], sizes: list[int]) -> None:
    _, end_points = small(device, (2, size, size, 3), **options)
    want = [(2, n, n, depth) for n, depth in zip(sizes, (4, 8, 16, 32), strict=True)]
    assert block_shapes(end_points) == want


@devices
@pytest.mark.parametrize("output_stride", [4, 8, 16, 32, None])
def test_atrous_fully_convolutional_values(device: str, output_stride: int | None) -> None:
    """The whole network's dense features, subsampled, are its strided ones."""
    images, options = ramp(2, 81, 81, 3), {"is_training": False, "global_pool": False}
    network = functools.partial(resnet_v1.resnet_v1, blocks=SMALL, scope="resnet", **options)
    dense, _ = computed(network, images, device, output_stride=output_stride)
    want, _ = computed(network, images, device)
    got = resnet_utils.subsample(dense, 32 // output_stride if output_stride else 1, device=device)
    assert want.shape == (2, 3, 3, 32)
    assert (want > 0.1).mean() > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@shape_devices
def test_unknown_batch_size(device: str) -> None:
    """Variables do not depend on the batch: any size of it will do."""
    for batch in (1, 2, 3):
        logits, _ = small(device, (batch, 65, 65, 3), spatial_squeeze=False)
        assert logits == (batch, 1, 1, 10)


@shape_devices
@pytest.mark.parametrize(("output_stride", "size"), [(None, 3), (8, 9)])
def test_fully_convolutional_unknown_height_and_width(device: str, output_stride: int | None, size: int) -> None:
    net, _ = small(device, (2, 65, 65, 3), None, global_pool=False, output_stride=output_stride)
    assert net == (2, size, size, 32)


def variant_blocks(variant: str, device: str, size: int, **options: Any) -> list[Shape]:
    """Shapes of a variant's block ends."""
    call, shape = functools.partial(getattr(resnet_v1, variant), num_classes=10, **options), (2, size, size, 3)
    if device == "shapes":
        _, end_points = call(Handle(Shapes(), Spec(shape)))
    else:
        _, end_points = computed(call, ramp(*shape), device)
    return block_shapes({name: value.shape for name, value in end_points.items()}, variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_depth_multiplier_scales_every_blocks_channels_and_nothing_else(variant: str) -> None:
    full = variant_blocks(variant, "shapes", 224, min_base_depth=1)
    quarter = variant_blocks(variant, "shapes", 224, min_base_depth=1, depth_multiplier=0.25)
    assert full == [(2, n, n, depth) for n, depth in ((28, 256), (14, 512), (7, 1024), (7, 2048))]
    assert quarter == [(*shape[:3], int(0.25 * shape[3])) for shape in full]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_min_base_depth_is_the_floor_of_every_blocks_channels(variant: str) -> None:
    shapes = variant_blocks(variant, "shapes", 224, min_base_depth=5, depth_multiplier=0)
    assert shapes == [(2, n, n, 20) for n in (28, 14, 7, 7)]


@devices
@pytest.mark.parametrize("variant", VARIANTS)
def test_narrow_variants_compute_the_shapes_described(device: str, variant: str) -> None:
    options = {"min_base_depth": 1, "depth_multiplier": 1 / 64}
    assert variant_blocks(variant, device, 33, **options) == variant_blocks(variant, "shapes", 33, **options)


def test_devices_are_those_of_this_version() -> None:
    """A device added to kernels.DEVICES belongs in this file too."""
    assert set(kernels.DEVICES) - {"gpu", "auto"} == {"definition", "cpu"}
