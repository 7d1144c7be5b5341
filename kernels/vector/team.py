"""The threads that run programs: one team for the process, which runs one program at a time.

A helper waits for work in native code for a moment, since the next program often comes at once; then it goes to sleep
in Python, where it costs nothing.

    caller:  note the program -> a new number for each helper it needs -> wake those asleep -> run -> wait for them
    helper:  wait for another number -> run its share -> count itself as done -> wait ...

Callers whose programs are for one thread run them themselves, side by side.
"""

import atexit
import ctypes
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np

from resnet_ref.kernels.vector.emit import I64, LINE, POINTER, Emitter, Layout, Value
from resnet_ref.kernels.vector.memory import aligned
from resnet_ref.kernels.vector.objects import Library
from resnet_ref.kernels.vector.program import PROGRAM, emit_program, spin_until

# What the team shares: this record, a line that counts helpers which are done, and a line with each helper's number.
TEAM = Layout("program", "threads", "scratch", "scratch_step", "number")
_DONE, _NUMBERS = LINE, 2 * LINE
MOST_THREADS = 1024
PATIENCE = 20_000  # looks at its number before a helper goes to sleep: less than a millisecond
LEAVE = -1  # the number that sends a helper home


def emit_team(e: Emitter) -> None:
    """run (see program.py); publish(team) and lead(team) for the caller; attend(team, thread, last) for a helper."""
    emit_program(e)
    run = e.function_named("run")
    with e.function("publish", [POINTER]) as (team,):
        f = e.record(team, TEAM)
        e.store(I64(0), e.at(team, _DONE), 8)
        place = e.at(team, _NUMBERS)
        e.loop(1, f.threads, lambda h: e.store_released(f.number, e.at(place, e.mul(h, LINE))))
    with e.function("lead", [POINTER]) as (team,):
        f = e.record(team, TEAM)
        e.block.call(run, [e.pointer(f.program), I64(0), e.pointer(f.scratch)])
        spin_until(e, e.at(team, _DONE), e.sub(f.threads, 1))
    with e.function("attend", [POINTER, I64, POINTER]) as (team, thread, last):
        _emit_attend(e, team, thread, last)


def _emit_attend(e: Emitter, team: Value, thread: Value, last: Value) -> None:
    """Runs programs as numbers come, and returns when none has come for a while, or LEAVE has; `last`: the newest."""
    b = e.block
    wait, look, again, work, mine, end = (
        b.append_basic_block(x) for x in ("wait", "look", "again", "work", "mine", "end")
    )
    place = e.at(team, _NUMBERS, e.mul(thread, LINE))
    b.branch(wait)
    b.position_at_end(wait)
    seen = e.load(I64, last, 8)
    b.branch(look)
    b.position_at_end(look)
    looks = b.phi(I64)
    looks.add_incoming(I64(0), wait)
    number = b.load_atomic(place, "acquire", 8, typ=I64)
    b.cbranch(b.icmp_signed("==", number, seen), again, work)
    b.position_at_end(again)
    e.pause()
    following = e.add(looks, 1)
    looks.add_incoming(following, again)
    b.cbranch(b.icmp_signed("<", following, I64(PATIENCE)), look, end)
    b.position_at_end(work)
    e.store(number, last, 8)
    b.cbranch(b.icmp_signed("==", number, I64(LEAVE)), end, mine)
    b.position_at_end(mine)
    f = e.record(team, TEAM)
    scratch = e.add(f.scratch, e.mul(thread, f.scratch_step))
    b.call(e.function_named("run"), [e.pointer(f.program), thread, e.pointer(scratch)])
    b.atomic_rmw("add", e.at(team, _DONE), I64(1), "acq_rel")
    b.branch(wait)
    b.position_at_end(end)


class _Team:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.memory = aligned(_NUMBERS + MOST_THREADS * LINE).view(np.int64)
        self.number = 0
        self.helpers: list[_Helper] = []

    def lead(self, library: Library, program: int, threads: int, scratch: int, scratch_step: int) -> bool:
        """Runs the program; False, and nothing is run, where Python, about to end, starts no threads any more."""
        with self.lock:
            try:
                for thread in range(len(self.helpers) + 1, threads):
                    self.helpers.append(_Helper(self.memory, thread, library))
            except RuntimeError:
                return False
            self.number += 1
            record = TEAM.pack(
                program=program, threads=threads, scratch=scratch, scratch_step=scratch_step, number=self.number
            )
            self.memory[: len(TEAM)] = record
            address = self.memory.ctypes.data
            publish, lead = native(library, "publish", 1), native(library, "lead", 1)
            # Ctrl-C may come between any two lines; but once helpers have begun, they use what the caller would free.
            try:
                publish(address)
                self._wake(threads)
            except BaseException:
                self._wake(threads)
                raise
            finally:
                lead(address)
        return True

    def _wake(self, threads: int) -> None:
        for helper in self.helpers[: threads - 1]:
            helper.wake()

    def dismiss(self) -> None:
        """Sends the helpers home, at the end of the process."""
        with self.lock:
            for helper in self.helpers:
                helper.leave()
            self.helpers = []


class _Helper:
    def __init__(self, memory: "np.ndarray[tuple[int], np.dtype[np.int64]]", thread: int, library: Library) -> None:
        self.slot = memory[(_NUMBERS + thread * LINE) // 8 :][:1]
        self.slot[0] = 0  # LEAVE, where another was sent home
        self.last = self.slot.copy()
        self.asleep = False
        # Not a Semaphore, which is Python: an exception in the middle of it would leave it locked.
        self.bell: SimpleQueue[None] = SimpleQueue()
        self.attend = native(library, "attend", 3)
        self.arguments = (memory.ctypes.data, thread, self.last.ctypes.data)
        self.thread = threading.Thread(target=self._serve, name=f"resnet-ref {thread}", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            self.attend(*self.arguments)
            if self.last[0] == LEAVE:
                return
            # Asleep first, then a last look: the caller writes the number first and then looks who sleeps.
            self.asleep = True
            if self.slot[0] == self.last[0]:
                self.bell.get()
            self.asleep = False

    def wake(self) -> None:
        if self.asleep:
            self.bell.put(None)

    def leave(self) -> None:
        self.slot[0] = LEAVE
        self.bell.put(None)
        self.thread.join()


def native(library: Library, name: str, arguments: int) -> Callable[..., None]:
    """A function of the library as Python calls it: with integers, without the GIL.

    It holds the library: a thread may be in it when Ctrl-C has made all others let go.
    """
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(library[name])
    function.library = library  # type: ignore[attr-defined]
    return function


_team = _Team()
atexit.register(lambda: _team.dismiss())
# Threads do not survive a fork, and a lock may be held by one of them; the child begins anew.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_team.__init__)  # type: ignore[misc]


def run(library: Library, program: int, threads: int, scratch: int, scratch_step: int) -> None:
    """Runs a program (the address of a PROGRAM record) on so many threads, the caller among them."""
    if threads == 1:
        native(library, "run", 3)(program, 0, scratch)
    elif not _team.lead(library, program, threads, scratch, scratch_step):
        record = (ctypes.c_int64 * len(PROGRAM)).from_address(program)
        alone = type(record).from_buffer_copy(record)
        alone[PROGRAM.slot("threads")] = 1
        native(library, "run", 3)(ctypes.addressof(alone), 0, scratch)
