"""The role {test}`name` links a claim to the test that proves it, whose text stands on a page of the site.

On that page a line `<!-- tests: FILE -->`, the file named from the repository's root, becomes a section for each test
function in it. A role that names a test that is not there is a broken link, and so an error.
"""

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).resolve().parents[2]
_LINE = re.compile(r"^<!-- tests: (\S+) -->$", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, Any]:
    """As Sphinx calls it."""
    app.add_role("test", Tested())
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}


class Tested(SphinxRole):
    """A link to the section of a test."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The link, resolved once all pages are read."""
        link = addnodes.pending_xref(
            "",
            nodes.literal(self.text, self.text),
            refdomain="std",
            reftype="ref",
            reftarget=self.text.lower(),
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        return [link], []


def _fill(_: Sphinx, __: str, content: list[str]) -> None:
    content[0] = _LINE.sub(lambda line: _sections(line[1]), content[0])


def _sections(file: str) -> str:
    body = ast.parse((ROOT / file).read_text("utf-8")).body
    names = [one.name for one in body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")]
    return "\n".join(
        f"({name})=\n## {name}\n\n```{{literalinclude}} ../{file}\n:language: python\n:pyobject: {name}\n```\n"
        for name in names
    )
