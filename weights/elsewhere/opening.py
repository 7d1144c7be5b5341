"""What the readers of other frameworks' files check alike: the path before it is opened, a name before it is read."""

import difflib
import stat
from pathlib import Path

import numpy as np

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.named_arrays import NamedArrays


def require_file(path: Path) -> None:
    """CheckpointError unless a plain file lies there: opening a FIFO would wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    if stat.S_ISDIR(mode):
        raise CheckpointError(f"{path}: is a directory; name the file in it.")
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path}: is no plain file; copy its content to one.")


def known(arrays: NamedArrays, name: str) -> Variable:
    """What `name` is; CheckpointError where there is none, or it is no array of numbers."""
    variable = arrays.variables.get(name)
    if variable is None:
        near = difflib.get_close_matches(name, arrays.variables, n=3)
        hint = f"the nearest names are {', '.join(map(repr, near))}" if near else "see `variables` for those it has"
        raise CheckpointError(f"{arrays.path}: there is no {name!r}; {hint}.")
    if not isinstance(variable.dtype, np.dtype):
        raise CheckpointError(f"{arrays.path}: {name!r} is no array of numbers that can be read, but {variable.stored}")
    return variable
