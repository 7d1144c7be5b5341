"""The part `versions`: which device this is, and what runs on it. Without a GPU its last line says why.

python -m gpu.versions FOLDER
"""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import resnet_ref
from gpu.folder import Pieces
from gpu.parts import NO_GPU, ROOT
from resnet_ref import DeviceError, kernels
from resnet_ref.bench import machine
from resnet_ref.kernels.cuda.runtime import Runtime


def about(runtime: Runtime) -> dict[str, Any]:
    """The device, the machine, the versions, and which sources these are."""
    return {
        "device": runtime.name,
        "gpu": machine.gpu(runtime),
        "hardware": machine.hardware(),
        "versions": machine.versions(["resnet-ref", "numpy", "numba", "llvmlite"]),
        "sources": sources(),
        "commit": _commit(),
    }


def sources() -> str:
    """A hash of all that computes: results of other sources are other results."""
    made = hashlib.sha256()
    for folder in (Path(resnet_ref.__file__).parent, Path(kernels.__file__).parent):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".cu", ".cuh")):
            made.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return made.hexdigest()[:16]


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def main(folder: str) -> int:
    try:
        runtime = kernels.on("gpu", load=False).runtime
    except DeviceError as error:
        print(error)
        return NO_GPU
    assert runtime is not None
    pieces = Pieces(folder, "versions")
    pieces.keep("device", lambda: about(runtime))
    return pieces.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
