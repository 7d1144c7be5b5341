"""What a prepared kernel is: a step of a program, which knows what it reads and writes, and becomes a record once
memory has been given to its buffers."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector.emit import FLOAT, Layout
from resnet_ref.kernels.vector.objects import Library
from resnet_ref.kernels.vector.sharing import shares

L1_WAY = 4096  # bytes after which addresses compete for the same place in L1
LOWEST = float(np.finfo(np.float32).min)  # what padding is to a maximum
ADDRESSABLE = FLOAT << 31  # bytes: tables hold offsets as int32, in floats
TASKS = 4  # for each thread, so that one that is done early finds some to take over


@dataclass(eq=False)
class Buffer:
    """Bytes in a program's memory, at an offset that is given to it once it is known for how long it is needed."""

    nbytes: int
    offset: int = -1


@dataclass(frozen=True, eq=False)
class Map:
    """Activations [N, H, W, C] in a buffer, `skip` bytes from its start; a pixel takes `pitch` floats, C used."""

    n: int
    h: int
    w: int
    c: int
    pitch: int
    buffer: Buffer
    skip: int = 0

    def images(self, first: int, last: int) -> "Map":
        """The map of images first .. last - 1, in the same memory."""
        return replace(self, n=last - first, skip=self.skip + first * self.h * self.w * self.step)

    @property
    def pixels(self) -> int:
        """N * H * W."""
        return self.n * self.h * self.w

    @property
    def step(self) -> int:
        """Bytes from a pixel to the next."""
        return self.pitch * FLOAT

    def strided(self, stride: int) -> Array:
        """Where the pixels of x[:, ::stride, ::stride] lie, in floats from the map's start."""
        return np.arange(self.pixels).reshape(self.n, self.h, self.w)[:, ::stride, ::stride].reshape(-1) * self.pitch

    def taps(self, start: int, rows: Window, cols: Window, outside: int) -> Array:
        """Where each output's taps lie, the map beginning at `start`: [N, OH, OW, KH, KW]; `outside` for padding."""
        ys = (rows.taps(self.h) - rows.before)[:, None, :, None]
        xs = (cols.taps(self.w) - cols.before)[None, :, None, :]
        return self.places(start, ys, xs, outside)

    def places(self, start: int, ys: Array, xs: Array, outside: int) -> Array:
        """Where the pixels at (ys, xs) of each image lie, in floats; `outside` where the image has none: [N, ...]."""
        inside = (ys >= 0) & (ys < self.h) & (xs >= 0) & (xs < self.w)
        one = start + (ys * self.w + xs) * self.pitch
        images = (np.arange(self.n) * (self.h * self.w * self.pitch)).reshape(-1, *[1] * one.ndim)
        return np.where(inside, one + images, outside)


def new_map(n: int, h: int, w: int, c: int, lanes: int) -> Map:
    """A map whose pixels begin on a vector's boundary, and not all of them in the same few sets of the L1 cache."""
    pitch = -(-c // lanes) * lanes
    if lanes > 1 and pitch * FLOAT % L1_WAY == 0:
        pitch += lanes
    nbytes = n * h * w * pitch * FLOAT
    require_addressable(nbytes)
    return Map(n, h, w, c, pitch, Buffer(nbytes))


def require_addressable(nbytes: int) -> None:
    """MemoryError for more than a program's tables can tell apart: of a map, before any table of it is made."""
    if nbytes > ADDRESSABLE:
        raise MemoryError(f"this takes {nbytes} bytes at once; give fewer images or end points at a time")


class Memory:
    """A program's memory while its records are made: addresses of buffers and of the tables that kernels look up."""

    def __init__(self, arena: Array, zeros: Buffer, lowest: Buffer, waste: Buffer) -> None:
        self.base = arena.ctypes.data
        self._tables: dict[bytes, Array] = {}  # by their bytes' SHA-256
        self.kept: list[Array] = []
        self.zeros, self.lowest, self.waste = zeros, lowest, waste

    def address(self, of: "Map | Buffer") -> int:
        """Where a map or a buffer begins."""
        buffer, skip = (of.buffer, of.skip) if isinstance(of, Map) else (of, 0)
        if buffer.offset < 0:
            raise RuntimeError("a buffer was given no memory")
        return self.base + buffer.offset + skip

    def index(self, of: "Map | Buffer") -> int:
        """Where it begins, in floats from `base`: what a table's entries are made of."""
        return (self.address(of) - self.base) // FLOAT

    def table(self, indices: Array) -> int:
        """The address of a table of int32; equal tables are kept once."""
        table = np.ascontiguousarray(indices, np.int32)
        return self._tables.setdefault(hashlib.sha256(table.data).digest(), table).ctypes.data

    def keep(self, array: Array) -> int:
        """The address of an array that is to live as long as this memory."""
        self.kept.append(array)
        return array.ctypes.data


@dataclass(eq=False)
class Step:
    """One operation of a program.

    name: the layer, or layer//part. algorithm: how it is computed. tasks: into how many it is cut. fields: given
    Memory, the values of `layout` but for the header. scratch: bytes that each thread needs. flops: a multiply-add
    counted as two, as the layer defines it.
    """

    name: str
    algorithm: str
    function: int
    layout: Layout
    tasks: int
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    fields: Callable[[Memory], dict[str, int]]
    scratch: int = 0
    flops: int = 0
    weights: tuple[Array, ...] = field(default=())

    @property
    def layer(self) -> str:
        """The layer's name, without the part of it that this step is."""
        return self.name.partition("//")[0]

    def record(self, memory: Memory, barrier: bool) -> Array:
        """The record that the program passes to the kernel."""
        header = {"function": self.function, "tasks": self.tasks, "barrier": int(barrier)}
        return np.array(self.layout.pack(**header, **self.fields(memory)), np.int64)


@dataclass(eq=False)
class Target:
    """What steps are prepared for. packed: weights in the kernels' layouts, by layer and method, shared by plans."""

    library: Library
    threads: int
    packed: dict[tuple[str, str], tuple[Array, Array]] = field(default_factory=dict)

    def shares(self, total: int) -> tuple[int, dict[str, int]]:
        """`total` like things cut into TASKS for each thread (see sharing.py)."""
        return shares(total, max(1, -(-total // (TASKS * self.threads))))
