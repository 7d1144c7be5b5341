"""What some tests need, and why they are skipped where it is not: of the system, and of the extras.

In a parametrised list, `pytest.param(..., marks=needs.PIPES)`; before a test, `@needs.PIPES`.
"""

import os
import signal
import sys
from importlib.util import find_spec

import pytest


def _unless(there: bool, what: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not there, reason=f"this system has no {what}")


WINDOWS = sys.platform == "win32"
ALARM = _unless(hasattr(signal, "setitimer"), "alarm signal")
FORK = _unless(hasattr(os, "fork"), "fork")
KILL = _unless(hasattr(signal, "SIGKILL"), "SIGKILL, nor exit statuses that are signals")
LIMITS = _unless(sys.platform == "linux", "limits of memory that hold")
LINKS = _unless(not WINDOWS, "symbolic links for everybody")
LOCKS = _unless(not WINDOWS, "locks of files")
MODES = _unless(not WINDOWS, "permissions of user, group and others")
ODD_NAMES = _unless(sys.platform == "linux", "file names of any bytes")
OPEN_FILES = _unless(not WINDOWS, "way to replace a file that is open")
PIPES = _unless(hasattr(os, "mkfifo"), "named pipes")
PROC = _unless(sys.platform == "linux", "/proc")
RESOURCE = _unless(not WINDOWS, "resource limits")
UNIX = _unless(not WINDOWS, "Unix shell, devices and errors")
SIGNALS = _unless(not WINDOWS, "signals from one process to another")

# What a test file imports that only an extra installs, and that extra.
EXTRAS = {
    "hypothesis": "test", "sklearn": "test", "selenium": "test", "axe_core_python": "test",
    "tensorflow": "oracle", "tf_keras": "oracle", "tf_slim": "oracle",
    "onnx": "bench", "onnxruntime": "bench", "openvino": "bench", "torch": "bench",
    "sphinx": "docs", "myst_parser": "docs", "markdown_it": "docs", "jinja2": "pages", "matplotlib": "pages",
}  # fmt: skip
OF_MARK = {
    "oracle": ("tensorflow", "tf_slim"),
    "browser": ("selenium", "axe_core_python", "jinja2", "matplotlib"),
    "peers": ("onnx", "onnxruntime", "openvino"),
}


def without(package: str) -> str | None:
    """Why what imports that package is skipped; None where it is there, or in no extra."""
    extra = EXTRAS.get(package)
    if extra is None or find_spec(package) is not None:
        return None
    return f"needs {package}: pip install '.[{extra}]'"


PAGES = pytest.mark.skipif(without("jinja2") is not None, reason=str(without("jinja2")))
