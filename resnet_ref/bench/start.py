"""How long a contender takes from nothing to its first answer, and how much memory it then needs."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from resnet_ref.bench.contenders import Contender
from resnet_ref.bench.files import Files
from resnet_ref.bench.process import running

RUNS = 5  # after the first answer, before memory is read
# Where we, Numba, CuPy and the driver keep what was compiled.
_CACHES = ("RESNET_REF_CACHE_DIR", "NUMBA_CACHE_DIR", "CUPY_CACHE_DIR", "CUDA_CACHE_PATH")


@dataclass(frozen=True)
class Start:
    """Of a fresh process, with one image. warm, cold: seconds from its start, before any import, to its first answer,
    once each time; cold: with nothing compiled yet, of ours alone. bytes: the most it held, or None (see serve.py).

    The files it reads are in the page cache both times.
    """

    warm: list[float]
    cold: list[float]
    bytes: list[int | None]


def start(contender: Contender, files: Files, threads: int, times: int, progress: Callable[[], None]) -> Start:
    """Start a contender `times` times warm, after once more to fill its caches, and ours as often cold."""
    warm, cold, memory = [], [], []
    for number in range(times + 1):
        with running(contender, files, 1, threads) as process:
            if number:
                warm.append(process.seconds)
                memory.append(process.peak_memory(RUNS))
        progress()
    for _ in range(times if contender.is_ours else 0):
        with tempfile.TemporaryDirectory(dir=files.folder) as empty:
            environment = {cache: f"{empty}/{cache.lower()}" for cache in _CACHES}
            with running(contender, files, 1, threads, environment) as process:
                cold.append(process.seconds)
        progress()
    return Start(warm, cold, memory)
