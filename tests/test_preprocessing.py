"""Preprocessing against hand-worked numbers, live TensorFlow and recorded TensorFlow.

`python tests/test_preprocessing.py` records tests/recorded/preprocessing.npz: what slim's preprocess_for_eval makes of
`pixels` with the TensorFlow that is installed. The file's entry made_by says which that was.
"""

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from resnet_ref import oracle
from resnet_ref.errors import ImageError, ShapeError, WeightsError
from resnet_ref.oracle.preprocessing import preprocess
from resnet_ref.oracle.preprocessing import resize as tf_resize
from resnet_ref.oracle.preprocessing import smallest_size_at_least as tf_size
from resnet_ref.preprocessing import (
    MAX_SIDE,
    Preprocessing,
    _aspect_preserving_size,
    _resize_window,
    resize_bilinear,
)

RECORDED = Path(__file__).parent / "recorded" / "preprocessing.npz"
SMALL = Preprocessing(resize_side=21, height=17, width=12, means=(1.1, 22.2, 133.3))
# (pipeline, image height, image width, dtype, every how many pixels to keep)
CASES = [
    (Preprocessing(), 37, 53, "uint8", 8),
    (Preprocessing(), 300, 271, "uint8", 8),
    (SMALL, 50, 33, "uint8", 1),
    (SMALL, 9, 10, "uint8", 1),
    (SMALL, 1, 40, "uint8", 1),
    (SMALL, 64, 21, "uint8", 1),
    (SMALL, 26, 45, "float32", 1),
]


def noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    values = rng.uniform(0, 256, shape)
    return (np.floor(values) if dtype == "uint8" else values).astype(dtype)


def pixels(height: int, width: int, dtype: str) -> NDArray[Any]:
    """A recorded case's input: a multiplicative hash, in place of a seed, since NumPy may change its generators."""
    hashed = np.arange(height * width * 3, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(9)
    values = hashed % np.uint64(65536)
    return (values // 256 if dtype == "uint8" else values / 256).astype(dtype).reshape(height, width, 3)


def tf_preprocess(image: NDArray[Any], pipeline: Preprocessing) -> Any:
    return preprocess(image, pipeline.resize_side, pipeline.height, pipeline.width, pipeline.means)


def record() -> None:
    tf, _ = oracle.tensorflow()
    arrays: dict[str, Any] = {
        "made_by": np.array(f"TensorFlow {tf.__version__}, no seed, python tests/test_preprocessing.py")
    }
    for number, (pipeline, height, width, dtype, step) in enumerate(CASES):
        expected = tf_preprocess(pixels(height, width, dtype), pipeline)
        arrays[f"expected{number}"] = expected[::step, ::step]
    np.savez_compressed(RECORDED, **arrays)


def test_upscaling_by_hand_starts_at_the_corner_and_repeats_the_far_edge() -> None:
    image = np.array([[0, 10], [20, 30]], np.uint8)[..., None]
    expected = [[0, 5, 10, 10], [10, 15, 20, 20], [20, 25, 30, 30], [20, 25, 30, 30]]
    resized = resize_bilinear(image, 4, 4)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized[..., 0], expected)


def test_downscaling_by_hand_reads_two_neighbours_only() -> None:
    """5 -> 2: source coordinates 0 and 2.5; nothing is averaged over the pixels in between."""
    image = np.array([[7], [100], [4], [9], [100]], np.float64)[..., None]
    np.testing.assert_array_equal(resize_bilinear(image, 2, 1)[:, 0, 0], [7, 6.5])


def test_the_larger_side_is_rounded_half_to_even() -> None:
    assert _aspect_preserving_size(5, 4, 2) == (2, 2)
    assert _aspect_preserving_size(4, 7, 2) == (2, 4)


def test_the_whole_pipeline_by_hand() -> None:
    """4 x 6 halved to 2 x 3 keeps every second pixel; cropping a column of 3 takes the middle one, 2 rows both."""
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    pipeline = Preprocessing(resize_side=2, height=2, width=1, means=(0.5, 1, -2))
    np.testing.assert_array_equal(pipeline(image), image[::2, 2:3] - np.array([0.5, 1, -2]))


def test_an_odd_margin_leaves_the_smaller_half_before_the_crop() -> None:
    image = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None], (5, 5, 3))
    pipeline = Preprocessing(resize_side=5, height=2, width=4, means=(0, 0, 0))
    np.testing.assert_array_equal(pipeline(image)[:, 0, 0], [1, 2])


@pytest.mark.oracle
def test_resize_equals_tensorflow_bit_for_bit() -> None:
    """Up and down, odd and even, 1 to 4 channels, every dtype taken, sides of 1."""
    rng = np.random.default_rng(21)
    sizes = [tuple(rng.integers(1, 80, 4)) for _ in range(200)]
    sizes += [(1, 1, 1, 1), (1, 1, 5, 7), (1, 97, 31, 64), (83, 1, 2, 9), (13, 13, 13, 13), (224, 333, 1, 1)]
    for number, (height, width, new_height, new_width) in enumerate(sizes):
        dtype = ("uint8", "float32", "float64", "float16")[number % 4]
        image = noise(rng, (height, width, 1 + number % 3 * 2 if number % 2 else 3), dtype)
        ours, theirs = resize_bilinear(image, new_height, new_width), tf_resize(image, new_height, new_width)
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs, err_msg=f"{height} x {width} {dtype} to {new_height} x {new_width}")


@pytest.mark.oracle
def test_not_a_number_spreads_as_in_tensorflow() -> None:
    """The neighbour above is not read where the source coordinate is whole."""
    image = np.ones((6, 7, 3), np.float32)
    image[2, 3] = np.nan
    for size in [(3, 14), (6, 7), (12, 5), (9, 9)]:
        np.testing.assert_array_equal(resize_bilinear(image, *size), tf_resize(image, *size))


@pytest.mark.oracle
def test_the_resized_size_equals_slims() -> None:
    """Including those that float64 would round the other way."""
    heights, widths, sides = np.random.default_rng(22).integers(1, 6000, (3, 20000))
    ours = [_aspect_preserving_size(*map(int, sizes)) for sizes in zip(heights, widths, sides, strict=True)]
    np.testing.assert_array_equal(ours, tf_size(heights, widths, sides))
    doubles = np.rint(np.maximum(heights, widths) * (sides / np.minimum(heights, widths)))
    assert np.any(np.max(ours, axis=1) != doubles)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("height", "width"),
    [(256, 256), (224, 300), (375, 500), (500, 333), (97, 61), (1, 1), (1, 5), (7, 2), (999, 1024), (257, 255)],
)
def test_slims_default_pipeline_equals_tensorflow_bit_for_bit(height: int, width: int) -> None:
    image = noise(np.random.default_rng(height + width), (height, width, 3), "uint8")
    ours = Preprocessing()(image)
    assert ours.dtype == np.float32
    assert ours.shape == (224, 224, 3)
    np.testing.assert_array_equal(ours, tf_preprocess(image, Preprocessing()))


@pytest.mark.oracle
def test_other_pipelines_equal_tensorflow_bit_for_bit() -> None:
    rng = np.random.default_rng(23)
    for _ in range(100):
        height, width, side = map(int, rng.integers(1, 90, 3))
        pipeline = Preprocessing(
            resize_side=side,
            height=int(rng.integers(1, side + 1)),
            width=int(rng.integers(1, side + 1)),
            means=tuple(rng.uniform(-300, 300, 3).tolist()),
        )
        image = noise(rng, (height, width, 3), str(rng.choice(["uint8", "float32", "float64"])))
        np.testing.assert_array_equal(pipeline(image), tf_preprocess(image, pipeline), err_msg=f"{image.shape}")


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_pipeline_equals_recorded_tensorflow_bit_for_bit(number: int) -> None:
    pipeline, height, width, dtype, step = CASES[number]
    with np.load(RECORDED) as recorded:
        expected = recorded[f"expected{number}"]
    np.testing.assert_array_equal(pipeline(pixels(height, width, dtype))[::step, ::step], expected)


def test_a_window_of_the_resize_equals_resizing_then_cropping() -> None:
    rng = np.random.default_rng(24)
    for _ in range(100):
        image = noise(rng, (*rng.integers(1, 40, 2), 3), "float32")
        resized = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
        top, left = (int(rng.integers(side)) for side in resized)
        rows, columns = int(rng.integers(1, resized[0] - top + 1)), int(rng.integers(1, resized[1] - left + 1))
        window = _resize_window(image, resized, (top, left), (rows, columns))
        whole = resize_bilinear(image, *resized)
        np.testing.assert_array_equal(window, whole[top : top + rows, left : left + columns])


@pytest.mark.parametrize("shape", [(1, 100_000, 3), (100_000, 1, 3)])
def test_an_extreme_image_takes_the_memory_of_its_crop(shape: tuple[int, int, int]) -> None:
    image = np.broadcast_to(np.uint8(200), shape)
    tracemalloc.start()
    try:
        result = Preprocessing()(image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(
        result, np.broadcast_to(np.float32(200) - np.array([123.68, 116.78, 103.94], np.float32), (224, 224, 3))
    )
    assert peak < 10 * result.nbytes


def test_a_coordinate_rounded_past_the_edge_reads_the_last_pixel() -> None:
    """Destination 25599999 is 25600000 in float32, and its source 100000, one past the end."""
    image = np.arange(100_000, dtype=np.float32)[None, :, None]
    assert _resize_window(image, (1, 25_600_000), (0, 25_599_999), (1, 1)).item() == 99_999


def test_a_side_beyond_int32_is_refused() -> None:
    image = np.broadcast_to(np.uint8(0), (1, 9_000_000, 3))
    with pytest.raises(ImageError, match=r"2\*\*31.*got 1 x 9000000; cut"):
        Preprocessing()(image)


def test_the_image_is_left_as_it_was() -> None:
    image = noise(np.random.default_rng(25), (256, 256, 3), "float32")
    before = image.copy()
    Preprocessing()(image)[:] = 0
    resize_bilinear(image, 256, 256)[:] = 0
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"expected \[height, width, channels\].*got shape \[4, 5\]; pass one"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"got shape \[2, 4, 5, 3\]; pass one image"),
        (np.zeros((0, 5, 3), np.uint8), r"none of them 0, got shape \[0, 5, 3\]"),
        (np.zeros((4, 5, 1), np.uint8), r"expected RGB.*got shape \[4, 5, 1\]; repeat"),
        (np.zeros((4, 5, 4), np.float32), r"expected RGB.*got shape \[4, 5, 4\]"),
        (np.zeros((4, 5, 3), np.int64), r"uint8 or float.*got dtype int64; convert"),
        (np.zeros((4, 5, 3), bool), r"got dtype bool"),
        (np.zeros((4, 5, 3), complex), r"got dtype complex128"),
    ],
)
def test_an_array_that_is_no_rgb_image_is_refused(image: NDArray[Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        Preprocessing()(image)


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (-1, 3)])
def test_a_resize_to_nothing_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=rf"at least 1, got {size[0]} x {size[1]}"):
        resize_bilinear(np.zeros((2, 2, 3), np.uint8), *size)


def test_json_holds_the_pipeline() -> None:
    digits = Preprocessing(resize_side=64, height=64, width=60, means=(33.3, 33.3, 0.1))
    for pipeline in (Preprocessing(), digits):
        assert Preprocessing.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline
    assert digits.to_json() == {
        "name": "vgg",
        "resize_side": 64,
        "height": 64,
        "width": 60,
        "means": [33.3, 33.3, 0.1],
    }


def test_a_description_may_leave_parameters_to_slims_defaults() -> None:
    assert Preprocessing.from_json({"name": "vgg"}) == Preprocessing()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ([], r"preprocessing: expected an object with a name and parameters, got \[\]"),
        ("vgg", "expected an object"),
        ({}, 'preprocessing, name: expected "vgg", got None'),
        ({"name": "inception"}, "name: expected one of vgg, torchvision, keras, got 'inception'"),
        ({"name": "vgg", "deviations": [1, 1, 2]}, "only the parameters .*, means, got 'deviations'"),
        ({"name": "keras", "resize_side": 256}, "only the parameters name, height, width, means, got 'resize_side'"),
        ({"name": "torchvision", "deviations": [1, 0, 1]}, "deviations: expected three numbers above 0"),
        (
            {"name": "torchvision", "deviations": [1e-320, 1, 1]},
            "deviations: expected three numbers above 0 in float32",
        ),
        ({"name": "torchvision", "means": [0, 0, -1e20], "deviations": [1, 1e-30, 1]}, "that no quotient overflows"),
        ({"name": "torchvision", "deviations": 2}, "deviations: expected three finite numbers"),
        ({"name": "keras", "height": MAX_SIDE + 1}, "height: expected an integer from 1 to 8192, got 8193"),
        ({"name": ["vgg"]}, "name: "),
        ({"name": "vgg", "crop": 224}, "only the parameters name, resize_side, height, width, means, got 'crop'"),
        ({"name": "vgg", "resize_side": 0}, f"resize_side: expected an integer from 1 to {MAX_SIDE}, got 0"),
        ({"name": "vgg", "resize_side": MAX_SIDE + 1}, "resize_side: .*got 8193"),
        ({"name": "vgg", "resize_side": 10**400}, "resize_side: "),
        ({"name": "vgg", "height": 257}, "height: expected an integer from 1 to 256, the resize_side, got 257"),
        ({"name": "vgg", "width": 257}, "width: expected an integer from 1 to 256, the resize_side, got 257"),
        ({"name": "vgg", "height": 224.0}, r"height: .*got 224\.0"),
        ({"name": "vgg", "width": True}, "width: .*got True"),
        ({"name": "vgg", "width": None}, "width: .*got None"),
        ({"name": "vgg", "means": [1, 2]}, r"means: expected three finite numbers.*got \[1, 2\]"),
        ({"name": "vgg", "means": [1, 2, math.nan]}, "means: .*nan"),
        ({"name": "vgg", "means": [1, 2, math.inf]}, "means: .*inf"),
        ({"name": "vgg", "means": [1, 2, 1e39]}, "means: .*1e[+]39"),
        ({"name": "vgg", "means": [1, 2, 10**400]}, "means: "),
        ({"name": "vgg", "means": [1, 2, "3"]}, "means: "),
        ({"name": "vgg", "means": {"r": 1, "g": 2, "b": 3}}, "means: "),
    ],
)
def test_a_wrong_description_is_a_short_weights_error(description: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        Preprocessing.from_json(description)
    assert len(str(caught.value)) < 200


if __name__ == "__main__":
    record()
