"""Image files as a model takes them, a batch at a time, read by other threads while it computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import ImageError, WeightsError
from resnet_ref.fleet import Fleet
from resnet_ref.images import IsolatedReader, read_image
from resnet_ref.kernels import Tier
from resnet_ref.kernels.vector.executor import thread_count
from resnet_ref.model import Model

MOST_READERS = 8

Batch = tuple[list[Path], NDArray[np.float32]]
Image = NDArray[np.float32]


def computed(
    fleet: Fleet,
    files: Sequence[Path],
    size: int,
    unreadable: Callable[[ImageError], None],
    end_points: Sequence[str] | None = None,
    reader: IsolatedReader | None = None,
) -> Generator[tuple[list[Path], Any], None, None]:
    """(files, what the model gives for them) for each of `batches`, in order."""
    names: deque[list[Path]] = deque()

    def images(found: Iterator[Batch]) -> Iterator[NDArray[np.float32]]:
        for read, batch in found:
            names.append(read)
            yield batch

    with (
        closing(batches(fleet.model, files, size, unreadable, reader)) as found,
        closing(fleet.map(images(found), end_points)) as results,
    ):
        for result in results:
            yield names.popleft(), result


def batches(
    model: Model,
    files: Sequence[Path],
    size: int,
    unreadable: Callable[[ImageError], None],
    reader: IsolatedReader | None = None,
) -> Generator[Batch, None, None]:
    """(files, images [n, H, W, 3]) for up to `size` files at a time, preprocessed as the weights file says.

    While a batch is in use the next is read, or as many images as there are readers. A file that is no image goes to
    `unreadable`, in the order of the files and in the caller's thread, and is left out; to stop there, raise.
    WeightsError where the weights file names no preprocessing. reader: reads in other processes, and is closed where
    the caller leaves while it reads; None: in this one.
    """
    if (preprocessing := model.preprocessing) is None:
        raise WeightsError(
            f"{model.weights.path} names no preprocessing, so image files cannot be prepared for it; "
            'save it with preprocessing=dict(name="vgg"), or call the model with arrays'
        )
    readers = reader_count(model.tier)

    def read(file: Path) -> Image:
        return preprocessing(read_image(file)) if reader is None else reader(file, preprocessing)

    stop = (lambda: None) if reader is None else reader.close
    with closing(_ahead(read, files, max(size, readers), readers, stop)) as images:
        for start in range(0, len(files), size):
            batch = _batch(files[start : start + size], images, unreadable)
            if batch is not None:
                yield batch


def reader_count(tier: Tier) -> int:
    """How many threads read images: of a cpu as many as compute, else as many as this process may run on."""
    return min(tier.threads if tier.device == "cpu" else thread_count(None), MOST_READERS)


def _ahead(
    read: Callable[[Path], Image], files: Sequence[Path], count: int, readers: int, stop: Callable[[], None]
) -> Generator["Future[Image]", None, None]:
    """read(file) of each file, in order; whoever has got one finds the next `count` of them begun.

    stop: called where the caller leaves while something is being read, to end that.
    """
    pool = ThreadPoolExecutor(readers, "resnet-ref reader")
    try:
        begun: deque[Future[Image]] = deque()
        for file in files:
            begun.append(pool.submit(read, file))
            if len(begun) > count:
                yield begun[0]
                begun.popleft()
        while begun:
            yield begun[0]
            begun.popleft()
    finally:
        if not all(future.done() for future in begun):
            stop()
        pool.shutdown(cancel_futures=True)


def _batch(
    files: Sequence[Path], images: Iterator["Future[Image]"], unreadable: Callable[[ImageError], None]
) -> Batch | None:
    """The next files' images as a batch; None where none of them can be read."""
    read: list[Path] = []
    found: list[Image] = []
    for file in files:
        try:
            found.append(next(images).result())
            read.append(file)
        except ImageError as error:
            unreadable(error)
    return (read, np.stack(found)) if read else None
