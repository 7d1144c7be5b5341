"""A TensorFlow 2 object checkpoint: names stand in a message inside the data."""

from checkpoint_files import masked, message, varint

from fuzz.checkpoints import CHECKED, VALUES, joined, v2
from fuzz.targets.v2 import one

__all__ = ["one", "seeds"]

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def seeds() -> list[bytes]:
    keys = {name: f"net/{number}{_SUFFIX}" for number, name in enumerate(VALUES)}
    nodes = [
        message((1, message((1, number), (2, b"child"))), (2, message((1, b"VARIABLE_VALUE"), (2, name), (3, key))))
        for number, (name, key) in enumerate((name.encode(), key.encode()) for name, key in keys.items())
    ]
    graph = message(*((1, node) for node in nodes))
    length = len(graph).to_bytes(4, "little")
    end = masked(length).to_bytes(4, "little") + graph
    raw = varint(len(graph)) + end
    made = message((1, 7), (5, len(raw))) + bytes([6 << 3 | 5]) + masked(length + end).to_bytes(4, "little")
    index, data = v2({b"_CHECKPOINTABLE_OBJECT_GRAPH": (made, raw)}, keys)
    return [joined(index, data, flags) for flags in (0, CHECKED)]
