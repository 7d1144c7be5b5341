"""Why batch norm gives other numbers in Keras and PyTorch: claims of docs/why_not_equal.md, as in
test_why_not_equal_layers.py.
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
    Array,
    Variables,
    drawn,
    error,
    in_keras,
    in_torch,
    keras,
    pytorch,
    resnet50_of_keras,
    slims_variables_of_keras,
)

from resnet_ref import kernels, oracle, resnet_v1
from resnet_ref.kernels import Tier
from resnet_ref.kernels.geometry import fixed


@pytest.fixture(params=["definition", "cpu"])
def tier(request: pytest.FixtureRequest) -> Tier:
    return kernels.on(request.param)


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
