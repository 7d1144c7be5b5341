"""A Python in which none of what the extras install is there."""

import importlib.machinery
import os
from types import MethodType

EXTRAS = (
    "cupy cupyx cupy_backends nvidia tensorflow tf_keras tf_slim keras jinja2 matplotlib onnx onnxruntime openvino"
    " torch torchvision sphinx myst_parser furo sphinx_design markdown_it xdist execnet hypothesis sklearn scipy"
    " selenium axe_core_python ruff mypy coverage atheris setuptools"
)


def install(system):
    """Keeps them from being found."""
    if system != "bare":
        return
    absent = frozenset(EXTRAS.split())
    real = importlib.machinery.PathFinder.find_spec

    def find_spec(finder, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in absent else real(fullname, path, target)

    importlib.machinery.PathFinder.find_spec = MethodType(find_spec, importlib.machinery.PathFinder)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
