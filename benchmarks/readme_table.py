"""Writes README's table of figures from benchmarks/results: `python benchmarks/readme_table.py`."""

import json
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- figures: made by benchmarks/readme_table.py -->\n", "<!-- end of figures -->"


def table() -> str:
    """The table as Markdown, with what it was measured on."""
    runs = [json.loads(path.read_text()) for path in sorted(ROOT.glob("benchmarks/results/against_tensorflow_*.json"))]
    lines = [
        "| resnet_v1_50 | ours, cpu | TensorFlow | ours / TensorFlow |",
        "|---|---|---|---|",
    ]
    for run in runs:
        ours, slim = (statistics.median(run["times"][name]) for name in ("ours", "tensorflow"))
        lines.append(
            f"| inference at 224x224, batch {run['batch']} | {ours:.0f} ms | {slim:.0f} ms | {ours / slim:.2f} |"
        )
    reading = json.loads((ROOT / "benchmarks/results/checkpoint_reading.json").read_text())
    for name in ("V1", "V2"):
        ours, slim = (1000 * reading[name][reader] for reader in ("ours", "tensorflow"))
        what = f"reading its {name} checkpoint, {reading[name]['mib']:.0f} MiB"
        lines.append(f"| {what} | {ours:.0f} ms | {slim:.0f} ms | {ours / slim:.2f} |")
    about = runs[0]
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in ("tensorflow", "numpy", "numba"))
    turns = len(about["times"]["ours"])
    lines.append("")
    lines.append(
        f"Medians of {turns} runs in turns, {about['threads']} threads, {about['processor']}, "
        f"Python {about['python']}, {versions}."
    )
    return "\n".join(lines) + "\n"


def renewed(readme: str) -> str:
    """README's text with the table as it should be."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return before + START + table() + END + after


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(renewed(path.read_text()))
