"""Random variables for a ResNet v1 that prove something: no zeros, no ones, no activation that vanishes or explodes."""

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

RESIDUAL_SCALE = 0.2


def random_variables(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Draw a float32 value for every variable name; a value depends on its own name, shape and `seed` alone.

    For inputs of about unit variance the activations stay within a few orders of magnitude up to resnet_v1_200,
    in inference and in training: convolutions are He-scaled, and what closes a unit's residual branch is scaled
    down, because the units' sums would otherwise double the power each time.
    """
    return {
        name: _draw(name, tuple(shape), f"{name.rpartition('/')[0]}/biases" in shapes, seed)
        for name, shape in shapes.items()
    }


def training_extras(
    variables: Mapping[str, npt.NDArray[np.float32]], scope: str, seed: int = 0
) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
    """What a training checkpoint holds beside the network: global_step, mean_rgb, and a Momentum slot per trainable."""
    trainable = [name for name in variables if not name.rpartition("/")[2].startswith("moving_")]
    slots = random_variables({f"{name}/Momentum": variables[name].shape for name in trainable}, seed)
    mean_rgb = np.array([123.68, 116.78, 103.94], np.float32)
    return {"global_step": np.array(4321, np.int64), f"{scope}/mean_rgb": mean_rgb, **slots}


def _draw(name: str, shape: tuple[int, ...], has_biases: bool, seed: int) -> npt.NDArray[np.float32]:
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
