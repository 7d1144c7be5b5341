"""What figures were measured on: the hardware, and the versions of the packages."""

import os
import platform
import re
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from resnet_ref.kernels.cuda.cupy_runtime import cupy
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.vector.sysctl import sysctl

_SETS = ("sse4", "avx", "fma", "amx", "neon", "sve", "fp16", "bf16", "dotprod")


def hardware() -> dict[str, Any]:
    """Processor, cores (those this process may run on, and all), memory in bytes, and instruction sets."""
    features = llvm.get_host_cpu_features()
    return {
        "processor": processor(),
        "model": llvm.get_host_cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "all_cores": os.cpu_count(),
        "memory": _memory(),
        "instruction_sets": sorted(name for name, there in features.items() if there and name.startswith(_SETS)),
        "system": f"{platform.system()} {platform.machine()}",
    }


def gpu(runtime: Runtime) -> dict[str, Any]:
    """Name, architecture, multiprocessors, memory and L2 cache in bytes of a gpu; versions of its driver, of the CUDA
    that the driver knows and the one that CuPy was built for (12080: 12.8), and of CuPy."""
    cp = cupy()
    properties = cp.cuda.runtime.getDeviceProperties(runtime.index)
    return {
        "name": runtime.name,
        "architecture": runtime.architecture,
        "multiprocessors": runtime.multiprocessors,
        "memory": properties["totalGlobalMem"],
        "l2": properties["l2CacheSize"],
        "driver": _driver(),
        "driver_cuda": cp.cuda.runtime.driverGetVersion(),
        "cuda": cp.cuda.runtime.runtimeGetVersion(),
        "cupy": cp.__version__,
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's version and those of installed packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def processor() -> str:
    """The processor's name, as the system gives it; ARM's Linux gives none, and then it is LLVM's."""
    if sys.platform == "darwin" and (named := sysctl("machdep.cpu.brand_string")):
        return named.rstrip(b"\0").decode(errors="replace")
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    # Windows' is its family, model and stepping; Linux' is often empty, or the architecture.
    said = platform.processor() if sys.platform == "win32" else ""
    return next(filter(None, [*names, said, llvm.get_host_cpu_name()]))


def _driver() -> str | None:
    """The NVIDIA driver's version, as Linux shows it."""
    try:
        said = Path("/proc/driver/nvidia/version").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", said)
    return found and found[0]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system counts pages
        return None
