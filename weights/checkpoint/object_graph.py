"""TensorFlow 2's object checkpoints: V2 bundles whose keys are paths through Python objects.

The variables' own names stand only in the object graph, a message in a string tensor of the bundle
(tensorflow/core/protobuf/trackable_object_graph.proto).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from resnet_ref.weights.checkpoint.wire import DamagedError, Message

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def full_names(graph: bytes) -> dict[str, str]:
    """Return checkpoint key -> full name for each variable in a TrackableObjectGraph that has one.

    Raises DamagedError.
    """
    names: dict[str, str] = {}
    for node in Message(memoryview(graph)).messages(1):
        for attribute in node.messages(2):
            full_name, key = attribute.text(2), attribute.text(3)
            if full_name and key.endswith(_SUFFIX):
                names[key] = full_name
    return names


def listed_names(keys: Iterable[str], full: dict[str, str]) -> dict[str, str]:
    """Return listed name -> checkpoint key: the full name, or where several share it or none is known, the path.

    The path is the key without its suffix. Raises DamagedError if two keys end up under one name.
    """
    keys = [key for key in keys if key != GRAPH_KEY]
    shared = Counter(full.get(key) for key in keys)
    names: dict[str, str] = {}
    for key in keys:
        known = full.get(key)
        name = known if known is not None and shared[known] == 1 else key.removesuffix(_SUFFIX)
        if name in names:
            raise DamagedError(f"the keys {names[name]!r} and {key!r} are both named {name!r}")
        names[name] = key
    return names
