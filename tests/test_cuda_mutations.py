"""Planted bugs: each small change to a .cu text must be seen by the tests' ways of looking at it.

Each is compiled and run as the tests run kernels, under the checker; it is seen where the checker objects or a number
is wrong. Some leave every number right, and only the checker can tell.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from cuda_on_cpu.compile import EmulatorError
from cuda_on_cpu.runtime import EmulatedRuntime
from planned import defined, whole

from resnet_ref import kernels
from resnet_ref.kernels import Tier
from resnet_ref.kernels.conv2d.gpu import Epilogue, conv2d_into, workspace_size
from resnet_ref.kernels.conv2d.ladder.rungs import GPU, Rung, ladder
from resnet_ref.kernels.conv2d.tiles import by_name
from resnet_ref.kernels.cuda.launch import Launch
from resnet_ref.kernels.geometry import Window, same

RNG = np.random.default_rng(7)
ROWS, COLS = Window(3, 2, 2, 3, 1), Window(3, 1, 3, 1, 5)
DEFINITION = kernels.on("definition")


class Mutated(NamedTuple):
    """A source with one change."""

    file: str
    text: str
    options: tuple[str, ...]


class Mutant(EmulatedRuntime):
    """Runs one file with one change, the others as they are."""

    def __init__(self, file: str, old: str, new: str) -> None:
        super().__init__(order=5)
        self._change = file, old, new
        self.changed = 0

    def launch(self, launch: Launch) -> None:
        """Counts the launches of what was changed."""
        file, old, new = self._change
        source = launch.source
        if source.file == file:
            assert old in source.text, f"nothing to plant: {old!r} is not in {file}"
            self.changed += 1
            launch = launch._replace(source=Mutated(file, source.text.replace(old, new), source.options))  # type: ignore[arg-type]
        super().launch(launch)


def convolution(
    way: str, shape: tuple[int, ...], depth: int, rows: Window = ROWS, cols: Window = COLS, stride: int = 1, **how: Any
) -> Callable[[EmulatedRuntime], None]:
    """Runs one by the named way, with everything an epilogue can have."""

    def run(runtime: EmulatedRuntime) -> None:
        x, w = whole(RNG, *shape), whole(RNG, rows.size, cols.size, shape[3], depth)
        x[0, 3, 3, 1] = np.nan  # for those who read it alone
        size = (shape[0], rows.out(shape[1]), cols.out(shape[2]), depth)
        residual = whole(RNG, size[0], size[1] * stride - stride + 1, size[2] * stride, depth)
        given = {
            "bias": whole(RNG, depth),
            "residual": residual,
            "residual_stride": stride,
            "activation": "relu6",
            **how,
        }
        bound = given.pop("bound", math.inf)
        found = by_name("float32", f"float32 {way}")
        assert found is not None
        there = [None if a is None else runtime.upload(a) for a in (given["bias"], given["residual"])]
        epilogue = Epilogue(*there, given["residual_stride"], given["activation"], bound)
        y = runtime.empty(size, np.float32)
        needed = workspace_size(found, y.size // depth, depth)
        workspace = runtime.empty((needed,), np.float32) if needed else None
        conv2d_into(runtime, runtime.upload(x), runtime.upload(w), rows, cols, epilogue, y, found, workspace)
        want = defined(x, w, rows, cols, **given, bound=None if bound == math.inf else bound)
        np.testing.assert_array_equal(runtime.download(y), want)

    return run


def climbed(rung: Rung, shape: tuple[int, ...], depth: int) -> Callable[[EmulatedRuntime], None]:
    """Runs a convolution by a rung of the ladder, with a whole epilogue."""

    def run(runtime: EmulatedRuntime) -> None:
        x, w = whole(RNG, *shape), whole(RNG, ROWS.size, COLS.size, shape[3], depth)
        residual = whole(RNG, shape[0], ROWS.out(shape[1]) * 2 - 1, COLS.out(shape[2]) * 2, depth)
        given = {"bias": whole(RNG, depth), "residual": residual, "residual_stride": 2, "activation": "relu"}
        there = {name: runtime.upload(a) if isinstance(a, np.ndarray) else a for name, a in given.items()}
        y = rung.tier(runtime).conv2d(runtime.upload(x), runtime.upload(w), ROWS, COLS, **there)
        np.testing.assert_array_equal(runtime.download(y), defined(x, w, ROWS, COLS, **given))

    return run


def called(kernel: str, *args: Any, exact: bool = True, **how: Any) -> Callable[[EmulatedRuntime], None]:
    """Calls a kernel of a tier."""

    def call(tier: Tier, wide: bool) -> Any:
        given = [a.astype(np.float64) if wide and isinstance(a, np.ndarray) else a for a in args]
        return getattr(tier, kernel)(*given, **how)

    def run(runtime: EmulatedRuntime) -> None:
        got, want = call(kernels.for_numpy(kernels.on_runtime(runtime)), False), call(DEFINITION, not exact)
        for ours, true in zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]:
            np.testing.assert_allclose(ours, true, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)

    return run


def values(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


PLAIN = convolution("64x64", (2, 9, 8, 12), 72)
SPLIT = convolution("64x64 split 3", (2, 9, 8, 12), 8, bound=3.0, activation="relu", stride=2)
ODD = convolution("64x64", (2, 9, 8, 3), 5)
POINT = convolution("32x64", (1, 5, 7, 20), 12, Window(1, 2), Window(1), bias=None, residual=None, activation=None)
WITH_NAN = np.where(RNG.random((2, 6, 5, 7)) < 0.2, np.nan, values(2, 6, 5, 7) - 3).astype(np.float32)
POOL = called("max_pool2d", WITH_NAN, same(6, 3, 2), same(5, 3, 2))
SOFTMAX = called("softmax", values(3, 300) * 60, exact=False)
STATISTICS = called("batch_statistics", values(3, 17, 13, 35) + 30, exact=False)
MEAN = called("spatial_mean", values(3, 5, 9, 35) + 3, exact=False)
ONE_THREAD, COALESCED = (climbed(rung, (2, 9, 8, 3), 5) for rung in ladder(GPU)[:2])
SHARED, REGISTERS = (climbed(rung, (2, 9, 8, 12), 69) for rung in ladder(GPU)[2:4])
LADDER = "conv2d/ladder/gpu"
CONV, EDGE = "conv2d/gpu.cu", "(unsigned)column < (unsigned)conv.w"

# file, what stands there, what is planted, what runs it
PLANTED: dict[str, tuple[str, str, str, Callable[[EmulatedRuntime], None]]] = {
    "columns outside of the image are read": (CONV, f" && {EDGE}", "", PLAIN),
    "a column too many is taken for inside": (CONV, EDGE, "(unsigned)column <= (unsigned)conv.w", PLAIN),
    "rows behind the kernel's last tap are read": (CONV, "tap.ky < conv.kh && ", "", PLAIN),
    "the rates are exchanged": (CONV, "pixel.top + tap.ky * conv.rate_y", "pixel.top + tap.ky * conv.rate_x", PLAIN),
    "the padding is forgotten": (CONV, "conv.stride_x - conv.before_x", "conv.stride_x", PLAIN),
    "pixels behind the last are gathered": (CONV, "m >= conv.n * conv.oh * conv.ow", "m < 0", PLAIN),
    "the walk over taps skips a row": (CONV, "++tap.ky;", "tap.ky += 2;", PLAIN),
    "weights behind the last row are read": (
        CONV,
        "row < depth && column < conv.f)\n                b",
        "column < conv.f)\n                b",
        PLAIN,
    ),
    "weights behind the last column are read": (
        CONV,
        "row < depth && column < conv.f)\n                b",
        "row < depth)\n                b",
        PLAIN,
    ),
    "the barrier of the loop is missing": (
        CONV,
        "store(tiles[buffer ^ 1]);\n        __syncthreads();",
        "store(tiles[buffer ^ 1]);",
        PLAIN,
    ),
    "the first barrier is missing": (CONV, "store(tiles[0]);\n    __syncthreads();", "store(tiles[0]);", PLAIN),
    "the next step overwrites what is multiplied": (CONV, "store(tiles[buffer ^ 1])", "store(tiles[buffer])", PLAIN),
    "outputs behind the last pixel are written": (CONV, "if (m >= rows)", "if (m > rows)", PLAIN),
    "outputs behind the last channel are written": (
        CONV,
        "if (column < f)\n        *",
        "if (column <= f)\n        *",
        PLAIN,
    ),
    "single outputs behind the last channel are written": (CONV, "if (column + j < f)", "if (column < f)", ODD),
    "a thread's rows of A overlap": (CONV, "+ i * (THREADS / BK); }", "+ i * (THREADS / BK - 1); }", ODD),
    "fours begin at odd addresses": (CONV, "threadIdx.x % 2 * 4", "threadIdx.x % 2 * 3", PLAIN),
    "a kernel of one tap reads behind its channels": (
        CONV,
        "pixel.top >= 0 && tap.channel < conv.c",
        "pixel.top >= 0",
        POINT,
    ),
    "all splits write the same sums": (CONV, "y += (size_t)blockIdx.z * rows * f;", "", SPLIT),
    "a split sums a step too many": (CONV, "first_k + k_per_split)", "first_k + k_per_split + BK)", SPLIT),
    "NaN is lost in the activation": (
        CONV,
        "return v < low ? low : v > high ? high : v;",
        "return v > low ? v < high ? v : high : low;",
        called(
            "conv2d",
            np.full((1, 2, 3, 4), np.nan, np.float32),
            values(1, 1, 4, 4),
            Window(1),
            Window(1),
            activation="relu6",
        ),
    ),
    "the last split is left out": ("conv2d/reduce.cu", "z < splits", "z < splits - 1", SPLIT),
    "the clip comes after the residual": (
        "conv2d/reduce.cu",
        "    sum = clamp(sum, -epilogue.bound, epilogue.bound);\n",
        "",
        SPLIT,
    ),
    "the residual is read without its stride": ("conv2d/reduce.cu", "epilogue.residual_stride == 1", "true", SPLIT),
    "the bias is another channel's": ("conv2d/reduce.cu", "epilogue.bias + n", "epilogue.bias + (n ^ 1)", SPLIT),
    "im2col forgets the padding": (
        "conv2d/im2col.cu",
        "is_inside(pixel, tap, conv) ?",
        "true ?",
        called("im2col", values(2, 7, 6, 3), ROWS, COLS),
    ),
    "threads behind the last output go on": (
        f"{LADDER}/one_thread.cu",
        "number >= pixels * f",
        "number > pixels * f",
        ONE_THREAD,
    ),
    "a pixel is taken for a filter": (
        f"{LADDER}/coalesced.cu",
        "m = number / f, filter = number % f",
        "m = number % f, filter = number / f",
        COALESCED,
    ),
    "shared tiles are read before they are there": (
        f"{LADDER}/shared_tiles.cu",
        "__syncthreads();  // the tiles are there",
        "",
        SHARED,
    ),
    "shared tiles are overwritten while they are read": (
        f"{LADDER}/shared_tiles.cu",
        "__syncthreads();  // nobody",
        "// nobody",
        SHARED,
    ),
    "a tile's row goes on in the next row of the matrix": (
        f"{LADDER}/shared_tiles.cu",
        "m < rows && k + tx < depth",
        "m < rows",
        SHARED,
    ),
    "register tiles are overwritten while they are read": (
        f"{LADDER}/register_tiles.cu",
        "__syncthreads();  // nobody",
        "// nobody",
        REGISTERS,
    ),
    "a thread multiplies one row of its tile and writes another": (
        f"{LADDER}/register_tiles.cu",
        "a[ty + i * ROWS][k]",
        "a[ty * TM + i][k]",
        REGISTERS,
    ),
    "a tile's channels behind the last are written": (
        f"{LADDER}/register_tiles.cu",
        "if (n < f)",
        "if (n <= f)",
        REGISTERS,
    ),
    "padding wins a maximum": ("max_pool2d/gpu.cu", "-3.402823466e+38f", "0.0f", POOL),
    "NaN wins a maximum": (
        "max_pool2d/gpu.cu",
        "value > largest ? value : largest",
        "value <= largest ? largest : value",
        POOL,
    ),
    "a pool reads the row below the image": ("max_pool2d/gpu.cu", "iy >= height", "iy > height", POOL),
    "softmax is not shifted": ("softmax/gpu.cu", "expf(x[c] - largest)", "expf(x[c])", SOFTMAX),
    "softmax joins threads without a barrier": (
        "softmax/gpu.cu",
        "half /= 2) {\n        __syncthreads();",
        "half /= 2) {",
        SOFTMAX,
    ),
    "warps' sums are read before they are there": (
        "spatial_mean/gpu.cu",
        "= sum;\n    __syncthreads();",
        "= sum;",
        MEAN,
    ),
    "a warp's sum is left out": ("spatial_mean/gpu.cu", "warp < WARPS; ++warp", "warp < WARPS - 1; ++warp", MEAN),
    "the mean is of all images": ("spatial_mean/gpu.cu", "x += image * pixels * channels;", "", MEAN),
    "channels behind the last are summed": ("batch_norm/gpu.cu", "if (place.is_inside)", "if (true)", STATISTICS),
    "squares are not of distances from the mean": (
        "batch_norm/gpu.cu",
        "x[row * channels + place.channel] - centre",
        "x[row * channels + place.channel]",
        STATISTICS,
    ),
    "rows lie in two pieces": (
        "batch_norm/gpu.cu",
        "for (long long row = first + place.warp; row < last; row += WARPS)\n            sum",
        "for (long long row = first + place.warp; row <= last; row += WARPS)\n            sum",
        STATISTICS,
    ),
    "subsample takes the next row": (
        "subsample/gpu.cu",
        "oy * factor;",
        "oy * factor + 1;",
        called("subsample", values(2, 7, 5, 3), 3),
    ),
    "the shortcut is clipped too": (
        "pointwise/gpu.cu",
        "shortcut[i] + clamp(residual[i], -bound, bound)",
        "clamp(shortcut[i] + residual[i], -bound, bound)",
        called("add_relu6", values(2, 300) * 9, values(2, 300) * 9),
    ),
    "values behind the last are written": (
        "pointwise/gpu.cu",
        "i < count; i += step)\n        y[i] = clamp(x[i]",
        "i <= count; i += step)\n        y[i] = clamp(x[i]",
        called("relu", values(2, 300)),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_seen(name: str) -> None:
    file, old, new, run = PLANTED[name]
    mutant = Mutant(file, old, new)
    with pytest.raises((EmulatorError, AssertionError)) as seen:
        run(mutant)
    assert mutant.changed, "what was planted did not run"
    assert "nothing to plant" not in str(seen.value), seen.value
    assert "g++ fails" not in str(seen.value), seen.value


@pytest.mark.parametrize("order", [0, 1, 5])
def test_without_a_planted_bug_nothing_is_seen(order: int) -> None:
    for run in {id(run): run for *_, run in PLANTED.values()}.values():
        run(EmulatedRuntime(order=order))
