"""Images are read ahead, in order and within bounds, and whatever ends it leaves no thread."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.runtime import EmulatedRuntime
from PIL import Image

from resnet_ref import DeviceError, ImageError, WeightsError, batches, kernels, load_model, save_weights
from resnet_ref.fleet import Fleet
from resnet_ref.images import read_image

FAR = 600  # seconds: a wait that takes so long is a deadlock


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert [name for name in names if name.startswith(("resnet-ref reader", "resnet-ref lane"))] == []


@pytest.fixture(scope="module")
def model(tiny_file: Path) -> Any:
    return load_model(tiny_file, device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(5)
    files = [folder / f"{number}.png" for number in range(23)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(file)
    return files


@pytest.fixture(params=[1, 2, 8])
def readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(batches, "reader_count", lambda tier: request.param)
    return int(request.param)


def stop(error: ImageError) -> None:
    raise error


def never(error: ImageError) -> None:
    pytest.fail(str(error))


@pytest.mark.parametrize("size", [1, 4, 5, 23, 100])
def test_batches_are_the_files_images_in_order(model: Any, pictures: list[Path], readers: int, size: int) -> None:
    found = list(batches.batches(model, pictures, size, never))
    assert [names for names, _ in found] == [pictures[n : n + size] for n in range(0, 23, size)]
    images = np.concatenate([batch for _, batch in found])
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, np.stack([model.preprocessing(read_image(file)) for file in pictures]))


def broken(files: list[Path], tmp_path: Path, *places: int) -> list[Path]:
    mixed = list(files)
    for place in places:
        (bad := tmp_path / f"bad {place}.png").write_text("no image")
        mixed[place] = bad
    return mixed


def test_unreadable_files_are_reported_in_order_by_the_callers_thread_and_left_out(
    model: Any, pictures: list[Path], readers: int, tmp_path: Path
) -> None:
    places = (0, 2, 3, 8, 9, 10, 11, 22)
    files = broken(pictures, tmp_path, *places)
    reports: list[tuple[str, threading.Thread]] = []
    found = list(batches.batches(model, files, 4, lambda e: reports.append((str(e), threading.current_thread()))))
    assert [message.split(":")[0] for message, _ in reports] == [str(files[place]) for place in places]
    assert {thread for _, thread in reports} == {threading.current_thread()}
    good = [[file for file in files[n : n + 4] if "bad" not in file.name] for n in range(0, 23, 4)]
    assert [names for names, _ in found] == [names for names in good if names]
    assert [len(batch) for _, batch in found] == [1, 4, 4, 4, 2]


class Watched:
    """In the place of read_image: what was begun. gate: where a reader waits, by how many had begun, and by its file:
    who begins with a file first need not get a number first."""

    def __init__(self, gate: Callable[[int, Path], None] = lambda number, file: None) -> None:
        self.begun: list[Path] = []
        self.gate = gate
        self.changed = threading.Condition()

    def __call__(self, file: Path) -> Any:
        with self.changed:
            self.begun.append(file)
            number = len(self.begun)
            self.changed.notify_all()
        self.gate(number, file)
        return read_image(file)

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, FAR)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_the_next_batch_and_no_more_is_read_while_one_is_in_use(
    model: Any, pictures: list[Path], readers: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "read_image", watched := Watched())
    ahead = max(size, readers)
    for number, _ in enumerate(batches.batches(model, pictures, size, never), 1):
        most = min(len(pictures), number * size + ahead)
        watched.wait_for(most)  # without anyone asking for the next batch
        assert len(watched.begun) == most
    assert sorted(watched.begun) == sorted(pictures)


def test_readers_read_at_the_same_time(
    model: Any, pictures: list[Path], readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(readers)
    monkeypatch.setattr(
        batches, "read_image", Watched(lambda n, _: barrier.wait(FAR) and None if n <= readers else None)
    )
    assert sum(len(names) for names, _ in batches.batches(model, pictures, 2, never)) == 23


@pytest.mark.parametrize("place", [0, 5, 22])
def test_who_raises_over_an_unreadable_file_stops_the_readers(
    model: Any, pictures: list[Path], readers: int, tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "read_image", watched := Watched())
    files = broken(pictures, tmp_path, place)
    got: list[Any] = []
    with pytest.raises(ImageError, match=f"bad {place}"):
        got.extend(batches.batches(model, files, 2, stop))
    assert len(got) == place // 2
    assert len(watched.begun) <= place + 1 + max(2, readers)


def test_any_other_error_of_a_reader_comes_through(
    model: Any, pictures: list[Path], readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int, file: Path) -> None:
        if number > 6:
            raise MemoryError("full")

    monkeypatch.setattr(batches, "read_image", Watched(full))
    with pytest.raises(MemoryError, match="full"):
        list(batches.batches(model, pictures, 2, never))


def test_who_stops_early_waits_for_what_is_being_read_and_for_no_more(
    model: Any, pictures: list[Path], readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    class Pool(ThreadPoolExecutor):
        """Lets what is being read end once it was told to shut down."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            gate.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(batches, "ThreadPoolExecutor", Pool)
    late = set(pictures[10:])
    monkeypatch.setattr(
        batches, "read_image", watched := Watched(lambda _, file: file in late and gate.wait(FAR) and None)
    )
    found = batches.batches(model, pictures, 10, never)
    next(found)
    watched.wait_for(10 + readers)
    found.close()
    assert gate.is_set()
    assert len(watched.begun) == 10 + readers


def test_there_are_as_many_readers_as_threads_up_to_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = kernels.on_runtime(EmulatedRuntime())
    for cores, expected in ((1, 1), (6, 6), (64, 8)):
        monkeypatch.setattr(batches, "thread_count", lambda threads, cores=cores: cores)
        assert batches.reader_count(gpu) == expected
        assert batches.reader_count(kernels.on("definition")) == expected
        assert batches.reader_count(kernels.on("cpu", threads=cores, load=False)) == expected
    assert batches.reader_count(kernels.on("cpu", threads=3, load=False)) == 3


def test_a_weights_file_without_preprocessing_is_an_error(
    tmp_path: Path, tiny_variables: Any, pictures: list[Path], model: Any
) -> None:
    save_weights(tmp_path / "plain.h5", tiny_variables, model.network.to_json())
    with pytest.raises(WeightsError, match="names no preprocessing"):
        next(batches.batches(load_model(tmp_path / "plain.h5", device="cpu"), pictures, 2, never))


@pytest.mark.parametrize("devices", [1, 2])
def test_results_come_with_the_names_of_their_files(
    model: Any, pictures: list[Path], readers: int, devices: int, tmp_path: Path
) -> None:
    files = broken(pictures, tmp_path, 0, 1, 2, 7)
    found = list(batches.computed(Fleet([model] * devices), files, 3, lambda error: None, ["global_pool"]))
    assert [file for names, _ in found for file in names] == [file for file in files if "bad" not in file.name]
    for names, (result, end_points) in found:
        images = np.stack([model.preprocessing(read_image(file)) for file in names])
        want, wanted = model(images, end_points=["global_pool"])
        np.testing.assert_array_equal(result, want)
        np.testing.assert_array_equal(end_points["global_pool"], wanted["global_pool"])


@pytest.mark.parametrize("devices", [1, 2])
def test_an_unreadable_file_or_a_failing_device_stops_readers_and_devices(
    model: Any, pictures: list[Path], readers: int, devices: int, tmp_path: Path
) -> None:
    class Failing:
        preprocessing, tier = model.preprocessing, model.tier

        def map(self, images: Any, end_points: Any) -> Iterator[Any]:
            for number, batch in enumerate(images):
                if number == 2:
                    raise DeviceError("failed")
                yield batch

    got: list[Any] = []
    with pytest.raises(ImageError, match="bad 13"):
        got.extend(batches.computed(Fleet([model] * devices), broken(pictures, tmp_path, 13), 3, stop))
    assert [file for names, _ in got for file in names] == pictures[:12]
    with pytest.raises(DeviceError, match="failed"):
        list(batches.computed(Fleet([Failing()] * devices), pictures, 2, never))  # type: ignore[list-item]
    for _ in batches.computed(Fleet([model] * devices), pictures, 2, never):
        break
