"""Python imports this file at its start, where it is on the path."""

import importlib.util
import os
import sys
import traceback
from pathlib import Path


def _begin(system):
    for name in ("modules", "files", "bare"):
        # By its path, so that the package that it belongs to is not imported before its time.
        path = Path(__file__).with_name(f"{name}.py")
        spec = importlib.util.spec_from_file_location(f"_fake_system_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.install(system)


if asked := os.environ.get("RESNET_REF_FAKE_SYSTEM"):
    try:
        _begin(asked)
    except BaseException:  # Python would go on
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)
