"""Why one layer gives other numbers in Caffe, Keras and PyTorch: claims of docs/why_not_equal.md.

Each runs against the framework that it is about, and shows that ours is slim's. Tests of TensorFlow and Keras are
marked `oracle`, those of PyTorch `peers`: PyTorch is not in the extra `test`. Caffe is not run: where the page speaks
of it, an option of PyTorch stands for it. Batch norm has a file of its own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from elsewhere import (
    EPS,
    SYMMETRIC,
    Array,
    drawn,
    error,
    in_keras,
    in_torch,
    keras,
    live,
    pytorch,
    resnet50_of_keras,
    to_torch,
    whole,
)

from resnet_ref import kernels, oracle
from resnet_ref.kernels import Tier
from resnet_ref.kernels.geometry import Window, fixed, same


@pytest.fixture(params=["definition", "cpu"])
def tier(request: pytest.FixtureRequest) -> Tier:
    return kernels.on(request.param)


def first_read(convolve: Callable[[Array, Array], Array], size: int, n: int) -> int:
    """Where the first window starts: the tap that meets input 0 says its own row, all else is zero."""
    x, w = np.zeros((1, n, n, 1), np.float32), np.zeros((size, size, 1, 1), np.float32)
    x[0, 0, 0] = 1
    w[:, :, 0, 0] = np.arange(size)[:, None]
    return -int(convolve(x, w)[0, 0, 0, 0])


@pytest.mark.oracle
@pytest.mark.parametrize(("size", "n", "by_same", "by_slim"), [(7, 224, -2, -3), (7, 225, -3, -3), (3, 56, 0, -1)])
def test_slims_strided_convolutions_start_before_those_of_same_on_even_sizes(
    tier: Tier, size: int, n: int, by_same: int, by_slim: int
) -> None:
    """A 7x7/2 on 224 starts at -2 under SAME and at -3 in slim; a 3x3/2 on 56 at 0 and -1; on 225 both at -3."""

    def tensorflow(x: Array, w: Array) -> Array:
        return live(lambda nets, x: nets.tf.nn.conv2d(x, w, 2, "SAME"), x)

    def slim(x: Array, w: Array) -> Array:
        def build(nets: Any, x: Any) -> Any:
            constant = nets.tf.constant_initializer(w)
            with nets.slim.arg_scope([nets.slim.conv2d], activation_fn=None, weights_initializer=constant):
                return nets.conv2d_same(x, 1, size, stride=2, scope="c")

        return oracle.run(build, x, {"c/weights": w, "c/biases": np.zeros(1)}).net

    windows = {by_same: same(n, size, 2), by_slim: fixed(size, 2)}
    assert [first_read(tensorflow, size, n), first_read(slim, size, n)] == [by_same, by_slim]
    for start, window in windows.items():
        assert window.reads(0)[0] == start
        assert first_read(lambda x, w, window=window: tier.conv2d(x, w, window, window), size, n) == start
    x, w = whole(2, n, n, 3), whole(size, size, 3, 1)
    np.testing.assert_array_equal(tier.conv2d(x, w, same(n, size, 2), same(n, size, 2)), tensorflow(x, w))
    np.testing.assert_array_equal(tier.conv2d(x, w, fixed(size, 2), fixed(size, 2)), slim(x, w))
    assert np.array_equal(tensorflow(x, w), slim(x, w)) is (by_same == by_slim)


@pytest.mark.oracle
def test_keras_pads_conv1_as_slim_does(tier: Tier) -> None:
    """ZeroPadding2D of 3 and 3, then VALID: whatever the size."""
    for height, width in ((64, 96), (65, 97)):
        model = resnet50_of_keras(height, width)
        assert model.get_layer("conv1_pad").padding == ((3, 3), (3, 3))
        assert model.get_layer("conv1_conv").padding == "valid"
        x = drawn(2, height, width, 3)
        conv1 = keras().Model(model.input, model.get_layer("conv1_conv").output)
        weights, biases = model.get_layer("conv1_conv").get_weights()
        ours = tier.conv2d(x, weights, fixed(7, 2), fixed(7, 2), bias=biases)
        assert error(ours, in_keras(conv1, x)) < 8 * EPS


def pool1_of_keras(x: Array) -> Array:
    layers = keras().layers
    return in_keras(keras().Sequential([layers.ZeroPadding2D(1), layers.MaxPooling2D(3, strides=2)]), x)


def pool1_of_slim(x: Array) -> Array:
    return live(lambda nets, x: nets.slim.max_pool2d(x, [3, 3], stride=2, padding="SAME"), x)


@pytest.mark.oracle
def test_keras_pools_from_minus_1_and_slim_from_0_on_even_sizes(tier: Tier) -> None:
    """After a ReLU, on 112 seven of ten outputs differ; on 113 none does. 56 outputs, and 57."""
    model = resnet50_of_keras(64, 96)
    assert model.get_layer("pool1_pad").padding == ((1, 1), (1, 1))
    pool = model.get_layer("pool1_pool")
    assert (pool.pool_size, pool.strides, pool.padding) == ((3, 3), (2, 2), "valid")
    for n, outputs, differing in ((112, 56, (0.65, 0.75)), (113, 57, (0, 0))):
        x = np.maximum(drawn(1, n, n, 5), 0)
        slims, kerass = pool1_of_slim(x), pool1_of_keras(x)
        assert slims.shape == kerass.shape == (1, outputs, outputs, 5)
        assert differing[0] <= np.mean(slims != kerass) <= differing[1]
        assert same(n, 3, 2).reads(0)[0] == (0 if n == 112 else -1)
        np.testing.assert_array_equal(tier.max_pool2d(x, same(n, 3, 2), same(n, 3, 2)), slims)
        np.testing.assert_array_equal(tier.max_pool2d(x, SYMMETRIC, SYMMETRIC), kerass)


@pytest.mark.oracle
def test_keras_pads_pool1_with_zeros_which_matter_among_negative_values_alone(tier: Tier) -> None:
    """Where all values are negative its first row and column come out as 0; slim's padding never wins."""
    x = -1 - np.abs(drawn(1, 9, 8, 3))
    kerass = pool1_of_keras(x)
    assert (kerass[:, 0] == 0).all()
    assert (kerass[:, :, 0] == 0).all()
    assert pool1_of_slim(x).max() <= -1
    ours = tier.max_pool2d(x, SYMMETRIC, SYMMETRIC)
    inside = kerass != 0
    assert (ours <= -1).all()
    np.testing.assert_array_equal(ours[inside], kerass[inside])
    np.testing.assert_array_equal(np.maximum(ours, 0), np.maximum(kerass, 0))


@pytest.mark.peers
@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("size", [3, 7])
def test_pytorchs_symmetric_padding_is_slims_in_convolutions(tier: Tier, size: int, n: int) -> None:
    """padding=1 of a 3x3/2 and padding=3 of a 7x7/2 are slim's conv2d_same; SAME differs on even sizes."""
    torch = pytorch()
    x, w = whole(2, n, n + 2, 3), whole(size, size, 3, 5)
    pad = size // 2
    want = in_torch(lambda x: torch.nn.functional.conv2d(x, to_torch(w), stride=2, padding=pad), x)
    np.testing.assert_array_equal(tier.conv2d(x, w, fixed(size, 2), fixed(size, 2)), want)
    by_same = tier.conv2d(x, w, same(n, size, 2), same(n + 2, size, 2))
    assert np.array_equal(by_same, want) is (n == 9)


@pytest.mark.peers
@pytest.mark.parametrize(("height", "width"), [(8, 10), (8, 11), (9, 11)])
def test_pytorch_pools_from_minus_1_and_pads_with_minus_infinity(tier: Tier, height: int, width: int) -> None:
    """MaxPool2d(3, 2, padding=1) is ours with a Window of 1 before and 1 after, on negative values too; slim's pool
    is the same where both sizes are odd."""
    x = -1 - np.abs(drawn(2, height, width, 5))
    want = in_torch(pytorch().nn.MaxPool2d(3, 2, padding=1), x)
    assert want.max() <= -1
    np.testing.assert_array_equal(tier.max_pool2d(x, SYMMETRIC, SYMMETRIC), want)
    slims = tier.max_pool2d(x, same(height, 3, 2), same(width, 3, 2))
    assert slims.shape == want.shape
    assert np.array_equal(slims, want) is (height % 2 == width % 2 == 1)


@pytest.mark.peers
def test_a_pool_that_rounds_up_is_slims_on_even_sizes_and_one_output_less_on_odd_ones(tier: Tier) -> None:
    """Caffe's pool1 (3x3/2, no padding, rounded up) starts at 0: 112 -> 56 as in slim, 113 -> 56 where slim has 57."""
    caffes = pytorch().nn.MaxPool2d(3, 2, ceil_mode=True)
    x = drawn(1, 112, 113, 5)
    want = in_torch(caffes, x)
    assert want.shape == (1, 56, 56, 5)
    ours = tier.max_pool2d(x, same(112, 3, 2), Window(3, 2))
    assert Window(3, 2).reads(0)[0] == same(112, 3, 2).reads(0)[0] == 0
    np.testing.assert_array_equal(ours, want)
    slims = tier.max_pool2d(x, same(112, 3, 2), same(113, 3, 2))
    assert slims.shape == (1, 56, 57, 5)
    floor = in_torch(pytorch().nn.MaxPool2d(3, 2), x)
    assert floor.shape == (1, 55, 56, 5)


@pytest.mark.peers
def test_pytorchs_weights_are_ours_after_transposing_2_3_1_0(tier: Tier) -> None:
    """[F, C, KH, KW] -> [KH, KW, C, F]; a Linear's [out, in] -> [1, 1, in, out]. No flip: both correlate."""
    torch = pytorch()
    x, theirs = whole(2, 7, 10, 3), whole(5, 3, 4, 3)
    want = in_torch(lambda x: torch.nn.functional.conv2d(x, torch.from_numpy(theirs)), x)
    ours = np.ascontiguousarray(theirs.transpose(2, 3, 1, 0))
    assert ours.shape == (4, 3, 3, 5)
    np.testing.assert_array_equal(tier.conv2d(x, ours, Window(4), Window(3)), want)
    linear, features = whole(5, 3), whole(2, 3)
    want = torch.nn.functional.linear(torch.from_numpy(features), torch.from_numpy(linear)).numpy()
    got = tier.conv2d(features[:, None, None], np.ascontiguousarray(linear.T)[None, None], Window(1), Window(1))
    np.testing.assert_array_equal(got[:, 0, 0], want)


@pytest.mark.oracle
def test_keras_weights_are_laid_out_as_ours(tier: Tier) -> None:
    """[KH, KW, C, F], and a Dense's [in, out]."""
    x, weights = whole(2, 7, 10, 3), whole(4, 3, 3, 5)
    layer = keras().layers.Conv2D(5, (4, 3), use_bias=False)
    layer.build(x.shape)
    layer.set_weights([weights])
    np.testing.assert_array_equal(tier.conv2d(x, weights, Window(4), Window(3)), in_keras(just(layer), x))
    np.testing.assert_array_equal(live(lambda nets, x: nets.tf.nn.conv2d(x, weights, 1, "VALID"), x), layer(x))
    dense, features = keras().layers.Dense(5, use_bias=False), whole(2, 3)
    dense.build(features.shape)
    dense.set_weights([weights[0, 0]])
    got = tier.conv2d(features[:, None, None], weights[:1, :1], Window(1), Window(1))
    np.testing.assert_array_equal(got[:, 0, 0], np.asarray(dense(features)))


def just(layer: Any) -> Any:
    return lambda x, training: layer(x)


@pytest.mark.peers
def test_a_flattened_map_has_another_order_in_pytorch() -> None:
    """Row y, column x, channel c of [H, W, C] is number (y * W + x) * C + c here, (c * H + y) * W + x there."""
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    theirs = pytorch().from_numpy(x.transpose(0, 3, 1, 2).copy()).flatten(1).numpy()
    ours = x.reshape(2, -1)
    y, column, channel = 1, 2, 3
    assert ours[1, (y * 4 + column) * 5 + channel] == theirs[1, (channel * 3 + y) * 4 + column] == x[1, 1, 2, 3]
    assert not np.array_equal(ours, theirs)
    pooled = kernels.on("definition").spatial_mean(x)
    np.testing.assert_array_equal(pooled.reshape(2, -1), in_torch(mean_of_torch, x).reshape(2, -1))


def mean_of_torch(x: Any) -> Any:
    return x.mean((2, 3), keepdim=True)


def test_a_square_1x1_convolution_taken_untransposed_passes_every_check_of_shape() -> None:
    """In resnet_v1_50 that is block1/unit_1/conv1, 64 channels to 64: numbers differ, and nothing else tells."""
    weights, x = drawn(1, 1, 64, 64), drawn(1, 3, 4, 64)
    tier = kernels.on("definition")
    swapped = weights.transpose(0, 1, 3, 2)
    assert swapped.shape == weights.shape
    right, wrong = (tier.conv2d(x, w, Window(1), Window(1)) for w in (weights, swapped))
    assert error(wrong, right) > 0.5
