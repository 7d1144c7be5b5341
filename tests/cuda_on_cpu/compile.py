"""Compiles a .cu file with g++ into a library that runs its kernels on the CPU, once for every text and option."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

FOLDER = Path(__file__).parent
# The checker's own calls are in machine.cpp, which is compiled without these.
MODES = {
    # A local array that nobody has filled holds -1.7e38, not what happens to lie there.
    True: (
        *("-O1", "-g1", "-DEMU_CHECK", "-fsanitize=thread,bounds,integer-divide-by-zero"),
        "-ftrivial-auto-var-init=pattern",
    ),
    False: ("-O3",),
}
FLAGS = (
    *("-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", "-fPIC", "-w"),
    *("-fvisibility=hidden", "-fno-gnu-unique", "-fcf-protection=none", "-D__CUDA_EMU__=1"),
)


class EmulatorError(RuntimeError):
    """A kernel does not compile, is called with the wrong arguments, or does what it must not."""


class CudaText(Protocol):
    """A kernels.cuda.launch.Source, or what a test makes up."""

    @property
    def text(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...


class Parameter(NamedTuple):
    """of: "r" pointer to const, "w" pointer, "=" a value; letter: its type, as in kernel.h."""

    of: str
    letter: str
    is_restrict: bool


class Kernel(NamedTuple):
    """A kernel in a loaded library, and the most threads a block may have."""

    name: str
    parameters: tuple[Parameter, ...]
    bound: int
    address: int


class Library:
    """A compiled file. Its machine runs one launch at a time; `copy` has another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._library.emu_launch.restype = ctypes.c_char_p
        self._library.emu_launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        self._library.emu_failed_at.restype = ctypes.c_size_t

    def copy(self) -> "Library":
        """The same code with other memory: the loader tells libraries apart by their files."""
        other = self.path.with_suffix(".copy.so")
        _make(other, lambda temporary: shutil.copyfile(self.path, temporary))
        return Library(other)

    def kernel(self, name: str) -> Kernel:
        """The kernel of this name."""
        try:
            exported = _Exported.in_dll(self._library, f"emu_kernel_{name}")
        except ValueError:
            raise EmulatorError(f"the file has no kernel {name!r}") from None
        restricts = [letter == "y" for letter in exported.restricts.decode()]
        types = exported.types.decode()
        parameters = map(Parameter, types[: len(restricts)], types[len(restricts) :], restricts)
        return Kernel(name, tuple(parameters), exported.bound, ctypes.addressof(exported))

    def run(self, kernel: Kernel, launch: ctypes.Structure) -> str | None:
        """What went wrong."""
        message = self._library.emu_launch(kernel.address, ctypes.addressof(launch))
        if message is None:
            return None
        at = self._library.emu_failed_at()
        return f"{kernel.name}, {message.decode()}{self._line(at) if at else ''}"

    def _line(self, at: int) -> str:
        """The place in the .cu file; what is inlined there lies in the headers of this folder."""
        found = subprocess.run(["addr2line", "-i", "-e", str(self.path), hex(at - 1)], capture_output=True, text=True)
        places = [line.split(" ")[0] for line in found.stdout.splitlines()]
        places = [place.rpartition(f"/{FOLDER.name}/")[2] for place in places]
        places = [place for place in places if place[0] != "?" and not (FOLDER / place.split(":")[0]).exists()]
        return f" ({places[0]})" if places else ""


class _Exported(ctypes.Structure):
    _fields_ = (
        ("types", ctypes.c_char_p),
        ("restricts", ctypes.c_char_p),
        ("bound", ctypes.c_uint),
        ("call", ctypes.c_void_p),
    )


_loaded: dict[str, Library] = {}


def library(source: CudaText, check: bool) -> Library:
    """The source, compiled for the checker or for speed, and loaded."""
    if sys.platform != "linux":
        pytest.skip("running CUDA on the CPU needs what Linux' linker takes")
    if shutil.which("g++") is None:
        if os.environ.get("RESNET_REF_NEEDS_GXX"):
            raise EmulatorError("running CUDA on the CPU needs g++")
        pytest.skip("running CUDA on the CPU needs g++")
    mode = (*FLAGS, *MODES[check])
    key = _hash(source.text, *source.options, *mode, *_headers())
    if key not in _loaded:
        path = cache() / f"{key}.so"
        _make(path, lambda temporary: _compile(source, mode, temporary))
        _loaded[key] = Library(path)
    return _loaded[key]


def cache() -> Path:
    """Where libraries are kept from run to run."""
    folder = Path(tempfile.gettempdir()) / f"cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise EmulatorError(f"{folder} belongs to another user; set TMPDIR")
    return folder


def _bindings(source: CudaText) -> str:
    """Of the kernels that are there under the source's options."""
    text = _run("g++", "-E", "-P", "-D__CUDA_EMU__=1", *source.options, "-xc++", "-", text=source.text)
    return "\n".join(map(_binding, re.findall(r"\b__global__\b([^{;]*)\{", text)))


def _binding(head: str) -> str:
    """Of ` void __launch_bounds__(128, 2) name(parameters) `."""
    bound, found = "1024", re.search(r"\b__launch_bounds__\b", head)
    if found:
        inside = _parenthesised(head[found.end() :])
        bound = _split(inside)[0]
        head = head[: found.start()] + head[found.end() :].replace(f"({inside})", "", 1)
    name = re.search(r"(\w+)\s*\(", head)
    if name is None:
        raise EmulatorError(f"not a kernel: {head.strip()}")
    parameters = _split(_parenthesised(head[name.start() :]))
    restricts = "".join("y" if "__restrict__" in parameter else "n" for parameter in parameters)
    return f'EMU_KERNEL({name[1]}, ({bound}), "{restricts}")'


def _parenthesised(text: str) -> str:
    """What lies in the first parentheses."""
    depth, begin = 0, text.index("(") + 1
    for place, letter in enumerate(text[begin - 1 :], begin - 1):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            return text[begin:place]
    raise EmulatorError(f"unbalanced parentheses: {text.strip()}")


def _split(text: str) -> list[str]:
    """At commas outside of parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts if text.strip() else []


def _compile(source: CudaText, mode: tuple[str, ...], path: Path) -> None:
    text = f'#include "tensor_core.h"\n#include "kernel.h"\n#line 1 "cuda"\n{source.text}\n{_bindings(source)}\n'
    objects = path.with_suffix(".kernel.o")
    try:
        _run("g++", *mode, *source.options, f"-I{FOLDER}", "-c", "-xc++", "-", "-o", str(objects), text=text)
        link = ("-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", f"-Wl,-T,{FOLDER / 'shared.ld'}")
        _run("g++", *link, str(objects), str(_machine()), "-lm", "-o", str(path))
    finally:
        objects.unlink(missing_ok=True)


def _machine() -> Path:
    """machine.cpp, compiled; it is the same for every file, and optimised in both modes."""
    flags = ("-std=c++17", "-O2", *FLAGS)
    path = cache() / f"{_hash(*flags, *_headers())}.o"
    _make(path, lambda temporary: _run("g++", *flags, "-c", str(FOLDER / "machine.cpp"), "-o", str(temporary)))
    return path


def _make(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write the file, unless it is there or another process is about to have written it."""
    if path.exists():
        return
    import fcntl  # where g++ links as on Linux, there are locks

    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            temporary = path.with_name(f"{os.getpid()}-{path.name}")
            write(temporary)
            os.replace(temporary, path)


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=FOLDER)
    if done.returncode:
        raise EmulatorError(f"{command[0]} fails:\n{done.stderr[:4000]}")
    return done.stdout


@functools.cache
def _headers() -> tuple[str, ...]:
    return tuple(path.read_text("utf-8") for path in sorted(FOLDER.iterdir()) if path.suffix in (".h", ".cpp", ".ld"))


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
