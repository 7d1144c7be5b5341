"""The Runtime (kernels/cuda/runtime.py) of the tests: the CPU stands for a device, and looks at all that kernels do."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.cuda.launch import ALIGNMENT as ALIGNED
from resnet_ref.kernels.cuda.launch import Launch, Source

from . import launching
from .compile import EmulatorError, Library, library
from .launching import Memory
from .memory import ALIGNMENT, NEVER, Allocation, DeviceArray, array_of
from .streams import Current, EmulatedStream, Reference, Work

HostArray = NDArray[Any]


class EmulatedRuntime:
    """A device.

    check: look at every access, which is slow; without it whole networks run, but what a kernel does wrong may end the
    process. order: of a block's threads and a grid's blocks; 0: as numbered, 1: backwards, others: at random from this
    seed. `memory_bytes` is how much memory the device has. `fail_next_launch`, once set, lets the next launch that runs
    fail as a broken device would.
    """

    name = "emulated"
    architecture = "sm_90"
    software = "emulator"

    def __init__(self, check: bool = True, order: int = 0, index: int = 0) -> None:
        self.index = index
        self.multiprocessors = 132
        self.memory_bytes = 1 << 40
        self.fail_next_launch = False
        self._check = check
        self._order = order
        self._used = 0
        self._lock = threading.RLock()
        self._default = EmulatedStream(None, self._lock, is_default=True)
        self._current = self._default.current = Current(self._default)
        self._libraries: dict[Source, list[Library]] = {}
        self._pinned: list[tuple[int, int]] = []

    def owns(self, value: object) -> bool:
        """Whether the value is an array on this device."""
        return isinstance(value, DeviceArray) and value.device == self.index

    def is_array(self, value: object) -> bool:
        """Whether the value is an array on some device."""
        return isinstance(value, DeviceArray)

    def adopt(self, value: object) -> DeviceArray | None:
        """The value, where it is an array on some device; else None."""
        return value if isinstance(value, DeviceArray) else None

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """A new array of NaN, which the checker lets no kernel read before something is written."""
        self._current.refuse_capture("allocating memory")
        wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        taken = -(-wanted // ALIGNMENT) * ALIGNMENT
        with self._lock:
            free = self.free_bytes()
            if taken > free:
                raise DeviceError(
                    f"cuda:{self.index} (emulated) has too little memory: {wanted} bytes are needed, {free} are free; "
                    "give fewer images at a time"
                )
            self._used += taken

        def freed(_: int) -> None:
            with self._lock:
                self._used -= taken

        return array_of(shape, dtype, Allocation(self.index, self._current.stream, wanted, self._check, freed))

    def upload(self, array: HostArray) -> DeviceArray:
        """A NumPy array's copy on the device."""
        self._current.refuse_capture("uploading")
        result, numbers = self.empty(array.shape, array.dtype), np.array(array)
        self._add_write(result, lambda: numbers)
        return result

    def download(self, array: DeviceArray) -> HostArray:
        """An array's copy in NumPy, once all that the current stream does before is done."""
        self._current.refuse_capture("downloading")
        self._require_own(array)
        self._current.stream.synchronize()
        return array.allocation.view(array.place).copy()

    def synchronize(self) -> None:
        """Wait until the current stream has done all it was given."""
        self._current.stream.synchronize()

    def contiguous(self, array: DeviceArray, dtype: Any) -> DeviceArray:
        """The array itself, or a copy of it that is C-contiguous and of the dtype."""
        self._require_own(array)
        if array.flags.c_contiguous and array.dtype == dtype and array.place.offset % ALIGNED == 0:
            return array
        result = self.empty(array.shape, dtype)
        source = self._memory(array, self._current.stream)
        self._add_write(result, lambda: source.reference.get().view(source.place).astype(dtype))
        return result

    def launch(self, launch: Launch) -> None:
        """Run a kernel in the current stream; nothing, where its grid is empty."""
        launch.check()
        if launch.is_empty:
            return
        kernel = self._load(launch.source)[0].kernel(launch.kernel)
        launching.require_arguments(kernel, launch, self.index)
        captured = self._current.captured
        stream = self._current.stream if captured is None else None
        values = [
            self._memory(argument, stream) if isinstance(argument, DeviceArray) else argument
            for argument in launch.arguments
        ]

        bare = launch._replace(arguments=())  # work must not keep arrays alive

        def work() -> None:
            if self.fail_next_launch:
                self.fail_next_launch = False
                raise DeviceError(f"cuda:{self.index} (emulated): the launch of {bare.kernel} failed")
            launching.run(self._libraries[bare.source], kernel, bare, values, self._order)

        if captured is None:
            self._current.stream.add(work)
        else:
            captured.append((work, [value.reference for value in values if isinstance(value, Memory)]))

    def stream(self) -> EmulatedStream:
        """A new stream."""
        return EmulatedStream(self._current, self._lock)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        """A NumPy array of NaN in what counts as page-locked memory."""
        self._current.refuse_capture("allocating memory")
        array: HostArray = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = NEVER
        self._pinned.append((array.ctypes.data, array.ctypes.data + array.nbytes))
        return array

    def copy_in(self, host: HostArray, array: DeviceArray) -> None:
        """Page-locked memory to the device; it is read when the stream comes to it."""
        self._require_copyable(host, array)
        self._add_write(array, lambda: host)

    def copy_out(self, array: DeviceArray, host: HostArray) -> None:
        """The device to page-locked memory, which holds NaN until the stream has come to it."""
        self._require_copyable(host, array)
        host.reshape(-1).view(np.uint8)[:] = NEVER
        source = self._memory(array, self._current.stream)
        self._current.stream.add(lambda: np.copyto(host, source.reference.get().view(source.place)))

    def capture(self, run: Callable[[], None]) -> "EmulatedGraph":
        """What `run` launches, as a graph, without running it."""
        self._current.refuse_capture("capturing")
        self._current.captured = []
        try:
            run()
            return EmulatedGraph(self._current, self._current.captured)
        finally:
            self._current.captured = None

    def seconds(self, run: Callable[[], None], runs: int) -> list[float]:
        """How long the host takes for what `run` launches, `runs` times."""
        self._current.stream.synchronize()
        times = []
        for _ in range(runs):
            begin = time.perf_counter()
            run()
            self._current.stream.synchronize()
            times.append(time.perf_counter() - begin)
        return times

    def free_bytes(self) -> int:
        """Memory that new arrays can have."""
        return self.memory_bytes - self._used

    def _load(self, source: Source) -> list[Library]:
        with self._lock:
            if source not in self._libraries:
                self._current.refuse_capture(f"loading {source.file}, which has not run before,")
                first = library(source, self._check)
                self._libraries[source] = [first] if self._check else [first, first.copy()]
            return self._libraries[source]

    def _memory(self, array: DeviceArray, stream: EmulatedStream | None) -> Memory:
        return Memory(Reference(array.allocation, stream), array.place)

    def _add_write(self, array: DeviceArray, numbers: Callable[[], HostArray]) -> None:
        """A copy into the array in the current stream."""
        target = self._memory(array, self._current.stream)

        def work() -> None:
            allocation = target.reference.get()
            np.copyto(allocation.view(target.place), numbers())
            allocation.mark_written(target.place)

        self._current.stream.add(work)

    def _require_own(self, array: object) -> None:
        if not self.owns(array):
            raise EmulatorError(f"not an array on cuda:{self.index}: {array!r}")

    def _require_copyable(self, host: HostArray, array: DeviceArray) -> None:
        self._current.refuse_capture("copying")
        self._require_own(array)
        if not (host.flags.c_contiguous and array.flags.c_contiguous):
            raise EmulatorError("only contiguous arrays can be copied beside other work")
        if host.shape != array.shape or host.dtype != array.dtype:
            raise EmulatorError(f"a copy between {host.dtype} {host.shape} and {array!r}")
        begin, end = host.ctypes.data, host.ctypes.data + host.nbytes
        if not any(first <= begin and end <= last for first, last in self._pinned):
            raise EmulatorError("host memory must be page-locked, from pinned(), for a copy beside other work")


class EmulatedGraph:
    """Captured launches. It does not keep their arrays alive, as a device's graph does not."""

    def __init__(self, current: Current, launches: list[tuple[Work, list[Reference]]]) -> None:
        self._current = current
        self._launches = launches

    def launch(self) -> None:
        """Run them in the current stream."""
        self._current.refuse_capture("launching a graph")
        for work, references in self._launches:
            for reference in references:
                reference.get()
            self._current.stream.add(work)
