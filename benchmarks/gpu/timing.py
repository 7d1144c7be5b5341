"""How often a thing is timed, and what is kept of it."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

TURN = 0.3  # seconds that the timed runs should last together
FEWEST, MOST = 5, 200
Clock = Callable[[int], Sequence[float]]  # seconds of each of so many runs


def timed(clock: Clock) -> dict[str, Any]:
    """Of runs that go on until the device is awake, and then so many more, in seconds."""
    runs = min(max(math.ceil(TURN / max(min(clock(FEWEST)), 1e-9)), FEWEST), MOST)
    awake = runs // 2
    seconds = list(clock(awake + runs)[awake:])
    return {**summed_up(seconds), "seconds": seconds}


def summed_up(seconds: Sequence[float]) -> dict[str, Any]:
    """The median, the quartiles, and of how many runs."""
    low, _, high = statistics.quantiles(seconds, n=4)
    return {"median": statistics.median(seconds), "quartiles": [low, high], "runs": len(seconds)}
