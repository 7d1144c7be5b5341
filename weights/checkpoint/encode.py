"""Protocol buffers' wire format, written: the inverse of `wire`, for the few kinds of fields that a bundle has."""

from __future__ import annotations

_MASK = (1 << 64) - 1


def varint(value: int) -> bytes:
    """Encode an integer in 7 bits a byte, the lowest first; a negative one as its 64-bit two's complement."""
    value &= _MASK
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    """Encode an integer field; nothing for 0, which is what an absent field means."""
    return varint(number << 3) + varint(value) if value else b""


def fixed32(number: int, value: int) -> bytes:
    """Encode a field of four bytes, least significant first; nothing for 0."""
    return varint(number << 3 | 5) + value.to_bytes(4, "little") if value else b""


def embedded(number: int, message: bytes) -> bytes:
    """Encode a message inside another; an empty one too, because its being there may mean something."""
    return varint(number << 3 | 2) + varint(len(message)) + message
