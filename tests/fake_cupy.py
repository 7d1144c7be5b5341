"""As much of CuPy as kernels/cuda/cupy_runtime.py uses, on NumPy, so that its errors and its calls can be seen here."""

from types import SimpleNamespace
from typing import Any

import numpy as np


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class CompileException(Exception):  # noqa: N818  CuPy's name
    pass


class OutOfMemoryError(MemoryError):
    pass


class Array:
    """A CuPy array: NumPy's functions refuse it."""

    def __init__(self, held: Any, index: int) -> None:
        self.held = held
        self.data = SimpleNamespace(ptr=held.ctypes.data)
        self.device = SimpleNamespace(id=index)

    def __array__(self, *_: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.held, name)

    def set(self, host: Any, stream: Any) -> None:
        stream.log.append("copy in")
        self.held[...] = host

    def get(self, stream: Any, out: Any, blocking: bool) -> None:
        assert not blocking
        stream.log.append("copy out")
        out[...] = self.held


class FakeCupy:
    """The module. driver, toolkit: CUDA's version numbers. launched: (kernel, grid, block, arguments)."""

    ndarray = Array
    __version__ = "14.0.1"

    def __init__(
        self,
        driver: int = 13020,
        toolkit: int = 13020,
        count: int = 1,
        capability: str = "90",
        memory: int = 1 << 30,
    ) -> None:
        self.memory, self.current, self.launched = memory, 0, []
        self.fail: Exception | None = None
        self.compiled: list[tuple[str, ...]] = []
        fake = self

        class Device:
            compute_capability = capability

            def __init__(self, index: int) -> None:
                self.index = index
                self.before: list[int] = []

            def __enter__(self) -> Any:
                self.before.append(fake.current)
                fake.current = self.index
                return self

            def __exit__(self, *_: Any) -> None:
                fake.current = self.before.pop()

        class Stream:
            def __init__(self, non_blocking: bool = False) -> None:
                self.log: list[str] = []

            def __enter__(self) -> Any:
                fake.stream, self.before = self, fake.stream
                return self

            def __exit__(self, *_: Any) -> None:
                fake.stream = self.before

            def begin_capture(self) -> None:
                self.log.append("begin")

            def end_capture(self) -> Any:
                self.log.append("end")
                return SimpleNamespace(launch=lambda stream: stream.log.append("graph"))

            def record(self) -> Any:
                return Event()

            def wait_event(self, event: Any) -> None:
                self.log.append("wait")

            def synchronize(self) -> None:
                fake._may_fail()

        class Event:
            def __init__(self) -> None:
                self.device = fake.current

            def record(self) -> None:
                assert self.device == fake.current

            def synchronize(self) -> None:
                fake._may_fail()

        self.stream = Stream()
        properties = {"name": b"Fake GPU", "multiProcessorCount": 3, "totalGlobalMem": memory, "l2CacheSize": 4096}
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                driverGetVersion=lambda: driver,
                runtimeGetVersion=lambda: toolkit,
                getDeviceCount=lambda: count,
                getDeviceProperties=lambda index: properties,
                memGetInfo=lambda: (self.memory, memory),
            ),
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 2)),
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            compiler=SimpleNamespace(CompileException=CompileException),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            Device=Device,
            Stream=Stream,
            Event=Event,
            get_current_stream=lambda: self.stream,
            get_elapsed_time=lambda a, b: 1.5,
        )

    def _may_fail(self) -> None:
        error, self.fail = self.fail, None
        if error is not None:
            raise error

    def empty(self, shape: Any, dtype: Any) -> Array:
        held = np.empty(shape, dtype)
        if held.nbytes > self.memory:
            raise OutOfMemoryError(f"Out of memory allocating {held.nbytes:,} bytes")
        return Array(held, self.current)

    def array(self, source: Any, dtype: Any = None, order: str = "C") -> Array:
        host = source.held if isinstance(source, Array) else source
        made = self.empty(host.shape, dtype or host.dtype)
        made.held[...] = host
        return made

    def asnumpy(self, array: Array) -> Any:
        self._may_fail()
        return array.held.copy()

    def from_dlpack(self, value: Any) -> Array:
        return Array(value.held, value.device.id)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:  # noqa: N802  CuPy's name
        def get_function(name: str) -> Any:
            self.compiled.append(options)

            def run(grid: Any, block: Any, arguments: Any) -> None:
                self._may_fail()
                self.launched.append((name, grid, block, arguments))

            return run

        return SimpleNamespace(get_function=get_function, compile=self._may_fail)
