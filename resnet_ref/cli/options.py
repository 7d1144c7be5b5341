"""Options and output that several commands share."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from resnet_ref.kernels import DEVICES
from resnet_ref.labels import read_labels
from resnet_ref.plan.offer import PRECISIONS
from resnet_ref.resnet_v1 import UNITS
from resnet_ref.tables import columns
from resnet_ref.text_files import read_json

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON for a machine to read.")


class Device(click.Choice[str]):
    """What kernels.on takes; it is what refuses a wrong number after "gpu:"."""

    def __init__(self) -> None:
        super().__init__([*DEVICES, "gpu:N"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The device's name."""
        return value if str(value).startswith("gpu:") else super().convert(value, param, ctx)


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What open_fleet takes, and the batch size."""
    all_gpus = "auto: the gpu where there is one, else the cpu. Of several gpus all are used, or gpu:N alone, from 0."
    tensor = "float64: the definition alone. The rest but float32: a gpu's tensor cores, or those of a cpu (AMX)."
    options: list[Option] = [
        click.option("--weights", metavar="FILE", help="A weights file; without it, the shipped digits network."),
        click.option("--device", type=Device(), default="auto", show_default=True, help=all_gpus),
        click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True, help=tensor),
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


def echo(line: str = "") -> None:
    """One line on stdout, with what a terminal would obey written as escapes."""
    click.echo(printable(line))


def echo_json(data: Any) -> None:
    """Plain data as JSON on stdout; what a terminal would obey, or its encoding lacks, as JSON's own escapes."""
    encoding = sys.stdout.encoding or "utf-8"

    def shown(one: re.Match[str]) -> str:
        there = one[0].isprintable() and one[0].encode(encoding, "ignore")
        return one[0] if there else json.dumps(one[0])[1:-1]

    click.echo(re.sub(r"[^\n]", shown, json.dumps(data, indent=2, ensure_ascii=False)))


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """A table on stdout; the first `left` columns aligned left."""
    for line in columns(list(map(printable, header)), [list(map(printable, row)) for row in rows], left):
        echo(line)


def echo_text(text: str) -> None:
    """Lines on stdout."""
    for line in text.splitlines():
        echo(line)


def weights_or_digits(name: str) -> str | None:
    """A weights file's name for load_weights_apart: "digits" is the network that ships, unless there is such a file."""
    return None if name == "digits" and not Path(name).exists() else name


def checkpoint_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a checkpoint's variables do not show, or show wrongly; `described` makes arguments of these."""
    instead = "Instead of what the variables show."
    options: list[Option] = [
        click.option("--labels", metavar="FILE", help="Class names, one a line, or slim's. ImageNet's are known."),
        click.option("--variant", type=click.Choice(tuple(UNITS)), help=instead),
        click.option("--scope", help="The network to take, where there are several."),
        click.option("--depth-multiplier", type=click.FloatRange(0), help=instead),
        click.option("--min-base-depth", type=click.IntRange(1), help=instead),
        click.option("--output-stride", type=click.IntRange(4), help="Of the network; variables do not show it."),
        click.option("--network", metavar="FILE.json", help="Entries of the network, as in save_weights(network=...)."),
        click.option("--preprocessing", metavar="FILE.json", help="As in save_weights(...); else its framework's."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def described(labels: str | None, network: str | None, preprocessing: str | None, **options: Any) -> dict[str, Any]:
    """The arguments `overrides`, `labels` and `preprocessing` of `convert` that checkpoint_options stand for."""
    names = {"variant": "function"}
    overrides = {names.get(name, name): value for name, value in options.items() if value is not None}
    if network is not None:
        overrides = {**read_json(Path(network)), **overrides}
    return {
        "overrides": overrides,
        "labels": None if labels is None else partial(read_labels, labels),
        "preprocessing": None if preprocessing is None else read_json(Path(preprocessing)),
    }
