"""The arithmetic of ResNet v1, one folder a kernel and one file a tier; knows no network and no weights file.

kernels.on("definition")    NumPy: what each kernel means; float32 or float64
kernels.on("cpu")           Numba: blocked, threaded, float32
kernels.on("gpu")           CUDA through CuPy, on one device; "gpu:1" is the second; float32
"""

import logging
import re
from functools import cache, partial
from importlib import import_module
from types import SimpleNamespace

from resnet_ref.errors import DeviceError
from resnet_ref.kernels import geometry
from resnet_ref.kernels.conv2d.tiles import PRECISIONS as GPU_PRECISIONS
from resnet_ref.kernels.cuda.cupy_runtime import cupy_runtime, has_trace_of_gpu
from resnet_ref.kernels.cuda.hosted import hosted
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.tier import Tier, namespace
from resnet_ref.kernels.vector.executor import thread_count

__all__ = ["DEVICES", "Tier", "geometry", "on"]

DEVICES = ("definition", "cpu", "gpu", "auto")
_FOLDERS = ("batch_norm", "conv2d", "max_pool2d", "pointwise", "softmax", "spatial_mean", "subsample")
_DTYPES = {"definition": ("float32", "float64"), "cpu": ("float32",)}
_GPU_DTYPES = ("float32",)
_GPU = re.compile(r"gpu(?::(\d{1,3}))?", re.ASCII)
_log = logging.getLogger("resnet_ref")


def on(device: str, threads: int | None = None, *, precision: str = "float32", load: bool = True) -> Tier:
    """The kernels of one device, chosen once.

    device: "definition", "cpu", "gpu" (the first; "gpu:1" is the second), or "auto": the gpu where there is one, else
    the cpu. threads: how many the cpu kernels may use (None: as many as this process may run on). precision: of the
    gpu's convolutions, one of conv2d/tiles.py's. load: import the kernels now, which takes long for Numba's, and not
    when one is first called. DeviceError for any other device, and where CuPy, a driver or a GPU is missing.
    """
    count = thread_count(threads)
    if device == "auto":
        device = fastest()
    if isinstance(device, str) and (found := _GPU.fullmatch(device)):
        return on_runtime(cupy_runtime(int(found[1] or 0)), precision)
    if not isinstance(device, str) or device not in _DTYPES:
        raise DeviceError(f"device must be one of {', '.join(DEVICES)}; got {device!r} (a further gpu is gpu:1)")
    if precision != "float32":
        coarser = " and ".join(GPU_PRECISIONS[1:])
        raise DeviceError(
            f"layer by layer device {device!r} computes in float32, not in {precision!r}; "
            f'device "gpu" does in {coarser}'
        )
    tier = Tier(device, partial(_load, device), _DTYPES[device], threads=count if device == "cpu" else None)
    if load:
        tier.load()
    return tier


def on_runtime(runtime: Runtime, precision: str = "float32") -> Tier:
    """The gpu kernels on a device that is there, for its arrays."""
    return Tier("gpu", partial(_load, "gpu"), _GPU_DTYPES, runtime=runtime, precision=precision)


def for_numpy(tier: Tier) -> Tier:
    """The same kernels for NumPy arrays: the tier itself, or a gpu's that copies them there and back."""
    if tier.runtime is None:
        return tier
    return Tier("gpu", partial(_hosted, tier.runtime), _GPU_DTYPES, precision=tier.precision)


def fastest() -> str:
    """What "auto" stands for: "gpu", or "cpu", and then the log says why not the gpu."""
    try:
        cupy_runtime(0)
    except DeviceError as error:
        say_cpu(error)
        return "cpu"
    return "gpu"


def say_cpu(why: DeviceError) -> None:
    """One line of the log, once a process: "auto" takes the cpu. A warning only where something speaks for a gpu."""
    _say(f"device auto takes the cpu: {why}", logging.WARNING if has_trace_of_gpu() else logging.INFO)


@cache
def _say(line: str, level: int) -> None:
    _log.log(level, line)


def _hosted(runtime: Runtime) -> SimpleNamespace:
    return hosted(_load("gpu"), runtime)


def _load(device: str) -> SimpleNamespace:
    return namespace(*(import_module(f"resnet_ref.kernels.{folder}.{device}") for folder in _FOLDERS))
