"""Damage to files: the same for the same seed, so that a failure comes back."""

import random
from collections.abc import Iterator, Sequence

# Where lengths, offsets and counts break.
_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**24,
    2**26,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**58,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def mutations(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield the seeds, each cut at some places, then `count` of them with one to four mutations each."""
    rng = random.Random(seed)
    yield from seeds
    for whole in seeds:
        for _ in range(4):
            yield whole[: rng.randrange(len(whole))]
    for _ in range(count):
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = rng.choice(_MUTATIONS)(rng, data, seeds)
        yield data


def _flip(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at, end = _range(rng, data, 1)
    return data[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in data[at:end]) + data[end:]


def _cut(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at, end = _range(rng, data, 64)
    return data[:at] + data[end:]


def _splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at, end = _range(rng, data, 64)
    other = rng.choice(seeds)
    start, stop = _range(rng, other, 64)
    return data[:at] + other[start:stop] + data[end:]


def _twice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at, end = _range(rng, data, 64)
    return data[:end] + data[at:]


def _number(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at, _ = _range(rng, data, 1)
    width = rng.choice((1, 2, 4, 8))
    number = (rng.choice(_NUMBERS) + rng.randrange(-1, 2)) & (1 << 8 * width) - 1
    return data[:at] + number.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]


def _varint(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One varint in place of what may be one."""
    at, end = _range(rng, data, 1)
    while end < len(data) and data[end - 1] > 127 and end - at < 10:
        end += 1
    number = (rng.choice(_NUMBERS) + rng.randrange(-1, 2)) & 2**64 - 1
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return data[:at] + out + bytes([number]) + data[end:]


_MUTATIONS = (_flip, _flip, _cut, _splice, _twice, _number, _varint, _varint)


def _range(rng: random.Random, data: bytes, most: int) -> tuple[int, int]:
    at = rng.randrange(len(data) + 1)
    return at, min(len(data), at + rng.randint(1, most))
