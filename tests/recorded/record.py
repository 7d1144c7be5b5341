"""Records what slim computes, so that tests can compare with it where TensorFlow cannot be installed.

    python tests/recorded/record.py

Each networks_*.npz holds the images, the variables, slim's end points and, in training, the updated moving averages,
all float32, and `made_by`: TensorFlow's version, the case and this command. `digits.npz` holds slim's logits and
probabilities of the shipped network for the shipped images.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from networks import RECORDED, Case  # noqa: E402
from variables import random_variables  # noqa: E402

from resnet_ref import load_model, oracle  # noqa: E402
from resnet_ref.images import find_images, read_image  # noqa: E402

COMMAND = "python tests/recorded/record.py"


def made_by(what: str) -> str:
    tf, _ = oracle.tensorflow()
    return json.dumps({"tensorflow": tf.__version__, "what": what, "seed": 0, "command": COMMAND})


def record_network(file: str, case: Case) -> None:
    slim = oracle.run(case.slim, case.images, random_variables, fetch_updates=case.trains)
    groups = {"variables": slim.variables, "end_points": slim.end_points, "updated": slim.updated}
    arrays = {f"{group}:{name}": array for group, held in groups.items() for name, array in held.items()}
    np.savez_compressed(HERE / file, made_by=made_by(repr(case)), images=case.images, **arrays)


def record_digits() -> None:
    model = load_model()
    files = find_images([HERE.parents[1] / "weights" / "digits"])
    images = np.stack([model.preprocessing(read_image(file)) for file in files])

    def build(nets: oracle.Nets, inputs: object) -> object:
        with nets.slim.arg_scope(nets.resnet_arg_scope()):
            return nets.resnet_v1_50(inputs, 10, is_training=False, depth_multiplier=0.125)

    slim = oracle.run(build, images, model.weights)
    np.savez_compressed(
        HERE / "digits.npz",
        made_by=made_by("the shipped network on the shipped images"),
        files=[file.name for file in files],
        logits=slim.net,
        predictions=slim.end_points["predictions"],
    )


if __name__ == "__main__":
    for name, recorded in RECORDED.items():
        record_network(name, recorded)
    record_digits()
