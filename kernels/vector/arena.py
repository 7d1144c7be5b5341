"""Where each buffer lies in a program's memory, and where threads must wait for each other."""

from collections.abc import Sequence
from typing import Protocol

from resnet_ref.kernels.vector.memory import ALIGNMENT
from resnet_ref.kernels.vector.step import Buffer


class Step(Protocol):
    """What a step of a program tells of its memory."""

    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]


def lay_out(steps: Sequence[Step], kept: Sequence[Buffer], alignment: int = ALIGNMENT) -> int:
    """Gives every buffer an offset; buffers that are never needed together may share bytes. Returns the bytes needed.

    kept: needed from the first step to the last. The largest go first, each to the lowest place that is free.
    alignment: of every buffer, in bytes.
    """

    def room(buffer: Buffer) -> int:
        return -(-buffer.nbytes // alignment) * alignment

    lives: dict[Buffer, tuple[int, int]] = {buffer: (0, len(steps)) for buffer in kept}
    for number, step in enumerate(steps):
        for buffer in (*step.reads, *step.writes):
            first, last = lives.get(buffer, (number, number))
            lives[buffer] = (min(first, number), max(last, number))
    placed: list[Buffer] = []
    end = 0
    for buffer in sorted(lives, key=lambda b: (-b.nbytes, lives[b])):
        offset = 0
        for other in sorted(placed, key=lambda b: b.offset):
            together = lives[other][0] <= lives[buffer][1] and lives[buffer][0] <= lives[other][1]
            if together and offset < other.offset + room(other) and other.offset < offset + room(buffer):
                offset = other.offset + room(other)
        buffer.offset = offset
        placed.append(buffer)
        end = max(end, offset + room(buffer))
    return end


def barriers(steps: Sequence[Step]) -> list[bool]:
    """After which steps all threads wait: where the next touches bytes that one since the last wait wrote, or read."""
    waits = []
    since: list[Step] = []
    for step, following in zip(steps, [*steps, None][1:], strict=True):
        since.append(step)
        wait = following is None or any(_conflict(earlier, following) for earlier in since)
        waits.append(wait)
        if wait:
            since = []
    return waits


def _conflict(a: Step, b: Step) -> bool:
    return _overlap(a.writes, (*b.reads, *b.writes)) or _overlap(a.reads, b.writes)


def _overlap(some: Sequence[Buffer], others: Sequence[Buffer]) -> bool:
    return any(a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes for a in some for b in others)
