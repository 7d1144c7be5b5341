"""Why an image, and a class, are other numbers in Keras and PyTorch: claims of docs/why_not_equal.md, as in
test_why_not_equal_layers.py.
"""

from pathlib import Path

import numpy as np
import pytest
from elsewhere import (
    Array,
    drawn,
    error,
    in_keras,
    in_torch,
    keras,
    pixels,
    pytorch,
    resnet50_of_keras,
    torchvision,
    whole,
)
from PIL import Image

from resnet_ref import Preprocessing, kernels, oracle
from resnet_ref.kernels import Tier
from resnet_ref.kernels.geometry import fixed
from resnet_ref.labels import imagenet_labels, imagenet_synsets
from resnet_ref.oracle.preprocessing import resize as resize_of_tf1
from resnet_ref.preprocessing import resize_bilinear

MEANS, TORCH_MEANS, TORCH_DEVIATIONS = (123.68, 116.78, 103.94), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(params=["definition", "cpu"])
def tier(request: pytest.FixtureRequest) -> Tier:
    return kernels.on(request.param)


def half_pixel(image: Array, height: int, width: int) -> Array:
    """Bilinear, destination d reading source (d + 0.5) * in / out - 0.5, clamped to the image."""
    for axis, size in ((0, height), (1, width)):
        n = image.shape[axis]
        source = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        below = np.floor(source).astype(int)
        above = np.minimum(below + 1, n - 1)
        weight = (source - below).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        image = image.take(below, axis) * (1 - weight) + image.take(above, axis) * weight
    return image


SIZES = [((8, 10), (4, 5)), ((9, 7), (5, 4)), ((5, 6), (11, 9)), ((50, 75), (32, 48))]


@pytest.mark.oracle
@pytest.mark.parametrize(("source", "wanted"), SIZES)
def test_tensorflow_2_and_keras_resize_with_half_pixel_centres_and_slim_without(
    source: tuple[int, int], wanted: tuple[int, int]
) -> None:
    image = drawn(*source, 3)
    tf, _ = oracle.tensorflow()
    slims = resize_of_tf1(image, *wanted)
    np.testing.assert_array_equal(resize_bilinear(image, *wanted), slims)
    with oracle.quiet():
        others = {
            "tf.image.resize": tf.image.resize(image, wanted),
            "keras.ops": keras().ops.image.resize(image, wanted),
            "keras.layers": keras().layers.Resizing(*wanted)(image),
        }
    for name, other in others.items():
        np.testing.assert_allclose(np.asarray(other), half_pixel(image, *wanted), atol=1e-5, err_msg=name)
    assert error(slims, half_pixel(image, *wanted)) > 0.1


@pytest.mark.oracle
def test_to_half_size_slim_takes_every_second_pixel_and_tensorflow_2_the_mean_of_four() -> None:
    image = whole(8, 10, 3)
    tf, _ = oracle.tensorflow()
    slims = resize_of_tf1(image, 4, 5)
    np.testing.assert_array_equal(slims, image[::2, ::2])
    np.testing.assert_array_equal(resize_bilinear(image, 4, 5), slims)
    of_four = image.reshape(4, 2, 5, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(tf.image.resize(image, (4, 5)).numpy(), of_four)


@pytest.mark.oracle
def test_slims_resized_image_lies_towards_its_upper_left_corner() -> None:
    """A ramp shows where a pixel comes from: from 500 to 256 slim reads 0.477 source pixels before TensorFlow 2."""
    ramp = np.broadcast_to(np.arange(500, dtype=np.float32)[None, :, None], (3, 500, 3))
    tf, _ = oracle.tensorflow()
    shift = tf.image.resize(ramp, (3, 256)).numpy() - resize_bilinear(ramp, 3, 256)
    np.testing.assert_allclose(shift[:, :-1], 0.477, atol=5e-4)  # (500 / 256 - 1) / 2
    np.testing.assert_array_equal(resize_bilinear(ramp, 3, 256), resize_of_tf1(ramp, 3, 256))


def test_pillow_smooths_when_it_shrinks() -> None:
    """To half size each pixel is (1, 3, 3, 1) / 8 of four, in both directions; slim's is one pixel of those."""
    image = drawn(8, 10, 1)
    shrunk = np.asarray(Image.fromarray(image[:, :, 0]).resize((5, 4), Image.Resampling.BILINEAR))
    weights = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    np.testing.assert_allclose(shrunk[1, 2], (weights * image[1:5, 3:7, 0]).sum(), rtol=1e-5)
    assert resize_bilinear(image, 4, 5)[1, 2, 0] == image[2, 4, 0]


def test_enlarging_pillow_has_half_pixel_centres() -> None:
    image = drawn(5, 6, 1)
    grown = np.asarray(Image.fromarray(image[:, :, 0]).resize((9, 11), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(grown, half_pixel(image, 11, 9)[:, :, 0], atol=1e-5)
    assert error(resize_bilinear(image, 11, 9)[:, :, 0], grown) > 0.1


@pytest.mark.peers
@pytest.mark.parametrize(("source", "wanted"), SIZES)
def test_pytorchs_interpolate_without_align_corners_has_half_pixel_centres(
    source: tuple[int, int], wanted: tuple[int, int]
) -> None:
    """align_corners=False there means half-pixel centres; in slim's TensorFlow it does not."""
    image = drawn(*source, 3)
    interpolate = pytorch().nn.functional.interpolate
    for options in ({"align_corners": False}, {}):
        other = in_torch(lambda x, o=options: interpolate(x, wanted, mode="bilinear", **o), image[None])[0]
        np.testing.assert_allclose(other, half_pixel(image, *wanted), atol=1e-5)
    assert error(resize_bilinear(image, *wanted), half_pixel(image, *wanted)) > 0.1


@pytest.mark.peers
@pytest.mark.parametrize(("source", "wanted"), SIZES)
def test_torchvision_smooths_tensors_as_pillow_smooths_images(source: tuple[int, int], wanted: tuple[int, int]) -> None:
    resize = torchvision().transforms.functional.resize
    image = drawn(*source, 1)
    tensor = pytorch().from_numpy(image.transpose(2, 0, 1).copy())
    pillows = np.asarray(Image.fromarray(image[:, :, 0]).resize(wanted[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resize(tensor, wanted)[0].numpy(), pillows, atol=1e-5)
    assert error(resize_bilinear(image, *wanted)[:, :, 0], pillows) > 0.1


@pytest.mark.oracle
def test_keras_load_img_takes_the_nearest_pixel_and_squeezes_the_image_into_a_square(tmp_path: Path) -> None:
    """What most examples of keras.applications do: no smoothing, no interpolation, no crop."""
    image = pixels(30, 60)
    Image.fromarray(image).save(tmp_path / "p.png")
    loaded = keras().utils.img_to_array(keras().utils.load_img(tmp_path / "p.png", target_size=(15, 15)))
    np.testing.assert_array_equal(loaded, image[1::2, 2::4])
    slims = Preprocessing(resize_side=15, height=15, width=15, means=(0, 0, 0))(image)
    np.testing.assert_array_equal(slims, image[::2, 14:44:2])


def test_an_image_whose_smaller_side_is_256_is_only_cropped() -> None:
    """So another library may resize: what has the right size already is not resized again."""
    image = pixels(300, 256)
    np.testing.assert_array_equal(Preprocessing()(image), image[38:262, 16:240] - np.array(MEANS, np.float32))


@pytest.mark.oracle
def test_keras_resnet50_wants_bgr_and_means_a_thousandth_away() -> None:
    """preprocess_input: BGR less (103.939, 116.779, 123.68); the channels turned it is slim's within .0011."""
    image = pixels(224, 256)
    ours = Preprocessing(resize_side=224)(image)
    cropped = image[:, 16:240].astype(np.float32)
    kerass = keras().applications.resnet50.preprocess_input(cropped.copy())
    assert 5e-4 < np.abs(kerass[..., ::-1] - ours).max() < 1.1e-3
    assert np.abs(kerass - ours).max() > 100
    same_means = Preprocessing(resize_side=224, means=(123.68, 116.779, 103.939))(image)
    np.testing.assert_allclose(kerass[..., ::-1], same_means, atol=2e-5)


@pytest.mark.oracle
def test_bgr_weights_take_rgb_images_once_conv1s_input_channels_are_turned(tier: Tier) -> None:
    model, rgb = resnet50_of_keras(65, 97), drawn(2, 65, 97, 3)
    want = in_keras(keras().Model(model.input, model.get_layer("conv1_conv").output), rgb[..., ::-1].copy())
    weights, bias = model.get_layer("conv1_conv").get_weights()
    turned = np.ascontiguousarray(weights[:, :, ::-1])
    assert error(tier.conv2d(rgb, turned, fixed(7, 2), fixed(7, 2), bias=bias), want) < 1e-5
    assert error(tier.conv2d(rgb, weights, fixed(7, 2), fixed(7, 2), bias=bias), want) > 0.1


@pytest.mark.oracle
def test_torch_mode_is_slims_with_other_means_once_conv1_is_divided(tier: Tier) -> None:
    """(p / 255 - mean) / deviation: means of 255 * mean, and conv1's weights divided by 255 * deviation, channel by
    channel. The borders fit too, because both pad with what the mean becomes."""
    image, weights = pixels(64, 71), drawn(7, 7, 3, 5)
    mode = keras().applications.imagenet_utils.preprocess_input
    torchs = mode(image[:, 3:67].astype(np.float32), mode="torch")
    check_torch_mode(tier, image, torchs, weights)
    tf_mode = mode(image.astype(np.float32), mode="tf")
    np.testing.assert_allclose(tf_mode, image / 127.5 - 1, atol=1e-6)


def check_torch_mode(tier: Tier, image: Array, torchs: Array, weights: Array) -> None:
    means = tuple(255 * mean for mean in TORCH_MEANS)
    ours = Preprocessing(resize_side=64, height=64, width=64, means=means)(image)
    divided = weights / (255 * np.array(TORCH_DEVIATIONS, np.float32))[:, None]
    want = tier.conv2d(np.ascontiguousarray(torchs[None]), weights, fixed(7, 2), fixed(7, 2))
    assert error(tier.conv2d(ours[None], divided, fixed(7, 2), fixed(7, 2)), want) < 1e-5
    slims = Preprocessing(resize_side=64, height=64, width=64)(image)
    assert error(tier.conv2d(slims[None], weights, fixed(7, 2), fixed(7, 2)), want) > 1


@pytest.mark.peers
def test_torchvisions_weights_want_pixels_of_unit_deviation(tier: Tier) -> None:
    """Resized to 256 (its second set of weights: to 232), cropped to 224, in [0, 1] less the means, divided. Of the 7
    pixels that a crop of 64 leaves of 71, torchvision's leaves 4 before it and slim's 3."""
    theirs = torchvision()
    found = theirs.models.ResNet50_Weights
    first, second = (weights.transforms() for weights in (found.IMAGENET1K_V1, found.IMAGENET1K_V2))
    assert (first.crop_size, first.resize_size, second.resize_size) == ([224], [256], [232])
    assert (tuple(first.mean), tuple(first.std)) == (TORCH_MEANS, TORCH_DEVIATIONS)
    image = pixels(64, 71)
    transform = found.IMAGENET1K_V1.transforms(crop_size=64, resize_size=64)
    torchs = transform(pytorch().from_numpy(image.transpose(2, 0, 1).copy())).numpy().transpose(1, 2, 0)
    check_torch_mode(tier, np.roll(image, -1, axis=1), torchs, drawn(7, 7, 3, 5))
    np.testing.assert_allclose(torchs, (image[:, 4:68] / 255 - TORCH_MEANS) / TORCH_DEVIATIONS, atol=1e-5)


def test_1001_labels_are_the_1000_with_a_background_before_them() -> None:
    """Class k of a 1000-class network is class k + 1 of one with a background; both in the order of WordNet ids."""
    thousand, more = imagenet_labels(1000), imagenet_labels(1001)
    assert thousand is not None
    assert more is not None
    assert more == ["background", *thousand]
    assert (thousand[0], more[1], thousand[999]) == ("tench, Tinca tinca", thousand[0], more[1000])
    synsets = [synset for synset, _ in imagenet_synsets()]
    assert synsets == sorted(synsets)


@pytest.mark.peers
def test_torchvisions_classes_come_in_the_same_order() -> None:
    """Each of its 1000 names is the first of ours, save two that it has written anew."""
    theirs = torchvision().models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    ours = imagenet_labels(1000)
    assert ours is not None
    other = [name for name, all_names in zip(theirs, ours, strict=True) if name != all_names.split(",")[0]]
    assert other == ["crane bird", "maillot tank suit"]
