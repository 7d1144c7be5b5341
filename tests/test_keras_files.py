"""Files that are no keras.applications ResNet, are damaged, or are made to do harm: one clear CheckpointError each."""

import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import needs
import numpy as np
import pytest

from resnet_ref.elsewhere.keras import _convolutions, _expected, _named, translate
from resnet_ref.elsewhere.translation import Translation
from resnet_ref.errors import CheckpointError
from resnet_ref.network import Network
from resnet_ref.weights.elsewhere.keras_contents import Stored
from resnet_ref.weights.elsewhere.keras_h5 import KerasFile, _require_apart

Shapes = dict[str, tuple[int, ...]]


def resnet50(channels: int = 3, classes: int | None = 10) -> Shapes:
    return _expected(_convolutions("resnet_v1_50", channels), classes)


def blank(group: h5py.Group, name: str, shape: tuple[int, ...], kind: Any = h5py.h5t.IEEE_F32LE) -> None:
    """A dataset of zeros that has its place in the file, and takes none on the disk."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    parent = group.require_group(name.rpartition("/")[0])
    h5py.h5d.create(parent.id, name.rpartition("/")[2].encode(), kind, h5py.h5s.create_simple(shape), made)


def legacy(path: Path, shapes: Mapping[str, tuple[int, ...]], layers: Iterable[str] = ()) -> Path:
    """A legacy weights file, as far as names and shapes go."""
    with h5py.File(path, "w") as file:
        for name, shape in shapes.items():
            blank(file, f"{name.split('/')[0]}/{name}:0", shape)
        for layer in layers:
            file.require_group(layer)
    return path


def read_all(path: Path) -> Translation:
    with KerasFile(path) as file:
        translation = translate(file)
        for derived in translation.variables.values():
            for source in derived.sources:
                file.read(source)
    return translation


def refused(path: Path, *said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_all(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert all(part in message for part in said), message


def without(name: str) -> Shapes:
    return {key: shape for key, shape in resnet50().items() if key != name}


def deeper() -> Shapes:
    return {name.replace("conv5_block3", "conv5_block4"): shape for name, shape in resnet50().items()} | resnet50()


WRONG: dict[str, tuple[Callable[[], Shapes], tuple[str, ...]]] = {
    "an array is missing": (
        lambda: without("conv3_block2_1_bn/beta"),
        ("no ResNet50", "conv3_block2_1_bn/beta [128] is missing"),
    ),
    "a layer is missing": (lambda: without("conv1_conv/kernel"), ("conv1_conv/kernel is missing",)),
    "another layer": (
        lambda: {**resnet50(), "attention/kernel": (3, 3)},
        ("attention/kernel [3, 3] is not a variable",),
    ),
    "another shape": (
        lambda: {**resnet50(), "conv2_block1_2_conv/kernel": (5, 5, 64, 64)},
        ("conv2_block1_2_conv/kernel has shape [5, 5, 64, 64], expected [3, 3, 64, 64]",),
    ),
    "a scalar": (lambda: {**resnet50(), "conv1_conv/kernel": ()}, ("conv1_conv/kernel has shape []",)),
    "a top of no classes": (lambda: {**resnet50(), "predictions/kernel": (2048, 0)}, ("[2048, 0]",)),
    "half a top": (lambda: without("predictions/kernel"), ("predictions/kernel is missing",)),
    "other blocks": (deeper, ("3, 4, 6, 4 blocks in conv2 to conv5", "ResNet152")),
    "V2": (lambda: {**resnet50(), "conv2_block1_preact_bn/gamma": (64,)}, ("ResNet V2", "expected ResNet50")),
    "ResNeXt": (
        lambda: {name: shape for name, shape in resnet50().items() if not name.endswith("_conv/bias")},
        ("ResNeXt", "no bias"),
    ),
    "Keras' names of 2018": (lambda: {"res2a_branch2a/kernel": (1, 1, 64, 64)}, ("2018",)),
    "some other network": (lambda: {"block1_conv1/kernel": (3, 3, 3, 64)}, ("it holds block1_conv1/kernel",)),
    "nothing": (dict, ("it holds no weights",)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_of_other_arrays_is_refused_and_they_are_named(what: str, tmp_path: Path) -> None:
    shapes, said = WRONG[what]
    refused(legacy(tmp_path / "a.h5", shapes()), *said)


@pytest.mark.parametrize("layer", ["rescaling", "max_pool"])
def test_a_layer_without_weights_that_a_resnet_has_not_is_refused_or_listed_as_left_out(
    layer: str, tmp_path: Path
) -> None:
    path = legacy(tmp_path / "a.h5", resnet50(), ["conv1_relu", layer])
    refused(path, f"{layer} is no layer of it")
    with KerasFile(path) as arrays:
        made = translate(arrays, strict=False)
    assert made.skipped == {layer: "a layer without weights, so what it computes is left out"}


def test_pooling_of_another_kind_is_refused_even_where_not_strict(tmp_path: Path) -> None:
    path = legacy(tmp_path / "a.h5", resnet50(), ["conv1_relu", "global_max_pooling2d"])
    with KerasFile(path) as arrays, pytest.raises(CheckpointError, match="global_max_pooling2d is no layer of it"):
        translate(arrays, strict=False)


def test_of_two_dense_layers_without_names_the_first_is_not_taken_for_the_classifier() -> None:
    """A .weights.h5 of Keras 2 numbers them."""
    names = [f"conv2d{n}/kernel" for n in ("", *(f"_{i}" for i in range(1, 53)))]
    names += [f"batch_normalization{n}/gamma" for n in ("", *(f"_{i}" for i in range(1, 53)))]
    assert _named([*names, "dense/kernel"])["predictions/kernel"] == "dense/kernel"
    two = _named([*names, "dense/kernel", "dense_1/kernel"])
    assert "predictions/kernel" not in two
    assert two["dense/kernel"] == "dense/kernel"


def test_the_name_that_a_classifier_needs_is_said(tmp_path: Path) -> None:
    shapes = {name.replace("predictions/", "dense/"): shape for name, shape in resnet50(classes=7).items()}
    refused(
        legacy(tmp_path / "a.h5", shapes),
        "dense/kernel is a classifier's, perhaps: give its layer the name predictions",
    )


def test_dropout_is_taken_for_it_does_nothing_in_inference(tmp_path: Path) -> None:
    idle = ("activity_regularization", "dropout", "dropout_1", "gaussian_noise_2", "spatial_dropout2d", "alpha_dropout")
    with KerasFile(legacy(tmp_path / "a.h5", resnet50(), ["conv1_relu", *idle])) as arrays:
        made = translate(arrays)
    assert made.skipped == dict.fromkeys(idle, "a layer that does nothing in inference")


def test_a_whole_file_is_taken_with_any_channels_and_classes_and_only_three_channels_are_turned(tmp_path: Path) -> None:
    for channels, classes in ((3, 10), (4, 2), (1, None)):
        translation = read_all(legacy(tmp_path / "a.h5", resnet50(channels, classes)))
        network = Network.from_json(translation.network)
        assert (network.channels, network.num_classes) == (channels, classes)
        assert {name: d.shape for name, d in translation.variables.items()} == network.variables()
        kernel = np.arange(7 * 7 * channels * 64, dtype=np.float32).reshape(7, 7, channels, 64)
        turned = translation.variables["resnet_v1_50/conv1/weights"].make(kernel)
        np.testing.assert_array_equal(turned, kernel[:, :, ::-1] if channels == 3 else kernel)


def test_metrics_and_the_optimizer_are_left_out_by_name(tmp_path: Path) -> None:
    path = legacy(tmp_path / "a.h5", resnet50())
    with h5py.File(path, "a") as file:
        for name in ("optimizer_weights/adam/iteration:0", "metrics/mean/vars/0"):
            file[name] = np.int64(3)
    refused(path, "metrics is no layer of it")  # they lie beside model_weights, or beside layers
    with h5py.File(path, "a") as file:
        for name in list(file):
            if name not in ("optimizer_weights", "metrics"):
                file.move(name, f"model_weights/{name}")
    assert read_all(path).skipped == {
        "optimizer_weights/adam/iteration": "optimizer slot",
        "metrics/mean/vars/0": "a metric of the training",
    }


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(number: float, tmp_path: Path) -> None:
    path = legacy(tmp_path / "a.h5", resnet50())
    with h5py.File(path, "a") as file:
        file["conv4_block6_3_bn/conv4_block6_3_bn/moving_variance:0"][5] = number
    refused(path, "conv4_block6_3_bn/moving_variance", f"{number} at [5]")


def other(path: Path, make: Callable[[h5py.Group], Any]) -> Path:
    """A whole ResNet50, but for one dataset."""
    legacy(path, without("conv1_conv/bias"))
    with h5py.File(path, "a") as file:
        make(file["conv1_conv/conv1_conv"])
    return path


def virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((64,), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (64,))
    group.create_virtual_dataset("bias:0", layout)


def alias(group: h5py.Group) -> None:
    group["bias:0"] = group.file["conv1_bn/conv1_bn/gamma:0"]


HARMFUL: dict[str, tuple[Callable[[h5py.Group], Any], str]] = {
    "soft link": (lambda g: g.__setitem__("bias:0", h5py.SoftLink("/conv1_bn")), "link"),
    "external link": (lambda g: g.__setitem__("bias:0", h5py.ExternalLink("/etc/passwd", "/")), "link"),
    "virtual": (virtual, "neither a plain group nor a plain dataset"),
    "external bytes": (
        lambda g: g.create_dataset("bias:0", (64,), np.float32, external=[("/etc/passwd", 0, 256)]),
        "neither a plain group nor a plain dataset",
    ),
    "bomb": (lambda g: g.create_dataset("bias:0", (1 << 28,), np.float32, compression="gzip"), "compressed"),
    "chunks": (lambda g: g.create_dataset("bias:0", (64,), np.float32, chunks=(8,)), "in several chunks"),
    "terabytes": (lambda g: g.create_dataset("bias:0", (1 << 45,), np.float32), "incomplete"),
    "no bytes": (lambda g: g.create_dataset("bias:0", (64,), np.float32), "incomplete"),
    "empty value": (lambda g: g.create_dataset("bias:0", data=h5py.Empty("f")), "no array"),
    "whole numbers": (lambda g: g.create_dataset("bias:0", data=np.zeros(64, np.int32)), "is int32"),
    "complex": (lambda g: g.create_dataset("bias:0", data=np.zeros(64, np.complex64)), "is complex64"),
    "text": (lambda g: g.create_dataset("bias:0", data=["x"] * 64), "is object"),
    "references": (lambda g: g.create_dataset("bias:0", data=[g.ref] * 64, dtype=h5py.ref_dtype), "is object"),
    "records": (lambda g: g.create_dataset("bias:0", data=np.zeros(64, "f4,f4")), "is [("),
    "named type": (lambda g: g.__setitem__("bias:0", np.dtype(np.float32)), "neither a plain group"),
    "one place twice": (alias, "another name"),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_a_dataset_that_is_not_plainly_in_the_file_is_refused(what: str, tmp_path: Path) -> None:
    make, said = HARMFUL[what]
    path = other(tmp_path / "a.h5", make)
    refused(path, "conv1_conv/conv1_conv/bias:0" if "is " not in said else "conv1_conv/bias", said)


def test_arrays_that_share_bytes_are_refused() -> None:
    """What links and names do not show: two descriptions of one place."""
    whole, half = Stored("<f4", (4,), 100, 16), Stored("<f4", (2,), 112, 8)
    empty, after = Stored("<f4", (0,), 0, 0), Stored("<f4", (2,), 116, 8)
    _require_apart(Path("a.h5"), {"a": after, "b": whole, "c": empty})
    with pytest.raises(CheckpointError, match=r"a\.h5: half lies where whole lies"):
        _require_apart(Path("a.h5"), {"half": half, "whole": whole})


@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f4", "<f8", ">f8", "bfloat16"])
def test_floats_of_other_sizes_and_byte_orders_are_read(kind: str, tmp_path: Path) -> None:
    want = np.array([0.5, -2, 1.25, 3e2], np.float32)
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        if kind == "bfloat16":
            data = (want.view(np.uint32) >> 16).astype(np.uint16).view("V2")
            want = (want.view(np.uint32) & 0xFFFF0000).view(np.float32)
        else:
            data = want.astype(kind)
        dataset = file.create_dataset("layers/conv2d_3/vars/1", data=data)
        if kind == "bfloat16":
            dataset.attrs["dtype"] = "bfloat16"
    with KerasFile(tmp_path / "a.weights.h5") as keras_file:
        assert list(keras_file.variables) == ["conv2d_3/bias"]
        got = keras_file.read("conv2d_3/bias")
    np.testing.assert_array_equal(got, want)
    assert got.dtype.isnative


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for key in ("conv2d", "conv2d_1"):
            file[f"layers/{key}/vars/0"] = np.zeros((1, 1, 2, 2), np.float32)
            file[f"layers/{key}/vars"].attrs["name"] = "conv1_conv"
    refused(tmp_path / "a.weights.h5", "holds conv1_conv/kernel twice")


@needs.PIPES
def test_what_is_no_hdf5_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("weights\n" * 99)
    (tmp_path / "empty.h5").touch()
    (tmp_path / "folder.h5").mkdir()
    os.mkfifo(tmp_path / "pipe.h5")
    refused(tmp_path / "text.h5", "no HDF5 file")
    refused(tmp_path / "empty.h5", "no HDF5 file")
    refused(tmp_path / "folder.h5", "is a directory")
    refused(tmp_path / "pipe.h5", "is no plain file")
    refused(tmp_path / "none.h5", "No such file")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = legacy(tmp_path / "a.h5", resnet50())
    os.truncate(path, int(path.stat().st_size * share))
    refused(path, "damaged")


def keras_zip(path: Path, kind: int = zipfile.ZIP_STORED, config: str = "{}") -> Path:
    inner = legacy(path.with_suffix(".inner"), {"dense/kernel": (2, 3)})
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("config.json", config)
        archive.write(inner, "model.weights.h5")
    return path


def test_a_zip_that_is_no_keras_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("word/document.xml", "x")
    refused(tmp_path / "other.keras", "it holds 0 times model.weights.h5", "word/document.xml")
    refused(keras_zip(tmp_path / "small.keras", zipfile.ZIP_DEFLATED), "compressed")
    refused(keras_zip(tmp_path / "json.keras", config="{"), "no JSON")
    refused(keras_zip(tmp_path / "deep.keras", config="[" * 100_000), "no JSON")
    refused(keras_zip(tmp_path / "bomb.keras", config=" " * (1 << 22) + "{}"), "config.json is longer")
    refused(keras_zip(tmp_path / "whole.keras"), "expected ResNet50", "dense/kernel")


def test_a_flipped_bit_in_a_keras_zip_is_refused(tmp_path: Path) -> None:
    """Wherever it is in the weights: the zip has a checksum of them."""
    path = keras_zip(tmp_path / "a.keras")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
    start = member.header_offset + 30 + sum(struct.unpack_from("<HH", data, member.header_offset + 26))
    for place in (start, start + member.file_size // 2, start + member.file_size - 1):
        data[place] ^= 1
        path.write_bytes(data)
        refused(path, "CRC-32")
        data[place] ^= 1
