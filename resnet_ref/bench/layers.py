"""What each layer of ours takes, within the whole network."""

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_ref.bench.comparison import Agenda
from resnet_ref.bench.files import Files
from resnet_ref.model import load_model
from resnet_ref.plan.report import Row, rows
from resnet_ref.tables import columns

RUNS = 15


@dataclass(frozen=True)
class Profile:
    """The steps of one contender of ours at one batch, in order."""

    contender: str
    batch: int
    steps: Sequence[Row]


def profiles(files: Files, agenda: Agenda) -> list[Profile]:
    """Every contender of ours that makes plans, at every batch; on zeros, since no kernel looks at the values."""
    found = []
    for contender in agenda.contenders:
        if not contender.is_ours:
            continue
        model = load_model(files.weights.path, threads=agenda.threads, **contender.options)
        if model.tier.device == "cpu":
            for batch in agenda.batches:
                found.append(Profile(contender.name, batch, rows(model.plan(batch, *files.size), RUNS)))
    return found


def profile_text(profile: Profile, peak: float) -> str:
    """A table; peak: GFLOP/s of multiply-adds alone."""
    total = sum(step.seconds or 0 for step in profile.steps)
    header = (
        f"{profile.contender}, batch {profile.batch}",
        "algorithm",
        "passes",
        "us",
        "of all",
        "GFLOP/s",
        "of peak",
    )
    body = []
    for step in profile.steps:
        seconds = step.seconds or 0
        speed = step.flops / seconds / 1e9 if seconds and step.flops else 0
        rates = (f"{speed:.0f}", f"{speed / peak:.0%}") if speed else ("", "")
        share = f"{seconds / total:.1%}" if total else ""
        body.append((step.layer, step.algorithm, str(step.passes), f"{1e6 * seconds:.0f}", share, *rates))
    body.append(("sum", "", "", f"{1e6 * total:.0f}", "", "", ""))
    return "\n".join(columns(header, body, 2))
