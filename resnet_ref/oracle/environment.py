"""TensorFlow and tf_slim in the versions that slim runs in, imported on first use.

The versions are pinned because slim runs in few others: tf_slim needs the layers of Keras 2, which TensorFlow left to
the package tf-keras, whose 2.21 dropped them.
"""

import contextlib
import functools
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from resnet_ref.errors import DeviceError

_VERSIONS = {"tensorflow": "2.20.", "tf_keras": "2.20."}
_INSTALL = "Install the versions that slim runs in: pip install 'resnet-ref[oracle]'"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Python warnings: tf_slim stands on layers that warn of their deprecation at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def tensorflow() -> tuple[Any, Any]:
    """Import TensorFlow and tf_slim, without their log lines, and return the two modules.

    Raises DeviceError when a package is missing, cannot be imported, or is not of the version slim needs.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with quiet():
        tf = _import("tensorflow")
        _import("tf_keras")
        # tf_slim looks for these layers where tf-keras had them before they moved under `src`.
        for layer in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
            sys.modules[f"tf_keras.legacy_tf_layers{layer}"] = _import(f"tf_keras.src.legacy_tf_layers{layer}")
        tf_slim = _import("tf_slim")
        # As in TensorFlow 1: tf_slim hashes all variables at each batch norm, which with equality by value is slow.
        tf.compat.v1.disable_tensor_equality()
        _import("tf_slim.nets.resnet_v1")
    return tf, tf_slim


def _import(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        raise DeviceError(f"The oracle cannot import {name}: {error}. {_INSTALL}") from error
    wanted, got = _VERSIONS.get(name, ""), getattr(module, "__version__", "")
    if not got.startswith(wanted):
        raise DeviceError(f"The oracle needs {name} {wanted}*, got {got}. {_INSTALL}")
    return module
