"""resnet-ref verify: does a weights file compute what slim computed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from resnet_ref.cli.options import (
    Device,
    as_json,
    echo,
    echo_error,
    echo_json,
    echo_text,
    progress_bar,
    weights_or_digits,
)
from resnet_ref.errors import RecordingError, ShapeError, WeightsError
from resnet_ref.images import IsolatedReader, find_images
from resnet_ref.isolation import isolated
from resnet_ref.pages.render import require_pages
from resnet_ref.plan.offer import PRECISIONS
from resnet_ref.recording import Recording, open_recording
from resnet_ref.verification.page import write_page
from resnet_ref.verification.report import to_json, to_text, verdict
from resnet_ref.verification.verify import Verification
from resnet_ref.verification.verify import verify as verify_weights
from resnet_ref.weights.atomic import require_writable
from resnet_ref.weights_file import Weights, load_weights_apart


@click.command(short_help="Compare a network with what slim computed.")
@click.argument("weights")
@click.argument("recorded", nargs=-1, required=True, metavar="RECORDED | --live IMAGE|DIR...")
@click.option(
    "--live", is_flag=True, help="Run slim now, on images (needs the extra `oracle`), in place of a recording."
)
@click.option("--source", metavar="CHECKPOINT", help="With --live: what slim runs; if not given, the weights file.")
@click.option("--device", type=Device(), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), help="Of the cpu; all there are if not given.")
@click.option("--training", is_flag=True, help="Run with batch norm in training mode, as slim was.")
@click.option("--all", "every", is_flag=True, help="Show every end point.")
@click.option("--html", metavar="FILE.html", help="Also write a page with plots (needs the extra `pages`).")
@as_json
def verify(
    weights: str, recorded: tuple[str, ...], live: bool, source: str | None, device: str, precision: str,
    threads: int | None, training: bool, every: bool, html: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Compare every end point of a network with what slim computed, and say why where they depart.

    WEIGHTS is a weights file, or `digits` for the network that ships. RECORDED was made by `resnet-ref record`. The
    exit status is 1 where anything lies beyond what float32 allows, which is measured against float64.

    \b
    resnet-ref verify resnet_v1_50.h5 slim.h5
    resnet-ref verify resnet_v1_50.h5 --live photo.jpg --source resnet_v1_50.ckpt --html report.html
    """
    if source is not None and not live:
        raise click.UsageError("--source goes with --live")
    if not live and len(recorded) != 1:
        raise click.UsageError(f"give one recording, or images with --live; got {len(recorded)}: {', '.join(recorded)}")
    loaded = load_weights_apart(weights_or_digits(weights))
    if html is not None:
        require_pages()
        require_writable(html, [loaded.path, *recorded, *([source] if source else [])])
    with _recording(loaded, recorded, source, live) as recording, progress_bar(1, "diagnosing") as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        try:
            found = verify_weights(
                loaded, recording, device=device, precision=precision, threads=threads, is_training=training,
                progress=progress,
            )  # fmt: skip
        except ShapeError as error:
            raise WeightsError(f"{loaded.path} does not fit what {recording.path} records: {error}") from None
    _show(found, every, html, as_json)
    if not found.agrees:
        echo_error(verdict(found))
    return 0 if found.agrees else 1


@contextmanager
def _recording(weights: Weights, given: tuple[str, ...], source: str | None, live: bool) -> Iterator[Recording]:
    """The recording, or one that slim makes now."""
    if not live:
        isolated(_read_once, given[0], what=given[0], error=RecordingError)
        with open_recording(given[0]) as recording:
            yield recording
        return
    from resnet_ref.oracle.record import open_source, record

    files = find_images(given)
    with IsolatedReader() as reader:  # before TensorFlow decodes them here
        for file in files:
            reader.check(file)
    with tempfile.TemporaryDirectory(prefix="resnet-ref-") as folder:
        path = Path(folder, "live.h5")
        record(open_source(source if source is not None else weights.path), files, path)
        with open_recording(path) as recording:
            yield recording


def _read_once(path: str) -> None:
    """All that is in a recording, in a process that may die of it."""
    with open_recording(path) as recording:
        recording.inputs()
        for number in range(len(recording.facts.images)):
            recording.image(number)
        for name in recording.end_points:
            recording.read(name)


def _show(found: Verification, every: bool, html: str | None, as_json: bool) -> None:
    if html is not None:
        write_page(found, html)
    if as_json:
        echo_json(to_json(found))
    else:
        echo_text(to_text(found, every))
        if html is not None:
            echo()
            echo(f"page       {html}")
