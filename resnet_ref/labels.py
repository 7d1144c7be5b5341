"""Class names: a user's own from a text file, or those of ILSVRC-2012 that come with the package."""

import os
import re
import unicodedata
from functools import cache
from importlib import resources
from pathlib import Path

from resnet_ref.text_files import read_text, wrong

_SLIM_LINE = re.compile(r"([0-9]{1,9}):(.*)")


def read_labels(path: str | os.PathLike[str], num_classes: int) -> list[str]:
    """The labels of classes 0 .. num_classes - 1 from a UTF-8 text file; blank lines at the end are no labels.

    One label per line, or slim's labels.txt (dataset_utils.write_label_file), `0:background` and so on, whose numbers
    must be 0 .. num_classes - 1 in any order. A label may stand twice. Raises WeightsError.
    """
    path = Path(path)
    lines = [line.strip() for line in read_text(path, "a text file of labels").rstrip().split("\n")]
    if "" in lines:
        got = "an empty file" if lines == [""] else f"a blank line {lines.index('') + 1}"
        raise wrong(path, "one label per line", got, "write a label there")
    for number, line in enumerate(lines, 1):
        if problem := unprintable(line):
            raise wrong(path, "printable labels", f"{problem} in line {number}", "remove it")
    if len(lines) != num_classes:
        got = f"{len(lines)} labels"
        raise wrong(path, f"{num_classes} labels, one per class", got, _advice(len(lines), num_classes))
    numbered = [_SLIM_LINE.fullmatch(line) for line in lines]
    if None in numbered:
        return lines
    return _by_number(path, {int(match[1]): match[2].strip() for match in numbered if match}, num_classes)


def unprintable(label: str) -> str | None:
    """What keeps a label from being shown or written as it is, or None: a terminal would obey control characters."""
    categories = {unicodedata.category(character) for character in label if character != "\t"}
    return "a control character" if "Cc" in categories else "half a character" if "Cs" in categories else None


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


def _by_number(path: Path, labels: dict[int, str], num_classes: int) -> list[str]:
    missing = [number for number in range(num_classes) if number not in labels]
    if missing:
        got = f"no line numbered {missing[0]}"
        raise wrong(path, f"each number from 0 to {num_classes - 1} once", got, "number the lines anew")
    empty = [number for number in range(num_classes) if not labels[number]]
    if empty:
        raise wrong(path, "a label after each number", f"`{empty[0]}:`", "write a label there")
    return [labels[number] for number in range(num_classes)]


def _advice(got: int, num_classes: int) -> str:
    if num_classes == got + 1:
        return "if the network counts a background as class 0, as slim's ImageNet data does, add it as the first line"
    if num_classes == got - 1:
        return "if the first label is a background that the network does not count, remove that line"
    return "name the file that belongs to this network"
