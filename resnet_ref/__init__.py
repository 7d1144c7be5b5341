"""slim's ResNet v1 without a framework: every number can be followed down to the kernel that computes it.

model = load_model(file); model(images)                      inference
resnet_v1.resnet_v1_50(images, 1000, is_training=False, weights=weights)      slim's own functions
resnet_ref.kernels.on("definition" or "cpu")                 the arithmetic
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

# In a checkout kernels/ and weights/ lie beside this folder, not in it: Python started there finds them all the same.
if not _Path(__file__).with_name("kernels").exists():
    __path__.append(str(_Path(__file__).parents[1]))

if TYPE_CHECKING:
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

# The file of each name. Imported when it is asked for: so the command line can be interrupted from its first moment on,
# and its children (isolation.py) import what they need.
_FILES = {
    **dict.fromkeys(("Model", "load_model"), "model"),
    **dict.fromkeys(("Weights", "load_weights", "save_weights"), "weights_file"),
    "Preprocessing": "preprocessing",
}

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


def __getattr__(name: str) -> Any:
    """A public name, or a file of this package, as in resnet_ref.kernels."""
    if name in __all__ and name not in ("resnet_utils", "resnet_v1"):
        found = getattr(import_module(f"{__name__}.{_FILES.get(name, 'errors')}"), name)
        globals()[name] = found
        return found
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
