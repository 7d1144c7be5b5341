"""What a plan makes of a network: its layers, fused."""

from collections.abc import Sequence

from resnet_ref.network import Network
from resnet_ref.plan.fusing import Fused, fused, value_of
from resnet_ref.plan.plan import RESULT, named_outputs
from resnet_ref.shapes import Shapes, Spec


def fused_layers(network: Network, shape: Sequence[int]) -> list[Fused]:
    """In order, for images [N, H, W, C] of which nothing but the result is wanted."""
    shapes, images = Shapes(), Spec(tuple(shape))
    result = named_outputs(network.describe, shapes, images)[RESULT]
    return fused(shapes.layers, [value_of(result)])
