"""Protocol buffers' wire format, and the messages of checkpoints made of it."""

import math
from collections.abc import Callable

from checkpoint_files import message, piece, shape

from fuzz import reference
from fuzz.guard import ours
from resnet_ref.weights.checkpoint.bundle import _parse_entry
from resnet_ref.weights.checkpoint.object_graph import full_names, listed_names
from resnet_ref.weights.checkpoint.slices import parse_shape, parse_slice, slice_key
from resnet_ref.weights.checkpoint.wire import DamagedError, Message, decoding


def seeds() -> list[bytes]:
    attribute = message((1, b"VARIABLE_VALUE"), (2, b"name"), (3, b"key/.ATTRIBUTES/VARIABLE_VALUE"))
    made = [
        message((1, 1), (2, shape(2, 3)), (3, 0), (4, 8), (5, 24), (7, piece((0, 1), (0, 3)))),
        message((1, message((2, attribute)))),
        message((1, b"text"), (2, 2**64 - 1), (9, b"")) + b"\x0d\1\2\3\4\x11\1\2\3\4\5\6\7\x08",
        shape(3, 4),
        message((2, message((1, 3))), (2, message((1, 2**40))), (1, message((1, 0), (2, 2))), (1, b"")),
        message((2, message((1, 3))), (1, message((1, 2), (2, 2)))),
        message((2, message((1, -3)))),
        shape(2**31, 2**31),
    ]
    return [bytes([kind]) + raw for kind in range(4) for raw in made]


def one(data: bytes) -> None:
    reader = _READERS[data[0] % len(_READERS)] if data else _fields
    ours(lambda: _read(reader, memoryview(data)[1:]))


def _read(reader: Callable[[memoryview], None], data: memoryview) -> None:
    with decoding("message"):
        reader(data)


def _fields(data: memoryview) -> None:
    """Taken or refused as the reference does, and with the same fields."""
    try:
        expected = reference.fields(bytes(data))
    except reference.Refused:
        expected = None
    try:
        fields = Message(data)
    except DamagedError:
        assert expected is None
        raise
    got = [(field, value) for field, values in fields._fields.items() for value in values]
    assert expected is not None
    assert sorted(got, key=_by_field) == sorted(expected, key=_by_field)
    for number in range(16):
        for get in (fields.integer, fields.blob, fields.text, fields.message):
            with_error(get, number)
        with_error(lambda n: list(fields.messages(n)), number)


def with_error(get: Callable[[int], object], number: int) -> None:
    def call() -> None:
        with decoding("field"):
            get(number)

    ours(call)


def _by_field(field: tuple[int, int | bytes | memoryview]) -> int:
    return field[0]


def _shape(data: memoryview) -> None:
    whole = parse_shape(Message(data))
    assert all(size >= 0 for size in whole)
    assert math.prod(size for size in whole if size) <= 1 << 58
    box = parse_slice(Message(data), whole)
    assert all(a + n <= size for a, n, size in zip(box.starts, box.shape(whole), whole, strict=True))
    assert slice_key("name", box)


def _entry(data: memoryview) -> None:
    _parse_entry(Message(data))


def _graph(data: memoryview) -> None:
    names = full_names(bytes(data))
    assert sorted(listed_names(names, names).values()) == sorted(names)


_READERS = (_fields, _shape, _entry, _graph)
