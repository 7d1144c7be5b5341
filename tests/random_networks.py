"""Networks that nobody chose: random blocks, sizes and options, as calls of ours."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from accuracy import EPS, error
from hypothesis import strategies as st
from numpy.typing import NDArray
from variables import random_variables

from resnet_ref import resnet_v1
from resnet_ref.handle import Handle
from resnet_ref.plan.plan import RESULT
from resnet_ref.resnet_utils import Block
from resnet_ref.shapes import Shapes, Spec

UNIT = st.fixed_dictionaries(
    {"depth": st.integers(1, 37), "depth_bottleneck": st.integers(1, 19), "stride": st.integers(1, 3)}
)
BLOCKS = st.lists(st.lists(UNIT, min_size=1, max_size=3), min_size=1, max_size=3)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
SCOPES = st.fixed_dictionaries(
    {
        "use_batch_norm": st.booleans(),
        "batch_norm_scale": st.booleans(),
        "use_bounded_activations": st.booleans(),
        "activation_fn": st.sampled_from(["relu", "relu6", None]),
    }
)


SAMPLES = 64  # of images and weights, to see how float32 errs: of 8, all may be lucky where an end point has few values


Compute = Callable[[list[str]], dict[str, NDArray[Any]]]


@dataclass
class RandomNetwork:
    """A call of resnet_v1 and the images' shape."""

    blocks: list[Block]
    shape: tuple[int, ...]
    arguments: dict[str, Any]
    seed: int

    def describe(self, handle: Handle) -> Any:
        """(net, end_points) of a handle."""
        return resnet_v1.resnet_v1(handle, self.blocks, **self.arguments)

    @cached_property
    def shapes(self) -> Shapes:
        shapes = Shapes()
        self.specs = self.describe(Handle(shapes, Spec(self.shape)))[1]
        return shapes

    @cached_property
    def described(self) -> dict[str, tuple[int, ...]]:
        """End points and their shapes, in order."""
        _ = self.shapes
        return {name: spec.shape for name, spec in self.specs.items()}

    @cached_property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        return random_variables(self.shapes.variables, self.seed)

    @cached_property
    def images(self) -> NDArray[np.float32]:
        return np.random.default_rng(self.seed).standard_normal(self.shape).astype(np.float32)

    def run(self, device: str, dtype: str = "float32", images: Any = None, weights: Any = None) -> dict[str, Any]:
        """The end points, layer by layer; of the network's own images and weights, if no others are given."""
        images, weights = self.images if images is None else images, weights or self.weights
        where = {"weights": weights, "device": device, "dtype": dtype}
        return resnet_v1.resnet_v1(images, self.blocks, **where, **self.arguments)[1]

    def near(self, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
        """Weights so near that no sum is another, but each is rounded anew."""
        moved = {name: rng.uniform(-1e-4, 1e-4, array.shape) for name, array in self.weights.items()}
        return {name: (array * (1 + moved[name])).astype(np.float32) for name, array in self.weights.items()}

    def float32_errors(self) -> Iterator[dict[str, float]]:
        """How far the definition in float32 strays up to each end point: the largest after one sample, two, and so on.

        On few it may be lucky. Where no image reaches, as behind a relu that gives 0, weights make the difference.
        """
        errors, rng = dict.fromkeys(self.described, 0.0), np.random.default_rng(self.seed)
        for number in range(SAMPLES):
            images, largest = self.images * np.float32(rng.uniform(0.7, 1.3) if number else 1), 0.0
            weights = self.near(rng) if number else self.weights
            truth, single = (self.run("definition", dtype, images, weights) for dtype in ("float64", "float32"))
            for name, value in truth.items():
                largest = max(largest, error(single[name], value))
                errors[name] = max(errors[name], largest)
            yield errors

    def require_right(self, compute: Compute, asked: Iterable[Sequence[str]], allowed: float) -> None:
        """For each choice of end points, `compute` errs at most `allowed` times as much as the definition in float32.

        compute: arrays by name, of the names it is given.
        """
        truth, errors = self.run("definition", "float64"), dict.fromkeys(self.described, 0.0)
        for names in asked:
            found = compute([*names, RESULT])
            assert list(found) == [*names, RESULT]
            found["predictions"] = found.pop(RESULT)
            for name, value in found.items():
                assert value.shape == self.described[name]
                errors[name] = max(errors[name], error(value, truth[name]))
        far = {}
        for largest in self.float32_errors():  # more samples only make the bound wider
            far = {name: (e, largest[name]) for name, e in errors.items() if e > allowed * largest[name] + 4 * EPS}
            if not far:
                return
        raise AssertionError(f"errors, and those of the definition in float32: {far}")


@st.composite
def networks(draw: Any) -> RandomNetwork:
    """With and without a root block, atrous and not."""
    units = draw(BLOCKS)
    root, late = draw(st.booleans()), draw(st.booleans())
    reached = np.cumprod([1] + [unit["stride"] for block in units for unit in block])
    output_stride = None if late else int(draw(st.sampled_from(list(reached)))) * (4 if root else 1)
    arguments = {
        "num_classes": 3,
        "is_training": False,
        "include_root_block": root,
        "output_stride": output_stride,
        "store_non_strided_activations": late,
        "arg_scope": resnet_v1.resnet_arg_scope(**draw(SCOPES)),
    }
    blocks = [Block(f"block{i}", resnet_v1.bottleneck, block) for i, block in enumerate(units, 1)]
    return RandomNetwork(blocks, draw(SHAPES), arguments, draw(st.integers(0, 99)))
