"""What each layer of ours takes, within the whole network, and how near that is to what its device could do."""

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_ref.bench.comparison import Agenda
from resnet_ref.bench.files import Files
from resnet_ref.bench.peaks import Peak
from resnet_ref.bench.traffic import least_bytes
from resnet_ref.model import load_model
from resnet_ref.plan.planner import most_images
from resnet_ref.plan.report import Row, rows
from resnet_ref.tables import columns

RUNS = 15
PLANNED = ("cpu", "gpu")  # devices that make plans


@dataclass(frozen=True)
class Profile:
    """The steps of one contender of ours at one batch, in order; of as many images as a plan takes at once. bytes: that
    each step moves at least (see `traffic`); where a layer has several, its first stands for all."""

    contender: str
    batch: int
    steps: Sequence[Row]
    bytes: Sequence[int]


def profiles(files: Files, agenda: Agenda) -> list[Profile]:
    """Every contender of ours that makes plans, at every batch; on zeros, since no kernel looks at the values."""
    found = []
    for contender in agenda.contenders:
        if not contender.is_ours or contender.from_host:
            continue
        model = load_model(files.weights, threads=agenda.threads, **contender.options)
        if model.tier.device in PLANNED:
            for batch in agenda.batches:
                steps = rows(model.plan(batch, *files.size), RUNS)
                images = min(batch, most_images(*files.size))
                least = least_bytes(files.network, (images, *files.size, files.network.channels))
                found.append(Profile(contender.name, batch, steps, _by_step(steps, least)))
    return found


def _by_step(steps: Sequence[Row], least: dict[str, int]) -> list[int]:
    """The layers' bytes, each with the first of its steps, which are named "layer" or "layer, part"."""
    left = dict(least)
    return [left.pop(step.layer.partition(", ")[0], 0) for step in steps]


def profile_text(profile: Profile, peak: Peak) -> str:
    """A table; peak: of the device."""
    total = sum(step.seconds or 0 for step in profile.steps)
    header = (
        f"{profile.contender}, batch {profile.batch}",
        "algorithm",
        "passes",
        "us",
        "of all",
        "GFLOP/s",
        "of peak",
        *(() if peak.copy is None else ("MB", "of bandwidth")),
    )
    body = []
    for step, moved in zip(profile.steps, profile.bytes, strict=True):
        seconds = step.seconds or 0
        speed = step.flops / seconds / 1e9 if seconds and step.flops else 0
        rates = (f"{speed:.0f}", f"{speed / peak.gflops:.0%}") if speed else ("", "")
        share = f"{seconds / total:.1%}" if total else ""
        body.append(
            (
                step.layer,
                step.algorithm,
                str(step.passes),
                f"{1e6 * seconds:.0f}",
                share,
                *rates,
                *_traffic(moved, seconds, peak),
            )
        )
    body.append(("sum", "", "", f"{1e6 * total:.0f}", "", "", "", *_traffic(sum(profile.bytes), total, peak)))
    return "\n".join(columns(header, body, 2))


def _traffic(moved: int, seconds: float, peak: Peak) -> tuple[str, ...]:
    """Cells, where the device's copies were measured."""
    if peak.copy is None:
        return ()
    return (f"{moved / 1e6:.1f}", f"{moved / seconds / 1e9 / peak.copy:.0%}") if moved and seconds else ("", "")
