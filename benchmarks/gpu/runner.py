"""Runs the parts, one after the other, each as a process of its own that is ended with all its children in time."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from gpu.folder import CUT, FAILED, MISSING, OK, RUNNING, SKIPPED, Folder, Outcome, is_well
from gpu.needs import missing
from gpu.parts import BENCHMARKS, Part

LEAST = 10  # seconds without which no part begins: Python and the device's context take about as many
PATIENCE = 10  # seconds that a process may take to be gone once it is killed: a driver may hold it
# That interrupt, as far as the system has them.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
TAIL = 1 << 20  # bytes of a log that are read

End = Callable[[Sequence[str], dict[str, str], Path, float], int | None]
Say = Callable[[str], None]


def ended(command: Sequence[str], environment: dict[str, str], log: Path, limit: float) -> int | None:
    """Runs a command; its status, or None where it was ended after `limit` seconds. None of its children is left."""
    process = None
    with log.open("wb") as output:
        try:
            with _whole():
                process = subprocess.Popen(
                    command, cwd=BENCHMARKS, env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        except OSError as error:
            output.write(f"cannot be started: {error}\n".encode())
            return 127
        finally:
            if process is not None:
                with suppress(ProcessLookupError, PermissionError):
                    _kill(process)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """With its children, where the system has groups of processes."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


@contextmanager
def _whole() -> Iterator[None]:
    """What is within is not interrupted: a signal in the midst of it would lose a process that it has just begun."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda *_: came.append(1)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


class Runner:
    """Has so many seconds for all parts together, from now on. say: takes a line on how it goes. end, clock: tests have
    others."""

    def __init__(self, seconds: float, say: Say, end: End = ended, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self.say, self._end, self._clock = seconds, say, end, clock
        self._deadline = clock() + seconds
        self._missing = missing()

    def run(self, part: Part, folder: Folder, again: bool = False) -> int | None:
        """A part, unless it is well already, lacks something, or no time is left for it; the status that it ended with,
        None where it did not run to its end."""
        if not again and folder.outcome(part.name).state == OK:
            self.say(f"{part.name}: ok before")
            return None
        lacks = [f"{name} is missing: {self._missing[name]}" for name in part.needs if name in self._missing]
        if lacks:
            self._close(part, folder, Outcome(MISSING, "; ".join(lacks)))
            return None
        left = self._deadline - self._clock()
        if left < LEAST:
            outcome = Outcome(SKIPPED, f"{max(left, 0):.0f} of {self._seconds:.0f} seconds were left")
            if folder.outcome(part.name).state in (RUNNING, CUT, FAILED):
                self.say(f"{part.name}: {outcome.state}, {outcome.said}")  # what an earlier run found counts for more
            else:
                self._close(part, folder, outcome)
            return None
        if again:
            folder.forget(part.name)
        return self._run(part, folder, min(part.seconds, left))

    def _run(self, part: Part, folder: Folder, limit: float) -> int | None:
        self.say(f"{part.name}: {part.what}, at most {limit:.0f} s")
        folder.close(part.name, Outcome(RUNNING, "", 0, limit))
        begin = self._clock()
        try:
            status = self._end(part.command(folder), part.environment, folder.log(part.name), limit)
        except KeyboardInterrupt:
            spent = self._clock() - begin
            self._close(part, folder, Outcome(CUT, f"interrupted after {spent:.0f} s", spent, limit))
            raise
        outcome = outcome_of(part, folder, status, limit)
        self._close(part, folder, replace(outcome, seconds=self._clock() - begin, limit=limit))
        return status

    def _close(self, part: Part, folder: Folder, outcome: Outcome) -> None:
        folder.close(part.name, outcome)
        took = f" in {outcome.seconds:.0f} s" if outcome.limit else ""
        self.say(f"{part.name}: {outcome.state}{took}{', ' if outcome.said else ''}{outcome.said}")


def outcome_of(part: Part, folder: Folder, status: int | None, limit: float) -> Outcome:
    """How a part ended, by its status, its log, and what it left."""
    said, bad = _log(folder.log(part.name), part.bad)
    if status is None:
        whose = "its limit" if limit >= part.seconds else "all that was left"
        faults = f"{bad} faults before that; " if bad else ""
        return Outcome(CUT, f"ended after {limit:.0f} s, {whose}; {faults}last words: {said}")
    if status < 0:
        return Outcome(FAILED, f"ended by {_signal(-status)}; last words: {said}")
    if status:
        return Outcome(FAILED, f"status {status}; last words: {said}")
    lacking = [name for name in part.pieces if not is_well(folder.piece(part.name, name))]
    if lacking:
        return Outcome(FAILED, f"it says it is well, and {', '.join(lacking)} is not there")
    return Outcome(OK, said)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _log(path: Path, bad: str) -> tuple[str, int]:
    """Its last line, and how many lines begin with what tells of a fault."""
    try:
        text = path.read_bytes()[-TAIL:].decode("utf-8", "replace")
    except OSError:
        return "", 0
    lines = ["".join(c if c.isprintable() else "?" for c in line).strip() for line in text.splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return last[:300], sum(re.match(bad, line) is not None for line in lines)
