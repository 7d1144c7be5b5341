"""Which pixels a value can see at all."""

from typing import NamedTuple

from resnet_ref.kernels.geometry import Window
from resnet_ref.tracing.graph import Step
from resnet_ref.tracing.life import Position, as_map


class Field(NamedTuple):
    """Rows top to bottom and columns left to right, the last ones included."""

    top: int
    left: int
    bottom: int
    right: int

    def joined(self, other: "Field") -> "Field":
        """The smallest field around both."""
        return Field(*map(min, self[:2], other[:2]), *map(max, self[2:], other[2:]))


def receptive_field(step: Step, at: Position) -> Field:
    """The pixels of the image that the value of `step` at (row, column, channel) depends on."""
    fields = {step.number: Field(at[0], at[1], at[0], at[1])}
    steps = {step.number: step}
    while True:
        number = max(fields)
        current, field = steps[number], fields.pop(number)
        if not current.inputs:
            return field
        for source in current.inputs:
            height, width = as_map(source.output).shape[1:3]
            if current.op == "spatial_mean":
                read = Field(0, 0, height - 1, width - 1)
            else:
                rows = _read(current.rows, field.top, field.bottom, height)
                cols = _read(current.cols, field.left, field.right, width)
                read = Field(rows[0], cols[0], rows[1], cols[1])
            known = fields.get(source.number)
            fields[source.number] = read if known is None else known.joined(read)
            steps[source.number] = source


def _read(window: Window | None, first: int, last: int, size: int) -> tuple[int, int]:
    """The positions of an axis of `size` that outputs first to last read; padding is none of them."""
    if window is None:
        return first, last
    low, high = int(window.reads(first)[0]), int(window.reads(last)[-1])
    return min(max(low, 0), size - 1), min(max(high, 0), size - 1)
