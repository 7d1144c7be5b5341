"""Writes README's tables of figures from benchmarks/results: `python benchmarks/readme_table.py`.

bench_*.json there are made by `resnet-ref bench --peers -o`, checkpoint_reading.json by checkpoint_reading.py.
"""

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- figures: made by benchmarks/readme_table.py -->\n", "<!-- end of figures -->"


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
    rows = [[", ".join([*what, f"{run['threads']} threads"]), *names], ["---"] * (len(names) + 1)]
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
    return _markdown(rows) + (
        f"\nMedians of {counts} runs in turns; in brackets, of our time. {run['hardware']['processor']}, "
        f"{', '.join(f'{name} {version}' for name, version in run['versions'].items() if name != 'resnet-ref')}.\n"
    )


def checkpoints(reading: dict[str, Any]) -> str:
    """Reading checkpoints, beside TensorFlow's reader."""
    rows = [["resnet_v1_50's checkpoint", "ours", "TensorFlow", "ours / TensorFlow"], ["---"] * 4]
    for name in ("V1", "V2"):
        ours, slim = (1000 * reading[name][reader] for reader in ("ours", "tensorflow"))
        what = f"reading {name}, {reading[name]['mib']:.0f} MiB"
        rows.append([what, f"{ours:.0f} ms", f"{slim:.0f} ms", f"{ours / slim:.2f}"])
    return _markdown(rows) + f"\n{reading['processor']}, tensorflow {reading['versions']['tensorflow']}.\n"


def _milliseconds(times: dict[str, Any]) -> str:
    milliseconds = 1000 * times["median"]
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 3
    ratio = "" if times["of_ours"] == 1 else f" ({times['of_ours']:.2f})"
    return f"{milliseconds:.{digits}f} ms{ratio}"


def _seconds(taken: list[float]) -> str:
    return f"{statistics.median(taken):.1f} s" if taken else "-"


def _mebibytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f} MiB"


def _markdown(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def renewed(readme: str) -> str:
    """README's text with the tables as they should be."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return before + START + tables() + END + after


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(renewed(path.read_text()))
