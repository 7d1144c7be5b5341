"""The machine that runs .cu files on the CPU: it sees every fault that was planted, and none where there is none."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from cuda_on_cpu.compile import EmulatorError
from cuda_on_cpu.runtime import EmulatedRuntime
from numpy.typing import NDArray

from resnet_ref.kernels.cuda.launch import Launch

Array = NDArray[Any]
ORDERS = (0, 1, 7)
BLOCK, COUNT = 64, 128  # threads of a block; numbers of each array, and threads in all
BOUNDED = 'extern "C" __global__ void __launch_bounds__((8 * 8), 2) k'


class Text(NamedTuple):
    """A .cu file that is only here."""

    text: str
    options: tuple[str, ...] = ("-std=c++17",)
    file: str = "planted.cu"


def kernel(body: str, parameters: str = "const float *x, float *y, int n", before: str = "") -> Text:
    """A kernel of blocks of 64 threads; i counts all threads, t those of a block."""
    prologue = "const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;"
    return Text(f"{before}\n{BOUNDED}({parameters})\n{{\n{prologue}\n{body}\n}}")


def launched(source: Text, *arguments: Any, blocks: int = COUNT // BLOCK, block: int = BLOCK) -> Launch:
    return Launch(source, "k", (blocks, 1, 1), block, arguments)  # type: ignore[arg-type]


def run(source: Text, runtime: EmulatedRuntime, x: Array | None = None) -> Array:
    """The kernel's y for x, by default 0, 1, ..."""
    x = np.arange(COUNT, dtype=np.float32) if x is None else x
    y = runtime.empty(x.shape, np.float32)
    runtime.launch(launched(source, runtime.upload(x), y, np.int32(COUNT)))
    return runtime.download(y)


MEMORY = {
    "the read of what lies behind an array": (
        "y[i] = x[i + 1];",
        r"block \(1, 0, 0\), thread 63: .*read.* 4 bytes past",
    ),
    "the read of what lies before an array": ("y[i] = x[i - 1];", r"block \(0, 0, 0\), thread 0: .*4 bytes before"),
    "the write behind an array": ("y[i + n] = 0;", "write of 4 bytes, 4 bytes past .* parameter 1"),
    "the read far from every array": ("y[i] = x[i + (1 << 26)];", "far from every array"),
    "the read of a null pointer": ("y[i] = ((const float *)nullptr)[i];", "null pointer"),
    "a vector past the end": ("float4 v = ((const float4 *)x)[i + 1]; y[i] = v.x;", "read of 16 bytes"),
    "a misaligned vector": ("float4 v = *(const float4 *)(x + 1); y[i] = v.x;", "misaligned read of 16 bytes"),
    "a misaligned vector written": ("*(float2 *)(y + 1) = make_float2(1, 2);", "misaligned write of 8 bytes"),
    "the write to an array of constants": ("((float *)x)[i] = 0;", "write to parameter 0.* const"),
    "the read of memory never written": ("y[i] = y[i] + 1;", "uninitialised global"),
    "a vector of which a part was never written": (
        "if (t % 4 == 0) y[i] = 1; __syncthreads(); float4 v = ((float4 *)y)[i / 4]; __syncthreads(); y[i] = v.w;",
        "uninitialised global",
    ),
    "an index outside of a local array": ("float a[4]; a[t] = 1; y[i] = a[t & 3];", "index 4 is outside"),
    "an index outside of a row": (
        "__shared__ float s[64][4]; s[t][0] = 1; s[t][t] = 1; y[i] = s[t][0];",
        "index 4 is outside",
    ),
    "a division by zero": ("y[i] = 7 / (t - 5);", "thread 5: division by zero"),
    "the write to another variable of the file": ("y[i] = count++;", "variable of the file"),
}
SHARED = "__shared__ float s[64]; "
RACES = {
    "the read of shared memory never written": (
        "if (t) s[t] = 1; __syncthreads(); y[i] = s[t];",
        "uninitialised shared",
    ),
    "what another block left in shared memory": (
        "if (i < 64) s[t] = 1; __syncthreads(); y[i] = s[t];",
        "uninitialised",
    ),
    "a read before the barrier": ("s[t] = x[i]; if (t) y[i] = s[t - 1];", "race|uninitialised"),
    "a write before others have read": ("s[t] = 1; __syncthreads(); y[i] = s[t ^ 1]; s[t] = 2;", "race"),
    "a write that only one of many reads precedes": (
        "s[t] = 1; __syncthreads(); y[i] = s[0]; __syncwarp(); if (t == 0) s[0] = 2;",
        "race",
    ),
    "a write before others of the warp have read": (
        "s[t] = 1; __syncthreads(); y[i] = s[t / 32 * 32]; if (t % 32 == 31) s[t - 31] = 2;",
        "race",
    ),
    "two writes of one word": ("s[t / 2] = x[i]; __syncthreads(); y[i] = s[t / 2];", "race: write .* written"),
    "a shuffle in place of a warp's barrier": (
        "s[t] = x[i]; __shfl_sync(0xffffffff, 0, 0); y[i] = s[t ^ 1];",
        "race|uninitialised",
    ),
    "a warp's barrier in place of a block's": ("s[t] = x[i]; __syncwarp(); y[i] = s[63 - t];", "race|uninitialised"),
    "two threads that write one number": ("y[i / 2] = 1;", "race: write .* parameter 1's array"),
    "two threads through global memory": ("y[i] = 1; if (t) y[i] = y[i - 1];", "race|uninitialised"),
    "two blocks that write one number": ("y[t] = 1;", "another block of the launch has written"),
    "two blocks, of which one reads": (
        "y[i] = 1; __syncthreads(); if (i == 64) y[t] = y[t + 1];",
        "another block|uninit",
    ),
}
BARRIERS = {
    "a barrier that a thread does not reach": (
        "if (t == 5) return; __syncthreads();",
        "divergent barrier.* 5 to 5 returned",
    ),
    "two barriers at a time": ("if (t < 32)\n__syncthreads();\nelse\n__syncthreads();", "divergent barrier"),
    "a shuffle that half a warp reaches": (
        "if (t & 1) y[i] = __shfl_xor_sync(0xffffffff, x[i], 2);",
        "divergent barrier",
    ),
    "a shuffle among some lanes": ("y[i] = __shfl_sync(1u << t % 32, x[i], t);", "the mask of a warp operation"),
    "a product that half a warp computes": (
        "float d[4] = {}; unsigned a[4] = {}, b[2] = {}; if (t & 1) mma_tf32(d, a, b);",
        "divergent barrier",
    ),
    "two products at a time": (
        "float d[4] = {}; unsigned a[4] = {}, b[2] = {};\nif (t & 1)\nmma_tf32(d, a, b);\nelse\nmma_tf32(d, a, b);",
        "divergent barrier",
    ),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fault", [*MEMORY, *RACES, *BARRIERS])
def test_the_checker_sees_in_every_order_of_threads(fault: str, order: int) -> None:
    body, message = {**MEMORY, **BARRIERS}.get(fault) or (SHARED + RACES[fault][0], RACES[fault][1])
    if fault == "the write to another variable of the file":
        source = kernel(body, before="static int count = 3;")
    else:
        source = kernel(body)
    if order and fault in MEMORY:
        message = ""  # another thread is the first to meet it
    with pytest.raises(EmulatorError, match=message or "^k, block"):
        run(source, EmulatedRuntime(order=order))


def test_the_checker_sees_a_vector_that_crosses_an_arrays_end() -> None:
    source = kernel("if (i == 0) { float4 v = ((const float4 *)x)[1]; y[0] = v.x; }")
    with pytest.raises(
        EmulatorError, match="read of 16 bytes, 8 bytes past the end of parameter 0's array of 24 bytes"
    ):
        run(source, EmulatedRuntime(), np.zeros(6, np.float32))


@pytest.mark.parametrize("order", ORDERS)
def test_the_checker_sees_a_write_of_what_every_block_reads(order: int) -> None:
    """The last block to read is the one that writes: it must not forget the others."""
    runtime = EmulatedRuntime(order=order)
    x = runtime.upload(np.zeros(COUNT, np.float32))
    source = kernel("const float first = x[0]; __syncthreads(); if (t == 0 && blockIdx.x == n) y[0] = first + 1;")
    for block in range(2):
        with pytest.raises(EmulatorError, match=r"which another block of the launch has (read|written)"):
            runtime.launch(launched(source, x, x, np.int32(block)))


def places(order: int) -> tuple[Array, Array]:
    """When each thread of a block has its turn, and each block of a grid: a race, which the plain mode does not see."""
    threads = kernel("__shared__ int turn; if (t == 0) turn = 0; __syncthreads(); y[i] = turn++;")
    y = run(threads, EmulatedRuntime(check=False, order=order))
    runtime = EmulatedRuntime(check=False, order=order)
    x = runtime.upload(np.zeros(BLOCK + 1, np.float32))
    blocks = kernel("if (t == 0) { y[1 + blockIdx.x] = y[0]; y[0] += 1; }")
    runtime.launch(launched(blocks, x, x, np.int32(0), blocks=BLOCK))
    return y[:BLOCK], runtime.download(x)[1:]


def test_threads_and_blocks_go_forwards_backwards_or_at_random() -> None:
    forwards = np.arange(BLOCK)
    seen = []
    for order in (0, 1, 2, 3):
        for place in places(order):
            np.testing.assert_array_equal(np.sort(place), forwards)
            seen.append(tuple(place))
    assert seen[:2] == [tuple(forwards)] * 2
    assert seen[2:4] == [tuple(forwards[::-1])] * 2
    assert len(set(seen[4:])) == 4
    assert not set(seen[4:]) & set(seen[:4])
    assert [tuple(place) for place in places(2)] == seen[4:6]  # the same at random every time


def test_an_error_names_kernel_block_thread_and_line() -> None:
    with pytest.raises(EmulatorError, match=r"^k, block \(0, 0, 0\), thread 3: .*\(file.cu:4[12]\)$"):
        run(kernel('y[i] = 1;\n#line 41 "file.cu"\nif (t == 3)\ny[-1] = 1;'), EmulatedRuntime())


def test_a_runtime_works_after_an_error() -> None:
    runtime = EmulatedRuntime()
    for _ in range(2):
        with pytest.raises(EmulatorError):
            run(kernel("y[i] = x[i + 1];"), runtime)
        np.testing.assert_array_equal(run(kernel("y[i] = x[i];"), runtime), np.arange(COUNT))


SUM = """
template <class T>
__device__ T sum_of_block(T value)
{
    __shared__ T sums[2];
    for (int half = 16; half; half /= 2)
        value += __shfl_down_sync(0xffffffff, value, half);
    if (threadIdx.x % 32 == 0)
        sums[threadIdx.x / 32] = value;
    __syncthreads();
    return sums[0] + sums[1];
}
"""
RIGHT = {
    "in a tree through shared memory": """
        __shared__ double s[64];
        s[t] = x[i];
        for (int half = 32; half; half /= 2) {
            __syncthreads();
            if (t < half)
                s[t] += s[t + half];
        }
        __syncthreads();
        y[i] = s[0];""",
    "by shuffles": "y[i] = sum_of_block(x[i]);",
    "by shuffles in double": "y[i] = sum_of_block((double)x[i]);",
    "in warps that wait for themselves": """
        __shared__ float s[64];
        __shared__ float sums[2];
        s[t] = x[i];
        for (int half = 16; half; half /= 2) {
            __syncwarp();
            if (t % 32 < half)
                s[t] += s[t + half];
        }
        if (t % 32 == 0)
            sums[t / 32] = s[t];
        __syncthreads();
        y[i] = sums[0] + sums[1];""",
    "by vectors": """
        __shared__ float4 s[16];
        if (t < 16)
            s[t] = __ldg((const float4 *)x + blockIdx.x * 16 + t);
        __syncthreads();
        float sum = 0;
        for (float4 v : s)
            sum += v.x + v.y + v.z + v.w;
        y[i] = sum;""",
    "through global memory": """
        y[i] = x[i];
        __syncthreads();
        float sum = 0;
        for (int j = 0; j < 64; ++j)
            sum += y[i - t + j];
        __syncthreads();
        y[i] = sum;""",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("how", RIGHT)
def test_a_blocks_sum_is_right_in_both_modes_and_every_order(how: str, check: bool, order: int) -> None:
    y = run(kernel(RIGHT[how], before=SUM), EmulatedRuntime(check, order))
    np.testing.assert_array_equal(y, np.repeat([63 * 32, 63 * 32 + 64 * 64], BLOCK))


def test_a_local_array_that_nobody_has_filled_holds_no_plausible_number() -> None:
    y = run(kernel("float v[4]; if (n < 0) v[t & 3] = 1; y[i] = v[t & 3];"), EmulatedRuntime())
    assert (abs(y) > 1e38).all()


@pytest.mark.parametrize("check", [True, False])
def test_a_kernel_may_write_over_its_input_unless_it_promises_not_to(check: bool) -> None:
    runtime, source = EmulatedRuntime(check), kernel("y[i] = 2 * x[i];")
    x = runtime.upload(np.arange(COUNT, dtype=np.float32))
    runtime.launch(launched(source, x, x, np.int32(COUNT)))
    np.testing.assert_array_equal(runtime.download(x), 2 * np.arange(COUNT))
    promise = kernel("y[i] = 2 * x[i];", "const float *__restrict__ x, float *__restrict__ y, int n")
    with pytest.raises(EmulatorError, match="0 and 1 overlap"):
        runtime.launch(launched(promise, x, x, np.int32(COUNT)))


@pytest.mark.parametrize("check", [True, False])
def test_arguments_must_have_exactly_the_parameters_types(check: bool) -> None:
    runtime, source = EmulatedRuntime(check), kernel("y[i] = x[i];")
    x, n = runtime.upload(np.zeros(COUNT, np.float32)), np.int32(COUNT)
    runtime.launch(launched(source, x, runtime.empty((COUNT,), np.float32), n))
    wrong: list[tuple[str, tuple[Any, ...]]] = [
        ("2 is a int,", (x, x, COUNT)),
        ("2 is a int64,", (x, x, np.int64(COUNT))),
        ("2 is a float32,", (x, x, np.float32(COUNT))),
        ("1 is a float32,", (x, np.float32(0), n)),
        ("0 is a ndarray,", (np.zeros(COUNT, np.float32), x, n)),
        ("0 is an array of float64", (runtime.upload(np.zeros(COUNT)), x, n)),
        ("0 is not contiguous", (x.reshape(8, 16).T, x, n)),
        ("1 lies on cuda:1", (x, EmulatedRuntime(index=1).empty((COUNT,), np.float32), n)),
        ("3 parameters, got 2", (x, x)),
    ]
    for message, arguments in wrong:
        with pytest.raises(EmulatorError, match=message):
            runtime.launch(launched(source, *arguments))
    with pytest.raises(EmulatorError, match="a block of 65 threads; __launch_bounds__ says 64"):
        runtime.launch(launched(source, x, x, n, block=65))
    with pytest.raises(EmulatorError, match="no kernel 'other'"):
        runtime.launch(launched(source, x, x, n)._replace(kernel="other"))


def test_what_gxx_refuses_is_an_error_with_its_words() -> None:
    with pytest.raises(EmulatorError, match="nonsense"):
        run(kernel("nonsense;"), EmulatedRuntime())


def test_a_blocks_position_in_a_grid_of_three_axes() -> None:
    source = kernel("if (t == 0) y[(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = "
                    "100 * blockIdx.z + 10 * blockIdx.y + blockIdx.x;")  # fmt: skip
    for order in ORDERS:
        runtime = EmulatedRuntime(order=order)
        y = runtime.empty((4, 3, 2), np.float32)
        runtime.launch(launched(source, None, y, np.int32(0))._replace(grid=(2, 3, 4)))
        z, row, column = np.indices((4, 3, 2))
        np.testing.assert_array_equal(runtime.download(y), 100 * z + 10 * row + column)
