"""What runs in a child of isolation.py: it calls what it is told, within limits, and answers through a pipe.

A request is a pickle; an answer is one too, followed by the buffers of its arrays.
"""

import contextlib
import importlib
import math
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from resnet_ref.messages import receive, send


def serve(begin: list[str] | None, memory: int) -> NoReturn:
    """Answer requests until there are no more. begin: module and name of what to call first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; our parent ends us
    _crash_silently()
    requests, answers = _own_pipes()
    if begin is not None:
        with contextlib.suppress(Exception):  # said at the call
            _find(*begin)()
    limited = False
    while True:
        try:
            (request,) = receive(requests, 1 << 62)
        except EOFError:
            os._exit(0)
        try:
            name, qualname, args, seconds = pickle.loads(request)
            function = _find(name, qualname)
            if not limited:
                _limit(memory)
                limited = True
            _limit_time(seconds)
            answer: tuple[str, Any] = ("result", function(*args))
        except MemoryError:
            answer = ("memory", None)
        except BaseException as problem:
            answer = ("error", problem)
        _answer(answers, answer)
        del answer
        args = None


def _crash_silently() -> None:
    """Windows would show a window, and wait until someone closes it."""
    if sys.platform == "win32":
        import ctypes

        # SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX
        ctypes.windll.kernel32.SetErrorMode(0x0001 | 0x0002 | 0x8000)


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Our ends of the pipes, at numbers where no library prints."""
    pipes = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return pipes


def _find(module: str, qualname: str) -> Any:
    found: Any = importlib.import_module(module)
    for piece in qualname.split("."):
        found = getattr(found, piece)
    return found


def _answer(stream: BinaryIO, answer: tuple[str, Any]) -> None:
    buffers: list[pickle.PickleBuffer] = []
    try:
        try:
            parts = [pickle.dumps(answer, 5, buffer_callback=buffers.append)]
            if answer[0] == "error":
                pickle.loads(parts[0])  # an exception that cannot be made again is found here, not there
        except MemoryError:
            raise
        except Exception:
            problem = answer[1]
            parts, buffers = [pickle.dumps(("error", RuntimeError(f"{type(problem).__name__}: {problem}")), 5)], []
    except MemoryError:
        parts, buffers = [pickle.dumps(("memory", None), 5)], []
    try:
        send(stream, [*parts, *(buffer.raw() for buffer in buffers)])
    except OSError:  # nobody listens
        os._exit(1)


def _limit(memory: int) -> None:
    """No core, no file, and so much memory beyond what is there now."""
    sys.dont_write_bytecode = True
    with contextlib.suppress(ImportError):
        import resource

        now = _address_space()
        for name, most in (("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_AS", now + memory)):
            _lower(resource, name, most)


def _limit_time(seconds: float) -> None:
    """Should our parent be gone: it is the one that looks at the clock."""
    with contextlib.suppress(ImportError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource, "RLIMIT_CPU", math.ceil(used.ru_utime + used.ru_stime + seconds) + 1)


def _lower(resource: Any, name: str, most: int) -> None:
    with contextlib.suppress(AttributeError, ValueError, OSError):  # a limit that this system does not know
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _address_space() -> int:
    """Bytes of it that we have."""
    try:
        return int(Path("/proc/self/statm").read_text("utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0
