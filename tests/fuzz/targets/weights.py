"""Weights files (HDF5), read by a child process: libhdf5 parses them, and hostile bytes may kill it.

A death by a signal is libhdf5's, counted in `deaths` and gone over; anything else but WeightsError, other numbers than
the seed's, or 4 GiB of memory, is ours. Coverage does not reach into the child, so this target is not guided by it.
"""

import resource
import select
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.checkpoints import folder

GUIDED = False
deaths: list[int] = []
_MOST_SECONDS = 30
_MOST_MEMORY = 4 << 30
_child: list[subprocess.Popen[bytes]] = []

_NETWORK: dict[str, Any] = {
    "function": "resnet_v1",
    "num_classes": 2,
    "scope": "t",
    "blocks": [{"scope": "b", "args": [{"depth": 4, "depth_bottleneck": 1, "stride": 1}]}],
}


@cache
def seeds() -> list[bytes]:
    from variables import random_variables

    from resnet_ref import save_weights
    from resnet_ref.network import Network

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "w.h5")
        save_weights(path, random_variables(Network.from_json(_NETWORK).variables()), _NETWORK, labels=("a", "b"))
        return [path.read_bytes()]


def one(data: bytes) -> None:
    if not _child:
        command = [sys.executable, "-m", "fuzz.targets.weights", str(folder() / "w.h5")]
        here = Path(__file__).parents[2]
        _child.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here))
    child = _child[0]
    assert child.stdin
    assert child.stdout
    (folder() / "w.h5").write_bytes(data)
    child.stdin.write(b"\n")
    child.stdin.flush()
    ready = select.select([child.stdout], [], [], _MOST_SECONDS)[0]
    answer = child.stdout.readline() if ready else b""
    if answer:
        assert answer == b"fine\n", answer.decode()
        return
    close()
    assert ready, f"no end within {_MOST_SECONDS} s"
    assert child.returncode < 0, f"the child ended with {child.returncode}"
    deaths.append(-child.returncode)


def close() -> None:
    """End the child, if there is one."""
    if _child:
        child = _child.pop()
        if child.stdin:
            child.stdin.close()
        try:
            child.wait(2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()


def _same(a: Any, b: Any) -> bool:
    """Compare all that two weights files say."""
    words = all(getattr(a, name) == getattr(b, name) for name in ("labels", "network", "preprocessing", "source"))
    return words and a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in b)


def _serve(path: str) -> None:
    from resnet_ref import load_weights
    from resnet_ref.errors import WeightsError

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path(path).with_suffix(".seed").write_bytes(seeds()[0])
    right = load_weights(Path(path).with_suffix(".seed"))
    for _ in sys.stdin.buffer:
        answer = "fine"
        try:
            found = load_weights(path)
            if not _same(found, right):
                answer = "other numbers or words than were saved"
        except WeightsError as error:
            if "\n" in str(error):
                answer = repr(error)
        except Exception as error:
            answer = repr(error)
        print(answer, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
