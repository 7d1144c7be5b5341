"""What only the gpu's kernels can get wrong: the order of threads, other devices, the edges of blocks, huge shapes."""

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.runtime import EmulatedRuntime
from launches import Recorder, Shaped
from numpy.typing import NDArray

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.batch_norm import gpu as batch_norm
from resnet_ref.kernels.batch_norm.definition import batch_norm as defined_batch_norm
from resnet_ref.kernels.batch_norm.gpu import PIECE_ROWS, TILE_ROWS
from resnet_ref.kernels.cuda.launch import ADDRESSABLE, BLOCK, BLOCKS_PER_SM
from resnet_ref.kernels.geometry import same
from resnet_ref.kernels.max_pool2d import gpu as max_pool2d
from resnet_ref.kernels.pointwise import gpu as pointwise
from resnet_ref.kernels.softmax import gpu as softmax
from resnet_ref.kernels.spatial_mean import gpu as spatial_mean
from resnet_ref.kernels.subsample import gpu as subsample

Array = NDArray[Any]
EPS = float(np.finfo(np.float32).eps)


def call_all(runtime: Any, x: Any, channels: Any) -> list[Any]:
    """Every kernel on x [N, H, W, C], those of [C] on an array of that shape."""
    height, width = x.shape[1:3]
    numbers = (channels,) * 4
    return [
        batch_norm.batch_norm(x, *numbers, 1e-3, activation="relu6", runtime=runtime),
        batch_norm.moving_average(channels, channels, 0.9, runtime=runtime),
        batch_norm.unbiased(channels, 7, runtime=runtime),
        max_pool2d.max_pool2d(x, same(height, 3, 2), same(width, 3, 2), runtime=runtime),
        subsample.subsample(x, 2, runtime=runtime),
        spatial_mean.spatial_mean(x, runtime=runtime),
        softmax.softmax(x, runtime=runtime),
        pointwise.add_bias(x, channels, runtime=runtime),
        pointwise.relu(x, runtime=runtime),
        pointwise.relu6(x, runtime=runtime),
        pointwise.add_relu(x, x, runtime=runtime),
        pointwise.add_relu6(x, x, runtime=runtime),
    ]


def images(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cancelling(*shape: int) -> Array:
    """The second half takes away the first, of numbers far apart: of a sum only what its order rounded is left."""
    half = images(*shape) * 10 ** (8 * np.abs(images(*shape, seed=1)))
    return np.concatenate([half, -half]).astype(np.float32)


def run(call: Callable[[Any], Any], **options: Any) -> list[Array]:
    """The results of a call on a device of its own, in NumPy; the device's own checks fail the test."""
    runtime = EmulatedRuntime(**options)
    result = call(runtime)
    return [runtime.download(array) for array in (result if isinstance(result, list | tuple) else [result])]


def test_results_are_the_same_bits_in_any_order_of_threads_and_blocks() -> None:
    x, channels = cancelling(1, 33, 17, 35), np.abs(images(35))

    def call(runtime: Any) -> list[Any]:
        there = runtime.upload(x)
        return [
            *call_all(runtime, there, runtime.upload(channels)),
            *batch_norm.batch_statistics(there, runtime=runtime),
        ]

    want = run(call, order=0)
    for order in (1, 7):
        for got, one in zip(run(call, order=order), want, strict=True):
            np.testing.assert_array_equal(got, one)


def test_results_are_the_same_bits_on_a_device_of_any_size() -> None:
    x, channels = cancelling(1, 33, 17, 35), np.abs(images(35))

    def call(multiprocessors: int) -> Callable[[Any], list[Any]]:
        def on(runtime: Any) -> list[Any]:
            runtime.multiprocessors = multiprocessors
            there = runtime.upload(x)
            statistics = batch_norm.batch_statistics(there, runtime=runtime)
            return [*call_all(runtime, there, runtime.upload(channels)), *statistics]

        return on

    want = run(call(132))
    for got, one in zip(run(call(1)), want, strict=True):
        np.testing.assert_array_equal(got, one)


@pytest.mark.parametrize("rows", [1, PIECE_ROWS - 1, PIECE_ROWS, PIECE_ROWS + 1, 2 * PIECE_ROWS + 7])
@pytest.mark.parametrize("channels", [1, 31, 32, 33])
def test_statistics_are_float64s_rounded_once_at_the_edges_of_pieces_and_of_groups_of_channels(
    channels: int, rows: int
) -> None:
    x = images(1, rows, 1, channels) + np.float32(3)
    wide = x.astype(np.float64)
    mean, variance = run(lambda runtime: batch_norm.batch_statistics(runtime.upload(x), runtime=runtime))
    np.testing.assert_array_equal(mean, wide.mean((0, 1, 2)).astype(np.float32))
    np.testing.assert_array_equal(variance, wide.var((0, 1, 2)).astype(np.float32))


@pytest.mark.parametrize("rows", [1, 9, TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 1])
@pytest.mark.parametrize("channels", [1, 31, 32, 33, 65])
def test_every_value_is_normalised_at_the_edges_of_blocks(channels: int, rows: int) -> None:
    x, numbers = images(1, 1, rows, channels), [np.abs(images(channels, seed=seed)) for seed in range(1, 5)]

    def call(runtime: Any) -> Any:
        return batch_norm.batch_norm(*map(runtime.upload, (x, *numbers)), 1e-3, runtime=runtime)

    want = defined_batch_norm(x.astype(np.float64), *numbers, 1e-3)
    np.testing.assert_allclose(run(call)[0], want, rtol=8 * EPS, atol=16 * EPS)


@pytest.mark.parametrize("pixels", [1, 7, 8, 9, 49])
@pytest.mark.parametrize("channels", [1, 32, 65])
def test_the_spatial_mean_takes_every_pixel_and_every_channel(channels: int, pixels: int) -> None:
    x = images(3, pixels, 1, channels)
    (got,) = run(lambda runtime: spatial_mean.spatial_mean(runtime.upload(x), runtime=runtime))
    np.testing.assert_allclose(got, x.mean((1, 2), keepdims=True, dtype=np.float64), rtol=EPS, atol=0)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCKS_PER_SM * BLOCK + 5])
def test_every_element_is_computed_where_threads_do_one_none_or_several(size: int) -> None:
    """On a device of one multiprocessor the last size is more than three turns of the whole grid."""
    a, b = images(size), images(size, seed=1)

    def call(runtime: Any) -> list[Any]:
        runtime.multiprocessors = 1
        x, y = map(runtime.upload, (a, b))
        strip = x.reshape(1, size, 1, 1)
        return [
            pointwise.add_bias(x.reshape(size, 1), y[:1], runtime=runtime),
            pointwise.relu(x, runtime=runtime),
            pointwise.add_relu(x, y, runtime=runtime),
            subsample.subsample(strip, 1, runtime=runtime),
            max_pool2d.max_pool2d(strip, same(size, 1), same(1, 1), runtime=runtime),
            batch_norm.moving_average(x, y, 0.75, runtime=runtime),
            batch_norm.unbiased(x, 3, runtime=runtime),
        ]

    moved = a - (a - b) * np.float32(0.25)
    want = [a + b[0], np.maximum(a, 0), np.maximum(a + b, 0), a, a, moved, a * np.float32(1.5)]
    for got, one in zip(run(call), want, strict=True):
        np.testing.assert_array_equal(got.ravel(), one)


@pytest.mark.parametrize("classes", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 1001, 5000])
def test_softmax_of_rows_shorter_and_longer_than_a_block(classes: int) -> None:
    """The largest value is in another place of each row, the last among them."""
    x = images(4, classes)
    x[np.arange(4), [0, classes // 2, classes - 1, min(BLOCK, classes - 1)]] = 9
    e = np.exp(x.astype(np.float64) - 9)
    want = e / e.sum(-1, keepdims=True)
    (got,) = run(lambda runtime: softmax.softmax(runtime.upload(x), runtime=runtime))
    np.testing.assert_allclose(got, want, rtol=20 * EPS, atol=0)


def test_the_largest_value_of_a_row_is_found_wherever_it_is() -> None:
    """Were it not taken away, exp(200) would be infinity."""
    places = [0, 1, BLOCK - 1, BLOCK, 1000]
    x = np.zeros((len(places), 1001), np.float32)
    x[np.arange(len(places)), places] = 200
    (got,) = run(lambda runtime: softmax.softmax(runtime.upload(x), runtime=runtime))
    np.testing.assert_array_equal(got, x / 200)


@pytest.mark.parametrize("place", [0, 1, BLOCK - 1, BLOCK, 999, 1000])
def test_softmax_of_a_row_with_nan_in_any_place_is_nan(place: int) -> None:
    x = images(2, 1001)
    x[1, place] = np.nan
    (got,) = run(lambda runtime: softmax.softmax(runtime.upload(x), runtime=runtime))
    assert np.isnan(got).all(1).tolist() == [False, True]
    assert not np.isnan(got[0]).any()


def test_results_may_go_into_an_input_or_anywhere_else() -> None:
    """As plans use the kernels: the given memory is written, wholly, and nothing is allocated."""
    x, y = images(2, 5, 6, 3), images(2, 5, 6, 3, seed=1)
    runtime = EmulatedRuntime()
    shortcut, residual = runtime.upload(x), runtime.upload(y)
    pooled, kept, mean, soft = (
        runtime.empty(shape, np.float32) for shape in ((2, 3, 3, 3), (2, 2, 2, 3), (2, 1, 1, 3), x.shape)
    )
    runtime.memory_bytes = 0
    max_pool2d.max_pool2d_into(runtime, shortcut, same(5, 3, 2), same(6, 3, 2), pooled)
    subsample.subsample_into(runtime, shortcut, 3, kept)
    spatial_mean.spatial_mean_into(runtime, shortcut, mean)
    softmax.softmax_into(runtime, shortcut, soft)
    pointwise.add_into(runtime, shortcut, residual, "relu6", 0.5, shortcut)
    pointwise.add_into(runtime, residual, residual, None, inf, residual)
    np.testing.assert_array_equal(runtime.download(pooled)[0, 0, 0], x[0, :2, :3].max((0, 1)))
    np.testing.assert_array_equal(runtime.download(kept), x[:, ::3, ::3])
    np.testing.assert_allclose(runtime.download(mean), x.mean((1, 2), keepdims=True, dtype=np.float64), rtol=EPS)
    np.testing.assert_allclose(runtime.download(soft).sum(-1), 1, rtol=4 * EPS)
    np.testing.assert_array_equal(runtime.download(shortcut), np.clip(x + np.clip(y, -0.5, 0.5), 0, 6))
    np.testing.assert_array_equal(runtime.download(residual), y + y)


def test_an_empty_batch_launches_nothing() -> None:
    runtime = Recorder()
    call_all(runtime, Shaped((0, 7, 6, 5)), Shaped((0,)))
    assert len(runtime.launches) == 12
    assert all(launch.is_empty for launch in runtime.launches)


def test_batch_statistics_take_the_same_pieces_on_every_device() -> None:
    one, many = Recorder(1), Recorder(132)
    for runtime in (one, many):
        batch_norm.batch_statistics(Shaped((2, 160, 150, 70)), runtime=runtime)  # type: ignore[arg-type]
    assert [launch.grid for launch in one.launches] == [launch.grid for launch in many.launches]
    assert [launch.kernel for launch in one.launches] == ["sum_values", "divide_sums", "sum_squares", "divide_sums"]


HUGE = [
    (ADDRESSABLE, 1, 1, 1),
    (1, ADDRESSABLE, 1, 1),
    (1, 1, 1, ADDRESSABLE),
    (1 << 25, 1, 1, 63),
    (1, 46340, 46340, 1),
    (1, 1 << 15, 1 << 10, 33),
]


@pytest.mark.parametrize("shape", HUGE, ids=str)
def test_the_largest_arrays_are_launched_within_the_limits_of_a_device(shape: tuple[int, ...]) -> None:
    """`Launch.check` knows the limits; every array of 2^31 - 1 numbers is still allowed."""
    runtime = Recorder()
    call_all(runtime, Shaped(shape), Shaped(shape[3:]))
    batch_norm.batch_statistics(Shaped(shape), runtime=runtime)  # type: ignore[arg-type]
    assert len(runtime.launches) == 16
    for launch in runtime.launches:
        assert not launch.is_empty
        assert launch.grid[1:] == (1, 1)


def test_an_array_that_a_kernel_cannot_index_is_refused() -> None:
    with pytest.raises(DeviceError, match="2147483648 is more than the 2147483647 that a gpu kernel counts to"):
        pointwise.relu(Shaped((2, 1 << 30)), runtime=Recorder())  # type: ignore[arg-type]
