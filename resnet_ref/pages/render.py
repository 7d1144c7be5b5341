"""Fills a template and writes the page, whole or not at all."""

import os
from importlib.resources import files
from typing import Any

from resnet_ref.errors import DeviceError
from resnet_ref.weights.atomic import replacing

_INSTALL = "pages need `pip install 'resnet-ref[pages]'`"


def require_pages() -> None:
    """DeviceError unless the packages that pages are made with are there; to be called before long work."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise DeviceError(f"cannot import {error.name}: {_INSTALL}") from None


def render(template: str, **values: Any) -> str:
    """The page that a template in pages/templates makes of the values; all text is escaped."""
    require_pages()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnet_ref.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = files("resnet_ref.pages").joinpath("style.css").read_text("utf-8")
    return environment.get_template(template).render(style=style, **values)


def write(path: str | os.PathLike[str], page: str) -> None:
    """Write a page. WeightsError where that is not possible."""
    with replacing(path) as part:
        part.write_text(page, "utf-8", "backslashreplace")
