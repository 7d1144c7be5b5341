"""How fast a checkpoint of resnet_v1_50's size is read, beside TensorFlow's own reader, and how much memory it takes.

    python benchmarks/checkpoint_reading.py [--runs 9] [--output benchmarks/results/checkpoint_reading.json]

TensorFlow writes the files and must be installed. Each run reads every variable; the two readers take turns, every
number is compared before anything is timed, and medians are printed. The files stay in the page cache throughout.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from recording import save

from resnet_ref.network import Network
from resnet_ref.weights.checkpoint import open_checkpoint

Arrays = dict[str, npt.NDArray[Any]]
MIB = 1 << 20


def shapes() -> dict[str, tuple[int, ...]]:
    """resnet_v1_50's variables: name -> shape."""
    return Network("resnet_v1_50", {"num_classes": 1000}).variables()


def write(folder: Path, version: int) -> str:
    """Let TensorFlow write random variables of those shapes; return the prefix."""
    import tensorflow as tf

    v1 = tf.compat.v1
    folder.mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        for number, (name, shape) in enumerate(shapes().items()):
            v1.get_variable(name, initializer=tf.random.stateless_normal(shape, (number, 1)))
        session.run(v1.global_variables_initializer())
        return str(v1.train.Saver(write_version=version).save(session, str(folder / "model.ckpt")))


def ours(path: str) -> Arrays:
    with open_checkpoint(path) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.variables}


def tensorflows(path: str) -> Arrays:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def seconds(read: Callable[[str], Arrays], path: str) -> float:
    start = time.perf_counter()
    read(path)
    return time.perf_counter() - start


def peak_growth(path: str) -> float:
    """Return by how many MiB a fresh process' peak memory grows while it reads one variable after the other (Linux).

    From VmHWM: getrusage's maximum would be that of the process that started this one, where that was larger.
    """
    code = (
        "import re, sys; from resnet_ref.weights.checkpoint import open_checkpoint\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        "with open_checkpoint(sys.argv[1]) as c:\n"
        "    for name in c.variables: c.read(name)\n"
        "print((peak() - before) / 1024)"
    )
    return float(subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True).stdout)


@click.command()
@click.option("--runs", default=9, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Also write the figures here, as JSON.")
def main(runs: int, output: Path | None) -> None:
    largest = max(4 * int(np.prod(shape)) for shape in shapes().values()) / MIB
    print(f"{len(shapes())} variables, the largest {largest:.1f} MiB; median of {runs} runs")
    print(f"{'format':8} {'MiB':>7} {'ours, s':>9} {'TF, s':>9} {'ours/TF':>8} {'peak growth, MiB':>17}")
    with tempfile.TemporaryDirectory() as folder:
        formats = {f"V{version}": compared(write(Path(folder) / f"v{version}", version), runs) for version in (1, 2)}
    for name, row in formats.items():
        ratio = row["ours"] / row["tensorflow"]
        columns = f"{row['mib']:7.1f} {row['ours']:9.4f} {row['tensorflow']:9.4f} {ratio:8.2f}"
        print(f"{name:8} {columns} {row['peak_growth_mib']:17.1f}")
    if output is not None:
        save(output, ("resnet-ref", "tensorflow"), what="seconds to read a checkpoint", largest_mib=largest, **formats)


def compared(path: str, runs: int) -> dict[str, float]:
    """Median seconds of both readers, in turns, once they agree; raises where they do not."""
    mine, theirs = ours(path), tensorflows(path)
    if mine.keys() != theirs.keys() or not all(np.array_equal(mine[name], theirs[name]) for name in mine):
        raise SystemExit(f"{path}: the two readers disagree")
    size = sum(array.nbytes for array in mine.values()) / MIB
    del mine, theirs
    pairs = [(seconds(ours, path), seconds(tensorflows, path)) for _ in range(runs)]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"mib": size, "ours": a, "tensorflow": b, "peak_growth_mib": peak_growth(path)}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    warnings.simplefilter("ignore")
    main()
