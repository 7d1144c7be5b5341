"""This side of a contender's process (the other is serve.py): start it, order it about, end it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import resnet_ref
from resnet_ref.bench.contenders import PEERS, Contender
from resnet_ref.bench.files import Files
from resnet_ref.errors import BenchError
from resnet_ref.kernels.arrays import Array

_SERVE = Path(__file__).with_name("serve.py")
_PATIENCE = 10  # seconds that a process may take to end


class Outputs(NamedTuple):
    """result: what a call returns, channels last. logits: or None, where the network has no classes."""

    result: Array
    logits: Array | None

    @property
    def telling(self) -> Array:
        """The one in which an error shows most: softmax hides what is added to all logits, and more."""
        return self.result if self.logits is None else self.logits


class Process:
    """A contender that has answered once. seconds: from its start, before any import, to that answer."""

    def __init__(self, contender: Contender, process: "subprocess.Popen[str]", log: Path, start: float) -> None:
        self.contender = contender
        self._process = process
        self._log = log
        self._read()
        self.seconds = time.perf_counter() - start

    def runs(self, count: int, warm: int) -> list[float]:
        """Seconds of each of `count` runs, after `warm` that are not counted."""
        return list(self._order(runs=count, warm=warm)["seconds"])

    def peak_memory(self, runs: int) -> int | None:
        """The most bytes the process has held, after some more runs; None where Linux does not tell."""
        return self._order(memory=runs)["bytes"]

    def outputs(self, path: Path) -> Outputs:
        """What it computes; `path` is written on the way."""
        self._order(outputs=os.fspath(path))
        with np.load(path) as found:
            return Outputs(found["result"], found.get("logits"))

    def _order(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # why, is read below
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            said = [text for text in self._log.read_text("utf-8", errors="replace").splitlines() if text.strip()]
            raise BenchError(f"{self.contender.name}: its process ended with status {status}. {' '.join(said[-1:])}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.contender.name}: {answer['error']}")
        return answer


def job_of(contender: Contender, files: Files, batch: int, threads: int) -> dict[str, Any]:
    """What a contender's process is told to do (see serve.py)."""
    nchw = not contender.is_ours and PEERS[contender.engine].nchw
    return {
        "engine": contender.engine,
        "threads": threads,
        "network": os.fspath(files.network_file(contender).absolute()),
        "images": os.fspath(files.images_file(batch, nchw)),
        "logits": files.logits,
        "options": dict(contender.options),
        "from_host": contender.from_host,
        "root": os.fspath(Path(resnet_ref.__file__).absolute().parents[1]),
    }


@contextmanager
def running(
    contender: Contender, files: Files, batch: int, threads: int, environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """A contender's process, ended with the block. environment: variables to set beside this process' own.

    BenchError with what the contender said where it cannot load the network or answer.
    """
    job = job_of(contender, files, batch, threads)
    log = files.folder / f"{contender.engine}.log"
    # -P: the folder of serve.py stays off the path, where its neighbours' names could stand for others' modules.
    command = [sys.executable, "-P", "-W", "ignore", os.fspath(_SERVE), json.dumps(job)]
    with log.open("wb") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    try:
        yield Process(contender, process, log, start)
    except BaseException:  # nobody wants its answer any more
        process.kill()
        raise
    finally:
        _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """Its stdin ends, and so should it."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):  # a broken pipe, by whichever name
        process.stdin.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        process.stdout.close()
