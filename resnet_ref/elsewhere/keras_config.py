"""Is a model what its arrays' names say? Keras' description of its layers, compared with keras.applications' ResNet.

A strided, dilated or rewired model has the same arrays. Only what changes numbers is compared, and what an older Keras
does not write is taken to be its default.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from resnet_ref.resnet_v1 import UNITS
from resnet_ref.weights.elsewhere.keras_names import layers_of

_EPSILON = 1.001e-5
_MODELS = ("Functional", "Model")
_WIDEST = 8192
# What does nothing in inference.
IDLE = ("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout2D")


_Layers = Mapping[str, Mapping[str, Any]]  # a model's, by name


class _Layer(NamedTuple):
    """What a layer must be. settings: each with what it may be. inputs: the layers before it."""

    kind: str
    settings: Mapping[str, tuple[Any, ...]]
    inputs: tuple[str, ...]


def differences(config: Any, function: str, top: bool, pooled: bool) -> list[str]:
    """Where the model's config departs from that network; one line each."""
    if not isinstance(config, Mapping) or config.get("class_name") not in _MODELS:
        kind = config.get("class_name") if isinstance(config, Mapping) else config
        return [f"the model is a {kind!r:.40}, expected a Functional model as keras.applications makes it"]
    found = {_name(layer): layer for layer in layers_of(config)}
    idle = {name: layer for name, layer in found.items() if layer.get("class_name") in IDLE}
    found = {name: layer for name, layer in found.items() if name not in idle}
    first = next((name for name, layer in found.items() if layer.get("class_name") == "InputLayer"), "input_layer")
    expected = _layers(function, first, top, pooled)
    problems = [f"the model's config lacks the layer {name}" for name in expected if name not in found]
    try:
        for name, layer in found.items():
            if name in expected:
                problems += _compared(name, layer, expected[name], idle)
            else:
                problems.append(f"{name[:60]} ({layer.get('class_name')!r:.40}) is no layer of it")
        outputs = _past(_sources(config["config"].get("output_layers")), idle)
    except RecursionError:
        return ["the model's config is nested too deeply"]
    last = tuple(expected)[-1]
    if outputs != (last,):
        problems.append(f"the model's outputs are {', '.join(outputs)[:100] or 'none'}, expected {last}")
    return problems


def input_size(config: Any) -> tuple[int, int] | None:
    """Height and width of the images that the model was made for, where it says so."""
    for layer in layers_of(config):
        if layer.get("class_name") == "InputLayer":
            settings = layer.get("config")
            settings = settings if isinstance(settings, Mapping) else {}
            shape = settings.get("batch_shape") or settings.get("batch_input_shape")
            sides = shape[1:3] if isinstance(shape, list) and len(shape) == 4 else []
            if sides and all(type(side) is int and 1 <= side <= _WIDEST for side in sides):
                return sides[0], sides[1]
    return None


def _name(layer: Mapping[str, Any]) -> str:
    settings = layer.get("config")
    return str(layer.get("name") or (settings.get("name") if isinstance(settings, Mapping) else None))


def _past(names: tuple[str, ...], idle: _Layers) -> tuple[str, ...]:
    """The layers that these get their input from, but for those that hand on what they get."""
    for _ in idle:  # no longer than that, should they follow each other in a circle
        if idle.keys().isdisjoint(names):
            break
        names = tuple(one for x in names for one in (_sources(idle[x].get("inbound_nodes"))[:1] if x in idle else (x,)))
    return names


def _compared(name: str, layer: Mapping[str, Any], expected: _Layer, idle: _Layers) -> list[str]:
    if layer.get("class_name") != expected.kind:
        return [f"{name} is a {layer.get('class_name')!r:.40}, expected {expected.kind}"]
    settings = layer.get("config")
    if not isinstance(settings, Mapping):
        return [f"{name} has no config"]
    problems = [
        f"{name} has {key} {settings[key]!r:.60}, expected {allowed[0]!r}"
        for key, allowed in expected.settings.items()
        if key in settings and not any(_equal(settings[key], value) for value in allowed)
    ]
    inputs = _past(_sources(layer.get("inbound_nodes")), idle)
    if sorted(inputs) != sorted(expected.inputs):
        problems.append(f"{name} follows {', '.join(inputs)[:100] or 'nothing'}, expected {', '.join(expected.inputs)}")
    return problems


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float):
        return isinstance(found, float) and abs(found - wanted) < 1e-9
    return type(found) is type(wanted) and bool(found == wanted)


def _sources(node: Any) -> tuple[str, ...]:
    """The layers that some nested description names: ["conv1_pad", 0, 0] in it, in any version of Keras."""
    if isinstance(node, Mapping):
        return tuple(name for value in node.values() for name in _sources(value))
    if not isinstance(node, list):
        return ()
    if len(node) >= 3 and isinstance(node[0], str) and all(type(n) is int for n in node[1:3]):
        return (node[0],)
    return tuple(name for value in node for name in _sources(value))


def _layers(function: str, first: str, top: bool, pooled: bool) -> dict[str, _Layer]:
    """Name -> what it must be, the last one last."""
    layers = {
        first: _Layer("InputLayer", {}, ()),
        "conv1_pad": _padding(3, first),
        **_convolution("conv1", 2, "valid", "conv1_pad"),
        "conv1_relu": _relu("conv1_bn"),
        "pool1_pad": _padding(1, "conv1_relu"),
        "pool1_pool": _Layer(
            "MaxPooling2D",
            {"pool_size": ([3, 3],), "strides": ([2, 2],), "padding": ("valid",), "data_format": ("channels_last",)},
            ("pool1_pad",),
        ),
    }
    before = "pool1_pool"
    for stage, units in enumerate(UNITS[function], 2):
        for unit in range(1, units + 1):
            name = f"conv{stage}_block{unit}"
            layers |= _block(name, before, 2 if unit == 1 and stage > 2 else 1, unit == 1)
            before = f"{name}_out"
    if pooled:
        mean = {"keepdims": (False,), "data_format": ("channels_last",)}
        layers["avg_pool"] = _Layer("GlobalAveragePooling2D", mean, (before,))
    if top:
        dense = {"activation": ("softmax", "linear"), "use_bias": (True,)}
        layers["predictions"] = _Layer("Dense", dense, ("avg_pool",))
    return layers


def _block(name: str, before: str, stride: int, shortcut: bool) -> dict[str, _Layer]:
    layers = _convolution(f"{name}_0", stride, "valid", before) if shortcut else {}
    return layers | {
        **_convolution(f"{name}_1", stride, "valid", before),
        f"{name}_1_relu": _relu(f"{name}_1_bn"),
        **_convolution(f"{name}_2", 1, "same", f"{name}_1_relu"),
        f"{name}_2_relu": _relu(f"{name}_2_bn"),
        **_convolution(f"{name}_3", 1, "valid", f"{name}_2_relu"),
        f"{name}_add": _Layer("Add", {}, (f"{name}_0_bn" if shortcut else before, f"{name}_3_bn")),
        f"{name}_out": _relu(f"{name}_add"),
    }


def _convolution(name: str, stride: int, padding: str, before: str) -> dict[str, _Layer]:
    """A convolution and its batch norm."""
    settings: dict[str, tuple[Any, ...]] = {
        "strides": ([stride, stride],),
        "padding": (padding,),
        "dilation_rate": ([1, 1],),
        "groups": (1,),
        "activation": ("linear",),
        "use_bias": (True,),
        "data_format": ("channels_last",),
    }
    norm: dict[str, tuple[Any, ...]] = {
        "axis": (3, [3], -1),
        "epsilon": (_EPSILON,),
        "center": (True,),
        "scale": (True,),
    }
    return {
        f"{name}_conv": _Layer("Conv2D", settings, (before,)),
        f"{name}_bn": _Layer("BatchNormalization", norm, (f"{name}_conv",)),
    }


def _padding(size: int, before: str) -> _Layer:
    settings = {"padding": ([[size, size], [size, size]],), "data_format": ("channels_last",)}
    return _Layer("ZeroPadding2D", settings, (before,))


def _relu(before: str) -> _Layer:
    return _Layer("Activation", {"activation": ("relu",)}, (before,))
