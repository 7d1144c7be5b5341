"""The rungs of conv2d/ladder on a gpu: each computes the definition. What they load from memory:
test_ladder_gpu_loads.py.

Inputs are small whole numbers: their sums of products are exact in any order, and on tensor cores. The emulated device
looks at every access.
"""

import difflib
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.memory import DeviceArray
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_convolved import COLS, ROWS, runtime_of, tensors, uploaded, with_everything
from launches import Recorder, Shaped
from numpy.typing import NDArray
from planned import defined
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


def computed(rung: Rung, x: Array, w: Array, rows: Window, cols: Window, order: int = 0, **epilogue: Any) -> Array:
    """By the rung, with arrays in NumPy."""
    runtime = runtime_of(order)
    there = uploaded(runtime, epilogue)
    y = rung.tier(runtime).conv2d(runtime.upload(x), runtime.upload(w), rows, cols, **there)
    assert epilogue.get("out") is None or y is there["out"]
    return runtime.download(y)


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
            there = uploaded(runtime, epilogue)
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


def test_the_sanitizers_script_climbs_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import gpu_kernels_once

    (runtime,) = Gpus(monkeypatch)
    assert gpu_kernels_once.check_ladder(runtime) == {rung.name for rung in RUNGS}
