"""The arithmetic of ResNet v1, one folder a kernel and one file a tier; knows no network and no weights file.

kernels.on("definition")    NumPy: what each kernel means; float32 or float64
kernels.on("cpu")           Numba: blocked, threaded, float32
"""

from functools import partial
from importlib import import_module
from types import SimpleNamespace

from resnet_ref.errors import DeviceError
from resnet_ref.kernels import geometry
from resnet_ref.kernels.tier import Tier, namespace
from resnet_ref.kernels.vector.executor import thread_count

__all__ = ["DEVICES", "Tier", "geometry", "on"]

DEVICES = ("definition", "cpu", "gpu", "auto")
_FOLDERS = ("batch_norm", "conv2d", "max_pool2d", "pointwise", "softmax", "spatial_mean", "subsample")
_DTYPES = {"definition": ("float32", "float64"), "cpu": ("float32",)}


def on(device: str, threads: int | None = None, *, load: bool = True) -> Tier:
    """The kernels of one device, chosen once.

    device: "definition", "cpu", or "auto" (the fastest there is: at present "cpu"). threads: how many the cpu kernels
    may use (None: as many as this process may run on). load: import the kernels now, which takes long for Numba's, and
    not when one is first called. DeviceError for any other device, and for "gpu", whose kernels do not exist yet.
    """
    count = thread_count(threads)
    if device == "auto":
        device = "cpu"
    if device == "gpu":
        raise DeviceError('device "gpu" has no kernels in this version; use "cpu" or "definition"')
    if not isinstance(device, str) or device not in _DTYPES:
        raise DeviceError(f"device must be one of {', '.join(DEVICES)}; got {device!r}")
    options = {"threads": count} if device == "cpu" else {}
    tier = Tier(device, partial(_load, device), _DTYPES[device], options)
    if load:
        tier.load()
    return tier


def _load(device: str) -> SimpleNamespace:
    return namespace(*(import_module(f"resnet_ref.kernels.{folder}.{device}") for folder in _FOLDERS))
