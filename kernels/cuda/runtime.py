"""What launchers, interpreters and plans need of a device. `cupy_runtime` is the one users have; the tests have
another, which runs the same .cu files on the CPU."""

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import Launch

HostArray = NDArray[Any]


class Event(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Wait until the stream has reached it."""


class Stream(Protocol):
    """Work in order; what two streams do has no order, but for events. Used as a context, work goes to it."""

    def __enter__(self) -> "Stream": ...
    def __exit__(self, *_: object) -> None: ...

    def record(self) -> Event:
        """The point up to now."""

    def wait(self, event: Event) -> None:
        """What comes after this waits for the event, in whatever stream it lies."""

    def synchronize(self) -> None:
        """Wait until all its work is done; DeviceError where some of it failed."""


class Graph(Protocol):
    """Captured launches, to be run again on the same memory."""

    def launch(self) -> None:
        """Run it in the current stream."""


class Runtime(Protocol):
    """One device. Arrays are CuPy's, or stand for them: shape, dtype, size, nbytes, ndim, reshape, flags.c_contiguous,
    and slices of the first axis. What follows raises DeviceError where the device fails or has too little memory, and
    leaves the process usable; the device too, but for a kernel's fault."""

    index: int
    name: str
    architecture: str  # "sm_90"
    multiprocessors: int
    software: str  # the versions of what compiles kernels and runs them

    def __str__(self) -> str:
        """The device as errors name it."""

    def owns(self, value: object) -> bool:
        """Whether the value is an array on this device."""

    def is_array(self, value: object) -> bool:
        """Whether the value is an array on some device."""

    def adopt(self, value: object) -> Array | None:
        """The value as a device's array, where it is one or shares a device's memory through DLPack; else None."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array, contiguous, with whatever is in it."""

    def upload(self, array: HostArray) -> Array:
        """A NumPy array's copy on the device."""

    def download(self, array: Array) -> HostArray:
        """An array's copy in NumPy, once all that the current stream does before is done."""

    def synchronize(self) -> None:
        """Wait until the current stream has done all it was given."""

    def contiguous(self, array: Array, dtype: Any) -> Array:
        """The array itself, or a copy, that is C-contiguous, of the dtype, and begins at a multiple of ALIGNMENT."""

    def launch(self, launch: Launch) -> None:
        """Run a kernel in the current stream; nothing, where its grid is empty."""

    def stream(self) -> Stream:
        """A new stream."""

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        """A NumPy array in page-locked memory, so that copies run beside other work."""

    def copy_in(self, host: HostArray, array: Array) -> None:
        """Page-locked memory to the device, in the current stream; the caller goes on at once."""

    def copy_out(self, array: Array, host: HostArray) -> None:
        """The device to page-locked memory, in the current stream; the caller goes on at once."""

    def capture(self, run: Callable[[], None]) -> Graph:
        """What `run` launches, as a graph, without running it. It must allocate nothing, and have run before."""

    def seconds(self, run: Callable[[], None], runs: int) -> list[float]:
        """How long the device takes for what `run` launches, `runs` times, by the device's clock."""

    def free_bytes(self) -> int:
        """Memory that new arrays can have."""
