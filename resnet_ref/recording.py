"""A recording: what slim computed for some images, in one HDF5 file, with all that a rerun and a diagnosis need.

    inputs                      float32 [N, H, W, C]: what the network was given
    images/0, images/1 ...      uint8: the image files' bytes
    end_points/000 NAME         float32: an end point (NAME with dots for slashes), whole, or [sample] values of it
    positions/000 NAME          int64 [sample]: where in the flattened end point these lie

The root attribute `facts` describes them in JSON and holds a SHA-256 of each; `sha256` is that of `facts`.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import RecordingError, WeightsError
from resnet_ref.facts import Facts, facts_of
from resnet_ref.kernels.arrays import Array
from resnet_ref.network import Network
from resnet_ref.weights.description import canonical
from resnet_ref.weights.finite import not_finite
from resnet_ref.weights.hdf5 import (
    creating,
    incomplete,
    open_unlocked,
    opened,
    plain_datasets,
    read_format,
    read_text,
    write_array,
    write_text,
)

FORMAT = "resnet-ref recording"
VERSION = 1
_ADVICE = "make one with `resnet-ref record`, or copy it again"


class Recorded(NamedTuple):
    """One end point: its shape, its values (float32, flat) and their positions in it, None where all are kept."""

    shape: tuple[int, ...]
    values: NDArray[np.float32]
    positions: NDArray[np.int64] | None

    def of(self, whole: Array) -> Array:
        """The values of another array of this shape at the recorded positions, flat."""
        flat = whole.reshape(-1)
        return flat if self.positions is None else flat[self.positions]


class Recording:
    """An open recording; made by `open_recording`. Values are read, and their checksums verified, when asked for."""

    def __init__(self, path: Path, facts: Facts, datasets: Mapping[str, h5py.Dataset]) -> None:
        self.path = path
        self.facts = facts
        self._datasets = datasets
        self.network = None if facts.network is None else Network.from_json(facts.network)
        self.end_points = {entry["name"]: tuple(entry["shape"]) for entry in facts.end_points}
        self._numbers = {name: number for number, name in enumerate(self.end_points)}

    def inputs(self) -> NDArray[np.float32]:
        """What slim's network was given, [N, H, W, C]; finite."""
        found = self._read("inputs", self.facts.inputs["sha256"])
        if bad := not_finite(found):
            raise RecordingError(f"{self.path}: its inputs hold {bad}; expected finite numbers, as images are")
        return found

    def image(self, number: int) -> bytes:
        """The bytes of an image's file."""
        return self._read(f"images/{number}", self.facts.images[number]["sha256"]).tobytes()

    def read(self, name: str) -> Recorded:
        """An end point."""
        number = self._numbers[name]
        key = _key(number, name)
        sampled = f"positions/{key}" in self._datasets
        entry = self.facts.end_points[number]
        positions = self._read(f"positions/{key}", entry["positions_sha256"]) if sampled else None
        shape = self.end_points[name]
        if positions is not None and positions.size and not 0 <= positions.min() <= positions.max() < math.prod(shape):
            raise RecordingError(f"{self.path} is damaged: a position of {name} lies outside of it; {_ADVICE}")
        return Recorded(shape, self._read(f"end_points/{key}", entry["sha256"]), positions)

    def _read(self, key: str, expected: str) -> Array:
        dataset = self._datasets[key]
        array = np.empty(dataset.shape, dataset.dtype)
        try:
            if array.size:
                dataset.read_direct(array)
        except (OSError, RuntimeError) as error:
            raise RecordingError(f"{self.path} is damaged: {key} cannot be read ({error}); {_ADVICE}") from None
        if digest(array) != expected:
            raise RecordingError(f"{self.path} is damaged: the SHA-256 of {key} is not what the file says; {_ADVICE}")
        return array


def digest(array: Array) -> str:
    """SHA-256 over an array's shape and bytes."""
    sha = hashlib.sha256(f"{list(array.shape)}\0".encode())
    sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def sample_positions(name: str, size: int, count: int | None) -> NDArray[np.int64] | None:
    """Which of an end point's `size` values to keep: the same `count` for each name and size; None for all of them."""
    if count is None or size <= count:
        return None
    chosen = np.random.default_rng(zlib.crc32(name.encode())).choice(size, count, replace=False, shuffle=False)
    return np.sort(chosen).astype(np.int64)


def write_recording(
    path: str | os.PathLike[str],
    facts: Facts,
    images: Iterable[tuple[str, bytes]],
    inputs: NDArray[np.float32],
    end_points: Iterable[tuple[str, Recorded]],
    variables: Mapping[str, Array],
) -> None:
    """Write a recording, whole or not at all; the lists in `facts` are filled in here. WeightsError as `creating`."""
    facts.inputs.update(shape=list(inputs.shape), sha256=digest(inputs))
    shas = {n: {"shape": list(v.shape), "sha256": digest(np.asarray(v, np.float32))} for n, v in variables.items()}
    facts.variables.update(shas)
    with creating(path) as file:
        write_array(file, "inputs", np.asarray(inputs, "<f4"))
        for number, (name, data) in enumerate(images):
            pixels = np.frombuffer(data, np.uint8)
            write_array(file, f"images/{number}", pixels)
            facts.images.append({"name": name, "sha256": digest(pixels)})
        for number, (name, recorded) in enumerate(end_points):
            key = _key(number, name)
            write_array(file, f"end_points/{key}", np.asarray(recorded.values, "<f4"))
            entry = {"name": name, "shape": list(recorded.shape), "sha256": digest(recorded.values)}
            if recorded.positions is not None:
                write_array(file, f"positions/{key}", np.asarray(recorded.positions, "<i8"))
                entry["positions_sha256"] = digest(recorded.positions)
            facts.end_points.append(entry)
        text = canonical(asdict(facts))
        texts = {"format": FORMAT, "version": str(VERSION), "facts": text}
        for name, value in {**texts, "sha256": hashlib.sha256(text.encode()).hexdigest()}.items():
            write_text(file, name, value)


@contextmanager
def open_recording(path: str | os.PathLike[str]) -> Iterator[Recording]:
    """A recording for reading; RecordingError where it is none, is damaged, or is not whole."""
    with opened(path, RecordingError, _ADVICE) as file:
        read_format(file, path, FORMAT, VERSION, RecordingError, _ADVICE)
        text = read_text(file, "facts")
        if hashlib.sha256(text.encode()).hexdigest() != read_text(file, "sha256"):
            raise RecordingError(f"{path} is damaged: the SHA-256 of its facts is not what it says; {_ADVICE}")
        facts = _read_facts(path, text)
        datasets = dict(plain_datasets(path, file, RecordingError))
        _check(path, facts, datasets)
    # Opened again, so that what goes wrong while it is in use is not taken for damage.
    with open_unlocked(path) as file:
        try:
            recording = Recording(Path(path), facts, {key: file[key] for key in datasets})
        except WeightsError as error:
            raise RecordingError(f"{path}: {error}") from None
        yield recording


def _read_facts(path: str | os.PathLike[str], text: str) -> Facts:
    try:
        return facts_of(json.loads(text))
    except (ValueError, RecursionError) as problem:
        raise RecordingError(f"{path} is damaged: its facts cannot be read ({problem}); {_ADVICE}") from None


def _check(path: str | os.PathLike[str], facts: Facts, datasets: Mapping[str, h5py.Dataset]) -> None:
    """RecordingError unless the datasets are those that the facts describe; nothing is allocated before."""
    expected = _expected(facts)
    if set(datasets) != set(expected):
        odd = sorted(set(datasets) ^ set(expected))
        raise RecordingError(f"{path} does not hold what it describes: {', '.join(odd[:3])}; {_ADVICE}")
    if sum(dataset.id.get_storage_size() for dataset in datasets.values()) > os.path.getsize(path):
        raise RecordingError(f"{path} is damaged: its data are larger than the file; {_ADVICE}")
    for key, (dtype, shape) in expected.items():
        dataset = datasets[key]
        problem = incomplete(dataset, None)
        if dataset.dtype != np.dtype(dtype) or (shape is not None and dataset.shape != shape):
            problem = f"is {dataset.dtype} {dataset.shape}, expected {dtype} {shape}"
        if problem:
            raise RecordingError(f"{path} is damaged: {key} {problem}; {_ADVICE}")


def _expected(facts: Facts) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    """Each dataset's dtype and shape; an image's shape, its number of bytes, may be any."""
    expected: dict[str, tuple[str, tuple[int, ...] | None]] = {"inputs": ("<f4", tuple(facts.inputs["shape"]))}
    for number in range(len(facts.images)):
        expected[f"images/{number}"] = ("|u1", None)
    for number, entry in enumerate(facts.end_points):
        key, kept = _key(number, entry["name"]), math.prod(entry["shape"])
        if "positions_sha256" in entry:
            kept = min(kept, facts.sample or kept)
            expected[f"positions/{key}"] = ("<i8", (kept,))
        expected[f"end_points/{key}"] = ("<f4", (kept,))
    return expected


def _key(number: int, name: str) -> str:
    return f"{number:03d} {name.replace('/', '.')}"
