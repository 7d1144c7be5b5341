"""Runs a function in a child process, so that bytes which crash, fill or stall a C library end that process alone.

The child has limits of memory and time, may write no file, and answers through a pipe; whatever ends it becomes one
line of error. It is no sandbox: what takes over the child can do what its user can. Where the system knows no resource
limits there is still the process, and its time.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from queue import LifoQueue
from typing import Any, Self, TypeVar

from resnet_ref.errors import ResnetRefError, WeightsError
from resnet_ref.messages import receive, send

T = TypeVar("T")
Error = type[ResnetRefError]

MEMORY = 2 << 30
SECONDS = 120.0
LISTING_MEMORY, LISTING_SECONDS = 1 << 29, 60.0  # for what only tells where the numbers of a file lie
_PIPE = 1 << 20  # bytes in flight, where the system lets us choose
# One thread; and glibc keeps what an image took for the next, which page faults would make half as slow again.
_ENVIRONMENT = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
# Of Windows' ntstatus.h.
_EXCEPTIONS = {
    0xC0000005: "access violation",
    0xC0000017: "no memory",
    0xC000001D: "illegal instruction",
    0xC0000094: "integer division by zero",
    0xC00000FD: "stack overflow",
    0xC0000374: "heap corruption",
    0xC0000409: "abort",
}
# Nothing of the folder we are in is imported: it may be where the hostile files lie.
_BOOT = """
import importlib.util, json, sys
path, package, begin, memory = json.loads(sys.argv[1])
sys.path[:] = path
spec = importlib.util.spec_from_file_location("resnet_ref", package[0], submodule_search_locations=package[1])
sys.modules["resnet_ref"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from resnet_ref.isolated_process import serve
serve(begin, memory)
"""


def isolated(
    function: Callable[..., T], *args: Any, what: str, error: Error = WeightsError, memory: int = MEMORY,
    seconds: float = SECONDS,
) -> T:  # fmt: skip
    """function(*args) of a child process that lives for this call.

    function: of a module, by whose name the child imports it; it, args and the result go through pickle, arrays as they
    are. what: the file's name in messages. error: raised, in one line, where the child crashes, needs more than
    `memory` bytes beyond what Python and the imports take, or more than `seconds`. What the function raises is raised
    here. Its prints go nowhere.
    """
    with Pool(memory=memory) as pool:
        return pool.call(function, *args, what=what, error=error, seconds=seconds)


class Pool:
    """Up to `count` children kept for many calls from any threads; one that died is replaced at the next call.

    begin: what each child calls when it starts, and the first starts at once: imports, while we do something else.
    """

    def __init__(self, count: int = 1, memory: int = MEMORY, begin: Callable[[], object] | None = None) -> None:
        self._count, self._memory, self._first = count, memory, begin
        self._make()
        _pools.add(self)
        if begin is not None:
            with contextlib.suppress(OSError):  # said at the call
                self._children[-1].start()

    def _make(self) -> None:
        self._children = [_Child(self._memory, self._first) for _ in range(self._count)]
        self._idle: LifoQueue[_Child] = LifoQueue()
        for child in self._children:
            self._idle.put(child)

    def call(self, function: Callable[..., T], *args: Any, what: str, error: Error, seconds: float = SECONDS) -> T:
        """As `isolated`."""
        child = self._idle.get()
        try:
            return child.call(function, args, what, error, seconds)
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """End all children, also those at work: their calls end with an error."""
        for child in self._children:
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()


def _after_fork() -> None:
    """A forked process makes children of its own: two who ask the same child would read each other's answers."""
    for pool in _pools:
        pool._make()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Child:
    """One child, as its parent sees it; used by one thread at a time, but for `close`."""

    def __init__(self, memory: int, begin: Callable[[], object] | None) -> None:
        self._memory = memory
        self._begin = None if begin is None else (begin.__module__, begin.__qualname__)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False

    def start(self) -> "subprocess.Popen[bytes]":
        """The process, a new one unless one is there. OSError."""
        with self._lock:
            return self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._closed:
            raise OSError(0, "the command is ending")
        if self._process is None or self._process.poll() is not None:
            self._reap()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, _greeting(self._begin, self._memory)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                env={**os.environ, **_ENVIRONMENT},
            )  # fmt: skip
            _widen(self._process)
        return self._process

    def _take(self) -> "subprocess.Popen[bytes]":
        """As `start`; until `_give_back` its pipes are the caller's, and `close` leaves them open."""
        with self._lock:
            process = self._started()
            self._busy = True
            return process

    def _give_back(self, process: "subprocess.Popen[bytes]", is_well: bool) -> int:
        """Its exit status: 0 where it is well and goes on living."""
        with self._lock:
            self._busy = False
            if is_well and not self._closed:
                return 0
            process.kill()
            self._reap()
            return process.returncode

    def close(self) -> None:
        """End it for good."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                if not self._busy:  # else it is for the thread that reads its pipes to close them
                    self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            self._process = None

    def call(self, function: Callable[..., T], args: Any, what: str, error: Error, seconds: float) -> T:
        """The function's result, or its error; the process is not used again unless it answered."""
        request = pickle.dumps((function.__module__, function.__qualname__, args, seconds), 5)
        try:
            process = self._take()
        except OSError as problem:
            raise error(f"cannot start a process to read {what}: {problem.strerror}") from None
        answer, late = None, threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        try:
            timer.start()
            with contextlib.suppress(OSError, EOFError):  # it died while it was asked or while it answered
                answer = _exchange(process, request, self._memory)
        except MemoryError:
            answer = ("memory", None)
        finally:
            timer.cancel()
            timer.join()
            is_well = answer is not None and answer[0] != "memory" and not late.is_set()
            status = self._give_back(process, is_well)
        if answer is None or answer[0] == "memory":
            limit = "memory" if answer else "closed" if self._closed else "time" if late.is_set() else ""
            raise error(_why(what, limit, status, self._memory, seconds))
        if answer[0] == "error":
            raise answer[1]
        result: T = answer[1]
        return result


def _why(what: str, limit: str, status: int, memory: int, seconds: float) -> str:
    """What is said of a child that gave no answer."""
    advice = "it is damaged, or made to do harm; take it from a source you trust"
    if limit == "closed":
        return f"{what} was not read: the command ended first"
    if limit == "time" or (hasattr(signal, "SIGXCPU") and status == -signal.SIGXCPU):
        return f"{what} was not read within {seconds:g} s, so that was ended; {advice}"
    if limit == "memory":
        return f"{what} takes more than {memory >> 20:,} MiB of memory to read, so that was ended; {advice}"
    return f"{what} ended the process that was reading it ({_how(status)}); {advice}"


def _how(status: int) -> str:
    """What a process' exit status says of its end."""
    if status >= 1 << 30:  # Windows': the code of an exception
        code = f"0x{status:08X}"
        return f"{_EXCEPTIONS[status]}, {code}" if status in _EXCEPTIONS else code
    try:
        return signal.Signals(-status).name if status < 0 else f"status {status}"
    except ValueError:
        return f"signal {-status}"


def _greeting(begin: tuple[str, str] | None, memory: int) -> str:
    """How the child's Python becomes like ours, and what to call first."""
    import resnet_ref

    path = [entry for entry in sys.path if os.path.isabs(entry)]
    places = [os.path.abspath(entry) for entry in resnet_ref.__path__]
    return json.dumps([path, [os.path.abspath(str(resnet_ref.__file__)), places], begin, memory])


def _widen(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        if process.stdout is not None:
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)


def _exchange(process: "subprocess.Popen[bytes]", request: bytes, most: int) -> tuple[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    send(process.stdin, [request])
    first, *buffers = receive(process.stdout, most)
    try:
        answer: tuple[str, Any] = pickle.loads(first, buffers=buffers)
    except Exception:  # what a dying process may have sent
        raise EOFError from None
    return answer
