"""resnet_v1_50 at 224: ours beside TensorFlow running slim's graph, on the same weights and images.

    python benchmarks/against_tensorflow.py [--batch 1] [--runs 30] [--output benchmarks/results/FILE.json]

Each runs in a process of its own, with as many threads as the other, in turns with a pause between, after their
outputs were compared. Printed are medians, quartiles and the ratio of the medians.
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from recording import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

CLASSES = 1000
PAUSE = 0.05
Run = Callable[[], NDArray[Any]]


def images(batch: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 60, (batch, 224, 224, 3)).astype(np.float32)


def ours(file: str, batch: int, threads: int) -> Run:
    from resnet_ref import load_model

    model, inputs = load_model(file, device="cpu", threads=threads), images(batch)
    return lambda: model(inputs)


def tensorflow(file: str, batch: int, threads: int) -> Run:
    from resnet_ref import load_weights, oracle

    weights = load_weights(file)
    graph = oracle.graph()
    nets = graph.__enter__()  # stays open as long as the process
    v1 = nets.tf.compat.v1
    inputs = v1.placeholder(nets.tf.float32, (batch, 224, 224, 3))
    with nets.slim.arg_scope(nets.resnet_arg_scope()):
        _, end_points = nets.resnet_v1_50(inputs, CLASSES, is_training=False)
    config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
    session = v1.Session(config=config)
    for variable in v1.global_variables():
        variable.load(weights[variable.op.name], session)
    fed = {inputs: images(batch)}
    return lambda: session.run(end_points["predictions"], fed)


def serve(make: Callable[[str, int, int], Run], file: str, batch: int, threads: int, pipe: Connection) -> None:
    run = make(file, batch, threads)
    pipe.send(run())
    while pipe.recv():
        start = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - start)


def measure(file: str, batch: int, threads: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run by name; raises where the outputs differ."""
    context = multiprocessing.get_context("spawn")
    pipes, outputs = {}, {}
    for name, make in {"ours": ours, "tensorflow": tensorflow}.items():
        pipes[name], other = context.Pipe()
        context.Process(target=serve, args=(make, file, batch, threads, other), daemon=True).start()
        outputs[name] = pipes[name].recv()
    np.testing.assert_allclose(outputs["ours"], outputs["tensorflow"], rtol=0, atol=1e-4)
    assert outputs["ours"].max() > 1 / CLASSES, "a network that says nothing proves nothing"
    times: dict[str, list[float]] = {name: [] for name in pipes}
    for turn in range(runs + 3):
        for name, pipe in pipes.items():
            time.sleep(PAUSE)
            pipe.send(True)
            elapsed = pipe.recv()
            if turn >= 3:  # the first turns warm up
                times[name].append(1000 * elapsed)
    for pipe in pipes.values():
        pipe.send(False)
    return times


@click.command()
@click.option("--batch", default=1, show_default=True)
@click.option("--runs", default=30, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Also write the figures here, as JSON.")
def main(batch: int, runs: int, threads: int, output: Path | None) -> None:
    from variables import random_variables

    from resnet_ref import save_weights
    from resnet_ref.network import Network

    network = {"function": "resnet_v1_50", "num_classes": CLASSES}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/resnet_v1_50.h5"
        save_weights(file, random_variables(Network.from_json(network).variables()), network)
        times = measure(file, batch, threads, runs)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        click.echo(f"{name:<11} median {medians[name]:7.1f} ms   quartiles {low:7.1f} .. {high:7.1f}   {runs} runs")
    ratio = medians["ours"] / medians["tensorflow"]
    click.echo(f"ours / TensorFlow: {ratio:.2f} (batch {batch}, {threads} threads)")
    if output is not None:
        packages = ("resnet-ref", "numpy", "numba", "tensorflow", "tf_slim")
        what = "resnet_v1_50 at 224x224, milliseconds a run"
        save(output, packages, what=what, batch=batch, threads=threads, ratio=ratio, medians=medians, times=times)


if __name__ == "__main__":
    main()
