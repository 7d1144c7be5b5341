"""Random variables for a ResNet v1 that prove something: no zeros, no ones, no activation that vanishes or explodes."""

import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

RESIDUAL_SCALE = 0.2


def random_variables(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Draw a float32 value for every variable name; a value depends on its own name, shape and `seed` alone.

    For inputs of about unit variance the activations stay within a few orders of magnitude up to resnet_v1_200,
    in inference and in training: convolutions are He-scaled, and what closes a unit's residual branch is scaled
    down, because the units' sums would otherwise double the power each time.
    """
    return {
        name: _draw(name, tuple(shape), f"{name.rpartition('/')[0]}/biases" in shapes, seed)
        for name, shape in shapes.items()
    }


def _draw(name: str, shape: tuple[int, ...], has_biases: bool, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    parent, _, leaf = name.rpartition("/")
    closes_residual = "/conv3" in parent
    if leaf == "weights":
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
        if parent.endswith("/logits") or (closes_residual and has_biases):
            values *= RESIDUAL_SCALE
    elif leaf == "gamma":
        values = rng.uniform(0.5, 1.5, shape) * (RESIDUAL_SCALE if closes_residual else 1)
    elif leaf == "moving_variance":
        values = rng.uniform(0.5, 2, shape)
    else:
        values = rng.normal(0, 0.3, shape)
    return np.asarray(values, np.float32)
