"""Why a whole ResNet50 gives other numbers in Keras and PyTorch: claims of docs/why_not_equal.md, as in
test_why_not_equal_layers.py.
"""

from typing import Any

import numpy as np
import pytest
from elsewhere import (
    CLASSES,
    KERAS_EPSILON,
    SYMMETRIC,
    Array,
    drawn,
    error,
    in_keras,
    in_torch,
    keras,
    of_slim,
    pytorch,
    resnet50_of_keras,
    resnet50_of_torchvision,
    slims_variables_of_keras,
    slims_variables_of_torchvision,
    to_torch,
    with_pool1,
)

from resnet_ref import oracle, resnet_v1


@pytest.mark.oracle
def test_keras_strides_in_the_first_1x1_of_a_block_and_slim_in_the_last_3x3() -> None:
    """Read off both live networks at 224: Keras' first stage leaves 56x56, slim's block1 28x28."""
    model = resnet50_of_keras(64, 96)
    strided = {layer.name for layer in model.layers if getattr(layer, "strides", 1) == (2, 2)}
    first = {f"conv{stage}_block1_{part}_conv" for stage in (3, 4, 5) for part in (0, 1)}
    assert strided == {"conv1_conv", "pool1_pool", *first}
    assert model.get_layer("conv2_block3_out").output.shape[1:3] == (16, 24)
    assert model.get_layer("conv3_block4_out").output.shape[1:3] == (8, 12)
    x, weights = drawn(1, 64, 96, 3), slims_variables_of_keras(model)
    _, ends = of_slim(x, weights, KERAS_EPSILON)
    assert ends["resnet_v1_50/block1/unit_3/bottleneck_v1/conv1"].shape[1:3] == (16, 24)
    assert ends["resnet_v1_50/block1/unit_3/bottleneck_v1/conv2"].shape[1:3] == (8, 12)
    assert ends["resnet_v1_50/block1"].shape[1:3] == (8, 12)
    _, ours = with_pool1(x, weights, None, KERAS_EPSILON)
    assert {name: ours[name].shape for name in ours} == {name: ends[name].shape for name in ours}


@pytest.mark.oracle
def test_slims_network_gives_keras_numbers_where_pool1_sees_an_odd_size() -> None:
    """65x97: conv1 has 33x49 outputs. The strides lie elsewhere, the logits are the same, and so is every other
    pixel of Keras' stages."""
    model, x = resnet50_of_keras(65, 97), drawn(2, 65, 97, 3)
    weights = slims_variables_of_keras(model)
    parts = ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv5_block3_out"]
    outputs = [model.get_layer(name).output for name in parts]
    conv1, *stages, logits = in_keras_all(keras().Model(model.input, [*outputs, model.output]), x)
    scope = resnet_v1.resnet_arg_scope(batch_norm_epsilon=KERAS_EPSILON)
    ours = resnet_v1.resnet_v1_50(x, CLASSES, is_training=False, weights=weights, arg_scope=scope)
    for net, ends in (ours, of_slim(x, weights, KERAS_EPSILON)):
        assert error(ends["resnet_v1_50/conv1"], conv1) < 1e-5
        assert error(ends["resnet_v1_50/block1"], stages[0][:, ::2, ::2]) < 1e-5
        assert error(ends["resnet_v1_50/block2"], stages[1][:, ::2, ::2]) < 1e-5
        assert error(ends["resnet_v1_50/block4"], stages[2]) < 1e-5
        assert error(net, logits) < 1e-5


def in_keras_all(model: Any, x: Array) -> list[Array]:
    with oracle.quiet():
        return [np.asarray(output) for output in model(x, training=False)]


@pytest.mark.oracle
def test_with_pool1_padded_as_keras_pads_it_our_network_gives_keras_numbers_on_even_sizes_too() -> None:
    """64x96: slim's own pool1 moves the logits by 7 %, Keras' by rounding."""
    model, x = resnet50_of_keras(64, 96), drawn(2, 64, 96, 3)
    weights, logits = slims_variables_of_keras(model), in_keras(model, x)
    slims, _ = of_slim(x, weights, KERAS_EPSILON)
    assert error(slims, logits) > 0.05
    assert error(with_pool1(x, weights, None, KERAS_EPSILON)[0], slims) < 1e-5
    assert error(with_pool1(x, weights, SYMMETRIC, KERAS_EPSILON)[0], logits) < 1e-5


@pytest.mark.peers
def test_a_stride_in_the_3x3_of_the_first_unit_gives_other_numbers_than_in_its_1x1() -> None:
    """PyTorch's unit (v1.5), from its primitives: the 1x1 before the 3x3 sees all pixels. Ours, told to stride in the
    first unit, computes it; a stride in the 1x1, as in He's, Caffe's and Keras' networks, differs."""
    conv2d = pytorch().nn.functional.conv2d
    x = drawn(2, 13, 10, 6)
    weights = {
        f"{name}/weights": drawn(*shape, seed=n)
        for n, (name, shape) in enumerate(
            {"shortcut": (1, 1, 6, 8), "conv1": (1, 1, 6, 5), "conv2": (3, 3, 5, 5), "conv3": (1, 1, 5, 8)}.items()
        )
    }
    w = {name.split("/")[0]: to_torch(value) for name, value in weights.items()}

    def unit(stride_1x1: int, stride_3x3: int) -> Array:
        def function(x: Any) -> Any:
            net = conv2d(x, w["conv1"], stride=stride_1x1).relu()
            net = conv2d(net, w["conv2"], stride=stride_3x3, padding=1).relu()
            return (conv2d(net, w["conv3"]) + conv2d(x, w["shortcut"], stride=2)).relu()

        return in_torch(function, x)

    variables = {f"u/{name}": value for name, value in weights.items()}
    variables |= {f"u/{name}/biases": np.zeros(value.shape[0], np.float32) for name, value in w.items()}
    scope = resnet_v1.resnet_arg_scope(use_batch_norm=False)
    ours = resnet_v1.bottleneck(x, 8, 5, stride=2, scope="u", weights=variables, arg_scope=scope)
    assert error(ours, unit(1, 2)) < 1e-5
    assert error(ours, unit(2, 1)) > 0.1


@pytest.mark.peers
@pytest.mark.parametrize("size", [(64, 96), (65, 97)], ids=str)
def test_torchvisions_resnet50_is_ours_with_other_blocks_and_another_pool1(size: tuple[int, int]) -> None:
    """Its strides are in the first unit's 3x3 of blocks 2 to 4, it has no convolution biases, pool1 is padded by 1;
    slim's own blocks move the logits by 12 and 6 %, even where pool1 is the same."""
    model = resnet50_of_torchvision()
    strided = {name for name, layer in model.named_modules() if getattr(layer, "stride", 1) == (2, 2)}
    later = {f"layer{n}.0.{layer}" for n in (2, 3, 4) for layer in ("conv2", "downsample.0")}
    assert strided == {"conv1", *later}
    assert (model.maxpool.padding, model.maxpool.ceil_mode) == (1, False)
    assert {layer.bias is None for layer in model.modules() if type(layer).__name__ == "Conv2d"} == {True}
    torch, x = pytorch(), drawn(2, *size, 3)
    with torch.no_grad():
        want = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    weights = slims_variables_of_torchvision(model.state_dict())
    assert error(with_pool1(x, weights, SYMMETRIC, strides_first=True)[0], want) < 1e-5
    assert error(with_pool1(x, weights, SYMMETRIC)[0], want) > 0.04


@pytest.mark.oracle
def test_each_of_keras_53_convolutions_has_a_bias_and_none_of_slims() -> None:
    """26,560 numbers more: 25,583,592 trainable with 1000 classes, where slim has 25,557,032."""
    for name in ("keras", "tf_keras"):
        with oracle.quiet():
            model = keras(name).applications.ResNet50(weights=None)
        convolutions = [layer for layer in model.layers if layer.name.endswith("_conv")]
        assert len(convolutions) == 53
        assert all(layer.use_bias for layer in convolutions)
        assert sum(layer.filters for layer in convolutions) == 26_560
        assert sum(int(np.prod(v.shape)) for v in model.trainable_weights) == 25_583_592 == 25_557_032 + 26_560
        assert model.get_layer("predictions").units == 1000
    with oracle.graph() as nets:
        inputs = nets.tf.compat.v1.placeholder(nets.tf.float32, (1, 224, 224, 3))
        with nets.slim.arg_scope(nets.resnet_arg_scope()):
            nets.resnet_v1_50(inputs, 1000)
        slims = {v.op.name: v.shape.num_elements() for v in nets.tf.compat.v1.trainable_variables()}
    assert [name for name in slims if name.endswith("biases")] == ["resnet_v1_50/logits/biases"]
    assert sum(slims.values()) == 25_557_032
