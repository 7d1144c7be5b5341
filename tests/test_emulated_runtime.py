"""The emulated device: streams that do nothing until waited for, graphs, memory that ends, the tensor cores' twins."""

from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.compile import EmulatorError
from cuda_on_cpu.memory import DeviceArray
from cuda_on_cpu.runtime import EmulatedRuntime
from numpy.typing import NDArray
from test_cuda_on_cpu import COUNT, kernel, launched

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.cuda.launch import Launch

Array = NDArray[Any]
ADD = kernel("y[i] = x[i] + n;")  # to each number
NUMBERS = np.arange(COUNT, dtype=np.float32)


def add(x: DeviceArray, number: int, y: DeviceArray) -> Launch:
    return launched(ADD, x, y, np.int32(number))


@pytest.fixture(params=[True, False], ids=["checked", "plain"])
def runtime(request: pytest.FixtureRequest) -> EmulatedRuntime:
    return EmulatedRuntime(request.param)


def new(runtime: EmulatedRuntime) -> DeviceArray:
    return runtime.empty((COUNT,), np.float32)


def test_an_array_shows_its_form_and_no_numbers(runtime: EmulatedRuntime) -> None:
    x = runtime.upload(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    assert (x.shape, x.dtype, x.ndim, x.size, x.nbytes, len(x), x.device) == ((2, 3, 4), np.float32, 3, 24, 96, 2, 0)
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(runtime.download(x[1:].reshape(-1, 4)), np.arange(12, 24).reshape(3, 4))
    np.testing.assert_array_equal(runtime.download(x[:, ::2].T), np.arange(24).reshape(2, 3, 4)[:, ::2].T)
    assert not x.T.flags.c_contiguous
    for mistake in (lambda: np.asarray(x), lambda: np.float32(1) * x, lambda: list(x), lambda: x[0, 0, 0]):
        with pytest.raises(TypeError):
            mistake()


def test_a_runtime_knows_its_own_arrays(runtime: EmulatedRuntime) -> None:
    other = EmulatedRuntime(index=1)
    assert runtime.owns(new(runtime))
    assert not runtime.owns(new(other))
    assert runtime.is_array(new(other))
    assert not runtime.is_array(NUMBERS)
    with pytest.raises(EmulatorError, match="not an array on cuda:0"):
        runtime.download(new(other))


def test_new_memory_is_nan_and_contiguous_copies_where_it_must(runtime: EmulatedRuntime) -> None:
    assert np.isnan(runtime.download(new(runtime))).all()
    x = runtime.upload(NUMBERS.reshape(8, 16))
    assert runtime.contiguous(x, np.float32) is x
    np.testing.assert_array_equal(runtime.download(runtime.contiguous(x.T, np.float32)), NUMBERS.reshape(8, 16).T)
    assert runtime.download(runtime.contiguous(x, np.float64)).dtype == np.float64


def test_a_stream_does_nothing_until_someone_waits_for_it(runtime: EmulatedRuntime) -> None:
    x, y, stream = runtime.upload(NUMBERS), new(runtime), runtime.stream()
    with stream:
        runtime.launch(add(x, 1, y))
    assert np.isnan(runtime.download(y)).all()  # in the default stream, which waits for no other
    with stream:
        np.testing.assert_array_equal(runtime.download(y), NUMBERS + 1)


def test_an_event_orders_two_streams_and_waits_for_no_more_than_it(runtime: EmulatedRuntime) -> None:
    x, y, first, second = runtime.upload(NUMBERS), new(runtime), runtime.stream(), runtime.stream()
    with first:
        runtime.launch(add(x, 1, y))
        event = first.record()
        runtime.launch(add(x, 10, y))
    z = new(runtime)
    with second:
        second.wait(event)
        runtime.launch(add(y, 1, z))
        np.testing.assert_array_equal(runtime.download(z), NUMBERS + 2)
    event.synchronize()
    np.testing.assert_array_equal(runtime.download(y), NUMBERS + 1)
    first.synchronize()
    np.testing.assert_array_equal(runtime.download(y), NUMBERS + 10)


def test_the_checker_sees_a_wait_that_is_missing() -> None:
    runtime = EmulatedRuntime()
    x, y, z = runtime.upload(NUMBERS), new(runtime), new(runtime)
    with runtime.stream():
        runtime.launch(add(x, 1, y))
    with runtime.stream() as second:
        runtime.launch(add(y, 1, z))
        with pytest.raises(EmulatorError, match="uninitialised global"):
            second.synchronize()


def test_copies_read_and_write_host_memory_only_when_their_stream_runs(runtime: EmulatedRuntime) -> None:
    source, target, x = runtime.pinned((COUNT,), np.float32), runtime.pinned((COUNT,), np.float32), new(runtime)
    source[:] = 1
    with runtime.stream() as stream:
        runtime.copy_in(source, x)
        source[:] = 2  # too early: this is what the device gets
        target[:] = 3
        runtime.copy_out(x, target)
        assert np.isnan(target).all()
        stream.synchronize()
    assert (target == 2).all()
    for host in (np.zeros(COUNT, np.float32), source[: COUNT // 2], source.view(np.int32)):
        with pytest.raises(EmulatorError):
            runtime.copy_in(host, x)


def test_work_of_another_stream_does_not_keep_an_array_alive(runtime: EmulatedRuntime) -> None:
    y = new(runtime)
    with runtime.stream():
        own = runtime.upload(NUMBERS)
        runtime.launch(add(own, 1, y))
        del own  # the device gives this memory to nobody before the stream has done with it
        np.testing.assert_array_equal(runtime.download(y), NUMBERS + 1)
    foreign = runtime.upload(NUMBERS)
    with runtime.stream() as stream:
        runtime.launch(add(foreign, 1, y))
        del foreign
        with pytest.raises(EmulatorError, match="freed before work that uses it ran"):
            stream.synchronize()


def test_a_graph_runs_its_launches_again_on_the_same_memory(runtime: EmulatedRuntime) -> None:
    x, y, z = runtime.upload(NUMBERS), new(runtime), new(runtime)

    def twice() -> None:
        runtime.launch(add(x, 1, y))
        runtime.launch(add(y, 10, z))

    with pytest.raises(DeviceError, match=r"loading planted\.cu, which has not run before, is not permitted"):
        runtime.capture(twice)
    twice()
    graph = runtime.capture(twice)
    runtime.launch(add(y, 100, x))
    np.testing.assert_array_equal(runtime.download(z), NUMBERS + 11)
    with runtime.stream():
        graph.launch()
        np.testing.assert_array_equal(runtime.download(z), NUMBERS + 112)


def test_a_graph_of_freed_memory_is_seen(runtime: EmulatedRuntime) -> None:
    arrays = [runtime.upload(NUMBERS), new(runtime)]
    runtime.launch(add(arrays[0], 1, arrays[1]))
    graph = runtime.capture(lambda: runtime.launch(add(arrays[0], 1, arrays[1])))
    graph.launch()
    del arrays[0]
    with pytest.raises(EmulatorError, match="freed"):
        graph.launch()


def test_only_launches_can_be_captured(runtime: EmulatedRuntime) -> None:
    x, host, stream = runtime.upload(NUMBERS), runtime.pinned((COUNT,), np.float32), runtime.stream()
    event = stream.record()
    graph = runtime.capture(lambda: None)
    for refused in (
        lambda: new(runtime),
        lambda: runtime.upload(NUMBERS),
        lambda: runtime.download(x),
        lambda: runtime.copy_in(host, x),
        lambda: runtime.copy_out(x, host),
        lambda: runtime.contiguous(x, np.float64),
        stream.synchronize,
        event.synchronize,
        graph.launch,
    ):
        with pytest.raises(DeviceError, match="is not permitted while launches are captured"):
            runtime.capture(refused)
    assert runtime.download(x).any()


def test_memory_ends_and_comes_back() -> None:
    runtime = EmulatedRuntime(index=2)
    runtime.memory_bytes = 1024
    kept = new(runtime)
    assert runtime.free_bytes() == 512
    with pytest.raises(DeviceError) as error:
        runtime.empty((129,), np.float32)
    assert str(error.value) == (
        "cuda:2 (emulated) has too little memory: 516 bytes are needed, 512 are free; give fewer images at a time"
    )
    kept = runtime.upload(NUMBERS)
    del kept
    assert runtime.free_bytes() == 1024


def test_a_launch_that_fails_takes_what_follows_in_its_stream_with_it(runtime: EmulatedRuntime) -> None:
    x, y, stream = runtime.upload(NUMBERS), new(runtime), runtime.stream()
    with stream:
        runtime.fail_next_launch = True
        runtime.launch(add(x, 1, y))
        runtime.launch(add(x, 2, y))
    with pytest.raises(DeviceError, match=r"cuda:0 \(emulated\): the launch of k failed"):
        stream.synchronize()
    stream.synchronize()
    assert np.isnan(runtime.download(y)).all()
    runtime.launch(add(x, 3, y))
    np.testing.assert_array_equal(runtime.download(y), NUMBERS + 3)


def test_an_empty_grid_runs_nothing_and_a_huge_one_is_refused(runtime: EmulatedRuntime) -> None:
    x = new(runtime)
    runtime.launch(add(x, 1, x)._replace(grid=(0, 1, 1)))
    with pytest.raises(DeviceError, match="more than a device launches"):
        runtime.launch(add(x, 1, x)._replace(grid=(1, 65536, 1)))


def test_seconds_are_measured_once_a_run(runtime: EmulatedRuntime) -> None:
    x, y = runtime.upload(NUMBERS), new(runtime)
    with runtime.stream():
        times = runtime.seconds(lambda: runtime.launch(add(x, 1, y)), 3)
    assert len(times) == 3
    assert min(times) > 0
    np.testing.assert_array_equal(runtime.download(y), NUMBERS + 1)


def test_tf32_rounds_to_nearest_and_ties_away_from_zero() -> None:
    x = np.zeros(COUNT, np.float32)
    step = 2.0**-10
    x[:9] = [1 + step / 2, 1 + 3 * step / 2, -1 - step / 2, 1 + step / 2 - 2.0**-23, 3e38, np.inf, -np.inf, 1e-40, 0.1]
    x[9] = np.nan
    runtime = EmulatedRuntime()
    y = new(runtime)
    runtime.launch(launched(kernel("y[i] = __uint_as_float(to_tf32(x[i]));"), runtime.upload(x), y, np.int32(0)))
    found = runtime.download(y)
    np.testing.assert_array_equal(found[:4], np.float32([1 + step, 1 + 2 * step, -1 - step, 1]))
    np.testing.assert_array_equal(found[5:7], [np.inf, -np.inf])
    assert np.isnan(found[9])
    assert (found.view(np.uint32)[:9] & 0x1FFF == 0).all()
    np.testing.assert_allclose(found[[4, 8]], x[[4, 8]], rtol=2.0**-11)


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    step = 2.0**-7
    x = np.zeros(COUNT, np.float32)
    x[:6] = [1 + step / 2, 1 + 3 * step / 2, -1 - step / 2 - 2.0**-23, 3.4e38, np.inf, np.nan]
    runtime = EmulatedRuntime()
    y = new(runtime)
    source = kernel("y[i] = __uint_as_float(i < 64 ? pack_bf16(0, x[i]) : pack_bf16(x[i - 64], 0) << 16);")
    runtime.launch(launched(source, runtime.upload(x), y, np.int32(0)))
    found = runtime.download(y)
    np.testing.assert_array_equal(found[:6], np.float32([1, 1 + 2 * step, -1 - step, np.inf, np.inf, np.nan]))
    np.testing.assert_array_equal(found[:64], found[64:])


# Which elements a thread holds, written down from the PTX ISA's tables (groupID, threadID_in_group) by themselves.
TF32 = """
    const float *b = x + 16 * 8;
    const int group = t >> 2, member = t % 4;
    float d[4] = {1000, 2000, 3000, 4000};
    const unsigned a[4] = {to_tf32(x[group * 8 + member]), to_tf32(x[(group + 8) * 8 + member]),
                           to_tf32(x[group * 8 + member + 4]), to_tf32(x[(group + 8) * 8 + member + 4])};
    const unsigned c[2] = {to_tf32(b[member * 8 + group]), to_tf32(b[(member + 4) * 8 + group])};
    mma_tf32(d, a, c);"""
BF16 = """
    const float *b = x + 16 * 16;
    const int group = t >> 2, member = t % 4;
    float d[4] = {1000, 2000, 3000, 4000};
    unsigned a[4], c[2];
    for (int r = 0; r < 4; ++r) {
        const float *row = x + (r % 2 ? group + 8 : group) * 16 + (r < 2 ? 0 : 8) + member * 2;
        a[r] = pack_bf16(row[0], row[1]);
    }
    for (int r = 0; r < 2; ++r)
        c[r] = pack_bf16(b[(member * 2 + 8 * r) * 8 + group], b[(member * 2 + 1 + 8 * r) * 8 + group]);
    mma_bf16(d, a, c);"""
STORE = """
    for (int r = 0; r < 4; ++r)
        y[(r < 2 ? group : group + 8) * 8 + member * 2 + (r & 1)] = d[r];"""


@pytest.mark.parametrize("order", [0, 1, 7])
@pytest.mark.parametrize(("code", "depth"), [(TF32, 8), (BF16, 16)])
def test_the_tensor_cores_twins_are_matrix_products(code: str, depth: int, order: int) -> None:
    """Small whole numbers, all different in a row and a column: every product and sum is exact."""
    rng = np.random.default_rng(depth)
    a = rng.permutation(16 * depth).reshape(16, depth) - 8.0 * depth
    b = rng.permutation(8 * depth).reshape(depth, 8) - 4.0 * depth
    runtime = EmulatedRuntime(order=order)
    y = runtime.empty((16, 8), np.float32)
    x = runtime.upload(np.concatenate([a.ravel(), b.ravel()]).astype(np.float32))
    runtime.launch(launched(kernel(code + STORE), x, y, np.int32(0), blocks=1, block=32))
    added = np.tile([[1000, 2000]], (8, 4)), np.tile([[3000, 4000]], (8, 4))
    np.testing.assert_array_equal(runtime.download(y), a @ b + np.concatenate(added))
