"""The rungs of conv2d/ladder on a gpu: each computes the definition, and loads from memory what its text says.

Inputs are small whole numbers: their sums of products are exact in any order, and on tensor cores. The emulated device
looks at every access.
"""

import ctypes
import difflib
import itertools
import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cuda_on_cpu.compile import library
from cuda_on_cpu.memory import DeviceArray
from cuda_on_cpu.runtime import EmulatedRuntime
from launches import Recorder, Shaped
from numpy.typing import NDArray
from planned import defined, whole
from tiers import Gpus

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.conv2d import gpu
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.conv2d.ladder.rungs import GPU, Rung, ladder
from resnet_ref.kernels.cuda.launch import FOLDER, Launch
from resnet_ref.kernels.geometry import Window, fixed, same, valid

Array = NDArray[Any]
RUNGS = one_thread, coalesced, shared_tiles, register_tiles, implicit_gemm, tensor_cores = ladder(GPU)
OWN = RUNGS[:4]  # with a kernel of their own
PRODUCTION = {implicit_gemm: "float32", tensor_cores: "tf32x3"}
# In each axis another size, stride, rate and padding.
ROWS, COLS = Window(3, 2, 1, 1, 2), Window(2, 1, 3, 2, 0)
WINDOWS = {
    "1x1": (valid(1), valid(1)),
    "1x1/3x2 in padding": (Window(1, 3, before=2, after=1), Window(1, 2, after=1)),
    "1x4": (valid(1), same(8, 4)),
    "7x7/2": (fixed(7, 2), fixed(7, 2)),
    "3x3 rates 2, 3": (same(7, 3, 1, 2), same(8, 3, 1, 3)),
    "all different": (ROWS, COLS),
    "more padding than taps": (Window(2, before=4, after=5), Window(3, 2, 1, 6, 3)),
    "larger than the image": (Window(9, before=4, after=4), Window(11, 3, 1, 5, 5)),
}
every_rung = pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.file)


@cache
def runtime_of(order: int) -> EmulatedRuntime:
    return EmulatedRuntime(order=order)


def computed(rung: Rung, x: Array, w: Array, rows: Window, cols: Window, order: int = 0, **epilogue: Any) -> Array:
    """By the rung, with arrays in NumPy."""
    runtime = runtime_of(order)
    there = {name: runtime.upload(a) if isinstance(a, np.ndarray) else a for name, a in epilogue.items()}
    y = rung.tier(runtime).conv2d(runtime.upload(x), runtime.upload(w), rows, cols, **there)
    assert epilogue.get("out") is None or y is there["out"]
    return runtime.download(y)


def tensors(seed: int, x: tuple[int, ...], rows: Window, cols: Window, f: int) -> tuple[Array, Array, Window, Window]:
    """Whole numbers, and the windows."""
    rng = np.random.default_rng(seed)
    return whole(rng, *x), whole(rng, rows.size, cols.size, x[3], f), rows, cols


def with_everything(x: Array, w: Array, rows: Window, cols: Window, stride: int = 2) -> dict[str, Any]:
    """An epilogue whose every part matters."""
    rng = np.random.default_rng(5)
    shape = (x.shape[0], rows.out(x.shape[1]), cols.out(x.shape[2]), w.shape[3])
    # The last row of pixels that the stride reaches is followed by others, the last column is not.
    residual = whole(rng, shape[0], shape[1] * stride, shape[2] * stride - stride + 1, shape[3])
    return {"bias": whole(rng, w.shape[3]), "residual": residual, "residual_stride": stride, "activation": "relu6"}


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
@every_rung
def test_a_rung_computes_the_definition(rung: Rung, windows: tuple[Window, Window]) -> None:
    for c, f in ((3, 5), (4, 8), (2, 7), (1, 1)):
        given = tensors(1, (2, 7, 8, c), *windows, f)
        epilogue = with_everything(*given)
        np.testing.assert_array_equal(computed(rung, *given, **epilogue), defined(*given, **epilogue))
        np.testing.assert_array_equal(computed(rung, *given), defined(*given))


@pytest.mark.parametrize("order", [0, 1, 7])
@every_rung
def test_more_than_a_tile_in_every_direction_and_in_any_order_of_threads_and_blocks(rung: Rung, order: int) -> None:
    """K is no multiple of a step, and no tile is whole at the edges."""
    given = tensors(2, (3, 15, 9, 7), ROWS, COLS, 67)
    epilogue = with_everything(*given)
    want = defined(*given, **epilogue)
    assert math.prod(want.shape[:3]) == 3 * 8 * 8
    np.testing.assert_array_equal(computed(rung, *given, order=order, **epilogue), want)


@every_rung
def test_results_are_the_same_bits_in_any_order_of_threads_and_blocks(rung: Rung) -> None:
    rng = np.random.default_rng(3)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 9, 8, 12), (3, 2, 12, 35)))
    first, *others = (computed(rung, x, w, ROWS, COLS, order=order) for order in (0, 1, 7))
    np.testing.assert_allclose(first, defined(x, w, ROWS, COLS), rtol=0, atol=3e-5)
    for other in others:
        assert first.tobytes() == other.tobytes()


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@every_rung
def test_every_part_of_an_epilogue_can_be_left_out(rung: Rung, activation: str | None) -> None:
    given = tensors(4, (2, 5, 6, 3), same(5, 3), same(6, 2), 5)
    shape = defined(*given).shape
    for with_bias, stride, with_out in itertools.product((False, True), (0, 1, 3), (False, True)):
        epilogue = {**with_everything(*given, stride=stride or 1), "activation": activation}
        if not with_bias:
            del epilogue["bias"]
        if not stride:
            del epilogue["residual"]
        out = np.full(shape, 77, np.float32) if with_out else None
        np.testing.assert_array_equal(computed(rung, *given, **epilogue, out=out), defined(*given, **epilogue))


@every_rung
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_and_infinity_reach_exactly_the_outputs_that_read_them(rung: Rung) -> None:
    """An infinite weight meets padding too: zero times infinity is NaN, as on every tier."""
    x, w, *windows = tensors(6, (2, 7, 6, 3), ROWS, COLS, 5)
    x[0, 3, 2, 1], x[1, 6, 5, 2], w[2, 1, 2, 3] = np.nan, np.inf, -np.inf
    want = defined(x, w, *windows)
    if rung is tensor_cores:  # see tensor_cores.md
        want = np.where(np.isinf(want), np.nan, want)
    np.testing.assert_array_equal(computed(rung, x, w, *windows), want)


class Recording(EmulatedRuntime):
    """Notes what is launched."""

    def __init__(self) -> None:
        super().__init__(check=False)
        self.launches: list[Launch] = []

    def launch(self, launch: Launch) -> None:
        self.launches.append(launch)
        super().launch(launch)


def described(launch: Launch) -> tuple[Any, ...]:
    """All of a launch, but for where its arrays lie."""
    arguments = [a.shape if isinstance(a, DeviceArray) else a for a in launch.arguments]
    return (*launch[:4], arguments)


@pytest.mark.parametrize("rung", PRODUCTION, ids=lambda rung: rung.precision)
def test_the_top_rungs_launch_what_production_launches(rung: Rung) -> None:
    """Split and not, in fours and one by one, one tap and several."""
    for x, windows, f in (
        ((1, 7, 7, 96), (same(7, 3), same(7, 3)), 8),
        ((2, 9, 8, 3), (ROWS, COLS), 5),
        ((2, 5, 4, 8), (valid(1), valid(1)), 64),
    ):
        given = tensors(8, x, *windows, f)
        epilogue = with_everything(*given)
        seen = []
        ways = (lambda *args, runtime, **options: rung.tier(runtime).conv2d(*args, **options)), gpu.conv2d
        for how in ways:
            runtime = Recording()
            there = {name: runtime.upload(a) if isinstance(a, np.ndarray) else a for name, a in epilogue.items()}
            options = {} if how is ways[0] else {"precision": PRODUCTION[rung]}
            how(*map(runtime.upload, given[:2]), *windows, **there, runtime=runtime, **options)
            seen.append([described(launch) for launch in runtime.launches])
        assert seen[0] == seen[1]
        assert len(seen[0]) == (2 if x[3] == 96 else 1)


def test_the_rungs_between_make_the_matrix_with_productions_im2col() -> None:
    given = tensors(9, (2, 9, 8, 3), ROWS, COLS, 5)
    for rung, kernels in (
        (one_thread, ["conv_one_thread"]),
        (coalesced, ["conv_coalesced"]),
        (shared_tiles, ["im2col", "conv_shared_tiles"]),
        (register_tiles, ["im2col", "conv_register_tiles"]),
    ):
        runtime = Recording()
        rung.tier(runtime).conv2d(*map(runtime.upload, given[:2]), ROWS, COLS)
        assert [launch.kernel for launch in runtime.launches] == kernels
        assert [launch.source for launch in runtime.launches[:-1]] == [gpu.IM2COL] * (len(kernels) - 1)


def launched(rung: Rung, x: tuple[int, ...], f: int) -> tuple[tuple[int, ...], list[Launch]]:
    """The output's shape, and the launches, of a convolution with one tap."""
    recorder = Recorder()
    problem = Problem(Shaped(x), Shaped((1, 1, x[3], f)), valid(1), valid(1))  # type: ignore[arg-type]
    rung.module.convolve(problem, Shaped(problem.shape), recorder)
    return problem.shape, recorder.launches


@every_rung
def test_an_empty_batch_launches_nothing(rung: Rung) -> None:
    shape, launches = launched(rung, (0, 7, 5, 4), 6)
    assert shape == (0, 7, 5, 6)
    assert all(launch.is_empty for launch in launches)
    given = tensors(10, (0, 7, 8, 3), ROWS, COLS, 5)
    assert computed(rung, *given, **with_everything(*given)).shape == (0, 4, 7, 5)


@every_rung
def test_the_largest_arrays_are_launched_and_larger_ones_refused(rung: Rung) -> None:
    assert launched(rung, (2047, 1024, 1024, 1), 1)[1]
    with pytest.raises(DeviceError, match="give fewer images at a time"):
        launched(rung, (2048, 1024, 1024, 1), 1)
    # All arrays are within bounds, but the threads behind the last pixel would have numbers that no int holds.
    with pytest.raises(DeviceError, match="counts to; give fewer images at a time"):
        launched(rung, (1, 1, (1 << 31) - 1, 1), 1)


@every_rung
def test_more_filters_than_a_grids_second_axis_has_blocks_are_launched(rung: Rung) -> None:
    *_, last = launched(rung, (1, 2, 3, 1), 70000)[1]
    assert math.prod(last.grid) * last.block >= 6 * 70000 / 64


@pytest.mark.parametrize(
    ("rung", "tile"), [(shared_tiles, (32, 32)), (register_tiles, (128, 64))], ids=["shared", "registers"]
)
def test_the_grid_covers_every_output_and_no_block_has_none(rung: Rung, tile: tuple[int, int]) -> None:
    for n, f in itertools.product((1, 31, 32, 33, 128, 129), (1, 32, 64, 65)):
        grid = launched(rung, (n, 1, 1, 3), f)[1][-1].grid
        assert grid == (math.ceil(n / tile[0]), math.ceil(f / tile[1]), 1)


def test_from_the_first_rung_to_the_second_one_line_of_the_kernel_changes() -> None:
    texts = [Path(FOLDER, rung.module.SOURCE.file).read_text("utf-8").split("#define", 1)[1] for rung in OWN[:2]]
    first, second = (text.replace("conv_one_thread", "conv_coalesced").splitlines() for text in texts)
    changed = [line for line in difflib.ndiff(first, second) if line[0] in "+-"]
    assert [line[0] for line in changed] == ["-", "+"]


# What kernels load. Each text is compiled with a __ldg that notes its address before it reads.
NOTING = """
extern "C" __attribute__((visibility("default"))) long long *noted = (long long *)1;
static __attribute__((no_sanitize("thread"), noinline)) void note(const void *address, int bytes)
{
    noted[0] = blockIdx.x + (long long)gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    noted[1] = threadIdx.x;
    noted[2] = (long long)address;
    noted[3] = bytes;
    noted += 4;
}
template <class T>
static T noting(const T *address)
{
    note(address, sizeof(T));
    return *address;
}
#define __ldg noting
"""
MOST_NOTES = 1 << 20
SECTOR = 32  # bytes


class Noting(NamedTuple):
    """A source whose loads are noted."""

    file: str
    text: str
    options: tuple[str, ...]


class Loads(NamedTuple):
    """Of one array by one kernel. requests: loads by whole warps. sectors: that each of them touches, together."""

    numbers: int
    requests: int
    sectors: int


class Noted(EmulatedRuntime):
    """Notes the loads of every kernel: {(kernel, number of the argument): Loads}."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: dict[tuple[str, int], Loads] = {}

    def launch(self, launch: Launch) -> None:
        noting = Noting(launch.source.file, NOTING + launch.source.text, launch.source.options)
        pointer = ctypes.c_void_p.in_dll(library(noting, True)._library, "noted")
        notes = np.zeros((MOST_NOTES, 4), np.int64)
        pointer.value = notes.ctypes.data
        super().launch(launch._replace(source=noting))  # type: ignore[arg-type]
        self.synchronize()
        assert pointer.value is not None
        notes = notes[: (pointer.value - notes.ctypes.data) // notes[0].nbytes]
        for i, argument in enumerate(launch.arguments):
            if isinstance(argument, DeviceArray):
                begin = argument.allocation.bytes.ctypes.data + argument.place.offset
                of_it = notes[(notes[:, 2] >= begin) & (notes[:, 2] < begin + argument.nbytes)]
                if len(of_it):
                    self.loads[launch.kernel, i] = loads(of_it)


def loads(notes: Array) -> Loads:
    """What the threads of a warp load by the same instruction is one request."""
    block, thread, address, size = notes.T
    of_thread = block * 1024 + thread
    order = np.argsort(of_thread, kind="stable")
    block, thread, address, size = notes[order].T
    begins = np.flatnonzero(np.diff(of_thread[order], prepend=-1))
    turn = np.arange(len(notes)) - np.repeat(begins, np.diff(begins, append=len(notes)))
    request = (block * 32 + thread // 32) * len(notes) + turn
    touched = np.unique(np.stack([request, address // SECTOR]), axis=1)  # fours never cross a sector
    return Loads(int(size.sum()) // 4, len(np.unique(request)), touched.shape[1])


# M = 128 pixels, none of whose windows reaches outside, K = 32, F = 64. A rung reads the residual just where it then
# writes y, so that its loads tell of the writes.
TAPS, ONE = Window(2), Window(1)
M, K, F = 128, 32, 64


@cache
def loads_of(rung: Rung) -> dict[tuple[str, int], Loads]:
    given = tensors(11, (1, 5, 32, 16), TAPS, ONE, F)
    epilogue = {**with_everything(*given, stride=1), "bias": None}
    runtime = Noted()
    there = {name: runtime.upload(a) if isinstance(a, np.ndarray) else a for name, a in epilogue.items()}
    y = rung.tier(runtime).conv2d(*map(runtime.upload, given[:2]), TAPS, ONE, **there)
    want = defined(*given, **epilogue)
    assert want.shape == (1, 4, 32, F)
    assert given[1].size == K * F
    np.testing.assert_array_equal(runtime.download(y), want)
    return runtime.loads


LEFT, WEIGHTS, RESIDUAL = 0, 1, 3  # arguments; the left factor is x, or the matrix


def per_request(rung: Rung, kernel: str) -> list[float]:
    """The sectors that a warp touches at a time in the left factor, in the weights, and in the residual."""
    found = [loads_of(rung)[kernel, array] for array in (LEFT, WEIGHTS, RESIDUAL)]
    return [one.sectors / one.requests for one in found]


def test_a_warp_of_the_first_rung_touches_33_sectors_for_32_products_and_one_of_the_second_5() -> None:
    assert per_request(one_thread, "conv_one_thread") == [32, 1, 32]
    assert per_request(coalesced, "conv_coalesced") == [1, 4, 4]


def test_from_8_channels_on_each_number_of_x_that_a_warp_of_the_first_rung_loads_has_a_sector_of_its_own() -> None:
    for channels, sectors in ((4, 16), (8, 32), (64, 32)):
        x, w, *windows = tensors(12, (1, 1, 32, channels), ONE, ONE, 1)
        runtime = Noted()
        one_thread.tier(runtime).conv2d(runtime.upload(x), runtime.upload(w), *windows)
        found = runtime.loads["conv_one_thread", LEFT]
        assert found.sectors / found.requests == sectors


def test_tiles_are_fetched_and_outputs_written_in_the_fewest_sectors() -> None:
    assert per_request(shared_tiles, "conv_shared_tiles") == [4, 4, 4]
    assert per_request(register_tiles, "conv_register_tiles") == [4, 4, 4]


def test_a_number_is_loaded_as_often_as_the_texts_say() -> None:
    """Of the left factor M * K numbers are multiplied, of the weights K * F."""
    for rung, bm, bn in (
        (one_thread, 1, 1),
        (coalesced, 1, 1),
        (shared_tiles, 32, 32),
        (register_tiles, register_tiles.module.BM, register_tiles.module.BN),
    ):
        found = loads_of(rung)
        kernel = f"conv_{rung.file}"
        left, weights = found[kernel, LEFT].numbers, found[kernel, WEIGHTS].numbers
        assert (left, weights) == (M * K * F // bn, K * F * M // bm)
        assert (left + weights) / (M * K * F) == 1 / bm + 1 / bn
        matrix = found.get(("im2col", 0))
        assert (matrix.numbers if matrix else 0) == (M * K if bm > 1 else 0)


def test_production_gathers_x_in_fours_and_makes_no_matrix() -> None:
    way = gpu.ways(runtime_of(0), (1, 5, 32, 16), (2, 1, 16, F), TAPS, ONE)[0]
    found = loads_of(implicit_gemm)
    assert {kernel for kernel, _ in found} == {"conv_float32"}
    x, weights = found["conv_float32", LEFT], found["conv_float32", WEIGHTS]
    assert (x.numbers, weights.numbers) == (M * K * F // way.tile.bn, K * F * M // way.tile.bm)
    for one in (x, weights):
        assert one.requests * 32 * 4 == one.numbers  # a thread four, a warp 512 bytes
        assert one.sectors * SECTOR == one.numbers * 4


def test_from_rung_to_rung_fewer_sectors_are_touched() -> None:
    """By what is loaded, and by im2col when it writes the matrix, whose sectors are written whole."""
    sectors = [sum(one.sectors for one in loads_of(rung).values()) for rung in (*OWN, implicit_gemm)]
    for i, rung in enumerate(OWN):
        sectors[i] += M * K * 4 // SECTOR if ("im2col", 0) in loads_of(rung) else 0
    assert sectors == sorted(sectors, reverse=True)
    assert sectors[0] > 6 * sectors[1] > 60 * sectors[2]


def test_the_sanitizers_script_climbs_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import gpu_kernels_once

    (runtime,) = Gpus(monkeypatch)
    assert gpu_kernels_once.check_ladder(runtime) == {rung.name for rung in RUNGS}
