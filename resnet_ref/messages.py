"""Messages through a pipe: the number of a message's parts, their lengths, and the parts."""

import struct
from typing import Any


def send(stream: Any, parts: list[Any]) -> None:
    """Write the parts: bytes, or arrays' memory."""
    views = [memoryview(part).cast("B") for part in parts]
    for view in [memoryview(struct.pack(f"<{len(views) + 1}Q", len(views), *map(len, views))), *views]:
        done = 0
        while done < len(view):
            done += stream.write(view[done : done + (1 << 26)]) or 0


def receive(stream: Any, most: int) -> list[bytearray]:
    """The parts, each written once where it stays. EOFError where they end too soon, MemoryError beyond `most`."""
    (count,) = struct.unpack("<Q", _exactly(stream, 8))
    if count > most // 8:
        raise MemoryError
    lengths = struct.unpack(f"<{count}Q", _exactly(stream, 8 * count))
    if sum(lengths) > most:
        raise MemoryError
    return [_exactly(stream, length) for length in lengths]


def _exactly(stream: Any, length: int) -> bytearray:
    whole = bytearray(length)
    view = memoryview(whole)
    done = 0
    while done < length:
        got = stream.readinto(view[done:])
        if not got:
            raise EOFError
        done += got
    return whole
