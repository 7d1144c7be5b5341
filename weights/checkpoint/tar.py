"""Walk through a tar archive as a stream: each member's name, size and content, and a step over all the rest.

Python's tarfile recurses once for each header that extends another, and holds sparse maps and extended headers in
memory, whatever size they claim. This one holds a block, a name and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

_BLOCK_BYTES = 512
_CHUNK_BYTES = 1 << 20
_MOST_HEADER_BYTES = 1 << 16
_MOST_EXTENDED = 8  # in a row; writers need a global header, a pax header and two long names at most
_REGULAR = b"\x000"
_CONTIGUOUS = b"7"
_PAX = b"xX"  # X is Solaris'
_LONG_NAME, _LONG_LINK, _GLOBAL, _SPARSE = b"L", b"K", b"g", b"S"
_WITHOUT_CONTENT = b"123456"  # links, devices, folders, pipes: whatever size they state
_SPARSE_MORE = (482, 504)  # where a sparse member's header, and a block that goes on with its map, say that more follow


class TarError(Exception):
    """Bytes that are no tar archive, or not a whole one."""


class Member(NamedTuple):
    """One member. regular: an ordinary file, neither link nor folder nor device, its bytes stored as they are."""

    name: str
    size: int
    regular: bool


class Readable(Protocol):
    """What Tar reads from."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102


class Tar:
    """The members in `stream`, to be iterated over once; `read` gives the content of the one at hand.

    Both raise TarError.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._left = 0  # of the content at hand
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            yield member

    def read(self, size: int) -> bytes:
        """Return the next bytes of the member's content, `size` of them or all that are left."""
        data = self._exactly(min(size, self._left))
        self._left -= len(data)
        return data

    def _next(self) -> Member | None:
        name: bytes | None = None
        fields: dict[bytes, bytes] = {}
        for _ in range(_MOST_EXTENDED):
            self._skip()
            header = self._exactly(_BLOCK_BYTES)
            if not any(header):
                return None
            _check(header)
            kind, size = header[156:157], _number(header[124:136])
            if kind in (_LONG_NAME, _LONG_LINK, _GLOBAL) or kind in _PAX:
                self._content(size)
                if kind == _LONG_NAME:
                    name = self._held().partition(b"\0")[0]
                elif kind in _PAX:
                    fields = _pax(self._held())
                continue
            return self._member(header, kind, size, name, fields)
        raise TarError(f"more than {_MOST_EXTENDED - 1} extended headers in a row")

    def _member(
        self, header: bytes, kind: bytes, size: int, long_name: bytes | None, fields: dict[bytes, bytes]
    ) -> Member:
        if b"size" in fields:
            size = _decimal(fields[b"size"])
        sparse = kind == _SPARSE or any(key.startswith(b"GNU.sparse.") for key in fields)
        more = kind == _SPARSE and header[_SPARSE_MORE[0]]
        while more:
            more = self._exactly(_BLOCK_BYTES)[_SPARSE_MORE[1]]
        self._content(0 if kind in _WITHOUT_CONTENT else size)
        name = fields.get(b"path", long_name)
        if name is None:
            name = header[:100].partition(b"\0")[0]
            prefix = header[345:500].partition(b"\0")[0]
            if header[257:263] == b"ustar\0" and prefix:  # GNU keeps other things there
                name = prefix + b"/" + name
        regular = (kind in _REGULAR or kind == _CONTIGUOUS) and not sparse and not name.endswith(b"/")
        return Member(name.decode(errors="surrogateescape"), self._left, regular)

    def _content(self, size: int) -> None:
        self._left, self._padding = size, -size % _BLOCK_BYTES

    def _held(self) -> bytes:
        if self._left > _MOST_HEADER_BYTES:
            raise TarError(f"an extended header of {self._left} bytes")
        return self.read(self._left)

    def _skip(self) -> None:
        while self._left:
            self.read(_CHUNK_BYTES)
        self._exactly(self._padding)
        self._padding = 0

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        if len(data) < size:
            raise TarError("an unexpected end of data")
        return data


def _check(header: bytes) -> None:
    blank = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in blank)  # as old writers add
    if _number(header[148:156]) not in (sum(blank), signed):
        raise TarError("a header with a wrong checksum")


def _number(field: bytes) -> int:
    """Return a header's number: octal digits, or GNU's binary form for those that need more."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    try:
        return _natural(digits or b"0", 8)
    except ValueError:
        raise TarError("a header with a number that is none") from None


def _decimal(digits: bytes) -> int:
    try:
        return _natural(digits, 10)
    except ValueError:
        raise TarError("an extended header with a number that is none") from None


def _natural(digits: bytes, base: int) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise ValueError
    return int(digits, base)


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Return the fields of a pax header: records of `LENGTH KEY=VALUE\\n`, the length counting itself."""
    fields = {}
    at = 0
    while at < len(data) and data[at]:
        length = data[at : at + 20].partition(b" ")[0]
        end = at + _decimal(length)
        record = data[at + len(length) + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise TarError("an extended header that is damaged")
        fields[key] = value[:-1]
        at = end
    return fields
