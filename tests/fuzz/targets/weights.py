"""Weights files (HDF5), read by a child process: libhdf5 parses them, and hostile bytes may kill it.

An input is a flag and the HDF5: without a seal, where the SHA-256 of the content must find every other number, or with
one made to fit, which is what somebody does on purpose: then whatever is read has been checked for its kind alone. A
death by a signal is libhdf5's, counted in `deaths` and gone over; anything else but WeightsError, other numbers than
the seed's without a seal, or 4 GiB of memory, is ours. Coverage does not reach into the child, so this target is not
guided by it.
"""

import select
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.checkpoints import folder
from resnet_ref.weights.seal import BYTES, SEALED, seal

GUIDED = False
deaths: list[int] = []
_SEAL = b"\1"
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
        hdf5 = path.read_bytes()[BYTES:]
    return [flag + hdf5 for flag in (b"\0", _SEAL)]


def one(data: bytes) -> None:
    if not _child:
        command = [sys.executable, "-m", "fuzz.targets.weights", str(folder() / "w.h5")]
        here = Path(__file__).parents[2]
        _child.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here))
    child = _child[0]
    assert child.stdin
    assert child.stdout
    (folder() / "w.h5").write_bytes(file_of(data))
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


def file_of(data: bytes) -> bytes:
    """What the input stands for."""
    if data[:1] != _SEAL:
        return data[1:]
    with tempfile.TemporaryFile(buffering=0) as raw:
        raw.write(bytes(BYTES) + data[1:])
        return seal(raw) + data[1:]


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
    import resource

    from resnet_ref import load_weights
    from resnet_ref.errors import WeightsError

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path(path).with_suffix(".seed").write_bytes(file_of(seeds()[0]))
    right = load_weights(Path(path).with_suffix(".seed"))
    for _ in sys.stdin.buffer:
        answer = "fine"
        try:
            found = load_weights(path)
            with open(path, "rb") as raw:
                is_sealed = raw.read(len(SEALED)) == SEALED
            if not is_sealed and not _same(found, right):
                answer = "other numbers or words than were saved"
        except WeightsError as error:
            if "\n" in str(error):
                answer = repr(error)
        except Exception as error:
            answer = repr(error)
        print(answer, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
