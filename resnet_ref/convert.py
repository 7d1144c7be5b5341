"""From a TensorFlow checkpoint to a weights file, one variable at a time."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_ref.errors import CheckpointError
from resnet_ref.labels import imagenet_labels
from resnet_ref.network import Network
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.recognise import Recognised, recognise
from resnet_ref.weights import store
from resnet_ref.weights.atomic import require_another
from resnet_ref.weights.checkpoint import Checkpoint, open_checkpoint
from resnet_ref.weights.description import Description
from resnet_ref.weights_file import describe


@dataclass(frozen=True)
class Conversion:
    """What `convert` made: of which files, which network, and what it left out (name -> why)."""

    source: Mapping[str, Any]
    network: Network
    labels: tuple[str, ...] | None
    preprocessing: Mapping[str, Any] | None
    written: tuple[str, ...]
    skipped: Mapping[str, str]


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    labels: Callable[[int], Sequence[str]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Conversion:
    """Write the network in a checkpoint as a weights file; all or nothing.

    source: anything open_checkpoint takes. overrides: entries of Network.from_json that replace what is recognised.
    labels: from the number of classes to their names; None: ImageNet's for 1000 and 1001 classes, else none.
    preprocessing: as in a weights file; None: slim's. progress: called with (name, bytes done, bytes in all). Memory
    stays near the largest variable. CheckpointError, WeightsError.
    """
    with open_checkpoint(source) as checkpoint:
        require_another(destination, [source, *(file.path for file in checkpoint.files)])
        recognised, described = identify(checkpoint, overrides, labels, preprocessing)
        network = recognised.network
        names = tuple(network.variables())
        total = sum(checkpoint.variables[name].nbytes for name in names)
        done = 0

        def read(name: str) -> Any:
            nonlocal done
            array = checkpoint.read(name)
            done += checkpoint.variables[name].nbytes
            progress(name, done, total)
            return array

        store.write(destination, names, read, described)
    return Conversion(
        described.source or {},
        network,
        described.labels,
        described.preprocessing,
        names,
        recognised.skipped,
    )


def identify(
    checkpoint: Checkpoint,
    overrides: Mapping[str, Any] | None = None,
    labels: Callable[[int], Sequence[str]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> tuple[Recognised, Description]:
    """The network in a checkpoint, and what a file made of it says of itself; arguments as in `convert`."""
    numeric = {n: v.shape for n, v in checkpoint.variables.items() if isinstance(v.dtype, np.dtype)}
    try:
        found = recognise(numeric, overrides)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from None
    text = {n: "not numeric" for n in checkpoint.variables if n not in numeric}
    described = describe(
        found.network,
        _labels(labels, found.network.num_classes),
        Preprocessing().to_json() if preprocessing is None else preprocessing,
        _origin(checkpoint),
    )
    return Recognised(found.network, {**found.skipped, **text}), described


def _labels(labels: Callable[[int], Sequence[str]] | None, num_classes: int | None) -> tuple[str, ...] | None:
    if num_classes is None:
        return None
    if labels is not None:
        return tuple(labels(num_classes))
    known = imagenet_labels(num_classes)
    return None if known is None else tuple(known)


def _origin(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the weights file says of its source: the kind, and each file's name, size and SHA-256."""
    files = [Path(file.path) for file in checkpoint.files]
    if not all(file.is_file() for file in files):  # they lie in an archive
        files = [Path(checkpoint.path)]
    described = []
    for file in files:
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        described.append({"name": file.name, "bytes": file.stat().st_size, "sha256": digest})
    return {"kind": checkpoint.kind, "files": described}
