"""Options and output that several commands share."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from resnet_ref.kernels import DEVICES

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON for a machine to read.")


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What load_model takes, and the batch size."""
    options: list[Option] = [
        click.option("--weights", metavar="FILE", help="A weights file; without it, the shipped digits network."),
        click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True),
        click.option("--threads", type=click.IntRange(1, 1024), help="Of the cpu; all there are if not given."),
        click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Images at a time."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def progress_bar(length: int, label: str) -> Any:
    """A bar on stderr while a person watches; click's, as a context manager with `update(steps)`."""
    return click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())


def printable(text: str) -> str:
    """The text with what a terminal would obey, or cannot show, written as escapes: file names hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def echo_error(message: str) -> None:
    """One line of stderr."""
    click.echo(f"resnet-ref: {printable(' '.join(message.split()))}", err=True)


def echo_json(data: Any) -> None:
    """Plain data as JSON on stdout."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Columns as wide as they need to be; the first `left` aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())
