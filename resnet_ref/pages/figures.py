"""Plots as SVG that takes its colours from the page: light where the page is light, dark where it is dark."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of style.css by what stands for them while matplotlib draws.
COLOURS = {
    f"#0101{number:02x}": name for number, name in enumerate(("ink", "muted", "line", "one", "two", "three"), 16)
}
INK, MUTED, LINE, ONE, TWO, THREE = COLOURS
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple["Figure", Any]]:
    """A matplotlib figure of so many inches, and its axes; what is drawn inside the block has the pages' style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        yield made, made.subplots()


def svg(made: "Figure", name: str, title: str, description: str) -> Any:
    """The figure as markup: `name` makes its ids unique in the page; a screen reader says title and description."""
    import matplotlib
    from markupsafe import Markup

    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        made.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    label = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    opening = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"'
    text = re.sub(r"<svg\b", opening, text, count=1)
    return Markup(re.sub(r"(<svg\b[^>]*>)", lambda match: match[1] + label, text, count=1))
