"""What a network costs for images of a size: per unit its shape, stride, rate, parameters, arithmetic and memory."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from resnet_ref.network import Network
from resnet_ref.shapes import Layer, Shapes

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Row:
    """One unit of the network (conv1, block1/unit_1, logits ...), or the total.

    output: [N, H, W, C]. stride: the unit's own. total_stride: input pixels per output pixel so far. rate: of the 3x3
    convolution. parameters: all variables, moving averages included. flops: of the convolutions, a multiply-add as
    two. bytes: of every activation the unit makes, float32.
    """

    name: str
    output: tuple[int, ...]
    stride: int
    total_stride: int
    rate: int
    parameters: int
    flops: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """rows: in order; total_*: their sums; peak_bytes: the most that activations need at once, run layer by layer."""

    rows: tuple[Row, ...]
    total_parameters: int
    total_flops: int
    total_bytes: int
    peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def cost(network: Network, batch: int, height: int, width: int, **changes: Any) -> Cost:
    """The cost of `network` for images [batch, height, width, channels]; `changes` as in Network.describe."""
    shapes = network.shapes(batch, height, width, **changes)
    units: dict[str, list[Layer]] = {}
    for layer in shapes.layers:
        units.setdefault(_unit(layer, network.scope), []).append(layer)
    rows: list[Row] = []
    total_stride = 1
    for name, layers in units.items():
        stride = max(layer.rows.stride if layer.rows else 1 for layer in layers)
        total_stride *= stride
        rows.append(_row(name, layers, stride, total_stride))
    return Cost(
        tuple(rows),
        sum(row.parameters for row in rows),
        sum(row.flops for row in rows),
        sum(row.bytes for row in rows),
        FLOAT_BYTES * _peak(shapes),
    )


def _unit(layer: Layer, scope: str) -> str:
    name = layer.scope.removeprefix(f"{scope}/")
    return name.partition("/bottleneck_v1")[0]


def _row(name: str, layers: Sequence[Layer], stride: int, total_stride: int) -> Row:
    return Row(
        name,
        layers[-1].output.shape,
        stride,
        total_stride,
        max(layer.rows.rate if layer.rows else 1 for layer in layers),
        sum(layer.parameters for layer in layers),
        sum(layer.flops for layer in layers),
        FLOAT_BYTES * sum(layer.output.size for layer in layers),
    )


def _peak(shapes: Shapes) -> int:
    """The most elements alive at once: each value from the layer that makes it to the last one that reads it."""
    last = {id(value): step for step, layer in enumerate(shapes.layers) for value in layer.inputs}
    alive: dict[int, int] = {}
    peak = 0
    for step, layer in enumerate(shapes.layers):
        alive |= {id(value): value.size for value in (*layer.inputs, layer.output)}
        peak = max(peak, sum(alive.values()))
        alive = {key: size for key, size in alive.items() if last.get(key, 0) > step}
    return peak
