"""Two formats read once more, the plain way: what a reader under test accepts, and what it makes of it, is this."""

Field = tuple[int, int | bytes]


class Refused(Exception):  # noqa: N818  (it is no error here)
    """Bytes that break the format."""


def number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(data):
            raise Refused
        value += (data[at + place] & 127) * 128**place
        if data[at + place] < 128:
            if value >= 2**64:
                raise Refused
            return value, at + place + 1
    raise Refused


def fields(data: bytes) -> list[Field]:
    """The fields of a message of Protocol Buffers, in their order."""
    out: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = number(data, at)
        if tag & 7 == 0:
            value, at = number(data, at)
            out.append((tag >> 3, value))
            continue
        if tag & 7 not in (1, 2, 5):
            raise Refused
        size, at = number(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
        if size > len(data) - at:
            raise Refused
        raw = data[at : at + size]
        out.append((tag >> 3, raw if tag & 7 == 2 else int.from_bytes(raw, "little")))
        at += size
    return out


def entries(block: bytes) -> list[tuple[bytes, bytes]]:
    """The entries of a table's block, without its trailer."""
    if len(block) < 4:
        raise Refused
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    if end < 0:
        raise Refused
    out: list[tuple[bytes, bytes]] = []
    at = 0
    while at < end:
        shared, at = number(block, at)
        unshared, at = number(block, at)
        size, at = number(block, at)
        before = out[-1][0] if out else b""
        if shared > len(before) or unshared > end - at or size > end - at - unshared:
            raise Refused
        key = before[:shared] + block[at : at + unshared]
        if (out and key <= before) or len(key) > 4096:
            raise Refused
        out.append((key, block[at + unshared : at + unshared + size]))
        at += unshared + size
    return out
