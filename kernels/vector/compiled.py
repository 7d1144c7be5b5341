"""How the cpu kernels are compiled: Numba, without the GIL, remembered on disk where that is possible.

Numba's own disk cache watches only the file that a function stands in, and refuses to work where no directory is
writable. Hence two rules: a compiled kernel calls no compiled function of another file, and a machine without a
writable cache compiles anew in each process.
"""

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.compiler_lock import global_compiler_lock

from resnet_ref.kernels.vector.forking import hold_over_forks

hold_over_forks(global_compiler_lock)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, made at its first call; no fast-math, so each line means what it says."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # Numba found no directory that it may write its cache to
        return njit(nogil=True, error_model="numpy")(function)
