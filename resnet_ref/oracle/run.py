"""Runs slim's networks on images, and writes their variables as checkpoints."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import WeightsError
from resnet_ref.oracle.nets import Nets, graph

Array = npt.NDArray[Any]
Variables = Mapping[str, Array]
Build = Callable[[Nets, Any], Any]


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
