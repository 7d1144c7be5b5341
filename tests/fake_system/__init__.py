"""Runs Python as this package would find it on a system that is not here: Windows, macOS, or one without the extras.

`sitecustomize.py` beside this file makes a Python so when it starts; the processes that it starts are the same. Our own
modules and the tests see the system (`modules.py`), the libraries see the real one: they are others' to port. What the
system does differently with open files is done to everybody (`files.py`).
"""

import os
import subprocess
import sys
from pathlib import Path

VARIABLE = "RESNET_REF_FAKE_SYSTEM"
WINDOWS, MACOS, BARE = "win32", "darwin", "bare"
TESTS = Path(__file__).parents[1]


def environment(system: str, **variables: str) -> dict[str, str]:
    """What a process has to have in its environment to be there."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, VARIABLE: system, **variables}


def python(system: str, *arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    """python ARGUMENTS there, in the folder of the tests."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=environment(system, **variables), cwd=TESTS, capture_output=True, text=True, check=False
    )
