"""Reads the pickle in a file of torch.save, by hand: it can build plain values and descriptions of tensors, no more.

Python's unpickler calls what a pickle names. This one knows the few opcodes that torch.save writes of a state dict, and
of all names a pickle may use only those in _GLOBALS, none of which is imported or called: each stands for one of the
functions below. What is built is no larger than a fixed multiple of the pickle, which MOST_BYTES bounds.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from resnet_ref.weights.checkpoint.wire import DamagedError

MOST_BYTES = 8 << 20
MOST_OPCODES = 500_000  # resnet152 with Adam's moments has 150,000
LONGEST_TEXT = 1 << 16
DEEPEST = 64
MOST_AXES = 32
_LONGEST_GLOBAL = 200


class ForeignError(Exception):
    """A pickle of more than a state dict. The text says what it asks for."""


class Storage(NamedTuple):
    """Where a tensor's elements lie: the record data/KEY, of `length` elements."""

    key: str
    element: str
    length: int


class Tensor(NamedTuple):
    """A view of a storage, in elements; inside of it, and no larger."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """How many elements lie from its first to its last; 0 where it has none."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle may use, standing for itself."""

    name: str


_ELEMENTS = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
_STORAGES = {f"torch.{name}Storage": kind for name, kind in _ELEMENTS.items()}


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise ForeignError("an OrderedDict made of something")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks, metadata)."""
    if not 6 <= len(arguments) <= 7 or not isinstance(arguments[0], Storage):
        raise DamagedError("a tensor is not made of a storage and five or six things more")
    if len(arguments) == 7 and arguments[6]:
        raise ForeignError("a tensor that is conjugated or negated when it is read")
    storage, offset, shape, strides = arguments[:4]
    if not all(_counts(value) for value in ((offset,), shape, strides)) or len(shape) != len(strides):
        raise DamagedError("a tensor's offset, size and stride are no whole numbers from 0")
    tensor = Tensor(storage, offset, shape, strides)
    elements = 1
    for n in shape:
        elements = min(elements * n, 1 << 63)
    if any(stride == 0 and n > 1 for n, stride in zip(shape, strides, strict=True)):
        raise ForeignError(f"a tensor {list(shape)} that repeats its elements, as expand does; make it .contiguous()")
    if elements > storage.length or offset + tensor.span > storage.length:
        raise DamagedError(f"a tensor of shape {list(shape)} lies outside its storage of {storage.length} elements")
    return tensor


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    """_rebuild_parameter(data, requires_grad, backward_hooks)."""
    if len(arguments) != 3 or not isinstance(arguments[0], Tensor):
        raise DamagedError("a parameter is not made of a tensor and two things more")
    return arguments[0]


_MAKERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
_GLOBALS = {name: Global(name) for name in (*_MAKERS, *_STORAGES)}


def load(pickle: bytes) -> Any:
    """The value: None, bools, numbers, text, lists, tuples, dicts, and Tensor, Storage, Global for torch's.

    DamagedError for what is no pickle, or too large a one; ForeignError for one that is more than a state dict.
    """
    if len(pickle) > MOST_BYTES:
        raise DamagedError(f"a pickle of {len(pickle)} bytes, expected at most {MOST_BYTES}")
    return _Machine(pickle).run()


class _Machine:
    """A pickle's stack machine. marks: how high the stack was at each MARK that is still open."""

    def __init__(self, pickle: bytes) -> None:
        self._pickle = pickle
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MOST_OPCODES):
            opcode = self.take(1)
            if opcode == b".":
                if len(self._stack) != 1 or self._marks or self._at != len(self._pickle):
                    raise DamagedError("a pickle ends before it is done, or goes on behind its end")
                return self._stack[0]
            step = _STEPS.get(opcode)
            if step is None:
                raise ForeignError(f"the opcode {opcode!r}")
            step(self)
        raise DamagedError(f"a pickle of more than {MOST_OPCODES} opcodes")

    def take(self, size: int) -> bytes:
        if size > len(self._pickle) - self._at:
            raise DamagedError("a pickle is cut off")
        self._at += size
        return self._pickle[self._at - size : self._at]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise DamagedError("a pickle takes a value that it has not put")
        return self._stack.pop()

    def top(self, kind: type) -> Any:
        value = self.pop()
        self.push(value)
        if type(value) is not kind:
            raise DamagedError(f"a pickle fills a {type(value).__name__} as if it were a {kind.__name__}")
        return value

    def mark(self) -> None:
        if len(self._marks) == DEEPEST:
            raise DamagedError(f"a pickle is nested more than {DEEPEST} deep")
        self._marks.append(len(self._stack))

    def since_mark(self) -> list[Any]:
        if not self._marks:
            raise DamagedError("a pickle closes what it has not opened")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def tuple_of(self, size: int) -> None:
        values = [self.pop() for _ in range(size)]
        self.push(tuple(reversed(values)))

    def put(self, index: int) -> None:
        value = self.pop()
        self.push(value)
        self._memo[index] = value

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise DamagedError("a pickle refers to a value that it has not kept")
        self.push(self._memo[index])

    def protocol(self) -> None:
        if (number := self.take(1)[0]) != 2:
            raise ForeignError(f"protocol {number} of pickles, where torch.save writes 2")

    def text(self) -> None:
        size = self.number("<I")
        if size > LONGEST_TEXT:
            raise DamagedError(f"a pickle has a text of {size} bytes, expected at most {LONGEST_TEXT}")
        try:
            self.push(self.take(size).decode())
        except UnicodeDecodeError:
            raise DamagedError("a pickle has a text that is no UTF-8") from None

    def long(self) -> None:
        if (size := self.take(1)[0]) > 8:
            raise DamagedError(f"a pickle has a number of {size} bytes, expected at most 8")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def lookup(self) -> None:
        end = self._pickle.find(b"\n", self._at, self._at + _LONGEST_GLOBAL)
        end = self._pickle.find(b"\n", end + 1, end + _LONGEST_GLOBAL) if end >= 0 else end
        if end < 0:
            raise DamagedError("a pickle has a name without an end")
        name = ascii(".".join(self.take(end + 1 - self._at).decode("latin-1").splitlines()))[1:-1]
        if name not in _GLOBALS:
            if name.startswith("torch._utils._rebuild_"):  # quantised, sparse, of float8 or another type
                name = f"tensors that are not plain ({name}); use .dequantize(), .to_dense() or .float() first"
            raise ForeignError(name)
        self.push(_GLOBALS[name])

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        make = _MAKERS.get(function.name) if isinstance(function, Global) else None
        if make is None or type(arguments) is not tuple:
            raise ForeignError("a call of something that makes no tensor")
        self.push(make(arguments))

    def state(self) -> None:
        """A state dict has an attribute besides its entries: the versions of its layers, which change nothing here."""
        value = self.pop()
        self.top(dict)
        if type(value) is not dict or set(value) != {"_metadata"}:
            raise ForeignError("attributes of a dict")

    def storage(self) -> None:
        """("storage", torch.FloatStorage, key, where it was, count)."""
        value = self.pop()
        if type(value) is not tuple or len(value) != 5 or value[0] != "storage":
            raise ForeignError("a persistent id that is no storage's")
        _, kind, key, _, count = value
        element = _STORAGES.get(kind.name) if isinstance(kind, Global) else None
        if element is None or type(key) is not str or not _counts((count,)):
            raise DamagedError("a storage without type, key or size")
        self.push(Storage(key, element, count))

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        found = self.top(dict)
        if len(values) % 2:
            raise DamagedError("a pickle has a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):  # hashing a tuple may recurse without end
                raise ForeignError(f"a key that is a {type(key).__name__}")
            if key in found:
                raise DamagedError(f"{str(key)[:100]!r} is there twice")
            found[key] = value


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"(": _Machine.mark,
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"J": lambda m: m.push(m.number("<i")),
    b"\x8a": _Machine.long,
    b"G": lambda m: m.push(m.number(">d")),
    b"X": _Machine.text,
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"h": lambda m: m.get(m.number("<B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"c": _Machine.lookup,
    b"R": _Machine.call,
    b"b": _Machine.state,
    b"Q": _Machine.storage,
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.since_mark()),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.since_mark()),
}


def _counts(value: Any) -> bool:
    """A tuple of at most MOST_AXES whole numbers from 0; no bools."""
    return type(value) is tuple and len(value) <= MOST_AXES and all(type(n) is int and n >= 0 for n in value)
