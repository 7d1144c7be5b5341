"""A plan knows each operation by a row of a table; what has none is an error, and never computed as something else."""

from collections.abc import Mapping
from typing import TypeVar

from resnet_ref.errors import DeviceError
from resnet_ref.shapes import Layer

T = TypeVar("T")


def row_of(table: Mapping[str, T], layer: Layer, device: str) -> T:
    """The table's row for a layer's operation; DeviceError, which names both, where it has none."""
    if layer.op not in table:
        raise DeviceError(
            f"{layer.name}: the {device}'s plans have no operation {layer.op!r}, only {', '.join(sorted(table))}; "
            'device="definition" computes layer by layer'
        )
    return table[layer.op]
