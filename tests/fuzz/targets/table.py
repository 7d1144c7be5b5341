"""The sorted table: its footer, index, blocks, shared keys and compression types."""

from checkpoint_files import block, masked, table, with_index

from fuzz import reference
from fuzz.checkpoints import CHECKED, folder, joined, parted
from fuzz.checksums import checksums
from fuzz.guard import ours
from resnet_ref.weights.checkpoint.source import Source
from resnet_ref.weights.checkpoint.table import Table, _entries
from resnet_ref.weights.checkpoint.wire import DamagedError


def seeds() -> list[bytes]:
    plain = {b"": b"one", b"key": b"two", b"key/longer": b"three" * 9}
    shared = b"\0\3\1keya" + b"\3\2\1/xb" + b"\4\1\1yc" + b"\0\0\0\0\1\0\0\0"
    several = block([(b"a", b"1")]), block([(b"b", b"2")])
    handles = [(b"a", (0, len(several[0]) - 5)), (b"c", (len(several[0]), len(several[1]) - 5))]
    tables = [
        table(plain),
        table(plain, compression=1),
        with_index(shared + b"\0" + masked(shared + b"\0").to_bytes(4, "little"), [(b"l", (0, len(shared)))]),
        with_index(b"".join(several), handles),
    ]
    blocks = [joined(raw, b"", 0) for raw in (shared, several[0][:-5], block(plain.items())[:-5])]
    return blocks + [joined(made, b"", flags) for made in tables for flags in (0, CHECKED)]


def one(data: bytes) -> None:
    flags, first, second = parted(data)
    _compare(first)
    path = folder() / "table"
    path.write_bytes(first + second)
    with checksums(bool(flags & CHECKED)), Source(path, "table") as source:
        ours(lambda: _walk(source))


def _compare(data: bytes) -> None:
    """A block is taken or refused as the reference does, and with the same entries."""
    try:
        expected = reference.entries(data)
    except reference.Refused:
        expected = None
    try:
        got = [(key, bytes(value)) for key, value in _entries(memoryview(data))]
    except DamagedError:
        got = None
    assert got == expected


def _walk(source: Source) -> None:
    table = Table(source)
    found = dict(table.items())
    for key, value in found.items():  # a key outside its block's bounds is not found, and no other value is
        assert table.get(key) in (value, None)
    assert table.get(b"\xff" * 9) in (found.get(b"\xff" * 9), None)
