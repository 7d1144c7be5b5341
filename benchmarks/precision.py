"""How far from the float64 definition each way to compute lies: in whole networks, and in sums of K products.

    python benchmarks/precision.py [--output benchmarks/results/precision.json]

Two networks: resnet_v1_50 at full width and 224x224 with random weights, on two photographs of scikit-learn's, and the
digits network that ships, on its 12 images. bf16's products are emulated where there is no AMX. A gpu's tensor cores
are a model: the definition in float64, whose convolutions take operands rounded to that many bits. TensorFlow runs
where it is installed, and only then the JSON has shares of the accuracy rule. Takes a minute on two cores.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from planned import ISAS, convolved, forced, target_for  # noqa: E402
from recording import save  # noqa: E402

from resnet_ref import kernels, load_weights, oracle  # noqa: E402
from resnet_ref.accuracy import BITS, Rule, error  # noqa: E402
from resnet_ref.eager import Eager  # noqa: E402
from resnet_ref.handle import Handle  # noqa: E402
from resnet_ref.images import read_image  # noqa: E402
from resnet_ref.kernels.activation import bounds  # noqa: E402
from resnet_ref.kernels.conv2d.bf16 import PRODUCTS  # noqa: E402
from resnet_ref.kernels.conv2d.bf16_planned import bf16  # noqa: E402
from resnet_ref.kernels.conv2d.choice import Way, by_model  # noqa: E402
from resnet_ref.kernels.conv2d.direct_planned import direct  # noqa: E402
from resnet_ref.kernels.conv2d.winograd_matrices import TAPS, matrices  # noqa: E402
from resnet_ref.kernels.conv2d.winograd_planned import winograd  # noqa: E402
from resnet_ref.kernels.geometry import valid  # noqa: E402
from resnet_ref.kernels.library import library  # noqa: E402
from resnet_ref.kernels.vector.isa import AMX, emulated, has_amx  # noqa: E402
from resnet_ref.kernels.vector.matrix import require_permission  # noqa: E402
from resnet_ref.kernels.vector.step import Target  # noqa: E402
from resnet_ref.kernels.vector.tile import LONGEST_SUM  # noqa: E402
from resnet_ref.network import Network  # noqa: E402
from resnet_ref.plan.plan import Plan, named_outputs  # noqa: E402
from resnet_ref.preprocessing import Preprocessing  # noqa: E402
from resnet_ref.random_weights import random_variables  # noqa: E402
from resnet_ref.shapes import Shapes, Spec  # noqa: E402

Array = NDArray[Any]
Values = Mapping[str, Array]
Products = Callable[[Array, Array], Iterator[tuple[Array, Array]]]

POINTS = ("conv1", "block1", "block2", "block3", "block4", "logits", "predictions")
CHANNELS = (8, 16, 32, 64, 128, 256, 512)  # of the single convolutions, 3x3: K = 72 ... 4608
TIES_AWAY = ("tf32",)  # the others: to even
# A rounding errs by at most 2^-bits, relatively, and by this times that in the root mean square: of an even error its
# square's mean is a third of the largest, and of the numbers m 2^e, their logarithms even, 1 / m^2 has 3 / (8 ln 2).
TYPICAL = math.sqrt(3 / (8 * math.log(2)) / 3)


def rounded(x: Array, bits: int, away: bool = False) -> Array:
    """x to the nearest of `bits` significant bits, ties to even or away from zero; exponents have no bounds."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    with np.errstate(invalid="ignore"):
        scaled = np.ldexp(np.abs(mantissa), bits)
        whole = np.floor(scaled)
        whole = np.where(scaled - whole >= 0.5, whole + 1, whole) if away else np.rint(scaled)
        found = np.copysign(np.ldexp(whole, exponent - bits), x)
    return np.where(np.isfinite(x), found, x).astype(x.dtype)


def to_precision(x: Array, precision: str) -> Array:
    """x as a tensor core takes it: one of accuracy.BITS."""
    return rounded(x, BITS[precision], precision in TIES_AWAY)


def split(x: Array) -> tuple[Array, Array]:
    """tf32x3's big and small: x to tf32, and what is left to tf32 too."""
    big = to_precision(x, "tf32")
    return big, to_precision(x - big, "tf32")


def single(precision: str) -> Products:
    """One product of operands rounded to a precision."""

    def products(x: Array, w: Array) -> Iterator[tuple[Array, Array]]:
        yield to_precision(x, precision), to_precision(w, precision)

    return products


def tf32x3(x: Array, w: Array) -> Iterator[tuple[Array, Array]]:
    """Three products of tf32, the small ones first; small by small is left out."""
    (big_x, small_x), (big_w, small_w) = split(x), split(w)
    yield small_x, big_w
    yield big_x, small_w
    yield big_x, big_w


class Modelled:
    """The definition's kernels, but that a convolution is a sum of products of other operands."""

    def __init__(self, products: Products) -> None:
        self._definition, self._products = kernels.on("definition"), products

    def __getattr__(self, name: str) -> Any:
        return getattr(self._definition, name)

    def conv2d(
        self, x: Array, w: Array, *windows: Any, bias: Array | None = None, activation: str | None = None
    ) -> Array:
        """conv2d's y, its products as the model makes them."""
        y = sum(self._definition.conv2d(a, b, *windows) for a, b in self._products(x, w))
        return np.clip(y if bias is None else y + bias, *bounds(activation))


def eagerly(network: Network, weights: Values, images: Array, tier: Any, dtype: str = "float32") -> Values:
    """The end points, layer by layer, on a tier."""
    arrays = {name: np.asarray(array, dtype) for name, array in weights.items()}
    return network.describe(Handle(Eager(tier, arrays, np.dtype(dtype)), images.astype(dtype)))[1]


def bf16_target() -> tuple[Target, str]:
    """What computes products of bf16, and how."""
    if has_amx():
        require_permission()
        return Target(library(AMX), 2), "AMX"
    return Target(library(emulated()), 2), "emulated"


def ways(network: Network, weights: Values, images: Array) -> Iterator[tuple[str, Callable[[], Values]]]:
    """Each way to compute the end points."""

    def plan(target: Target, choose: Any) -> Callable[[], Values]:
        names = list(named_outputs(network.describe, Shapes(), Spec(images.shape)))
        return lambda: Plan(network.describe, weights, target, images.shape, names, choose)(images)

    definition, on = kernels.on("definition"), partial(eagerly, network, weights, images)
    vectors = target_for(ISAS[0], 2)
    yield "definition", partial(on, definition)
    yield "eager", partial(on, kernels.on("cpu", 2))
    for algorithm in ("direct", "auto", "fast"):
        yield algorithm, plan(vectors, by_model(Way(algorithm)))
    for m in (2, 4):
        yield f"F({m}x{m})", plan(vectors, forced(partial(winograd, m=m, fused_tiles=None)))
    for precision in reversed(PRODUCTS):
        yield precision, plan(bf16_target()[0], partial(bf16, precision=precision))
    yield "tf32x3 model", partial(on, Modelled(tf32x3), "float64")
    yield "tf32x3 model, float32 sums", partial(on, Modelled(tf32x3), "float32")
    for precision in ("tf32", "bfloat16"):
        yield f"{precision} model", partial(on, Modelled(single(precision)), "float64")


def slim(network: Network, weights: Values, images: Array) -> Values | None:
    """The end points by TensorFlow, where it is installed."""
    if find_spec("tensorflow") is None or find_spec("tf_slim") is None:
        return None

    def build(nets: oracle.Nets, inputs: Any) -> Any:
        with oracle.scoped(nets, network.arg_scope):
            return getattr(nets, network.function)(inputs, is_training=False, **network.arguments)

    return oracle.run(build, images, weights).end_points


def few(value: float) -> float:
    """Three digits, as the JSON has them."""
    return float(f"{value:.3g}")


def measured(network: Network, weights: Values, images: Array) -> dict[str, Any]:
    """Each way's errors, by end point; and how near the two likeliest classes lie."""
    truth = eagerly(network, weights, images, kernels.on("definition"), "float64")
    places = {point: next(name for name in truth if name.split("/")[-1] == point) for point in POINTS}
    top = truth["predictions"].argmax(axis=-1)
    theirs = slim(network, weights, images)

    def judge(found: Values) -> dict[str, Any]:
        errors = {name: error(found[name], true) for name, true in truth.items()}
        kept = {
            **{point: few(errors[name]) for point, name in places.items()},
            "median": few(float(np.median(list(errors.values())))),
            "largest": few(max(errors.values())),
            "changed": int((found["predictions"].argmax(axis=-1) != top).sum()),
        }
        if theirs is not None and found is not theirs:
            rule, used = Rule(), 0.0
            for name, true in truth.items():
                scale = float(np.abs(true).max())
                near = error(found[name], theirs[name], scale)
                slims = error(theirs[name], true)
                used = max(used, rule.shares(name, errors[name], slims, near, scale)["ours is right"])
            kept["rule"] = few(used)
        return kept

    errors = {}
    if theirs is not None:
        errors["tensorflow"] = judge(theirs)
    for name, compute in ways(network, weights, images):
        errors[name] = judge(compute())
        click.echo(f"{name:<28} logits {errors[name]['logits']:.1e}  median {errors[name]['median']:.1e}")
    logits = np.sort(truth[places["logits"]].reshape(len(images), -1), axis=1)
    gaps = (logits[:, -1] - logits[:, -2]) / np.abs(logits).max()
    return {
        "images": len(images),
        "size": list(images.shape[1:3]),
        "end points": len(truth),
        "least gap": few(float(gaps.min())),
        "winograd": {
            algorithm: winograd_count(network, weights, images.shape, algorithm) for algorithm in ("auto", "fast")
        },
        "errors": errors,
    }


def winograd_count(network: Network, weights: Values, shape: tuple[int, ...], algorithm: str) -> dict[str, int]:
    """How many convolutions a plan computes by F(2x2) and by F(4x4)."""
    found = {}

    def choose(target: Target, conv: Any) -> Any:
        steps = by_model(Way(algorithm))(target, conv)
        found[conv.name] = next((f"F({m}x{m})" for m in (2, 4) if is_winograd(steps, m)), "direct")
        return steps

    names = list(named_outputs(network.describe, Shapes(), Spec(shape)))
    Plan(network.describe, weights, target_for(ISAS[0], 2), shape, names, choose)
    return dict(sorted(Counter(found.values()).items()))


def is_winograd(steps: Any, m: int) -> bool:
    """Whether one of a convolution's steps is F(m x m)'s."""
    return any(f"F({m}x{m})" in step.algorithm for step in steps)


def photographs() -> Array:
    """scikit-learn's two, as slim's preprocessing makes them."""
    from sklearn.datasets import load_sample_images

    return np.stack([Preprocessing()(image) for image in load_sample_images().images])


def changed(network: Network, weights: Values, images: Array) -> dict[str, int]:
    """Of how many images each way's likeliest class is another than the truth's."""
    counts: Counter[str] = Counter()
    for part in np.array_split(images, -(-len(images) // 60)):
        truth = eagerly(network, weights, part, kernels.on("definition"), "float64")
        for name, compute in ways(network, weights, part):
            counts[name] += int(
                (compute()["predictions"].argmax(axis=-1) != truth["predictions"].argmax(axis=-1)).sum()
            )
    return dict(counts)


def held_out(weights: Any) -> Array:
    """The scans that the digits network was not trained on."""
    from sklearn.datasets import load_digits

    scans = load_digits().images[json.loads((ROOT / "weights" / "digits" / "split.json").read_text())["test"]]
    grey = np.round(scans * (255 / 16)).astype(np.uint8)
    return np.stack([weights.preprocessing(image) for image in np.repeat(grey[..., None], 3, axis=3)])


def digits(weights: Any) -> Array:
    """The 12 images beside the digits network."""
    files = sorted((ROOT / "weights" / "digits").glob("*.png"))
    return np.stack([weights.preprocessing(read_image(file)) for file in files])


def gain(m: int) -> float:
    """What F(m x m) makes of rounding errors of its sums of products, of a sum of the same products in its own place.

    In one dimension an output is sum_i a_i (g_i . g) (b_i . d); for random g and d the i-th term has power
    |a_i|^2 |g_i|^2 |b_i|^2, and the terms' errors are as large as they are, while an output has only the power 3, since
    the terms cancel. Two dimensions: twice that.
    """
    a, g, b = matrices(m)
    powers = (a**2) @ ((g**2).sum(axis=1) * (b**2).sum(axis=1)) / TAPS
    return float(np.sqrt(np.outer(powers, powers).mean()))


def predicted(channels: int) -> dict[str, float]:
    """The root mean square error of a sum of K = 9 channels products of normal numbers, over the sum's own."""
    k = TAPS * TAPS * channels
    pieces = k / min(k, LONGEST_SUM)
    in_turn = min(k, 128) / 8  # np.sum adds 128 products in 8 sums, and then those, and all 128s, two by two
    levels = 3 + max(0.0, math.log2(k / 128))
    sums, tf32, brain = (TYPICAL * 2.0**-bits for bits in (24, BITS["tf32"], BITS["bfloat16"]))
    # `small` of tf32x3 misses the last of the 24 bits of every fourth number: the bit 2^-23 of a number in [1, 2).
    last_bit = math.sqrt(3) * TYPICAL * 2.0**-23 / 2
    return {
        "one by one": sums * math.sqrt(k / 2),
        "tile": sums * math.sqrt(k / pieces / 2 + (pieces / 2 if pieces > 1 else 0)),
        "pairwise": sums * math.sqrt(1 + (in_turn - 1) / 2 + levels),
        "F(2x2)": sums * gain(2) * math.sqrt(channels / 2 + 3),
        "F(4x4)": sums * gain(4) * math.sqrt(channels / 2 + 3),
        "tf32x3": math.hypot(tf32**2, math.sqrt(2) * last_bit),
        "tf32": math.sqrt(2) * tf32,
        "bf16x3": math.sqrt(3) * brain**2,
        "bfloat16": math.sqrt(2) * brain,
    }


def summed(channels: int, seed: int = 0) -> dict[str, float]:
    """Root mean square errors of a 3x3 convolution of `channels`, over the truth's own root mean square."""
    rng = np.random.default_rng([seed, channels])
    x = rng.standard_normal((1, 18, 18, channels)).astype(np.float32)
    w = rng.standard_normal((TAPS, TAPS, channels, 16)).astype(np.float32)
    windows = valid(TAPS), valid(TAPS)
    definition = kernels.on("definition")
    truth = definition.conv2d(x.astype(np.float64), w.astype(np.float64), *windows)
    size = np.sqrt(np.mean(truth**2))

    def modelled(products: Products) -> Array:
        return Modelled(products).conv2d(x.astype(np.float64), w.astype(np.float64), *windows)

    rows, columns = definition.im2col(x, *windows), w.reshape(-1, w.shape[3])

    def by(add: Callable[[Array], Array]) -> Array:
        return np.stack([add(rows * column) for column in columns.T], axis=-1).reshape(truth.shape)

    vectors, matrix = target_for(ISAS[0]), bf16_target()[0]
    found = {
        "one by one": by(lambda products: np.cumsum(products, axis=1, dtype=np.float32)[:, -1]),
        "pairwise": by(lambda products: products.sum(axis=1)),
        "tile": convolved(vectors, direct, x, w, *windows),
        **{f"F({m}x{m})": convolved(vectors, partial(winograd, m=m, fused_tiles=None), x, w, *windows) for m in (2, 4)},
        **{name: convolved(matrix, partial(bf16, precision=name), x, w, *windows) for name in ("bf16x6", "bf16x3")},
        "tf32x3": modelled(tf32x3),
        "tf32": modelled(single("tf32")),
        "bfloat16": modelled(single("bfloat16")),
    }
    return {name: float(np.sqrt(np.mean((y - truth) ** 2)) / size) for name, y in found.items()}


def sums() -> dict[str, Any]:
    """Of each number of products: measured and predicted."""
    found, model = [summed(c) for c in CHANNELS], [predicted(c) for c in CHANNELS]
    return {
        "K": [TAPS * TAPS * c for c in CHANNELS],
        "measured": {name: [few(one[name]) for one in found] for name in found[0]},
        "predicted": {name: [few(one[name]) for one in model] for name in model[0]},
    }


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures here, as JSON.")
def main(output: Path | None) -> None:
    wide = Network.from_json({"function": "resnet_v1_50", "num_classes": 1000})
    shipped = load_weights()
    networks = {
        "resnet_v1_50": measured(wide, random_variables(wide.variables()), photographs()),
        "digits": measured(shipped.network, dict(shipped), digits(shipped)),
    }
    unseen = held_out(shipped)
    counts = {"images": len(unseen), "changed": changed(shipped.network, dict(shipped), unseen)}
    figures = {"held out": counts, "isa": ISAS[0], "bf16": bf16_target()[1], "networks": networks, "sums": sums()}
    if output is not None:
        packages = ["resnet-ref", "numpy", "numba", "llvmlite", "scikit-learn"]
        packages += [name for name in ("tensorflow", "tf_slim") if find_spec(name)]
        what = "max |a - t| / max |t| at end points, t the definition in float64; of sums of K products rms over rms"
        save(output, tuple(packages), what=what, **figures)


if __name__ == "__main__":
    main()
