"""What the hardware does at best, measured beside what is compared with it."""

from dataclasses import dataclass

from resnet_ref import kernels
from resnet_ref.bench.contenders import CPU
from resnet_ref.errors import DeviceError
from resnet_ref.kernels.cuda import peak as gpu
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.vector.peak import fma_peak


@dataclass(frozen=True)
class Peak:
    """gflops: GFLOP/s of multiply-adds alone, in float32. copy: GB/s of a copy, bytes read and written together; None
    where it was not measured."""

    gflops: float
    copy: float | None = None


def peak(device: str, threads: int) -> Peak:
    """Of the cpu with so many threads, or of a gpu. DeviceError where there is none."""
    if device == CPU:
        return Peak(fma_peak(threads))
    runtime = gpu_runtime(device)
    return Peak(gpu.fma_peak(runtime), gpu.copy_peak(runtime))


def gpu_runtime(device: str) -> Runtime:
    """The gpu that load_model knows by that name."""
    runtime = kernels.on(device, load=False).runtime
    if runtime is None:
        raise DeviceError(f"{device} is no gpu")
    return runtime
