"""What parts need that a machine may lack."""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

CUPY, PYTORCH, PYTEST, SANITIZER = "CuPy", "PyTorch", "pytest", "compute-sanitizer"


def find_sanitizer() -> Path | None:
    """compute-sanitizer, on the PATH or where CUDA's toolkit lies."""
    if (known := shutil.which("compute-sanitizer")) is not None:
        return Path(known)
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    roots = [Path(home) for home in homes if home] + sorted(Path("/usr/local").glob("cuda-*"), reverse=True)
    places = [root / folder / "compute-sanitizer" for root in roots for folder in ("bin", "compute-sanitizer")]
    return next((place for place in places if os.access(place, os.X_OK) and place.is_file()), None)


def _has(*modules: str) -> Callable[[], bool]:
    return lambda: all(find_spec(module) is not None for module in modules)


# Whether it is here, and what to do where it is not.
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    CUPY: (_has("cupy"), "pip install '.[gpu-cuda13]', or gpu-cuda12"),
    PYTORCH: (_has("torch"), "pytorch.org tells which to install"),
    PYTEST: (_has("pytest", "xdist", "hypothesis"), "pip install pytest pytest-xdist hypothesis"),
    SANITIZER: (lambda: find_sanitizer() is not None, "it comes with CUDA's toolkit; put it on the PATH"),
}


def missing() -> dict[str, str]:
    """What is not here: name -> what to do."""
    return {name: advice for name, (is_here, advice) in NEEDS.items() if not is_here()}
