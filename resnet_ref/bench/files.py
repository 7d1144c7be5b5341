"""What contenders read, all in one folder: images, weights, and each peer's own file of the network.

The peers' files are made in processes of their own, so that no contender's memory, and not ours here, holds what only
making them needs.
"""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from resnet_ref.bench.contenders import PEERS, Contender
from resnet_ref.errors import BenchError
from resnet_ref.kernels.arrays import Array
from resnet_ref.network import Network
from resnet_ref.random_weights import random_variables
from resnet_ref.weights_file import Weights, load_weights, load_weights_apart, save_weights

PIXELS = 60  # the standard deviation of pixels less their means, about


@dataclass(frozen=True)
class Files:
    """folder: where the files are. weights: of the network, in the file that contenders of ours read. deviation: of
    the images. size: their height and width."""

    folder: Path
    weights: Weights
    size: tuple[int, int]
    deviation: float

    @property
    def network(self) -> Network:
        """What is run."""
        return self.weights.network

    @property
    def logits(self) -> str | None:
        """The name of the end point, where there are classes."""
        return f"{self.network.scope}/logits" if self.network.num_classes else None

    def images(self, batch: int) -> Array:
        """[batch, H, W, C] float32; the first are the same whatever the batch."""
        shape = (batch, *self.size, self.network.channels)
        return np.random.default_rng(0).normal(0, self.deviation, shape).astype(np.float32)

    def images_file(self, batch: int, nchw: bool) -> Path:
        """The images as a contender takes them, so that none is charged for turning them."""
        path = self.folder / f"images_{batch}_{'nchw' if nchw else 'nhwc'}.npy"
        if not path.exists():
            images = self.images(batch)
            np.save(path, np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if nchw else images)
        return path

    def network_file(self, contender: Contender) -> Path:
        """What the contender reads the network from."""
        return self.weights.path if contender.is_ours else self.folder / PEERS[contender.engine].file


@dataclass(frozen=True)
class Wanted:
    """The network that is measured. weights: a file's, or None for random ones. size: of the images."""

    network: Network
    size: tuple[int, int]
    weights: Weights | None


def wanted(
    given: str | os.PathLike[str] | None, variant: str | None, output_stride: int | None, size: tuple[int, int] | None,
    default_size: int,
) -> Wanted:  # fmt: skip
    """The network of a file (None: the shipped digits network), or a variant of 1000 classes.

    ShapeError or WeightsError where it cannot be, or not with images of that size.
    """
    weights = load_weights_apart(given) if variant is None else None
    network = {"function": variant, "num_classes": 1000} if weights is None else weights.network.to_json()
    if weights is not None and size is None and (known := weights.preprocessing) is not None:
        size = (known.height, known.width)
    if output_stride is not None:
        network["output_stride"] = output_stride
    called = Network.from_json(network)
    size = size or (default_size, default_size)
    called.shapes(1, *size)
    return Wanted(called, size, weights)


def prepare(folder: Path, what: Wanted) -> Files:
    """Its weights, in the file that they come from, or in a new one."""
    weights = what.weights
    if weights is None or weights.network != what.network:
        arrays = random_variables(what.network.variables()) if weights is None else weights
        save_weights(folder / "weights.h5", arrays, what.network)
        weights = load_weights(folder / "weights.h5")
    return Files(folder, weights, what.size, 1 if what.weights is None else PIXELS)


def make_network_files(files: Files, contenders: Sequence[Contender]) -> None:
    """Make the peers' files; BenchError names a peer that cannot make its own."""
    for contender in contenders:
        path = files.network_file(contender)
        if path.exists():
            continue
        try:
            with ProcessPoolExecutor(1, get_context("spawn"), _silence, (os.fspath(files.folder / "log"),)) as pool:
                pool.submit(_write, path, files.weights.path, files.size).result()
        except BrokenProcessPool:
            said = (files.folder / "log").read_text("utf-8", errors="replace").splitlines()
            raise BenchError(f"{contender.name}: the process making its file ended. {' '.join(said[-1:])}") from None
        except ImportError as error:
            raise BenchError(
                f"{contender.name} cannot be imported: {error}; install it anew, or name the peers to run with --peer"
            ) from None


def _silence(log: str) -> None:
    descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _write(path: Path, weights: Path, size: tuple[int, int]) -> None:
    warnings.simplefilter("ignore")
    loaded = load_weights(weights)
    if path.suffix == ".onnx":
        from resnet_ref.bench.onnx_graph import write_onnx as write
    elif path.suffixes == [".bf16", ".pt"]:
        from resnet_ref.bench.torch_net import write_torch_bf16 as write
    elif path.suffix == ".pt":
        from resnet_ref.bench.torch_net import write_torch as write
    else:
        from resnet_ref.bench.tensorflow_graph import write_tensorflow as write
    write(loaded.network, loaded, size, path)
