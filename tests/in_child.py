"""What tests have a child process do. It imports this file, and little with it, so that it starts in no time."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def leave(status: int = 3) -> None:
    os._exit(status)


def allocate_without_end() -> None:
    held = []
    while True:
        held.append(bytearray(10 << 20))


def allocate_in_c() -> None:
    np.zeros(1 << 40, np.uint8)


def loop() -> None:
    while True:
        pass


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def say(text: str) -> str:
    print(text, flush=True)
    os.write(1, text.encode())
    os.write(2, text.encode())
    return text


def fail(error: type[Exception], text: str) -> None:
    raise error(text)


class Awkward(Exception):  # noqa: N818
    """One that pickle cannot make again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def be_awkward() -> None:
    raise Awkward(1, 2)


def arrays(count: int) -> dict[str, Any]:
    return {"a": np.arange(count, dtype=np.float32), "b": np.ones((3, 0)), "text": "ü"}


def write(path: Path) -> None:
    path.write_bytes(b"content")


def identity(*values: Any) -> Any:
    return values


def system() -> tuple[str, bool, bool, bool]:
    return sys.platform, hasattr(os, "fork"), hasattr(os, "sched_getaffinity"), hasattr(signal, "SIGXCPU")


def error_modes() -> list[int]:
    return ctypes.windll.kernel32.error_modes  # type: ignore[attr-defined]  # of fake_system


def limits() -> tuple[int, int, str]:
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_AS)[0], sys.path[0]


def process() -> int:
    return os.getpid()


def crash(*arguments: Any) -> None:
    """Stands for libhdf5 reading what was made to crash it."""
    os.kill(os.getpid(), signal.SIGSEGV)
