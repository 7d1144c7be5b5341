"""What `resnet-ref export` wrote as safetensors, taken back in: slim's names, and a description among the metadata."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from resnet_ref.elsewhere.translation import NOT_USED, Derived, Translation
from resnet_ref.errors import CheckpointError, WeightsError
from resnet_ref.network import Network
from resnet_ref.weights.differences import differences, listed
from resnet_ref.weights.named_arrays import NamedArrays

METADATA = "resnet_ref"  # the name of the description


def translate(arrays: NamedArrays, strict: bool = True) -> Translation:
    """The network that the metadata describe. CheckpointError where it cannot be, or the arrays are not its variables;
    what is not used is left out unless `strict`."""
    said = _description(arrays)
    try:
        network = Network.from_json(said.get("network"))
    except WeightsError as error:
        raise CheckpointError(f"{arrays.path}: {error}") from None
    expected = network.variables()
    unused = [] if strict else [name for name in arrays.variables if name not in expected]
    found = {name: variable.shape for name, variable in arrays.variables.items() if name not in unused}
    problems = differences(found, expected)
    problems += [f"{name} is no array of floats" for name in found if _kind(arrays, name) != "f"]
    if problems:
        raise CheckpointError(f"{arrays.path}: does not hold the network it describes: {listed(problems)}")
    labels = said.get("labels")
    if not isinstance(labels, list | None):
        raise CheckpointError(
            f"{arrays.path}: its labels are {labels!r:.100}, expected a list of texts; export it again"
        )
    return Translation(
        network.to_json(),
        {name: Derived(shape, (name,), np.asarray) for name, shape in expected.items()},
        said.get("preprocessing"),
        None if labels is None else tuple(labels),
        dict.fromkeys(unused, NOT_USED),
    )


def _description(arrays: NamedArrays) -> Mapping[str, Any]:
    try:
        said = json.loads(getattr(arrays, "metadata", {})[METADATA])
    except (KeyError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise CheckpointError(f"{arrays.path}: its metadata {METADATA!r} are no JSON object; export it again")
    return said


def _kind(arrays: NamedArrays, name: str) -> str:
    dtype = arrays.variables[name].dtype
    return dtype.kind if isinstance(dtype, np.dtype) else ""
