"""What a weights file says of its arrays, beside the arrays themselves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Description:
    """Each field is plain JSON: the network's call, its preprocessing, its labels, and where the arrays came from."""

    network: Mapping[str, Any]
    preprocessing: Mapping[str, Any] | None = None
    labels: tuple[str, ...] | None = None
    source: Mapping[str, Any] | None = None
    written_by: str = ""

    def to_attributes(self) -> dict[str, str]:
        """Field name -> canonical JSON."""
        return {name: canonical(value) for name, value in vars(self).items()}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, str]) -> "Description":
        """The inverse of to_attributes; ValueError for text that is no JSON or a field of another type."""
        fields = {name: json.loads(attributes[name]) for name in cls.__dataclass_fields__}
        for name, kinds in _KINDS.items():
            if not isinstance(fields[name], kinds):
                raise ValueError(f"{name} is {type(fields[name]).__name__}")
        if fields["labels"] is not None:
            if not all(isinstance(label, str) for label in fields["labels"]):
                raise ValueError("labels holds something other than text")
            fields["labels"] = tuple(fields["labels"])
        return cls(**fields)


_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "network": (dict,),
    "preprocessing": (dict, _NONE),
    "labels": (list, _NONE),
    "source": (dict, _NONE),
    "written_by": (str,),
}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spare blanks, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
