"""The gpu's convolutions: every tile and way of loading, run on the CPU, against the definition in float64.

Most inputs are small whole numbers: their sums of products are exact in any order, and equality is exact.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_convolved import COLS, ROWS, computed, runtime_of, tensors, with_everything
from launches import Recorder, Shaped
from numpy.typing import NDArray
from planned import defined, whole

from resnet_ref import kernels
from resnet_ref.errors import DeviceError
from resnet_ref.kernels.conv2d import gpu
from resnet_ref.kernels.conv2d.gpu import NOTHING, conv2d_into, source_of, workspace_size
from resnet_ref.kernels.conv2d.tiles import TILES, Tile, Way, k_per_split
from resnet_ref.kernels.cuda.launch import Launch
from resnet_ref.kernels.geometry import Window, fixed, same, valid

Array = NDArray[Any]
LARGE, WIDE, SQUARE, SMALL = TILES["float32"]


def way_of(tile: Tile, splits: int = 1) -> Way:
    return Way("float32", tile, splits)


def require_equal(way: Way, x: Array, w: Array, rows: Window, cols: Window, *, order: int = 0, **epilogue: Any) -> None:
    """To the definition, to the last bit."""
    got = computed(way, x, w, rows, cols, order=order, **epilogue)
    np.testing.assert_array_equal(got, defined(x, w, rows, cols, **epilogue))


def bounded(given: tuple[Array, Array, Window, Window], stride: int = 1) -> dict[str, Any]:
    """An epilogue whose every part matters."""
    return {**with_everything(*given, stride=stride), "bound": 9.0}


@pytest.mark.parametrize("is_point", [False, True], ids=["taps", "point"])
@pytest.mark.parametrize("f_by_four", [False, True], ids=["F odd", "F / 4"])
@pytest.mark.parametrize("c_by_four", [False, True], ids=["C odd", "C / 4"])
@pytest.mark.parametrize("tile", TILES["float32"], ids=lambda tile: tile.name)
def test_every_tile_equals_the_definition_on_less_and_more_than_it_holds(
    tile: Tile, c_by_four: bool, f_by_four: bool, is_point: bool
) -> None:
    """Pixels, filters and taps that fill a part of a tile, or several and a part; alone and split."""
    rows, cols = (Window(1, 2), Window(1, 1, 3)) if is_point else (ROWS, COLS)
    c, f = (12, tile.bn + 4) if c_by_four else (7, tile.bn + 4)
    f += 0 if f_by_four else 1
    many = tensors(1, (2, 2 * tile.bm // 9 + 1, 9, 2 * c if is_point else c), rows, cols, f)
    few = tensors(2, (2, 5, 4, 4 if c_by_four else 3), rows, cols, 8 if f_by_four else 5)
    for given, splits in itertools.product((many, few), (1, 2)):
        require_equal(way_of(tile, splits), *given, **bounded(given))


@pytest.mark.parametrize("order", [0, 1, 7])
@pytest.mark.parametrize("splits", [1, 2, 3, 4, 5, 16])
def test_splits_sum_every_step_once_in_any_order_of_threads_and_blocks(splits: int, order: int) -> None:
    """Nine steps, of which not all splits have as many; one step, of which most splits have none."""
    for given in (tensors(3, (2, 5, 6, 12), ROWS, COLS, 72), tensors(4, (1, 3, 3, 4), valid(1), valid(1), 8)):
        require_equal(way_of(SQUARE, splits), *given, order=order, **bounded(given, stride=2))


def test_results_are_the_same_bits_in_any_order_of_threads_and_blocks() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 9, 8, 12)).astype(np.float32)
    w = rng.standard_normal((3, 2, 12, 72)).astype(np.float32)
    for splits in (1, 4):
        first, *others = (computed(way_of(SQUARE, splits), x, w, ROWS, COLS, order=order) for order in (0, 1, 7))
        for other in others:
            assert first.tobytes() == other.tobytes()


WINDOWS = {
    "1x1 in padding": (Window(1, before=2, after=1), Window(1, after=1)),
    "1x1/3x2": (valid(1, 3), valid(1, 2)),
    "1x4": (valid(1), same(8, 4)),
    "7x7/2": (fixed(7, 2), fixed(7, 2)),
    "3x3 rates 2, 3": (same(7, 3, 1, 2), same(8, 3, 1, 3)),
    "more padding than taps": (Window(2, before=4, after=5), Window(3, 2, 1, 6, 3)),
    "larger than the image": (Window(9, before=4, after=4), Window(11, 3, 1, 5, 5)),
}


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_windows_of_any_size_stride_rate_and_padding(windows: tuple[Window, Window]) -> None:
    for c, f in ((4, 8), (20, 8), (3, 5)):
        require_equal(way_of(SQUARE), *tensors(7, (2, 7, 8, c), *windows, f))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("f", [5, 8])
def test_the_residual_is_read_with_its_stride(f: int, splits: int, stride: int) -> None:
    given = tensors(8, (2, 6, 5, 12), same(6, 3), same(5, 2), f)
    epilogue = {**bounded(given, stride), "activation": None, "bound": 1e9}
    require_equal(way_of(SQUARE, splits), *given, **epilogue)


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("f", [1, 4])
def test_the_epilogue_worked_out_by_hand(f: int, splits: int) -> None:
    """Sums 1, 10, -20, plus bias 3: 4, 13, -17; within 6: 4, 6, -6; plus residual 1: 5, 7, -5."""
    x = np.array([1, 10, -20], np.float32).reshape(1, 1, 3, 1)
    w, point = np.ones((1, 1, 1, f), np.float32), valid(1)
    epilogue = {"bias": np.full(f, 3, np.float32), "residual": np.ones((1, 1, 3, f), np.float32)}
    for bound, activation, want in (
        (6.0, "relu6", (5, 6, 0)),
        (6.0, "relu", (5, 7, 0)),
        (6.0, None, (5, 7, -5)),
        (math.inf, "relu6", (5, 6, 0)),
        (math.inf, "relu", (5, 14, 0)),
        (math.inf, None, (5, 14, -16)),
    ):
        y = computed(way_of(SQUARE, splits), x, w, point, point, bound=bound, activation=activation, **epilogue)
        np.testing.assert_array_equal(y, np.broadcast_to(np.array(want).reshape(1, 1, 3, 1), y.shape))


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("c", "f"), [(12, 72), (3, 5)])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_and_infinity_reach_exactly_the_outputs_that_read_them(c: int, f: int, splits: int) -> None:
    """An infinite weight meets padding too: zero times infinity is NaN, as on every tier."""
    x, w, *windows = tensors(9, (2, 7, 6, c), ROWS, COLS, f)
    x[0, 3, 2, 1], x[1, 6, 5, c - 1], w[2, 1, c - 1, 3] = np.nan, np.inf, -np.inf
    for epilogue in ({}, {"activation": "relu6", "bound": 6.0}):
        require_equal(way_of(SQUARE, splits), x, w, *windows, **epilogue)


@pytest.mark.parametrize("tile", TILES["float32"], ids=lambda tile: tile.name)
def test_rounding_stays_within_the_bound_of_a_float32_sum(tile: Tile) -> None:
    rng = np.random.default_rng(10)
    x = rng.standard_normal((2, 7, 6, 96)).astype(np.float32)
    w = rng.standard_normal((3, 2, 96, 8)).astype(np.float32)
    want, size = defined(x, w, ROWS, COLS), defined(abs(x), abs(w), ROWS, COLS)
    for splits in (1, 4):
        error = abs(computed(way_of(tile, splits), x, w, ROWS, COLS) - want)
        assert (error <= w[..., 0].size * np.finfo(np.float32).eps / 2 * size).all()


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_im2col_is_the_definitions(windows: tuple[Window, Window]) -> None:
    x = whole(np.random.default_rng(11), 2, 7, 8, 3)
    runtime = runtime_of(1)
    got = runtime.download(gpu.im2col(runtime.upload(x), *windows, runtime=runtime))
    np.testing.assert_array_equal(got, kernels.on("definition").im2col(x, *windows))


def test_conv2d_takes_the_models_first_way_and_writes_where_it_is_told() -> None:
    x, w, *windows = tensors(12, (1, 7, 7, 96), same(7, 3), same(7, 3), 8)
    runtime = runtime_of(0)
    there = runtime.upload(x), runtime.upload(w)
    assert gpu.ways(runtime, x.shape, w.shape, *windows)[0].splits > 1
    out = runtime.empty((1, 7, 7, 8), np.float32)
    for given in (out, None):
        y = gpu.conv2d(*there, *windows, out=given, runtime=runtime)
        assert given is None or y is given
        np.testing.assert_array_equal(runtime.download(y), defined(x, w, *windows))
    with pytest.raises(DeviceError, match="precision must be one of float32"):
        gpu.conv2d(*there, *windows, runtime=runtime, precision="float16")


def test_with_its_memory_given_a_convolution_allocates_nothing() -> None:
    """Capturing refuses to allocate; the graph runs on the same memory, with what it holds then."""
    x, w, *windows = tensors(13, (2, 5, 4, 12), ROWS, COLS, 8)
    runtime, way = runtime_of(0), way_of(SQUARE, 3)
    there = runtime.upload(x), runtime.upload(w)
    want = defined(x, w, *windows)
    # A workspace may be larger than it has to be.
    y, workspace = runtime.empty(want.shape, np.float32), runtime.empty((3 * want.size + 5,), np.float32)

    def run() -> None:
        conv2d_into(runtime, *there, *windows, NOTHING, y, way, workspace)

    run()
    graph = runtime.capture(run)
    runtime.copy_in(pinned_copy(runtime, -x), there[0])
    graph.launch()
    np.testing.assert_array_equal(runtime.download(y), -want)


def pinned_copy(runtime: EmulatedRuntime, array: Array) -> Array:
    host = runtime.pinned(array.shape, array.dtype)
    host[...] = array
    return host


POINT, WEIGHTS = (valid(1), valid(1)), Shaped((1, 1, 4, 8))


def recorded(way: Way, x: Shaped, w: Shaped, rows: Window, cols: Window) -> list[Launch]:
    y = Shaped((x.shape[0], rows.out(x.shape[1]), cols.out(x.shape[2]), w.shape[3]))
    workspace = Shaped((workspace_size(way, y.size // y.shape[3], y.shape[3]),))
    recorder = Recorder()
    conv2d_into(recorder, x, w, rows, cols, NOTHING, y, way, workspace if workspace.size else None)  # type: ignore[arg-type]
    return recorder.launches


@pytest.mark.parametrize("tile", TILES["float32"], ids=lambda tile: tile.name)
def test_the_grid_covers_every_output_and_step_and_no_block_has_none(tile: Tile) -> None:
    for n, h, f, c, size, splits in itertools.product((1, 3), (1, 7, 57), (1, 64, 65), (3, 64), (1, 3), (1, 3)):
        window, way = same(h, size), way_of(tile, splits)
        conv, *reductions = recorded(way, Shaped((n, h, h, c)), Shaped((size, size, c, f)), window, window)
        m, k = n * h * h, size * size * c
        for blocks, block, numbers in ((conv.grid[0], tile.bm, m), (conv.grid[1], tile.bn, f)):
            assert (blocks - 1) * block < numbers <= blocks * block
        assert conv.grid[2] == splits
        assert splits * k_per_split(way, k) >= k
        assert conv.arguments[20] == k_per_split(way, k)
        assert conv.block == tile.threads
        for reduction in reductions:
            assert reduction.grid[0] * reduction.block >= min(m * f, 132 * 2048)
        assert len(reductions) == (splits > 1)


def test_the_largest_arrays_are_launched_and_larger_ones_refused() -> None:
    def launched(images: int, way: Way) -> list[Launch]:
        return recorded(way, Shaped((images, 1024, 1024, 1)), Shaped((1, 1, 1, 1)), valid(1), valid(1))

    assert launched(2047, way_of(SMALL))[0].grid == (2047 * 1024 * 32, 1, 1)
    assert len(launched(1023, way_of(SMALL, 2))) == 2
    for images, way in ((2048, way_of(SMALL)), (1024, way_of(SMALL, 2))):
        with pytest.raises(DeviceError, match="give fewer images at a time"):
            launched(images, way)


def test_an_empty_batch_launches_nothing() -> None:
    assert all(launch.is_empty for launch in recorded(way_of(SQUARE, 2), Shaped((0, 7, 7, 4)), WEIGHTS, *POINT))
    recorder = Recorder()
    y = gpu.conv2d(Shaped((0, 7, 7, 4)), WEIGHTS, *POINT, runtime=recorder)  # type: ignore[arg-type]
    assert y.shape == (0, 7, 7, 8)
    assert recorder.launches == []


def test_a_source_says_how_channels_are_read_and_whether_there_are_taps() -> None:
    def defines(c: int, f: int, rows: Window, cols: Window) -> tuple[int, int, int, int]:
        found = dict(source_of(way_of(WIDE), c, f, rows, cols).defines)
        return found["KVEC"], found["NVEC"], found["POINT"], found["MIN_BLOCKS"]

    assert defines(64, 64, *POINT) == (1, 1, 1, 3)
    assert defines(64, 66, *POINT) == (1, 0, 1, 1)
    assert defines(3, 64, valid(1, 2), valid(1)) == (0, 1, 1, 1)
    assert defines(64, 64, valid(1), valid(2)) == (1, 1, 0, 3)
    assert defines(64, 64, valid(1), Window(1, after=1)) == (1, 1, 0, 3)
