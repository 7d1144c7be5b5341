"""Times contenders in turns, so that whatever else the machine does meanwhile falls on all of them alike."""

import math
import time
from collections.abc import Callable, Sequence

from resnet_ref.bench.process import Process

# Before each turn's timed runs: they wake its threads, and bring its weights back into the caches.
WARM = 2
_FEWEST, _MOST = 5, 50  # timed runs of a turn
_TURN = 0.25  # seconds that a turn's runs should last together, where that takes no more than _MOST
# Seconds between turns. The threads of some spin for up to 200 ms after a run, and would do so in another's turn.
_SHORTEST, _LONGEST = 0.25, 1.0


def take_turns(processes: Sequence[Process], rounds: int, progress: Callable[[], None]) -> list[list[float]]:
    """Seconds of every timed run, a list per process; each round goes through them in the other direction.

    All take the same number of runs a turn, which depends on the slowest. progress: called after each turn.
    """
    slowest = max(min(process.runs(2, 0)) for process in processes)
    runs = min(max(math.ceil(_TURN / slowest), _FEWEST), _MOST)
    pause = min(max(2 * slowest, _SHORTEST), _LONGEST)
    taken: list[list[float]] = [[] for _ in processes]
    for number in range(rounds):
        turns = list(zip(processes, taken, strict=True))
        for process, times in turns if number % 2 == 0 else reversed(turns):
            time.sleep(pause)
            times.extend(process.runs(runs, WARM))
            progress()
    return taken
