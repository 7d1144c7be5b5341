"""Keras and PyTorch beside ours: how tests reach them, and their ResNet50 with weights that ours takes too."""

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from resnet_ref import kernels, oracle, resnet_utils, resnet_v1
from resnet_ref.kernels.geometry import Window, same

Array = NDArray[Any]
Variables = dict[str, Array]
EPS = float(np.finfo(np.float32).eps)
ABSENT = "PyTorch, as large as all else together, is not in the extra `test`"
CLASSES = 11
SLIM_EPSILON, KERAS_EPSILON = 1e-5, 1.001e-5
SYMMETRIC = Window(3, 2, before=1, after=1)


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
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
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
