"""The oracle is slim: its composed ResNet v1 against tf_slim's own older one, and against the facts known of slim."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from variables import random_variables, training_extras

from resnet_ref import oracle
from resnet_ref.errors import DeviceError, WeightsError

pytestmark = pytest.mark.oracle

IMAGES = np.random.default_rng(7).standard_normal((2, 49, 38, 3)).astype(np.float32)


def small_network(nets: Any, resnet: Any, inputs: Any, is_training: bool = False, **arguments: Any) -> Any:
    """The small net of slim's own tests, from `resnet`: a Nets, or tf_slim's module."""
    rows = [("block1", 1, 3, 2), ("block2", 2, 3, 2), ("block3", 4, 3, 2), ("block4", 8, 2, 1)]
    blocks = [resnet.resnet_v1_block(*row) for row in rows]
    with nets.slim.arg_scope(resnet.resnet_arg_scope(weight_decay=0.0, batch_norm_decay=0.9)):
        return resnet.resnet_v1(inputs, blocks, is_training=is_training, scope="tiny", **arguments)


def built(function: str, size: int = 65, **arguments: Any) -> tuple[list[Any], Any, dict[str, Any]]:
    """Variables, net and end points of a network that is built and never run."""
    with oracle.graph() as nets:
        inputs = nets.tf.compat.v1.placeholder(nets.tf.float32, (2, size, size, 3))
        # Without regularisers and updates the graph is built twice as fast.
        with nets.slim.arg_scope(nets.resnet_arg_scope(weight_decay=0.0)):
            net, end_points = getattr(nets, function)(inputs, is_training=False, **arguments)
        return nets.tf.compat.v1.global_variables(), net, end_points


def shape(end_points: dict[str, Any], name: str) -> tuple[int, ...]:
    return tuple(end_points[name].shape)


@pytest.mark.parametrize(
    ("arguments", "is_training"),
    [
        ({}, False),
        ({"global_pool": False, "output_stride": 8}, True),
        ({"include_root_block": False, "output_stride": 2}, False),
    ],
    ids=["classify", "dense training", "rootless"],
)
def test_the_composed_network_is_tf_slims_where_both_exist(arguments: dict[str, Any], is_training: bool) -> None:
    def ours(nets: oracle.Nets, inputs: Any) -> Any:
        return small_network(nets, nets, inputs, is_training, num_classes=5, spatial_squeeze=False, **arguments)

    def theirs(nets: oracle.Nets, inputs: Any) -> Any:
        return small_network(nets, nets.slim.nets.resnet_v1, inputs, is_training, num_classes=5, **arguments)

    got = oracle.run(ours, IMAGES, random_variables, fetch_updates=True)
    want = oracle.run(theirs, IMAGES, random_variables, fetch_updates=True)
    assert list(got.variables) == list(want.variables)
    assert [name for name in got.end_points if name != "global_pool"] == list(want.end_points)
    for name, values in want.end_points.items():
        np.testing.assert_array_equal(got.end_points[name], values, err_msg=name)
    moved = any((values != want.variables[name]).any() for name, values in want.updated.items())
    assert moved == is_training
    for name, values in want.updated.items():
        np.testing.assert_array_equal(got.updated[name], values, err_msg=name)


def test_store_non_strided_activations_keeps_the_output_and_moves_block_ends_before_the_stride() -> None:
    plain = oracle.run(lambda nets, x: small_network(nets, nets, x, global_pool=False), IMAGES, random_variables)
    stored = oracle.run(
        lambda nets, x: small_network(nets, nets, x, global_pool=False, store_non_strided_activations=True),
        IMAGES,
        plain.variables,
    )
    np.testing.assert_allclose(stored.net, plain.net, rtol=1e-4, atol=1e-4)
    assert [shape(stored.end_points, f"tiny/block{block}") for block in (1, 2, 3, 4)] == [
        (2, 13, 10, 4),
        (2, 7, 5, 8),
        (2, 4, 3, 16),
        (2, 2, 2, 32),
    ]
    for block in ("tiny/block1", "tiny/block2", "tiny/block3"):
        subsampled = stored.end_points[block][:, ::2, ::2]
        np.testing.assert_allclose(subsampled, plain.end_points[block], rtol=1e-4, atol=1e-4, err_msg=block)


@pytest.mark.parametrize(("output_stride", "stored"), [(4, False), (8, True), (16, True)])
def test_a_dense_network_subsampled_is_the_strided_one(output_stride: int, stored: bool) -> None:
    images = IMAGES[:, :33, :33]

    def dense(nets: oracle.Nets, inputs: Any) -> Any:
        options: dict[str, Any] = {
            "global_pool": False,
            "output_stride": output_stride,
            "store_non_strided_activations": stored,
        }
        return small_network(nets, nets, inputs, **options)

    strided = oracle.run(lambda nets, x: small_network(nets, nets, x, global_pool=False), images, random_variables)
    step = 32 // output_stride
    net = oracle.run(dense, images, strided.variables).net
    np.testing.assert_allclose(net[:, ::step, ::step], strided.net, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output_stride", [0, 2, 6, 12, 64])
def test_an_output_stride_that_slim_refuses_is_refused_with_slims_words(output_stride: int) -> None:
    message = "multiple of 4" if output_stride in (2, 6) else "cannot be reached"
    with pytest.raises(ValueError, match=message):
        oracle.run(lambda nets, x: small_network(nets, nets, x, output_stride=output_stride), IMAGES, random_variables)


def test_a_depth_multiplier_narrows_all_but_the_root_and_min_base_depth_is_its_floor() -> None:
    scope = "resnet_v1_50"
    _, _, quarter = built(scope, depth_multiplier=0.25)
    assert shape(quarter, f"{scope}/conv1") == (2, 33, 33, 64)
    assert [shape(quarter, f"{scope}/block{block}")[3] for block in (1, 2, 3, 4)] == [64, 128, 256, 512]
    # 64 channels meet 64: no projection.
    assert f"{scope}/block1/unit_1/bottleneck_v1/shortcut" not in quarter
    _, _, floor = built(scope, depth_multiplier=0, min_base_depth=5)
    assert {shape(floor, f"{scope}/block{block}")[3] for block in (1, 2, 3, 4)} == {20}


@pytest.mark.parametrize("depth", [8, 3], ids=["projection", "identity"])
def test_bounded_activations_bound_projection_residual_and_sum_at_six(depth: int) -> None:
    """An identity shortcut is not bounded; only there does clipping the residual change the unit's output."""
    images = 5 * IMAGES[:, :9, :7]

    def large_residual(shapes: dict[str, tuple[int, ...]]) -> oracle.Variables:
        return {name: (30 if "/conv3/" in name else 1) * value for name, value in random_variables(shapes).items()}

    def build(nets: oracle.Nets, inputs: Any) -> Any:
        slim, ends = nets.slim, "ends"
        with (
            slim.arg_scope(nets.resnet_arg_scope()),
            slim.arg_scope([nets.bottleneck], use_bounded_activations=True),
            slim.arg_scope([slim.conv2d], outputs_collections=ends),
            slim.arg_scope([slim.batch_norm], is_training=False),
        ):
            net = nets.bottleneck(inputs, depth, 2, stride=2)
        return net, slim.utils.convert_collection_to_dict(ends)

    result = oracle.run(build, images, large_residual)
    residual = result.end_points["bottleneck_v1/conv3"]
    shortcut = result.end_points.get("bottleneck_v1/shortcut", images[:, ::2, ::2])
    if depth == 8:
        assert (shortcut.min(), shortcut.max()) == (0, 6)
    assert abs(residual).max() > 9
    np.testing.assert_array_equal(result.net, np.clip(shortcut + np.clip(residual, -6, 6), 0, 6))


def test_is_training_none_leaves_the_mode_to_the_arg_scope_around() -> None:
    def ambient(nets: oracle.Nets, inputs: Any) -> Any:
        with nets.slim.arg_scope([nets.slim.batch_norm], is_training=False):
            return nets.resnet_v1(inputs, [nets.resnet_v1_block("block1", 2, 1, 2)], is_training=None)[0]

    def stated(nets: oracle.Nets, inputs: Any) -> Any:
        return nets.resnet_v1(inputs, [nets.resnet_v1_block("block1", 2, 1, 2)], is_training=False)[0]

    def both(inner: oracle.Build) -> oracle.Build:
        def build(nets: oracle.Nets, inputs: Any) -> Any:
            with nets.slim.arg_scope(nets.resnet_arg_scope()):
                return inner(nets, inputs)

        return build

    want = oracle.run(both(stated), IMAGES, random_variables)
    np.testing.assert_array_equal(oracle.run(both(ambient), IMAGES, want.variables).net, want.net)


def test_updates_move_the_averages_once_with_the_unbiased_variance() -> None:
    def build(nets: oracle.Nets, inputs: Any) -> Any:
        return nets.slim.batch_norm(inputs, decay=0.75, is_training=True, scope="bn")

    result = oracle.run(build, IMAGES, random_variables, fetch_updates=True)
    wide = IMAGES.astype(np.float64)
    batch = {"bn/moving_mean": wide.mean((0, 1, 2)), "bn/moving_variance": wide.var((0, 1, 2), ddof=1)}
    assert result.updated.keys() == batch.keys()
    for name, statistic in batch.items():
        np.testing.assert_allclose(result.updated[name], 0.75 * result.variables[name] + 0.25 * statistic, rtol=1e-5)


def test_a_missing_variable_and_a_wrong_shape_are_named() -> None:
    def build(nets: oracle.Nets, inputs: Any) -> Any:
        return nets.slim.conv2d(inputs, 5, [1, 1], scope="conv")

    with pytest.raises(WeightsError, match=r"'conv/biases' of shape \(5,\)"):
        oracle.run(build, IMAGES, {"conv/weights": np.ones((1, 1, 3, 5))})
    with pytest.raises(WeightsError, match=r"conv/weights: .* \(1, 1, 3, 5\), got \(1, 1, 3, 4\)"):
        oracle.run(build, IMAGES, {"conv/weights": np.ones((1, 1, 3, 4)), "conv/biases": np.ones(5)})


@pytest.mark.parametrize(
    ("options", "data_files"),
    [
        ({}, ["model.ckpt-7.data-00000-of-00001"]),
        ({"shards": 2}, ["model.ckpt-7.data-00000-of-00002", "model.ckpt-7.data-00001-of-00002"]),
        ({"write_version": 1}, ["model.ckpt-7"]),
        ({"parts": 3}, ["model.ckpt-7.data-00000-of-00001"]),
    ],
    ids=["V2", "sharded", "V1", "partitioned"],
)
def test_a_saved_checkpoint_reads_back(tmp_path: Path, options: dict[str, int], data_files: list[str]) -> None:
    network_values = random_variables({"s/conv1/weights": (3, 2, 4, 7), "s/conv1/BatchNorm/moving_mean": (7,)})
    variables = {**network_values, **training_extras(network_values, "s")}
    prefix = oracle.save_checkpoint(variables, tmp_path / "model.ckpt-7", **options)
    assert (
        sorted(file.name for file in tmp_path.glob("model.ckpt-7*") if file.suffix not in (".meta", ".index"))
        == data_files
    )
    tf, _ = oracle.tensorflow()
    reader = tf.train.load_checkpoint(str(prefix))
    assert set(reader.get_variable_to_shape_map()) == set(variables)
    for name, value in variables.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value, err_msg=name)


def test_importing_the_oracle_leaves_tensorflow_alone() -> None:
    code = "import sys, resnet_ref.oracle; sys.exit(any('tensorflow' in name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("version", "message"),
    [(None, "cannot import tensorflow"), ("2.12.0", r"needs tensorflow 2.20.\*, got 2.12.0")],
    ids=["missing", "too old"],
)
def test_a_missing_or_wrong_tensorflow_says_what_to_install(tmp_path: Path, version: str | None, message: str) -> None:
    """In a process of its own, with a stand-in for TensorFlow first on the path."""
    body = "raise ImportError('none here')" if version is None else f"__version__ = {version!r}"
    (tmp_path / "tensorflow.py").write_text(body)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from resnet_ref import oracle; oracle.tensorflow()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert DeviceError.__name__ in last
    assert "pip install 'resnet-ref[oracle]'" in last
    assert re.search(message, last)
