"""The directive `{kernel-picture} NAME`: what one output of a kernel reads, as probe.py finds it, drawn as SVG.

PICTURES says which kernel is called on what; which cells are filled, and the sentence below the picture, come from
running it.
"""

from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import probe
from docutils import nodes
from numpy.typing import NDArray
from probe import Array, Reads
from sphinx.util.docutils import SphinxDirective

from resnet_ref import kernels
from resnet_ref.kernels import geometry
from resnet_ref.kernels.geometry import Window
from resnet_ref.pages.figures import INK, MUTED, ONE, TWO, figure, svg

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
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


# What is said.

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
    inside = read[_inside(found, field)] if name == "x" else read
    return inside, int(read.sum() - inside.sum())


def _inside(found: Found, field: Field) -> tuple[slice, ...]:
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


# What is drawn. Lengths are in cells; y grows downwards.

CELL = 0.3  # inches
HEAD = 2.4  # above a panel: its name, its horizontal axis, the numbers along it
SIDE = 1.7  # left of a panel: its vertical axis, the numbers along it
GAP = 1.5  # between panels
TILE = 1.1  # between the maps of one panel
BELOW = 0.7  # between panels that stand one below the other
_LABEL, _SMALL, _TINY = 10.5, 9.5, 8.5  # points


class Panel(NamedTuple):
    """An array as maps: [down, across, rows, columns], each of these four with its axis's name, or none."""

    name: str
    axes: tuple[str, str, str, str]
    kinds: NDArray[np.str_]
    pad: tuple[int, int]
    texts: NDArray[Any] | None
    title: str

    @property
    def gap(self) -> float:
        """Between maps."""
        return TILE if max(self.kinds.shape[:2]) > 1 else 0

    @property
    def width(self) -> float:
        """Cells across, with all that stands at the side."""
        across, columns = self.kinds.shape[1], self.kinds.shape[3]
        # A title reaches beyond a panel of few cells.
        return SIDE + max(across * (columns + self.gap) - self.gap, 0.31 * len(self.title) - SIDE)

    @property
    def height(self) -> float:
        """Cells down, with all that stands above."""
        down, rows = self.kinds.shape[0], self.kinds.shape[2]
        return HEAD + self.gap + down * (rows + self.gap) - self.gap


def _as_maps(array: NDArray[Any], axes: list[str]) -> tuple[NDArray[Any], tuple[str, str, str, str]]:
    """The array [down, across, rows, columns]: maps of H and W, images downwards; weights: filters across."""
    if len(axes) < 4:
        lacking = 4 - len(axes)
        names = ("",) * lacking + tuple(axes)
        return array.reshape((1,) * lacking + array.shape), names  # type: ignore[return-value]
    order = (2, 3, 0, 1) if axes[0] == "KH" else (0, 3, 1, 2)
    return array.transpose(order), tuple(axes[i] for i in order)  # type: ignore[return-value]


def _panel(name: str, axes: str, kinds: NDArray[Any], pad: tuple[int, int], texts: NDArray[Any] | None) -> Panel:
    split = axes.split()
    maps, names = _as_maps(kinds, split)
    shown = None if texts is None else _as_maps(texts, split)[0]
    return Panel(name, names, maps, pad, shown, f"{name} [{', '.join(split)}]")


def _panels(name: str) -> tuple[list[Panel], Panel]:
    picture, found = PICTURES[name], find(name)
    inputs = []
    for input_name, field in picture.inputs.items():
        read = found.reads[input_name]
        pads = input_name == "x" and picture.windows is not None
        outside = np.ones(read.shape, bool)
        outside[_inside(found, field) if pads else ...] = False
        kinds = np.where(read, np.where(outside, "padding, read", "read"), np.where(outside, "padding", ""))
        inputs.append(_panel(input_name, field.axes, kinds, found.pad if pads else (0, 0), None))
    chosen = np.full(found.shape, "", dtype="<U16")
    chosen[picture.output] = "output"
    texts = None
    if found.copied is not None:
        y, x = (found.copied[..., axis] - before for axis, before in zip((1, 2), found.pad, strict=True))
        _, height, width, _ = picture.inputs["x"].shape
        is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        texts = np.where(is_inside, np.char.add(np.char.add(y.astype(str), ","), x.astype(str)), "0")
        chosen = np.where(is_inside, chosen, np.where(chosen == "output", "padding, read", "padding"))
    return inputs, _panel(picture.result, picture.axes, chosen, (0, 0), texts)


def draw(name: str) -> tuple[str, float]:
    """The picture as SVG, and its width in inches."""
    inputs, output = _panels(name)
    first, others = inputs[0], inputs[1:]
    # The first input, the others one below the other, the output.
    columns = [[first], *([others] if others else []), [output]]
    widths = [max(panel.width for panel in column) for column in columns]
    heights = [sum(panel.height + BELOW for panel in column) - BELOW for column in columns]
    height = max(heights) + 2.2
    kinds = _kinds([*inputs, output])
    width = max(sum(widths) + GAP * len(columns[1:]), sum(map(_legend_width, kinds))) + 1.0
    with figure(width * CELL, height * CELL) as (made, ax):
        ax.set_axis_off()
        ax.set_xlim(0, width)
        ax.set_ylim(height, 0)
        left = 0.3
        for number, (column, wide) in enumerate(zip(columns, widths, strict=True)):
            if number == len(columns) - 1:
                _arrow(ax, left - GAP + 0.1, left + 0.35, 0.2 + (HEAD + output.height) / 2)
            top = 0.2
            for panel in column:
                _draw_panel(ax, panel, left, top)
                top += panel.height + BELOW
            left += wide + GAP
        _legend(ax, kinds, height - 0.9, output.texts is not None)
        made.set_layout_engine("none")
        ax.set_position((0, 0, 1, 1))
        return str(svg(made, f"picture-{name}", PICTURES[name].title, describe(name))), width * CELL


def _arrow(ax: Any, start: float, end: float, y: float) -> None:
    ax.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "->", "color": MUTED, "linewidth": 1.2})


def _draw_panel(ax: Any, panel: Panel, left: float, top: float) -> None:
    down, across, rows, columns = panel.kinds.shape
    x0, y0 = left + SIDE, top + HEAD + panel.gap
    ax.text(left + 0.2, top + 0.35, panel.title, fontsize=_LABEL, color=INK, va="center", fontweight="bold")
    before_rows, before_cols = panel.pad
    inner_rows, inner_cols = _inner(panel)
    for i in range(down):
        for j in range(across):
            x, y = x0 + j * (columns + panel.gap), y0 + i * (rows + panel.gap)
            if panel.gap:
                said = [
                    f"{axis} {place}"
                    for axis, place, size in ((panel.axes[0], i, down), (panel.axes[1], j, across))
                    if size > 1
                ]
                lift = 1.5 if i == 0 else 0.45
                ax.text(
                    x + columns / 2, y - lift, ", ".join(said), fontsize=_SMALL, color=MUTED, ha="center", va="center"
                )
            for r in range(rows):
                for c in range(columns):
                    text = "" if panel.texts is None else panel.texts[i, j, r, c]
                    _draw_cell(ax, x + c, y + r, str(panel.kinds[i, j, r, c]), text)
            if i == 0 and panel.axes[3]:
                for c in range(inner_cols):
                    place = x + before_cols + c + 0.5
                    ax.text(place, y - 0.4, str(c), fontsize=_TINY, color=MUTED, ha="center", va="center")
            if j == 0 and panel.axes[2]:
                for r in range(inner_rows):
                    place = y + before_rows + r + 0.5
                    ax.text(x - 0.35, place, str(r), fontsize=_TINY, color=MUTED, ha="center", va="center")
                if panel.axes[2]:
                    ax.text(
                        x - 1.05, y + rows / 2, panel.axes[2], fontsize=_SMALL, ha="center", va="center", rotation=90
                    )
    middle = x0 + (across * (columns + panel.gap) - panel.gap) / 2
    ax.text(middle, top + 1.3, panel.axes[3], fontsize=_SMALL, color=INK, ha="center", va="center")


def _inner(panel: Panel) -> tuple[int, int]:
    """Rows and columns that are not padding."""
    inside = ~np.char.startswith(panel.kinds[0, 0], "padding")
    if panel.texts is not None:
        return panel.kinds.shape[2], panel.kinds.shape[3]
    return int(inside.any(axis=1).sum()), int(inside.any(axis=0).sum())


def _draw_cell(ax: Any, x: float, y: float, kind: str, text: str = "") -> None:
    from matplotlib.patches import Rectangle

    colour: Any = {"read": ONE, "padding, read": ONE, "output": TWO}.get(kind, "none")
    if colour != "none" and (text or kind == "padding, read"):
        colour = (colour, 0.25)
    dashed = kind.startswith("padding")
    inset = 0.06 if dashed else 0.0
    size = 1 - 2 * inset
    line: dict[str, Any] = {"edgecolor": MUTED, "linewidth": 0.7, "linestyle": (0, (2, 2)) if dashed else "solid"}
    ax.add_patch(Rectangle((x + inset, y + inset), size, size, facecolor=colour, **line))
    if text:
        ax.text(x + 0.5, y + 0.5, text, fontsize=_TINY, color=INK, ha="center", va="center")


def _kinds(panels: list[Panel]) -> list[str]:
    """The kinds of cells that the picture has and its legend explains."""
    there = {kind for panel in panels for kind in panel.kinds.flat}
    return [kind for kind in ("output", "read", "padding, read", "padding") if kind in there]


def _legend_width(kind: str) -> float:
    return 2.2 + 0.28 * len(kind)


def _legend(ax: Any, kinds: list[str], y: float, copies: bool) -> None:
    x = 0.5
    for kind in kinds:
        _draw_cell(ax, x, y - 0.4, kind, " " if copies and kind == "output" else "")
        ax.text(x + 1.3, y + 0.1, kind, fontsize=_SMALL, color=INK, va="center")
        x += _legend_width(kind)


class KernelPicture(SphinxDirective):
    """One of PICTURES, with what it shows below it."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The figure."""
        name = self.arguments[0]
        if name not in PICTURES:
            raise self.error(f"no picture is called {name!r}; there are {', '.join(PICTURES)}")
        for path in (*Path(__file__).parent.glob("*.py"), *(ROOT / "kernels").glob("**/definition.py")):
            self.env.note_dependency(str(path))
        self.env.note_dependency(str(ROOT / "kernels" / "geometry.py"))
        drawn, inches = draw(name)
        title = escape(PICTURES[name].title)
        caption = f"<figcaption><strong>{title}.</strong> {escape(describe(name))}</figcaption>"
        markup = f'<figure class="kernel-picture" style="--width: {inches:.2f}in">'
        scroll = f'<div class="scroll" tabindex="0" role="group" aria-label="{title}">{drawn}</div>'
        return [nodes.raw("", f"{markup}{scroll}{caption}</figure>", format="html")]


def setup(app: "Sphinx") -> dict[str, Any]:
    """Sphinx calls it."""
    app.add_directive("kernel-picture", KernelPicture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
