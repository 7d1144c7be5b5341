"""Class names: a user's own from a text file, or those of ILSVRC-2012 that come with the package."""

import os
import re
import unicodedata
from functools import cache
from importlib import resources
from pathlib import Path

from resnet_ref.errors import WeightsError

# Many times the largest label file there is; keeps a wrong path (a checkpoint, a video) from being read whole.
_MAX_BYTES = 2**24
_SLIM_LINE = re.compile(r"([0-9]{1,9}):(.*)")


def read_labels(path: str | os.PathLike[str], num_classes: int) -> list[str]:
    """The labels of classes 0 .. num_classes - 1 from a UTF-8 text file; blank lines at the end are no labels.

    One label per line, or slim's labels.txt (dataset_utils.write_label_file), `0:background` and so on, whose numbers
    must be 0 .. num_classes - 1 in any order. A label may stand twice. Raises WeightsError.
    """
    path = Path(path)
    lines = [line.strip() for line in _read_text(path).rstrip().split("\n")]
    if "" in lines:
        got = "an empty file" if lines == [""] else f"a blank line {lines.index('') + 1}"
        raise _error(path, "one label per line", got, "write a label there")
    for number, line in enumerate(lines, 1):  # a terminal would obey them
        if any(unicodedata.category(character) == "Cc" and character != "\t" for character in line):
            raise _error(path, "printable labels", f"a control character in line {number}", "remove it")
    if len(lines) != num_classes:
        got = f"{len(lines)} labels"
        raise _error(path, f"{num_classes} labels, one per class", got, _advice(len(lines), num_classes))
    numbered = [_SLIM_LINE.fullmatch(line) for line in lines]
    if None in numbered:
        return lines
    return _by_number(path, {int(match[1]): match[2].strip() for match in numbered if match}, num_classes)


def imagenet_labels(num_classes: int) -> list[str] | None:
    """The ILSVRC-2012 class names: 1000, or 1001 with slim's "background" first; None for any other number.

    A name is all of a synset's lemmas, as in "tench, Tinca tinca". Two are called "crane", a bird and a machine.
    """
    names = [name for _, name in imagenet_synsets()]
    return {1000: names, 1001: ["background", *names]}.get(num_classes)


@cache
def imagenet_synsets() -> tuple[tuple[str, str], ...]:
    """(WordNet id, name) of each of the 1000 ILSVRC-2012 classes, in the order of their numbers."""
    text = resources.files("resnet_ref").joinpath("data/imagenet_classes.txt").read_text("utf-8")
    entries = (line.partition(" ") for line in text.splitlines() if not line.startswith("#"))
    return tuple((synset, name) for synset, _, name in entries)


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            got = "a directory, pipe or device" if path.exists() else "no such file"
            raise _error(path, "a text file of labels", got, "check the path")
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise _error(path, f"at most {_MAX_BYTES:,} bytes", f"{size:,}", "name a text file of labels")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _error(path, "UTF-8 text", f"bytes that are not at {error.start}", "save the file as UTF-8") from error
    except OSError as error:
        got = error.strerror or str(error)
        raise _error(path, "a text file of labels", got, "check the path and its permissions") from error


def _by_number(path: Path, labels: dict[int, str], num_classes: int) -> list[str]:
    missing = [number for number in range(num_classes) if number not in labels]
    if missing:
        got = f"no line numbered {missing[0]}"
        raise _error(path, f"each number from 0 to {num_classes - 1} once", got, "number the lines anew")
    empty = [number for number in range(num_classes) if not labels[number]]
    if empty:
        raise _error(path, "a label after each number", f"`{empty[0]}:`", "write a label there")
    return [labels[number] for number in range(num_classes)]


def _advice(got: int, num_classes: int) -> str:
    if num_classes == got + 1:
        return "if the network counts a background as class 0, as slim's ImageNet data does, add it as the first line"
    if num_classes == got - 1:
        return "if the first label is a background that the network does not count, remove that line"
    return "name the file that belongs to this network"


def _error(path: Path, expected: str, got: str, advice: str) -> WeightsError:
    return WeightsError(" ".join(f"{path}: expected {expected}, got {got}; {advice}".splitlines()))
