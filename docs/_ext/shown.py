"""What the pictures of kernels show: which kernel is called on what, and what one output reads, found by running it."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import probe
from numpy.typing import NDArray
from probe import Array, Reads

from resnet_ref import kernels
from resnet_ref.kernels import geometry
from resnet_ref.kernels.geometry import Window

Mask = NDArray[np.bool_]
Call = Callable[..., Array]
ALL = slice(None)


class Field(NamedTuple):
    """An array: what its axes are called, and its shape."""

    axes: str
    shape: tuple[int, ...]


class Picture(NamedTuple):
    """A kernel call, and the output of it that is looked at (ALL: every one of an axis).

    call: takes the tier, the inputs by name and, where there are `windows`, rows and cols too; then the input called x
    is padded, by what `outside` says. copies: each output is a copy of one input number, and says of which.
    """

    title: str
    call: Call
    inputs: dict[str, Field]
    axes: str
    output: tuple[int | slice, ...]
    windows: tuple[Window, Window] | None = None
    outside: float = 0.0
    copies: bool = False
    result: str = "y"


def _conv2d(tier: kernels.Tier, a: Mapping[str, Array], rows: Window, cols: Window) -> Array:
    return tier.conv2d(a["x"], a["w"], rows, cols)


def _im2col(tier: kernels.Tier, a: Mapping[str, Array], rows: Window, cols: Window) -> Array:
    return tier.im2col(a["x"], rows, cols)


def _max_pool2d(tier: kernels.Tier, a: Mapping[str, Array], rows: Window, cols: Window) -> Array:
    return tier.max_pool2d(a["x"], rows, cols)


def _batch_norm(tier: kernels.Tier, a: Mapping[str, Array]) -> Array:
    return tier.batch_norm(a["x"], a["gamma"], a["beta"], a["mean"], a["variance"], 1e-5)


def _batch_norm_training(tier: kernels.Tier, a: Mapping[str, Array]) -> Array:
    return tier.batch_norm(a["x"], a["gamma"], a["beta"], *tier.batch_statistics(a["x"]), 1e-5)


_HWIO = "KH KW C F"
_NHWC = "N H W C"
_OUT = "N OH OW F"
_POOLED = "N OH OW C"
_3X3 = Field(_HWIO, (3, 3, 1, 1))


def _map(height: int, width: int) -> Field:
    return Field(_NHWC, (1, height, width, 1))


def _twice(window: Window) -> tuple[Window, Window]:
    return window, window


def _per_channel(*names: str) -> dict[str, Field]:
    return {name: Field("C", (2,)) for name in names}


_LOWEST = float(np.finfo(np.float64).min)
_IMAGES = Field(_NHWC, (2, 2, 3, 2))
_SQUARE = {"x": _map(5, 5), "w": _3X3}
_EVEN = {"x": _map(6, 6), "w": _3X3}

PICTURES = {
    "conv2d": Picture("A 3x3 convolution, SAME", _conv2d, _SQUARE, _OUT, (0, 1, 2, 0), _twice(geometry.same(5, 3))),
    "conv2d_edge": Picture(
        "A 3x3 convolution, SAME, at the corner", _conv2d, _SQUARE, _OUT, (0, 0, 0, 0), _twice(geometry.same(5, 3))
    ),
    "conv2d_valid": Picture(
        "A 3x3 convolution, VALID", _conv2d, _SQUARE, _OUT, (0, 0, 0, 0), _twice(geometry.valid(3))
    ),
    "conv2d_channels": Picture(
        "A 3x3 convolution of two channels into two filters",
        _conv2d,
        {"x": Field(_NHWC, (1, 4, 4, 2)), "w": Field(_HWIO, (3, 3, 2, 2))},
        _OUT,
        (0, 1, 2, 1),
        _twice(geometry.same(4, 3)),
    ),
    "conv2d_fixed": Picture(
        "A 3x3 convolution with stride 2, fixed padding (slim's conv2d_same)",
        _conv2d,
        _EVEN,
        _OUT,
        (0, 0, 1, 0),
        _twice(geometry.fixed(3, 2)),
    ),
    "conv2d_same_stride": Picture(
        "A 3x3 convolution with stride 2, SAME padding",
        _conv2d,
        _EVEN,
        _OUT,
        (0, 0, 1, 0),
        _twice(geometry.same(6, 3, 2)),
    ),
    "conv2d_atrous": Picture(
        "A 3x3 convolution with rate 2 (atrous), SAME",
        _conv2d,
        {"x": _map(7, 7), "w": _3X3},
        _OUT,
        (0, 2, 1, 0),
        _twice(geometry.same(7, 3, rate=2)),
    ),
    "im2col": Picture(
        "The im2col matrix of a 3x3 convolution, SAME",
        _im2col,
        {"x": _map(4, 4)},
        "N*OH*OW KH*KW*C",
        (1, ALL),
        _twice(geometry.same(4, 3)),
        copies=True,
        result="matrix",
    ),
    "max_pool2d": Picture(
        "Max pooling 3x3 with stride 2, SAME",
        _max_pool2d,
        {"x": _map(6, 6)},
        _POOLED,
        (0, 1, 2, 0),
        _twice(geometry.same(6, 3, 2)),
        outside=_LOWEST,
    ),
    "subsample": Picture(
        "Subsampling by 2",
        lambda tier, a: tier.subsample(a["x"], 2),
        {"x": _map(5, 6)},
        _POOLED,
        (0, 1, 2, 0),
    ),
    "spatial_mean": Picture(
        "The mean over height and width",
        lambda tier, a: tier.spatial_mean(a["x"]),
        {"x": Field(_NHWC, (2, 3, 4, 2))},
        _POOLED,
        (0, 0, 0, 1),
    ),
    "batch_norm": Picture(
        "Batch norm in inference",
        _batch_norm,
        {"x": _IMAGES, **_per_channel("gamma", "beta", "mean", "variance")},
        _NHWC,
        (0, 1, 1, 1),
    ),
    "batch_norm_training": Picture(
        "Batch norm with the statistics of the batch",
        _batch_norm_training,
        {"x": _IMAGES, **_per_channel("gamma", "beta")},
        _NHWC,
        (0, 1, 1, 1),
    ),
    "add_relu": Picture(
        "The end of a residual unit",
        lambda tier, a: tier.add_relu(a["shortcut"], a["residual"]),
        {"shortcut": _map(3, 4), "residual": _map(3, 4)},
        _NHWC,
        (0, 1, 2, 0),
    ),
    "add_bias": Picture(
        "Adding a bias to each channel",
        lambda tier, a: tier.add_bias(a["x"], a["bias"]),
        {"x": Field(_NHWC, (1, 2, 3, 3)), "bias": Field("C", (3,))},
        _NHWC,
        (0, 1, 0, 2),
    ),
    "softmax": Picture(
        "Softmax over the classes",
        lambda tier, a: tier.softmax(a["x"]),
        {"x": Field("N classes", (3, 6))},
        "N classes",
        (1, 2),
    ),
}


class Found(NamedTuple):
    """What running a picture's kernel showed.

    reads: by input, which numbers the output reads; copied: where each output's number stands in x, padding counted,
    where the picture asks for that; shape: the output's. Both are of x with its padding: `pad` rows and columns before.
    """

    reads: Reads
    pad: tuple[int, int]
    shape: tuple[int, ...]
    copied: NDArray[np.intp] | None


@cache
def find(name: str) -> Found:
    """Runs the picture's kernel, once for each number that it is given."""
    picture = PICTURES[name]
    tier = kernels.on("definition")
    inputs = probe.numbers({name: field.shape for name, field in picture.inputs.items()})
    if picture.windows is None:
        found, pad = probe.dependence(lambda a: picture.call(tier, a), inputs), (0, 0)
    else:
        rows, cols = picture.windows
        pad = rows.before, cols.before
        wide = probe.padded(inputs["x"], pad, (rows.after, cols.after), picture.outside)
        found = probe.dependence_on_padding(
            lambda a: picture.call(tier, a, rows, cols),
            lambda a: picture.call(tier, a, *(window._replace(before=0, after=0) for window in picture.windows or ())),
            inputs,
            wide,
        )
    first, field = next(iter(picture.inputs.items()))
    shape = found[first].shape[len(field.shape) :]
    copied = _copied(found["x"], len(shape)) if picture.copies else None
    return Found(probe.reads(found, picture.output), pad, shape, copied)


def _copied(changes: Mask, rank: int) -> NDArray[np.intp]:
    """[*output, axes of x]: the only number of x that each output reads. RuntimeError where it reads more, or none."""
    outputs = changes.shape[-rank:]
    flat = changes.reshape(-1, *outputs)
    if (flat.sum(axis=0) != 1).any():
        raise RuntimeError("an output is no copy of one number of x")
    places = np.unravel_index(flat.argmax(axis=0), changes.shape[:-rank])
    return np.stack(places, axis=-1)


_WORDS = {
    "N": ("image", "images"),
    "H": ("row", "rows"),
    "W": ("column", "columns"),
    "OH": ("row", "rows"),
    "OW": ("column", "columns"),
    "C": ("channel", "channels"),
    "F": ("filter", "filters"),
    "KH": ("row", "rows"),
    "KW": ("column", "columns"),
    "classes": ("class", "classes"),
    "N*OH*OW": ("row", "rows"),
    "KH*KW*C": ("column", "columns"),
}


def describe(name: str) -> str:
    """One sentence on the output: how many numbers of each input it reads, and which."""
    picture, found = PICTURES[name], find(name)
    places = [
        f"{_WORDS[axis][0]} {place}"
        for axis, place, size in zip(picture.axes.split(), picture.output, found.shape, strict=True)
        if size > 1 and not isinstance(place, slice)
    ]
    parts = []
    for input_name, field in picture.inputs.items():
        inside, around = _split(found, input_name, field)
        part = f"{_count(inside)} of {input_name}{_where(inside, field.axes.split())}"
        if around:
            part += f", and {around} of its padding"
        parts.append(part)
    output = "The output at" if picture.result == "y" else f"The {picture.result}'s"
    return f"{output} {', '.join(places)} reads {'; '.join(parts)}."


def _split(found: Found, name: str, field: Field) -> tuple[Mask, int]:
    """Which numbers of the input are read, without its padding; and how many of the padding."""
    read = found.reads[name]
    own = read[inside(found, field)] if name == "x" else read
    return own, int(read.sum() - own.sum())


def inside(found: Found, field: Field) -> tuple[slice, ...]:
    """Where x lies in x with its padding."""
    before = (0, *found.pad, 0) if len(field.shape) == 4 else (0,) * len(field.shape)
    return tuple(slice(b, b + n) for b, n in zip(before, field.shape, strict=True))


def _count(read: Mask) -> str:
    count = int(read.sum())
    if count == read.size:
        return "the only number" if count == 1 else f"all {count} numbers"
    return f"{count} of the {read.size} numbers"


def _where(read: Mask, axes: list[str]) -> str:
    """The numbers' places on each axis that has more than one; each number by itself where they form no block."""
    if read.all() or not read.any():
        return ""
    places = [np.unique(along) for along in np.nonzero(read)]
    if not read[np.ix_(*places)].all():
        return ": " + ", ".join(str(tuple(map(int, cell))) for cell in np.argwhere(read))
    said = [
        f"{_WORDS[axis][len(place) > 1]} {_run(place)}"
        for axis, place, size in zip(axes, places, read.shape, strict=True)
        if size > 1
    ]
    return f" ({', '.join(said)})"


def _run(places: NDArray[np.intp]) -> str:
    if len(places) > 2 and (np.diff(places) == 1).all():
        return f"{places[0]} to {places[-1]}"
    *most, last = map(str, places)
    return f"{', '.join(most)} and {last}" if most else last
