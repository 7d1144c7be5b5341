"""Cutting a number of like things into ranges as equal as can be: the first `taller` ranges hold `height` + 1."""

from types import SimpleNamespace

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.vector.emit import Emitter, Value

FIELDS = ("height", "taller")


def shares(total: int, most: int) -> tuple[int, dict[str, int]]:
    """The fewest ranges of at most `most`: (how many, FIELDS)."""
    count = -(-total // most)
    return count, {"height": total // count, "taller": total % count}


def tallest(ranges: dict[str, int]) -> int:
    """How many the largest range holds."""
    return ranges["height"] + (ranges["taller"] > 0)


def firsts(count: int, ranges: dict[str, int]) -> Array:
    """Where each range begins: [count]."""
    numbers = np.arange(count)
    return numbers * ranges["height"] + np.minimum(numbers, ranges["taller"])


def share(e: Emitter, f: SimpleNamespace, number: Value) -> tuple[Value, Value]:
    """(first, last) of range `number`."""
    return first_of(e, f, number), first_of(e, f, e.add(number, 1))


def first_of(e: Emitter, f: SimpleNamespace, number: Value) -> Value:
    """Where range `number` begins."""
    return e.add(e.mul(number, f.height), e.least(number, f.taller))
