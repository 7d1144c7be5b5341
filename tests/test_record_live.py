"""record runs slim itself, on weights files and checkpoints, with TensorFlow's reader, decoder and preprocessing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY_PREPROCESSING, Run
from PIL import Image
from variables import random_variables, training_extras

from resnet_ref import load_weights, oracle, save_weights
from resnet_ref.convert import convert
from resnet_ref.images import read_image
from resnet_ref.network import Network
from resnet_ref.oracle.record import open_source, record
from resnet_ref.recording import open_recording
from resnet_ref.verification.verify import verify

pytestmark = pytest.mark.oracle
CALL: dict[str, Any] = {"function": "resnet_v1_50", "num_classes": 6, "depth_multiplier": 0, "min_base_depth": 4}
SCOPE = "resnet_v1_50"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    variables = random_variables(Network.from_json(CALL).variables())
    folder = tmp_path_factory.mktemp("checkpoint")
    return oracle.save_checkpoint({**variables, **training_extras(variables, SCOPE)}, folder / "model.ckpt")


@pytest.mark.parametrize("write_version", [1, 2])
def test_a_checkpoint_is_recorded_and_its_converted_weights_verify(
    tmp_path: Path, run: Run, photos: list[Path], write_version: int
) -> None:
    variables = random_variables(Network.from_json(CALL).variables())
    prefix = oracle.save_checkpoint(variables, tmp_path / "model.ckpt", write_version=write_version)
    (tmp_path / "p.json").write_text(json.dumps(TINY_PREPROCESSING))
    convert(prefix, tmp_path / "w.h5", preprocessing=TINY_PREPROCESSING)
    line = ("record", prefix, *photos, "-o", tmp_path / "r.h5", "--preprocessing", tmp_path / "p.json")
    status, out, _ = run(*line, "--sample", 200, "--json")
    assert status == 0
    assert json.loads(out)["end_points"] == 74  # all blocks are equally deep, so three have no projection
    with open_recording(tmp_path / "r.h5") as recording:
        assert recording.facts.source["read_by"] == "TensorFlow"
        assert recording.facts.versions["tensorflow"] == oracle.tensorflow()[0].__version__
        assert recording.facts.sample == 200
        found = verify(load_weights(tmp_path / "w.h5"), recording)
        assert found.agrees
        assert found.inputs.max_error == 0


def test_live_records_and_verifies_in_one_go(tmp_path: Path, run: Run, photos: list[Path], checkpoint: Path) -> None:
    convert(checkpoint, tmp_path / "w.h5")
    status, out, _ = run("verify", tmp_path / "w.h5", "--live", photos[0], "--source", checkpoint)
    assert (status, out.startswith("agrees with slim: ")) == (0, True)
    status, out, _ = run("verify", "digits", "--live", photos[0], photos[1])
    assert (status, out.startswith("agrees with slim: ")) == (0, True)


def test_training_mode_is_recorded_and_verified_in_training_mode(tmp_path: Path, run: Run, photos: list[Path]) -> None:
    assert run("record", "digits", *photos, "-o", tmp_path / "r.h5", "--training")[0] == 0
    status, out, _ = run("verify", "digits", tmp_path / "r.h5")
    assert (status, out.splitlines()[1].split(":")[0]) == (1, "1. batch norm in training mode")
    assert "first at resnet_v1_50/conv1" in out


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
def test_every_format_is_decoded_alike(tmp_path: Path, suffix: str, tiny_file: Path) -> None:
    """By TensorFlow where it can; its JPEGs with the accurate DCT are Pillow's to the last level."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    file = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(file)
    record(open_source(tiny_file), [file], tmp_path / "r.h5", sample=5)
    with open_recording(tmp_path / "r.h5") as recording:
        by = "Pillow" if suffix in ("webp", "tiff") else "TensorFlow"
        assert recording.facts.versions["decoded by"] == by
        weights = load_weights(tiny_file)
        assert weights.preprocessing is not None
        np.testing.assert_array_equal(recording.inputs()[0], weights.preprocessing(read_image(file)))


@pytest.mark.slow
def test_the_full_width_network_at_224_verifies_on_both_devices(tmp_path: Path) -> None:
    """The 77 end points of resnet_v1_50, whole."""
    call = {"function": "resnet_v1_50", "num_classes": 1000}
    save_weights(tmp_path / "w.h5", random_variables(Network.from_json(call).variables()), call, None, {"name": "vgg"})
    image = np.random.default_rng(8).integers(0, 256, (23, 31, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    Image.fromarray(image).save(tmp_path / "a.png")
    record(open_source(tmp_path / "w.h5"), [tmp_path / "a.png"], tmp_path / "r.h5")
    weights = load_weights(tmp_path / "w.h5")
    for device in ("definition", "cpu"):
        with open_recording(tmp_path / "r.h5") as recording:
            found = verify(weights, recording, device=device)
        assert found.agrees
        assert len(found.comparison.rows) == 77
        assert found.comparison.worst.share < 0.5
        print({what: round(seconds, 2) for what, seconds in found.seconds.items()}, found.comparison.worst.share)
