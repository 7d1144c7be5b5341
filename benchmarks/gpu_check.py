"""Everything that only a GPU can show: whether the tier is right there, and how fast it is beside PyTorch.

    python benchmarks/gpu_check.py [--no-tests] [--no-sanitizer] [--no-bench] [--output FILE.json]

Runs, and writes as data to benchmarks/results/gpu_<device>.json, from which readme_table.py makes README's table:
the tests that want a GPU; compute-sanitizer over gpu_kernels_once.py; `resnet-ref bench` of resnet_v1_50 in each
precision, with every layer's share of what the device can do; and `resnet-ref bench --ladder`, whose figures go to
ladder_gpu_<device>.json, from which the site makes its tables. A part that fails does not keep the others from running.

Exit status: 0 where all is well, 1 where a part failed or the tier is slower than it has to be, 2 without a GPU.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from resnet_ref import DeviceError, kernels
from resnet_ref.bench.contenders import OURS
from resnet_ref.tables import columns

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PRECISIONS = ("float32", "tf32x3", "tf32", "bfloat16")
BATCHES = (1, 8, 64)
PEERS = ("pytorch-gpu", "pytorch-gpu-tf32")
HOST = "from host memory"
COMMAND = "import sys; from resnet_ref.cli import main; sys.exit(main())"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
NO_SANITIZER = (
    "compute-sanitizer was not found: it comes with CUDA's toolkit; put it on the PATH, or say --no-sanitizer"
)
Run = Mapping[str, Any]  # what a part gave: for `bench`, its JSON, or {"error": text}


@dataclass(frozen=True)
class Bar:
    """How fast the tier has to be. least: of the peer's time over ours; found: None where it was not measured. is_aim:
    whether missing it is no failure."""

    precision: str
    batch: int
    peer: str
    least: float
    is_aim: bool
    found: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether it was measured and is fast enough."""
        return self.found is not None and self.found >= self.least


BARS = (
    *(Bar("float32", batch, PEERS[0], 1.0, False) for batch in BATCHES),
    Bar("tf32x3", 64, PEERS[0], 1.5, True),
    Bar("tf32", 64, PEERS[1], 0.8, False),
)


def sides(run: Run, batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch's times by engine; ours from the host's memory as HOST."""
    return {HOST if one["from_host"] else one["engine"]: batch["times"][one["name"]] for one in run["contenders"]}


def measured(runs: Mapping[str, Run]) -> list[Bar]:
    """The bars with what was found, each in the run of its own precision: both sides took turns there."""
    return [Bar(**{**asdict(bar), "found": _found(runs.get(bar.precision, {}), bar)}) for bar in BARS]


def _found(run: Run, bar: Bar) -> float | None:
    for batch in run.get("batches", []):
        times = sides(run, batch)
        if batch["batch"] == bar.batch and bar.peer in times:
            return times[bar.peer]["median"] / times[OURS]["median"]
    return None


def tests() -> Run:
    """pytest of what is marked gpu; there a missing GPU is a failure."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "-p", "no:cacheprovider"]
    return _ran(command, {"RESNET_REF_NEEDS_GPU": "1"})


def sanitizer() -> Run:
    """Each of compute-sanitizer's tools over every kernel."""
    tool = find_sanitizer()
    if tool is None:
        return {"error": NO_SANITIZER}
    script = [sys.executable, str(ROOT / "benchmarks" / "gpu_kernels_once.py")]
    found = {name: _ran([str(tool), "--tool", name, "--error-exitcode", "9", *script], {}) for name in TOOLS}
    wrong = [f"{name}: {run['error']}" for name, run in found.items() if "error" in run]
    return {**found, **({"error": "; ".join(wrong)} if wrong else {})}


def find_sanitizer() -> Path | None:
    """compute-sanitizer, on the PATH or where CUDA's toolkit lies."""
    if (known := shutil.which("compute-sanitizer")) is not None:
        return Path(known)
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    roots = [Path(home) for home in homes if home] + sorted(Path("/usr/local").glob("cuda-*"), reverse=True)
    places = [root / folder / "compute-sanitizer" for root in roots for folder in ("bin", "compute-sanitizer")]
    return next((place for place in places if os.access(place, os.X_OK) and place.is_file()), None)


def bench(precision: str) -> Run:
    """`resnet-ref bench` beside PyTorch, as JSON; PyTorch is left out where it has no CUDA, and the JSON says so."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "bench.json")
        what = ["--variant", "resnet_v1_50", "--device", "gpu", "--precision", precision, "--peers", "--profile"]
        batches = [word for batch in BATCHES for word in ("--batch", str(batch))]
        command = [sys.executable, "-c", COMMAND, "bench", *what, *batches, "--starts", "1"]
        run = _ran([*command, "-o", str(output)], {})
        return run if "error" in run else json.loads(output.read_text())


def ladder(output: Path) -> Run:
    """`resnet-ref bench --ladder`, which writes to a file of its own."""
    return _ran([sys.executable, "-c", COMMAND, "bench", "--ladder", "--device", "gpu", "-o", str(output)], {})


def _ran(command: Sequence[str], environment: Mapping[str, str]) -> Run:
    """Runs a command here and lets it print; {"ok": what its last line said} or {"error": ...}."""
    print("$", " ".join(command), flush=True)
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    print(done.stdout, flush=True)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    return {"ok": last} if done.returncode == 0 else {"error": f"status {done.returncode}: {last}"}


def summary(found: Mapping[str, Any]) -> str:
    """What was found, as tables."""
    lines = [f"{part}: {_said(found[part])}" for part in ("tests", "sanitizer", "ladder")]
    header = ("", "batch", "ours, ms", "images/s", "from host, ms", "PyTorch, ms", "PyTorch tf32, ms", "error")
    lines += ["", *columns(header, list(_rows(found["runs"])))]
    lines += [f"{precision}: {run['error']}" for precision, run in found["runs"].items() if "error" in run]
    header = ("bar", "batch", "at least", "found", "")
    bars = [(f"{bar.precision} against {bar.peer}", str(bar.batch), *_judged(bar)) for bar in measured(found["runs"])]
    return "\n".join([*lines, "", *columns(header, bars)])


def _said(run: Run | None) -> str:
    if run is None:
        return "left out"
    return f"FAILED, {run['error']}" if "error" in run else "ok"


def _rows(runs: Mapping[str, Run]) -> Iterator[tuple[str, ...]]:
    for precision, run in runs.items():
        for batch in run.get("batches", []):
            times = sides(run, batch)
            cells = [f"{1000 * times[other]['median']:.3f}" if other in times else "-" for other in (HOST, *PEERS)]
            own = times[OURS]
            speed = (f"{1000 * own['median']:.3f}", f"{own['images_s']:.0f}")
            yield precision, str(batch["batch"]), *speed, *cells, f"{own['error']:.1e}"


def _judged(bar: Bar) -> tuple[str, str, str]:
    verdict = "met" if bar.is_met else "missed, an aim" if bar.is_aim else "MISSED"
    return f"{bar.least:.1f}", "-" if bar.found is None else f"{bar.found:.2f}", verdict


def is_well(found: Mapping[str, Any]) -> bool:
    """Whether no part that ran failed, and every bar but the aims is met, where the bench ran."""
    parts = [found["tests"], found["sanitizer"], found["ladder"], *found["runs"].values()]
    bars = [Bar(**bar) for bar in found["bars"]]
    return all(part is None or "error" not in part for part in parts) and all(b.is_met or b.is_aim for b in bars)


@click.command()
@click.option("--no-tests", is_flag=True)
@click.option("--no-sanitizer", is_flag=True)
@click.option("--no-bench", is_flag=True)
@click.option("--output", type=click.Path(path_type=Path), help="Instead of benchmarks/results/gpu_<device>.json.")
def main(no_tests: bool, no_sanitizer: bool, no_bench: bool, output: Path | None) -> None:
    """Test and measure the gpu tier on this machine's GPU."""
    try:
        runtime = kernels.on("gpu", load=False).runtime
    except DeviceError as error:
        click.echo(f"gpu_check: {error}", err=True)
        sys.exit(2)
    assert runtime is not None
    path = output or RESULTS / f"gpu_{re.sub('[^a-z0-9]+', '_', runtime.name.lower()).strip('_')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "device": runtime.name,
        "tests": None if no_tests else tests(),
        "sanitizer": None if no_sanitizer else sanitizer(),
        "runs": {} if no_bench else {precision: bench(precision) for precision in PRECISIONS},
        "ladder": None if no_bench else ladder(path.with_name(f"ladder_{path.name}")),
    }
    found["bars"] = [] if no_bench else [asdict(bar) for bar in measured(found["runs"])]
    path.write_text(json.dumps(found, indent=1) + "\n")
    click.echo(f"{summary(found)}\n\nwritten: {path}")
    sys.exit(0 if is_well(found) else 1)


if __name__ == "__main__":
    main()
