"""resnet-ref trace: how one number comes about, or what each kernel call of a run costs."""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from resnet_ref.cli.options import Device, as_json, echo, echo_json, echo_text
from resnet_ref.errors import WeightsError
from resnet_ref.images import IsolatedReader
from resnet_ref.model import Model, load_model
from resnet_ref.pages.render import require_pages
from resnet_ref.tracing.chrome import write_chrome_trace
from resnet_ref.tracing.graph import traced
from resnet_ref.tracing.life import Life, life
from resnet_ref.tracing.page import write_page
from resnet_ref.tracing.profile import profile
from resnet_ref.tracing.profile_report import to_json, to_text, write_profile_page
from resnet_ref.tracing.receptive_field import receptive_field
from resnet_ref.tracing.text import to_text as life_to_text
from resnet_ref.tracing.web import web
from resnet_ref.weights.atomic import require_writable
from resnet_ref.weights_file import load_weights_apart


@click.command(short_help="Follow one number, or profile a run.")
@click.argument("image")
@click.option("--end-point", metavar="NAME", help="As slim names it; or a layer's scope, such as resnet_v1_50/pool1.")
@click.option("--at", type=int, nargs=3, metavar="Y X C", help="Row, column, channel; 0 0 C of an end point [N, C].")
@click.option("--weights", metavar="FILE", help="A weights file; without it, the shipped digits network.")
@click.option("--device", type=Device(), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), help="Of the cpu; all there are if not given.")
@click.option("--top", type=click.IntRange(1, 100), default=8, show_default=True, help="Inputs to show of each value.")
@click.option("--profile", "profiled", is_flag=True, help="Time every kernel call of a run instead.")
@click.option(
    "--runs", type=click.IntRange(1), default=10, show_default=True, help="With --profile: medians of so many."
)
@click.option("--chrome", metavar="FILE.json", help="With --profile: also a trace for chrome://tracing or Perfetto.")
@click.option("--html", metavar="FILE.html", help="Also write a page to click through (needs the extra `pages`).")
@as_json
def trace(
    image: str, end_point: str | None, at: tuple[int, int, int] | None, weights: str | None, device: str,
    threads: int | None, top: int, profiled: bool, runs: int, chrome: str | None, html: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show how one value of an end point comes about, from the pixels it sees to the last activation.

    With --profile: what each kernel call of a run on the image costs, beside what the machine can do.

    \b
    resnet-ref trace digit.png --end-point resnet_v1_50/block2 --at 2 3 17 --html trace.html
    resnet-ref trace photo.jpg --weights resnet_v1_50.h5 --profile --chrome trace.json
    """
    if profiled == (end_point is not None or at is not None):
        raise click.UsageError("give --end-point NAME with --at Y X C, or --profile")
    if not profiled and (end_point is None or at is None):
        raise click.UsageError("--end-point NAME and --at Y X C belong together")
    if chrome is not None and not profiled:
        raise click.UsageError("--chrome goes with --profile")
    if html is not None:
        require_pages()
    with IsolatedReader() as reader:
        model = load_model(load_weights_apart(weights), device=device, threads=threads)
        for output in (html, chrome):
            if output is not None:
                require_writable(output, [image, model.weights.path])
        prepared, pixels = _prepared(model, image, reader)
    if profiled:
        _profile(model, prepared, runs, chrome, html, as_json)
    elif end_point is not None and at is not None:
        _trace(model, prepared, pixels, end_point, at, top, html, as_json)


def _prepared(model: Model, image: str, reader: IsolatedReader) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The image as the network takes it, [H, W, C], and as pixels of 0..255."""
    if model.preprocessing is None:
        raise WeightsError(f"{model.weights.path} names no preprocessing; save it with preprocessing=dict(name='vgg')")
    prepared = reader(Path(image), model.preprocessing)
    return prepared, model.preprocessing.pixels(prepared)


def _trace(
    model: Model, prepared: Any, pixels: Any, name: str, at: tuple[int, int, int], top: int, html: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    tracer, step = traced(model, prepared, name)
    found = life(tracer, step, at, top)
    if html is not None:
        write_page(web(tracer, step, at, top), pixels, html)
    if as_json:
        echo_json(_plain(found))
    else:
        echo_text(life_to_text(found, pixels))
        if html is not None:
            echo()
            echo(f"page                        {html}")


def _plain(found: Life) -> dict[str, Any]:
    """The life as plain data."""
    taps = None
    if found.taps is not None:
        taps = {name: np.asarray(value).tolist() for name, value in vars(found.taps).items()}
    inputs = [{**vars(one), "step": one.step.name} for one in found.inputs]
    kept = {name: value for name, value in vars(found).items() if name not in ("step", "taps", "inputs")}
    field = receptive_field(found.step, found.at)._asdict()
    return {"step": found.step.name, "op": found.step.op, **kept, "bound": found.bound, "receptive_field": field,
            "taps": taps, "inputs": inputs}  # fmt: skip


def _profile(model: Model, prepared: Any, runs: int, chrome: str | None, html: str | None, as_json: bool) -> None:
    found = profile(model, prepared[None], runs)
    if chrome is not None:
        write_chrome_trace(found, chrome)
    if html is not None:
        write_profile_page(found, html)
    if as_json:
        echo_json(to_json(found))
    else:
        echo_text(to_text(found))
        for what, path in (("page", html), ("trace", chrome)):
            if path is not None:
                echo(f"{what:<8}{path}")
