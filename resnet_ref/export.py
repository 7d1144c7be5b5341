"""From a weights file back to what others read: a TensorFlow checkpoint that slim restores, or safetensors."""

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from resnet_ref.elsewhere.exported import METADATA
from resnet_ref.errors import WeightsError
from resnet_ref.weights.atomic import replacing, require_another
from resnet_ref.weights.checkpoint.bundle_writer import bundle_files, check_names, write_bundle
from resnet_ref.weights.checkpoint.folder import STATE
from resnet_ref.weights.description import canonical
from resnet_ref.weights_file import Weights, describe

FORMATS = ("safetensors", "tensorflow")
LAYOUT = (
    "float32, slim's names and layouts: a convolution's weights are [height, width, channels in, channels out], "
    "images and activations [batch, height, width, channels]"
)
_PREFIX = re.compile(r"\.ckpt(-\d+)?", re.IGNORECASE)  # slim's own are called model.ckpt-STEP
# State files are text protos, where a line like this is a comment.
_OURS = b"# Written by resnet-ref export, which replaces a state file only if it begins with this line.\n"


@dataclass(frozen=True)
class Exported:
    """What `export` wrote: one of FORMATS, and the files. state: whether the folder's state file names it now."""

    format: str
    files: tuple[Path, ...]
    state: bool = False


def export(weights: Weights, destination: str | os.PathLike[str], format: str | None = None) -> Exported:
    """Write weights, float32 under slim's names, for another framework; whole or not at all.

    format: "safetensors", one file, whose metadata have under "resnet_ref" a JSON object of network (the call), labels,
    preprocessing, source, layout and written_by; or "tensorflow", a V2 checkpoint, destination being its prefix: an
    index, a data file with exactly the network's variables, and the folder's `checkpoint` file, unless another's is
    there. None: by the suffix, see `format_of`.

    What is there already is replaced. Of a checkpoint's files all are complete before the first gets its name; the
    index comes after the data, so that an end between the two leaves data without an index, or with an older one whose
    checksums refuse them. WeightsError where a file cannot be written, or TensorFlow takes no such names.
    """
    format = format_of(destination, format)
    require_another(destination, [weights.path])
    if format == "safetensors":
        return _safetensors(weights, destination)
    return _checkpoint(weights, destination)


def format_of(destination: str | os.PathLike[str], format: str | None = None) -> str:
    """`format`, or where it is None the one that the name of the destination asks for.

    WeightsError for any suffix but .safetensors, .ckpt (with a step, perhaps: .ckpt-100) or none.
    """
    if format is None:
        suffix = Path(destination).suffix
        if suffix.lower() == ".safetensors":
            return "safetensors"
        if not suffix or _PREFIX.fullmatch(suffix):
            return "tensorflow"
        raise WeightsError(
            f"{destination}: expected a name in .safetensors, or a checkpoint's prefix, in .ckpt or without a suffix, "
            f"got {suffix}; choose such a name, or the format itself ({' or '.join(FORMATS)})"
        )
    if format not in FORMATS:
        raise WeightsError(f"expected the format {' or '.join(FORMATS)}, got {format!r:.100}")
    return format


def files_of(destination: str | os.PathLike[str], format: str) -> tuple[Path, ...]:
    """The files that hold an export; WeightsError for a name that no checkpoint can have."""
    if format == "safetensors":
        return (Path(destination),)
    text = os.fspath(destination)
    path = Path(text)
    if not path.name or text.endswith(os.sep) or os.path.isdir(path):
        raise WeightsError(f"{text or 'an empty name'} is a directory; give a name in it, such as model.ckpt")
    if path.name == STATE:
        raise WeightsError(f"{text}: TensorFlow keeps its state file under this name; give another, such as model.ckpt")
    if os.path.exists(path):  # as a V1 checkpoint would; with an index beside it, readers disagree on which it is
        raise WeightsError(f"{text} is a file, and a checkpoint's files only begin with its name; give another")
    return bundle_files(path)


def _safetensors(weights: Weights, destination: str | os.PathLike[str]) -> Exported:
    described = describe(weights.network, weights.labels, weights.preprocessing, weights.source)
    # One text, because the library writes several in another order each time. Not its save_file, which replaces the
    # file it is given by one that nobody else may read.
    metadata = {METADATA: canonical({**vars(described), "layout": LAYOUT})}
    content = save({name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}, metadata)
    with replacing(destination) as part:
        part.write_bytes(content)
    return Exported("safetensors", (Path(destination),))


def _checkpoint(weights: Weights, destination: str | os.PathLike[str]) -> Exported:
    files = files_of(destination, "tensorflow")
    for file in files:
        require_another(file, [weights.path])
    check_names(weights)
    state = files[0].with_name(STATE)
    ours = _is_ours(state)
    with ExitStack() as last_first:  # what is entered last gets its name first
        if ours:
            part = last_first.enter_context(replacing(state))
            part.write_bytes(_state(Path(destination).name))
        parts = [last_first.enter_context(replacing(file)) for file in files]
        with parts[0].open("wb") as index, parts[1].open("wb") as data:
            write_bundle(index, data, weights)
            for written in (data, index):  # on the disk before any has its name
                written.flush()
                os.fsync(written.fileno())
    return Exported("tensorflow", (*files, state) if ours else files, ours)


def _is_ours(state: Path) -> bool:
    """Whether the state file may be written: there is none, or it is one of these."""
    if not os.path.lexists(state):
        return True
    try:
        if not state.is_file():  # a pipe would be waited for
            return False
        with state.open("rb") as file:
            return file.readline(len(_OURS)) == _OURS
    except OSError:
        return False


def _state(prefix: str) -> bytes:
    """A CheckpointState (python/training/checkpoint_state.proto) that names the checkpoint beside it."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in os.fsencode(prefix))
    quoted = "".join(plain).encode()
    return _OURS + b'model_checkpoint_path: "%b"\nall_model_checkpoint_paths: "%b"\n' % (quoted, quoted)
