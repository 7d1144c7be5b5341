"""verify without TensorFlow: the table, JSON, exit status, memory, and what the command line says of wrong use."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RECORDING, TINY, TINY_LABELS, TINY_PREPROCESSING, Run
from recordings import prepared, record_definition
from variables import random_variables

from resnet_ref import DeviceError, load_weights, save_weights
from resnet_ref.network import Network
from resnet_ref.recording import open_recording
from resnet_ref.verification.measures import measure
from resnet_ref.verification.setup import Setup
from resnet_ref.verification.verify import verify


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, tiny_file: Path, photos: list[Path]) -> Path:
    return record_definition(tmp_path_factory.mktemp("r") / "r.h5", load_weights(tiny_file), photos, device="cpu")


def test_the_measures_of_an_end_point_by_hand() -> None:
    slim = np.array([1.0, -2.0, 4.0, 0.0], np.float32)
    ours = np.array([1.0, np.nextafter(np.float32(-2), np.float32(0)), 4.5, 0.0], np.float32)
    truth = np.array([1.0, -2.0, 4.25, 0.0])
    found = measure("x", (1, 2, 2, 3), ours, slim, truth, np.array([0, 5, 7, 11]), scale=4.25)
    assert found.compared == 4
    assert found.max_error == 0.5
    assert found.mean_error == pytest.approx((0.5 + 2**-23) / 4)
    assert found.e_near == 0.5 / 4.25
    assert found.e_ours == found.e_slim == 0.25 / 4.25
    assert (found.ulps_median, found.ulps_max) == (0.5, 2**20)
    assert found.at == (0, 1, 0, 1)  # position 7 of [1, 2, 2, 3]
    assert (found.ours, found.slim, found.truth) == (4.5, 4.0, 4.25)
    assert found.cosine == pytest.approx((1 + 4 + 18) / np.sqrt((1 + 4 + 20.25) * 21))
    assert sum(found.histogram) == 4
    assert found.histogram[0] == 2  # the two that are equal


@pytest.mark.parametrize("device", ["definition", "cpu"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_command_agrees_and_says_so(
    run: Run, tiny_file: Path, recording: Path, device: str, precision: str
) -> None:
    status, out, err = run("verify", tiny_file, recording, "--device", device, "--precision", precision)
    assert (status, err) == (0, "")
    assert out.startswith("agrees with slim: ")
    data = json.loads(run("verify", tiny_file, recording, "--device", device, "--precision", precision, "--json")[1])
    assert (data["agrees"], data["first_departure"], data["diagnosis"]) == (True, None, [])
    assert data["device"] == ("definition" if precision == "float64" else device)
    assert [row["name"] for row in data["end_points"]][-1] == "predictions"
    assert {"run", "reading", "comparing", "preprocessing", "diagnosis", "whole"} <= set(data["seconds"])


def test_all_shows_every_end_point(run: Run, tiny_file: Path, recording: Path) -> None:
    few, every = (run("verify", tiny_file, recording, *more)[1] for more in ((), ("--all",)))
    with open_recording(recording) as opened:
        for name in opened.end_points:
            assert f"\n{name} " in every
    assert "more with --all)" in few
    assert "more with --all)" not in every


def test_a_departure_is_status_1_with_its_cause_and_one_line_of_stderr(
    run: Run, tmp_path: Path, tiny_file: Path, photos: list[Path]
) -> None:
    weights = load_weights(tiny_file)
    network = replace(weights.network, arg_scope=replace(weights.network.arg_scope, batch_norm_epsilon=1e-3))
    setup = Setup(network, dict(weights), prepared(weights, photos))
    path = record_definition(tmp_path / "r.h5", weights, photos, setup=setup, device="cpu")
    status, out, err = run("verify", tiny_file, path)
    assert status == 1
    assert out.splitlines()[0].startswith("departs from slim, first at tiny/conv1; ")
    assert out.splitlines()[1].startswith("1. epsilon 0.001: ")
    assert err == f"resnet-ref: {out.splitlines()[0]}\n"


def test_no_rule_is_passed_by_a_kernel_that_is_wrong_by_a_few_roundings(tmp_path: Path, tiny_file: Path) -> None:
    """The recording's values are off by 1e-5 of the largest in one end point: twenty times what float32 costs."""
    weights = load_weights(tiny_file)
    inputs = np.random.default_rng(0).normal(0, 60, (2, 29, 26, 3)).astype(np.float32)
    path = record_definition(tmp_path / "r.h5", weights, [], inputs=inputs, device="cpu")
    import recordings

    own = recordings.write_recording

    def off(path: Any, facts: Any, images: Any, given: Any, end_points: Any, variables: Any) -> None:
        name, recorded = end_points[5]
        values = recorded.values + np.float32(1e-5) * np.abs(recorded.values).max()
        own(path, facts, images, given, [*end_points[:5], (name, recorded._replace(values=values)), *end_points[6:]],
            variables)  # fmt: skip

    with open_recording(path) as opened:
        assert verify(weights, opened, device="cpu").agrees
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recordings, "write_recording", off)
        record_definition(path, weights, [], inputs=inputs, device="cpu")
    with open_recording(path) as opened:
        found = verify(weights, opened, device="cpu")
        assert found.first == list(opened.end_points)[5]
        assert found.named == ()


def test_most_layers_given_prove_no_damage(tmp_path: Path, tiny_variables: Any, photos: list[Path]) -> None:
    """With slim's own output in place of eight of thirteen layers, agreement would say nothing."""
    layers = list(dict.fromkeys(name.rpartition("/")[0] for name in tiny_variables if name.endswith("/weights")))
    for count, cause in ((3, "damaged weights in "), (8, None)):
        wrong = {f"{layer}/weights": tiny_variables[f"{layer}/weights"] * 1.1 for layer in layers[1 : count + 1]}
        save_weights(tmp_path / "w.h5", {**tiny_variables, **wrong}, TINY, TINY_LABELS, TINY_PREPROCESSING)
        save_weights(tmp_path / "good.h5", tiny_variables, TINY, TINY_LABELS, TINY_PREPROCESSING)
        path = record_definition(tmp_path / "r.h5", load_weights(tmp_path / "good.h5"), photos, device="cpu")
        with open_recording(path) as opened:
            found = verify(load_weights(tmp_path / "w.h5"), opened, device="cpu")
        assert not found.agrees
        assert len(layers) == 13
        assert found.named == () if cause is None else found.named[0][0].startswith(cause)


def test_memory_stays_at_a_few_end_points(tmp_path: Path) -> None:
    """A deep, narrow network: all its end points together would be many times what is allowed."""
    units = [{"depth": 16, "depth_bottleneck": 8, "stride": 1}] * 40
    call = {"function": "resnet_v1", "scope": "deep", "blocks": [{"scope": "block1", "args": units}],
            "global_pool": False, "include_root_block": False, "channels": 16}  # fmt: skip
    save_weights(tmp_path / "w.h5", random_variables(Network.from_json(call).variables()), call)
    weights = load_weights(tmp_path / "w.h5")
    inputs = np.random.default_rng(0).standard_normal((1, 96, 96, 16)).astype(np.float32)
    path = record_definition(tmp_path / "r.h5", weights, [], inputs=inputs)
    with open_recording(path) as opened:
        verify(weights, opened, device="cpu")  # compiles
        everything = sum(4 * int(np.prod(shape)) for shape in opened.end_points.values())
        largest = 8 * 96 * 96 * 16
        tracemalloc.start()
        found = verify(weights, opened, device="cpu")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found.agrees
    im2col = 8 * 96 * 96 * 9 * 8  # of the definition in float64, and its padded input
    assert peak < 12 * largest + 2 * im2col
    assert everything > 40 * largest / 2


def test_a_shipped_recording_of_slim_verifies_the_shipped_network(run: Run) -> None:
    status, out, err = run("verify", "digits", RECORDING, "--all")
    assert (status, err) == (0, "")
    assert "resnet_v1_50/block4/unit_3/bottleneck_v1" in out


WRONG: list[tuple[Any, ...]] = [
    ("verify",),
    ("verify", "tiny"),
    ("verify", "none.h5", "r.h5"),
    ("verify", "digits", "none.h5"),
    ("verify", "digits", "."),
    ("verify", "digits", "r.h5", "another.h5"),
    ("verify", "digits", "r.h5", "--source", "x.ckpt"),
    ("verify", "digits", "r.h5", "--device", "gpu"),
    ("record", "digits", "-o", "r.h5"),
    ("record", "digits", "none.png", "-o", "r.h5"),
    ("record", "none.ckpt", "none.png", "-o", "r.h5"),
]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_use_is_one_line_and_status_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: Path, arguments: tuple[Any, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    if "another.h5" not in arguments:
        (tmp_path / "r.h5").write_bytes(recording.read_bytes())
    status, out, err = run(*arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("command", [("record", "digits", "-o", "r.h5"), ("verify", "digits", "--live")])
def test_without_tensorflow_one_line_says_how_to_get_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: list[Path], command: tuple[str, ...]
) -> None:
    def missing() -> None:
        raise DeviceError("The oracle cannot import tensorflow. Install it: pip install 'resnet-ref[oracle]'")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resnet_ref.oracle.record.tensorflow", missing)
    status, out, err = run(*command, photos[0])
    assert (status, out) == (2, "")
    assert err == "resnet-ref: The oracle cannot import tensorflow. Install it: pip install 'resnet-ref[oracle]'\n"
    assert not (tmp_path / "r.h5").exists()


def test_a_recording_of_other_images_than_the_network_takes_is_one_line(
    run: Run, tmp_path: Path, tiny_file: Path
) -> None:
    inputs = np.zeros((1, 29, 26, 5), np.float32)
    weights = load_weights(tiny_file)
    call = {**TINY, "channels": 5}
    network = Network.from_json(call)
    setup = Setup(network, random_variables(network.variables()), inputs)
    path = record_definition(tmp_path / "r.h5", weights, [], setup=setup, inputs=inputs)
    status, out, err = run("verify", tiny_file, path)
    assert (status, out, len(err.splitlines())) == (2, "", 1)


def test_labels_and_preprocessing_may_be_missing(tmp_path: Path, tiny_variables: Any, photos: list[Path]) -> None:
    save_weights(tmp_path / "a.h5", tiny_variables, TINY, TINY_LABELS, TINY_PREPROCESSING)
    save_weights(tmp_path / "b.h5", tiny_variables, TINY)
    full, bare = load_weights(tmp_path / "a.h5"), load_weights(tmp_path / "b.h5")
    path = record_definition(tmp_path / "r.h5", full, photos)
    with open_recording(path) as opened:
        found = verify(bare, opened)
        assert found.agrees
        assert (found.inputs.checked, found.labels.checked) == (False, False)
