"""A CUDA device through CuPy: arrays, launches, streams and graphs, with every failure as a DeviceError.

CuPy is imported when a device is asked for, so that the package works without it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from shutil import which
from typing import Any

from resnet_ref.errors import DeviceError, ShapeError
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import ALIGNMENT, OPTIONS, Launch, Source
from resnet_ref.kernels.cuda.runtime import Event, Graph, HostArray, Stream

LEAST_CAPABILITY = 75  # what CUDA 13's compiler still compiles for
CUDA_MEMORY = (2, 13)  # DLPack's kinds of device: CUDA's, and its managed memory
EMPTY = 'extern "C" __global__ void nothing() {}'
EXTRAS = "pip install 'resnet-ref[gpu-cuda13]' (or gpu-cuda12, for a driver of CUDA 12; not both)"


def cupy() -> Any:
    """The module; DeviceError where it is not installed, or cannot be imported."""
    if find_spec("cupy") is None:
        raise DeviceError(f'device "gpu" needs CuPy, which is not installed: {EXTRAS}')
    try:
        return import_module("cupy")
    except Exception as error:  # whatever a broken installation raises
        said = f"CuPy is installed and cannot be imported ({_said(error)}); try again: {EXTRAS}"
        raise DeviceError(said) from None


def has_trace_of_gpu() -> bool:
    """Whether CuPy or an NVIDIA driver is installed: else a machine lacks nothing that anybody meant it to have."""
    return find_spec("cupy") is not None or which("nvidia-smi") is not None


def device_count() -> int:
    """How many devices there are; DeviceError that says why where there is none."""
    cp = cupy()
    try:
        driver, needed = cp.cuda.runtime.driverGetVersion(), cp.cuda.runtime.runtimeGetVersion()
    except Exception as error:  # whatever stands for CuPy in a broken installation
        raise DeviceError(f"what is installed as CuPy cannot be used ({_said(error)}); try again: {EXTRAS}") from None
    if driver == 0:
        raise DeviceError('device "gpu" needs an NVIDIA driver, and this machine has none')
    if driver // 1000 < needed // 1000:
        raise DeviceError(
            f"the NVIDIA driver is for CUDA {_version(driver)}, the installed CuPy for CUDA {_version(needed)}; "
            f"update the driver, or install CuPy for CUDA {driver // 1000}"
        )
    try:
        count = int(cp.cuda.runtime.getDeviceCount())
    except Exception as error:
        raise DeviceError(f'device "gpu" cannot be used: {_said(error)}') from None
    if count == 0:
        raise DeviceError('device "gpu": the driver shows no GPU (see CUDA_VISIBLE_DEVICES)')
    return count


@cache
def cupy_runtime(index: int) -> "CupyRuntime":
    """The device of that number; DeviceError where there is no such device, or it is too old."""
    count = device_count()
    if index >= count:
        raise DeviceError(f'there is no device "gpu:{index}"; the last is "gpu:{count - 1}"')
    return CupyRuntime(index)


class CupyRuntime:
    """One device (see runtime.Runtime)."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._process = os.getpid()
        self._cp = cupy()
        self._functions = cache(self._function)
        with self._failing("cannot be used"):
            self._device = self._cp.cuda.Device(index)
            properties = self._cp.cuda.runtime.getDeviceProperties(index)
            self.name: str = properties["name"].decode()
            self.multiprocessors: int = properties["multiProcessorCount"]
            capability = self._device.compute_capability
            with self._device:
                # Makes the context, which takes memory, and shows whether there is a compiler.
                self._cp.RawModule(code=EMPTY, options=OPTIONS).compile()
            runtime = self._cp.cuda.runtime
            versions = (runtime.driverGetVersion(), runtime.runtimeGetVersion(), self._cp.cuda.nvrtc.getVersion())
        self.software: str = "driver {}, CUDA {}, NVRTC {}, CuPy {}".format(*versions, self._cp.__version__)
        self.architecture = f"sm_{capability}"
        if int(capability) < LEAST_CAPABILITY:
            found, least = (f"{number / 10:.1f}" for number in (int(capability), LEAST_CAPABILITY))
            raise DeviceError(f'{self}: compute capability {found} is older than {least}; use device="cpu"')

    def __repr__(self) -> str:
        return f"gpu:{self.index} ({self.name})"

    def is_array(self, value: object) -> bool:
        """Whether the value is a CuPy array."""
        return isinstance(value, self._cp.ndarray)

    def owns(self, value: Any) -> bool:
        """Whether the value is a CuPy array on this device."""
        return self.is_array(value) and value.device.id == self.index

    def adopt(self, value: Any) -> Array | None:
        """The value as a CuPy array, where it is one or shares a CUDA device's memory through DLPack; else None."""
        if self.is_array(value):
            return value
        if getattr(value, "__dlpack_device__", lambda: (0, 0))()[0] not in CUDA_MEMORY:
            return None
        try:
            with self._failing():
                return self._cp.from_dlpack(value)
        except BufferError as error:
            raise ShapeError(f"the array cannot be shared: {_said(error)}; give one that needs no gradient") from None

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array with whatever is in it."""
        with self._failing():
            return self._cp.empty(shape, dtype)

    def upload(self, array: HostArray) -> Array:
        """A NumPy array's copy on the device."""
        with self._failing():
            return self._cp.array(array, order="C")

    def download(self, array: Array) -> HostArray:
        """An array's copy in NumPy, once the current stream has made it."""
        with self._failing():
            return self._cp.asnumpy(array)

    def synchronize(self) -> None:
        """Wait until the current stream has done all it was given."""
        with self._failing():
            self._cp.cuda.get_current_stream().synchronize()

    def contiguous(self, array: Any, dtype: Any) -> Array:
        """The array itself, or a copy, that is C-contiguous, of the dtype, and begins at a multiple of ALIGNMENT."""
        if array.flags.c_contiguous and array.dtype == dtype and array.data.ptr % ALIGNMENT == 0:
            return array
        with self._failing():
            return self._cp.array(array, dtype, order="C")

    def launch(self, launch: Launch) -> None:
        """Run a kernel in the current stream."""
        if launch.check().is_empty:
            return
        with self._failing():
            function = self._functions(launch.source, launch.kernel)
            function(launch.grid, (launch.block,), tuple(0 if a is None else a for a in launch.arguments))

    def stream(self) -> Stream:
        """A new stream."""
        with self._failing():
            return _Stream(self, self._cp.cuda.Stream(non_blocking=True))

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        """A NumPy array in page-locked memory."""
        with self._failing("cannot lock memory"):
            return import_module("cupyx").empty_pinned(shape, dtype)

    def copy_in(self, host: HostArray, array: Any) -> None:
        """Page-locked memory to the device, in the current stream."""
        with self._failing():
            array.set(host, stream=self._cp.cuda.get_current_stream())

    def copy_out(self, array: Any, host: HostArray) -> None:
        """The device to page-locked memory, in the current stream."""
        with self._failing():
            array.get(stream=self._cp.cuda.get_current_stream(), out=host, blocking=False)

    def capture(self, run: Callable[[], None]) -> Graph:
        """What `run` launches, as a graph."""
        with self._failing():
            stream = self._cp.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                try:
                    run()
                except BaseException:
                    with suppress(Exception):
                        stream.end_capture()
                    raise
                graph = stream.end_capture()
        return _Graph(self, graph)

    def seconds(self, run: Callable[[], None], runs: int) -> list[float]:
        """How long the device takes for each of `runs` runs."""
        with self._failing():
            events = [self._cp.cuda.Event() for _ in range(runs + 1)]
            events[0].record()
            for event in events[1:]:
                run()
                event.record()
            events[-1].synchronize()
            elapsed = self._cp.cuda.get_elapsed_time
            return [elapsed(a, b) / 1000 for a, b in pairwise(events)]

    def free_bytes(self) -> int:
        """Memory that the driver has left, and what CuPy holds unused."""
        with self._failing():
            free, _ = self._cp.cuda.runtime.memGetInfo()
            return int(free) + int(self._cp.get_default_memory_pool().free_bytes())

    def _function(self, source: Source, kernel: str) -> Any:
        """The compiled kernel; CuPy keeps what it compiled on disk."""
        module = self._cp.RawModule(code=source.text, options=source.options)
        return module.get_function(kernel)

    @contextmanager
    def _failing(self, what: str = "failed") -> Iterator[None]:
        """On this device; CuPy's and CUDA's errors as DeviceError."""
        if os.getpid() != self._process:
            raise DeviceError(
                f"gpu:{self.index} is in use by the process that this one was forked from, and CUDA does not survive a "
                'fork; start processes by multiprocessing\'s "spawn", or load models in them alone'
            )
        cp = self._cp
        try:
            with cp.cuda.Device(self.index):
                yield
        except cp.cuda.memory.OutOfMemoryError as error:
            with cp.cuda.Device(self.index):
                cp.get_default_memory_pool().free_all_blocks()
            said = f"gpu:{self.index} has too little memory: {_said(error)}; give fewer images at a time"
            raise DeviceError(said) from None
        # CUDA's, CuPy's of a missing library, and those of the folder where it keeps what it compiled.
        except (RuntimeError, OSError, cp.cuda.compiler.CompileException) as error:
            raise DeviceError(f"gpu:{self.index} {what}: {_said(error)}") from error


class _Stream:
    """See runtime.Stream."""

    def __init__(self, runtime: CupyRuntime, stream: Any) -> None:
        self._runtime, self._stream = runtime, stream
        self._entered: list[Any] = []

    def __enter__(self) -> "_Stream":
        device = self._runtime._cp.cuda.Device(self._runtime.index)
        device.__enter__()
        self._stream.__enter__()
        self._entered.append(device)
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.__exit__(*error)
        self._entered.pop().__exit__(*error)

    def record(self) -> Event:
        with self._runtime._failing():
            return _Event(self._runtime, self._stream.record())

    def wait(self, event: Any) -> None:
        with self._runtime._failing():
            self._stream.wait_event(event.event)

    def synchronize(self) -> None:
        with self._runtime._failing():
            self._stream.synchronize()


class _Event:
    """See runtime.Event."""

    def __init__(self, runtime: CupyRuntime, event: Any) -> None:
        self._runtime, self.event = runtime, event

    def synchronize(self) -> None:
        with self._runtime._failing():
            self.event.synchronize()


class _Graph:
    """See runtime.Graph."""

    def __init__(self, runtime: CupyRuntime, graph: Any) -> None:
        self._runtime, self._graph = runtime, graph

    def launch(self) -> None:
        with self._runtime._failing():
            self._graph.launch(self._runtime._cp.cuda.get_current_stream())


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
