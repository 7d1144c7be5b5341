"""From a checkpoint, or a file of another framework, to a weights file, one variable at a time."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_ref.elsewhere.translation import Derived
from resnet_ref.errors import CheckpointError
from resnet_ref.labels import imagenet_labels
from resnet_ref.network import Network
from resnet_ref.opening import Opened, open_arrays
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.recognise import Recognised, recognise
from resnet_ref.weights import store
from resnet_ref.weights.atomic import require_another
from resnet_ref.weights.description import Description
from resnet_ref.weights.differences import differences, listed
from resnet_ref.weights.finite import DIVERGED, not_finite
from resnet_ref.weights.named_arrays import NamedArrays
from resnet_ref.weights_file import describe


@dataclass(frozen=True)
class Conversion:
    """What `convert` made: of which files, which network, what it left out (name -> why), and what the source does not
    show and was assumed."""

    source: Mapping[str, Any]
    network: Network
    labels: tuple[str, ...] | None
    preprocessing: Mapping[str, Any] | None
    written: tuple[str, ...]
    skipped: Mapping[str, str]
    assumed: str = ""


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    labels: Callable[[int], Sequence[str]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    strict: bool = True,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Conversion:
    """Write the network in a checkpoint, or in a file of Keras or PyTorch, as a weights file; all or nothing.

    source: anything open_arrays takes. overrides: entries of Network.from_json that replace what is recognised.
    labels: from the number of classes to their names; None: ImageNet's for 1000 and 1001 classes, else none.
    preprocessing: as in a weights file; None: that of the framework that the file is from. strict: refuse what is not
    used; without it that is left out. progress: called with (name, bytes done, bytes in all). Memory stays near the
    largest variable. CheckpointError, WeightsError.
    """
    opened = open_arrays(source)
    with opened.arrays as arrays:
        require_another(destination, [source, *(file.path for file in arrays.files)])
        content = _content(opened, overrides, labels, preprocessing, strict)
        sizes = {name: variable.nbytes for name, variable in arrays.variables.items()}
        total = sum(sizes[one] for made in content.variables.values() for one in made.sources)
        done = 0

        def read(name: str) -> Any:
            nonlocal done
            made = content.variables[name]
            array = made.make(*(_finite(arrays, one) for one in made.sources))
            _require_numbers(arrays, name, array, content.network)
            done += sum(sizes[one] for one in made.sources)
            progress(name, done, total)
            return array

        store.write(destination, content.variables, read, content.described, source=arrays.path)
    described = content.described
    return Conversion(
        described.source or {},
        content.network,
        described.labels,
        described.preprocessing,
        tuple(content.network.variables()),
        content.skipped,
        content.assumed,
    )


def _finite(arrays: NamedArrays, name: str) -> Any:
    array = arrays.read(name)
    if array.dtype.kind == "f" and (bad := not_finite(array)):
        raise CheckpointError(f"{arrays.path}: {name} holds {bad}; expected finite numbers. {DIVERGED}")
    return array


def _require_numbers(arrays: NamedArrays, name: str, array: Any, network: Network) -> None:
    """CheckpointError for a variable that would make every output NaN, or that float32 cannot hold."""
    norm = network.arg_scope.batch_norm
    if name.endswith("/moving_variance") and norm is not None and not float(np.min(array)) + norm.epsilon > 0:
        raise CheckpointError(
            f"{arrays.path}: {name} goes down to {float(np.min(array)):g}; a variance is at least 0. It is damaged, or "
            "something else stands in its place"
        )
    with np.errstate(over="ignore"):
        if not np.isfinite(np.asarray(array, np.float32)).all():
            raise CheckpointError(f"{arrays.path}: {name} goes up to {float(np.abs(array).max()):g}, beyond float32")


@dataclass(frozen=True)
class _Content:
    """A network, what its weights file says of itself, how each of its variables is made, what is left out, and what
    was assumed."""

    network: Network
    described: Description
    variables: Mapping[str, Derived]
    skipped: Mapping[str, str]
    assumed: str = ""


def _content(
    opened: Opened,
    overrides: Mapping[str, Any] | None,
    labels: Callable[[int], Sequence[str]] | None,
    preprocessing: Mapping[str, Any] | None,
    strict: bool,
) -> _Content:
    arrays = opened.arrays
    if opened.translate is None:
        recognised, described = identify(arrays, overrides, labels, preprocessing, strict)
        made = {name: Derived(shape, (name,), np.asarray) for name, shape in recognised.network.variables().items()}
        return _Content(recognised.network, described, made, recognised.skipped)
    found = opened.translate(arrays, strict)
    network = Network.from_json(_overridden(arrays, found.network, overrides or {}))
    shapes = {name: made.shape for name, made in found.variables.items()}
    if problems := differences(shapes, network.variables()):
        raise CheckpointError(
            f"{arrays.path}: as the options have it, this is {network.function} of scope {network.scope}, but "
            f"{listed(problems)}. Leave out the options that change what it is"
        )
    named = found.labels if labels is None and found.labels is not None else _labels(labels, network.num_classes)
    known = found.preprocessing or {}
    if preprocessing is None:
        preprocessing = found.preprocessing
    elif isinstance(preprocessing, Mapping) and preprocessing.get("name") == known.get("name"):
        preprocessing = {**known, **preprocessing}
    described = describe(network, named, preprocessing, _origin(arrays))
    return _Content(network, described, found.variables, found.skipped, found.assumed)


def _overridden(arrays: NamedArrays, found: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The network that a file of another framework holds, with the entries that a user says; those of the arg scope one
    by one, since pool1's padding and Keras' epsilon are among them."""
    shown = {**found, "function": found["scope"] if found["function"] == "resnet_v1" else found["function"]}
    for name, option in (("function", "--variant"), ("depth_multiplier", ""), ("min_base_depth", "")):
        if name in overrides and overrides[name] not in (shown.get(name), found.get(name)):
            option = option or f"--{name.replace('_', '-')}"
            raise CheckpointError(
                f"{arrays.path}: {option} {overrides[name]} does not go with it: a file of {arrays.kind} shows that it "
                f"is {shown['function']}, in full width. Leave the option out"
            )
    changed = {name: value for name, value in overrides.items() if name != "function"}
    if isinstance(scope := changed.get("arg_scope"), Mapping):
        changed["arg_scope"] = {**found.get("arg_scope", {}), **scope}
    return {**found, **changed}


def identify(
    checkpoint: NamedArrays,
    overrides: Mapping[str, Any] | None = None,
    labels: Callable[[int], Sequence[str]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> tuple[Recognised, Description]:
    """The network in a checkpoint, and what a file made of it says of itself; arguments as in `convert`."""
    numeric = {n: v.shape for n, v in checkpoint.variables.items() if isinstance(v.dtype, np.dtype)}
    try:
        found = recognise(numeric, overrides, strict)
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


def _origin(checkpoint: NamedArrays) -> dict[str, Any]:
    """What the weights file says of its source: the kind, and each file's name, size and SHA-256."""
    files = [Path(file.path) for file in checkpoint.files]
    if not all(file.is_file() for file in files):  # they lie in an archive
        files = [Path(checkpoint.path)]
    described = []
    for file in files:
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        name = file.name.encode("utf-8", "backslashreplace").decode()  # which may be no text
        described.append({"name": name, "bytes": file.stat().st_size, "sha256": digest})
    return {"kind": checkpoint.kind, "files": described}
