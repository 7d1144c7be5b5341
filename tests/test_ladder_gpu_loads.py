"""The rungs of conv2d/ladder on a gpu: each loads from memory what its text says, and as many sectors.

That they compute the definition: test_ladder_gpu.py.
"""

import ctypes
from functools import cache
from typing import NamedTuple

import numpy as np
from cuda_on_cpu.compile import library
from cuda_on_cpu.memory import DeviceArray
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_convolved import runtime_of, tensors, uploaded, with_everything
from planned import Array, defined

from resnet_ref.kernels.conv2d import gpu
from resnet_ref.kernels.conv2d.ladder.rungs import GPU, Rung, ladder
from resnet_ref.kernels.cuda.launch import Launch
from resnet_ref.kernels.geometry import Window

RUNGS = one_thread, coalesced, shared_tiles, register_tiles, implicit_gemm, _ = ladder(GPU)
OWN = RUNGS[:4]  # with a kernel of their own

# Each text is compiled with a __ldg that notes its address before it reads.
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
    there = uploaded(runtime, epilogue)
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
