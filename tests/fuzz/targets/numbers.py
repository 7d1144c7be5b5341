"""Varints: one at a time, and many packed."""

import numpy as np
from checkpoint_files import varint as encoded

from fuzz.guard import ours
from resnet_ref.weights.checkpoint.wire import decoding, packed_varints, signed, varint


def seeds() -> list[bytes]:
    numbers = (0, 1, 127, 128, 300, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
    return [bytes([len(numbers)]) + b"".join(map(encoded, numbers)), b"\1\0", b"\2" + encoded(2**64 - 1) * 2]


def one(data: bytes) -> None:
    ours(lambda: _decode(data[:1], data[1:]))


def _decode(count: bytes, data: bytes) -> None:
    """Both readers refuse the same bytes and agree on all others (the packed one also takes what exceeds 64 bits)."""
    numbers, at = [], 0
    with decoding("one"):
        while at < len(data):
            number, end = varint(memoryview(data), at)
            assert at < end <= len(data)
            assert 0 <= number < 2**64
            numbers.append(signed(number))
            at = end
    assert packed_varints(memoryview(data), len(numbers)).tolist() == numbers
    with decoding("packed"):
        packed = packed_varints(memoryview(data), sum(count))
    assert packed.dtype == np.int64
    assert len(packed) == len(numbers)
