"""Whether contenders compute the same, which is asked before anything is timed, and how far each is from the truth."""

import itertools
from collections.abc import Mapping

import numpy as np

from resnet_ref.bench.files import Files
from resnet_ref.bench.process import Outputs
from resnet_ref.errors import VerificationError
from resnet_ref.kernels.arrays import Array
from resnet_ref.model import load_model

# Of the largest value. An honest float32 convolution stays below 1e-5, a wrong pad or layer lies far above.
ALLOWED = 1e-4
DEFINITION = "the float64 definition"


def truth(files: Files) -> Outputs:
    """The definition in float64 on the first image; images do not see each other in inference, so one is enough."""
    model = load_model(files.weights.path, device="definition", precision="float64")
    result, found = model(files.images(1), end_points=[files.logits] if files.logits else [])
    return Outputs(result, found[files.logits] if files.logits else None)


def error(outputs: Outputs, true: Outputs) -> float:
    """max |a - t| / max |t| on the first image, at the logits (or at the result, where there are none)."""
    return _difference(outputs.telling[:1], true.telling) / float(np.abs(true.telling).max())


def require_agreement(outputs: Mapping[str, Outputs], true: Outputs) -> None:
    """VerificationError names two that differ: any two of `outputs`, on every image, or one and the truth.

    Allowed is ALLOWED of the largest value at the logits; at the result the same, or, where it is larger, half of what
    that allows at the logits in absolute terms: so much may softmax make of it.
    """
    if not np.isfinite(true.telling).all() or not true.telling.any():
        raise VerificationError(
            "the network's outputs are all zero, or not finite, in float64; agreeing on them would prove nothing"
        )
    pairs = list(itertools.combinations(outputs.items(), 2))
    for name, found in outputs.items():
        first = Outputs(found.result[:1], None if found.logits is None else found.logits[:1])
        pairs.insert(0, ((name, first), (DEFINITION, true)))
    for (name, a), (other, b) in pairs:
        logits = 0.0
        if a.logits is not None and b.logits is not None:
            logits = ALLOWED * float(np.abs(b.logits).max())
            _require(f"{name} and {other}", "logits", a.logits, b.logits, logits)
        allowed = max(ALLOWED * float(np.abs(b.result).max()), logits / 2)
        _require(f"{name} and {other}", "result", a.result, b.result, allowed)


def _require(who: str, where: str, a: Array, b: Array, allowed: float) -> None:
    if a.shape != b.shape:
        raise VerificationError(f"{who} disagree: the {where} have shapes {list(a.shape)} and {list(b.shape)}")
    if not (largest := _difference(a, b)) <= allowed:
        raise VerificationError(
            f"{who} disagree: the largest difference at the {where} is {largest:.3g}, "
            f"allowed is {allowed:.3g}; nothing was timed"
        )


def _difference(a: Array, b: Array) -> float:
    return float(np.abs(np.asarray(a, np.float64) - b).max()) if a.shape == b.shape else float("nan")
