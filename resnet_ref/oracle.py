"""slim itself, run under TensorFlow: what everything else in this project is compared with.

Nothing of this project's own arithmetic is used here. The pip package tf_slim holds an older ResNet v1 than the
TensorFlow models repository; `Nets` composes the newer one from tf_slim's own layers. Needed is
`pip install 'resnet-ref[oracle]'`. TensorFlow is imported on first use, never by importing this module.

The versions are pinned because slim runs in few others: tf_slim needs the layers of Keras 2, which TensorFlow left to
the package tf-keras, whose 2.21 dropped them.
"""

import contextlib
import functools
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import DeviceError, WeightsError

Array = npt.NDArray[Any]
Variables = Mapping[str, Array]
Build = Callable[["Nets", Any], Any]

_VERSIONS = {"tensorflow": "2.20.", "tf_keras": "2.20."}
_OWN_NAME = ""  # the variant's own; scope=None is slim's resnet_v1
_INSTALL = "Install the versions that slim runs in: pip install 'resnet-ref[oracle]'"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Python warnings: tf_slim stands on layers that warn of their deprecation at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def tensorflow() -> tuple[Any, Any]:
    """Import TensorFlow and tf_slim, without their log lines, and return the two modules.

    Raises DeviceError when a package is missing, cannot be imported, or is not of the version slim needs.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with quiet():
        tf = _import("tensorflow")
        _import("tf_keras")
        # tf_slim looks for these layers where tf-keras had them before they moved under `src`.
        for layer in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
            sys.modules[f"tf_keras.legacy_tf_layers{layer}"] = _import(f"tf_keras.src.legacy_tf_layers{layer}")
        tf_slim = _import("tf_slim")
        _import("tf_slim.nets.resnet_v1")
    return tf, tf_slim


def _import(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        raise DeviceError(f"The oracle cannot import {name}: {error}. {_INSTALL}") from error
    wanted, got = _VERSIONS.get(name, ""), getattr(module, "__version__", "")
    if not got.startswith(wanted):
        raise DeviceError(f"The oracle needs {name} {wanted}*, got {got}. {_INSTALL}")
    return module


class Nets:
    """slim's ResNet v1 under slim's names and signatures, to be called inside a `tf.Graph`.

    As in slim, a network wants `with nets.slim.arg_scope(nets.resnet_arg_scope()):` around it. `tf` and `slim` are the
    modules tensorflow and tf_slim. `Block`, `conv2d_same`, `subsample` are tf_slim's own, the rest is composed here.
    Source: research/slim/nets/resnet_v1.py and resnet_utils.py.
    """

    def __init__(self) -> None:
        self.tf, self.slim = tensorflow()
        utils = self.slim.nets.resnet_utils
        self.Block, self.conv2d_same, self.subsample = utils.Block, utils.conv2d_same, utils.subsample
        self.bottleneck = self.slim.add_arg_scope(self._bottleneck)
        self.stack_blocks_dense = self.slim.add_arg_scope(self._stack_blocks_dense)

    def _bottleneck(
        self,
        inputs: Any,
        depth: int,
        depth_bottleneck: int,
        stride: int,
        rate: int = 1,
        outputs_collections: str | None = None,
        scope: str | None = None,
        use_bounded_activations: bool = False,
    ) -> Any:
        nn, conv2d = self.tf.nn, self.slim.conv2d
        with self.tf.compat.v1.variable_scope(scope, "bottleneck_v1", [inputs]) as unit:
            if depth == inputs.shape[-1]:
                shortcut = self.subsample(inputs, stride, "shortcut")
            else:
                bound = nn.relu6 if use_bounded_activations else None
                shortcut = conv2d(inputs, depth, [1, 1], stride=stride, activation_fn=bound, scope="shortcut")
            residual = conv2d(inputs, depth_bottleneck, [1, 1], stride=1, scope="conv1")
            residual = self.conv2d_same(residual, depth_bottleneck, 3, stride, rate=rate, scope="conv2")
            residual = conv2d(residual, depth, [1, 1], stride=1, activation_fn=None, scope="conv3")
            if use_bounded_activations:
                residual = self.tf.clip_by_value(residual, -6.0, 6.0)
            outputs = (nn.relu6 if use_bounded_activations else nn.relu)(shortcut + residual)
            return self.slim.utils.collect_named_outputs(outputs_collections, unit.name, outputs)

    def _stack_blocks_dense(
        self,
        net: Any,
        blocks: Any,
        output_stride: int | None = None,
        store_non_strided_activations: bool = False,
        outputs_collections: str | None = None,
    ) -> Any:
        variable_scope = self.tf.compat.v1.variable_scope
        current, rate = 1, 1
        for block in blocks:
            with variable_scope(block.scope, "block", [net]) as block_scope:
                strides = [unit["stride"] for unit in block.args]
                late_stride = strides[-1] if store_non_strided_activations else 1
                strides[-1] //= late_stride
                for number, (unit, stride) in enumerate(zip(block.args, strides, strict=True), start=1):
                    dense = current == output_stride
                    how = {"stride": 1, "rate": rate} if dense else {"stride": stride, "rate": 1}
                    with variable_scope(f"unit_{number}", values=[net]):
                        net = block.unit_fn(net, **{**unit, **how})
                    current, rate = (current, rate * stride) if dense else (current * stride, rate)
                net = self.slim.utils.collect_named_outputs(outputs_collections, block_scope.name, net)
                if current == output_stride:
                    rate *= late_stride
                else:
                    net = self.subsample(net, late_stride)
                    current *= late_stride
        if output_stride not in (None, current):
            raise ValueError("The target output_stride cannot be reached.")
        return net

    def resnet_arg_scope(
        self,
        weight_decay: float = 0.0001,
        batch_norm_decay: float = 0.997,
        batch_norm_epsilon: float = 1e-5,
        batch_norm_scale: bool = True,
        activation_fn: Any = "relu",
        use_batch_norm: bool = True,
        batch_norm_updates_collections: str | None = "update_ops",
    ) -> Any:
        """slim's defaults for convolutions, batch norm and pooling; activation_fn="relu" is tf.nn.relu."""
        slim = self.slim
        updates = batch_norm_updates_collections
        if updates == "update_ops":
            # tf_slim compares this name by identity when it chooses how to normalise.
            updates = self.tf.compat.v1.GraphKeys.UPDATE_OPS
        params: dict[str, Any] = {"decay": batch_norm_decay, "epsilon": batch_norm_epsilon, "scale": batch_norm_scale}
        params["updates_collections"] = updates
        conv_scope = slim.arg_scope(
            [slim.conv2d],
            weights_regularizer=slim.l2_regularizer(weight_decay),
            weights_initializer=slim.variance_scaling_initializer(),
            activation_fn=self.tf.nn.relu if activation_fn == "relu" else activation_fn,
            normalizer_fn=slim.batch_norm if use_batch_norm else None,
            normalizer_params=params,
        )
        with (
            conv_scope,
            slim.arg_scope([slim.batch_norm], **params),
            slim.arg_scope([slim.max_pool2d], padding="SAME") as scope,
        ):
            return scope

    def resnet_v1(
        self,
        inputs: Any,
        blocks: Any,
        num_classes: int | None = None,
        is_training: bool | None = True,
        global_pool: bool = True,
        output_stride: int | None = None,
        include_root_block: bool = True,
        spatial_squeeze: bool = True,
        store_non_strided_activations: bool = False,
        reuse: bool | None = None,
        scope: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Build a ResNet v1 and return (net, end points in order of creation)."""
        slim = self.slim
        if include_root_block and output_stride is not None:
            if output_stride % 4 != 0:
                raise ValueError("The output_stride needs to be a multiple of 4.")
            output_stride //= 4
        # None leaves the mode to the caller's own arg scope.
        mode = {} if is_training is None else {"is_training": is_training}
        with self.tf.compat.v1.variable_scope(scope, "resnet_v1", [inputs], reuse=reuse) as network:
            collection = f"{network.original_name_scope}_end_points"
            collecting = [slim.conv2d, self.bottleneck, self.stack_blocks_dense]
            with slim.arg_scope(collecting, outputs_collections=collection), slim.arg_scope([slim.batch_norm], **mode):
                net = inputs
                if include_root_block:
                    net = self.conv2d_same(net, 64, 7, stride=2, scope="conv1")
                    net = slim.max_pool2d(net, [3, 3], stride=2, scope="pool1")
                net = self.stack_blocks_dense(net, blocks, output_stride, store_non_strided_activations)
                end_points = dict(slim.utils.convert_collection_to_dict(collection))
                return self._head(net, end_points, network.name, num_classes, global_pool, spatial_squeeze), end_points

    def _head(
        self,
        net: Any,
        end_points: dict[str, Any],
        scope: str,
        num_classes: int | None,
        global_pool: bool,
        squeeze: bool,
    ) -> Any:
        if global_pool:
            net = end_points["global_pool"] = self.tf.reduce_mean(net, [1, 2], name="pool5", keepdims=True)
        if num_classes:
            plain = {"activation_fn": None, "normalizer_fn": None, "scope": "logits"}
            net = end_points[f"{scope}/logits"] = self.slim.conv2d(net, num_classes, [1, 1], **plain)
            if squeeze:
                net = end_points[f"{scope}/spatial_squeeze"] = self.tf.squeeze(net, [1, 2], name="SpatialSqueeze")
            end_points["predictions"] = self.slim.softmax(net, scope="predictions")
        return net

    def resnet_v1_block(self, scope: str, base_depth: int, num_units: int, stride: int) -> Any:
        """A block of `num_units` bottlenecks, 4 * base_depth deep, the last one strided."""
        sizes = {"depth": base_depth * 4, "depth_bottleneck": base_depth}
        strides = [1] * (num_units - 1) + [stride]
        return self.Block(scope, self.bottleneck, [{**sizes, "stride": unit_stride} for unit_stride in strides])

    def _variant(
        self,
        units: tuple[int, ...],
        name: str,
        inputs: Any,
        num_classes: int | None = None,
        is_training: bool | None = True,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        store_non_strided_activations: bool = False,
        min_base_depth: int = 8,
        depth_multiplier: float = 1,
        reuse: bool | None = None,
        scope: str | None = _OWN_NAME,
    ) -> tuple[Any, dict[str, Any]]:
        blocks = self._blocks(units, depth_multiplier, min_base_depth)
        last = (spatial_squeeze, store_non_strided_activations, reuse, name if scope == _OWN_NAME else scope)
        return self.resnet_v1(inputs, blocks, num_classes, is_training, global_pool, output_stride, True, *last)

    def _swapped_variant(
        self,
        units: tuple[int, ...],
        name: str,
        inputs: Any,
        num_classes: int | None = None,
        is_training: bool | None = True,
        global_pool: bool = True,
        output_stride: int | None = None,
        store_non_strided_activations: bool = False,
        spatial_squeeze: bool = True,
        *sizes_and_scope: Any,
        **named: Any,
    ) -> tuple[Any, dict[str, Any]]:
        first = (num_classes, is_training, global_pool, output_stride)
        flags = (spatial_squeeze, store_non_strided_activations)
        return self._variant(units, name, inputs, *first, *flags, *sizes_and_scope, **named)

    # In slim the two deeper variants take store_non_strided_activations before spatial_squeeze.
    resnet_v1_50 = functools.partialmethod(_variant, (3, 4, 6, 3), "resnet_v1_50")
    resnet_v1_101 = functools.partialmethod(_variant, (3, 4, 23, 3), "resnet_v1_101")
    resnet_v1_152 = functools.partialmethod(_swapped_variant, (3, 8, 36, 3), "resnet_v1_152")
    resnet_v1_200 = functools.partialmethod(_swapped_variant, (3, 24, 36, 3), "resnet_v1_200")

    def _blocks(self, units: tuple[int, ...], depth_multiplier: float, min_base_depth: int) -> list[Any]:
        depths = [max(int(depth * depth_multiplier), min_base_depth) for depth in (64, 128, 256, 512)]
        rows = zip(depths, units, (2, 2, 2, 1), strict=True)
        return [self.resnet_v1_block(f"block{number}", *row) for number, row in enumerate(rows, start=1)]


@functools.cache
def slim_nets() -> Nets:
    """The one `Nets` of this process. Raises DeviceError as `tensorflow` does."""
    return Nets()


@contextlib.contextmanager
def graph() -> Iterator[Nets]:
    """A new, quiet `tf.Graph` to build slim's networks in."""
    nets = slim_nets()
    with quiet(), nets.tf.Graph().as_default():
        yield nets


def session(nets: Nets, cpus: int = 1) -> Any:
    """A session without GPU and with one thread, because the order of a sum must not depend on the machine."""
    v1, devices = nets.tf.compat.v1, {"GPU": 0, "CPU": cpus}
    config = v1.ConfigProto(device_count=devices, intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    return v1.Session(config=config)


@dataclass(frozen=True)
class OracleResult:
    """What slim computed: `end_points` in slim's order, `variables` as used, `updated` moving averages if asked for."""

    net: Array
    end_points: dict[str, Array]
    variables: dict[str, Array]
    updated: dict[str, Array]


def run(
    build: Build,
    images: npt.ArrayLike,
    variables: Variables | Callable[[dict[str, tuple[int, ...]]], Variables],
    *,
    fetch_updates: bool = False,
) -> OracleResult:
    """Build one network in a graph of its own and run it once on `images` (converted to float32).

    `build(nets, inputs)` gets a `Nets` and a placeholder of the images' shape; it returns a tensor, or a tensor and
    its end points. `variables` holds a value per variable (others are ignored), or makes them from the shapes by name.
    With `fetch_updates` the UPDATE_OPS run once and the moving averages are read after them.
    Raises WeightsError where a variable is missing or has another shape.
    """
    batch = np.asarray(images, np.float32)
    with graph() as nets:
        v1 = nets.tf.compat.v1
        inputs = v1.placeholder(nets.tf.float32, batch.shape)
        built = build(nets, inputs)
        net, end_points = built if isinstance(built, tuple) else (built, {})
        made = {variable.op.name: variable for variable in v1.global_variables()}
        shapes = {name: tuple(variable.shape) for name, variable in made.items()}
        values = _checked(shapes, variables(shapes) if callable(variables) else variables)
        with session(nets) as live:
            _assign(live, {made[name]: value for name, value in values.items()})
            fetched = live.run([net, *end_points.values()], {inputs: batch})
            updated = {}
            if fetch_updates:
                live.run(v1.get_collection(v1.GraphKeys.UPDATE_OPS), {inputs: batch})
                moving = [name for name in made if "/moving_" in name]
                updated = dict(zip(moving, live.run([made[name] for name in moving]), strict=True))
    return OracleResult(fetched[0], dict(zip(end_points, fetched[1:], strict=True)), values, updated)


def _checked(shapes: dict[str, tuple[int, ...]], variables: Variables) -> dict[str, Array]:
    values = {}
    for name, shape in shapes.items():
        if name not in variables:
            raise WeightsError(f"slim's network needs the variable {name!r} of shape {shape}; it was not given.")
        values[name] = np.asarray(variables[name], np.float32)
        if values[name].shape != shape:
            raise WeightsError(f"{name}: slim's network needs shape {shape}, got {values[name].shape}.")
    return values


def _assign(live: Any, values: dict[Any, Array]) -> None:
    """Set variables by feeding their initial values, so that the graph holds no copy of them."""
    feeds = {variable.initializer.inputs[1]: value for variable, value in values.items()}
    live.run([variable.initializer for variable in values], feeds)


def save_checkpoint(
    variables: Variables, prefix: str | os.PathLike[str], *, write_version: int = 2, shards: int = 1, parts: int = 1
) -> Path:
    """Write `variables`, of any dtype, with TensorFlow's Saver and return the checkpoint's prefix.

    `write_version` is 1 or 2; `shards` counts the data files. With `parts` > 1 a variable is partitioned along its
    last axis, where that is long enough. The directory must exist; it also receives `checkpoint` and a `.meta` file.
    """
    with graph() as nets:
        values: dict[Any, Array] = {}
        for index, (name, value) in enumerate(variables.items()):
            # The Saver makes one shard per device.
            with nets.tf.device(f"/cpu:{index % shards}"):
                values |= _saved_variables(nets, name, np.asarray(value), parts)
        with session(nets, cpus=shards) as live:
            _assign(live, values)
            saver = nets.tf.compat.v1.train.Saver(write_version=write_version, sharded=shards > 1)
            return Path(saver.save(live, os.fspath(prefix)))


def _saved_variables(nets: Nets, name: str, value: Array, parts: int) -> dict[Any, Array]:
    v1 = nets.tf.compat.v1
    parts = min(parts, value.shape[-1] if value.ndim else 1)
    if parts <= 1:
        return {v1.get_variable(name, value.shape, value.dtype, v1.zeros_initializer()): value}
    splitter = v1.fixed_size_partitioner(parts, axis=value.ndim - 1)
    pieces = list(v1.get_variable(name, value.shape, value.dtype, v1.zeros_initializer(), partitioner=splitter))
    ends = np.cumsum([piece.shape[-1] for piece in pieces[:-1]])
    return dict(zip(pieces, np.split(value, ends, axis=-1), strict=True))
