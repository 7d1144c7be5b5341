"""The gpu's kernels for NumPy arrays: each call copies its arguments to the device and its result back.

For looking into a network layer by layer (trace, verify), where what happens between the layers is NumPy's.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from resnet_ref.kernels.arrays import emit
from resnet_ref.kernels.cuda.runtime import Runtime


def hosted(kernels: SimpleNamespace, runtime: Runtime) -> SimpleNamespace:
    """The kernels by name, with NumPy arrays in place of the device's."""
    return SimpleNamespace(**{name: _hosted(kernel, runtime) for name, kernel in vars(kernels).items()})


def _hosted(kernel: Callable[..., Any], runtime: Runtime) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        there: dict[int, Any] = {}  # one copy of an array that is given twice, as input and as `out`

        def copied(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            if id(value) not in there:
                there[id(value)] = runtime.upload(value)
            return there[id(value)]

        given = {name: copied(value) for name, value in kwargs.items()}
        result = kernel(*map(copied, args), **given, runtime=runtime)
        if isinstance(result, tuple):
            return tuple(map(runtime.download, result))
        return emit(runtime.download(result), kwargs.get("out"))

    return call
