"""Networks that nobody chose: random blocks, sizes and options, on the cpu, against the definition in float64.

How far float32 may stray depends on the network; here the definition in float32 is the measure, as TensorFlow is in
`accuracy`.
"""

import numpy as np
from accuracy import EPS, error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from variables import random_variables

from resnet_ref import resnet_v1
from resnet_ref.handle import Handle
from resnet_ref.resnet_utils import Block
from resnet_ref.shapes import Shapes, Spec

UNIT = st.fixed_dictionaries(
    {"depth": st.integers(1, 37), "depth_bottleneck": st.integers(1, 19), "stride": st.integers(1, 3)}
)
BLOCKS = st.lists(st.lists(UNIT, min_size=1, max_size=3), min_size=1, max_size=3)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    blocks=BLOCKS, shape=SHAPES, root=st.booleans(), late=st.booleans(), strides=st.integers(0, 9),
    scope=st.fixed_dictionaries(
        {"use_batch_norm": st.booleans(), "batch_norm_scale": st.booleans(), "use_bounded_activations": st.booleans(),
         "activation_fn": st.sampled_from(["relu", "relu6", None])}
    ), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_cpu_is_as_near_to_float64_as_the_definition_in_float32_is(blocks, shape, root, late, strides, scope, seed):
    made = [Block(f"block{i}", resnet_v1.bottleneck, units) for i, units in enumerate(blocks, 1)]
    reached = np.cumprod([1] + [unit["stride"] for units in blocks for unit in units])
    output_stride = None if late else int(reached[min(strides, len(reached) - 1)]) * (4 if root else 1)
    arguments = {
        "num_classes": 3,
        "is_training": False,
        "include_root_block": root,
        "output_stride": output_stride,
        "store_non_strided_activations": late,
        "arg_scope": resnet_v1.resnet_arg_scope(**scope),
    }
    shapes = Shapes()
    _, specs = resnet_v1.resnet_v1(Handle(shapes, Spec(shape)), made, **arguments)
    weights = random_variables(shapes.variables, seed)
    images = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

    def run(device, dtype="float32"):
        return resnet_v1.resnet_v1(images, made, weights=weights, device=device, dtype=dtype, **arguments)[1]

    truth, cpu, definition = run("definition", "float64"), run("cpu"), run("definition")
    described = {name: spec.shape for name, spec in specs.items()}
    assert {name: value.shape for name, value in cpu.items()} == described
    assert list(cpu) == list(definition) == list(truth) == list(described)
    largest = 0.0
    for name, value in truth.items():
        largest = max(largest, error(definition[name], value))
        assert error(cpu[name], value) <= 4 * largest + 4 * EPS, name
