"""What another framework's file is, said in slim's words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from resnet_ref.kernels.arrays import Array

NOT_USED = "not a variable of the network"


@dataclass(frozen=True)
class Derived:
    """One of slim's variables. sources: the arrays in the file that it is made of. make: from these, in that order, to
    the variable of that shape."""

    shape: tuple[int, ...]
    sources: tuple[str, ...]
    make: Callable[..., Array]


@dataclass(frozen=True)
class Translation:
    """network: as in Network.from_json. variables: by slim's names, exactly the network's. preprocessing: as in
    Preprocessing.from_json, where it is known. labels: one per class. skipped: what the file holds besides, name -> why
    it is left out. assumed: a sentence on what the file does not show."""

    network: Mapping[str, Any]
    variables: Mapping[str, Derived]
    preprocessing: Mapping[str, Any] | None
    labels: tuple[str, ...] | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    assumed: str = ""
