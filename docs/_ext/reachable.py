"""What scrolls sideways, blocks of code and tables, can be scrolled by the keyboard too."""

from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """As Sphinx calls it."""
    app.connect("html-page-context", _focusable)
    return {"parallel_read_safe": True}


def _focusable(_: Sphinx, __: str, ___: str, context: dict[str, Any], ____: Any) -> None:
    if "body" in context:
        for scrolls in ("<pre>", '<div class="table-wrapper'):
            context["body"] = context["body"].replace(scrolls, f'{scrolls[:4]} tabindex="0"{scrolls[4:]}')
