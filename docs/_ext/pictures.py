"""The directive `{kernel-picture} NAME`: what one output of a kernel reads, as probe.py finds it, drawn as SVG."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from drawn import draw
from shown import PICTURES, describe
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


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
