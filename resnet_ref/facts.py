"""What a recording says of itself, and whether plain data can be that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Plain data.

    network: slim's call as Network.from_json takes it, None where slim's graph was somebody's own. is_training: the
    batch-norm mode. preprocessing, labels: as in a weights file. source: what the variables came from. images: per file
    its name and sha256. inputs: shape and sha256. end_points: in slim's order, each name, shape and sha256. variables:
    name -> shape and sha256. sample: how many values of an end point are kept at most, None for all. versions: of what
    ran.
    """

    network: Mapping[str, Any] | None
    is_training: bool
    preprocessing: Mapping[str, Any] | None
    labels: Sequence[str] | None
    source: Mapping[str, Any]
    versions: Mapping[str, str]
    sample: int | None = None
    images: list[dict[str, str]] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    end_points: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)


def facts_of(data: Any) -> Facts:
    """The facts that plain data are; ValueError says what is no such thing."""
    if not isinstance(data, dict):
        raise ValueError(f"they are {type(data).__name__}, expected an object")
    names = {one.name for one in fields(Facts)}
    if odd := sorted(set(data) ^ names):
        raise ValueError(f"{odd[0]!r:.100} is {'missing' if odd[0] in names else 'no fact'}")
    for name, (is_so, expected) in _FACTS.items():
        if not is_so(data[name]):
            raise ValueError(f"{name} is {data[name]!r:.100}, expected {expected}")
    seen: set[str] = set()
    for entry in data["end_points"]:
        if entry["name"] in seen:
            raise ValueError(f"there are two end points {entry['name']!r:.100}")
        seen.add(entry["name"])
    return Facts(**data)


_Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _maybe(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _list(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _object(**checks: _Check) -> _Check:
    """An object with these entries; others are let be."""
    return lambda value: isinstance(value, dict) and all(n in value and check(value[n]) for n, check in checks.items())


def _objects(check: _Check) -> _Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _images(value: Any) -> bool:
    """The shape of what a network is given: [N, H, W, C], none of them 0."""
    return _shape(value) and len(value) == 4 and all(value)


def _end_point(value: Any) -> bool:
    return _object(name=_text, shape=_shape, sha256=_text)(value) and _text(value.get("positions_sha256", ""))


_FACTS: dict[str, tuple[_Check, str]] = {
    "network": (_maybe(_object()), "an object or null"),
    "is_training": (lambda value: isinstance(value, bool), "true or false"),
    "preprocessing": (_maybe(_object()), "an object or null"),
    "labels": (_maybe(_list(_text)), "a list of texts, or null"),
    "source": (_object(), "an object"),
    "versions": (_objects(_text), "an object of texts"),
    "sample": (_maybe(lambda value: type(value) is int and value > 0), "a number of at least 1, or null"),
    "images": (_list(_object(name=_text, sha256=_text)), "a list, each with name and sha256"),
    "inputs": (_object(shape=_images, sha256=_text), "shape [N, H, W, C] and sha256"),
    "end_points": (_list(_end_point), "a list, each with name, shape and sha256"),
    "variables": (_objects(_object(shape=_shape, sha256=_text)), "an object, each with shape and sha256"),
}
