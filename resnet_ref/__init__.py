"""slim's ResNet v1 without a framework: every number can be followed down to the kernel that computes it.

model = load_model(file); model(images)                      inference
resnet_v1.resnet_v1_50(images, 1000, is_training=False, weights=weights)      slim's own functions
resnet_ref.kernels.on("definition" or "cpu")                 the arithmetic
"""

from pathlib import Path as _Path

# In a checkout kernels/ and weights/ lie beside this folder, not in it: Python started there finds them all the same.
if not _Path(__file__).with_name("kernels").exists():
    __path__.append(str(_Path(__file__).parents[1]))

from resnet_ref import resnet_utils, resnet_v1
from resnet_ref.errors import (
    CheckpointError,
    DeviceError,
    ImageError,
    RecordingError,
    ResnetRefError,
    ShapeError,
    VerificationError,
    WeightsError,
)
from resnet_ref.model import Model, load_model
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.weights_file import Weights, load_weights, save_weights

__all__ = [
    "CheckpointError",
    "DeviceError",
    "ImageError",
    "Model",
    "Preprocessing",
    "RecordingError",
    "ResnetRefError",
    "ShapeError",
    "VerificationError",
    "Weights",
    "WeightsError",
    "load_model",
    "load_weights",
    "resnet_utils",
    "resnet_v1",
    "save_weights",
]
