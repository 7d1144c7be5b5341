"""Random variables for a ResNet v1, and what a training checkpoint holds beside them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from resnet_ref.random_weights import random_variables

__all__ = ["random_variables", "training_extras"]


def training_extras(
    variables: Mapping[str, npt.NDArray[np.float32]], scope: str, seed: int = 0
) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
    """What a training checkpoint holds beside the network: global_step, mean_rgb, and a Momentum slot per trainable."""
    trainable = [name for name in variables if not name.rpartition("/")[2].startswith("moving_")]
    slots = random_variables({f"{name}/Momentum": variables[name].shape for name in trainable}, seed)
    mean_rgb = np.array([123.68, 116.78, 103.94], np.float32)
    return {"global_step": np.array(4321, np.int64), f"{scope}/mean_rgb": mean_rgb, **slots}
