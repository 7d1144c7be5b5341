"""Atrous convolution: a convolution whose taps lie `rate` apart. Each identity that defines it, exactly.

All numbers are small and whole, so that float32 computes them without rounding.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiers import EMULATED, TIERS, tier_named

from resnet_ref import kernels, oracle, resnet_utils
from resnet_ref.errors import ShapeError
from resnet_ref.kernels import Tier
from resnet_ref.kernels.geometry import same, valid

Array = NDArray[Any]
RATES = [1, 2, 3, 4, 5]
SIZES = [(12, 9), (7, 10)]


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    return tier_named(request.param)


def whole(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


def atrous(tier: Tier, x: Array, w: Array, rate: int) -> Array:
    """SAME, as slim's bottleneck calls it."""
    return tier.conv2d(x, w, same(x.shape[1], w.shape[0], 1, rate), same(x.shape[2], w.shape[1], 1, rate))


def test_a_row_worked_out_by_hand(tier: Tier) -> None:
    """x = 1 .. 7, weights 1, 10, 100, rate 2: output o is x[o-2] + 10 x[o] + 100 x[o+2]."""
    x = np.arange(1, 8, dtype=np.float32).reshape(1, 1, 7, 1)
    w = np.array([1, 10, 100], np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(atrous(tier, x, w, 2).ravel(), [310, 420, 531, 642, 753, 64, 75])


def test_one_pixel_spreads_to_a_picture_of_the_taps(tier: Tier) -> None:
    """The picture is the kernel turned by half a turn, its taps `rate` apart."""
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 2] = 1
    w = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1, 1)
    picture = [[9, 0, 8, 0, 7], [0, 0, 0, 0, 0], [6, 0, 5, 0, 4], [0, 0, 0, 0, 0], [3, 0, 2, 0, 1]]
    np.testing.assert_array_equal(atrous(tier, x, w, 2)[0, :, :, 0], picture)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (5, 4), (1, 2)], ids=str)
@pytest.mark.parametrize("rate", RATES)
def test_it_is_convolution_with_zeros_between_the_taps(
    tier: Tier, rate: int, kernel: tuple[int, int], size: tuple[int, int]
) -> None:
    x, w = whole(2, *size, 3), whole(*kernel, 3, 4, seed=1)
    spread = np.zeros(((kernel[0] - 1) * rate + 1, (kernel[1] - 1) * rate + 1, 3, 4), np.float32)
    spread[::rate, ::rate] = w
    y = atrous(tier, x, w, rate)
    assert y.shape == (2, *size, 4)
    np.testing.assert_array_equal(y, atrous(tier, x, spread, 1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 1)], ids=str)
@pytest.mark.parametrize("rate", RATES)
def test_each_phase_of_the_output_is_plain_convolution_of_that_phase_of_the_input(
    tier: Tier, rate: int, kernel: tuple[int, int], size: tuple[int, int]
) -> None:
    """Space to batch, convolve, and back."""
    x, w = whole(2, *size, 3), whole(*kernel, 3, 4, seed=1)
    y = atrous(tier, x, w, rate)
    for top, left in np.ndindex(rate, rate):
        phase = x[:, top::rate, left::rate]
        np.testing.assert_array_equal(y[:, top::rate, left::rate], atrous(tier, phase, w, 1))


def test_a_rate_beyond_the_map_leaves_the_centre_tap(tier: Tier) -> None:
    x, w = whole(2, 4, 5, 3), whole(3, 3, 3, 2, seed=1)
    centre = tier.conv2d(x, w[1:2, 1:2], valid(1), valid(1))
    np.testing.assert_array_equal(atrous(tier, x, w, 5), centre)


def test_it_computes_the_outputs_that_a_strided_layer_before_it_left_out(tier: Tier) -> None:
    """Stride 2, then rate 1; or stride 1, then rate 2, of which every second output: slim's dense mode."""
    x, first, second = whole(1, 13, 11, 2), whole(3, 3, 2, 3, seed=1), whole(3, 3, 3, 2, seed=2)
    strided = tier.subsample(atrous(tier, x, first, 1), 2)
    dense = atrous(tier, atrous(tier, x, first, 1), second, 2)
    np.testing.assert_array_equal(tier.subsample(dense, 2), atrous(tier, strided, second, 1))
    assert dense.shape[1:3] == (13, 11)


@pytest.mark.parametrize("device", ["definition", "cpu"])
def test_conv2d_same_passes_the_rate_on(device: str) -> None:
    x, w = whole(1, 8, 7, 2), whole(3, 3, 2, 4, seed=1)
    scope = resnet_utils.resnet_arg_scope(use_batch_norm=False, activation_fn=None)
    weights = {"Conv/weights": w, "Conv/biases": np.zeros(4, np.float32)}
    y = resnet_utils.conv2d_same(x, 4, 3, stride=1, rate=3, weights=weights, device=device, arg_scope=scope)
    np.testing.assert_array_equal(y, atrous(kernels.on(device), x, w, 3))


def test_a_stride_together_with_a_rate_is_refused_as_in_slim() -> None:
    with pytest.raises(ShapeError, match="conv2: stride 2 > 1 is not supported together with rate 3 > 1"):
        resnet_utils.conv2d_same(whole(1, 8, 7, 2), 4, 3, stride=2, rate=3, scope="conv2", weights={})


@pytest.mark.oracle
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)], ids=str)
@pytest.mark.parametrize("rate", RATES)
def test_it_is_tensorflows_convolution_with_dilations(
    rate: int, kernel: tuple[int, int], size: tuple[int, int]
) -> None:
    x, w = whole(2, *size, 3), whole(*kernel, 3, 4, seed=1)
    want = oracle.run(lambda nets, x: nets.tf.nn.conv2d(x, w, 1, "SAME", dilations=rate), x, {}).net
    for device in ("definition", "cpu", EMULATED):
        np.testing.assert_array_equal(atrous(tier_named(device), x, w, rate), want, err_msg=device)


@pytest.mark.oracle
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rate", RATES)
def test_it_is_tensorflows_atrous_conv2d_and_slims_layer(rate: int, size: tuple[int, int]) -> None:
    x, w = whole(2, *size, 3), whole(3, 3, 3, 4, seed=1)

    def layer(nets: oracle.Nets, x: Any) -> Any:
        return nets.slim.conv2d(x, 4, [3, 3], rate=rate, activation_fn=None, biases_initializer=None, scope="Conv")

    wants = [
        oracle.run(lambda nets, x: nets.tf.nn.atrous_conv2d(x, w, rate, "SAME"), x, {}).net,
        oracle.run(layer, x, {"Conv/weights": w}).net,
    ]
    for device in ("definition", "cpu", EMULATED):
        for want in wants:
            np.testing.assert_array_equal(atrous(tier_named(device), x, w, rate), want, err_msg=device)
