"""torchvision's resnet50, 101 and 152 become networks here that give torchvision's numbers; other models are named."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elsewhere import CLASSES, Array, drawn, error, pixels, pytorch, torchvision

from resnet_ref import load_model, resnet_v1, save_weights
from resnet_ref.convert import convert
from resnet_ref.elsewhere.torchvision import UNITS, translate
from resnet_ref.elsewhere.translation import Translation
from resnet_ref.errors import CheckpointError
from resnet_ref.network import Network
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.elsewhere.elements import element_of
from resnet_ref.weights.elsewhere.safetensors_file import SafetensorsFile
from resnet_ref.weights.elsewhere.torch_zip import TorchZip
from resnet_ref.weights.named_arrays import NamedArrays

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    vectors = {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def state(units: tuple[int, ...], classes: int = 1000) -> Shapes:
    """Name -> shape of torchvision's bottleneck networks, written out here once more."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    inputs = 64
    for stage, count in enumerate(units):
        width = 64 * 2**stage
        for unit in range(count):
            name = f"layer{stage + 1}.{unit}"
            shapes |= {f"{name}.conv1.weight": (width, inputs, 1, 1), **norm(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **norm(f"{name}.bn2", width)}
            shapes |= {f"{name}.conv3.weight": (4 * width, width, 1, 1), **norm(f"{name}.bn3", 4 * width)}
            if unit == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, inputs, 1, 1)}
                shapes |= norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return {**shapes, "fc.weight": (classes, 2048), "fc.bias": (classes,)}


class Listed:
    """A file of which the names and shapes are known."""

    path, kind, files = Path("file.pth"), "listed", ()

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, str] | None = None) -> None:
        kind = {name: "int64" for name in shapes if name.endswith("num_batches_tracked")} | dict(kinds or {})
        self.variables: Mapping[str, Variable] = {
            name: Variable.of(element_of(kind.get(name, "float32")), shape) for name, shape in shapes.items()
        }

    def read(self, name: str) -> Array:
        return np.arange(np.prod(shape := self.variables[name].shape), dtype=np.float32).reshape(shape)

    def __enter__(self) -> "Listed":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("variant", UNITS)
def test_every_array_becomes_one_of_the_networks_variables(variant: str) -> None:
    """Exactly these, each from one array of as many numbers; the counters alone are left out."""
    shapes = state(UNITS[variant], CLASSES)
    made = translate(Listed(shapes))
    network = Network.from_json(made.network)
    assert {name: derived.shape for name, derived in made.variables.items()} == network.variables()
    used = [derived.sources for derived in made.variables.values()]
    assert {source for (source,) in used} == {name for name in shapes if not name.endswith("num_batches_tracked")}
    assert len(used) == len(set(used))
    assert all(np.prod(shapes[d.sources[0]]) == np.prod(d.shape) for d in made.variables.values())
    assert made.skipped == {n: "counts batches in training" for n in shapes if n.endswith("num_batches_tracked")}
    assert (network.scope, network.num_classes) == (f"resnet_v1_{variant}", CLASSES)
    assert made.labels is None


def test_strides_are_in_the_first_unit_of_the_later_blocks_and_pool1_is_padded_on_both_sides() -> None:
    network = translate(Listed(state(UNITS["50"]))).network
    strides = [[unit["stride"] for unit in block["args"]] for block in network["blocks"]]
    assert strides == [[1, 1, 1], [2, 1, 1, 1], [2, 1, 1, 1, 1, 1], [2, 1, 1]]
    assert network["arg_scope"] == {"max_pool2d_padding": "FIXED"}


def test_arrays_are_turned_as_slim_has_them() -> None:
    arrays = Listed(state(UNITS["50"]))
    made = translate(arrays)

    def both(name: str) -> tuple[Array, Array]:
        derived = made.variables[f"resnet_v1_50/{name}"]
        source = arrays.read(derived.sources[0])
        got = derived.make(source)
        assert got.shape == derived.shape
        return source, got

    source, got = both("block2/unit_1/bottleneck_v1/conv2/weights")
    assert got[0, 2, 5, 7] == source[7, 5, 0, 2]
    source, got = both("logits/weights")
    assert got[0, 0, 5, 7] == source[7, 5]
    assert made.variables["resnet_v1_50/block2/unit_1/bottleneck_v1/shortcut/weights"].sources == (
        "layer2.0.downsample.0.weight",
    )
    assert made.variables["resnet_v1_50/block4/unit_3/bottleneck_v1/conv3/BatchNorm/moving_variance"].sources == (
        "layer4.2.bn3.running_var",
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.backbone."])
def test_what_stands_before_all_names_is_taken_off_and_files_without_counters_are_taken_too(prefix: str) -> None:
    """DataParallel's, torch.compile's, or a model's around it. What is no array is left out, and said."""
    shapes = {f"{prefix}{name}": shape for name, shape in state(UNITS["50"]).items() if "tracked" not in name}
    made = translate(Listed({**shapes, "epoch": (), "n_averaged": ()}, {"epoch": "int", "n_averaged": "int64"}))
    assert made.variables["resnet_v1_50/conv1/weights"].sources == (f"{prefix}conv1.weight",)
    assert made.skipped == {"epoch": "no array of the network (int)", "n_averaged": "no array of the network (int64)"}
    with pytest.raises(CheckpointError, match=r"with conv1\.weight and layer1\.0\.conv2\.weight, got"):
        translate(Listed({**shapes, "extra": (3,)}))


def test_a_file_without_a_classifier_is_a_network_without_logits() -> None:
    """As the backbone of another model is saved; its global pool is the output."""
    shapes = {name: shape for name, shape in state(UNITS["50"]).items() if not name.startswith("fc.")}
    made = translate(Listed(shapes))
    assert Network.from_json(made.network).num_classes is None
    assert not [name for name in made.variables if "logits" in name]
    assert len(made.variables) == 53 * 5


def test_halves_and_doubles_are_floats_too() -> None:
    shapes = state(UNITS["50"])
    kinds = {"conv1.weight": "float16", "fc.weight": "bfloat16", "fc.bias": "float64"}
    assert translate(Listed(shapes, kinds)).variables.keys() == translate(Listed(shapes)).variables.keys()


def less(*names: str) -> Shapes:
    return {name: shape for name, shape in state(UNITS["50"]).items() if name not in names}


FIFTY = state(UNITS["50"])
HAVE = "expected torchvision's resnet50, resnet101 or resnet152"
REFUSED: dict[str, tuple[Shapes, dict[str, str], str]] = {
    "nothing": ({}, {}, f"{HAVE}, with conv1.weight and layer1.0.conv2.weight, got no arrays"),
    "others": ({"features.0\n": (1,)}, {}, f"{HAVE}, with conv1.weight and layer1.0.conv2.weight, got 'features.0\\n'"),
    "deep stem": ({**less("conv1.weight"), "conv1.0.weight": (32, 3, 3, 3)}, {}, "got 'bn1.bias', 'bn1.num_batches"),
    "200": (state((3, 24, 36, 3)), {}, "units (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), got units (3, 24, 36, 3)"),
    "half an fc": (less("fc.weight"), {}, "expected fc.weight [classes, 2048], got none"),
    "classes": (
        {**FIFTY, "fc.weight": (1 << 30, 2048)},
        {},
        "fc.weight [classes, 2048], got [1073741824, 2048]",
    ),
    "missing": (
        less("layer4.2.bn3.bias"),
        {},
        "like torchvision's resnet50, but layer4.2.bn3.bias [2048] is missing",
    ),
    "more": ({**FIFTY, "layer1.0.se.weight": (1,)}, {}, "layer1.0.se.weight [1] is not a variable of the network"),
    "bias": ({**FIFTY, "conv1.bias": (64,)}, {}, "conv1.bias [64] is not a variable of the network"),
    "counter": ({**FIFTY, "num_batches_tracked": ()}, {}, "num_batches_tracked [] is not a variable of the network"),
    "shape": (
        {**FIFTY, "conv1.weight": (64, 1, 7, 7)},
        {},
        "conv1.weight has shape [64, 1, 7, 7], expected [64, 3,",
    ),
    "quantised": (FIFTY, {"fc.bias": "int8"}, "but fc.bias is int8, expected floats"),
    "one prefix": ({**FIFTY, "module.n": ()}, {}, "module.n [] is not a variable of the network"),
    "a gap": (
        {name.replace("layer1.2", "layer1.5"): shape for name, shape in FIFTY.items()},
        {},
        "layer1.2.conv1.weight [64, 256, 1, 1] is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_none_of_them_is_named(case: str) -> None:
    shapes, kinds, message = REFUSED[case]
    with pytest.raises(CheckpointError) as caught:
        translate(Listed(shapes, kinds))
    assert str(caught.value).startswith("file.pth: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


OTHERS = {
    "resnet18": "got resnet18, units (2, 2, 2, 2), of two 3x3 convolutions each; slim's ResNet v1 has",
    "resnet34": "got resnet34, units (3, 4, 6, 3), of two 3x3 convolutions each",
    "wide_resnet50_2": "got a wide or narrow ResNet: its first 3x3 convolution has 128 channels, not 64",
    "wide_resnet101_2": "got a wide or narrow ResNet: its first 3x3 convolution has 128 channels, not 64",
    "resnext50_32x4d": "got a ResNeXt: layer1.0.conv2.weight [128, 4, 3, 3] is a convolution in groups of 4 channels",
    "resnext101_64x4d": "got a ResNeXt: layer1.0.conv2.weight [256, 4, 3, 3] is a convolution in groups of 4 channels",
    "densenet121": "layer1.0.conv2.weight, got 'classifier.bias'",
    "vgg11_bn": "got 'classifier.0.bias'",
    "shufflenet_v2_x1_0": "with conv1.weight and layer1.0.conv2.weight, got 'conv1.0.weight', 'conv1.1.bias'",
}


@pytest.mark.peers
@pytest.mark.parametrize("name", OTHERS)
def test_torchvisions_other_models_are_named(name: str) -> None:
    """Built without memory, for their names and shapes."""
    with pytorch().device("meta"):
        shapes = {key: tuple(t.shape) for key, t in getattr(torchvision().models, name)().state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        translate(Listed(shapes))
    assert OTHERS[name] in str(caught.value)


@cache
def model_of(variant: str) -> Any:
    """torchvision's network with random weights, batch norm's among them."""
    torch = pytorch()
    generator = torch.Generator().manual_seed(7)
    model = getattr(torchvision().models, f"resnet{variant}")(weights=None, num_classes=CLASSES).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.3, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("weight", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
            tensor.mul_(0.2 if "bn3.weight" in name else 1)
        else:
            tensor.fill_(3)
    return model


def saved_training(model: Any, folder: Path) -> NamedArrays:
    """As a training keeps it: in DataParallel, with more around it."""
    torch = pytorch()
    state = torch.nn.DataParallel(model).state_dict()
    torch.save({"model": state, "epoch": 9, "optimizer": {"state": {}}}, folder / "a.pth")
    return TorchZip(folder / "a.pth")


def saved_plain(model: Any, folder: Path) -> NamedArrays:
    pytorch().save(model.state_dict(), folder / "b.pth")
    return TorchZip(folder / "b.pth")


def saved_safetensors(model: Any, folder: Path) -> NamedArrays:
    pytest.importorskip("safetensors.torch").save_file(model.state_dict(), folder / "a.safetensors")
    return SafetensorsFile(folder / "a.safetensors")


def taken(arrays: NamedArrays) -> tuple[Translation, dict[str, Array]]:
    with arrays:
        made = translate(arrays)
        return made, {name: d.make(*map(arrays.read, d.sources)) for name, d in made.variables.items()}


@pytest.mark.peers
def test_every_kind_of_file_gives_the_same_network_and_arrays(tmp_path: Path) -> None:
    """torch.save's, with and without a training around it, and safetensors."""
    first, weights = taken(saved_plain(model_of("50"), tmp_path))
    assert all(weights[name].shape == derived.shape for name, derived in first.variables.items())
    for save in (saved_training, saved_safetensors):
        made, again = taken(save(model_of("50"), tmp_path))
        assert made.network == first.network
        assert again.keys() == weights.keys()
        assert all(np.array_equal(again[name], weights[name]) for name in weights)


SAVED: dict[str, Callable[[Any, Path], NamedArrays]] = {
    "50": saved_training,
    "101": saved_plain,
    "152": saved_safetensors,
}


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("variant", SAVED)
def test_the_network_in_a_file_of_torchvisions_gives_its_logits(variant: str, tmp_path: Path) -> None:
    """Images of even and of odd sizes; layer by layer, and as a plan from a weights file. The rule is 1e-4 of the
    largest logit, and all are ten times closer."""
    model, torch = model_of(variant), pytorch()
    made, weights = taken(SAVED[variant](model, tmp_path))
    network, name = Network.from_json(made.network), f"resnet_v1_{variant}/logits"
    save_weights(tmp_path / "w.h5", weights, made.network, preprocessing=made.preprocessing)
    planned = load_model(tmp_path / "w.h5", device="cpu")
    for size in ((64, 96), (65, 97), (66, 63)):
        x = drawn(2, *size, 3)
        with torch.no_grad():
            want = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
        ours, _ = resnet_v1.resnet_v1(
            x, network.blocks, arg_scope=network.arg_scope, is_training=False, weights=weights, **network.arguments
        )
        assert error(ours.reshape(want.shape), want) < 1e-5
        if size == (66, 63):
            _, ends = planned(x, end_points=[name])
            assert error(ends[name].reshape(want.shape), want) < 1e-5


@pytest.mark.peers
def test_a_file_without_a_classifier_gives_torchvisions_pooled_features(tmp_path: Path) -> None:
    torch, model = pytorch(), model_of("50")
    torch.save({name: t for name, t in model.state_dict().items() if not name.startswith("fc.")}, tmp_path / "b.pth")
    convert(tmp_path / "b.pth", tmp_path / "b.h5")
    x = drawn(2, 65, 98, 3)
    kept = []
    hook = model.avgpool.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.no_grad():
        model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    hook.remove()
    assert (
        error(load_model(tmp_path / "b.h5", device="cpu")(x).reshape(2, 2048), kept[0].numpy().reshape(2, 2048)) < 1e-5
    )


@pytest.mark.peers
@pytest.mark.parametrize(("dilated", "output_stride"), [((False, False, True), 16), ((False, True, True), 8)])
def test_a_dilated_network_is_ours_with_its_output_stride(
    dilated: tuple[bool, ...], output_stride: int, tmp_path: Path
) -> None:
    """`replace_stride_with_dilation`, which no state dict shows. Without it the logits are others."""
    torch = pytorch()
    model = (
        torchvision().models.resnet50(weights=None, num_classes=CLASSES, replace_stride_with_dilation=dilated).eval()
    )
    model.load_state_dict(model_of("50").state_dict())
    torch.save(model.state_dict(), tmp_path / "d.pth")
    x = drawn(2, 65, 98, 3)
    with torch.no_grad():
        want = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    errors = []
    for overrides in ({"output_stride": output_stride}, {}):
        convert(tmp_path / "d.pth", tmp_path / f"{len(errors)}.h5", overrides=overrides)
        _, ends = load_model(tmp_path / f"{len(errors)}.h5", device="cpu")(x, end_points=["resnet_v1_50/logits"])
        errors.append(error(ends["resnet_v1_50/logits"].reshape(want.shape), want))
    assert errors[0] < 1e-5
    assert errors[1] > 1e-3


@pytest.mark.peers
@pytest.mark.parametrize("size", [(300, 400), (257, 256), (333, 251), (100, 90), (256, 256), (225, 699)], ids=str)
def test_its_preprocessing_is_torchvisions(size: tuple[int, int]) -> None:
    """Of noise, the hardest image: what ResNet50_Weights.IMAGENET1K_V1 does to it, larger and smaller than 256."""
    from PIL import Image

    image = pixels(*size)
    want = torchvision().models.ResNet50_Weights.IMAGENET1K_V1.transforms()(Image.fromarray(image)).numpy()
    with_ours = Preprocessing.from_json({"name": "torchvision"})(image)
    assert np.abs(with_ours - want.transpose(1, 2, 0)).max() < 1e-5


@pytest.mark.peers
def test_the_weights_that_torchvision_publishes_say_the_same_preprocessing() -> None:
    """The first weights of 50, 101 and 152: 256, 224, and means and deviations 255 times as large, as pixels are."""
    for variant in UNITS:
        said = getattr(torchvision().models, f"ResNet{variant}_Weights").IMAGENET1K_V1.transforms()
        recorded = Preprocessing.from_json({"name": "torchvision"}).to_json()
        assert (said.resize_size, said.crop_size) == ([recorded["resize_side"]], [recorded["height"]])
        assert np.allclose(np.array(said.mean) * 255, recorded["means"], rtol=1e-12)
        assert np.allclose(np.array(said.std) * 255, recorded["deviations"], rtol=1e-12)
        assert str(said.interpolation) == "InterpolationMode.BILINEAR"
