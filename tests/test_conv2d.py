"""Convolution by im2col against numbers worked out by hand, against plain loops, and against live TensorFlow.

Most inputs are small whole numbers: float32 then computes them without rounding, in any order, and equality is exact.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiers import EMULATED, GPU_TIERS, TIERS, tier_named, tier_of

from resnet_ref import kernels, oracle
from resnet_ref.errors import DeviceError, ShapeError
from resnet_ref.kernels import Tier
from resnet_ref.kernels.conv2d import choice, cpu
from resnet_ref.kernels.conv2d.choice import candidates as choice_candidates
from resnet_ref.kernels.conv2d.convolution import Convolution
from resnet_ref.kernels.conv2d.ladder.rungs import GPU, RUNGS
from resnet_ref.kernels.geometry import Window, fixed, same, valid

Array = NDArray[Any]
EPS = float(np.finfo(np.float32).eps)
# The ways through the cpu kernel, whatever the size of a test's map.
PATHS: dict[str, dict[str, int]] = {
    "cpu": {},
    "cpu, one matrix": {"SMALL_MAP": 1 << 30, "PANEL": 2},
    "cpu, one block": {"SMALL_MAP": 0},
    "cpu, blocks of 3 pixels": {"SMALL_MAP": 0, "BLOCK_ROWS": 3, "BLOCK_BYTES": 4},
}
WINDOWS = {
    "1x1": (valid(1), valid(1)),
    "1x1 padded": (Window(1, before=1, after=2), Window(1, after=1)),
    "1x1/2": (valid(1, 2), same(6, 1, 2)),
    "3x3 same": (same(7, 3), same(6, 3)),
    "3x3/2 same": (same(7, 3, 2), same(6, 3, 2)),
    "3x3/2 fixed": (fixed(3, 2), fixed(3, 2)),
    "7x7/2 fixed": (fixed(7, 2), fixed(7, 2)),
    "2x4 valid": (valid(2), valid(4)),
    "4x2 same": (same(7, 4), same(6, 2)),
    "3x1/3x2": (valid(3, 3), valid(1, 2)),
    "3x3 rate 2": (same(7, 3, 1, 2), same(6, 3, 1, 2)),
    "2x3 rates 3, 4": (same(7, 2, 1, 3), same(6, 3, 1, 4)),
    "3x2/2 rates 2, 3": (Window(3, 2, 2, 1, 3), Window(2, 2, 3, 0, 2)),
    "pads 0, 3 and 4, 1": (Window(3, before=0, after=3), Window(2, 3, before=4, after=1)),
    "windows in the padding alone": (Window(2, before=4, after=5), Window(1, before=2, after=3)),
}


# Those of the ladder. Winograd's: also where a model of costs would choose another for maps as small as these.
LADDER = {f"rung: {rung.name}": rung for rung in RUNGS}
ON_GPU = "on a GPU"
LADDER_ON_GPU = [
    pytest.param(f"{name}, {ON_GPU}", marks=pytest.mark.gpu) for name, rung in LADDER.items() if rung.device == GPU
]


@pytest.fixture(params=["definition", *PATHS, *GPU_TIERS, *LADDER, *LADDER_ON_GPU])
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tier:
    monkeypatch.setattr(choice, "candidates", winograd_first)
    name = request.param.removesuffix(f", {ON_GPU}")
    if name in LADDER:
        return tier_of(LADDER[name], on_gpu=name != request.param)
    for constant, value in PATHS.get(request.param, {}).items():
        monkeypatch.setattr(cpu, constant, value)
    return tier_named("cpu" if request.param in PATHS else request.param)


@pytest.fixture(params=list(WINDOWS.values()), ids=list(WINDOWS))
def windows(request: pytest.FixtureRequest) -> tuple[Window, Window]:
    return request.param  # type: ignore[no-any-return]


def winograd_first(conv: Convolution, *options: Any) -> list[choice.Candidate]:
    return sorted(choice_candidates(conv, *options), key=lambda candidate: candidate.name == "direct")


def is_rung(request: pytest.FixtureRequest, name: str) -> bool:
    return str(request.node.callspec.params["tier"]).startswith(f"rung: {name}")


def whole(*shape: int, seed: int = 0) -> Array:
    """float32 whole numbers from -9 to 9, none of them 0."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 10, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def arguments(windows: tuple[Window, Window], depth: int = 5) -> tuple[Array, Array, Window, Window]:
    """x [2, 7, 6, 3] and weights for the windows: whole numbers, all dimensions different."""
    rows, cols = windows
    return whole(2, 7, 6, 3), whole(rows.size, cols.size, 3, depth, seed=1), rows, cols


def by_loops(x: Array, w: Array, rows: Window, cols: Window) -> Array:
    """Convolution as a book defines it, in float64: every output, every tap, padding skipped."""
    n, height, width, _ = x.shape
    starts = [
        range(-axis.before, size + axis.after - (axis.size - 1) * axis.rate, axis.stride)
        for axis, size in ((rows, height), (cols, width))
    ]
    y = np.zeros((n, len(starts[0]), len(starts[1]), w.shape[3]))
    for oy, top in enumerate(starts[0]):
        for ox, left in enumerate(starts[1]):
            for ky in range(rows.size):
                for kx in range(cols.size):
                    i, j = top + ky * rows.rate, left + kx * cols.rate
                    if 0 <= i < height and 0 <= j < width:
                        y[:, oy, ox] += x[:, i, j].astype(np.float64) @ w[ky, kx].astype(np.float64)
    return y


def test_a_convolution_worked_out_by_hand(tier: Tier) -> None:
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32).reshape(1, 2, 3, 1)
    w = np.array([[1, 10], [100, 1000]], np.float32).reshape(2, 2, 1, 1)
    y = tier.conv2d(x, w, valid(2), valid(2))
    np.testing.assert_array_equal(y[0, :, :, 0], [[5421, 6532]])
    y = tier.conv2d(x, w, same(2, 2), same(3, 2))
    np.testing.assert_array_equal(y[0, :, :, 0], [[5421, 6532, 603], [54, 65, 6]])
    y = tier.conv2d(x, w, Window(2, 2, before=1), Window(2, 2, before=1))
    np.testing.assert_array_equal(y[0, :, :, 0], [[1000, 3200]])


def test_channels_are_summed_and_filters_stay_apart(tier: Tier) -> None:
    x = np.array([1, 10, 100], np.float32).reshape(1, 1, 1, 3)
    w = np.array([[1, 2], [3, 4], [5, 6]], np.float32).reshape(1, 1, 3, 2)
    np.testing.assert_array_equal(tier.conv2d(x, w, valid(1), valid(1)), [[[[531, 642]]]])


def test_a_convolution_equals_plain_loops(tier: Tier, windows: tuple[Window, Window]) -> None:
    x, w, rows, cols = arguments(windows)
    y = tier.conv2d(x, w, rows, cols)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, by_loops(x, w, rows, cols))


def test_each_tap_alone_lands_where_geometry_says(
    tier: Tier, windows: tuple[Window, Window], request: pytest.FixtureRequest
) -> None:
    """Every input position in an image of its own, every weight a power of two of its own: nothing can cancel.

    Winograd's algorithm adds weights before it multiplies, which has to be exact: there they are squares.
    """
    rows, cols = windows
    x = np.eye(7 * 6 * 3, dtype=np.float32).reshape(-1, 7, 6, 3)
    products = rows.size * cols.size * 3
    numbers = np.arange(products)
    powers = np.ldexp(np.float32(1), numbers - products // 2)
    weights = np.float32(1 + numbers) ** 2 if is_rung(request, "Winograd") else powers
    w = weights.reshape(rows.size, cols.size, 3, 1)
    y = tier.conv2d(x, w, rows, cols)
    want = np.zeros_like(y)
    for oy, ox, ky, kx in np.ndindex(*y.shape[1:3], rows.size, cols.size):
        i = oy * rows.stride + ky * rows.rate - rows.before
        j = ox * cols.stride + kx * cols.rate - cols.before
        if 0 <= i < 7 and 0 <= j < 6:
            for c in range(3):
                want[(i * 6 + j) * 3 + c, oy, ox, 0] = w[ky, kx, c, 0]
    np.testing.assert_array_equal(y, want)


def test_rounding_stays_within_the_bound_of_a_float32_sum(tier: Tier) -> None:
    """|error| <= K eps sum |x w| for K products, whatever the order they are added in."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 9, 8, 67)).astype(np.float32) + np.float32(2)
    w = rng.standard_normal((3, 2, 67, 5)).astype(np.float32)
    rows, cols = same(9, 3, 2), same(8, 2)
    bound = 3 * 2 * 67 * EPS * by_loops(np.abs(x), np.abs(w), rows, cols)
    assert (np.abs(tier.conv2d(x, w, rows, cols) - by_loops(x, w, rows, cols)) <= bound).all()


def test_the_definition_computes_in_float64_when_asked() -> None:
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((2, 5, 4, 3)), rng.standard_normal((3, 3, 3, 7))
    y = kernels.on("definition").conv2d(x, w, same(5, 3), same(4, 3))
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, by_loops(x, w, same(5, 3), same(4, 3)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("device", TIERS)
def test_im2col_lays_out_rows_by_output_and_columns_by_tap_then_channel(device: str) -> None:
    x = np.array([[[1, 2], [3, 4], [5, 6]]], np.float32)[None]  # one row of three pixels, two channels
    matrix = tier_named(device).im2col(x, Window(2, after=1), Window(2, 2, before=1))
    np.testing.assert_array_equal(matrix, [[0, 0, 1, 2, 0, 0, 0, 0], [3, 4, 5, 6, 0, 0, 0, 0]])


def test_im2col_holds_every_tap_in_its_place(tier: Tier, windows: tuple[Window, Window]) -> None:
    x, w, rows, cols = arguments(windows)
    height, width = by_loops(x, w, rows, cols).shape[1:3]
    matrix = tier.im2col(x, rows, cols)
    assert matrix.shape == (2 * height * width, rows.size * cols.size * 3)
    wide = np.pad(x, ((0, 0), (20, 20), (20, 20), (0, 0)))
    for row, (n, oy, ox) in enumerate(np.ndindex(2, height, width)):
        for tap, (ky, kx) in enumerate(np.ndindex(rows.size, cols.size)):
            i, j = (o * a.stride + k * a.rate - a.before + 20 for o, k, a in ((oy, ky, rows), (ox, kx, cols)))
            np.testing.assert_array_equal(matrix[row, 3 * tap : 3 * tap + 3], wide[n, i, j])


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize(
    "residual_shape", [None, (1, 7, 6), (2, 13, 12), (2, 14, 11), (3, 19, 18), (3, 21, 16)], ids=str
)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_out", [False, True])
def test_the_epilogue_adds_bias_and_strided_residual_then_clamps(
    tier: Tier, activation: str | None, residual_shape: tuple[int, ...] | None, with_bias: bool, with_out: bool
) -> None:
    x, w, rows, cols = arguments((same(7, 3), same(6, 3)))
    want = by_loops(x, w / 64, rows, cols)
    bias = whole(5, seed=2) if with_bias else None
    if bias is not None:
        want += bias
    stride, residual = 1, None
    if residual_shape is not None:
        stride, residual = residual_shape[0], whole(2, *residual_shape[1:], 5, seed=3)
        want += residual[:, ::stride, ::stride]
    if activation is not None:
        want = np.minimum(np.maximum(want, 0), 6 if activation == "relu6" else np.inf)
    out = np.full(want.shape, 77, np.float32) if with_out else None
    epilogue = {"bias": bias, "residual": residual, "residual_stride": stride, "activation": activation}
    y = tier.conv2d(x, w / 64, rows, cols, **epilogue, out=out)
    assert out is None or y is out
    np.testing.assert_array_equal(y, want)


def test_nan_reaches_exactly_the_outputs_that_read_it(tier: Tier) -> None:
    x, w, rows, cols = arguments((same(7, 3, 2), same(6, 3)))
    spoilt = x.copy()
    spoilt[1, 2, 3, 0] = np.nan
    y = tier.conv2d(spoilt, w, rows, cols, bias=whole(5), activation="relu6")
    reads = np.zeros(y.shape, bool)
    reads[1, 1, 2:5] = True  # of rows 2o-1 .. 2o+1 only o = 1 has row 2; columns o-1 .. o+1 have column 3
    np.testing.assert_array_equal(np.isnan(y), reads)
    clean = tier.conv2d(x, w, rows, cols, bias=whole(5), activation="relu6")
    np.testing.assert_array_equal(y[~reads], clean[~reads])


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")  # in lanes that BLAS does not use
def test_at_stride_1_nan_and_infinity_reach_what_reads_them_and_in_winograds_algorithm_their_tiles(
    tier: Tier, request: pytest.FixtureRequest
) -> None:
    """Tiles are of 2x2 outputs; in one that reads infinity some of its four outputs are NaN."""
    x, w, rows, cols = arguments((same(7, 3), same(6, 3)))
    clean = tier.conv2d(x, w, rows, cols)
    for special in (np.nan, np.inf):
        spoilt = x.copy()
        spoilt[1, 2, 3, 0] = special
        y = tier.conv2d(spoilt, w, rows, cols)
        reads = np.zeros(y.shape, bool)
        reads[1, 1:4, 2:5] = True
        assert not np.isfinite(y[reads]).any()
        if is_rung(request, "Winograd"):
            reads[1, 0:4, 2:6] = True
        np.testing.assert_array_equal(y[~reads], clean[~reads])


def test_infinity_keeps_its_sign_and_relu6_bounds_it(tier: Tier, request: pytest.FixtureRequest) -> None:
    """Three products of tf32 make NaN of it: what is left of infinity after rounding is infinity less infinity."""
    x, w = np.full((1, 1, 2, 1), np.inf, np.float32), np.array([1, -1], np.float32).reshape(1, 1, 1, 2)
    got = [tier.conv2d(x, w, valid(1), valid(1), activation=name)[0, 0, 0].tolist() for name in (None, "relu", "relu6")]
    if is_rung(request, "tensor cores"):
        assert np.isnan(got).all()
    else:
        assert got == [[np.inf, -np.inf], [np.inf, 0], [6, 0]]


@pytest.mark.parametrize("size", [(1, 9, 11), (2, 41, 43)], ids=["small map", "blocks"])
@pytest.mark.parametrize("window", [valid(1), fixed(3, 2)], ids=["1x1", "3x3/2"])
def test_results_are_the_same_bits_on_any_number_of_threads(size: tuple[int, int, int], window: Window) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((*size, 33)).astype(np.float32)
    w = rng.standard_normal((window.size, window.size, 33, 150)).astype(np.float32)
    bias = rng.standard_normal(150).astype(np.float32)
    results = [kernels.on("cpu", threads).conv2d(x, w, window, window, bias=bias) for threads in (1, 2, 3, 5)]
    for other in results[1:]:
        np.testing.assert_array_equal(other.view(np.uint32), results[0].view(np.uint32))


def test_a_threads_block_serves_longer_and_shorter_rows_in_turn(tier: Tier) -> None:
    for size, channels in ((3, 5), (1, 2), (5, 9), (2, 3)):
        x, w = whole(1, 19, 17, channels), whole(size, size, channels, 4, seed=1)
        rows, cols = same(19, size), same(17, size)
        np.testing.assert_array_equal(tier.conv2d(x, w, rows, cols), by_loops(x, w, rows, cols))


def test_a_row_longer_than_a_block_is_computed_too() -> None:
    """3 * 3 * 1900 taps: 32 rows of them are more than BLOCK_BYTES."""
    x, w, window = whole(1, 17, 16, 1900), whole(3, 3, 1900, 2, seed=1), same(17, 3)
    assert cpu.BLOCK_ROWS * 4 * w[..., 0].size > cpu.BLOCK_BYTES
    y = kernels.on("cpu").conv2d(x, w, window, same(16, 3))
    np.testing.assert_array_equal(y, by_loops(x, w, window, same(16, 3)))


def test_a_batch_of_none_gives_none(tier: Tier) -> None:
    x, w, rows, cols = arguments((same(7, 3, 2), same(6, 3)))
    y = tier.conv2d(x[:0], w, rows, cols, bias=whole(5), residual=np.zeros((0, 4, 6, 5), np.float32))
    assert (y.shape, y.dtype) == ((0, 4, 6, 5), np.float32)
    assert tier.im2col(x[:0], rows, cols).shape == (0, 27)


def test_inputs_may_be_read_only_and_of_any_layout_and_are_not_modified(tier: Tier) -> None:
    x, w, rows, cols = arguments((same(7, 3), same(6, 3)))
    bias, residual = whole(5, seed=2), whole(2, 7, 6, 5, seed=3)
    want = tier.conv2d(x, w, rows, cols, bias=bias, residual=residual, activation="relu")
    given = [x.transpose(3, 1, 2, 0).copy().transpose(3, 1, 2, 0), np.asfortranarray(w)]
    given += [np.repeat(bias, 2)[::2], residual[:, ::-1].copy()[:, ::-1]]
    for array in given:
        assert array.size == 5 or not array.flags.c_contiguous
        array.setflags(write=False)
    y = tier.conv2d(*given[:2], rows, cols, bias=given[2], residual=given[3], activation="relu")
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(tier.im2col(given[0], rows, cols), tier.im2col(x, rows, cols))


MISUSES: dict[str, tuple[dict[str, Any], str]] = {
    "x of rank 3": ({"x": whole(7, 6, 3)}, r"x must be \[N, H, W, C\], .*; got shape \[7, 6, 3\]"),
    "x a list": ({"x": [[1.0]]}, "x must be a NumPy array"),
    "w of rank 3": ({"w": whole(3, 2, 3)}, r"w must be \[KH, KW, C, F\] = \[3, 2, 3, F\].*got \[3, 2, 3\]"),
    "w of other channels": ({"w": whole(3, 2, 4, 5)}, r"= \[3, 2, 3, F\].*got \[3, 2, 4, 5\]"),
    "w transposed": ({"w": whole(2, 3, 3, 5)}, r"the windows' sizes and x's channels"),
    "w in float64": ({"w": whole(3, 2, 3, 5).astype(float)}, "w is float64, x is float32"),
    "rows too large": ({"rows": Window(3, rate=4)}, "a window of 9 .* does not fit 7"),
    "cols too large": ({"cols": Window(2, rate=6)}, "a window of 7 .* does not fit 6"),
    "bias of another length": ({"bias": whole(4)}, r"bias must have shape \[5\], got \[4\]"),
    "bias in float64": ({"bias": np.ones(5)}, "bias is float64"),
    "residual of another size": ({"residual": whole(2, 6, 5, 5)}, r"residual \[2, 6, 5, 5\] .* \[2, 5, 5, 5\]"),
    "residual of another batch": ({"residual": whole(1, 5, 5, 5)}, "must have the output's shape"),
    "residual of rank 3": ({"residual": whole(2, 5, 5)}, r"must be \[N, RH, RW, F\], got shape \[2, 5, 5\]"),
    "residual in float64": ({"residual": np.ones((2, 5, 5, 5))}, "residual is float64"),
    "residual_stride": ({"residual": whole(2, 5, 5, 5), "residual_stride": 2}, "with stride 2 must have"),
    "residual_stride 0": ({"residual": whole(2, 5, 5, 5), "residual_stride": 0}, "stride must be .* at least 1, got 0"),
    "activation": ({"activation": "tanh"}, 'activation must be None, "relu" or "relu6", got .tanh.'),
    "activation a function": ({"activation": np.tanh}, "activations are given by name"),
    "out of another shape": ({"out": np.empty((2, 5, 6, 5), np.float32)}, r"out must have shape \[2, 5, 5, 5\]"),
    "out in float64": ({"out": np.empty((2, 5, 5, 5))}, "out is float64"),
    "out with gaps": ({"out": np.empty((2, 5, 5, 10), np.float32)[..., ::2]}, "out must be contiguous"),
}


@pytest.mark.parametrize("device", ["definition", "cpu", EMULATED])
@pytest.mark.parametrize(("changes", "message"), MISUSES.values(), ids=MISUSES.keys())
def test_a_misuse_is_refused_by_name(device: str, changes: dict[str, Any], message: str) -> None:
    given = {"x": whole(2, 7, 6, 3), "w": whole(3, 2, 3, 5), "rows": valid(3), "cols": valid(2), **changes}
    with pytest.raises(ShapeError, match=message):
        tier_named(device).conv2d(**given)


def test_a_dtype_the_device_does_not_compute_in_is_refused() -> None:
    for device, dtype, message in (
        ("cpu", np.float64, 'float32, not in .*float64.*device="definition"'),
        ("definition", np.int32, "float32 or float64, not in .*int32"),
    ):
        with pytest.raises(DeviceError, match=message):
            kernels.on(device).conv2d(whole(1, 2, 2, 1).astype(dtype), whole(1, 1, 1, 1), valid(1), valid(1))


@pytest.mark.oracle
def test_a_convolution_equals_tensorflows(windows: tuple[Window, Window]) -> None:
    x, w, rows, cols = arguments(windows)
    pads = [[0, 0], [rows.before, rows.after], [cols.before, cols.after], [0, 0]]
    steps = {"strides": (rows.stride, cols.stride), "dilations": (rows.rate, cols.rate)}
    result = oracle.run(lambda nets, x: nets.tf.nn.conv2d(nets.tf.pad(x, pads), w, padding="VALID", **steps), x, {})
    for device in ("definition", "cpu", EMULATED):
        np.testing.assert_array_equal(tier_named(device).conv2d(x, w, rows, cols), result.net, err_msg=device)


@pytest.mark.oracle
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_same_and_valid_are_tensorflows_on_even_and_odd_sizes(size: int, stride: int, padding: str) -> None:
    w = whole(size, size, 3, 2, seed=1)
    for height, width in ((7, 8), (10, 9)):
        x = whole(2, height, width, 3)
        want = oracle.run(lambda nets, x: nets.tf.nn.conv2d(x, w, stride, padding), x, {}).net
        rows, cols = (same(n, size, stride) if padding == "SAME" else valid(size, stride) for n in (height, width))
        for device in ("definition", "cpu", EMULATED):
            np.testing.assert_array_equal(tier_named(device).conv2d(x, w, rows, cols), want, err_msg=device)
