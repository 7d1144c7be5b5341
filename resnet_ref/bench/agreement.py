"""Whether contenders compute the same, which is asked before anything is timed, and how far each is from the truth."""

import itertools
from collections.abc import Mapping

import numpy as np

from resnet_ref.accuracy import BITS
from resnet_ref.bench.files import Files
from resnet_ref.bench.process import Outputs
from resnet_ref.errors import VerificationError
from resnet_ref.kernels.arrays import Array
from resnet_ref.model import load_model

# Of the largest value. An honest float32 convolution stays below 1e-5, a wrong pad or layer lies far above.
ALLOWED = 1e-4
# An operand errs by up to 2^-bits of itself, and the logits of ResNet-50, -152 and -200, emulated so, by 0.8 to 1.0
# times that; those of the digits network by up to 1.6. Errors of many products cancel, and batch norm keeps the scale,
# so that depth adds little.
TIMES = 8  # as often as that may the logits err
DEFINITION = "the float64 definition"


def allowed(precision: str) -> float:
    """How far a contender that computes in `precision` may be from the truth, of the largest value."""
    return max(ALLOWED, TIMES * 0.5 ** BITS[precision]) if precision in BITS else ALLOWED


def truth(files: Files, batch: int) -> Outputs:
    """The definition in float64 on the first and the last image: what goes wrong in part of a batch does so at its end.

    Images do not see each other in inference, so that the others need not be there.
    """
    model = load_model(files.weights, device="definition", precision="float64")
    images = _ends(files.images(batch))
    result, found = model(images, end_points=[files.logits] if files.logits else [])
    return Outputs(result, found[files.logits] if files.logits else None)


def error(outputs: Outputs, true: Outputs) -> float:
    """max |a - t| / max |t| on the images of `truth`, at the logits (or at the result, where there are none)."""
    return _difference(_ends(outputs.telling), true.telling) / float(np.abs(true.telling).max())


def require_agreement(
    outputs: Mapping[str, Outputs], true: Outputs, precisions: Mapping[str, str] | None = None
) -> None:
    """VerificationError names two that differ: any two of `outputs`, on every image, or one and the truth.

    Allowed is `allowed` of the largest value at the logits, of two the looser one's; at the result the same, or, where
    it is larger, half of what that allows at the logits in absolute terms: so much may softmax make of it.
    precisions: of those that do not compute in float32.
    """
    bounds = {name: allowed((precisions or {}).get(name, "float32")) for name in outputs}
    if not np.isfinite(true.telling).all() or not true.telling.any():
        raise VerificationError(
            "the network's outputs are all zero, or not finite, in float64; agreeing on them would prove nothing"
        )
    pairs = list(itertools.combinations(outputs.items(), 2))
    for name, found in outputs.items():
        ends = Outputs(_ends(found.result), None if found.logits is None else _ends(found.logits))
        pairs.insert(0, ((name, ends), (DEFINITION, true)))
    for (name, a), (other, b) in pairs:
        bound, logits = max(bounds[name], bounds.get(other, 0.0)), 0.0
        if a.logits is not None and b.logits is not None:
            logits = bound * float(np.abs(b.logits).max())
            _require(f"{name} and {other}", "logits", a.logits, b.logits, logits)
        result = max(bound * float(np.abs(b.result).max()), logits / 2)
        _require(f"{name} and {other}", "result", a.result, b.result, result)


def _ends(images: Array) -> Array:
    """The first and the last of a batch."""
    return images[:: max(1, len(images) - 1)]


def _require(who: str, where: str, a: Array, b: Array, most: float) -> None:
    if a.shape != b.shape:
        raise VerificationError(f"{who} disagree: the {where} have shapes {list(a.shape)} and {list(b.shape)}")
    if not (largest := _difference(a, b)) <= most:
        raise VerificationError(
            f"{who} disagree: the largest difference at the {where} is {largest:.3g}, "
            f"allowed is {most:.3g}; nothing was timed"
        )


def _difference(a: Array, b: Array) -> float:
    return float(np.abs(np.asarray(a, np.float64) - b).max()) if a.shape == b.shape else float("nan")
