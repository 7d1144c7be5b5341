"""Writes README's tables of figures from benchmarks/results: `python benchmarks/readme_table.py`.

bench_*.json there are made by `resnet-ref bench --peers -o`, ladder_cpu.json by `resnet-ref bench --ladder -o`,
checkpoint_reading.json by checkpoint_reading.py, and gpu_*/, a folder for each device, by gpu_check.py.
"""

import json
import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from gpu import figures, summary
from gpu.folder import Folder, is_well
from gpu.what import BATCHES, PRECISIONS, PYTORCH, SIZE, VARIANT, network_piece

from resnet_ref.bench import ladder_report
from resnet_ref.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- figures: made by benchmarks/readme_table.py -->\n", "<!-- end of figures -->"
GPU_START, GPU_END = "<!-- gpu figures: made by benchmarks/readme_table.py -->\n", "<!-- end of gpu figures -->"
LADDER_START, LADDER_END = "<!-- ladder: made by benchmarks/readme_table.py -->\n", "<!-- end of ladder -->"
NO_GPU = (
    "Not measured yet: the gpu tier has never run on a GPU. The tests compile its kernels for sm_80 and sm_90, and run "
    "them on the CPU. `python benchmarks/gpu_check.py`, where there is a GPU, tests it and times it beside PyTorch.\n"
)


def tables() -> str:
    """The tables as Markdown, each with what it was measured on."""
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("bench_*.json"))]
    reading = json.loads((RESULTS / "checkpoint_reading.json").read_text())
    return "\n".join([*(inference(run) for run in runs), checkpoints(reading)])


def inference(run: dict[str, Any]) -> str:
    """A column for each contender."""
    names = [contender["name"] for contender in run["contenders"]]
    what = [run["network"]["function"], "x".join(map(str, run["size"]))]
    if width := run["network"].get("depth_multiplier"):
        what.append(f"depth_multiplier {width}")
    header = [", ".join([*what, f"{run['threads']} threads"]), *names]
    rows = []
    for batch in run["batches"]:
        times = [batch["times"][name] for name in names]
        rows.append([f"batch {batch['batch']}", *map(_milliseconds, times)])
    if run["starts"]:
        starts = [run["starts"][name] for name in names]
        rows.append(["a new process, to its first answer", *(_seconds(start["warm"]) for start in starts)])
        rows.append(["the same, nothing compiled yet", *(_seconds(start["cold"]) for start in starts)])
        rows.append(["its peak memory", *(_mebibytes(start["peak_bytes"]) for start in starts)])
    errors = [run["batches"][0]["times"][name]["error"] for name in names]
    rows.append(["error at the logits, against float64", *(f"{error:.0e}" for error in errors)])
    counts = " and ".join({f"{len(batch['times'][names[0]]['seconds'])}": None for batch in run["batches"]})
    return markdown(header, rows) + (
        f"\nMedians of {counts} runs in turns; in brackets, of our time. {run['hardware']['processor']}, "
        f"{', '.join(f'{name} {version}' for name, version in run['versions'].items() if name != 'resnet-ref')}.\n"
    )


def checkpoints(reading: dict[str, Any]) -> str:
    """Reading checkpoints, beside TensorFlow's reader."""
    rows = []
    for name in ("V1", "V2"):
        ours, slim = (1000 * reading[name][reader] for reader in ("ours", "tensorflow"))
        what = f"reading {name}, {reading[name]['mib']:.0f} MiB"
        rows.append([what, f"{ours:.0f} ms", f"{slim:.0f} ms", f"{ours / slim:.2f}"])
    header = ["resnet_v1_50's checkpoint", "ours", "TensorFlow", "ours / TensorFlow"]
    return markdown(header, rows) + f"\n{reading['processor']}, tensorflow {reading['versions']['tensorflow']}.\n"


def gpu_tables() -> str:
    """A table for each GPU that gpu_check.py ran on, or the sentence that says that there was none."""
    found = [Folder(path) for path in sorted(RESULTS.glob("gpu_*")) if path.is_dir()]
    return "\n".join(gpu(folder) for folder in found if figures.speeds(folder)) or NO_GPU


def gpu(folder: Folder) -> str:
    """A row for each precision and batch; what failed is said below."""
    peers = [f"PyTorch, {peer}" for peer in PYTORCH]
    head = [
        f"{VARIANT}, {SIZE}x{SIZE}, {figures.device(folder)}",
        "ours",
        "images/s",
        "from host memory",
        *peers,
        "error",
    ]
    rows = []
    for speed in figures.speeds(folder):
        others = [speed.host, *speed.pytorch.values()]
        cells = ["-" if time is None else _shown(time, time / speed.graph) for time in others]
        own = [_shown(speed.graph), f"{speed.batch / speed.graph:.0f}"]
        rows.append([f"{speed.precision}, batch {speed.batch}", *own, *cells, f"{speed.error:.0e}"])
    what = (
        "Medians, one CUDA graph after the other, by the GPU's clock; from host memory with all copies, by the host's"
    )
    return markdown(head, rows) + f"\n{what}; in brackets, of our time. {' '.join(_checks(folder))}\n"


def _checks(folder: Folder) -> Sequence[str]:
    """Sentences on what gpu_check.py found beside times."""
    names = {"kernels": "Every kernel against the definition", "tests": "The tests"}
    tools = {tool: f"compute-sanitizer's {tool}" for tool in ("memcheck", "racecheck")}
    said = [f"{name}: {summary.ran(folder, part)}." for part, name in {**names, **tools}.items()]
    absent = []
    for part, whose, precisions in (("ours", "", PRECISIONS), ("pytorch", "PyTorch's ", tuple(PYTORCH))):
        for precision, batch in product(precisions, BATCHES):
            piece, what = folder.piece(part, network_piece(precision, batch)), f"{whose}{precision} at batch {batch}"
            if piece is None:
                absent.append(what)
            elif not is_well(piece):
                said.append(f"{what}: FAILED, {piece['failed']}.")
    said += [f"Not measured: {', '.join(absent)}."] if absent else []
    bars = [bar for bar in figures.bars(folder) if bar.found is not None and not bar.is_met]
    missed = [f"{bar.precision} at batch {bar.batch}" for bar in bars]
    return [*said, f"Slower than wanted: {', '.join(missed)}."] if missed else said


def _milliseconds(times: dict[str, Any]) -> str:
    return _shown(times["median"], times["of_ours"])


def _shown(seconds: float, of_ours: float = 1) -> str:
    milliseconds = 1000 * seconds
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 3
    ratio = "" if of_ours == 1 else f" ({of_ours:.2f})"
    return f"{milliseconds:.{digits}f} ms{ratio}"


def _seconds(taken: list[float]) -> str:
    return f"{statistics.median(taken):.1f} s" if taken else "-"


def _mebibytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f} MiB"


def ladder() -> str:
    """Each rung on the cpu, on all convolutions of resnet_v1_50."""
    data = json.loads((RESULTS / "ladder_cpu.json").read_text())
    header, rows = ladder_report.tables(data)[0]
    _, height, width, _ = data["shape"]
    what = f"{data['network']['function']}, {height}x{width}, {header[0]}"
    return markdown([what, *header[1:]], rows) + (
        f"\nMedians; speed-up on the rung before; {ladder_report.machine(data)}, {ladder_report.peak(data)}.\n"
    )


def renewed(readme: str) -> str:
    """README's text with the tables as they should be."""
    places = (
        (START, END, tables()),
        (GPU_START, GPU_END, gpu_tables()),
        (LADDER_START, LADDER_END, ladder()),
    )
    for start, end, made in places:
        before, rest = readme.split(start)
        _, after = rest.split(end)
        readme = before + start + made + end + after
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(renewed(path.read_text()))
