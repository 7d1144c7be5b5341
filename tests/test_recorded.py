"""Against what slim computed once, so that the chain to TensorFlow also closes where TensorFlow cannot be installed."""

from pathlib import Path

import numpy as np
import pytest
from accuracy import check_rule
from networks import RECORDED
from tiers import Gpus

from resnet_ref import load_model
from resnet_ref.images import read_image

HERE = Path(__file__).parent
DEVICES = ("definition", "cpu", "gpu")  # the emulated one


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    return Gpus(monkeypatch)


def group(recording, prefix):
    return {key.removeprefix(prefix): recording[key] for key in recording.files if key.startswith(prefix)}


@pytest.mark.parametrize("file", RECORDED)
@pytest.mark.parametrize("device", DEVICES)
def test_every_end_point_is_as_recorded(file, device):
    case = RECORDED[file]
    recording = np.load(HERE / "recorded" / file)
    variables, slim = group(recording, "variables:"), group(recording, "end_points:")
    updates, true_updates = {}, {}
    where = {"device": "definition", "dtype": "float64"}
    _, truth = case.ours(recording["images"], variables, true_updates, **where)
    _, ours = case.ours(recording["images"], variables, updates, device=device)
    check_rule(ours, slim, truth)
    assert set(updates) == set(group(recording, "updated:"))
    if updates:
        slim_updates = group(recording, "updated:")
        check_rule(updates, {name: slim_updates[name] for name in updates}, true_updates)


@pytest.mark.parametrize("device", DEVICES)
def test_the_shipped_network_gives_slims_probabilities_for_the_shipped_images(device):
    recording = np.load(HERE / "recorded" / "digits.npz")
    folder = HERE.parent / "weights" / "digits"
    model = load_model(device=device)
    images = np.stack([model.preprocessing(read_image(folder / name)) for name in recording["files"]])
    predictions, end_points = model(images, end_points=["resnet_v1_50/spatial_squeeze"])
    np.testing.assert_allclose(end_points["resnet_v1_50/spatial_squeeze"], recording["logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(predictions, recording["predictions"], rtol=0, atol=1e-5)
    labels = [int(name.split("_")[1]) for name in recording["files"]]
    assert predictions.argmax(axis=1).tolist() == labels
