"""Reads a state dict that torch.save wrote, without torch: a zip file with a pickle, and a record for each storage."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.dtypes import DType, to_array
from resnet_ref.weights.checkpoint.source import AGAIN
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.checkpoint.wire import decoding
from resnet_ref.weights.elsewhere import torch_pickle
from resnet_ref.weights.elsewhere.elements import element_of
from resnet_ref.weights.elsewhere.opening import known, require_file
from resnet_ref.weights.elsewhere.torch_pickle import ForeignError, Global, Storage, Tensor
from resnet_ref.weights.elsewhere.zip_records import ALONE, ZipRecords
from resnet_ref.weights.named_arrays import File

WRAPPERS = ("state_dict", "model")
_ZIP = b"PK\x03\x04"
# The number that torch.save began with before version 1.6, pickled.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_BESIDE = "a tensor beside the state dict"


class TorchZip:
    """An open file of torch.save; see weights.named_arrays. Its names are the state dict's.

    A dict around the state dict, {"state_dict": ...} or {"model": ...}, is taken off; what else it holds is listed
    without being an array. Nothing that the pickle names is imported or called. Raises CheckpointError.
    """

    kind: str = "PyTorch zip"
    variables: Mapping[str, Variable]

    def __init__(self, path: Path) -> None:
        self.path = path
        _require_zip(path)
        self._records = ZipRecords(path)
        try:
            self._root = self._find_root()
            self._order = self._byte_order()
            entries, beside = _entries(str(path), self._unpickled())
            self._tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
            listed = {name: self._described(name, value) for name, value in entries.items()}
            listed |= {name: self._beside(name, value) for name, value in beside.items()}
            self.variables = MappingProxyType(dict(sorted(listed.items())))
        except BaseException:
            self._records.close()
            raise
        self.files = (File(str(path), self._records.size),)

    def read(self, name: str) -> npt.NDArray[Any]:
        """A tensor's values as a new array of the dtype and shape that `variables` says; its checksum is verified."""
        variable, tensor = known(self, name), self._tensors[name]
        kind = self._element(tensor)
        assert kind.stored is not None
        size = kind.stored.itemsize
        raw = np.empty(tensor.span * size, np.uint8)
        self._records.read_into(raw, f"{self._root}/data/{tensor.storage.key}", tensor.offset * size)
        flat = raw.view(kind.stored)
        if flat.size:  # the view was checked when the pickle was read
            flat = np.lib.stride_tricks.as_strided(flat, variable.shape, [stride * size for stride in tensor.strides])
        with decoding(f"{self.path}: {name!r}"):
            return np.asarray(to_array(flat.flatten(), kind)).reshape(variable.shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._records.close()

    def _find_root(self) -> str:
        """The folder that all records lie in: data.pkl among them."""
        roots = [name[: -len("/data.pkl")] for name in self._records.sizes if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise CheckpointError(
                f"{self.path}: a zip file, but not one of torch.save: it has {len(roots) or 'no'} data.pkl."
            )
        root = roots[0]
        if outside := [name for name in self._records.sizes if not name.startswith(f"{root}/")]:
            raise CheckpointError(f"{self.path}: {outside[0][:100]!r} lies outside the folder {root[:100]!r}. {AGAIN}")
        return root

    def _byte_order(self) -> Literal["<", ">"]:
        """As NumPy says it; files from before torch 2.1 do not say, and are little-endian."""
        record = f"{self._root}/byteorder"
        if record not in self._records.sizes:
            return "<"
        said = self._records.read(record, 16)
        if said not in (b"little", b"big"):
            raise CheckpointError(f"{self.path}: its byte order is {said!r}, expected little or big. {AGAIN}")
        return "<" if said == b"little" else ">"

    def _unpickled(self) -> Any:
        pickle = self._records.read(f"{self._root}/data.pkl", torch_pickle.MOST_BYTES)
        try:
            with decoding(f"{self.path}: data.pkl"):
                return torch_pickle.load(pickle)
        except ForeignError as error:
            raise CheckpointError(
                f"{self.path}: its pickle holds more than a state dict: {error}. Nothing of it was run; {ALONE}."
            ) from None

    def _described(self, name: str, value: Any) -> Variable:
        if not isinstance(value, Tensor):
            kind = type(value).__name__ if not isinstance(value, Storage | Global) else "an object of torch"
            return Variable(kind, (), 0, kind)
        element, storage = self._element(value), value.storage
        have = self._records.sizes.get(f"{self._root}/data/{storage.key}")
        where = f"{name[:100]!r} should lie in {f'data/{storage.key[:20]}'!r}, which"
        if have is None:
            raise CheckpointError(f"{self.path}: {where} is not there. {AGAIN}")
        if element.stored is not None and have != (want := storage.length * element.stored.itemsize):
            raise CheckpointError(f"{self.path}: {where} has {have} bytes, expected {want}. {AGAIN}")
        return Variable.of(element, value.shape)

    def _beside(self, name: str, value: Any) -> Variable:
        """None of the network's, if it is a tensor too: the best accuracy, say."""
        return Variable(_BESIDE, (), 0, _BESIDE) if isinstance(value, Tensor) else self._described(name, value)

    def _element(self, tensor: Tensor) -> DType:
        kind = element_of(tensor.storage.element)
        return kind if kind.stored is None else kind._replace(stored=kind.stored.newbyteorder(self._order))


def _require_zip(path: Path) -> None:
    require_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    if start == _LEGACY:
        raise CheckpointError(
            f"{path}: is of the old format of torch.save, from before PyTorch 1.6; "
            'load it and save it again: torch.save(torch.load("old.pth", weights_only=True), "new.pth").'
        )
    if not start.startswith(_ZIP):
        raise CheckpointError(f"{path}: expected a zip file of torch.save, got a file that begins with {start[:8]!r}.")


def _entries(name: str, top: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state dict's entries by name, and those beside it."""
    if type(top) is not dict:
        raise CheckpointError(f"{name}: expected a state dict, got a {type(top).__name__.lower()}; {ALONE}.")
    wrappers = [key for key in WRAPPERS if type(top.get(key)) is dict]
    if len(wrappers) > 1:
        raise CheckpointError(f"{name}: holds two state dicts, {' and '.join(map(repr, wrappers))}; {ALONE}.")
    inner = top[wrappers[0]] if wrappers else top
    beside = {key: value for key, value in top.items() if key not in wrappers} if wrappers else {}
    for key in (*inner, *beside):
        if type(key) is not str:
            raise CheckpointError(f"{name}: expected a state dict, whose keys are names, got the key {key}; {ALONE}.")
    if both := sorted(inner.keys() & beside.keys()):
        raise CheckpointError(f"{name}: {both[0][:100]!r} is in the state dict and beside it; {ALONE}.")
    return inner, beside
