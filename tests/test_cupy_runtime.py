"""What stands between CuPy and the launchers: what is called, and which error each failure of a machine becomes.

CuPy is a stand-in here; the tests marked `gpu` run the real one.
"""

import importlib.util
import logging
import os
import re
from pathlib import Path
from typing import Any

import fake_cupy
import needs
import numpy as np
import pytest
from fake_cupy import FakeCupy

from resnet_ref import DeviceError, ShapeError, kernels, load_model
from resnet_ref.kernels.cuda import cupy_runtime
from resnet_ref.kernels.cuda.cupy_runtime import CupyRuntime
from resnet_ref.kernels.cuda.launch import Launch, int32, source
from resnet_ref.kernels.geometry import valid

FILE = source("max_pool2d/gpu.cu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a stand-in for CuPy in its place: machine(driver=..., count=...)."""

    def use(**facts: Any) -> FakeCupy:
        fake = FakeCupy(**facts)
        monkeypatch.setattr(cupy_runtime, "cupy", lambda: fake)
        return fake

    cupy_runtime.cupy_runtime.cache_clear()
    kernels._say.cache_clear()
    yield use
    cupy_runtime.cupy_runtime.cache_clear()
    kernels._say.cache_clear()


def launch(*arguments: Any) -> Launch:
    return Launch(FILE, "max_pool2d", (2, 1, 1), 64, arguments)


def test_without_cupy_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_runtime, "find_spec", lambda name: None)
    with pytest.raises(
        DeviceError, match=r"needs CuPy, which is not installed: pip install 'resnet-ref\[gpu-cuda13\]'"
    ):
        kernels.on("gpu")


def test_a_broken_cupy_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libnvrtc.so.13: cannot open\nshared object file")

    monkeypatch.setattr(cupy_runtime, "find_spec", lambda name: importlib.util.find_spec("json"))
    monkeypatch.setattr(cupy_runtime, "import_module", broken)
    with pytest.raises(DeviceError, match=r"cannot be imported .libnvrtc.so.13: cannot open shared object file"):
        kernels.on("gpu")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"driver": 0}, "needs an NVIDIA driver, and this machine has none"),
        ({"driver": 12040}, "driver is for CUDA 12.4, the installed CuPy for CUDA 13.2; update the driver, or"),
        ({"count": 0}, "the driver shows no GPU"),
        ({"capability": "61"}, "compute capability 6.1 is older than 7.5"),
    ],
)
def test_a_machine_without_a_usable_gpu_is_one_clear_error_and_under_auto_the_cpu_with_one_line(
    machine: Any, caplog: pytest.LogCaptureFixture, facts: dict[str, Any], said: str
) -> None:
    machine(**facts)
    with pytest.raises(DeviceError, match=said):
        kernels.on("gpu")
    with caplog.at_level(logging.INFO, "resnet_ref"):
        assert kernels.on("auto").device == kernels.on("auto").device == "cpu"
    (record,) = caplog.records
    assert record.getMessage().startswith("device auto takes the cpu: ")
    assert said in record.getMessage()


def test_a_device_that_is_not_there_is_refused_with_the_last_that_is(machine: Any) -> None:
    machine(count=2)
    assert kernels.on("gpu:1").runtime.index == 1  # type: ignore[union-attr]
    with pytest.raises(DeviceError, match='there is no device "gpu:2"; the last is "gpu:1"'):
        kernels.on("gpu:2")
    for wrong in ("gpu:", "gpu:-1", "gpu:one", "GPU"):
        with pytest.raises(DeviceError, match="device must be one of"):
            kernels.on(wrong)


def test_a_full_device_is_an_error_that_leaves_the_runtime_usable(machine: Any) -> None:
    fake = machine(memory=1000)
    runtime = CupyRuntime(0)
    with pytest.raises(
        DeviceError, match="gpu:0 has too little memory: Out of memory allocating 4,000 bytes; give fewer"
    ):
        runtime.empty((1000,), np.float32)
    assert runtime.empty((10,), np.float32).shape == (10,)
    assert fake.current == 0


@pytest.mark.parametrize(
    "error",
    [
        fake_cupy.CUDARuntimeError("cudaErrorLaunchFailure: unspecified"),
        fake_cupy.CUDADriverError("CUDA_ERROR_INVALID_VALUE"),
        fake_cupy.CompileException("error: expected a ;"),
        RuntimeError("CuPy failed to load libnvrtc.so.13"),
    ],
)
def test_a_failed_launch_is_an_error_that_leaves_the_runtime_usable(machine: Any, error: Exception) -> None:
    fake = machine()
    runtime = CupyRuntime(0)
    fake.fail = error
    with pytest.raises(DeviceError, match="gpu:0 failed: "):
        runtime.launch(launch(*int32(1)))
    runtime.launch(launch(*int32(1)))
    assert len(fake.launched) == 1


def test_a_launch_goes_to_its_own_device_with_its_sizes_and_null_pointers(machine: Any) -> None:
    fake = machine(count=2)
    runtime = CupyRuntime(1)
    x = runtime.upload(np.arange(6, dtype=np.float32))
    assert x.device.id == 1
    runtime.launch(launch(x, None, *int32(3)))
    assert fake.launched == [("max_pool2d", (2, 1, 1), (64,), (x, 0, np.int32(3)))]
    assert fake.current == 0


def test_a_kernel_is_compiled_once_for_its_defines(machine: Any) -> None:
    fake = machine()
    runtime = CupyRuntime(0)
    for tile in (1, 1, 2):
        runtime.launch(Launch(source("max_pool2d/gpu.cu", TILE=tile), "max_pool2d", (1, 1, 1), 1, ()))
    assert fake.compiled == [("-std=c++17", "-DTILE=1"), ("-std=c++17", "-DTILE=2")]


def test_an_empty_grid_launches_nothing_and_an_impossible_one_is_refused(machine: Any) -> None:
    fake = machine()
    runtime = CupyRuntime(0)
    runtime.launch(Launch(FILE, "max_pool2d", (0, 1, 1), 64, ()))
    for grid, block in (((1 << 31, 1, 1), 64), ((1, 65536, 1), 64), ((1, 1, 65536), 64), ((1, 1, 1), 1025)):
        with pytest.raises(DeviceError, match="is more than a device launches"):
            runtime.launch(Launch(FILE, "max_pool2d", grid, block, ()))
    assert fake.launched == []


def test_copies_and_graphs_go_to_the_stream_that_is_entered(machine: Any) -> None:
    machine()
    runtime = CupyRuntime(0)
    host, x = np.ones(4, np.float32), runtime.empty((4,), np.float32)
    stream, other = runtime.stream(), runtime.stream()
    graph = runtime.capture(lambda: None)
    with stream:
        runtime.copy_in(host, x)
        graph.launch()
        runtime.copy_out(x, host)
        event = stream.record()
    other.wait(event)
    event.synchronize()
    assert stream._stream.log == ["copy in", "graph", "copy out"]  # type: ignore[attr-defined]
    assert other._stream.log == ["wait"]  # type: ignore[attr-defined]
    assert runtime.seconds(lambda: None, 2) == [0.0015, 0.0015]


def test_an_array_of_numpy_or_of_another_device_is_refused_with_what_to_do(machine: Any) -> None:
    machine(count=2)
    tier = kernels.on("gpu")
    host = np.ones((1, 2, 2, 1), np.float32)
    with pytest.raises(ShapeError, match=r"relu: x must be a CuPy array on device gpu:0 .*, got numpy.ndarray; cupy"):
        tier.relu(host)
    elsewhere = CupyRuntime(1).upload(host)
    with pytest.raises(ShapeError, match=r"max_pool2d: x must be a CuPy array .* got one on another device; copy it"):
        tier.max_pool2d(elsewhere, valid(1), valid(1))
    with pytest.raises(DeviceError, match="computes in float32, not in"):
        tier.relu(CupyRuntime(0).upload(host.astype(np.float64)))


def test_under_auto_a_device_without_room_for_the_network_leaves_it_to_the_cpu(
    machine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    machine(memory=1000)
    with caplog.at_level(logging.INFO, "resnet_ref"):
        assert load_model(device="auto").tier.device == "cpu"
    (record,) = caplog.records
    assert "the weights take" in record.getMessage()
    with pytest.raises(DeviceError, match=r"the weights take .* bytes, 1000 are free"):
        load_model(device="gpu")


def test_what_only_calls_itself_cupy_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_runtime, "cupy", object)
    with pytest.raises(DeviceError, match="what is installed as CuPy cannot be used"):
        cupy_runtime.device_count()


@pytest.mark.parametrize(("installed", "level"), [(True, logging.WARNING), (False, logging.INFO)])
def test_auto_warns_only_where_something_speaks_for_a_gpu(
    machine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, installed: bool, level: int
) -> None:
    machine(driver=0)
    monkeypatch.setattr(cupy_runtime, "find_spec", lambda name: installed or None)
    monkeypatch.setattr(cupy_runtime, "which", lambda name: None)
    with caplog.at_level(logging.INFO, "resnet_ref"):
        kernels.on("auto")
    assert [record.levelno for record in caplog.records] == [level]


@needs.FORK
def test_a_forked_process_is_told_that_it_has_no_device(machine: Any, tmp_path: Path) -> None:
    """CUDA's own answers there are any error, or none."""
    machine()
    runtime = kernels.on("gpu").runtime
    assert runtime is not None
    child = os.fork()
    if child == 0:
        try:
            runtime.upload(np.ones(3, np.float32))
        except BaseException as error:
            (tmp_path / "said").write_text(f"{type(error).__name__}: {error}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert re.match(r"DeviceError: gpu:0 is in use by .* forked from, .*\"spawn\"", (tmp_path / "said").read_text())
    runtime.upload(np.ones(3, np.float32))
