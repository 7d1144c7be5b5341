"""keras.applications' ResNet50, ResNet101 and ResNet152 (v1) under slim's names.

    conv1_conv, conv1_bn                     conv1
    convS_blockU_1_conv, _1_bn; 2 and 3      block{S-1}/unit_U/bottleneck_v1/conv1; conv2, conv3
    convS_block1_0_conv, _0_bn               block{S-1}/unit_1/bottleneck_v1/shortcut
    predictions                              logits

Keras strides where slim does not, and the numbers are the same (docs/why_not_equal.md); its pool1 and epsilon are
options of the network. The bias of a convolution goes into the moving mean after it, and conv1's channels are turned
from BGR, which Keras' preprocessing makes, to RGB.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from resnet_ref.elsewhere import keras_config
from resnet_ref.elsewhere.translation import NOT_USED, Derived, Translation
from resnet_ref.errors import CheckpointError
from resnet_ref.kernels.arrays import Array
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.resnet_v1 import BASE_DEPTHS, UNITS
from resnet_ref.weights.differences import differences, listed
from resnet_ref.weights.named_arrays import NamedArrays

EPSILON = 1.001e-5
VARIANTS = {f"resnet_v1_{depth}": f"ResNet{depth}" for depth in (50, 101, 152)}
_SIDE = 224
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_EXPECTED = "expected ResNet50, ResNet101 or ResNet152 (v1) of keras.applications"
_BESIDE = {
    "optimizer": "optimizer slot",
    "optimizer_weights": "optimizer slot",
    "metrics": "a metric of the training",
}
# Layers without weights that such a network has, by name, or by key where Keras 2 notes no names.
_WEIGHTLESS = re.compile(
    r"input_\d+|input_layer(_\d+)?|conv1_(pad|relu)|pool1_(pad|pool)|avg_pool|conv\d_block\d+_([12]_relu|add|out)|"
    r"top_level_model_weights|(activation|add|global_average_pooling2d|max_pooling2d|zero_padding2d)(_\d+)?"
)
# Keras makes the key of its class: SpatialDropout2D, spatial_dropout2d, then spatial_dropout2d_1.
_KEYS = [re.sub("(?<!^)(?=[A-Z][a-z])", "_", kind).lower() for kind in keras_config.IDLE]
_IDLE = re.compile(f"({'|'.join(_KEYS)})(_[0-9]+)?")
_ASSUMED = f"epsilon {EPSILON:g}, strides and padding as keras.applications has them, which this file does not show"
_OTHERS = (
    (r"post_bn|conv\d_block\d+_preact_bn", "a ResNet V2, whose batch norms come before its convolutions"),
    (r".+/depthwise_kernel|layers/depthwise_conv2d.*", "a network of depthwise convolutions, like a ResNeXt"),
    (r"(res|bn)\d[a-z]\d*_branch\d[abc]?", "Keras' ResNet50 of 2018 and before, with another epsilon and pool1"),
    (
        r"(.+/)?(functional(_\d+)?|model(_\d+)?|resnet\d+)/.+",
        "a model inside another; save the inner one by itself: model.get_layer(NAME).save(...)",
    ),
)


class _Convolution(NamedTuple):
    """keras: the layer's name less _conv or _bn. slim: its scope in the network's. shape: of its kernel."""

    keras: str
    slim: str
    shape: tuple[int, int, int, int]


def translate(arrays: NamedArrays, strict: bool = True) -> Translation:
    """The network in a file of Keras. CheckpointError for any other, and for whatever in the file is not used; the
    latter is left out unless `strict`.

    Where the file holds the model's config, that is compared too.
    """
    try:
        return _translated(arrays, strict)
    except CheckpointError as error:
        raise CheckpointError(f"{arrays.path}: {error}") from None


def _translated(arrays: NamedArrays, strict: bool) -> Translation:
    variables = arrays.variables
    skipped = {name: why for name in variables if (why := _BESIDE.get(name.split("/")[0]))}
    in_file = _named([name for name in variables if name not in skipped])
    function = _variant(in_file)
    shapes = {name: variables[source].shape for name, source in in_file.items()}
    convolutions = list(_convolutions(function, _last("conv1_conv/kernel", shapes, 4, 2)))
    top = _last("predictions/kernel", shapes, 2, 1) if any(name.startswith("predictions/") for name in shapes) else None
    expected = _expected(convolutions, top)
    with_weights = {name.split("/")[0] for names in in_file.items() for name in names}
    if not strict:
        unused = in_file.keys() - expected
        skipped |= {in_file.pop(name): NOT_USED for name in sorted(unused)}
        shapes = {name: shape for name, shape in shapes.items() if name in in_file}
    problems = differences(shapes, expected)
    problems += [
        f"{source} is {variables[source].stored}, expected floating-point numbers"
        for source in in_file.values()
        if isinstance(variables[source].dtype, str)
    ]
    layers, config = getattr(arrays, "layers", ()), getattr(arrays, "config", None)
    for layer in layers:
        if layer not in with_weights and not _WEIGHTLESS.fullmatch(layer):
            if why := _left_out(layer, strict, config is not None):
                skipped[layer] = why
            elif config is None:  # which names it else
                problems.append(f"{layer} is no layer of it")
    if top is None and "dense/kernel" in in_file:
        problems.append("dense/kernel is a classifier's, perhaps: give its layer the name predictions, and save again")
    pooled = top is not None or any(re.fullmatch(r"avg_pool|global_average_pooling2d", x) for x in layers)
    if config is not None:
        problems += keras_config.differences(config, function, top is not None, pooled)
    if problems:
        raise CheckpointError(f"this is no {VARIANTS[function]} of keras.applications: {listed(problems)}")
    colours = convolutions[0].shape[2] == 3
    height, width = keras_config.input_size(config) or (_SIDE, _SIDE)
    return Translation(
        _network(function, convolutions[0].shape[2], top, pooled),
        dict(_derived(function, convolutions, top, in_file)),
        Preprocessing.from_json({"name": "keras", "height": height, "width": width}).to_json() if colours else None,
        skipped=skipped,
        assumed="" if config is not None else _ASSUMED,
    )


def _left_out(layer: str, strict: bool, described: bool) -> str | None:
    """Why a layer without weights may be; None: it may not. described: by the model's config."""
    if _IDLE.fullmatch(layer):
        return "a layer that does nothing in inference"
    if strict or described or layer.startswith("global_max_pooling2d"):
        return None
    return "a layer without weights, so what it computes is left out"


def _named(names: Iterable[str]) -> dict[str, str]:
    """Keras' name -> the file's. A .weights.h5 of Keras 2 numbers its layers, class by class, in the model's order."""
    names = list(names)
    count, norms = _numbered(names)
    known = {}
    if "conv2d/kernel" in names and count == norms:
        if "dense_1/kernel" not in names:  # else there are two, and the last would be the classifier
            known["dense"] = "predictions"
        for function in VARIANTS:
            order = [c.keras for c in _convolutions(function, 3)]
            if len(order) == count:
                for n, name in enumerate(order):
                    number = f"_{n}" if n else ""
                    known[f"conv2d{number}"] = f"{name}_conv"
                    known[f"batch_normalization{number}"] = f"{name}_bn"
    renamed: dict[str, str] = {}
    for name in names:
        layer, slash, leaf = name.partition("/")
        renamed[f"{known.get(layer, layer)}{slash}{leaf}"] = name
    return renamed


def _numbered(names: Iterable[str]) -> tuple[int, int]:
    """How many convolutions and batch norms have a number for a name."""
    layers = [name.partition("/") for name in names]
    convolutions = sum(leaf == "kernel" and re.fullmatch(r"conv2d(_\d+)?", x) is not None for x, _, leaf in layers)
    norms = sum(leaf == "gamma" and re.fullmatch(r"batch_normalization(_\d+)?", x) is not None for x, _, leaf in layers)
    return convolutions, norms


def _variant(names: Mapping[str, str]) -> str:
    """The function of slim's that has as many units in each stage."""
    for pattern, what in _OTHERS:
        for name in names:
            if re.fullmatch(pattern, name) or re.fullmatch(pattern, name.split("/")[0]):
                raise CheckpointError(f"this is {what} (it has {name[:80]}); {_EXPECTED}")
    if "conv1_conv/kernel" in names and "conv1_conv/bias" not in names:
        raise CheckpointError(f"this is a ResNeXt or the like: conv1_conv has no bias; {_EXPECTED}")
    units = tuple(
        len({m[1] for name in names if (m := re.fullmatch(rf"conv{stage}_block(\d{{1,3}})_1_conv/kernel", name))})
        for stage in (2, 3, 4, 5)
    )
    for function in VARIANTS:
        if UNITS[function] == units:
            return function
    if any(units):
        raise CheckpointError(f"this has {', '.join(map(str, units))} blocks in conv2 to conv5; {_EXPECTED}")
    if "conv2d/kernel" in names:
        count, norms = _numbered(names)
        raise CheckpointError(
            f"this file does not name its layers, and it has {count} convolutions and {norms} batch norms; "
            f"{_EXPECTED}, which have 53, 104 or 155 of both"
        )
    shown = ", ".join(name[:60] for name in list(names)[:3])
    more = f", {len(names)} arrays" if names else ""
    raise CheckpointError(f"{_EXPECTED}, with layers like conv2_block1_1_conv; it holds {shown or 'no weights'}{more}")


def _convolutions(function: str, channels: int) -> Iterator[_Convolution]:
    """All of them, in the order of Keras' layers."""
    yield _Convolution("conv1", "conv1", (7, 7, channels, 64))
    inputs = 64
    for block, (base, units) in enumerate(zip(BASE_DEPTHS, UNITS[function], strict=True), 1):
        for unit in range(1, units + 1):
            keras, slim = f"conv{block + 1}_block{unit}_", f"block{block}/unit_{unit}/bottleneck_v1/"
            yield _Convolution(f"{keras}1", f"{slim}conv1", (1, 1, inputs, base))
            yield _Convolution(f"{keras}2", f"{slim}conv2", (3, 3, base, base))
            if unit == 1:
                yield _Convolution(f"{keras}0", f"{slim}shortcut", (1, 1, inputs, 4 * base))
            yield _Convolution(f"{keras}3", f"{slim}conv3", (1, 1, base, 4 * base))
            inputs = 4 * base


def _last(name: str, shapes: Mapping[str, tuple[int, ...]], rank: int, axis: int) -> int:
    """The extent of an axis that the network may choose."""
    shape = shapes.get(name)
    if shape is None:
        raise CheckpointError(f"{name} is missing; {_EXPECTED}")
    if len(shape) != rank or not 1 <= shape[axis] <= 1 << 20:
        raise CheckpointError(f"{name} has shape {list(shape)}; {_EXPECTED}")
    return shape[axis]


def _expected(convolutions: Iterable[_Convolution], classes: int | None) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in convolutions:
        outputs = layer.shape[-1:]
        shapes |= {f"{layer.keras}_conv/kernel": layer.shape, f"{layer.keras}_conv/bias": outputs}
        shapes |= {f"{layer.keras}_bn/{name}": outputs for name in _NORM}
    if classes is not None:
        shapes |= {"predictions/kernel": (4 * BASE_DEPTHS[-1], classes), "predictions/bias": (classes,)}
    return shapes


def _network(function: str, channels: int, classes: int | None, pooled: bool) -> dict[str, Any]:
    network: dict[str, Any] = {
        "function": function,
        "arg_scope": {"batch_norm_epsilon": EPSILON, "max_pool2d_padding": "FIXED"},
    }
    if classes is not None:
        network["num_classes"] = classes
    elif not pooled:
        network["global_pool"] = False
    return network | ({"channels": channels} if channels != 3 else {})


def _derived(
    function: str, convolutions: Iterable[_Convolution], classes: int | None, in_file: Mapping[str, str]
) -> Iterator[tuple[str, Derived]]:
    for layer in convolutions:
        scope, norm, outputs = f"{function}/{layer.slim}", f"{layer.keras}_bn", layer.shape[-1:]
        turn = _rgb_of_bgr if layer.keras == "conv1" and layer.shape[2] == 3 else _same
        bias = in_file[f"{layer.keras}_conv/bias"]
        yield f"{scope}/weights", Derived(layer.shape, (in_file[f"{layer.keras}_conv/kernel"],), turn)
        for name in _NORM:
            source = in_file[f"{norm}/{name}"]
            if name == "moving_mean":
                yield f"{scope}/BatchNorm/{name}", Derived(outputs, (source, bias), _less)
            else:
                yield f"{scope}/BatchNorm/{name}", Derived(outputs, (source,), _same)
    if classes is not None:
        kernel, bias = in_file["predictions/kernel"], in_file["predictions/bias"]
        yield f"{function}/logits/weights", Derived((1, 1, 4 * BASE_DEPTHS[-1], classes), (kernel,), _as_1x1)
        yield f"{function}/logits/biases", Derived((classes,), (bias,), _same)


def _same(array: Array) -> Array:
    return np.ascontiguousarray(array, np.float32)


def _less(mean: Array, bias: Array) -> Array:
    return _same(mean.astype(np.float64) - bias)


def _rgb_of_bgr(kernel: Array) -> Array:
    return _same(kernel[:, :, ::-1])


def _as_1x1(kernel: Array) -> Array:
    return _same(kernel[None, None])
