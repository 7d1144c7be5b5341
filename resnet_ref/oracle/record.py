"""Runs slim on the variables of a checkpoint or a weights file, and on images, and records what it computed."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.convert import identify
from resnet_ref.errors import ImageError, WeightsError
from resnet_ref.facts import Facts
from resnet_ref.images import read_image
from resnet_ref.network import Network
from resnet_ref.oracle.call import calling
from resnet_ref.oracle.environment import tensorflow
from resnet_ref.oracle.nets import Nets
from resnet_ref.oracle.preprocessing import decode, preprocess
from resnet_ref.oracle.run import Build, Variables, run
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.recording import Recorded, sample_positions, write_recording
from resnet_ref.weights.checkpoint import Checkpoint, open_checkpoint
from resnet_ref.weights.hdf5 import is_hdf5
from resnet_ref.weights_file import load_weights_apart


@dataclass(frozen=True)
class Source:
    """What slim is to run: a network, its variables, what prepares its images, and where all this came from."""

    network: Network
    variables: Variables
    preprocessing: Preprocessing
    labels: Sequence[str] | None
    origin: Mapping[str, Any]


def open_source(
    path: str | os.PathLike[str] | None,
    overrides: Mapping[str, Any] | None = None,
    labels: Callable[[int], Sequence[str]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> Source:
    """A weights file (None: the shipped one), or any checkpoint that `convert` takes, with `convert`'s arguments.

    A checkpoint's variables are read by TensorFlow where it can open the file; our own reader takes archives and such.
    """
    if path is None or is_hdf5(path):
        weights = load_weights_apart(path)
        if overrides or labels is not None:
            raise WeightsError(f"{weights.path} says itself which network it holds; only a checkpoint takes options")
        pipeline = weights.preprocessing if preprocessing is None else Preprocessing.from_json(preprocessing)
        if pipeline is None:
            raise WeightsError(f"{weights.path} names no preprocessing; give one with --preprocessing FILE.json")
        origin = {"kind": "weights file", "name": weights.path.name, "made_from": weights.source}
        return Source(weights.network, dict(weights), pipeline, weights.labels, origin)
    with open_checkpoint(path) as checkpoint:
        recognised, described = identify(checkpoint, overrides, labels, preprocessing)
        variables, reader = _read(path, checkpoint, recognised.network.variables())
    pipeline = Preprocessing.from_json(described.preprocessing or {})
    origin = {**(described.source or {}), "read_by": reader}
    return Source(recognised.network, variables, pipeline, described.labels, origin)


def _read(path: str | os.PathLike[str], checkpoint: Checkpoint, names: Mapping[str, Any]) -> tuple[Variables, str]:
    tf, _ = tensorflow()
    try:
        reader = tf.train.load_checkpoint(os.fspath(path))
        return {name: reader.get_tensor(name) for name in names}, "TensorFlow"
    except (tf.errors.OpError, ValueError, RuntimeError):
        return {name: checkpoint.read(name) for name in names}, "resnet-ref"


def prepare(data: Sequence[tuple[Path, bytes]], pipeline: Preprocessing) -> tuple[NDArray[np.float32], list[str]]:
    """Images [N, H, W, 3] as TensorFlow decodes and preprocesses them, and by whom each file was decoded."""
    arrays, decoders = [], []
    for path, content in data:
        try:
            pixels = decode(content)
        except Exception as error:  # TensorFlow's errors are of every kind
            said = str(error).splitlines()[0]
            raise ImageError(f"{path}: TensorFlow cannot decode it: {said}; save it anew as PNG") from None
        decoders.append("Pillow" if pixels is None else "TensorFlow")
        pixels = read_image(path) if pixels is None else pixels
        size = (pipeline.resize_side, pipeline.height, pipeline.width)
        # slim has no other pipeline than its own: another network's images are prepared by ours.
        is_slims = pipeline.name == "vgg"
        arrays.append(preprocess(pixels, *size, pipeline.means) if is_slims else pipeline(pixels))
    return np.stack(arrays), decoders


def record(
    source: Source,
    images: Sequence[Path],
    output: str | os.PathLike[str],
    *,
    sample: int | None = None,
    is_training: bool = False,
    build: Build | None = None,
    inputs: NDArray[np.float32] | None = None,
) -> Facts:
    """Run slim on image files and write what it computed to `output`.

    sample: keep at most so many values of each end point, at positions that are the same every time. is_training: the
    batch-norm mode. build: a graph of your own in place of slim's call, and inputs: arrays of your own in place of
    slim's preprocessing; so that what you run yourself can be verified against. DeviceError without TensorFlow.
    """
    tensorflow()  # where it is missing, that is what is said
    data = [(path, _content(path)) for path in images]
    given, decoders = (inputs, ["the caller"]) if inputs is not None else prepare(data, source.preprocessing)
    positions: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def sampled(nets: Nets, placeholder: Any) -> Any:
        net, end_points = (build or calling(source.network, is_training))(nets, placeholder)
        kept = {}
        for name, tensor in end_points.items():
            shapes[name] = tuple(tensor.shape)
            positions[name] = sample_positions(name, int(np.prod(shapes[name])), sample)
            flat = nets.tf.reshape(tensor, [-1])
            kept[name] = flat if positions[name] is None else nets.tf.gather(flat, positions[name])
        return net, kept

    result = run(sampled, given, source.variables)
    facts = Facts(
        network=None if build is not None else source.network.to_json(),
        is_training=is_training,
        preprocessing=None if inputs is not None else source.preprocessing.to_json(),
        labels=None if source.labels is None else list(source.labels),
        source=dict(source.origin),
        versions={**_versions(), "decoded by": ", ".join(sorted(set(decoders)))},
        sample=sample,
    )
    end_points = ((name, Recorded(shapes[name], values, positions[name])) for name, values in result.end_points.items())
    write_recording(
        output, facts, [(path.name, content) for path, content in data], given, end_points, result.variables
    )
    return facts


def _content(path: Path) -> bytes:
    read_image(path)  # so that what is no image is said in our words
    return path.read_bytes()


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("tensorflow", "tf_slim", "tf-keras", "numpy", "resnet-ref")}
