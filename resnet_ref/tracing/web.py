"""The values behind a value: those that matter most, each followed to a pixel."""

import heapq
from dataclasses import dataclass

from resnet_ref.tracing.graph import Step, Tracer
from resnet_ref.tracing.life import Input, Life, Position, life

Key = tuple[int, Position]  # the step's number and the place in it


@dataclass(frozen=True)
class Web:
    """lives: by key, the asked-for value first. users: key -> the value that it was first met as an input of."""

    lives: dict[Key, Life]
    users: dict[Key, Key]

    def __contains__(self, key: object) -> bool:
        return key in self.lives


def key_of(step: Step, at: Position) -> Key:
    """What a value is called in a web."""
    return step.number, at


def web(tracer: Tracer, step: Step, at: Position, most: int = 8, budget: int = 300) -> Web:
    """About `budget` lives: those with the largest share in the value at `at` first, each with its largest input, and
    that one's, down to a pixel: so whoever follows any life's first input arrives."""
    lives: dict[Key, Life] = {}
    users: dict[Key, Key] = {}

    def add_chain(step: Step, at: Position, user: Key | None) -> None:
        key = key_of(step, at)
        while key not in lives:
            if user is not None:
                users[key] = user
            lives[key] = life(tracer, step, at, most)
            if not lives[key].inputs:
                return
            first = lives[key].inputs[0]
            step, at, user = first.step, first.at, key
            key = key_of(step, at)

    waiting: list[tuple[float, int, Step, Position, Key | None]] = [(-1.0, 0, step, at, None)]
    order = 0
    while waiting and len(lives) < budget:
        share, _, step, at, user = heapq.heappop(waiting)
        add_chain(step, at, user)
        current = lives[key_of(step, at)]
        shares = _shares(current)
        for one, part in zip(current.inputs, shares, strict=True):
            order += 1  # so that equal shares keep their order, and steps are never compared
            heapq.heappush(waiting, (share * part, order, one.step, one.at, key_of(step, at)))
    return Web(lives, users)


def _shares(current: Life) -> list[float]:
    """How much of the value each input is."""
    sizes = [abs(_size(one)) for one in current.inputs]
    whole = current.total_abs or sum(sizes) or 1.0
    return [size / whole for size in sizes]


def _size(one: Input) -> float:
    return one.value if one.product is None else one.product
