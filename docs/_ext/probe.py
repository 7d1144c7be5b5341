"""What an output of a kernel reads, found by running the kernel: one input number is changed at a time.

Nothing here knows what any kernel computes. A kernel is a function of named arrays; an output reads an input number
where changing that number changes the output.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kernel = Callable[[Mapping[str, Array]], Array]
Reads = dict[str, NDArray[np.bool_]]

CHANGE = 1000.0  # what a number is changed to: above all numbers of `numbers`, so that it wins every maximum


def numbers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Arrays of those shapes: numbers between 1 and 2, no two alike, so that no sum cancels and no clamp bites."""
    rng = np.random.default_rng(0)
    return {name: rng.uniform(1, 2, shape) for name, shape in shapes.items()}


def dependence(kernel: Kernel, inputs: Mapping[str, Array]) -> Reads:
    """For each input: [*its shape, *the output's shape], whether that output changes with that number."""
    before = kernel(inputs)
    found: Reads = {}
    for name, array in inputs.items():
        changes = np.empty((*array.shape, *before.shape), bool)
        for cell in np.ndindex(array.shape):
            changed = array.copy()
            changed[cell] = CHANGE
            changes[cell] = kernel({**inputs, name: changed}) != before
        found[name] = changes
    return found


def reads(found: Reads, output: tuple[int | slice, ...]) -> Reads:
    """For each input: [its shape], whether the output reads it; for a slice of outputs, whether any of them does."""
    kept = tuple(slice(place, place + 1) if isinstance(place, int) else place for place in output)
    outputs = tuple(range(-len(output), 0))
    return {name: np.any(changes[(..., *kept)], axis=outputs) for name, changes in found.items()}


def padded(array: Array, before: tuple[int, int], after: tuple[int, int], outside: float) -> Array:
    """[N, H, W, C] with so many rows and columns of `outside` around each map."""
    pads = ((0, 0), *zip(before, after, strict=True), (0, 0))
    return np.pad(array, pads, constant_values=outside)


def dependence_on_padding(kernel: Kernel, plain: Kernel, inputs: Mapping[str, Array], wide: Array) -> Reads:
    """`dependence` of a kernel that pads x itself, on the padding too.

    kernel pads; plain is the same without padding; wide: x with the padding around it as numbers. `wide` under `plain`
    must give what x gives under `kernel`, else RuntimeError: then what is outside is not what it was said to be.
    """
    around = {**inputs, "x": wide}
    if not np.array_equal(kernel(inputs), plain(around)):
        raise RuntimeError("the kernel on x is not the unpadded kernel on x with the padding around it")
    return dependence(plain, around)
