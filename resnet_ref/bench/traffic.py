"""How many bytes a network moves at least, computed layer by layer: what a memory's speed bounds."""

from collections.abc import Sequence

from resnet_ref.bench.fused_layers import fused_layers
from resnet_ref.network import Network
from resnet_ref.plan.fusing import Fused

FLOAT = 4


def least_bytes(network: Network, shape: Sequence[int]) -> dict[str, int]:
    """Bytes of each layer for images [N, H, W, C], by name: what it reads of its inputs, its output, and its weights,
    each once, in float32. The end of a residual unit is part of the convolution before it."""
    return {one.layer.name: FLOAT * _elements(one) for one in fused_layers(network, shape)}


def _elements(one: Fused) -> int:
    layer, output = one.layer, one.output
    read = [spec.size for spec in layer.inputs]
    weights = 0
    if layer.rows is not None and layer.cols is not None:
        taps, channels = layer.rows.size * layer.cols.size, layer.inputs[0].shape[-1]
        pixels = output.size // output.shape[-1]
        read = [min(read[0], pixels * taps * channels)]  # strides step over pixels
        weights = (taps * channels + 1) * output.shape[-1] if layer.op == "conv2d" else 0
    residual = 0 if one.residual is None else output.size
    return sum(read) + residual + output.size + weights
