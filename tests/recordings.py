"""Recordings for tests: of slim itself, and, where TensorFlow is not wanted, of the definition in slim's place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref import kernels
from resnet_ref.facts import Facts
from resnet_ref.images import read_image
from resnet_ref.recording import Recorded, sample_positions, write_recording
from resnet_ref.verification.setup import Setup
from resnet_ref.weights_file import Weights


def prepared(weights: Weights, files: Sequence[Path]) -> NDArray[np.float32]:
    assert weights.preprocessing is not None
    return np.stack([weights.preprocessing(read_image(file)) for file in files])


def record_definition(
    path: Path,
    weights: Weights,
    files: Sequence[Path],
    *,
    sample: int | None = None,
    setup: Setup | None = None,
    inputs: NDArray[np.float32] | None = None,
    device: str = "definition",
    **facts: Any,
) -> Path:
    """What the float32 definition computes, written as `record` writes what slim computes."""
    given = prepared(weights, files) if inputs is None else inputs
    setup = Setup(weights.network, dict(weights), given) if setup is None else setup
    end_points: dict[str, Any] = {}
    setup.describe(setup.eager(kernels.on(device), np.dtype(np.float32)), setup.inputs, end_points)
    recorded = []
    for name, values in end_points.items():
        positions = sample_positions(name, values.size, sample)
        flat = values.reshape(-1)
        recorded.append((name, Recorded(values.shape, flat if positions is None else flat[positions], positions)))
    said: dict[str, Any] = {
        "network": setup.network.to_json() if setup.network.function != "resnet_v1" else weights.network.to_json(),
        "is_training": setup.is_training,
        "preprocessing": None if weights.preprocessing is None else weights.preprocessing.to_json(),
        "labels": weights.labels,
        "source": {},
        "versions": {"definition": "in slim's place"},
        "sample": sample,
    }
    images = [(file.name, file.read_bytes()) for file in files]
    write_recording(path, Facts(**{**said, **facts}), images, given, recorded, setup.variables)
    return path
