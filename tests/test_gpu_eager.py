"""slim's functions on a gpu, layer by layer: arrays stay where they are, numbers are the cpu's, errors the same.

The gpu is the emulated one, which lets NumPy touch none of its arrays, and a real one where there is one.
"""

from typing import Any

import numpy as np
import pytest
from conftest import TINY
from tiers import GPU_TIERS, Gpus, gpu_named
from variables import random_variables

from resnet_ref import ShapeError, WeightsError, kernels, resnet_utils, resnet_v1
from resnet_ref.kernels.geometry import valid
from resnet_ref.network import Network

NETWORK = Network.from_json(TINY)
VARIABLES = random_variables(NETWORK.variables())
IMAGES = (np.random.default_rng(3).standard_normal((2, 29, 26, 3)) * 60).astype(np.float32)
CALL: dict[str, Any] = {"blocks": NETWORK.blocks, "num_classes": 5, "scope": "tiny"}


@pytest.fixture(params=GPU_TIERS)
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return gpu_named(request.param, monkeypatch, check=True)


@pytest.mark.parametrize("is_training", [False, True])
def test_every_end_point_and_update_of_the_gpu_is_the_cpus(gpu: Any, is_training: bool) -> None:
    found: dict[str, tuple[Any, Any, dict[str, Any]]] = {}
    for device in ("definition", "gpu"):
        updates: dict[str, Any] = {}
        net, end_points = resnet_v1.resnet_v1(
            IMAGES, **CALL, is_training=is_training, weights=VARIABLES, device=device, batch_norm_updates=updates
        )
        found[device] = net, end_points, updates
    (net, end_points, updates), (want, wanted, expected) = found["gpu"], found["definition"]
    assert isinstance(net, np.ndarray)
    assert list(end_points) == list(wanted)
    assert list(updates) == list(expected)
    assert bool(updates) == is_training
    for name, value in {**wanted, **expected, "net": want}.items():
        ours = {**end_points, **updates, "net": net}[name]
        assert type(ours) is np.ndarray
        np.testing.assert_allclose(ours, value, rtol=1e-4, atol=1e-5 * float(np.abs(value).max()), err_msg=name)


def test_images_on_the_device_give_results_there_and_the_same_bits(gpu: Any) -> None:
    given = gpu.upload(IMAGES)
    there = {name: gpu.upload(array) for name, array in VARIABLES.items()}
    net, end_points = resnet_v1.resnet_v1(given, **CALL, is_training=False, weights=there, device="gpu")
    want, wanted = resnet_v1.resnet_v1(IMAGES, **CALL, is_training=False, weights=VARIABLES, device="gpu")
    assert all(map(gpu.owns, (net, *end_points.values())))
    np.testing.assert_array_equal(gpu.download(net), want)
    for name, value in wanted.items():
        np.testing.assert_array_equal(gpu.download(end_points[name]), value)
    np.testing.assert_array_equal(gpu.download(given), IMAGES)


def test_outputs_collections_receives_arrays_of_the_images_kind(gpu: Any) -> None:
    x = np.random.default_rng(0).standard_normal((1, 9, 8, 12)).astype(np.float32)
    names = NETWORK.variables()
    unit = {name.removeprefix("tiny/block1/unit_1/"): a for name, a in VARIABLES.items() if "block1/unit_1/" in name}
    assert len(names) > len(unit) > 0
    for given, is_ours in ((x, lambda value: type(value) is np.ndarray), (gpu.upload(x), gpu.owns)):
        outputs: dict[str, Any] = {"mine": "kept"}
        shortcut_is_identity = {name: a for name, a in unit.items() if "shortcut" not in name}
        kernel = shortcut_is_identity["bottleneck_v1/conv1/weights"]
        shortcut_is_identity["bottleneck_v1/conv1/weights"] = np.resize(kernel, (1, 1, 12, kernel.shape[3]))
        net = resnet_v1.bottleneck(
            given, 12, 3, 1, outputs_collections=outputs, weights=shortcut_is_identity, device="gpu"
        )
        assert is_ours(net)
        assert outputs.pop("mine") == "kept"
        assert outputs
        assert all(map(is_ours, outputs.values()))


def test_an_array_of_another_device_is_refused_wherever_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Gpus(monkeypatch, 2)
    elsewhere = second.upload(IMAGES)
    with pytest.raises(ShapeError, match=r"on device .*, got one on another device; copy it over"):
        resnet_v1.resnet_v1(elsewhere, **CALL, is_training=False, weights=VARIABLES, device="gpu")
    net, _ = resnet_v1.resnet_v1(elsewhere, **CALL, is_training=False, weights=VARIABLES, device="gpu:1")
    assert net.device == 1
    mixed = {**VARIABLES, "tiny/logits/biases": second.upload(VARIABLES["tiny/logits/biases"])}
    with pytest.raises(ShapeError, match="got one on another device"):
        resnet_v1.resnet_v1(first.upload(IMAGES), **CALL, is_training=False, weights=mixed, device="gpu")


def test_bad_images_and_weights_on_the_device_get_the_errors_of_the_host(gpu: Any) -> None:
    for images, said in (
        (gpu.upload(IMAGES[0]), r"write images\[None\]"),
        (gpu.upload(IMAGES.astype(np.complex64)), "real numbers, got dtype complex64"),
        (gpu.upload(IMAGES[:, :0]), "none of H, W, C empty"),
    ):
        with pytest.raises(ShapeError, match=said):
            resnet_v1.resnet_v1(images, **CALL, is_training=False, weights=VARIABLES, device="gpu")
    small = {**VARIABLES, "tiny/logits/biases": gpu.upload(np.ones(4, np.float32))}
    with pytest.raises(WeightsError, match="tiny/logits/biases"):
        resnet_v1.resnet_v1(gpu.upload(IMAGES), **CALL, is_training=False, weights=small, device="gpu")


def test_whole_numbers_and_strided_images_on_the_device_are_converted_there(gpu: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 20, 18, 3), np.uint8)
    wide = gpu.upload(np.repeat(pixels, 2, axis=2))[:, :, ::2]
    assert not wide.flags.c_contiguous
    got, _ = resnet_v1.resnet_v1(wide, **CALL, is_training=False, weights=VARIABLES, device="gpu")
    want, _ = resnet_v1.resnet_v1(pixels, **CALL, is_training=False, weights=VARIABLES, device="gpu")
    np.testing.assert_array_equal(gpu.download(got), want)


def test_an_empty_batch_on_the_device_gives_empty_results(gpu: Any) -> None:
    net, end_points = resnet_v1.resnet_v1(
        gpu.upload(IMAGES[:0]), **CALL, is_training=False, weights=VARIABLES, device="gpu"
    )
    assert gpu.download(net).shape == (0, 5)
    assert {value.shape[0] for value in end_points.values()} == {0}


def test_subsample_and_stacks_run_on_the_device_too(gpu: Any) -> None:
    x = np.random.default_rng(5).standard_normal((2, 7, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(resnet_utils.subsample(x, 2, device="gpu"), x[:, ::2, ::2])


def test_arrays_may_begin_anywhere_but_out_begins_where_fours_do(gpu: Any) -> None:
    """A slice of a larger array is contiguous, yet no multiple of 16 bytes from its begin."""
    rng = np.random.default_rng(6)
    x, w, bias, residual = (
        rng.integers(-4, 5, s).astype(np.float32) for s in [(1, 3, 5, 4), (1, 1, 4, 8), (8,), (1, 3, 5, 8)]
    )

    def late(array: Any) -> Any:
        return gpu.upload(np.append(np.float32(9), array))[1:].reshape(array.shape)

    tier = kernels.on("gpu")
    given = {"bias": late(bias), "residual": late(residual)}
    y = tier.conv2d(late(x), late(w), valid(1), valid(1), **given)
    want = kernels.on("definition").conv2d(x, w, valid(1), valid(1), bias=bias, residual=residual)
    np.testing.assert_array_equal(gpu.download(y), want)
    with pytest.raises(ShapeError, match=r"conv2d: out must begin at a multiple of 16 bytes; pass cupy.empty"):
        tier.conv2d(late(x), late(w), valid(1), valid(1), out=late(want))
