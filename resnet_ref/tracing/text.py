"""A number's life, for a terminal."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.tables import columns
from resnet_ref.tracing.life import Life, Taps, as_map
from resnet_ref.tracing.receptive_field import Field, receptive_field

_RAMP = " .:-=+*#%@"
_WIDTH = 48  # columns of the picture; a character is about twice as high as wide


def to_text(found: Life, pixels: NDArray[Any]) -> str:
    """What a person reads. pixels: what the network saw, [H, W, 3] of 0..255."""
    return "\n".join(_lines(found, pixels))


def place(found: Life) -> str:
    """`scope` at its position."""
    y, x, c = found.at
    return f"{found.step.name} at row {y}, column {x}, channel {c}"


def _lines(found: Life, pixels: NDArray[Any]) -> Iterator[str]:
    field = receptive_field(found.step, found.at)
    shape = as_map(found.step.output).shape[1:]
    yield f"{place(found)} of {'x'.join(map(str, shape))}: {found.value:.9g}"
    yield ""
    yield (
        f"sees rows {field.top} to {field.bottom}, columns {field.left} to {field.right} of the image, "
        f"{pixels.shape[0]}x{pixels.shape[1]}"
    )
    yield from _picture(pixels, field)
    if found.taps is not None:
        yield ""
        yield from _taps(found, found.taps)
    if found.inputs:
        yield ""
        yield from _inputs(found)
    yield ""
    yield from sum_lines(found)
    yield f"{'the network gave':<28}{found.value:.9g}"


def sum_lines(found: Life) -> Iterator[str]:
    """The sum, and what became of it."""
    if found.total_abs:
        within = f"of magnitudes {found.total_abs:.9g}"
        if found.network_sum is not None:
            off = abs(found.network_sum - found.total)
            within += f"; the network's sum is {off:.2g} away, float32 allows {found.bound:.2g}"
        yield f"{f'{found.count} summed in float64':<28}{found.total:.17g}  ({within})"
    if found.parts:
        yield "with " + ", ".join(f"{name} {value:.9g}" for name, value in found.parts.items())
    for name, value in found.stages.items():
        yield f"{name:<28}{value:.9g}"


def _picture(pixels: NDArray[Any], field: Field) -> Iterator[str]:
    """The image in characters, the receptive field framed."""
    height, width = pixels.shape[:2]
    columns_shown = min(_WIDTH, width)
    rows_shown = max(1, round(columns_shown * height / width / 2))
    ys = (np.arange(rows_shown) + 0.5) * height / rows_shown
    xs = (np.arange(columns_shown) + 0.5) * width / columns_shown
    grey = pixels.mean(axis=2)[ys.astype(int)][:, xs.astype(int)]
    levels = np.clip(grey / 256 * len(_RAMP), 0, len(_RAMP) - 1).astype(int)
    inside_rows = np.flatnonzero((ys >= field.top) & (ys < field.bottom + 1))
    inside_cols = np.flatnonzero((xs >= field.left) & (xs < field.right + 1))
    top, bottom = (inside_rows[0], inside_rows[-1]) if len(inside_rows) else (np.argmin(abs(ys - field.top)),) * 2
    left, right = (inside_cols[0], inside_cols[-1]) if len(inside_cols) else (np.argmin(abs(xs - field.left)),) * 2
    frame = f"  {' ' * left}+{'-' * (right - left + 1)}+"
    for y in range(rows_shown):
        line = "".join(_RAMP[level] for level in levels[y])
        edge = "|" if top <= y <= bottom else " "
        if y == top:
            yield frame
        yield f"  {line[:left]}{edge}{line[left : right + 1]}{edge}{line[right + 1 :]}".rstrip()
        if y == bottom:
            yield frame


def _taps(found: Life, taps: Taps) -> Iterator[str]:
    size = f"{len(taps.rows)}x{len(taps.cols)} taps"
    rate = f", {taps.rate[0]} apart" if max(taps.rate) > 1 else ""
    what = "values" if found.step.op == "max_pool2d" else "sums of products"
    padded = int(taps.padded.sum())
    where = f"; {padded} on padding" if padded else ""
    yield f"{size}{rate} on {found.step.inputs[0].name}{where}; {what} by tap:"
    header = ["row \\ column", *(str(x) for x in taps.cols)]
    rows = [
        [str(y), *("pad" if pad else f"{value:.4g}" for value, pad in zip(values, pads, strict=True))]
        for y, values, pads in zip(taps.rows, taps.sums, taps.padded, strict=True)
    ]
    yield from ("  " + line for line in columns(header, rows))


def _inputs(found: Life) -> Iterator[str]:
    shown = f"the largest {len(found.inputs)} of {found.count}" if found.count > len(found.inputs) else "inputs"
    yield f"{shown}:"
    header = ("from", "row", "column", "channel", "value", "weight", "product")
    rows = [
        (
            one.step.name,
            *map(str, one.at),
            f"{one.value:.7g}",
            "" if one.weight is None else f"{one.weight:.7g}",
            "" if one.product is None else f"{one.product:.7g}",
        )
        for one in found.inputs
    ]
    yield from ("  " + line for line in columns(header, rows))
