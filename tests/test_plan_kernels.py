"""Each prepared kernel, as a program of its own, against the definition in float64.

Most inputs are small whole numbers, which float32 adds and multiplies without rounding: there equality is exact. What
lies between a pixel's last channel and the next pixel is NaN, so that reading it shows.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from planned import ISAS, Array, computed, convolved, defined, map_for, target_for, whole

from resnet_ref import kernels
from resnet_ref.kernels.conv2d.direct_planned import direct
from resnet_ref.kernels.conv2d.winograd_planned import winograd
from resnet_ref.kernels.geometry import Window, same, valid
from resnet_ref.kernels.max_pool2d.planned import max_pool
from resnet_ref.kernels.pointwise.planned import add
from resnet_ref.kernels.softmax.planned import softmax
from resnet_ref.kernels.spatial_mean.planned import mean

EPS = float(np.finfo(np.float32).eps)
CHANNELS = [1, 2, 3, 5, 8, 16, 17, 31, 33, 47, 64]
LOWEST = np.finfo(np.float32).min
DEFINITION = kernels.on("definition")
MOST_FLOPS = 1e8
WINOGRADS = {
    f"F({m}x{m}) {name}": partial(winograd, m=m, fused_tiles=tiles)
    for m in (2, 4)
    for name, tiles in (("staged", None), ("fused", 28), ("fused by 3", 3))
}
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
places = {"isa": st.sampled_from(ISAS), "threads": st.integers(1, 4), "seed": st.integers(0, 999)}


@st.composite
def axes(draw: Any, sizes: list[int], strides: int) -> tuple[int, Window]:
    """Input positions along one axis, and a window that fits them, with pads that nobody would choose."""
    n, size, rate = draw(st.integers(1, 20)), draw(st.sampled_from(sizes)), draw(st.integers(1, 3))
    before, after = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    missing = (size - 1) * rate + 1 - n - before - after
    return n, Window(size, draw(st.integers(1, strides)), rate, before, after + max(0, missing))


@st.composite
def epilogues(draw: Any) -> dict[str, Any]:
    return {
        "activation": draw(st.sampled_from([None, "relu", "relu6"])),
        "bound": draw(st.sampled_from([None, 6.0])),
        "residual_stride": draw(st.integers(0, 3)),  # 0: no residual
        "more": draw(st.integers(0, 2)),
    }


def arguments(seed: int, shape: tuple[int, ...], rows: Window, cols: Window, f: int, epilogue: dict[str, Any]) -> Any:
    """Of `convolved` and `defined`: whole numbers, the residual as large as its stride allows, or less."""
    rng = np.random.default_rng(seed)
    n, h, w, c = shape
    stride, size = epilogue["residual_stride"], (rows.out(h), cols.out(w))
    assume(2 * n * size[0] * size[1] * f * c * rows.size * cols.size < MOST_FLOPS)
    options = {"activation": epilogue["activation"], "bias": whole(rng, f)}
    if stride:
        larger = [stride * (length - 1) + 1 + min(epilogue["more"], stride - 1) for length in size]
        options.update(residual=whole(rng, n, *larger, f), residual_stride=stride, bound=epilogue["bound"])
    return (whole(rng, *shape), whole(rng, rows.size, cols.size, c, f), rows, cols), options


@quick
@given(
    n=st.integers(1, 3), vertical=axes([1, 2, 3, 5, 7], 3), horizontal=axes([1, 2, 3, 5, 7], 3),
    c=st.sampled_from(CHANNELS), f=st.sampled_from(CHANNELS), epilogue=epilogues(), dense=st.booleans(), **places,
)  # fmt: skip
def test_a_direct_convolution_is_the_definitions(n, vertical, horizontal, c, f, epilogue, dense, isa, threads, seed):
    (h, rows), (w, cols) = vertical, horizontal
    given, options = arguments(seed, (n, h, w, c), rows, cols, f, epilogue)
    target = target_for(isa, threads)
    y = convolved(target, direct, *given, **options, dense=dense and c < target.library.isa.lanes)
    np.testing.assert_array_equal(y, defined(*given, **options))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("c", "f"), [(513, 33), (1024, 17), (47, 1024), (521, 1), (1, 513), (1031, 512), (64, 1040)])
def test_many_channels_are_summed_in_parts_and_written_in_panels(isa: str, c: int, f: int) -> None:
    rng = np.random.default_rng(c)
    for rows, cols, threads in ((valid(1), valid(1), 2), (same(5, 3), same(4, 2, 2), 3)):
        given = whole(rng, 2, 5, 4, c), whole(rng, rows.size, cols.size, c, f), rows, cols
        residual = whole(rng, 2, rows.out(5), cols.out(4), f)
        options = {"bias": whole(rng, f), "residual": residual, "activation": "relu"}
        y = convolved(target_for(isa, threads), direct, *given, **options)
        np.testing.assert_array_equal(y, defined(*given, **options))


GUARDED = """
import ctypes, mmap
import numpy as np
from planned import ISAS, convolved, defined, target_for, whole
from test_plan_kernels import WINOGRADS
from resnet_ref.kernels.conv2d import convolution, products
from resnet_ref.kernels.conv2d.direct_planned import direct
from resnet_ref.kernels.geometry import same

def floats(*shape):
    # Ends where a page begins that nobody may touch.
    nbytes = 4 * int(np.prod(shape))
    pages = -(-nbytes // 4096) * 4096
    region = mmap.mmap(-1, pages + 4096)
    memory = np.frombuffer(region, np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(memory.ctypes.data + pages), 4096, 0) == 0
    return memory[pages - nbytes : pages].view(np.float32).reshape(shape)

convolution.floats = products.floats = floats
rng = np.random.default_rng(0)
for isa in ISAS:
    for f in (1024, 33, 3):
        given = whole(rng, 1, 5, 4, 6), whole(rng, 3, 3, 6, f), same(5, 3), same(4, 3)
        for method in (direct, WINOGRADS["F(2x2) staged"], WINOGRADS["F(2x2) fused"]):
            np.testing.assert_array_equal(convolved(target_for(isa, 2), method, *given), defined(*given))
print("done")
"""


def test_no_weights_are_read_beyond_their_end() -> None:
    """1024 channels have a vector more between pixels, for which there are no weights."""
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.stdout == "done\n", f"status {done.returncode} {done.stderr}"


@pytest.mark.parametrize("isa", ISAS)
def test_a_convolution_in_blocks_of_large_weights_is_the_definitions(isa: str) -> None:
    """Enough tiles, and weights that are too large to stay in a cache: panel by panel, in blocks of both."""
    rng = np.random.default_rng(0)
    rows, cols = same(19, 3), same(23, 3)
    given = whole(rng, 1, 19, 23, 192), whole(rng, 3, 3, 192, 100), rows, cols
    np.testing.assert_array_equal(convolved(target_for(isa, 2), direct, *given), defined(*given))


def test_the_error_of_a_long_sum_does_not_grow_with_its_length() -> None:
    """Of n numbers of one sign, added one after the other, the error grows as n: here it may not."""
    errors = []
    for c in (512, 4608):
        x = np.random.default_rng(c).uniform(0.5, 1, (1, 8, 9, c)).astype(np.float32)
        given = x, np.full((1, 1, c, 16), 0.7, np.float32), valid(1), valid(1)
        truth = defined(*given)
        errors.append(np.abs(convolved(target_for(ISAS[0]), direct, *given) / truth - 1).max())
    assert errors[1] < 1.5 * errors[0]


@pytest.mark.parametrize("method", WINOGRADS)
@quick
@given(
    n=st.integers(1, 3), vertical=axes([3], 1), horizontal=axes([3], 1), c=st.sampled_from(CHANNELS),
    f=st.sampled_from(CHANNELS), activation=st.sampled_from([None, "relu", "relu6"]), **places,
)  # fmt: skip
def test_winograds_convolution_is_the_definitions(
    method, n, vertical, horizontal, c, f, activation, isa, threads, seed
):
    """F(2x2) multiplies by quarters, so that whole numbers stay exact; F(4x4) by roots."""
    (h, rows), (w, cols) = vertical, horizontal
    epilogue = {"activation": activation, "residual_stride": 0}
    given, options = arguments(seed, (n, h, w, c), rows, cols, f, epilogue)
    y = convolved(target_for(isa, threads), WINOGRADS[method], *given, **options)
    truth = defined(*given, **options)
    assert_winograd(method, y, truth, given)


def assert_winograd(method: str, y: Array, truth: Array, given: tuple[Any, ...]) -> None:
    if "2x2" in method:
        np.testing.assert_array_equal(y, truth)
    else:
        x, w = map(np.abs, given[:2])
        assert np.abs(y - truth).max() <= 8 * EPS * x.max() * w.sum((0, 1, 2)).max()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("method", WINOGRADS)
@pytest.mark.parametrize(("c", "f"), [(513, 5), (3, 1024), (1024, 33)])
def test_winograds_convolution_of_many_channels_is_the_definitions(isa: str, method: str, c: int, f: int) -> None:
    rng = np.random.default_rng(f)
    given = whole(rng, 1, 6, 5, c), whole(rng, 3, 3, c, f), same(6, 3), same(5, 3, 1, 2)
    y, truth = convolved(target_for(isa, 2), WINOGRADS[method], *given), defined(*given)
    assert_winograd(method, y, truth, given)


@quick
@given(n=st.integers(1, 3), vertical=axes([1, 2, 3, 5], 3), horizontal=axes([1, 2, 3, 5], 3),
       c=st.sampled_from([*CHANNELS, 1024]), odd=st.booleans(), **places)  # fmt: skip
def test_max_pooling_is_the_definitions(n, vertical, horizontal, c, odd, isa, threads, seed):
    """With NaN and infinities, and where a window reads nothing but padding."""
    (h, rows), (w, cols) = vertical, horizontal
    rng, target = np.random.default_rng(seed), target_for(isa, threads)
    x = rng.standard_normal((n, h, w, c)).astype(np.float32)
    if odd:
        x[rng.random(x.shape) < 0.3] = np.nan
        x[rng.random(x.shape) < 0.3] = rng.choice([np.inf, -np.inf])
    y = map_for(target, (n, rows.out(h), cols.out(w), c))
    given = map_for(target, x.shape)
    (found,) = computed(target, [max_pool(target, "pool", given, y, rows, cols)], {given: x}, y)
    np.testing.assert_array_equal(found, DEFINITION.max_pool2d(x, rows, cols))


@quick
@given(n=st.integers(1, 3), h=st.integers(1, 20), w=st.integers(1, 20), c=st.sampled_from([*CHANNELS, 513, 1024]),
       stride=st.integers(1, 3), **places)  # fmt: skip
def test_a_strided_copy_is_subsampling(n, h, w, c, stride, isa, threads, seed):
    rng, target = np.random.default_rng(seed), target_for(isa, threads)
    x = rng.standard_normal((n, h, w, c)).astype(np.float32)
    given, y = map_for(target, x.shape), map_for(target, (n, -(-h // stride), -(-w // stride), c))
    step = add(target, "subsample", given, y, stride=stride, activation=None)
    np.testing.assert_array_equal(computed(target, [step], {given: x}, y)[0], x[:, ::stride, ::stride])


@quick
@given(n=st.integers(1, 3), h=st.integers(1, 9), w=st.integers(1, 9), c=st.sampled_from([*CHANNELS, 513, 1024]),
       bounded=st.booleans(), **places)  # fmt: skip
def test_the_end_of_a_unit_is_the_definitions(n, h, w, c, bounded, isa, threads, seed):
    """Bounded, the residual is clipped to [-6, 6] before it is added; NaN stays NaN."""
    rng, target = np.random.default_rng(seed), target_for(isa, threads)
    shortcut, residual = (rng.normal(0, 7, (n, h, w, c)).astype(np.float32) for _ in range(2))
    for number, value in enumerate((np.nan, np.inf, -np.inf)):
        shortcut.flat[number :: 7 + number] = value
        residual.flat[number :: 5 + number] = value
    a, b, y = (map_for(target, (n, h, w, c)) for _ in range(3))
    step = add(target, "sum", a, y, residual=b, activation="relu6" if bounded else "relu")
    kernel = DEFINITION.add_relu6 if bounded else DEFINITION.add_relu
    with np.errstate(invalid="ignore"):
        expected = kernel(shortcut, residual)
    np.testing.assert_array_equal(computed(target, [step], {a: shortcut, b: residual}, y)[0], expected)


@quick
@given(n=st.integers(1, 3), h=st.integers(1, 20), w=st.integers(1, 20), c=st.sampled_from([*CHANNELS, 513, 1024]),
       odd=st.booleans(), **places)  # fmt: skip
def test_the_mean_is_summed_in_float64(n, h, w, c, odd, isa, threads, seed):
    rng, target = np.random.default_rng(seed), target_for(isa, threads)
    x = (rng.standard_normal((n, h, w, c)) + 1000).astype(np.float32)
    if odd:
        x.flat[::11], x.flat[3::13] = np.nan, np.inf
    given, y = map_for(target, x.shape), map_for(target, (n, 1, 1, c))
    (found,) = computed(target, [mean(target, "mean", given, y)], {given: x}, y)
    np.testing.assert_allclose(found, x.astype(np.float64).mean((1, 2), keepdims=True), rtol=0.51 * EPS)


@quick
@given(n=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4), c=st.sampled_from([*CHANNELS, 513, 1000]),
       scale=st.sampled_from([0.0, 1.0, 30.0, 1e4, 3e38]), **places)  # fmt: skip
def test_softmax_is_the_definitions(n, h, w, c, scale, isa, threads, seed):
    rng, target = np.random.default_rng(seed), target_for(isa, threads)
    x = (rng.uniform(-1, 1, (n, h, w, c)) * scale).astype(np.float32)
    given, y = map_for(target, x.shape), map_for(target, x.shape)
    (found,) = computed(target, [softmax(target, "softmax", given, y)], {given: x}, y)
    truth = DEFINITION.softmax(x.astype(np.float64))
    np.testing.assert_allclose(found, truth, rtol=2 * EPS, atol=1e-44)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_softmax_of_nan_and_infinity_is_what_the_definition_makes_of_them(isa: str) -> None:
    inf, nan = np.inf, np.nan
    rows = [
        [1, nan, 3],
        [nan, 2, 3],
        [1, 2, nan],
        [inf, 1, 2],
        [1, inf, inf],
        [-inf, 1, 2],
        [-inf, -inf, -inf],
        [1, 2, 3],
    ]
    x = np.array(rows, np.float32).reshape(1, 2, 4, 3)
    target = target_for(isa)
    given, y = map_for(target, x.shape), map_for(target, x.shape)
    (found,) = computed(target, [softmax(target, "softmax", given, y)], {given: x}, y)
    with np.errstate(invalid="ignore"):
        truth = DEFINITION.softmax(x.astype(np.float64))
    np.testing.assert_allclose(found, truth, rtol=2 * EPS)
    assert np.isfinite(found[0, 1, 1:]).tolist() == [[True] * 3, [False] * 3, [True] * 3]
