"""The gpu's convolutions on tensor cores: whole numbers exactly, and other numbers rounded just as stated.

The instructions are those of cuda_on_cpu/tensor_core.h. Small whole numbers are exact in every precision.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from gpu_convolved import COLS, ROWS, computed, tensors, with_everything
from numpy.typing import NDArray
from planned import defined

from resnet_ref.kernels.conv2d.gpu import source_of
from resnet_ref.kernels.conv2d.tiles import BFLOAT16, TF32, TF32X3, TILES, Tile, Way
from resnet_ref.kernels.geometry import Window, fixed, same, valid

Array = NDArray[Any]
PRECISIONS = (TF32X3, TF32, BFLOAT16)
STATIC_SHARED = 48 << 10  # bytes of a block that no launcher has to ask for
LARGEST = np.finfo(np.float32).max
EPS = float(np.finfo(np.float32).eps)
POINT = valid(1)
HALF = {TF32: 2.0**-11, BFLOAT16: 2.0**-8}  # of a unit in the last place, for numbers in [1, 2)


def require_equal(way: Way, x: Array, w: Array, rows: Window, cols: Window, **options: Any) -> None:
    """To the definition, to the last bit, with an epilogue whose every part matters."""
    epilogue = {**with_everything(x, w, rows, cols), "bound": 9.0}
    got = computed(way, x, w, rows, cols, **epilogue, **options)
    np.testing.assert_array_equal(got, defined(x, w, rows, cols, **epilogue))


def to_bits(value: Array, bits: int, *, ties_to_even: bool = False) -> Array:
    """float64 rounded to a significand of so many bits, to nearest, ties away from zero or to even."""
    significand, exponent = np.frexp(np.asarray(value, np.float64))
    scaled = np.ldexp(significand, bits)
    rounded = np.rint(scaled) if ties_to_even else np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    return np.ldexp(rounded, exponent - bits)


def rounded(precision: str, value: Array) -> Array:
    """What is multiplied in place of the value."""
    if precision == BFLOAT16:
        return to_bits(value, 8, ties_to_even=True)
    big = to_bits(value, 11)
    return big if precision == TF32 else big + to_bits(value - big, 11)


def numbers(seed: int, *shape: int) -> Array:
    """float32 with all their bits, near 2^-20 to 2^20, every tenth just between two of tf32, another of bfloat16."""
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.uniform(1, 2, shape), rng.integers(-20, 20, shape)) * rng.choice([-1, 1], shape)
    kind, scale = rng.integers(0, 10, shape), np.exp2(np.floor(np.log2(np.abs(x))))
    for tie, half in enumerate(HALF.values()):
        x = np.where(kind == tie, (np.floor(x / scale / (2 * half)) * 2 + 1) * half * scale, x)
    return x.astype(np.float32)


def bits_of(array: Array) -> Array:
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


@pytest.mark.parametrize("is_point", [False, True], ids=["taps", "point"])
@pytest.mark.parametrize("c_by_four", [False, True], ids=["C odd", "C / 4"])
@pytest.mark.parametrize(
    ("precision", "tile"), [(p, t) for p in PRECISIONS for t in TILES[p]], ids=lambda it: getattr(it, "name", it)
)
def test_every_tile_equals_the_definition_on_less_and_more_than_it_holds(
    precision: str, tile: Tile, c_by_four: bool, is_point: bool
) -> None:
    """Pixels, filters and taps that fill a part of a tile, or several and a part; alone and split.

    Each tile meets half of the ways to load, F divisible by 4 or not; the next tile the other half.
    """
    rows, cols = (Window(1, 2), Window(1, 1, 3)) if is_point else (ROWS, COLS)
    f_by_four = (c_by_four + is_point + TILES[precision].index(tile)) % 2 == 1
    f = tile.bn + (4 if f_by_four else 5)
    many = tensors(1, (2, 2 * tile.bm // 9 + 1, 9, (12 if c_by_four else 7) * (1 + is_point)), rows, cols, f)
    few = tensors(2, (2, 5, 4, 4 if c_by_four else 3), rows, cols, 8 if f_by_four else 5)
    assert dict(source_of(Way(precision, tile, 1), many[0].shape[3], f, rows, cols).defines)["NVEC"] == f_by_four
    for given, splits in itertools.product((many, few), (1, 2)):
        require_equal(Way(precision, tile, splits), *given)


@pytest.mark.parametrize("order", [0, 1, 7])
@pytest.mark.parametrize("splits", [1, 2, 3, 4])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_splits_sum_every_step_once_in_any_order_of_threads_and_blocks(precision: str, splits: int, order: int) -> None:
    """Several steps, of which not all splits have as many; one step, of which most splits have none."""
    way = Way(precision, TILES[precision][2], splits)
    for given in (tensors(3, (2, 5, 6, 12), ROWS, COLS, 72), tensors(4, (1, 3, 3, 4), same(3, 3), same(3, 2), 8)):
        require_equal(way, *given, order=order)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_results_are_the_same_bits_in_any_order_of_threads_and_blocks(precision: str, splits: int) -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 5, 6, 12)).astype(np.float32)
    w = rng.standard_normal((3, 2, 12, 72)).astype(np.float32)
    way = Way(precision, TILES[precision][2], splits)
    first, *others = (computed(way, x, w, ROWS, COLS, order=order) for order in (0, 1, 7))
    for other in others:
        np.testing.assert_array_equal(bits_of(other), bits_of(first))


WINDOWS = {
    "1x1 in padding": (Window(1, before=2, after=1), Window(1, after=1)),
    "7x7/2": (fixed(7, 2), fixed(7, 2)),
    "3x3 rates 2, 3": (same(7, 3, 1, 2), same(8, 3, 1, 3)),
    "larger than the image": (Window(9, before=4, after=4), Window(11, 3, 1, 5, 5)),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_windows_of_any_size_stride_rate_and_padding(windows: tuple[Window, Window], precision: str) -> None:
    """Also where a word's two channels lie in two taps, and a run of fours in several."""
    for c, f in ((4, 8), (20, 8), (3, 5), (1, 5)):
        require_equal(Way(precision, TILES[precision][2], 1), *tensors(7, (2, 7, 8, c), *windows, f))


HAND = {
    # 1 and a half unit is between two numbers; so is 1 and three halves. Just below, and with the other sign.
    TF32: [(1 + 2**-11, 1 + 2**-10), (1 + 3 * 2**-11, 1 + 2**-9), (1 + 2**-11 - 2**-23, 1), (-1 - 2**-11, -1 - 2**-10)],
    BFLOAT16: [(1 + 2**-8, 1), (1 + 3 * 2**-8, 1 + 2**-6), (1 + 2**-8 + 2**-23, 1 + 2**-7), (-1 - 2**-8, -1)],
    # Two words hold the first and the last. Of the second, 1 leaves 2^-12 (1 + 2^-11), which is a tie again.
    TF32X3: [(1 + 2**-11, 1 + 2**-11), (1 + 2**-12 + 2**-23, 1 + 2**-12 + 2**-22), (1 - 2**-24, 1 - 2**-24)],
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounding_worked_out_by_hand(precision: str) -> None:
    x, want = np.array(HAND[precision], np.float64).T
    np.testing.assert_array_equal(rounded(precision, x), want)
    given, one = x.astype(np.float32).reshape(1, 1, -1, 1), np.ones((1, 1, 1, 1), np.float32)
    way = Way(precision, TILES[precision][2], 1)
    np.testing.assert_array_equal(computed(way, given, one, POINT, POINT).ravel(), want)


@pytest.mark.parametrize(("c", "f"), [(12, 8), (5, 5)])
@pytest.mark.parametrize("precision", [TF32, BFLOAT16])
def test_factors_are_rounded_as_stated_and_products_are_not(precision: str, c: int, f: int) -> None:
    """Each output is one product, which float32 holds: of a pixel all channels but one are zero."""
    x, w = numbers(8, 1, 5, 20, c), numbers(9, 1, 1, c, f)
    x[np.arange(c) != np.arange(100).reshape(1, 5, 20, 1) % c] = 0
    want = rounded(precision, x) @ rounded(precision, w[0, 0])
    assert (want != x.astype(np.float64) @ w[0, 0]).mean() > 0.9
    got = computed(Way(precision, TILES[precision][2], 1), x, w, POINT, POINT)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("c", "f"), [(12, 8), (5, 5)])
def test_three_products_keep_what_two_tf32_hold_of_each_factor(c: int, f: int) -> None:
    """Times a power of two nothing else is lost. Each output is one product."""
    x, powers = numbers(10, 1, 5, 20, c), np.exp2(np.random.default_rng(11).integers(-9, 9, (1, 1, c, f)))
    x[np.arange(c) != np.arange(100).reshape(1, 5, 20, 1) % c] = 0
    way = Way(TF32X3, TILES[TF32X3][2], 1)
    want = rounded(TF32X3, x) @ powers[0, 0]
    assert 0.05 < (want != x.astype(np.float64) @ powers[0, 0]).mean() < 0.5
    np.testing.assert_array_equal(computed(way, x, powers.astype(np.float32), POINT, POINT), want)
    w = numbers(12, 1, 1, c, f)
    ones = (x != 0).astype(np.float32)
    np.testing.assert_array_equal(computed(way, ones, w, POINT, POINT), ones @ rounded(TF32X3, w[0, 0]))


def test_three_products_worked_out_by_hand() -> None:
    """-1 + (1 + 2^-12) (1 + 2^-13) = 2^-12 + 2^-13 + 2^-25: float32 would hold the last, small small is left out."""
    x = np.array([1, 1 + 2**-12], np.float32).reshape(1, 1, 1, 2)
    w = np.array([-1, 1 + 2**-13], np.float32).reshape(1, 1, 2, 1)
    got = computed(Way(TF32X3, TILES[TF32X3][2], 1), x, w, POINT, POINT)
    assert got.item() == 2**-12 + 2**-13


def normal(seed: int, depth: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, 5, 6, depth)), rng.standard_normal((1, 1, depth, 40))
    return x.astype(np.float32), w.astype(np.float32)


@pytest.mark.parametrize("precision", [TF32, BFLOAT16])
@pytest.mark.parametrize("tile", range(3))
def test_sums_err_as_their_rounded_factors_do_neither_more_nor_less(precision: str, tile: int) -> None:
    """More bits than stated would err less than a quarter of the most that four products may."""
    way = Way(precision, TILES[precision][tile], 1)
    u = HALF[precision]
    for depth, least in ((4, u / 2), (512, u / 16)):
        x, w = normal(13, depth)
        want, size = defined(x, w, POINT, POINT), defined(abs(x), abs(w), POINT, POINT)
        error = abs(computed(way, x, w, POINT, POINT) - want) / size
        assert least < error.max() <= 2 * u + u**2 + depth * EPS / 2


@pytest.mark.parametrize("tile", range(3))
def test_three_products_err_no_more_than_float32(tile: int) -> None:
    """Which rounds each of its sums; here every eighth is rounded, three times. Both are bounded, too."""
    for depth in (4, 64, 1024):
        x, w = normal(14, depth)
        want, size = defined(x, w, POINT, POINT), defined(abs(x), abs(w), POINT, POINT)
        plain = np.zeros(want.shape, np.float32)
        for k in range(depth):
            plain = (plain + x[..., k : k + 1].astype(np.float64) * w[0, 0, k]).astype(np.float32)
        for splits in (1, 4) if depth > 4 else (1,):
            error = abs(computed(Way(TF32X3, TILES[TF32X3][tile], splits), x, w, POINT, POINT) - want)
            assert (error <= (2.0**-21 + depth * EPS / 2) * size).all()
            assert error.max() <= (2.0**-21 * size.max() if depth == 4 else abs(plain - want).max())
    assert error.max() > 0


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("c", "f"), [(12, 72), (3, 5)])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_and_infinity_reach_exactly_the_outputs_that_read_them(precision: str, c: int, f: int, splits: int) -> None:
    """In tf32x3 infinity arrives as NaN. An infinite weight meets padding too, and zero times infinity is NaN."""
    x, w, *windows = tensors(9, (2, 7, 6, c), ROWS, COLS, f)
    x[0, 3, 2, 1], x[1, 6, 5, c - 1], w[2, 1, c - 1, 3] = np.nan, np.inf, -np.inf
    for activation in (None, "relu6"):
        sums, want = defined(x, w, *windows), defined(x, w, *windows, activation=activation)
        if precision == TF32X3:
            want = np.where(np.isfinite(sums), want, np.nan)
        got = computed(Way(precision, TILES[precision][2], splits), x, w, *windows, activation=activation)
        np.testing.assert_array_equal(got, want)
    assert 0 < np.isnan(got).sum() < got.size


def test_the_largest_numbers_stay_finite_in_three_products_and_become_infinite_alone() -> None:
    x = np.array([LARGEST, -LARGEST, LARGEST], np.float32).reshape(1, 1, 3, 1)
    w = np.array([0, 0.5, 2**-100], np.float32).reshape(1, 1, 1, 3)
    got = {p: computed(Way(p, TILES[p][2], 1), x, w, POINT, POINT) for p in PRECISIONS}
    np.testing.assert_allclose(got[TF32X3], x.astype(np.float64) @ w[0, 0], rtol=2.0**-21)
    np.testing.assert_array_equal(got[TF32X3][..., 0], 0)
    for precision in (TF32, BFLOAT16):
        assert not np.isfinite(got[precision]).any()
    heavy = computed(Way(TF32X3, TILES[TF32X3][2], 1), np.zeros_like(x), np.full_like(w, LARGEST), POINT, POINT)
    np.testing.assert_array_equal(heavy, 0)


@pytest.mark.parametrize(
    ("precision", "tile"), [(p, t) for p in PRECISIONS for t in TILES[p]], ids=lambda it: getattr(it, "name", it)
)
def test_a_tile_is_shared_out_whole_and_fits_a_block(precision: str, tile: Tile) -> None:
    assert tile.threads == tile.bm // tile.tm * (tile.bn // tile.tn) * 32
    assert tile.blocks * tile.threads <= 2048
    words = tile.bk * (2 if precision == TF32X3 else 1) // (2 if precision == BFLOAT16 else 1)
    assert 2 * 4 * words * (tile.bm + tile.bn + 8) <= STATIC_SHARED
    assert 0 < tile.share < 1
