"""The network that ships is the one its page describes, and as good as the page says."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from resnet_ref import load_model
from resnet_ref.weights_file import DIGITS

FOLDER = Path(__file__).parents[1] / "weights" / "digits"


@pytest.mark.parametrize("inverted", [False, True])
def test_the_shipped_network_is_right_on_98_percent_of_the_digits_it_never_saw(inverted):
    scans = load_digits()
    held_out = json.loads((FOLDER / "split.json").read_text())["test"]
    model = load_model()
    grey = np.round(scans.images[held_out] * (255 / 16)).astype(np.uint8)
    rgb = np.repeat((255 - grey if inverted else grey)[..., None], 3, axis=3)
    predictions = model(np.stack([model.preprocessing(image) for image in rgb]))
    assert len(held_out) == 360
    assert np.mean(predictions.argmax(axis=1) == scans.target[held_out]) >= 0.98


def test_the_page_names_the_hash_of_the_file_that_ships():
    assert hashlib.sha256(DIGITS.read_bytes()).hexdigest() in (FOLDER / "README.md").read_text()
    assert DIGITS.stat().st_size <= 3 << 20
