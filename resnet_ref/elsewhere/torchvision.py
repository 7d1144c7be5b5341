"""torchvision's ResNet (v1.5) under slim's names: strides in a block's first unit, pool1 padded on both sides.

    conv1, bn1                      conv1
    layerN.M.convK, bnK             blockN/unit_{M+1}/bottleneck_v1/convK
    layerN.M.downsample.0, .1       blockN/unit_{M+1}/bottleneck_v1/shortcut
    fc (none in a backbone)         logits

`replace_stride_with_dilation` and stride-in-1x1 variants have the same names and shapes: no file tells these apart.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from resnet_ref.elsewhere.translation import NOT_USED, Derived, Translation
from resnet_ref.errors import CheckpointError
from resnet_ref.kernels.arrays import Array
from resnet_ref.network import Network
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.differences import Shapes, differences, listed
from resnet_ref.weights.named_arrays import NamedArrays

UNITS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
_BASIC = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet34"}
_ASSUMED = (
    "epsilon 1e-05 and no dilation, which no state dict shows (else: --network, --output-stride); images as "
    "IMAGENET1K_V1's, while V2's are resized to 232 (--preprocessing)"
)
_AVERAGES = "n_averaged"  # beside the network, in AveragedModel's
_FIRST = "layer1.0.conv2.weight"
_COUNTER = ".num_batches_tracked"
_MOST_CLASSES = 1 << 20
_BASE_DEPTH = 64
_UNIT = re.compile(r"layer([1-4])\.(\d{1,4})\.conv1\.weight")
_SLIMS = re.compile(r"[^/]+(?:/block(?P<block>\d)/unit_(?P<unit>\d+)/bottleneck_v1)?/(?P<layer>\w+)/(?P<leaf>.+)")
_NORM = {
    "BatchNorm/gamma": "weight",
    "BatchNorm/beta": "bias",
    "BatchNorm/moving_mean": "running_mean",
    "BatchNorm/moving_variance": "running_var",
}
_EXPECTED = "expected torchvision's resnet50, resnet101 or resnet152"


def translate(arrays: NamedArrays, strict: bool = True) -> Translation:
    """The ResNet in a state dict of torchvision's names; CheckpointError for any other, naming it.

    What stands before all names, such as DataParallel's module., is taken off. Every array is used, but for counters,
    or is an error; or left out, unless `strict`.
    """
    numeric = {name: v for name, v in arrays.variables.items() if isinstance(v.dtype, np.dtype) and name != _AVERAGES}
    prefixes = {name.removesuffix(_FIRST) for name in numeric if name.endswith(_FIRST)}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    if not all(name.startswith(prefix) for name in numeric):
        prefix = ""
    found = {name.removeprefix(prefix): variable for name, variable in numeric.items()}
    try:
        network = _network(_recognised(found), _classes(found))
        variables, skipped = _compared(found, network, strict)
    except CheckpointError as error:
        raise CheckpointError(f"{arrays.path}: {error}") from None
    others = {name: v.stored for name, v in arrays.variables.items() if name not in numeric}
    return Translation(
        network,
        {slims: Derived(shape, (prefix + source,), make) for slims, (source, shape, make) in variables.items()},
        Preprocessing.from_json({"name": "torchvision"}).to_json(),
        skipped={prefix + name: why for name, why in skipped.items()}
        | {name: f"no array of the network ({stored})" for name, stored in others.items()},
        assumed=_ASSUMED,
    )


def _recognised(found: Mapping[str, Variable]) -> str:
    """50, 101 or 152."""
    matches = [match for name in found if (match := _UNIT.fullmatch(name))]
    units = tuple(sum(match[1] == layer for match in matches) for layer in "1234")
    widths = _shape(found, _FIRST)
    if len(widths) != 4 or len(_shape(found, "conv1.weight")) != 4:
        names = ", ".join(repr(name[:60]) for name in sorted(found)[:4]) or "no arrays"
        raise CheckpointError(f"{_EXPECTED}, with conv1.weight and {_FIRST}, got {names}")
    if "layer1.0.conv3.weight" not in found:
        raise CheckpointError(
            f"{_EXPECTED}, got {_BASIC.get(units, 'a ResNet')}, units {units}, of two 3x3 convolutions each; "
            "slim's ResNet v1 has bottlenecks alone"
        )
    width, inputs = widths[:2]
    if inputs != width:
        raise CheckpointError(
            f"{_EXPECTED}, got a ResNeXt: layer1.0.conv2.weight {list(widths)} is a convolution in groups of {inputs} "
            "channels; slim's ResNet v1 has none"
        )
    if width != _BASE_DEPTH:
        raise CheckpointError(
            f"{_EXPECTED}, got a wide or narrow ResNet: its first 3x3 convolution has {width} channels, "
            f"not {_BASE_DEPTH}"
        )
    for variant, counts in UNITS.items():
        if counts == units:
            return variant
    raise CheckpointError(f"{_EXPECTED}, with units {', '.join(map(str, UNITS.values()))}, got units {units}")


def _shape(found: Mapping[str, Variable], name: str) -> tuple[int, ...]:
    return found[name].shape if name in found else ()


def _classes(found: Mapping[str, Variable]) -> int | None:
    """None where there is no classifier, as in a backbone's file."""
    if not any(name.startswith("fc.") for name in found):
        return None
    shape = _shape(found, "fc.weight")
    if len(shape) != 2 or not 1 <= shape[0] <= _MOST_CLASSES:
        raise CheckpointError(f"expected fc.weight [classes, 2048], got {list(shape) if shape else 'none'}")
    return shape[0]


def _network(variant: str, classes: int | None) -> dict[str, Any]:
    blocks = []
    for block, units in enumerate(UNITS[variant]):
        width = _BASE_DEPTH << block
        unit = {"depth": 4 * width, "depth_bottleneck": width}
        first = {**unit, "stride": 1 if block == 0 else 2}
        blocks.append(
            {"scope": f"block{block + 1}", "args": [first, *({**unit, "stride": 1} for _ in range(units - 1))]}
        )
    return {
        "function": "resnet_v1",
        "scope": f"resnet_v1_{variant}",
        **({} if classes is None else {"num_classes": classes}),
        "blocks": blocks,
        "arg_scope": {"max_pool2d_padding": "FIXED"},
    }


_Made = tuple[str, tuple[int, ...], Callable[..., Array]]


def _compared(
    found: Mapping[str, Variable], network: Mapping[str, Any], strict: bool
) -> tuple[dict[str, _Made], dict[str, str]]:
    """slim's name -> (torchvision's, slim's shape, how the one becomes the other), and what is left out."""
    variables: dict[str, _Made] = {}
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in Network.from_json(network).variables().items():
        source, make, axes = _source(name)
        variables[name] = source, shape, make
        expected[source] = tuple(shape[axis] for axis in axes) if axes else shape
    norms = {name.removesuffix(".running_var") for name in expected if name.endswith(".running_var")}
    counters = {norm + _COUNTER for norm in norms} & found.keys()
    skipped = dict.fromkeys(sorted(counters), "counts batches in training")
    if not strict:
        skipped |= dict.fromkeys(sorted(found.keys() - expected - counters), NOT_USED)
    have: Shapes = {name: v.shape for name, v in found.items() if name not in skipped}
    problems = differences(have, expected)
    for name in expected.keys() & found.keys():
        if found[name].stored not in ("float16", "bfloat16", "float32", "float64"):
            problems.append(f"{name} is {found[name].stored}, expected floats")
    if problems:
        variant = network["scope"].rpartition("_")[2]
        raise CheckpointError(f"looks like torchvision's resnet{variant}, but {listed(problems)}")
    return variables, skipped


def _source(name: str) -> tuple[str, Callable[..., Array], tuple[int, ...]]:
    """torchvision's name, how its array becomes slim's, and which of slim's axes make its shape (none: all)."""
    match = _SLIMS.fullmatch(name)
    assert match is not None
    layer, leaf = match["layer"], match["leaf"]
    if layer == "logits":
        return ("fc.weight", _dense, (3, 2)) if leaf == "weights" else ("fc.bias", np.asarray, ())
    where = f"layer{match['block']}.{int(match['unit']) - 1}." if match["block"] else ""
    if leaf == "weights":
        return where + ("downsample.0" if layer == "shortcut" else layer) + ".weight", _kernel, (3, 2, 0, 1)
    norm = "downsample.1" if layer == "shortcut" else layer.replace("conv", "bn")
    return f"{where}{norm}.{_NORM[leaf]}", np.asarray, ()


def _kernel(weight: Array) -> Array:
    """[F, C, KH, KW] -> [KH, KW, C, F]."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def _dense(weight: Array) -> Array:
    """[F, C] -> [1, 1, C, F]."""
    return np.ascontiguousarray(weight.T[None, None])
