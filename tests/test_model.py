"""load_model(file)(images): what it takes, what it gives, and that it refuses the rest before it computes."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import TINY, TINY_LABELS
from variables import random_variables

from resnet_ref import DeviceError, ShapeError, WeightsError, load_model, load_weights, resnet_v1, save_weights
from resnet_ref.images import read_image
from resnet_ref.network import Network

DEVICES = ("definition", "cpu")
IMAGES = (np.random.default_rng(3).standard_normal((2, 29, 26, 3)) * 60).astype(np.float32)


@pytest.fixture(scope="module")
def model(tiny_file: Path) -> Any:
    return load_model(tiny_file, device="definition")


def saved(path: Path, call: dict[str, Any], **options: Any) -> Path:
    save_weights(path, random_variables(Network.from_json(call).variables()), call, **options)
    return path


@pytest.mark.parametrize("device", DEVICES)
def test_the_shipped_network_reads_all_twelve_shipped_digits(device: str, digit_files: list[Path]) -> None:
    model = load_model(device=device)
    images = np.stack([model.preprocessing(read_image(file)) for file in digit_files])  # type: ignore[misc]
    probabilities = model(images)
    assert probabilities.shape == (12, 10)
    assert [model.labels[i] for i in probabilities.argmax(axis=1)] == [file.name[6] for file in digit_files]  # type: ignore[index]


def test_a_model_carries_what_its_file_says(model: Any, tiny_file: Path) -> None:
    assert model.labels == TINY_LABELS
    assert (model.preprocessing.height, model.preprocessing.width) == (29, 26)
    assert model.network == Network.from_json(TINY)
    assert model.weights.path == tiny_file
    assert str(tiny_file) in repr(model)
    assert "definition" in repr(model)


@pytest.mark.parametrize("device", DEVICES)
def test_the_result_and_each_end_point_are_those_of_slims_own_call(device: str, tiny_file: Path) -> None:
    model = load_model(tiny_file, device=device)
    _, expected = resnet_v1.resnet_v1(
        IMAGES, Network.from_json(TINY).blocks, 5, False, scope="tiny", weights=load_weights(tiny_file), device=device
    )
    shapes = model.end_points(29, 26)
    assert list(shapes) == list(expected)
    probabilities, found = model(IMAGES, end_points=list(expected))
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5 * float(np.abs(value).max()))
        assert value.shape[1:] == shapes[name][1:]
    np.testing.assert_array_equal(probabilities, found["predictions"])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_only_the_end_points_asked_for_come_back_and_do_not_change_the_result(model: Any) -> None:
    plain = model(IMAGES)
    for wanted in ([], ["global_pool"], ("predictions", "tiny/block1"), ["tiny/block1", "tiny/block1"]):
        probabilities, found = model(IMAGES, end_points=wanted)
        np.testing.assert_array_equal(probabilities, plain)
        assert list(found) == list(dict.fromkeys(wanted))


@pytest.mark.parametrize("end_points", [{"global_pool"}, {"global_pool": 1}.keys(), iter(["global_pool"])])
def test_any_iterable_of_names_may_ask_for_end_points(model: Any, end_points: Any) -> None:
    assert list(model(IMAGES, end_points=end_points)[1]) == ["global_pool"]


@pytest.mark.parametrize(
    ("end_points", "said"),
    [
        (["tiny/block3"], "tiny has no end point 'tiny/block3'; the nearest are tiny/block"),
        (["zzz"], "predictions"),
        ([7], "no end point 7"),
        ([None], "no end point None"),
        ("global_pool", "must be a list of names; write end_points=['global_pool']"),
    ],
)
def test_an_unknown_end_point_is_refused_with_the_nearest_names(model: Any, end_points: Any, said: str) -> None:
    with pytest.raises(ShapeError) as caught:
        model(IMAGES, end_points=end_points)
    assert said in str(caught.value)


class Wrapped:
    """An array of another library, as far as one attribute shows."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array


class WithArray(Wrapped):
    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        return self._array


class WithDlpack(Wrapped):
    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


WHOLE = np.arange(2 * 9 * 8 * 3).reshape(2, 9, 8, 3) % 251


@pytest.mark.parametrize(
    "images",
    [
        WHOLE.astype(np.uint8),
        WHOLE.astype(np.int16),
        WHOLE.astype(np.float64),
        WHOLE.astype(np.float16),
        WHOLE.astype(">f4"),
        WHOLE.tolist(),
        list(WHOLE),
        np.asfortranarray(WHOLE.astype(np.float32)),
        np.repeat(WHOLE, 2, axis=2)[:, :, ::2],
        np.ma.masked_array(WHOLE),
        WithArray(WHOLE),
        WithDlpack(WHOLE.astype(np.float32)),
    ],
    ids=lambda images: f"{type(images).__name__} {getattr(images, 'dtype', '')}",
)
@pytest.mark.parametrize("device", DEVICES)
def test_the_same_numbers_in_any_container_give_the_same_result(tiny_file: Path, images: Any, device: str) -> None:
    model = load_model(tiny_file, device=device)
    np.testing.assert_array_equal(model(images), model(WHOLE.astype(np.float32)))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES[0], "for one image write images[None]"),
        (IMAGES[None], "got shape [1, 2, 29, 26, 3]"),
        (IMAGES[..., :1], "must be [N, H, W, 3], got [2, 29, 26, 1]"),
        (IMAGES.transpose(0, 3, 1, 2), "must be [N, H, W, 3]"),
        (IMAGES[:, :0], "none of H, W, C empty"),
        (IMAGES.astype(complex), "real numbers, got dtype complex128"),
        (np.full((1, 2, 2, 3), "a"), "real numbers, got dtype <U1"),
        (np.full((1, 2, 2, 3), None), "real numbers, got dtype object"),
        (np.zeros((1, 2, 2, 3), "M8[s]"), "real numbers, got dtype datetime64"),
        ([[[[1, 2, 3]], [[1, 2]]]], "must be an array"),
        (None, "real numbers"),
        ("digit.png", "real numbers"),
        (Path("digit.png"), "real numbers"),
        (3, "got shape []"),
        ([], "got shape [0]"),
    ],
)
def test_what_is_no_batch_of_images_is_a_shape_error(model: Any, images: Any, said: str) -> None:
    with pytest.raises(ShapeError) as caught:
        model(images)
    assert said in str(caught.value)


@pytest.mark.parametrize("device", DEVICES)
def test_an_empty_batch_gives_an_empty_result(tiny_file: Path, device: str) -> None:
    assert load_model(tiny_file, device=device)(IMAGES[:0]).shape == (0, 5)


@pytest.mark.parametrize("device", DEVICES)
def test_the_images_are_not_modified_and_the_results_are_new(tiny_file: Path, device: str) -> None:
    model = load_model(tiny_file, device=device)
    images = IMAGES.copy()
    images.flags.writeable = False
    names = list(model.end_points(29, 26))
    first, ends = model(images, end_points=names)
    np.testing.assert_array_equal(images, IMAGES)
    kept = [value.copy() for value in (first, *ends.values())]
    model(-images)
    for value, copy in zip((first, *ends.values()), kept, strict=True):
        np.testing.assert_array_equal(value, copy)
        assert value.flags.writeable


def test_images_in_0_to_1_are_warned_about_where_the_file_names_a_preprocessing(model: Any, tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"these images lie in \[0, 1\]; slim's networks take pixels of 0..255"
    ) as found:
        model(np.abs(IMAGES) / np.abs(IMAGES).max())
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(IMAGES)
        model(np.abs(IMAGES))
        model(np.zeros_like(IMAGES))
        model(-np.abs(IMAGES) / 1000)
        load_model(saved(tmp_path / "plain.h5", TINY))(np.abs(IMAGES) / np.abs(IMAGES).max())


def test_float64_on_the_definition_is_what_float32_rounds(tiny_file: Path) -> None:
    exact = load_model(tiny_file, device="definition", precision="float64")(IMAGES)
    assert exact.dtype == np.float64
    for device in DEVICES:
        single = load_model(tiny_file, device=device)(IMAGES)
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, exact, atol=2e-6)
        assert np.abs(single - exact).max() > 0


def test_auto_is_a_device_and_a_thread_count_changes_no_number(tiny_file: Path) -> None:
    assert load_model(tiny_file).tier.device in ("cpu", "gpu")
    one = load_model(tiny_file, "cpu", "float32", "direct", None, 1)
    assert one.tier.threads == 1
    np.testing.assert_array_equal(one(IMAGES), load_model(tiny_file, "cpu", threads=3)(IMAGES))


@pytest.mark.parametrize("device", DEVICES)
def test_threads_that_share_a_model_get_the_numbers_that_one_thread_gets(tiny_file: Path, device: str) -> None:
    model = load_model(tiny_file, device=device)
    batches = [IMAGES * (k + 1) / 8 for k in range(8)]
    expected = [model(batch) for batch in batches]
    barrier = threading.Barrier(4)

    def call(worker: int) -> list[npt.NDArray[Any]]:
        barrier.wait(300)
        return [model(batches[(worker + k) % 8]) for k in range(8)]

    with ThreadPoolExecutor(4) as pool:
        for worker, found in enumerate(pool.map(call, range(4))):
            for k, value in enumerate(found):
                np.testing.assert_array_equal(value, expected[(worker + k) % 8])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "tpu"}, "device must be one of definition, cpu, gpu, auto; got 'tpu'"),
        ({"device": None}, "device must be one of definition, cpu, gpu, auto; got None"),
        ({"device": "gpu:99"}, "gpu"),
        (
            {"precision": "float16"},
            "must be one of float32, float64, bfloat16, bf16x3, bf16x6, tf32x3, tf32; got 'float16'",
        ),
        ({"precision": np.float32}, "precision must be one of"),
        ({"device": "cpu", "precision": "float64"}, '"definition" computes in float64 too'),
        ({"device": "cpu", "algorithm": "fft"}, "algorithm must be one of auto, direct, fast, tuned; got 'fft'"),
        ({"device": "cpu", "isa": "sse9"}, "isa must be None or one of avx512, avx2, neon, plain; got 'sse9'"),
    ],
)
def test_a_device_precision_or_algorithm_there_is_not_is_an_error_that_lists_what_there_is(
    tiny_file: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DeviceError) as caught:
        load_model(tiny_file, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_a_thread_count_that_is_none_is_refused(tiny_file: Path, threads: Any) -> None:
    with pytest.raises((DeviceError, ShapeError), match="threads"):
        load_model(tiny_file, device="cpu", threads=threads)


def test_wrong_options_are_told_before_the_file_is_read() -> None:
    with pytest.raises(DeviceError):
        load_model("no such file.h5", device="tpu")
    with pytest.raises(WeightsError, match=r"cannot read no such file\.h5: No such file"):
        load_model("no such file.h5")


@pytest.mark.parametrize("device", DEVICES)
def test_without_logits_a_model_gives_its_features(tmp_path: Path, device: str) -> None:
    model = load_model(saved(tmp_path / "w.h5", {**TINY, "num_classes": None}), device=device)
    features, found = model(IMAGES, end_points=["global_pool", "tiny/block2"])
    assert features.shape == (2, 1, 1, 20)
    np.testing.assert_array_equal(features, found["global_pool"])
    np.testing.assert_allclose(features[:, 0, 0], found["tiny/block2"].mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_a_dense_network_gives_a_map_of_probabilities(tmp_path: Path, device: str) -> None:
    call = {**TINY, "spatial_squeeze": False, "global_pool": False, "output_stride": 4}
    model = load_model(saved(tmp_path / "w.h5", call), device=device)
    probabilities = model(IMAGES)
    assert probabilities.shape == (2, 8, 7, 5)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-6)
    assert np.ptp(probabilities, axis=(1, 2)).max() > 1e-3


def test_a_map_that_cannot_be_squeezed_is_refused_with_advice(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "w.h5", {**TINY, "global_pool": False}))
    assert model(IMAGES[:, :1, :1]).shape == (2, 5)
    with pytest.raises(ShapeError, match="pass spatial_squeeze=False for a map of logits, or keep global_pool=True"):
        model(IMAGES)


def test_images_of_any_depth_fit_a_network_that_was_saved_for_it(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "w.h5", {**TINY, "channels": 2}))
    assert model(IMAGES[..., :2]).shape == (2, 5)
    with pytest.raises(ShapeError, match=r"must be \[N, H, W, 2\]"):
        model(IMAGES)


def test_the_arg_scope_of_the_file_is_the_one_that_computes(tmp_path: Path) -> None:
    plain = saved(tmp_path / "a.h5", TINY)
    other = tmp_path / "b.h5"
    save_weights(other, load_weights(plain), {**TINY, "arg_scope": {"batch_norm_epsilon": 0.1, "is_training": True}})
    expected, _ = resnet_v1.resnet_v1(
        IMAGES,
        Network.from_json(TINY).blocks,
        5,
        is_training=False,
        scope="tiny",
        weights=load_weights(plain),
        arg_scope=resnet_v1.resnet_arg_scope(batch_norm_epsilon=0.1),
    )
    logits = load_model(other)(IMAGES, end_points=["tiny/spatial_squeeze"])[1]["tiny/spatial_squeeze"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    assert (
        np.abs(logits - load_model(plain)(IMAGES, end_points=["tiny/logits"])[1]["tiny/logits"][:, 0, 0]).max() > 1e-3
    )
