"""The tiers that tests of kernels run on, all for NumPy arrays."""

import os
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from cuda_on_cpu.runtime import EmulatedRuntime

from resnet_ref import DeviceError, fleet, kernels
from resnet_ref.kernels import Tier
from resnet_ref.kernels.conv2d import cpu, gpu
from resnet_ref.kernels.conv2d.ladder.rungs import CPU, Rung
from resnet_ref.kernels.cuda.hosted import hosted
from resnet_ref.kernels.cuda.runtime import Runtime

EMULATED = "gpu, emulated"
GPU = pytest.param("gpu", marks=pytest.mark.gpu)
GPU_TIERS = [EMULATED, GPU]
TIERS = ["definition", "cpu", *GPU_TIERS]


def tier_named(name: str, precision: str = "float32") -> Tier:
    """A tier by its name in TIERS; the emulated one is checked for what a device would not forgive."""
    if name == EMULATED:
        return kernels.for_numpy(kernels.on_runtime(EmulatedRuntime(), precision))
    return kernels.for_numpy(kernels.on(name, precision=precision))


def tier_of(rung: Rung, on_gpu: bool = False) -> Tier:
    """A rung of the convolution's ladder for NumPy arrays; one in CUDA on the emulated device, or on a GPU."""
    if rung.device == CPU:
        both = SimpleNamespace(conv2d=rung.tier(2).conv2d, im2col=cpu.im2col)
        return Tier("cpu", lambda: both, ("float32",))
    runtime = kernels.cupy_runtime(0) if on_gpu else EmulatedRuntime()

    def by_rung(*args: Any, runtime: Runtime, **options: Any) -> Any:
        return rung.tier(runtime).conv2d(*args, **options)

    both = SimpleNamespace(conv2d=by_rung, im2col=gpu.im2col)
    return Tier("gpu", lambda: hosted(both, runtime), ("float32",))


class Gpus(list[EmulatedRuntime]):
    """Emulated devices in the place of real ones, so that "gpu" and "gpu:1" are these."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 1, check: bool = False) -> None:
        super().__init__(EmulatedRuntime(check=check, index=index) for index in range(count))
        monkeypatch.setattr(kernels, "cupy_runtime", self._device)
        monkeypatch.setattr(fleet, "device_count", lambda: len(self))

    def _device(self, index: int) -> EmulatedRuntime:
        if index >= len(self):
            raise DeviceError(f'there is no device "gpu:{index}"')
        return self[index]


def gpu_named(name: str, monkeypatch: pytest.MonkeyPatch, check: bool = False) -> Runtime:
    """The device of a name in GPU_TIERS, which "gpu" then stands for."""
    return Gpus(monkeypatch, check=check)[0] if name == EMULATED else kernels.cupy_runtime(0)


@cache
def why_no_gpu() -> str | None:
    """What keeps tests from a GPU, or None where there is one; an error where there has to be one."""
    try:
        kernels.on("gpu")
    except DeviceError as error:
        if os.environ.get("RESNET_REF_NEEDS_GPU"):
            raise
        return str(error)
    return None
