"""The layers that a user's own unit function is made of take slim's arguments, and refuse the rest by name."""

import numpy as np
import pytest
from variables import random_variables

from resnet_ref import layers, resnet_utils
from resnet_ref.errors import ShapeError
from resnet_ref.handle import Handle
from resnet_ref.shapes import Shapes, Spec


def net(shape=(2, 13, 18, 5)):
    return Handle(Shapes(), Spec(shape))


def test_sizes_are_one_number_or_two():
    assert layers.conv2d(net(), 7, [3, 2], stride=[2, 3]).shape == (2, 7, 6, 7)
    assert layers.conv2d(net(), 7, 3, 2).shape == (2, 7, 9, 7)
    assert layers.max_pool2d(net(), [3, 3], 2).shape == layers.max_pool2d(net(), 3).shape == (2, 7, 9, 5)
    assert layers.conv2d(net(), 7, [3, 2], padding="VALID").shape == (2, 11, 17, 7)


def test_without_a_normalizer_a_convolution_has_biases():
    shapes = Shapes()
    layers.conv2d(Handle(shapes, Spec((1, 4, 5, 3))), 2, 1, normalizer_fn=None, scope="a")
    assert shapes.variables == {"a/weights": (1, 1, 3, 2), "a/biases": (2,)}


@pytest.mark.parametrize("device", ["definition", "cpu"])
def test_a_unit_function_of_ones_own_computes_what_it_says(device):
    def unit(inputs, depth, stride, rate=1, scope=None):
        inside = inputs.within("mine")
        y = layers.conv2d(inside, depth, [1, 3], [1, stride], activation_fn=None, normalizer_fn=None, scope="a")
        return layers.max_pool2d(y, [2, 1], [2, 1], "VALID").at(inputs)

    blocks = [resnet_utils.Block("block1", unit, [{"depth": 4, "stride": 1}])]
    weights = random_variables({"block1/unit_1/mine/a/weights": (1, 3, 2, 4), "block1/unit_1/mine/a/biases": (4,)})
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 2)).astype(np.float32)
    y = resnet_utils.stack_blocks_dense(x, blocks, weights=weights, device=device)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (0, 0)))
    w = weights["block1/unit_1/mine/a/weights"][0]
    dense = sum(padded[:, :, k : k + 6] @ w[k] for k in range(3)) + weights["block1/unit_1/mine/a/biases"]
    np.testing.assert_allclose(y, np.maximum(dense[:, 0:4:2], dense[:, 1:4:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: layers.conv2d(np.zeros((1, 4, 4, 3), np.float32), 2, 1), "layers take the net .* got ndarray"),
        (lambda: layers.conv2d(net(), -3, 1), "num_outputs must be a whole number of at least 1, got -3"),
        (lambda: layers.conv2d(net(), 2, [3]), r"kernel_size must be a whole number .* got \[3\]"),
        (lambda: layers.conv2d(net(), 2, 3, "2"), "stride must be a whole number .* got '2'"),
        (lambda: layers.conv2d(net(), 2, 3, 2, rate=2), "stride 2 > 1 is not supported together with rate 2 > 1"),
        (lambda: layers.conv2d(net(), 2, 3, padding="same"), 'padding must be "SAME", "VALID" or "FIXED"'),
        (lambda: layers.conv2d(net((2, 3)), 2, 3), r"needs \[N, H, W, C\], got shape \[2, 3\]"),
        (lambda: resnet_utils.subsample(net(), 0), "factor must be a whole number of at least 1, got 0"),
        (lambda: resnet_utils.stack_blocks_dense(net(), None), "blocks must be a list of Blocks, got NoneType"),
        (lambda: resnet_utils.stack_blocks_dense(net(), [1]), "blocks must be a list of Block.* got 1 in it"),
        (
            lambda: resnet_utils.stack_blocks_dense(net(), [resnet_utils.Block("b", lambda n, rate: None, [{}])]),
            "b: unit_fn must return the unit's output, got None",
        ),
    ],
)
def test_misuse_is_refused_by_name(call, said):
    with pytest.raises(ShapeError, match=said):
        call()
