"""Weights files as users meet them: load_weights and save_weights, each checked against the network it names."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from resnet_ref.errors import WeightsError
from resnet_ref.isolation import LISTING_MEMORY, LISTING_SECONDS, Pool
from resnet_ref.kernels.arrays import Array
from resnet_ref.labels import unprintable
from resnet_ref.network import Network
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.variables import check_variables
from resnet_ref.weights import store
from resnet_ref.weights.contents import Contents, contents, told_from_the_seal_on
from resnet_ref.weights.description import Description

DIGITS = Path(store.__file__).with_name("digits.h5")


class Weights(Mapping[str, Array]):
    """slim's variable name -> float32 array, with what the file says of them.

    network: the call that built it. labels: one per class, or None. preprocessing: or None. source: what the file was
    made from, plain data. path: the file.
    """

    def __init__(self, path: Path, arrays: Mapping[str, Array], network: Network, description: Description) -> None:
        self.path = path
        self.network = network
        self.labels = description.labels
        self.preprocessing = None
        if description.preprocessing is not None:
            try:
                self.preprocessing = Preprocessing.from_json(description.preprocessing)
            except WeightsError as error:
                raise WeightsError(f"{path}: {error}") from None
        self.source = description.source
        self.written_by = description.written_by
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"<{len(self)} variables of {self.network.scope} from {self.path}>"


def load_weights(path: str | os.PathLike[str] | None = None) -> Weights:
    """A weights file's variables; None: the shipped digits network.

    Strict: WeightsError names the file and every variable that is missing, unexpected, damaged, not finite, or of
    another shape or dtype than the network that the file describes.
    """
    return _load(DIGITS if path is None else Path(path), contents)


def load_weights_apart(path: str | os.PathLike[str] | None = None) -> Weights:
    """As load_weights, but libhdf5 parses the file in a process of its own: a stranger's may be its death.

    That process may take 512 MiB of memory, and a minute. It tells where the numbers lie, and they are read in this
    one, without libhdf5. The shipped file is trusted.
    """
    if path is None:
        return load_weights()
    with Pool(memory=LISTING_MEMORY, begin=told_from_the_seal_on) as pool:  # it starts while the seal is verified

        def ask(path: str) -> Contents:
            return pool.call(contents, path, what=path, error=WeightsError, seconds=LISTING_SECONDS)

        return _load(Path(path), ask)


def _load(path: Path, ask: Callable[[str], Contents]) -> Weights:
    networks: list[Network] = []

    def shapes_of(call: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
        try:
            networks.append(Network.from_json(call))
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None
        return networks[0].variables()

    arrays, description = store.load(path, shapes_of, ask)
    weights = Weights(path, arrays, networks[0], description)
    check_labels(path, weights.labels, weights.network)
    return weights


def save_weights(
    path: str | os.PathLike[str],
    weights: Mapping[str, Array],
    network: Mapping[str, Any] | Network,
    labels: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | Preprocessing | None = None,
) -> None:
    """Write a weights file that load_weights, load_model and the command line take; all or nothing.

    weights: slim's variable name -> array, exactly the network's variables. network: as in dict(function=
    "resnet_v1_50", num_classes=7, depth_multiplier=.125), see Network.from_json; or a model's `network`. labels: one
    per class. preprocessing: as in dict(name="vgg", resize_side=256), or a Preprocessing; None: images come as the
    network takes them. WeightsError where something does not fit.
    """
    described = Network.from_json(network.to_json() if isinstance(network, Network) else network)
    expected = described.variables()
    checked = check_variables(weights, expected)
    if extra := sorted(set(weights) - set(expected)):
        raise WeightsError(
            f"{path}: {len(extra)} variables are not the network's, {', '.join(extra[:5])}; leave them out"
        )
    description = describe(described, labels, preprocessing)
    store.write(path, expected, checked.__getitem__, description)


def describe(
    network: Network,
    labels: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | Preprocessing | None = None,
    source: Mapping[str, Any] | None = None,
) -> Description:
    """The description of a file that this version writes; WeightsError where labels or preprocessing do not fit."""
    if isinstance(labels, str):
        raise WeightsError(f"labels must be a list with one text per class, got the text {labels!r:.100}")
    labels = None if labels is None else tuple(labels)
    check_labels("labels", labels, network)
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        preprocessing = Preprocessing.from_json(preprocessing)
    prepared = None if preprocessing is None else preprocessing.to_json()
    return Description(network.to_json(), prepared, labels, source, f"resnet-ref {version('resnet-ref')}")


def check_labels(where: str | os.PathLike[str], labels: tuple[str, ...] | None, network: Network) -> None:
    """WeightsError unless there is one text per class."""
    if labels is None:
        return
    if not all(isinstance(label, str) for label in labels):
        raise WeightsError(f"{where}: each label must be text, got {labels!r:.100}")
    for number, label in enumerate(labels):
        if problem := unprintable(label):
            raise WeightsError(f"{where}: label {number} holds {problem}: {label!a:.100}; remove it")
    if len(labels) != (network.num_classes or 0):
        raise WeightsError(f"{where}: {len(labels)} labels for {network.num_classes or 0} classes; give one per class")
