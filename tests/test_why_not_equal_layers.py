"""Why one layer gives other numbers in Caffe, Keras and PyTorch: claims of docs/why_not_equal.md.

Each runs against the framework that it is about, and shows that ours is slim's. Tests of TensorFlow and Keras are
marked `oracle`, those of PyTorch `peers`: PyTorch is not in the extra `test`. Caffe is not run: where the page speaks
of it, an option of PyTorch stands for it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from elsewhere import (
    CLASSES,
    EPS,
    KERAS_EPSILON,
    SLIM_EPSILON,
    SYMMETRIC,
    Array,
    Variables,
    drawn,
    error,
    in_keras,
    in_torch,
    keras,
    live,
    pytorch,
    resnet50_of_keras,
    slims_variables_of_keras,
    to_torch,
    whole,
)

from resnet_ref import kernels, oracle, resnet_v1
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


def normalised(is_training: bool, **scope: Any) -> oracle.Build:
    """slim's batch norm under resnet_arg_scope."""

    def build(nets: Any, x: Any) -> Any:
        with nets.slim.arg_scope(nets.resnet_arg_scope(**scope)):
            return nets.slim.batch_norm(x, is_training=is_training, scope="b")

    return build


def unit_norm(channels: int) -> Variables:
    """What leaves a channel as it is, but for epsilon."""
    values = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    return {f"b/{name}": np.full(channels, value, np.float32) for name, value in values.items()}


def epsilon_of(normalise: Callable[[Array], Array]) -> float:
    """1 with mean 0 and variance 0 becomes 1 / sqrt(epsilon)."""
    return float(normalise(np.ones((1, 1, 1, 1), np.float32)).item()) ** -2.0


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-5, abs=0)


@pytest.mark.oracle
def test_epsilon_is_1e5_in_slim_and_1001e8_in_keras_resnet50_and_1e3_in_its_layer(tier: Tier) -> None:
    """Measured: 1 with mean 0 and variance 0 becomes 316.2, 316.1 and 31.6."""
    zero = {**unit_norm(1), "b/moving_variance": np.zeros(1, np.float32)}
    slims = normalised(is_training=False)
    assert epsilon_of(lambda x: oracle.run(slims, x, zero).net) == near(SLIM_EPSILON)
    assert resnet_v1.resnet_arg_scope().batch_norm_epsilon == SLIM_EPSILON
    for name in ("keras", "tf_keras"):
        with oracle.quiet():
            network = keras(name).applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=2)
            layers = [layer for layer in network.layers if layer.name.endswith("_bn")]
            default = keras(name).layers.BatchNormalization(moving_variance_initializer="zeros")
            assert len(layers) == 53
            assert {layer.epsilon for layer in layers} == {KERAS_EPSILON}
            assert epsilon_of(lambda x, layer=default: np.asarray(layer(x))) == near(1e-3)
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    for epsilon in (SLIM_EPSILON, KERAS_EPSILON, 1e-3):
        assert epsilon_of(lambda x, e=epsilon: tier.batch_norm(x, one, none, none, none, e)) == near(epsilon)


@pytest.mark.peers
def test_epsilon_is_1e5_in_pytorch() -> None:
    norm = pytorch().nn.BatchNorm2d(1).eval()
    norm.running_var.zero_()
    assert epsilon_of(lambda x: in_torch(norm, x)) == near(1e-5)


def test_how_much_an_epsilon_matters_depends_on_the_variance(tier: Tier) -> None:
    """1e-3 in place of 1e-5 makes a channel of variance .01 smaller by 4.6 %, one of variance 1 by 0.05 %."""
    x, zero, one = np.ones((1, 1, 1, 2), np.float32), np.zeros(2, np.float32), np.ones(2, np.float32)
    variance = np.array([0.01, 1], np.float32)
    by = {e: tier.batch_norm(x, one, zero, zero, variance, e).ravel() for e in (1e-5, 1.001e-5, 1e-3)}
    np.testing.assert_allclose(1 - by[1e-3] / by[1e-5], [0.0461, 0.000495], rtol=0.01)
    assert (np.abs(1 - by[1.001e-5] / by[1e-5]) <= 5e-7 + EPS).all()


# 2 * 3 * 4 = 24 values a channel: the unbiased variance is 24/23 of the biased one.
BATCH, COUNT, DECAY = (2, 3, 4, 5), 24, 0.75


def updated(tier: Tier, x: Array, *, unbiased: bool) -> tuple[Array, Array]:
    """Our moving averages after one batch, from mean 0 and variance 1."""
    mean, variance = tier.batch_statistics(x)
    zero, one = np.zeros(5, np.float32), np.ones(5, np.float32)
    variance = tier.unbiased(variance, COUNT) if unbiased else variance
    return tier.moving_average(zero, mean, DECAY), tier.moving_average(one, variance, DECAY)


def check_moving_averages(
    tier: Tier, x: Array, y: Array, epsilon: float, mean: Array, variance: Array, *, unbiased: bool
) -> None:
    """They are the one kind of average, within rounding, and visibly not the other; y is normalised by the biased."""
    zero, one = np.zeros(5, np.float32), np.ones(5, np.float32)
    assert error(y, tier.batch_norm(x, one, zero, *tier.batch_statistics(x), epsilon)) < 1e-5
    want_mean, want = updated(tier, x, unbiased=unbiased)
    np.testing.assert_allclose(mean, want_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(variance, want, rtol=1e-6)
    assert (np.abs(variance - updated(tier, x, unbiased=not unbiased)[1]) > 1e-3).all()


@pytest.mark.oracle
def test_slim_and_keras_2_average_the_unbiased_variance_and_keras_3_the_biased_one(tier: Tier) -> None:
    """Of 24 values a channel the one is 24/23 of the other; the mean is the same. Keras' momentum is slim's decay."""
    x = drawn(*BATCH) * np.float32(2) + np.float32(1)
    build = normalised(is_training=True, batch_norm_decay=DECAY)
    slims = oracle.run(build, x, unit_norm(5), fetch_updates=True)
    moving = slims.updated["b/moving_mean"], slims.updated["b/moving_variance"]
    check_moving_averages(tier, x, slims.net, 1e-5, *moving, unbiased=True)
    for name, unbiased in (("tf_keras", True), ("keras", False)):
        with oracle.quiet():
            layer = keras(name).layers.BatchNormalization(momentum=DECAY)
            y = np.asarray(layer(x, training=True))
        moving = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        check_moving_averages(tier, x, y, 1e-3, *moving, unbiased=unbiased)


@pytest.mark.peers
def test_pytorch_averages_the_unbiased_variance_and_its_momentum_is_one_less_decay(tier: Tier) -> None:
    norm = pytorch().nn.BatchNorm2d(5, momentum=1 - DECAY)
    x = drawn(*BATCH) * np.float32(2) + np.float32(1)
    y = in_torch(norm, x)
    check_moving_averages(tier, x, y, 1e-5, norm.running_mean.numpy(), norm.running_var.numpy(), unbiased=True)


@pytest.mark.oracle
def test_the_defaults_of_decay_are_997_thousandths_in_slim_and_99_hundredths_in_keras() -> None:
    assert resnet_v1.resnet_arg_scope().batch_norm_decay == 0.997
    ones = np.ones((1, 1, 2, 1), np.float32)
    slims = oracle.run(normalised(is_training=True), ones, unit_norm(1), fetch_updates=True).updated
    np.testing.assert_allclose(slims["b/moving_mean"], [1 - 0.997], rtol=1e-5)
    for name in ("keras", "tf_keras"):
        assert keras(name).layers.BatchNormalization().momentum == 0.99
    model = resnet50_of_keras(64, 96)
    assert {layer.momentum for layer in model.layers if layer.name.endswith("_bn")} == {0.99}


@pytest.mark.oracle
def test_slims_function_trains_by_default_and_so_does_ours_while_keras_infers() -> None:
    """The same call without is_training: slim's conv1 is normalised by the batch; Keras' by the moving averages."""
    model, x = resnet50_of_keras(64, 96), drawn(2, 64, 96, 3)
    weights = slims_variables_of_keras(model)

    def build(nets: Any, inputs: Any) -> Any:
        with nets.slim.arg_scope(nets.resnet_arg_scope()):
            return nets.resnet_v1_50(inputs, CLASSES)

    slims = oracle.run(build, x, weights).end_points
    _, ours = resnet_v1.resnet_v1_50(x, CLASSES, weights=weights)
    conv1 = "resnet_v1_50/conv1"
    assert error(ours[conv1], slims[conv1]) < 1e-5
    part = keras().Model(model.input, model.get_layer("conv1_relu").output)
    with oracle.quiet():
        by_default = np.asarray(part(x))
    np.testing.assert_array_equal(by_default, in_keras(part, x))
    assert error(slims[conv1], by_default) > 0.1


@pytest.mark.peers
def test_a_pytorch_module_trains_until_eval_is_called() -> None:
    norm = pytorch().nn.BatchNorm2d(3)
    x = drawn(2, 3, 4, 3) + np.float32(5)
    assert norm.training
    np.testing.assert_allclose(in_torch(norm, x).mean((0, 1, 2)), np.zeros(3), atol=1e-5)
    norm = pytorch().nn.BatchNorm2d(3).eval()
    np.testing.assert_allclose(in_torch(norm, x), x, rtol=1e-5)


@pytest.mark.oracle
def test_a_bias_before_batch_norm_is_the_moving_mean_less_that_bias(tier: Tier) -> None:
    """(conv + bias) - mean = conv - (mean - bias): checked on Keras' conv1 and its batch norm."""
    model, x = resnet50_of_keras(65, 97), drawn(1, 65, 97, 3)
    want = in_keras(keras().Model(model.input, model.get_layer("conv1_bn").output), x)
    weights, bias = model.get_layer("conv1_conv").get_weights()
    gamma, beta, mean, variance = model.get_layer("conv1_bn").get_weights()
    y = tier.conv2d(x, weights, fixed(7, 2), fixed(7, 2))
    assert error(tier.batch_norm(y, gamma, beta, mean - bias, variance, KERAS_EPSILON), want) < 1e-5
    assert error(tier.batch_norm(y, gamma, beta, mean, variance, KERAS_EPSILON), want) > 0.01


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
