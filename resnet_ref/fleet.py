"""One network on several devices of a host: batches go to them in turn, and the results come back in order."""

import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import cycle
from threading import Condition, Thread
from typing import Any

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.cuda.cupy_runtime import device_count
from resnet_ref.model import Model, load_model
from resnet_ref.weights_file import Weights

_log = logging.getLogger("resnet_ref")


class Fleet:
    """Models of one weights file, each on a device of its own; made by `open_fleet`."""

    def __init__(self, models: Sequence[Model]) -> None:
        if not models:
            raise DeviceError("a fleet needs at least one model")
        self.models = tuple(models)

    @property
    def model(self) -> Model:
        """The first: its network, labels and preprocessing are those of all."""
        return self.models[0]

    def map(self, batches: Iterable[Any], end_points: Sequence[str] | None = None) -> Generator[Any, None, None]:
        """What a call of the model gives for each of the host's batches [N, H, W, C], in order.

        Batch i is computed on device i modulo their number, by a thread of that device. Batches are asked for in the
        caller's thread, when a device has room for one: each holds those that Model.map has asked for and one more. Of
        errors the first counts, in the order of batches, and comes after the results before it. However this ends, no
        thread is left.
        """
        changed = Condition()
        errors: list[Exception] = []
        source = _until_error(batches, errors)
        lanes: list[_Lane] = []
        coming: deque[_Lane] = deque()  # whose results are to come, in order
        try:
            for model in self.models:
                lanes.append(_Lane(model, end_points, changed))
            for lane in cycle(lanes):
                while not _has_room(lane, coming, changed):
                    yield coming.popleft().take()
                try:
                    lane.give(next(source))
                except StopIteration:
                    break
                coming.append(lane)
                if coming[0].results:
                    yield coming.popleft().take()
            for lane in lanes:
                lane.end()
            while coming:
                yield coming.popleft().take()
        finally:
            for lane in lanes:
                lane.close()
        if errors:
            raise errors[0]


def open_fleet(
    path: str | os.PathLike[str] | Weights | None = None,
    device: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
) -> Fleet:
    """A weights file on one device, or on every gpu there is; arguments and errors as of `load_model`.

    device: "gpu", or "auto" where it takes the gpu: all of them ("gpu:1": the second alone). One beyond the first that
    cannot be used is left out, and the log says why. Gpus of different kinds may differ in last digits.
    """
    models = [load_model(path, device=device, precision=precision, threads=threads)]
    if models[0].tier.device == "gpu" and device in ("auto", "gpu"):
        for index in range(1, device_count()):
            try:
                models.append(load_model(path, device=f"gpu:{index}", precision=precision))
            except DeviceError as error:
                _log.warning("gpu:%d is left out: %s", index, error)
    return Fleet(models)


class _Lane:
    """A device's thread, with what waits for it and what it has done. `changed` guards both, of all lanes."""

    def __init__(self, model: Model, end_points: Sequence[str] | None, changed: Condition) -> None:
        self.waiting: deque[Any] = deque()
        self.results: deque[tuple[Any, BaseException | None]] = deque()
        self._changed = changed
        self._ended = False
        # A daemon: who exits in the middle of an iteration does not wait for it.
        self._thread = Thread(target=self._run, args=(model, end_points), name="resnet-ref lane", daemon=True)
        self._thread.start()

    def give(self, batch: Any) -> None:
        """One more to compute."""
        with self._changed:
            self.waiting.append(batch)
            self._changed.notify_all()

    def take(self) -> Any:
        """The next result, once it is there, or its error."""
        with self._changed:
            self._changed.wait_for(lambda: self.results)
            result, error = self.results.popleft()
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """No more batches come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let what waits be, and wait for what is being computed."""
        with self._changed:
            self.waiting.clear()
        self.end()
        self._thread.join()

    def _run(self, model: Model, end_points: Sequence[str] | None) -> None:
        try:
            for result in model.map(self._batches(), end_points):
                self._put(result, None)
        except BaseException as error:
            self._put(None, error)

    def _put(self, result: Any, error: BaseException | None) -> None:
        with self._changed:
            self.results.append((result, error))
            self._changed.notify_all()

    def _batches(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.waiting or self._ended)
                if not self.waiting:
                    return
                batch = self.waiting.popleft()
                self._changed.notify_all()
            yield batch


def _has_room(lane: _Lane, coming: Sequence[_Lane], changed: Condition) -> bool:
    """Whether the lane takes a batch; waits until it does, or the next result is there.

    Not for one of them alone: a model may ask for more batches before its first result, and a failed one takes none.
    """
    with changed:
        changed.wait_for(lambda: not lane.waiting or (coming and coming[0].results))
        return not lane.waiting


def _until_error(batches: Iterable[Any], errors: list[Exception]) -> Iterator[Any]:
    """The batches before an error, which goes to `errors`."""
    try:
        yield from batches
    except Exception as error:
        errors.append(error)
