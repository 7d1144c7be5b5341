"""The preprocessing of Keras and torchvision, by hand and beside Keras'; torchvision's: test_from_torchvision.py."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from elsewhere import keras, pixels
from PIL import Image

from resnet_ref import pillow_resize
from resnet_ref.errors import WeightsError
from resnet_ref.preprocessing import Preprocessing

KERAS = Preprocessing("keras", height=33, width=29, means=(123.68, 116.779, 103.939))
TORCHVISION = Preprocessing(
    "torchvision", resize_side=40, height=33, width=29, means=(123.675, 116.28, 103.53), deviations=(58.4, 57.1, 57.4)
)
NO_MEANS = {"means": (0, 0, 0)}


def test_keras_squeezes_the_whole_image_by_the_nearest_pixel() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    prepared = Preprocessing("keras", height=2, width=2, means=(1, 2, 3))(image)
    np.testing.assert_array_equal(prepared, np.float32(image[:, 1::2]) - [1, 2, 3])


def test_torchvision_smooths_crops_and_divides() -> None:
    """From 4x8 to 2x4 each output weighs 4 neighbours 1, 3, 3, 1 in each direction; the crop keeps columns 1 and 2."""
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4] = 80
    pipeline = Preprocessing("torchvision", resize_side=2, height=2, width=2, means=(5, 5, 5), deviations=(5, 10, 20))
    across = np.array([80 / 8, 80 * 3 / 8])  # column 4 is the last of output 1's four, and the second of output 2's
    np.testing.assert_allclose(pipeline(image)[0], (across[:, None] - 5) / [5, 10, 20], rtol=1e-6)


@pytest.mark.parametrize("size", [(50, 71), (71, 50), (33, 29), (40, 40), (41, 300), (7, 5)])
@pytest.mark.parametrize("pipeline", [KERAS, TORCHVISION], ids=lambda pipeline: pipeline.name)
def test_numbers_that_are_no_whole_levels_are_resized_too(pipeline: Preprocessing, size: tuple[int, int]) -> None:
    """uint8 is rounded to whole levels, and only that."""
    image = pixels(*size)
    levels, exact = (pipeline.pixels(pipeline(given)) for given in (image, image.astype(np.float32)))
    assert levels.shape == (33, 29, 3)
    assert np.abs(levels - exact).max() <= 1.01
    assert np.abs(levels - np.rint(levels)).max() < 1e-3


def test_of_a_long_image_only_the_crop_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    image = pixels(50, 3000)
    whole = TORCHVISION(image)
    monkeypatch.setattr(pillow_resize, "_MOST_PIXELS", 0)
    np.testing.assert_allclose(TORCHVISION.pixels(TORCHVISION(image)), TORCHVISION.pixels(whole), atol=1.01)
    monkeypatch.undo()
    tracemalloc.start()
    try:
        assert TORCHVISION(pixels(1, 200_000)).shape == (33, 29, 3)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_what_was_prepared_goes_back_to_pixels() -> None:
    image = pixels(33, 33)
    exact = Preprocessing("torchvision", 33, 33, 33, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
    np.testing.assert_allclose(exact.pixels(exact(image)), image, atol=1e-4)


def test_json_holds_each_pipeline_with_its_own_parameters() -> None:
    for pipeline in (KERAS, TORCHVISION):
        assert Preprocessing.from_json(pipeline.to_json()) == pipeline
    assert list(KERAS.to_json()) == ["name", "height", "width", "means"]
    assert TORCHVISION.to_json()["deviations"] == [58.4, 57.1, 57.4]
    with pytest.raises(WeightsError, match="resize_side: expected nothing, since 'keras' has none, got 300"):
        Preprocessing("keras", resize_side=300)


@pytest.mark.oracle
@pytest.mark.parametrize("size", [(50, 71), (71, 50), (33, 29), (100, 7), (20, 20)])
def test_keras_gives_its_network_the_same_numbers(tmp_path: Path, size: tuple[int, int]) -> None:
    """load_img and preprocess_input, whose channels are BGR: conv1's weights are turned instead."""
    path = tmp_path / "image.png"
    Image.fromarray(pixels(*size)).save(path)
    loaded = keras().utils.img_to_array(keras().utils.load_img(path, target_size=(33, 29)))
    theirs = keras().applications.resnet50.preprocess_input(loaded)
    np.testing.assert_allclose(KERAS(pixels(*size)), theirs[..., ::-1], atol=1e-4)
