"""Device memory: bytes of which nothing but a kernel's launch and a copy knows the address."""

import mmap
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

HostArray = NDArray[Any]
RED_ZONE = 1 << 20  # bytes before and behind that belong to nothing; checker.h knows the number
ALIGNMENT = 512  # of an allocation, as a device's
WORD = np.dtype([("written", np.uint32), ("_", np.uint32, 3)])  # checker.h's Word, of four bytes of memory
EARLIER = 1  # a phase before those of all launches
NEVER = 0xFF  # what memory holds before anything is written: NaN


class Allocation:
    """Memory of a device, zones around it, and what the checker knows of every word: nothing is written yet."""

    def __init__(
        self, device: int, stream: object, nbytes: int, is_checked: bool, freed: Callable[[int], None]
    ) -> None:
        """stream: in which it is; freed: is told its size when nothing refers to it any more."""
        self.device = device
        self.stream = stream
        self.nbytes = nbytes
        self._freed = freed
        self.bytes = _pages(nbytes + 2 * RED_ZONE + ALIGNMENT)[RED_ZONE + ALIGNMENT :][:nbytes]
        self.bytes[:] = NEVER
        self.words = _pages((nbytes // 4 + 1) * WORD.itemsize).view(WORD) if is_checked else None

    def __del__(self) -> None:
        self._freed(self.nbytes)

    def view(self, place: "Place") -> HostArray:
        """The memory as NumPy sees it."""
        return np.ndarray(place.shape, place.dtype, self.bytes.data, place.offset, place.strides)

    def mark_written(self, place: "Place") -> None:
        """The host has written there."""
        if self.words is not None:
            self.words["written"][place.offset // 4 : -(-(place.offset + place.extent) // 4)] = EARLIER


def _pages(nbytes: int) -> NDArray[np.uint8]:
    """Zeros, at the begin of a page, that cost nothing before they are touched."""
    return np.frombuffer(mmap.mmap(-1, max(nbytes, 1)), np.uint8)


class Place(NamedTuple):
    """Where an array lies in its allocation."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: "np.dtype[Any]"

    @property
    def extent(self) -> int:
        """Bytes from the first to behind the last element."""
        if 0 in self.shape:
            return 0
        return sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)) + self.dtype.itemsize


class DeviceArray:
    """An array in an allocation. It can be looked at and sliced, but holds no numbers that Python could see."""

    def __init__(self, allocation: Allocation, place: Place) -> None:
        self.allocation = allocation
        self.place = place

    @property
    def shape(self) -> tuple[int, ...]:
        return self.place.shape

    @property
    def dtype(self) -> "np.dtype[Any]":
        return self.place.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def device(self) -> int:
        """The number of the device."""
        return self.allocation.device

    @property
    def flags(self) -> SimpleNamespace:
        return SimpleNamespace(c_contiguous=self._host.flags.c_contiguous)

    @property
    def T(self) -> "DeviceArray":  # noqa: N802  NumPy's name
        return self._like(self._host.T)

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, key: Any) -> "DeviceArray":
        return self._like(self._host[key])

    def reshape(self, *shape: Any) -> "DeviceArray":
        """The same memory; a strided array would have to be copied."""
        if not self.flags.c_contiguous:
            raise TypeError("only contiguous device arrays can be reshaped")
        return self._like(self._host.reshape(*shape))

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use runtime.download()")

    def __repr__(self) -> str:
        return f"<DeviceArray {list(self.shape)} {self.dtype} on cuda:{self.device} (emulated)>"

    __iter__ = None

    @property
    def _host(self) -> HostArray:
        return self.allocation.view(self.place)

    def _like(self, view: HostArray) -> "DeviceArray":
        if not isinstance(view, np.ndarray):
            raise TypeError("a single element of a device array cannot be taken; slice it")
        offset = view.ctypes.data - self.allocation.bytes.ctypes.data if view.size else self.place.offset
        return DeviceArray(self.allocation, Place(offset, view.shape, view.strides, view.dtype))


def array_of(shape: tuple[int, ...], dtype: Any, allocation: Allocation, offset: int = 0) -> DeviceArray:
    """A contiguous array at the offset."""
    dtype = np.dtype(dtype)
    strides = [dtype.itemsize]
    for n in shape[:0:-1]:
        strides.insert(0, strides[0] * max(n, 1))
    return DeviceArray(allocation, Place(offset, tuple(shape), tuple(strides[: len(shape)]), dtype))
