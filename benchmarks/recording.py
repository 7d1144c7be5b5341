"""Writes a benchmark's figures as JSON, with the machine and the versions they belong to."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from resnet_ref.bench.machine import processor


def save(output: Path, packages: tuple[str, ...], **figures: Any) -> None:
    """Write `figures` to `output`, with the processor, Python's version and those of `packages`."""
    about = {
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**figures, **about}, indent=1) + "\n")
