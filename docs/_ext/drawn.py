"""Draws what shown.py found, as maps of cells. Lengths are in cells; y grows downwards."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from shown import PICTURES, describe, find, inside

from resnet_ref.pages.figures import INK, MUTED, ONE, TWO, figure, svg

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
        outside[inside(found, field) if pads else ...] = False
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
