"""What figures were measured on: the hardware, what it can do at best, and the versions of the packages."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

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


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's version and those of installed packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def processor() -> str:
    """The processor's name, as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system counts pages
        return None
