"""Checkpoints whose checksums always fit: what lies behind them is what a fuzzer is to reach."""

from collections.abc import Iterator
from contextlib import contextmanager

from resnet_ref.weights.checkpoint import source


class _Any(int):
    """A checksum that is equal to every other."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@contextmanager
def checksums(checked: bool) -> Iterator[None]:
    """Within the block, checksums of checkpoints are compared, or all count as right."""
    before = source._masked
    if not checked:
        source._masked = lambda crc: _Any(crc)
    try:
        yield
    finally:
        source._masked = before
