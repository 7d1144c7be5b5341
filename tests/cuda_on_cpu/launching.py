"""From a `Launch` to the machine: arguments of exactly the parameters' types, and the memory they give a kernel."""

import ctypes
import os
import threading
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from resnet_ref.kernels.cuda.launch import Launch

from .compile import EmulatorError, Kernel, Library, Parameter
from .memory import EARLIER, DeviceArray, Place
from .streams import Reference

TYPES: dict[str, type[np.generic]] = {
    "f": np.float32,
    "d": np.float64,
    "i": np.int32,
    "u": np.uint32,
    "q": np.int64,
    "Q": np.uint64,
    "h": np.uint16,
    "b": np.uint8,
}
_machines = threading.Lock()  # a library runs one launch at a time, whatever runtime it comes from
_phase = EARLIER  # (checker.h) in which the last launch of this process ended
SHARED_OUT = 8192  # threads of a launch from which on a second thread of the CPU pays


class Memory(NamedTuple):
    """An array argument."""

    reference: Reference
    place: Place


Value = Memory | np.generic | None


class _Span(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("base", ctypes.c_void_p),
        ("words", ctypes.c_void_p),
        ("parameter", ctypes.c_int),
        ("is_writable", ctypes.c_int),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint),
        ("values", ctypes.c_void_p),
        ("spans", ctypes.c_void_p),
        ("span_count", ctypes.c_uint),
        ("order", ctypes.c_uint),
        ("first", ctypes.c_uint),
        ("step", ctypes.c_uint),
        ("phase", ctypes.c_uint),
    )


def require_arguments(kernel: Kernel, launch: Launch, device: int) -> None:
    """EmulatorError unless a device would understand the launch."""
    if launch.block > kernel.bound:
        raise EmulatorError(f"{kernel.name}: a block of {launch.block} threads; __launch_bounds__ says {kernel.bound}")
    if len(launch.arguments) != len(kernel.parameters):
        raise EmulatorError(
            f"{kernel.name} has {len(kernel.parameters)} parameters, got {len(launch.arguments)} arguments"
        )
    for number, (argument, parameter) in enumerate(zip(launch.arguments, kernel.parameters, strict=True)):
        wrong = _mistake(argument, parameter, device)
        if wrong:
            raise EmulatorError(f"{kernel.name}: argument {number} {wrong}")
    arrays = [
        (number, argument)
        for number, argument in enumerate(launch.arguments)
        if isinstance(argument, DeviceArray) and argument.size
    ]
    for (i, one), (j, other) in combinations(arrays, 2):
        first, second = kernel.parameters[i], kernel.parameters[j]
        if (first.is_restrict or second.is_restrict) and "w" in (first.of, second.of) and _overlap(one, other):
            raise EmulatorError(f"{kernel.name}: arguments {i} and {j} overlap, but a parameter is __restrict__")


def _mistake(argument: Any, parameter: Parameter, device: int) -> str:
    wanted = TYPES.get(parameter.letter)
    if parameter.of == "=":
        fits = type(argument) is wanted
        return "" if fits else f"is a {type(argument).__name__}, the parameter {wanted and wanted.__name__}"
    if argument is None:
        return ""
    if not isinstance(argument, DeviceArray):
        return f"is a {type(argument).__name__}, the parameter a pointer"
    if argument.device != device:
        return f"lies on cuda:{argument.device}, the launch on cuda:{device}"
    if wanted is not None and argument.dtype != wanted:
        return f"is an array of {argument.dtype}, the parameter points to {wanted.__name__}"
    return "" if argument.flags.c_contiguous else "is not contiguous"


def _overlap(one: DeviceArray, other: DeviceArray) -> bool:
    if one.allocation is not other.allocation:
        return False
    (a, n), (b, m) = ((array.place.offset, array.place.extent) for array in (one, other))
    return a < b + m and b < a + n


def run(libraries: list[Library], kernel: Kernel, launch: Launch, values: list[Value], order: int) -> None:
    """Run it now."""
    numbers = np.zeros(len(values) + 1, np.uint64)  # eight bytes an argument; never an empty array
    spans = (_Span * (len(values) + 1))()
    alive, count = [], 0
    for i, (value, parameter) in enumerate(zip(values, kernel.parameters, strict=True)):
        if isinstance(value, Memory):
            allocation = value.reference.get()
            alive.append(allocation)
            base = allocation.bytes.ctypes.data
            begin = numbers[i] = base + value.place.offset
            words = allocation.words.ctypes.data if allocation.words is not None else None
            end = int(begin) + value.place.extent
            spans[count] = _Span(int(begin), end, base, words, i, parameter.of == "w")
            count += 1
        elif value is not None:
            numbers[i : i + 1].view(np.uint8)[: value.itemsize] = np.frombuffer(value.tobytes(), np.uint8)
    pointers = numbers.ctypes.data + 8 * np.arange(len(numbers), dtype=np.uint64)
    blocks = launch.grid[0] * launch.grid[1] * launch.grid[2]
    teams = min(len(libraries), blocks, os.cpu_count() or 1) if blocks * launch.block >= SHARED_OUT else 1
    fixed = (launch.grid, launch.block, pointers.ctypes.data, ctypes.addressof(spans), count, order)
    with _machines:
        _run_teams(libraries, kernel, [_Launch(*fixed, first, teams, _phase) for first in range(teams)])


def _run_teams(libraries: list[Library], kernel: Kernel, jobs: list[_Launch]) -> None:
    """Each job on a library and a thread of its own."""
    global _phase
    mistakes: list[str | None] = [None] * len(jobs)

    def job(i: int) -> None:
        mistakes[i] = libraries[i].run(libraries[i].kernel(kernel.name), jobs[i])

    others = [threading.Thread(target=job, args=(i,)) for i in range(1, len(jobs))]
    for thread in others:
        thread.start()
    job(0)
    for thread in others:
        thread.join()
    _phase = int(jobs[0].phase)
    for mistake in filter(None, mistakes):
        raise EmulatorError(mistake)
