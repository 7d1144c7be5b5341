"""What `verify` of the full-width resnet_v1_50 at 224 takes, beside the run and the float64 truth that it needs.

    python benchmarks/verification.py [--runs 5] [--output benchmarks/results/verification.json]

TensorFlow records and must be installed. Printed are the medians of each part, and the whole over run + truth.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from PIL import Image
from recording import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


@click.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Also write the figures here, as JSON.")
def main(runs: int, output: Path | None) -> None:
    from variables import random_variables

    from resnet_ref import load_weights, save_weights
    from resnet_ref.network import Network
    from resnet_ref.oracle.record import open_source, record
    from resnet_ref.recording import open_recording
    from resnet_ref.verification.verify import verify

    call = {"function": "resnet_v1_50", "num_classes": 1000}
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file, image, recorded = (Path(folder, name) for name in ("w.h5", "a.png", "r.h5"))
        save_weights(file, random_variables(Network.from_json(call).variables()), call, None, {"name": "vgg"})
        Image.fromarray(np.random.default_rng(8).integers(0, 256, (276, 372, 3), np.uint8)).save(image)
        record(open_source(file), [image], recorded)
        weights = load_weights(file)
        for device in ("cpu", "definition"):
            taken = []
            for _ in range(runs + 1):
                with open_recording(recorded) as opened:
                    found = verify(weights, opened, device=device)
                assert found.agrees, "a network that departs is not timed"
                taken.append(found.seconds)
            medians = {part: statistics.median(one[part] for one in taken[1:]) for part in taken[0]}
            ratio = medians["whole"] / (medians["run"] + medians["float64 truth"])
            figures[device] = {**medians, "whole / (run + truth)": ratio}
            click.echo(f"{device:<11} " + ", ".join(f"{part} {value:.2f}" for part, value in figures[device].items()))
    if output is not None:
        packages = ("resnet-ref", "tensorflow", "numpy", "numba")
        save(output, packages, what="seconds to verify resnet_v1_50 at 224, one image, whole", runs=runs, **figures)


if __name__ == "__main__":
    main()
