"""The activations are clamps, so that every tier and epilogue needs only two numbers."""

import math

from resnet_ref.errors import ShapeError

_BOUNDS = {None: (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


def bounds(activation: str | None) -> tuple[float, float]:
    """(low, high) such that the activation is `low` below low, `high` above high, and leaves NaN alone.

    `activation` is None, "relu" or "relu6" (tf.nn.relu, tf.nn.relu6); ShapeError otherwise.
    """
    if (activation is not None and not isinstance(activation, str)) or activation not in _BOUNDS:
        raise ShapeError(
            f'activation must be None, "relu" or "relu6", got {activation!r}; activations are given by name'
        )
    return _BOUNDS[activation]
