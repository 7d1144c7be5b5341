"""Names for Keras' arrays that do not depend on how the file nests them: LAYER/kernel, LAYER/gamma and so on.

    legacy HDF5      [model_weights/]LAYER/.../LAYER/kernel[:0]
    .weights.h5      layers/conv2d_7/vars/0, with the layer's name in an attribute (Keras 3) or nowhere (Keras 2)

A path that fits neither keeps its name, for a reader of names to refuse.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

LAYERS = ("layers", "_layer_checkpoint_dependencies")  # the second: Keras 2.12 to 2.14
# By the class in a layer's key: what its variables are, in the order in which Keras numbers them.
_LEAVES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_KEYS = {"Conv2D": "conv2d", "Dense": "dense", "BatchNormalization": "batch_normalization"}


def container(paths: Iterable[str]) -> str | None:
    """The group that holds the layers of a .weights.h5; None for the legacy format."""
    tops = {path.split("/")[0] for path in paths}
    return next((name for name in LAYERS if name in tops), None)


def names(paths: Iterable[str], titles: Mapping[str, str]) -> dict[str, str]:
    """Path -> name. titles: from a layer's key in a .weights.h5 to its name, where that is known."""
    paths = list(paths)
    top = container(paths)
    if top is None:
        return {path: _legacy(path) for path in paths}
    counts = Counter(path.rpartition("/")[0] for path in paths)
    return {path: _numbered(path, top, titles, counts) for path in paths}


def _legacy(path: str) -> str:
    pieces = path.removeprefix("model_weights/").split("/")
    layer, leaf = pieces[0], pieces[-1].removesuffix(":0")
    if len(pieces) > 2 and layer == pieces[-2]:
        return f"{layer}/{leaf}"
    return "/".join([*pieces[:-1], leaf])


def _numbered(path: str, top: str, titles: Mapping[str, str], counts: Mapping[str, int]) -> str:
    pieces = path.split("/")
    if len(pieces) != 4 or pieces[0] != top or pieces[2] != "vars":
        return path
    key, number = pieces[1], pieces[3]
    leaves = _LEAVES.get(_class_of(key), ())
    numbers = [str(n) for n in range(len(leaves))]
    # A batch norm without gamma has three variables, and 0 is beta: nothing here needs one.
    if number not in numbers or (len(leaves) == 4 and counts[path.rpartition("/")[0]] != 4):
        return path
    return f"{titles.get(key, key)}/{leaves[int(number)]}"


def _class_of(key: str) -> str:
    """conv2d_7 -> conv2d."""
    name, _, number = key.rpartition("_")
    return name if number.isdigit() else key


def titles_of(config: Any) -> dict[str, str]:
    """Key -> name of the layers in a model's config: each class is counted in that order."""
    titles: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for layer in layers_of(config):
        key, name = _KEYS.get(str(layer.get("class_name"))), layer.get("name")
        if key is not None and isinstance(name, str):
            titles[f"{key}_{seen[key]}" if seen[key] else key] = name
            seen[key] += 1
    return titles


def layers_of(config: Any) -> list[Mapping[str, Any]]:
    """The layers in a model's config; none where it is no such thing."""
    inner = config.get("config") if isinstance(config, Mapping) else None
    layers = inner.get("layers") if isinstance(inner, Mapping) else None
    return [layer for layer in layers if isinstance(layer, Mapping)] if isinstance(layers, list) else []
