"""Everything that only a GPU can show: whether the tier is right there, and how fast it is beside PyTorch.

    python benchmarks/gpu_check.py [--list] [--only PART]... [--seconds N] [--output FOLDER] [--again]
    python benchmarks/gpu_check.py --summary FOLDER

Made for a machine that is lent for minutes and may be gone at any moment: the parts (gpu/parts.py) run in order of
their worth, each as a process of its own that is ended in time, and whatever is found is a file of its own in FOLDER
(gpu/folder.py) at once. What no longer fits is cut or skipped; another run into the same folder goes on with what is
missing. readme_table.py makes README's table of these folders, and the site its tables of the ladder.

Exit status: 0 where all that was asked ran and is well; 1 where something failed, was cut, skipped or missing, or is
slower than it has to be; 2 without a GPU, or for wrong use; 130 after an interruption.
"""

import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

try:
    import click
    from gpu import figures, summary
    from gpu.folder import Folder
    from gpu.needs import missing
    from gpu.parts import BY_NAME, NO_GPU, PARTS, ROOT, Part
    from gpu.runner import SIGNALS, Runner

    from resnet_ref.tables import columns
except ImportError as error:
    said = "in the checkout, `pip install .` installs this package and what it needs"
    print(f"gpu_check: {error}; {said}", file=sys.stderr)
    sys.exit(2)

RESULTS = ROOT / "benchmarks" / "results"
VERSIONS = BY_NAME["versions"]
INTERRUPTED = 130


def listed() -> str:
    """The parts and the seconds that each may take."""
    rows = [(part.name, str(part.seconds), part.what + ("" if part.is_usual else "; by --only")) for part in PARTS]
    rows.append(("", str(sum(part.seconds for part in PARTS if part.is_usual)), "the usual ones together"))
    return "\n".join(columns(("part", "seconds", ""), rows, 3))


def opened(runner: Runner, output: Path | None) -> Folder:
    """The folder, once it is known which device this is; exits where there is none, or the folder is of another."""
    said: list[str] = []
    runner.say = said.append
    with tempfile.TemporaryDirectory() as scratch:
        first = Folder(Path(scratch))
        status = runner.run(VERSIONS, first)
        if status == NO_GPU:
            lacking = f"; missing here: {', '.join(missing())}" if missing() else ""
            _stop(f"{first.log('versions').read_text().strip().splitlines()[-1]}{lacking}")
        here = first.piece("versions", "device") or {}
        name = re.sub("[^a-z0-9]+", "_", str(here.get("device", "unnamed")).lower()).strip("_")
        folder = Folder(output or RESULTS / f"gpu_{name}")
        known = folder.piece("versions", "device") or {}
        for what in ("device", "sources"):
            if {what} <= here.keys() & known.keys() and here[what] != known[what]:
                said = f"{folder.path} holds results of {what} {known[what]}, and this is {here[what]}"
                _stop(f"{said}; give another folder with --output")
        folder.adopt(first, "versions")
    runner.say = click.echo
    click.echo("\n".join(said))
    return folder


def checked(parts: list[Part], seconds: float, output: Path | None, again: bool) -> int:
    """Runs the parts; the exit status."""
    runner = Runner(seconds, click.echo)
    folder = opened(runner, output)
    asked = [VERSIONS, *(part for part in parts if part != VERSIONS)]
    folder.ask(part.name for part in asked)
    if lacking := missing():
        click.echo(f"missing here: {'; '.join(f'{name} ({advice})' for name, advice in lacking.items())}")
    try:
        for part in asked[1:]:
            runner.run(part, folder, again)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted\n\n{summary.text(folder)}\n\nin {folder.path}")
        return INTERRUPTED
    click.echo(f"\n{summary.text(folder)}\n\nin {folder.path}")
    return 0 if figures.all_well(folder, [part.name for part in asked]) else 1


def _stop(said: str) -> NoReturn:
    click.echo(f"gpu_check: {said}", err=True)
    sys.exit(2)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@click.command()
@click.option("--list", "lists", is_flag=True, help="Show the parts and the seconds that each may take.")
@click.option("--only", type=click.Choice(list(BY_NAME)), multiple=True, help="This part; several times.")
@click.option("--seconds", type=click.IntRange(1), default=540, show_default=True, help="For all parts together.")
@click.option("--output", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False),
              help="Instead of benchmarks/results/gpu_<device>.")  # fmt: skip
@click.option("--again", is_flag=True, help="Run parts that are well already, too.")
@click.option("--summary", "shown", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="Only show what a folder holds.")  # fmt: skip
def main(
    lists: bool, only: tuple[str, ...], seconds: int, output: Path | None, again: bool, shown: Path | None
) -> None:
    """Test and measure the gpu tier on this machine's GPU."""
    if lists:
        click.echo(listed())
        return
    if shown is not None:
        click.echo(summary.text(Folder(shown)))
        sys.exit(0 if summary.all_asked_is_well(Folder(shown)) else 1)
    for number in SIGNALS:
        signal.signal(number, _interrupted)
    parts = [part for part in PARTS if (part.name in only if only else part.is_usual)]
    try:
        status = checked(parts, seconds, output, again)
    except KeyboardInterrupt:  # before there was a folder
        status = INTERRUPTED
    sys.exit(status)


if __name__ == "__main__":
    main()
