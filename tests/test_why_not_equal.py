"""Why the same weights give other numbers in Caffe, Keras and PyTorch: each claim of docs/why_not_equal.md.

Each runs against the framework that it is about, and shows that ours is slim's. Tests of TensorFlow and Keras are
marked `oracle`, those of PyTorch `peers`: PyTorch is not in the extra `test`. Caffe is not run: where the page speaks
of it, an option of PyTorch stands for it.
"""

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from resnet_ref import Preprocessing, kernels, oracle, resnet_utils, resnet_v1
from resnet_ref.kernels import Tier
from resnet_ref.kernels.geometry import Window, fixed, same
from resnet_ref.labels import imagenet_labels, imagenet_synsets
from resnet_ref.oracle.preprocessing import resize as resize_of_tf1
from resnet_ref.preprocessing import resize_bilinear

Array = NDArray[Any]
Variables = dict[str, Array]
EPS = float(np.finfo(np.float32).eps)
ABSENT = "PyTorch, as large as all else together, is not in the extra `test`"
CLASSES = 11
SLIM_EPSILON, KERAS_EPSILON = 1e-5, 1.001e-5
SYMMETRIC = Window(3, 2, before=1, after=1)
MEANS, TORCH_MEANS, TORCH_DEVIATIONS = (123.68, 116.78, 103.94), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(params=["definition", "cpu"])
def tier(request: pytest.FixtureRequest) -> Tier:
    return kernels.on(request.param)


@cache
def keras(name: str = "keras") -> Any:
    """Keras 3, or Keras 2 as "tf_keras"; after the oracle's TensorFlow, which is imported in its own way."""
    oracle.tensorflow()
    with oracle.quiet():
        return importlib.import_module(name)


def pytorch(name: str = "torch") -> Any:
    return pytest.importorskip(name, reason=ABSENT, exc_type=ImportError)


@cache
def torchvision() -> Any:
    """Also a build of it for another PyTorch, whose compiled operators do not load: its networks need none of them."""
    torch, found = pytorch(), importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip(ABSENT)
    folder = Path(found.origin).parent
    try:
        torch.ops.load_library(folder / "_C.so")
    except OSError:
        names = set(re.findall(r'register_fake\("torchvision::(\w+)"', (folder / "_meta_registrations.py").read_text()))
        _operators.append(torch.library.Library("torchvision", "DEF"))
        for name in names:
            _operators[-1].define(f"{name}(Tensor _) -> Tensor")
    return importlib.import_module("torchvision")


_operators: list[Any] = []  # which are gone with the library that defines them


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(*shape: int, seed: int = 0) -> Array:
    """Small whole numbers, which float32 adds without rounding, in any order."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


def pixels(height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def live(build: Callable[[Any, Any], Any], x: Array) -> Array:
    """What slim's layers, or TensorFlow's, compute."""
    return oracle.run(build, x, {}).net


def in_keras(model: Any, x: Array) -> Array:
    with oracle.quiet():
        return np.asarray(model(x, training=False))


def in_torch(function: Callable[[Any], Any], x: Array) -> Array:
    """A function of [N, C, H, W], for [N, H, W, C]."""
    torch = pytorch()
    with torch.no_grad():
        y = function(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
    return y.numpy().transpose(0, 2, 3, 1)


def to_torch(weights: Array) -> Any:
    """[KH, KW, C, F] -> PyTorch's [F, C, KH, KW]."""
    return pytorch().from_numpy(np.ascontiguousarray(weights.transpose(3, 2, 0, 1)))


def error(got: Array, want: Array) -> float:
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


def first_read(convolve: Callable[[Array, Array], Array], size: int, n: int) -> int:
    """Where the first window starts: the tap that meets input 0 says its own row, all else is zero."""
    x, w = np.zeros((1, n, n, 1), np.float32), np.zeros((size, size, 1, 1), np.float32)
    x[0, 0, 0] = 1
    w[:, :, 0, 0] = np.arange(size)[:, None]
    return -int(convolve(x, w)[0, 0, 0, 0])


# Padding


@pytest.mark.oracle
@pytest.mark.parametrize(("size", "n", "by_same", "by_slim"), [(7, 224, -2, -3), (7, 225, -3, -3), (3, 56, 0, -1)])
def test_slims_strided_convolutions_start_before_those_of_same_on_even_sizes(
    tier: Tier, size: int, n: int, by_same: int, by_slim: int
) -> None:
    """A 7x7/2 on 224 starts at -2 under SAME and at -3 in slim; a 3x3/2 on 56 at 0 and -1; on 225 both at -3."""

    def tensorflow(x: Array, w: Array) -> Array:
        return live(lambda nets, x: nets.tf.nn.conv2d(x, w, 2, "SAME"), x)

    def slim(x: Array, w: Array) -> Array:
        def build(nets: Any, x: Any) -> Any:
            constant = nets.tf.constant_initializer(w)
            with nets.slim.arg_scope([nets.slim.conv2d], activation_fn=None, weights_initializer=constant):
                return nets.conv2d_same(x, 1, size, stride=2, scope="c")

        return oracle.run(build, x, {"c/weights": w, "c/biases": np.zeros(1)}).net

    windows = {by_same: same(n, size, 2), by_slim: fixed(size, 2)}
    assert [first_read(tensorflow, size, n), first_read(slim, size, n)] == [by_same, by_slim]
    for start, window in windows.items():
        assert window.reads(0)[0] == start
        assert first_read(lambda x, w, window=window: tier.conv2d(x, w, window, window), size, n) == start
    x, w = whole(2, n, n, 3), whole(size, size, 3, 1)
    np.testing.assert_array_equal(tier.conv2d(x, w, same(n, size, 2), same(n, size, 2)), tensorflow(x, w))
    np.testing.assert_array_equal(tier.conv2d(x, w, fixed(size, 2), fixed(size, 2)), slim(x, w))
    assert np.array_equal(tensorflow(x, w), slim(x, w)) is (by_same == by_slim)


@pytest.mark.oracle
def test_keras_pads_conv1_as_slim_does(tier: Tier) -> None:
    """ZeroPadding2D of 3 and 3, then VALID: whatever the size."""
    for height, width in ((64, 96), (65, 97)):
        model = resnet50_of_keras(height, width)
        assert model.get_layer("conv1_pad").padding == ((3, 3), (3, 3))
        assert model.get_layer("conv1_conv").padding == "valid"
        x = drawn(2, height, width, 3)
        conv1 = keras().Model(model.input, model.get_layer("conv1_conv").output)
        weights, biases = model.get_layer("conv1_conv").get_weights()
        ours = tier.conv2d(x, weights, fixed(7, 2), fixed(7, 2), bias=biases)
        assert error(ours, in_keras(conv1, x)) < 8 * EPS


def pool1_of_keras(x: Array) -> Array:
    layers = keras().layers
    return in_keras(keras().Sequential([layers.ZeroPadding2D(1), layers.MaxPooling2D(3, strides=2)]), x)


def pool1_of_slim(x: Array) -> Array:
    return live(lambda nets, x: nets.slim.max_pool2d(x, [3, 3], stride=2, padding="SAME"), x)


@pytest.mark.oracle
def test_keras_pools_from_minus_1_and_slim_from_0_on_even_sizes(tier: Tier) -> None:
    """After a ReLU, on 112 seven of ten outputs differ; on 113 none does. 56 outputs, and 57."""
    model = resnet50_of_keras(64, 96)
    assert model.get_layer("pool1_pad").padding == ((1, 1), (1, 1))
    pool = model.get_layer("pool1_pool")
    assert (pool.pool_size, pool.strides, pool.padding) == ((3, 3), (2, 2), "valid")
    for n, outputs, differing in ((112, 56, (0.65, 0.75)), (113, 57, (0, 0))):
        x = np.maximum(drawn(1, n, n, 5), 0)
        slims, kerass = pool1_of_slim(x), pool1_of_keras(x)
        assert slims.shape == kerass.shape == (1, outputs, outputs, 5)
        assert differing[0] <= np.mean(slims != kerass) <= differing[1]
        assert same(n, 3, 2).reads(0)[0] == (0 if n == 112 else -1)
        np.testing.assert_array_equal(tier.max_pool2d(x, same(n, 3, 2), same(n, 3, 2)), slims)
        np.testing.assert_array_equal(tier.max_pool2d(x, SYMMETRIC, SYMMETRIC), kerass)


@pytest.mark.oracle
def test_keras_pads_pool1_with_zeros_which_matter_among_negative_values_alone(tier: Tier) -> None:
    """Where all values are negative its first row and column come out as 0; slim's padding never wins."""
    x = -1 - np.abs(drawn(1, 9, 8, 3))
    kerass = pool1_of_keras(x)
    assert (kerass[:, 0] == 0).all()
    assert (kerass[:, :, 0] == 0).all()
    assert pool1_of_slim(x).max() <= -1
    ours = tier.max_pool2d(x, SYMMETRIC, SYMMETRIC)
    inside = kerass != 0
    assert (ours <= -1).all()
    np.testing.assert_array_equal(ours[inside], kerass[inside])
    np.testing.assert_array_equal(np.maximum(ours, 0), np.maximum(kerass, 0))


@pytest.mark.peers
@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("size", [3, 7])
def test_pytorchs_symmetric_padding_is_slims_in_convolutions(tier: Tier, size: int, n: int) -> None:
    """padding=1 of a 3x3/2 and padding=3 of a 7x7/2 are slim's conv2d_same; SAME differs on even sizes."""
    torch = pytorch()
    x, w = whole(2, n, n + 2, 3), whole(size, size, 3, 5)
    pad = size // 2
    want = in_torch(lambda x: torch.nn.functional.conv2d(x, to_torch(w), stride=2, padding=pad), x)
    np.testing.assert_array_equal(tier.conv2d(x, w, fixed(size, 2), fixed(size, 2)), want)
    by_same = tier.conv2d(x, w, same(n, size, 2), same(n + 2, size, 2))
    assert np.array_equal(by_same, want) is (n == 9)


@pytest.mark.peers
@pytest.mark.parametrize(("height", "width"), [(8, 10), (8, 11), (9, 11)])
def test_pytorch_pools_from_minus_1_and_pads_with_minus_infinity(tier: Tier, height: int, width: int) -> None:
    """MaxPool2d(3, 2, padding=1) is ours with a Window of 1 before and 1 after, on negative values too; slim's pool
    is the same where both sizes are odd."""
    x = -1 - np.abs(drawn(2, height, width, 5))
    want = in_torch(pytorch().nn.MaxPool2d(3, 2, padding=1), x)
    assert want.max() <= -1
    np.testing.assert_array_equal(tier.max_pool2d(x, SYMMETRIC, SYMMETRIC), want)
    slims = tier.max_pool2d(x, same(height, 3, 2), same(width, 3, 2))
    assert slims.shape == want.shape
    assert np.array_equal(slims, want) is (height % 2 == width % 2 == 1)


@pytest.mark.peers
def test_a_pool_that_rounds_up_is_slims_on_even_sizes_and_one_output_less_on_odd_ones(tier: Tier) -> None:
    """Caffe's pool1 (3x3/2, no padding, rounded up) starts at 0: 112 -> 56 as in slim, 113 -> 56 where slim has 57."""
    caffes = pytorch().nn.MaxPool2d(3, 2, ceil_mode=True)
    x = drawn(1, 112, 113, 5)
    want = in_torch(caffes, x)
    assert want.shape == (1, 56, 56, 5)
    ours = tier.max_pool2d(x, same(112, 3, 2), Window(3, 2))
    assert Window(3, 2).reads(0)[0] == same(112, 3, 2).reads(0)[0] == 0
    np.testing.assert_array_equal(ours, want)
    slims = tier.max_pool2d(x, same(112, 3, 2), same(113, 3, 2))
    assert slims.shape == (1, 56, 57, 5)
    floor = in_torch(pytorch().nn.MaxPool2d(3, 2), x)
    assert floor.shape == (1, 55, 56, 5)


# Stride, and whole networks


@cache
def resnet50_of_keras(height: int, width: int) -> Any:
    """keras.applications' ResNet50 with random weights, biases and moving averages among them."""
    rng = np.random.default_rng(5)
    with oracle.quiet():
        model = keras().applications.ResNet50(
            weights=None, input_shape=(height, width, 3), classes=CLASSES, classifier_activation=None
        )
    for layer in model.layers:
        layer.set_weights([_drawn_for(variable, rng) for variable in layer.weights])
    return model


def _drawn_for(variable: Any, rng: np.random.Generator) -> Array:
    shape, leaf = tuple(variable.shape), variable.path.rpartition("/")[2]
    if leaf == "kernel":
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    if leaf == "gamma":
        return rng.uniform(0.5, 1.5, shape) * (0.3 if "_3_bn" in variable.path else 1)
    return rng.uniform(0.5, 2, shape) if leaf == "moving_variance" else rng.normal(0, 0.3, shape)


def slims_variables_of_keras(model: Any) -> Variables:
    """Keras' weights under slim's names: a convolution's bias goes into the moving mean of the batch norm after it."""
    variables = {}
    for layer in model.layers:
        if not layer.name.endswith("_conv"):
            continue
        kernel, bias = layer.get_weights()
        gamma, beta, mean, variance = model.get_layer(layer.name.replace("_conv", "_bn")).get_weights()
        scope = f"resnet_v1_50/{_slims_name(layer.name)}"
        variables[f"{scope}/weights"] = kernel
        norm = {"gamma": gamma, "beta": beta, "moving_mean": mean - bias, "moving_variance": variance}
        variables |= {f"{scope}/BatchNorm/{name}": value for name, value in norm.items()}
    kernel, bias = model.get_layer("predictions").get_weights()
    return {**variables, "resnet_v1_50/logits/weights": kernel[None, None], "resnet_v1_50/logits/biases": bias}


def _slims_name(name: str) -> str:
    """conv3_block1_0_conv -> block2/unit_1/bottleneck_v1/shortcut."""
    if name == "conv1_conv":
        return "conv1"
    stage, unit, part, _ = name.split("_")
    layer = ("shortcut", "conv1", "conv2", "conv3")[int(part)]
    return f"block{int(stage[4:]) - 1}/unit_{unit[5:]}/bottleneck_v1/{layer}"


def blocks_of_50(strides_first: bool = False) -> list[resnet_utils.Block]:
    """slim's blocks; or with the strides where PyTorch has them, in the 3x3 of a block's first unit."""
    layout = zip((1, 2, 3, 4), (64, 128, 256, 512), (3, 4, 6, 3), (2, 2, 2, 1), strict=True)
    blocks = [resnet_v1.resnet_v1_block(f"block{n}", depth, units, stride) for n, depth, units, stride in layout]
    if strides_first:
        for n, block in enumerate(blocks):
            first, *rest = ({**unit, "stride": 1} for unit in block.args)
            blocks[n] = block._replace(args=[{**first, "stride": 1 if n == 0 else 2}, *rest])
    return blocks


def with_pool1(
    x: Array, weights: Variables, pool: Window | None, epsilon: float = SLIM_EPSILON, strides_first: bool = False
) -> tuple[Array, Variables]:
    """Our resnet_v1_50 in three steps: conv1, pool1 with any window (None: slim's), the rest."""
    scope = resnet_v1.resnet_arg_scope(batch_norm_epsilon=epsilon, is_training=False)
    conv1 = resnet_utils.conv2d_same(x, 64, 7, stride=2, scope="resnet_v1_50/conv1", weights=weights, arg_scope=scope)
    windows = [pool or same(n, 3, 2) for n in conv1.shape[1:3]]
    return resnet_v1.resnet_v1(
        kernels.on("cpu").max_pool2d(conv1, *windows),
        blocks_of_50(strides_first),
        CLASSES,
        is_training=False,
        include_root_block=False,
        scope="resnet_v1_50",
        weights=weights,
        arg_scope=scope,
    )


def of_slim(x: Array, weights: Variables, epsilon: float) -> tuple[Array, Variables]:
    """(logits, end points) of slim's own resnet_v1_50."""

    def build(nets: Any, inputs: Any) -> Any:
        with nets.slim.arg_scope(nets.resnet_arg_scope(batch_norm_epsilon=epsilon)):
            return nets.resnet_v1_50(inputs, CLASSES, is_training=False)

    result = oracle.run(build, x, weights)
    return result.net, result.end_points


@pytest.mark.oracle
def test_keras_strides_in_the_first_1x1_of_a_block_and_slim_in_the_last_3x3() -> None:
    """Read off both live networks at 224: Keras' first stage leaves 56x56, slim's block1 28x28."""
    model = resnet50_of_keras(64, 96)
    strided = {layer.name for layer in model.layers if getattr(layer, "strides", 1) == (2, 2)}
    first = {f"conv{stage}_block1_{part}_conv" for stage in (3, 4, 5) for part in (0, 1)}
    assert strided == {"conv1_conv", "pool1_pool", *first}
    assert model.get_layer("conv2_block3_out").output.shape[1:3] == (16, 24)
    assert model.get_layer("conv3_block4_out").output.shape[1:3] == (8, 12)
    x, weights = drawn(1, 64, 96, 3), slims_variables_of_keras(model)
    _, ends = of_slim(x, weights, KERAS_EPSILON)
    assert ends["resnet_v1_50/block1/unit_3/bottleneck_v1/conv1"].shape[1:3] == (16, 24)
    assert ends["resnet_v1_50/block1/unit_3/bottleneck_v1/conv2"].shape[1:3] == (8, 12)
    assert ends["resnet_v1_50/block1"].shape[1:3] == (8, 12)
    _, ours = with_pool1(x, weights, None, KERAS_EPSILON)
    assert {name: ours[name].shape for name in ours} == {name: ends[name].shape for name in ours}


@pytest.mark.oracle
def test_slims_network_gives_keras_numbers_where_pool1_sees_an_odd_size() -> None:
    """65x97: conv1 has 33x49 outputs. The strides lie elsewhere, the logits are the same, and so is every other
    pixel of Keras' stages."""
    model, x = resnet50_of_keras(65, 97), drawn(2, 65, 97, 3)
    weights = slims_variables_of_keras(model)
    parts = ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv5_block3_out"]
    outputs = [model.get_layer(name).output for name in parts]
    conv1, *stages, logits = in_keras_all(keras().Model(model.input, [*outputs, model.output]), x)
    scope = resnet_v1.resnet_arg_scope(batch_norm_epsilon=KERAS_EPSILON)
    ours = resnet_v1.resnet_v1_50(x, CLASSES, is_training=False, weights=weights, arg_scope=scope)
    for net, ends in (ours, of_slim(x, weights, KERAS_EPSILON)):
        assert error(ends["resnet_v1_50/conv1"], conv1) < 1e-5
        assert error(ends["resnet_v1_50/block1"], stages[0][:, ::2, ::2]) < 1e-5
        assert error(ends["resnet_v1_50/block2"], stages[1][:, ::2, ::2]) < 1e-5
        assert error(ends["resnet_v1_50/block4"], stages[2]) < 1e-5
        assert error(net, logits) < 1e-5


def in_keras_all(model: Any, x: Array) -> list[Array]:
    with oracle.quiet():
        return [np.asarray(output) for output in model(x, training=False)]


@pytest.mark.oracle
def test_with_pool1_padded_as_keras_pads_it_our_network_gives_keras_numbers_on_even_sizes_too() -> None:
    """64x96: slim's own pool1 moves the logits by 7 %, Keras' by rounding."""
    model, x = resnet50_of_keras(64, 96), drawn(2, 64, 96, 3)
    weights, logits = slims_variables_of_keras(model), in_keras(model, x)
    slims, _ = of_slim(x, weights, KERAS_EPSILON)
    assert error(slims, logits) > 0.05
    assert error(with_pool1(x, weights, None, KERAS_EPSILON)[0], slims) < 1e-5
    assert error(with_pool1(x, weights, SYMMETRIC, KERAS_EPSILON)[0], logits) < 1e-5


@pytest.mark.peers
def test_a_stride_in_the_3x3_of_the_first_unit_gives_other_numbers_than_in_its_1x1() -> None:
    """PyTorch's unit (v1.5), from its primitives: the 1x1 before the 3x3 sees all pixels. Ours, told to stride in the
    first unit, computes it; a stride in the 1x1, as in He's, Caffe's and Keras' networks, differs."""
    conv2d = pytorch().nn.functional.conv2d
    x = drawn(2, 13, 10, 6)
    weights = {
        f"{name}/weights": drawn(*shape, seed=n)
        for n, (name, shape) in enumerate(
            {"shortcut": (1, 1, 6, 8), "conv1": (1, 1, 6, 5), "conv2": (3, 3, 5, 5), "conv3": (1, 1, 5, 8)}.items()
        )
    }
    w = {name.split("/")[0]: to_torch(value) for name, value in weights.items()}

    def unit(stride_1x1: int, stride_3x3: int) -> Array:
        def function(x: Any) -> Any:
            net = conv2d(x, w["conv1"], stride=stride_1x1).relu()
            net = conv2d(net, w["conv2"], stride=stride_3x3, padding=1).relu()
            return (conv2d(net, w["conv3"]) + conv2d(x, w["shortcut"], stride=2)).relu()

        return in_torch(function, x)

    variables = {f"u/{name}": value for name, value in weights.items()}
    variables |= {f"u/{name}/biases": np.zeros(value.shape[0], np.float32) for name, value in w.items()}
    scope = resnet_v1.resnet_arg_scope(use_batch_norm=False)
    ours = resnet_v1.bottleneck(x, 8, 5, stride=2, scope="u", weights=variables, arg_scope=scope)
    assert error(ours, unit(1, 2)) < 1e-5
    assert error(ours, unit(2, 1)) > 0.1


def slims_variables_of_torchvision(state: dict[str, Any]) -> Variables:
    variables = {}
    leaves = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    for key, tensor in state.items():
        value, (*path, leaf) = tensor.numpy(), key.split(".")
        if leaf == "num_batches_tracked" or path == ["fc"]:
            continue
        scope = "resnet_v1_50"
        if path[0].startswith("layer"):
            scope += f"/block{path[0][5:]}/unit_{int(path[1]) + 1}/bottleneck_v1"
        part = path[-1]
        if "downsample" in path:
            part, layer = ("conv", "bn")[int(part)], "shortcut"
        else:
            layer = f"conv{part[-1]}"
        if part.startswith("conv"):
            variables[f"{scope}/{layer}/weights"] = value.transpose(2, 3, 1, 0)
        else:
            variables[f"{scope}/{layer}/BatchNorm/{leaves[leaf]}"] = value
    return {
        **variables,
        "resnet_v1_50/logits/weights": state["fc.weight"].numpy().T[None, None],
        "resnet_v1_50/logits/biases": state["fc.bias"].numpy(),
    }


@cache
def resnet50_of_torchvision() -> Any:
    torch, models = pytorch(), torchvision().models
    generator = torch.Generator().manual_seed(6)
    model = models.resnet50(weights=None, num_classes=CLASSES).eval()
    for key, tensor in model.state_dict().items():
        if key.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.3, generator=generator)
        elif "bn" in key and key.endswith(("weight", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
            tensor.mul_(0.3 if "bn3.weight" in key else 1)
        elif key.endswith("weight") and tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    return model


@pytest.mark.peers
@pytest.mark.parametrize("size", [(64, 96), (65, 97)], ids=str)
def test_torchvisions_resnet50_is_ours_with_other_blocks_and_another_pool1(size: tuple[int, int]) -> None:
    """Its strides are in the first unit's 3x3 of blocks 2 to 4, it has no convolution biases, pool1 is padded by 1;
    slim's own blocks move the logits by 12 and 6 %, even where pool1 is the same."""
    model = resnet50_of_torchvision()
    strided = {name for name, layer in model.named_modules() if getattr(layer, "stride", 1) == (2, 2)}
    later = {f"layer{n}.0.{layer}" for n in (2, 3, 4) for layer in ("conv2", "downsample.0")}
    assert strided == {"conv1", *later}
    assert (model.maxpool.padding, model.maxpool.ceil_mode) == (1, False)
    assert {layer.bias is None for layer in model.modules() if type(layer).__name__ == "Conv2d"} == {True}
    torch, x = pytorch(), drawn(2, *size, 3)
    with torch.no_grad():
        want = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    weights = slims_variables_of_torchvision(model.state_dict())
    assert error(with_pool1(x, weights, SYMMETRIC, strides_first=True)[0], want) < 1e-5
    assert error(with_pool1(x, weights, SYMMETRIC)[0], want) > 0.04


# Batch norm


def normalised(is_training: bool, **scope: Any) -> oracle.Build:
    """slim's batch norm under resnet_arg_scope."""

    def build(nets: Any, x: Any) -> Any:
        with nets.slim.arg_scope(nets.resnet_arg_scope(**scope)):
            return nets.slim.batch_norm(x, is_training=is_training, scope="b")

    return build


def unit_norm(channels: int) -> Variables:
    """What leaves a channel as it is, but for epsilon."""
    values = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    return {f"b/{name}": np.full(channels, value, np.float32) for name, value in values.items()}


def epsilon_of(normalise: Callable[[Array], Array]) -> float:
    """1 with mean 0 and variance 0 becomes 1 / sqrt(epsilon)."""
    return float(normalise(np.ones((1, 1, 1, 1), np.float32)).item()) ** -2.0


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-5, abs=0)


@pytest.mark.oracle
def test_epsilon_is_1e5_in_slim_and_1001e8_in_keras_resnet50_and_1e3_in_its_layer(tier: Tier) -> None:
    """Measured: 1 with mean 0 and variance 0 becomes 316.2, 316.1 and 31.6."""
    zero = {**unit_norm(1), "b/moving_variance": np.zeros(1, np.float32)}
    slims = normalised(is_training=False)
    assert epsilon_of(lambda x: oracle.run(slims, x, zero).net) == near(SLIM_EPSILON)
    assert resnet_v1.resnet_arg_scope().batch_norm_epsilon == SLIM_EPSILON
    for name in ("keras", "tf_keras"):
        with oracle.quiet():
            network = keras(name).applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=2)
            layers = [layer for layer in network.layers if layer.name.endswith("_bn")]
            default = keras(name).layers.BatchNormalization(moving_variance_initializer="zeros")
            assert len(layers) == 53
            assert {layer.epsilon for layer in layers} == {KERAS_EPSILON}
            assert epsilon_of(lambda x, layer=default: np.asarray(layer(x))) == near(1e-3)
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    for epsilon in (SLIM_EPSILON, KERAS_EPSILON, 1e-3):
        assert epsilon_of(lambda x, e=epsilon: tier.batch_norm(x, one, none, none, none, e)) == near(epsilon)


@pytest.mark.peers
def test_epsilon_is_1e5_in_pytorch() -> None:
    norm = pytorch().nn.BatchNorm2d(1).eval()
    norm.running_var.zero_()
    assert epsilon_of(lambda x: in_torch(norm, x)) == near(1e-5)


def test_how_much_an_epsilon_matters_depends_on_the_variance(tier: Tier) -> None:
    """1e-3 in place of 1e-5 makes a channel of variance .01 smaller by 4.6 %, one of variance 1 by 0.05 %."""
    x, zero, one = np.ones((1, 1, 1, 2), np.float32), np.zeros(2, np.float32), np.ones(2, np.float32)
    variance = np.array([0.01, 1], np.float32)
    by = {e: tier.batch_norm(x, one, zero, zero, variance, e).ravel() for e in (1e-5, 1.001e-5, 1e-3)}
    np.testing.assert_allclose(1 - by[1e-3] / by[1e-5], [0.0461, 0.000495], rtol=0.01)
    assert (np.abs(1 - by[1.001e-5] / by[1e-5]) <= 5e-7 + EPS).all()


# 2 * 3 * 4 = 24 values a channel: the unbiased variance is 24/23 of the biased one.
BATCH, COUNT, DECAY = (2, 3, 4, 5), 24, 0.75


def updated(tier: Tier, x: Array, *, unbiased: bool) -> tuple[Array, Array]:
    """Our moving averages after one batch, from mean 0 and variance 1."""
    mean, variance = tier.batch_statistics(x)
    zero, one = np.zeros(5, np.float32), np.ones(5, np.float32)
    variance = tier.unbiased(variance, COUNT) if unbiased else variance
    return tier.moving_average(zero, mean, DECAY), tier.moving_average(one, variance, DECAY)


def check_moving_averages(
    tier: Tier, x: Array, y: Array, epsilon: float, mean: Array, variance: Array, *, unbiased: bool
) -> None:
    """They are the one kind of average, within rounding, and visibly not the other; y is normalised by the biased."""
    zero, one = np.zeros(5, np.float32), np.ones(5, np.float32)
    assert error(y, tier.batch_norm(x, one, zero, *tier.batch_statistics(x), epsilon)) < 1e-5
    want_mean, want = updated(tier, x, unbiased=unbiased)
    np.testing.assert_allclose(mean, want_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(variance, want, rtol=1e-6)
    assert (np.abs(variance - updated(tier, x, unbiased=not unbiased)[1]) > 1e-3).all()


@pytest.mark.oracle
def test_slim_and_keras_2_average_the_unbiased_variance_and_keras_3_the_biased_one(tier: Tier) -> None:
    """Of 24 values a channel the one is 24/23 of the other; the mean is the same. Keras' momentum is slim's decay."""
    x = drawn(*BATCH) * np.float32(2) + np.float32(1)
    build = normalised(is_training=True, batch_norm_decay=DECAY)
    slims = oracle.run(build, x, unit_norm(5), fetch_updates=True)
    moving = slims.updated["b/moving_mean"], slims.updated["b/moving_variance"]
    check_moving_averages(tier, x, slims.net, 1e-5, *moving, unbiased=True)
    for name, unbiased in (("tf_keras", True), ("keras", False)):
        with oracle.quiet():
            layer = keras(name).layers.BatchNormalization(momentum=DECAY)
            y = np.asarray(layer(x, training=True))
        moving = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        check_moving_averages(tier, x, y, 1e-3, *moving, unbiased=unbiased)


@pytest.mark.peers
def test_pytorch_averages_the_unbiased_variance_and_its_momentum_is_one_less_decay(tier: Tier) -> None:
    norm = pytorch().nn.BatchNorm2d(5, momentum=1 - DECAY)
    x = drawn(*BATCH) * np.float32(2) + np.float32(1)
    y = in_torch(norm, x)
    check_moving_averages(tier, x, y, 1e-5, norm.running_mean.numpy(), norm.running_var.numpy(), unbiased=True)


@pytest.mark.oracle
def test_the_defaults_of_decay_are_997_thousandths_in_slim_and_99_hundredths_in_keras() -> None:
    assert resnet_v1.resnet_arg_scope().batch_norm_decay == 0.997
    ones = np.ones((1, 1, 2, 1), np.float32)
    slims = oracle.run(normalised(is_training=True), ones, unit_norm(1), fetch_updates=True).updated
    np.testing.assert_allclose(slims["b/moving_mean"], [1 - 0.997], rtol=1e-5)
    for name in ("keras", "tf_keras"):
        assert keras(name).layers.BatchNormalization().momentum == 0.99
    model = resnet50_of_keras(64, 96)
    assert {layer.momentum for layer in model.layers if layer.name.endswith("_bn")} == {0.99}


@pytest.mark.oracle
def test_slims_function_trains_by_default_and_so_does_ours_while_keras_infers() -> None:
    """The same call without is_training: slim's conv1 is normalised by the batch; Keras' by the moving averages."""
    model, x = resnet50_of_keras(64, 96), drawn(2, 64, 96, 3)
    weights = slims_variables_of_keras(model)

    def build(nets: Any, inputs: Any) -> Any:
        with nets.slim.arg_scope(nets.resnet_arg_scope()):
            return nets.resnet_v1_50(inputs, CLASSES)

    slims = oracle.run(build, x, weights).end_points
    _, ours = resnet_v1.resnet_v1_50(x, CLASSES, weights=weights)
    conv1 = "resnet_v1_50/conv1"
    assert error(ours[conv1], slims[conv1]) < 1e-5
    part = keras().Model(model.input, model.get_layer("conv1_relu").output)
    with oracle.quiet():
        by_default = np.asarray(part(x))
    np.testing.assert_array_equal(by_default, in_keras(part, x))
    assert error(slims[conv1], by_default) > 0.1


@pytest.mark.peers
def test_a_pytorch_module_trains_until_eval_is_called() -> None:
    norm = pytorch().nn.BatchNorm2d(3)
    x = drawn(2, 3, 4, 3) + np.float32(5)
    assert norm.training
    np.testing.assert_allclose(in_torch(norm, x).mean((0, 1, 2)), np.zeros(3), atol=1e-5)
    norm = pytorch().nn.BatchNorm2d(3).eval()
    np.testing.assert_allclose(in_torch(norm, x), x, rtol=1e-5)


# Biases


@pytest.mark.oracle
def test_each_of_keras_53_convolutions_has_a_bias_and_none_of_slims() -> None:
    """26,560 numbers more: 25,583,592 trainable with 1000 classes, where slim has 25,557,032."""
    for name in ("keras", "tf_keras"):
        with oracle.quiet():
            model = keras(name).applications.ResNet50(weights=None)
        convolutions = [layer for layer in model.layers if layer.name.endswith("_conv")]
        assert len(convolutions) == 53
        assert all(layer.use_bias for layer in convolutions)
        assert sum(layer.filters for layer in convolutions) == 26_560
        assert sum(int(np.prod(v.shape)) for v in model.trainable_weights) == 25_583_592 == 25_557_032 + 26_560
        assert model.get_layer("predictions").units == 1000
    with oracle.graph() as nets:
        inputs = nets.tf.compat.v1.placeholder(nets.tf.float32, (1, 224, 224, 3))
        with nets.slim.arg_scope(nets.resnet_arg_scope()):
            nets.resnet_v1_50(inputs, 1000)
        slims = {v.op.name: v.shape.num_elements() for v in nets.tf.compat.v1.trainable_variables()}
    assert [name for name in slims if name.endswith("biases")] == ["resnet_v1_50/logits/biases"]
    assert sum(slims.values()) == 25_557_032


@pytest.mark.oracle
def test_a_bias_before_batch_norm_is_the_moving_mean_less_that_bias(tier: Tier) -> None:
    """(conv + bias) - mean = conv - (mean - bias): checked on Keras' conv1 and its batch norm."""
    model, x = resnet50_of_keras(65, 97), drawn(1, 65, 97, 3)
    want = in_keras(keras().Model(model.input, model.get_layer("conv1_bn").output), x)
    weights, bias = model.get_layer("conv1_conv").get_weights()
    gamma, beta, mean, variance = model.get_layer("conv1_bn").get_weights()
    y = tier.conv2d(x, weights, fixed(7, 2), fixed(7, 2))
    assert error(tier.batch_norm(y, gamma, beta, mean - bias, variance, KERAS_EPSILON), want) < 1e-5
    assert error(tier.batch_norm(y, gamma, beta, mean, variance, KERAS_EPSILON), want) > 0.01


# Resize


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


# What is done to pixels


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


# Labels


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


# Layout


@pytest.mark.peers
def test_pytorchs_weights_are_ours_after_transposing_2_3_1_0(tier: Tier) -> None:
    """[F, C, KH, KW] -> [KH, KW, C, F]; a Linear's [out, in] -> [1, 1, in, out]. No flip: both correlate."""
    torch = pytorch()
    x, theirs = whole(2, 7, 10, 3), whole(5, 3, 4, 3)
    want = in_torch(lambda x: torch.nn.functional.conv2d(x, torch.from_numpy(theirs)), x)
    ours = np.ascontiguousarray(theirs.transpose(2, 3, 1, 0))
    assert ours.shape == (4, 3, 3, 5)
    np.testing.assert_array_equal(tier.conv2d(x, ours, Window(4), Window(3)), want)
    linear, features = whole(5, 3), whole(2, 3)
    want = torch.nn.functional.linear(torch.from_numpy(features), torch.from_numpy(linear)).numpy()
    got = tier.conv2d(features[:, None, None], np.ascontiguousarray(linear.T)[None, None], Window(1), Window(1))
    np.testing.assert_array_equal(got[:, 0, 0], want)


@pytest.mark.oracle
def test_keras_weights_are_laid_out_as_ours(tier: Tier) -> None:
    """[KH, KW, C, F], and a Dense's [in, out]."""
    x, weights = whole(2, 7, 10, 3), whole(4, 3, 3, 5)
    layer = keras().layers.Conv2D(5, (4, 3), use_bias=False)
    layer.build(x.shape)
    layer.set_weights([weights])
    np.testing.assert_array_equal(tier.conv2d(x, weights, Window(4), Window(3)), in_keras(just(layer), x))
    np.testing.assert_array_equal(live(lambda nets, x: nets.tf.nn.conv2d(x, weights, 1, "VALID"), x), layer(x))
    dense, features = keras().layers.Dense(5, use_bias=False), whole(2, 3)
    dense.build(features.shape)
    dense.set_weights([weights[0, 0]])
    got = tier.conv2d(features[:, None, None], weights[:1, :1], Window(1), Window(1))
    np.testing.assert_array_equal(got[:, 0, 0], np.asarray(dense(features)))


def just(layer: Any) -> Any:
    return lambda x, training: layer(x)


@pytest.mark.peers
def test_a_flattened_map_has_another_order_in_pytorch() -> None:
    """Row y, column x, channel c of [H, W, C] is number (y * W + x) * C + c here, (c * H + y) * W + x there."""
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    theirs = pytorch().from_numpy(x.transpose(0, 3, 1, 2).copy()).flatten(1).numpy()
    ours = x.reshape(2, -1)
    y, column, channel = 1, 2, 3
    assert ours[1, (y * 4 + column) * 5 + channel] == theirs[1, (channel * 3 + y) * 4 + column] == x[1, 1, 2, 3]
    assert not np.array_equal(ours, theirs)
    pooled = kernels.on("definition").spatial_mean(x)
    np.testing.assert_array_equal(pooled.reshape(2, -1), in_torch(mean_of_torch, x).reshape(2, -1))


def mean_of_torch(x: Any) -> Any:
    return x.mean((2, 3), keepdim=True)


def test_a_square_1x1_convolution_taken_untransposed_passes_every_check_of_shape() -> None:
    """In resnet_v1_50 that is block1/unit_1/conv1, 64 channels to 64: numbers differ, and nothing else tells."""
    weights, x = drawn(1, 1, 64, 64), drawn(1, 3, 4, 64)
    tier = kernels.on("definition")
    swapped = weights.transpose(0, 1, 3, 2)
    assert swapped.shape == weights.shape
    right, wrong = (tier.conv2d(x, w, Window(1), Window(1)) for w in (weights, swapped))
    assert error(wrong, right) > 0.5
