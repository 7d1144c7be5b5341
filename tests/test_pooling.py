"""Max pooling, subsampling and the spatial mean: by hand, against plain loops, and against live TensorFlow."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiers import TIERS, tier_named

from resnet_ref import kernels, oracle
from resnet_ref.errors import DeviceError, ShapeError
from resnet_ref.kernels import Tier
from resnet_ref.kernels.geometry import Window, fixed, same, valid

Array = NDArray[Any]
EPS = float(np.finfo(np.float32).eps)
LOWEST = float(np.finfo(np.float32).min)
WINDOWS = {
    "pool1": (same(7, 3, 2), same(6, 3, 2)),
    "3x3/2 fixed": (fixed(3, 2), fixed(3, 2)),
    "2x4 valid": (valid(2), valid(4)),
    "1x1/3": (valid(1, 3), valid(1, 3)),
    "3x2, rates 2, 3": (same(7, 3, 1, 2), same(6, 2, 2, 3)),
    "pads 0, 3 and 4, 1": (Window(3, before=0, after=3), Window(2, 3, before=4, after=1)),
}


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    return tier_named(request.param)


def images(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pooled_by_loops(x: Array, rows: Window, cols: Window) -> Array:
    """The largest value inside the input under each window; the lowest float where there is none."""
    n, height, width, channels = x.shape
    tops, lefts = (
        range(-axis.before, size + axis.after - (axis.size - 1) * axis.rate, axis.stride)
        for axis, size in ((rows, height), (cols, width))
    )
    y = np.full((n, len(tops), len(lefts), channels), LOWEST, np.float32)
    for oy, top in enumerate(tops):
        for ox, left in enumerate(lefts):
            for ky, kx in np.ndindex(rows.size, cols.size):
                i, j = top + ky * rows.rate, left + kx * cols.rate
                if 0 <= i < height and 0 <= j < width:
                    y[:, oy, ox] = np.where(x[:, i, j] > y[:, oy, ox], x[:, i, j], y[:, oy, ox])
    return y


def test_max_pooling_worked_out_by_hand(tier: Tier) -> None:
    """All values are negative: were padding a zero, it would win."""
    x = -np.array([[9, 2, 7, 4], [5, 6, 3, 8], [1, 12, 11, 10], [16, 13, 14, 15]], np.float32).reshape(1, 4, 4, 1)
    pool = tier.max_pool2d(x, same(4, 3, 2), same(4, 3, 2))
    np.testing.assert_array_equal(pool[0, :, :, 0], [[-1, -3], [-1, -10]])
    pool = tier.max_pool2d(x, fixed(3, 2), fixed(3, 2))
    np.testing.assert_array_equal(pool[0, :, :, 0], [[-2, -2], [-1, -3]])
    odd = tier.max_pool2d(x[:, :3, :3], same(3, 3, 2), same(3, 3, 2))
    np.testing.assert_array_equal(odd[0, :, :, 0], [[-2, -2], [-1, -3]])


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS.keys())
def test_max_pooling_equals_plain_loops_also_among_nan_and_infinity(tier: Tier, windows: tuple[Window, Window]) -> None:
    x = images(2, 7, 6, 4) - np.float32(2)
    np.testing.assert_array_equal(tier.max_pool2d(x, *windows), pooled_by_loops(x, *windows))
    odd_ones = np.random.default_rng(1).choice([np.nan, -np.inf, np.inf, -1], x.shape, p=[0.5, 0.3, 0.05, 0.15])
    x = odd_ones.astype(np.float32)
    np.testing.assert_array_equal(tier.max_pool2d(x, *windows), pooled_by_loops(x, *windows))


def test_nan_and_padding_never_win_and_minus_infinity_counts_as_the_lowest_float(tier: Tier) -> None:
    nan, inf = np.nan, np.inf
    rows = [[nan, 1, nan], [nan, nan, nan], [-inf, -inf, -inf], [nan, -inf, nan], [inf, nan, 1], [LOWEST, nan, -inf]]
    x = np.array(rows, np.float32).reshape(6, 1, 3, 1)
    y = tier.max_pool2d(x, same(1, 3), valid(3))
    np.testing.assert_array_equal(y.ravel(), [1, LOWEST, LOWEST, LOWEST, inf, LOWEST])


def test_channels_and_images_are_pooled_apart(tier: Tier) -> None:
    x = np.zeros((2, 3, 3, 5), np.float32)
    x[1, 2, 0, 3] = 1
    y = tier.max_pool2d(x, valid(3), valid(3))
    assert np.argwhere(y).tolist() == [[1, 0, 0, 3]]


@pytest.mark.parametrize("size", [(4, 5), (1, 7), (3, 2)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_subsampling_keeps_every_factorth_row_and_column(tier: Tier, factor: int, size: tuple[int, int]) -> None:
    x = images(2, *size, 3)
    y = tier.subsample(x, factor)
    np.testing.assert_array_equal(y, x[:, ::factor, ::factor])
    np.testing.assert_array_equal(y, tier.max_pool2d(x, *(same(n, 1, factor) for n in size)))


def test_the_spatial_mean_worked_out_by_hand(tier: Tier) -> None:
    x = np.arange(1, 13, dtype=np.float32).reshape(2, 1, 3, 2)
    np.testing.assert_array_equal(tier.spatial_mean(x), [[[[3, 4]]], [[[9, 10]]]])


def test_the_spatial_mean_is_float64s_rounded_once(tier: Tier) -> None:
    x = images(3, 41, 37, 5) + np.float32(1000)
    y = tier.spatial_mean(x)
    assert (y.shape, y.dtype) == ((3, 1, 1, 5), np.float32)
    np.testing.assert_allclose(y, x.astype(np.float64).mean((1, 2), keepdims=True), rtol=EPS, atol=0)


def test_the_spatial_mean_keeps_nan_and_infinity_in_their_channel(tier: Tier) -> None:
    x = np.ones((1, 2, 2, 3), np.float32)
    x[0, 1, 0, 1:] = np.nan, np.inf
    np.testing.assert_array_equal(tier.spatial_mean(x)[0, 0, 0], [1, np.nan, np.inf])


def pools(tier: Tier, x: Array) -> list[Array]:
    return [tier.max_pool2d(x, same(7, 3, 2), same(6, 3, 2)), tier.subsample(x, 2), tier.spatial_mean(x)]


def test_inputs_may_be_read_only_and_of_any_layout_and_are_not_modified(tier: Tier) -> None:
    x = images(2, 7, 6, 4)
    given = [np.asfortranarray(x), np.repeat(x, 2, axis=3)[..., ::2], x[:, ::-1].copy()[:, ::-1]]
    want = pools(tier, x)
    for array in given:
        array.setflags(write=False)
        for got, same_again in zip(pools(tier, array), want, strict=True):
            np.testing.assert_allclose(got, same_again, rtol=EPS, atol=0)


def test_results_are_the_same_bits_on_any_number_of_threads() -> None:
    x = images(2, 7, 6, 40)
    want = pools(kernels.on("cpu", 1), x)
    for threads in (2, 3, 5):
        for got, one in zip(pools(kernels.on("cpu", threads), x), want, strict=True):
            np.testing.assert_array_equal(got, one)


def test_a_batch_of_none_gives_none(tier: Tier) -> None:
    assert [y.shape for y in pools(tier, images(0, 7, 6, 4))] == [(0, 4, 3, 4), (0, 4, 3, 4), (0, 1, 1, 4)]


def test_misuses_are_refused(tier: Tier) -> None:
    x = images(1, 7, 6, 4)
    with pytest.raises(ShapeError, match=r"a window of 8 .* does not fit 7"):
        tier.max_pool2d(x, valid(8), valid(3))
    with pytest.raises(ShapeError, match=r"a window of 9 .* does not fit 6"):
        tier.max_pool2d(x, valid(3), valid(3, 1, 4))
    for factor in (0, -1, 1.5):
        with pytest.raises(ShapeError, match=f"at least 1, got {factor}"):
            tier.subsample(x, factor)  # type: ignore[arg-type]
    calls = {
        "max_pool2d": lambda x: tier.max_pool2d(x, valid(1), valid(1)),
        "subsample": lambda x: tier.subsample(x, 2),
        "spatial_mean": tier.spatial_mean,
    }
    for name, call in calls.items():
        with pytest.raises(ShapeError, match=rf"{name}: x must be \[N, H, W, C\], .*; got shape \[7, 6, 4\]"):
            call(x[0])
        with pytest.raises(ShapeError, match=f"{name}: x must be a NumPy array"):
            call([[1.0]])  # type: ignore[arg-type]
        with pytest.raises(DeviceError, match="computes in float32"):
            call(x.astype(np.int64))


@pytest.mark.oracle
@pytest.mark.parametrize("size", [(7, 6), (8, 9), (1, 2), (4, 4)], ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 3), (1, 2), (3, 1)])
def test_max_pooling_is_tensorflows(tier: Tier, kernel: int, stride: int, size: tuple[int, int]) -> None:
    x = images(2, *size, 5) - np.float32(3)
    want = oracle.run(lambda nets, x: nets.tf.nn.max_pool2d(x, kernel, stride, "SAME"), x, {}).net
    np.testing.assert_array_equal(tier.max_pool2d(x, *(same(n, kernel, stride) for n in size)), want)


@pytest.mark.oracle
@pytest.mark.parametrize("channels", [1, 4, 8, 17])
def test_max_pooling_treats_nan_and_infinity_as_tensorflow_does(tier: Tier, channels: int) -> None:
    """Windows of NaN alone, of -inf alone, and of both come out as the lowest float, whatever the vector width."""
    odd_ones = np.random.default_rng(1).choice(
        [np.nan, -np.inf, np.inf, -1], (2, 9, 8, channels), p=[0.6, 0.3, 0.05, 0.05]
    )
    x = odd_ones.astype(np.float32)
    x[:, :3, :3], x[:, 4:, 4:] = np.nan, -np.inf
    want = oracle.run(lambda nets, x: nets.tf.nn.max_pool2d(x, 3, 2, "SAME"), x, {}).net
    assert (want == LOWEST).any()
    np.testing.assert_array_equal(tier.max_pool2d(x, same(9, 3, 2), same(8, 3, 2)), want)


@pytest.mark.oracle
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_subsampling_is_slims_max_pool(tier: Tier, factor: int) -> None:
    x = images(2, 7, 6, 4)
    want = oracle.run(lambda nets, x: nets.slim.max_pool2d(x, [1, 1], stride=factor), x, {}).net
    np.testing.assert_array_equal(tier.subsample(x, factor), want)


@pytest.mark.oracle
def test_the_spatial_mean_is_tensorflows_within_its_rounding(tier: Tier) -> None:
    x = images(2, 9, 8, 5)
    want = oracle.run(lambda nets, x: nets.tf.reduce_mean(x, [1, 2], keepdims=True), x, {}).net
    bound = 9 * 8 * EPS * np.abs(x).mean((1, 2), keepdims=True)
    assert (np.abs(tier.spatial_mean(x) - want) <= bound).all()
