"""What `import resnet_ref` gives: every public name, once it is asked for and not before."""

import importlib
import subprocess
import sys
from typing import Any

import pytest

import resnet_ref


def fresh(code: str) -> str:
    """What a new Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_it_imports_neither_numpy_nor_h5py_nor_numba() -> None:
    code = "import sys, resnet_ref; print(sorted({'numpy', 'h5py', 'numba', 'PIL', 'click'} & sys.modules.keys()))"
    assert fresh(code) == "[]\n"


@pytest.mark.parametrize("name", resnet_ref.__all__)
def test_each_public_name_is_there_in_a_new_python_and_is_the_one_of_its_file(name: str) -> None:
    assert fresh(
        f"import resnet_ref; resnet_ref.{name}; from resnet_ref import {name} as it; print(it.__name__)"
    ).strip()
    found: Any = getattr(resnet_ref, name)
    if not name.startswith("resnet_"):
        assert getattr(importlib.import_module(found.__module__), name) is found
    assert name in dir(resnet_ref)


def test_a_file_of_the_package_is_an_attribute_and_nothing_else_is() -> None:
    assert fresh("import resnet_ref; print(resnet_ref.kernels.on('definition').device)") == "definition\n"
    with pytest.raises(AttributeError, match="module 'resnet_ref' has no attribute 'load_net'"):
        resnet_ref.load_net  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("resnet_ref.load_net")
