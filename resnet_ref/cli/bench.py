"""resnet-ref bench: how fast, beside the engines it replaces."""

import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from resnet_ref.bench import ladder_report
from resnet_ref.bench.comparison import Agenda, compare
from resnet_ref.bench.contenders import CPU, OPTIONS, PEERS, is_gpu, our_contenders, peer_contenders
from resnet_ref.bench.files import Files, Wanted, prepare, wanted
from resnet_ref.bench.ladder import climb, kinds
from resnet_ref.bench.layers import PLANNED, profile_text, profiles
from resnet_ref.bench.report import to_json, to_text
from resnet_ref.cli.options import as_json, echo_json, echo_text, progress_bar, weights_or_digits
from resnet_ref.errors import BenchError
from resnet_ref.kernels.vector.executor import thread_count
from resnet_ref.model import load_model
from resnet_ref.resnet_v1 import DEFAULT_IMAGE_SIZE, UNITS
from resnet_ref.weights.atomic import replacing, require_another
from resnet_ref.weights_file import DIGITS

_DEFAULT_VARIANT = "resnet_v1_50"


@click.command(short_help="Measure speed, beside other engines.")
@click.option("--weights", metavar="FILE", help="The network of a weights file; `digits` is the one that ships.")
@click.option("--variant", type=click.Choice(tuple(UNITS)), help="One of slim's, with random weights; resnet_v1_50.")
@click.option("--size", type=click.IntRange(1), nargs=2, metavar="H W", help="Of the images; else the network's own.")
@click.option("--output-stride", type=int, help="Ratio of input to output size: 4, 8, 16 or 32.")
@click.option(
    "--batch", "batches", type=click.IntRange(1), multiple=True, default=(1,), show_default=True,
    help="Images at a time; may be given several times.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 1024), help="Of each engine; all there are if not given.")
@click.option("--device", help="Of ours, as load_model takes it, and of which --peers; cpu if not given.")
@click.option("--algorithm", help="Of ours, as load_model takes it.")
@click.option("--precision", help="Of ours, as load_model takes it.")
@click.option("--isa", help="Of ours, as load_model takes it.")
@click.option(
    "--ours", "texts", multiple=True, metavar="KEY=VALUE,...",
    help=f"Ours with these options ({', '.join(OPTIONS)}), which count for more than the four above; several times.",
)  # fmt: skip
@click.option("--peers", is_flag=True, help="Every other engine for the device that is installed.")
@click.option(
    "--peer",
    "named",
    type=click.Choice(tuple(PEERS)),
    multiple=True,
    metavar="PEER",
    help=f"One of them; several times. Of {', '.join(PEERS)}.",
)
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True, help="How many turns each gets.")
@click.option("--starts", type=click.IntRange(0), default=3, show_default=True, help="New processes timed; 0: none.")
@click.option("--profile", is_flag=True, help="Also what each layer of ours takes.")
@click.option(
    "--ladder", "climbs", is_flag=True,
    help="Instead: each step from plain loops to our convolution, on every convolution of the network.",
)  # fmt: skip
@as_json
@click.option("-o", "--output", metavar="FILE.json", help="Also write everything, each run's time too, to a file.")
def bench(
    weights: str | None, variant: str | None, size: tuple[int, int] | None, output_stride: int | None,
    batches: tuple[int, ...], threads: int | None, device: str | None, algorithm: str | None, precision: str | None,
    isa: str | None, texts: tuple[str, ...], peers: bool, named: tuple[str, ...], rounds: int, starts: int,
    profile: bool, climbs: bool, as_json: bool, output: str | None,
) -> None:  # fmt: skip
    """Measure how fast networks run here: ours, and with --peers the other engines on the same weights and images.

    Each runs in a process of its own, in turns with pauses. First their outputs are compared: where two that compute in
    float32 differ by more than 1e-4 of the largest, or one in fewer bits by more than these explain, the exit status is
    1. Then come the times for each batch, and of new processes the time to the first answer and the peak memory.

    --ladder is of one batch on one device, and of no other engine. A rung that is wrong is not timed, and the exit
    status is 1.

    \b
    resnet-ref bench --peers --batch 1 --batch 8 -o bench.json
    resnet-ref bench --weights net.h5 --peer openvino --ours algorithm=auto --ours algorithm=direct
    resnet-ref bench --device gpu --precision tf32 --peers --batch 64 --profile
    resnet-ref bench --ladder
    """
    if weights is not None and variant is not None:
        raise click.UsageError("give --weights or --variant, not both")
    if climbs:
        _refuse_beside_ladder(click.get_current_context())
    given = {"device": device, "algorithm": algorithm, "precision": precision, "isa": isa}
    ours = our_contenders(texts, {name: value for name, value in given.items() if value is not None})
    others, absent = peer_contenders(named, peers, device or CPU)
    file = None if weights is None else weights_or_digits(weights)
    if output is not None:
        require_another(output, [file or DIGITS])
    if weights is None and variant is None:
        variant = _DEFAULT_VARIANT
    agenda = Agenda([*ours, *others], list(dict.fromkeys(batches)), thread_count(threads), rounds, starts)
    what = wanted(file, variant, output_stride, size, DEFAULT_IMAGE_SIZE)
    with _writing(output) as written:
        data, text = _climbed(what, agenda) if climbs else _compared(what, agenda, absent, profile)
        data = {"command": _command(click.get_current_context()), **data}
        if written is not None:
            written.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    if as_json:
        echo_json(data)
    else:
        echo_text(text)


def _compared(what: Wanted, agenda: Agenda, absent: Mapping[str, str], profile: bool) -> tuple[dict[str, Any], str]:
    """Contenders beside each other, as plain data and as text."""
    with tempfile.TemporaryDirectory(prefix="resnet-ref-") as folder:
        return _measured(prepare(Path(folder), what), agenda, absent, profile)


def _measured(files: Files, agenda: Agenda, absent: Mapping[str, str], profile: bool) -> tuple[dict[str, Any], str]:
    ours = [one for one in agenda.contenders if one.is_ours]
    # So that wrong options are said before anything takes long.
    models = [load_model(files.weights, threads=agenda.threads, **one.options) for one in ours]
    if profile and not any(model.tier.device in PLANNED for model in models):
        raise BenchError(
            f"--profile is about {' and '.join(PLANNED)}, and nothing of ours here runs on them; leave one out"
        )
    with progress_bar(agenda.steps, "measuring") as bar:
        found = compare(files, agenda, lambda: bar.update(1))
    layers = profiles(files, agenda) if profile else []
    data = {**to_json(found, absent), **({"profiles": [asdict(one) for one in layers]} if profile else {})}
    texts = [to_text(found, absent), *(profile_text(one, found.peak(one.contender)) for one in layers)]
    return data, "\n\n".join(texts)


def _climbed(what: Wanted, agenda: Agenda) -> tuple[dict[str, Any], str]:
    """The ladder, as plain data and as text."""
    device = str(agenda.contenders[0].options["device"])
    if device != CPU and not is_gpu(device):
        raise BenchError(f'the ladder has rungs for "{CPU}" and "gpu", none for {device!r}')
    shape = (agenda.batches[0], *what.size, what.network.channels)
    with progress_bar(len(kinds(what.network, shape)), "measuring") as bar:
        found = climb(what.network, shape, device, agenda.threads, agenda.rounds, lambda: bar.update(1))
    data = ladder_report.to_json(found)
    return data, ladder_report.to_text(data)


_NOT_BESIDE_LADDER = ("algorithm", "precision", "isa", "texts", "peers", "named", "starts", "profile")


def _refuse_beside_ladder(context: click.Context) -> None:
    """UsageError for an option that the ladder knows nothing of."""
    for option in context.command.params:
        if option.name in _NOT_BESIDE_LADDER and _is_given(context, option):
            raise click.UsageError(f"--ladder times its own rungs; leave out {option.opts[0]}")
    if len(context.params["batches"]) > 1:
        raise click.UsageError("--ladder is of one batch; give --batch once")


@contextmanager
def _writing(output: str | None) -> Iterator[Path | None]:
    """The new file, whole or not at all; made now, because a name that cannot be written should not cost a run."""
    if output is None:
        yield None
        return
    with replacing(output) as part:
        yield part


def _is_given(context: click.Context, option: click.Parameter) -> bool:
    return context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE


def _command(context: click.Context) -> str:
    """The command line that was given."""
    words = ["resnet-ref", "bench"]
    for option in context.command.params:
        name = option.name or ""
        if not _is_given(context, option):
            continue
        value = context.params[name]
        for one in value if option.multiple else [value]:
            shown = [] if one is True else one if isinstance(one, tuple) else [one]
            words += [max(option.opts, key=len), *map(str, shown)]
    return shlex.join(words)
