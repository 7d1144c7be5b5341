"""What it costs to refuse a weights file that is made to cost much: less than 200 MB of resident memory."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import needs
import numpy as np
import pytest
from test_hostile_hdf5 import chain, knot, long_attribute, many, sealed
from test_store import ARRAYS, DESCRIPTION

from resnet_ref import load_weights
from resnet_ref.errors import WeightsError
from resnet_ref.network import Network
from resnet_ref.weights import contents, store

pytestmark = needs.PROC


@pytest.fixture
def file(tmp_path: Path) -> Path:
    store.write(tmp_path / "w.h5", ARRAYS, ARRAYS.__getitem__, DESCRIPTION)
    return tmp_path / "w.h5"


def grown(path: Path, read: str = "load") -> int:
    """MiB of resident memory, at its most, beyond what the imports take, that a process takes to refuse the file."""
    script = """
        import os, sys
        sys.path.insert(0, os.getcwd())
        from test_store import load
        from resnet_ref import WeightsError, load_weights

        def most():
            return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024

        before = most()
        try:
            {"load": load, "load_weights": load_weights}[sys.argv[2]](sys.argv[1])
        except WeightsError:
            print(most() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path), read]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600, check=True)
    return int(done.stdout)


def sparse(path: Path) -> None:
    os.truncate(path, 1 << 40)


def full_of_labels(path: Path) -> None:
    def edit(h5: h5py.File) -> None:
        del h5.attrs["labels"]
        h5.attrs["labels"] = np.bytes_(b"[" + b",".join([b'"aa"'] * 400_000) + b",1]")

    sealed(path, edit)


def full_of_lists(path: Path) -> None:
    """As many bytes as are let in, of what takes the most memory once it is read."""

    def edit(h5: h5py.File) -> None:
        del h5.attrs["labels"], h5.attrs["source"]
        h5.attrs["labels"] = np.bytes_(b"[" + b",".join([b"[]"] * 699_000) + b"]")
        h5.attrs["source"] = np.bytes_(b'{"a":[' + b",".join([b"[]"] * 320_000) + b"]}")

    sealed(path, edit)


def nested(path: Path) -> None:
    def edit(h5: h5py.File) -> None:
        del h5.attrs["network"]
        h5.attrs["network"] = np.bytes_(b"[" * (2 << 20))

    sealed(path, edit)


WORST: dict[str, Callable[[Path], Any]] = {
    "sparse": sparse,
    "labels": full_of_labels,
    "lists": full_of_lists,
    "nested": nested,
    "attribute": lambda path: sealed(path, long_attribute),
    "many": lambda path: sealed(path, many),
    "knot": lambda path: sealed(path, knot),
    "chain": lambda path: sealed(path, chain),
}


@pytest.mark.parametrize("make", WORST.values(), ids=WORST)
def test_a_rejection_takes_less_than_200_mb(file: Path, make: Callable[[Path], Any]) -> None:
    make(file)
    assert grown(file) < 190


@pytest.mark.parametrize("version", [1, 2])
def test_a_network_of_360_mb_is_refused_in_less_than_200_mb(tmp_path: Path, version: int) -> None:
    """No number is kept before all have been looked at."""
    call = {"function": "resnet_v1_50", "num_classes": 1 << 15, "scope": "t"}
    shapes = Network.from_json(call).variables()
    path, last = tmp_path / "large.h5", "t/logits/weights"
    zeros = np.broadcast_to(np.float32(0), max(shapes.values(), key=np.prod)).reshape(-1)
    store.write(
        path,
        shapes,
        lambda name: zeros[: np.prod(shapes[name])].reshape(shapes[name]),
        store.Description(call),
        version,
    )
    with open(path, "r+b") as raw:
        raw.seek(contents.contents(str(path)).arrays[last].offset + 4 * int(np.prod(shapes[last])) - 4)
        raw.write(np.float32(np.nan if version == 2 else 1).tobytes())
    if version == 2:
        sealed(path, lambda h5: None)
    said = "holds nan at [0, 0, 2047, 32767]" if version == 2 else "its SHA-256 is"
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    assert said in str(caught.value)
    assert grown(path, "load_weights") < 190
