"""Several devices as one: each gets its turn, results come in order, and nothing is left behind however it ends."""

import importlib
import json
import logging
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Run
from fake_cupy import FakeCupy
from tiers import Gpus

from resnet_ref import DeviceError, ShapeError, fleet, load_model
from resnet_ref.bench import machine
from resnet_ref.fleet import Fleet, open_fleet

devices = importlib.import_module("resnet_ref.cli.devices")
SIZES = (2, 3, 1, 2, 2, 3, 1)
BATCHES = [(np.random.default_rng(n).standard_normal((n, 29, 26, 3)) * 60).astype(np.float32) for n in SIZES]
FAR = 600  # seconds: a wait that takes so long is a deadlock


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("resnet-ref lane")] == []


class Echo:
    """Gives what it is given, with its own number; asks for `ahead` batches before it gives the first result."""

    def __init__(self, number: int = 0, ahead: int = 0, gate: threading.Event | None = None) -> None:
        self.number, self.ahead, self.gate = number, ahead, gate
        self.got: list[Any] = []

    def map(self, batches: Any, end_points: Any) -> Iterator[Any]:
        line = []
        for batch in batches:
            if self.gate is not None:
                assert self.gate.wait(FAR)
            self.got.append(getattr(batch, "number", batch))
            if batch == "wrong":
                raise DeviceError(f"device {self.number} failed")
            line.append((self.number, batch, end_points))
            del batch
            if len(line) > self.ahead:
                yield line.pop(0)
        yield from line


def echoes(count: int, **options: Any) -> Any:
    return Fleet([Echo(number, **options) for number in range(count)])  # type: ignore[misc]


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("batches", [0, 1, 2, 20])
def test_batches_go_round_and_come_back_in_order(count: int, ahead: int, batches: int) -> None:
    """Whatever a model asks for before it gives a result: no device waits for another in a circle."""
    wanted = echoes(count, ahead=ahead)
    assert list(wanted.map(range(batches), ["a"])) == [(n % count, n, ["a"]) for n in range(batches)]
    assert [model.got for model in wanted.models] == [list(range(n, batches, count)) for n in range(count)]


def test_a_slow_device_keeps_the_order() -> None:
    gate = threading.Event()
    fast, slow = Echo(0, 1), Echo(1, 1, gate)
    results = Fleet([slow, fast]).map(iter(range(9)))  # type: ignore[list-item]
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    assert [batch for _, batch, _ in results] == list(range(9))
    timer.join()


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_two_devices_give_the_bits_of_one_and_both_work(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    Gpus(monkeypatch, 2)
    names = ["tiny/block1", "global_pool"]
    models = [load_model(tiny_file, device=name) for name in (("cpu", "cpu") if device == "cpu" else ("gpu", "gpu:1"))]
    mapped: list[list[int]] = [[], []]
    for model, seen in zip(models, mapped, strict=True):
        monkeypatch.setattr(model, "map", spied(model.map, seen))
    found = list(Fleet(models).map(BATCHES, names))
    assert mapped == [list(SIZES[0::2]), list(SIZES[1::2])]
    for (result, end_points), images in zip(found, BATCHES, strict=True):
        want, wanted = models[0](images, end_points=names)
        np.testing.assert_array_equal(result, want)
        assert list(end_points) == names
        for name in names:
            np.testing.assert_array_equal(end_points[name], wanted[name])
    plain = list(Fleet(models[:1]).map(BATCHES))
    assert all(isinstance(result, np.ndarray) for result in plain)


def spied(function: Any, sizes: list[int]) -> Any:
    def spy(batches: Any, *arguments: Any) -> Any:
        def seen() -> Iterator[Any]:
            for batch in batches:
                sizes.append(len(batch))
                yield batch

        return function(seen(), *arguments)

    return spy


def test_a_device_that_fails_ends_it_after_the_results_before(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(monkeypatch, 2)
    models = [load_model(tiny_file, device=name) for name in ("gpu", "gpu:1")]
    want = [models[0](images) for images in BATCHES]

    def images() -> Iterator[Any]:
        for number, batch in enumerate([*BATCHES, *BATCHES]):
            if number == 5:
                gpus[1].fail_next_launch = True
            yield batch

    found: list[Any] = []
    with pytest.raises(DeviceError, match="the launch of"):
        found.extend(Fleet(models).map(images()))
    assert len(found) <= 5
    for result, expected in zip(found, want, strict=False):
        np.testing.assert_array_equal(result, expected)
    again = list(Fleet(models).map(BATCHES))
    for result, expected in zip(again, want, strict=True):
        np.testing.assert_array_equal(result, expected)


def test_the_first_error_in_order_counts_though_a_later_one_comes_sooner() -> None:
    gate = threading.Event()
    models = [Echo(0, 0, gate), Echo(1)]
    results = Fleet(models).map(["right", "right", "wrong", "wrong", "right"])  # type: ignore[arg-type]
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    found: list[Any] = []
    with pytest.raises(DeviceError, match="device 0 failed"):
        found.extend(number for number, _, _ in results)
    assert found == [0, 1]
    timer.join()


def test_an_error_of_the_batches_comes_after_the_results_before_it() -> None:
    def batches() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    for count in (1, 2, 3):
        found: list[Any] = []
        with pytest.raises(ValueError, match="no more"):
            found.extend(batch for _, batch, _ in echoes(count, ahead=2).map(batches()))
        assert found == [0, 1, 2, 3, 4]


def test_an_interruption_ends_it_at_once() -> None:
    def batches() -> Iterator[int]:
        yield from range(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(echoes(2).map(batches()))


def test_what_waits_when_it_ends_is_not_computed() -> None:
    gate = threading.Event()
    models = [Echo(0, 0, gate), Echo(1, 0, gate)]
    timer = threading.Timer(0.3, gate.set)

    def batches() -> Iterator[int]:
        yield from range(3)  # 0 and 1 are at work now, 2 waits
        timer.start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Fleet(models).map(batches()))  # type: ignore[arg-type]
    assert [model.got for model in models] == [[0], [1]]
    timer.join()


def test_wrong_images_and_names_are_the_models_errors(tiny_file: Path) -> None:
    models = Fleet([load_model(tiny_file, device="cpu")])
    with pytest.raises(ShapeError, match="has no end point 'block9'"):
        list(models.map(BATCHES, ["block9"]))
    with pytest.raises(ShapeError, match=r"must be \[N, H, W, C\]"):
        list(models.map([BATCHES[0][0]]))


def test_who_stops_early_leaves_no_thread_and_the_batches_where_they_are() -> None:
    given = iter(range(1000))
    results = echoes(3, ahead=2).map(given)
    assert [next(results)[1] for _ in range(4)] == [0, 1, 2, 3]
    results.close()
    assert next(given) < 30
    for _, batch, _ in echoes(2).map(range(1000)):
        if batch == 3:
            break


class Batch:
    """Something that tells when it is gone."""

    def __init__(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_batches_are_held_than_the_devices_hold_and_one_waiting_for_each(count: int) -> None:
    ahead = 2
    alive: weakref.WeakSet[Batch] = weakref.WeakSet()
    most = 0

    def batches() -> Iterator[Batch]:
        nonlocal most
        for number in range(60):
            batch = Batch(number)
            alive.add(batch)
            most = max(most, len(alive))
            yield batch
            del batch

    for number, (_, batch, _) in enumerate(echoes(count, ahead=ahead).map(batches())):
        assert batch.number == number
        del batch
    held = ahead + 1  # by a model that asks for its next
    assert most <= count * (held + 1) + 2  # and the one made and the one given


def test_a_device_that_hangs_lets_nothing_pile_up() -> None:
    gate = threading.Event()
    hung, free = Echo(0, 2, gate), Echo(1, 2)
    asked: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    results = Fleet([hung, free]).map(batches())  # type: ignore[list-item]
    timer = threading.Timer(0.3, lambda: (seen.extend(asked), gate.set()))
    seen: list[int] = []
    timer.start()
    next(results)
    timer.join()
    assert len(seen) <= 4, "one at work and one waiting for the device that hangs; the other has as many"
    results.close()


def test_a_fleet_is_every_gpu_there_is_or_the_one_that_is_named(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = Gpus(monkeypatch, 3)
    monkeypatch.setattr(fleet, "device_count", lambda: 3)
    for device, indices in (("auto", [0, 1, 2]), ("gpu", [0, 1, 2]), ("gpu:1", [1]), ("gpu:0", [0])):
        opened = open_fleet(tiny_file, device, "tf32")
        assert [model.tier.runtime for model in opened.models] == [gpus[index] for index in indices]
        assert {model.precision for model in opened.models} == {"tf32"}
        assert opened.model is opened.models[0]
    for device in ("cpu", "definition"):
        (only,) = open_fleet(tiny_file, device, threads=1).models
        assert (only.tier.device, only.tier.threads) == (device, 1)


def test_a_further_gpu_that_cannot_be_used_is_left_out_and_logged(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus = Gpus(monkeypatch, 3)
    monkeypatch.setattr(fleet, "device_count", lambda: 4)
    gpus[1].memory_bytes = 100
    with caplog.at_level(logging.WARNING, "resnet_ref"):
        opened = open_fleet(tiny_file, "gpu")
    assert [model.tier.runtime for model in opened.models] == [gpus[0], gpus[2]]
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("gpu:1 is left out: ")
    assert second == 'gpu:3 is left out: there is no device "gpu:3"'


def test_a_fleet_of_nothing_and_a_wrong_device_are_errors(tiny_file: Path) -> None:
    with pytest.raises(DeviceError, match="at least one model"):
        Fleet([])
    with pytest.raises(DeviceError, match="device must be one of"):
        open_fleet(tiny_file, "tpu")
    with pytest.raises(DeviceError, match="precision"):
        open_fleet(tiny_file, "cpu", "float16")


def test_two_gpus_write_the_features_that_one_writes(
    run: Run, tiny_file: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpus(monkeypatch, 2)
    monkeypatch.setattr(fleet, "device_count", lambda: 2)
    found = {}
    for device, count in (("gpu", 2), ("auto", 2), ("gpu:1", 1)):
        output = tmp_path / f"{count}.h5"
        line = ("features", *photos, *photos[:2], "-o", output, "--weights", tiny_file, "--batch-size", 2)
        assert run(*line, "--device", device, "--precision", "tf32")[0] == 0
        with h5py.File(output) as file:
            ran = {"device": "gpu", "devices": count, "precision": "tf32"}
            assert dict(file.attrs) == {"network": "resnet_v1", "scope": "tiny", **ran}
            found[device] = file["global_pool"][()]
    assert found["gpu"].shape == (5, 1, 1, 20)
    assert found["gpu"].any(axis=(1, 2, 3)).all()
    for values in found.values():
        np.testing.assert_array_equal(values, found["gpu"])


def test_devices_lists_every_gpu_with_its_memory_and_versions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    emulated = Gpus(monkeypatch, 2)
    emulated[1].name = "other"
    fake = FakeCupy(count=3, memory=5 << 30)
    fake.__version__ = "14.2.0"  # type: ignore[attr-defined]
    monkeypatch.setattr(machine, "cupy", lambda: fake)
    monkeypatch.setattr(devices, "device_count", lambda: 3)
    found = {entry["device"]: entry for entry in json.loads(run("devices", "--json")[1])}
    assert list(found) == ["definition", "cpu", "gpu:0", "gpu:1", "gpu:2", "auto"]
    for name, entry in zip(("emulated", "other"), (found["gpu:0"], found["gpu:1"]), strict=True):
        assert entry["available"]
        assert (entry["name"], entry["architecture"], entry["memory"]) == (name, "sm_90", 5 << 30)
        assert f"{name}, sm_90, 5.0 GiB, float32, tf32x3, tf32 or bfloat16, driver " in entry["what"]
        assert entry["what"].endswith("CuPy 14.2.0")
    assert (found["gpu:2"]["available"], found["gpu:2"]["what"]) == (False, 'there is no device "gpu:2"')
    assert found["auto"]["what"] == "takes gpu:0; classify and features take every gpu"
