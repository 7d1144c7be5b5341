"""Labels from files and the ILSVRC-2012 names that come with the package."""

import os
import re
from collections import Counter
from pathlib import Path

import needs
import pytest

from resnet_ref.errors import WeightsError
from resnet_ref.labels import imagenet_labels, imagenet_synsets, read_labels


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "labels.txt"


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog\nm\xc3\xb6we\n",
        b"cat\ndog\nm\xc3\xb6we",
        b"\xef\xbb\xbfcat\r\ndog\r\nm\xc3\xb6we\r\n",
        b" cat \ndog\t\nm\xc3\xb6we\n\n \n",
        b"0:cat\n1:dog\n2:m\xc3\xb6we\n",
        b"\xef\xbb\xbf2: m\xc3\xb6we\r\n0:cat\r\n1:dog\r\n",
    ],
    ids=["lines", "no last newline", "BOM and CRLF", "spaces", "slim", "slim unsorted"],
)
def test_both_forms_give_the_same_labels(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read_labels(file, 3) == ["cat", "dog", "möwe"]
    assert read_labels(str(file), 3) == ["cat", "dog", "möwe"]


def test_a_label_may_stand_twice(file: Path) -> None:
    file.write_text("crane\ncrane\n")
    assert read_labels(file, 2) == ["crane", "crane"]


def test_one_line_without_a_number_makes_the_file_plain_and_colons_part_of_labels(file: Path) -> None:
    file.write_text("4:3\n16:9\nsquare: 1\n")
    assert read_labels(file, 3) == ["4:3", "16:9", "square: 1"]


@pytest.mark.parametrize(
    ("content", "num_classes", "message"),
    [
        (b"", 2, "expected one label per line, got an empty file; "),
        (b"\n\n", 2, "got an empty file"),
        (b"a\n\nb\n", 3, "got a blank line 2; write"),
        (b"a\nb\nc\n", 7, "expected 7 labels, one per class, got 3 labels; name the file that belongs"),
        (b"a\nb\nc\n", 4, "expected 4 labels, .*got 3 labels; if the network counts a background as class 0.*add it"),
        (b"a\nb\nc\n", 2, "expected 2 labels, .*got 3 labels; if the first label is a background.*remove that line"),
        (b"0:a\n2:b\n3:c\n", 3, "each number from 0 to 2 once, got no line numbered 1; "),
        (b"0:a\n1:b\n1:c\n", 3, "got no line numbered 2"),
        (b"1:a\n2:b\n3:c\n", 3, "got no line numbered 0"),
        (b"0:a\n1:\n2:c\n", 3, "a label after each number, got `1:`"),
        (b"a\n\xff\xfeb\n", 2, "UTF-8 text, got bytes that are not at 2; save the file as UTF-8"),
        ("a\nb\n".encode("utf-16"), 2, "UTF-8 text"),
    ],
)
def test_a_wrong_file_is_a_weights_error_that_says_what_to_do(
    file: Path, content: bytes, num_classes: int, message: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(str(file)) + ": .*" + message):
        read_labels(file, num_classes)


@needs.PIPES
def test_a_path_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe, too, which would otherwise be waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path, got in [
        (tmp_path / "pipe", "a directory, pipe or device"),
        (tmp_path, "a directory, pipe or device"),
        (tmp_path / "none", "no such file"),
        (Path("a\0b"), "no such file"),
        (tmp_path / ("a" * 300), "File name too long"),
    ]:
        with pytest.raises(WeightsError, match=f"expected a text file of labels, got {got}; check the path"):
            read_labels(path, 1)


def test_a_file_that_may_not_be_read_is_a_weights_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file.write_text("a\n")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(WeightsError, match="got Permission denied; check the path and its permissions"):
        read_labels(file, 1)


def test_a_huge_file_is_not_read(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(2**25)
    with pytest.raises(WeightsError, match="at most 16,777,216 bytes, got 33,554,432; "):
        read_labels(file, 1)


def test_the_imagenet_classes_are_the_thousand_synsets_in_ilsvrc_order() -> None:
    synsets = [synset for synset, _ in imagenet_synsets()]
    assert len(synsets) == 1000
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in synsets)
    assert synsets == sorted(set(synsets))


@pytest.mark.parametrize(
    ("number", "synset", "name"),
    [
        (0, "n01440764", "tench, Tinca tinca"),
        (1, "n01443537", "goldfish, Carassius auratus"),
        (134, "n02012849", "crane"),
        (281, "n02123045", "tabby, tabby cat"),
        (517, "n03126707", "crane"),
        (999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
    ],
)
def test_known_imagenet_classes_stand_where_they_should(number: int, synset: str, name: str) -> None:
    assert imagenet_synsets()[number] == (synset, name)
    assert imagenet_labels(1000)[number] == name  # type: ignore[index]
    assert imagenet_labels(1001)[number + 1] == name  # type: ignore[index]


def test_no_imagenet_name_is_blank_and_only_crane_stands_twice() -> None:
    names = imagenet_labels(1000)
    assert names is not None
    assert all(name and name == name.strip() and name.isascii() and name.isprintable() for name in names)
    assert [name for name, count in Counter(names).items() if count > 1] == ["crane"]


def test_background_comes_first_of_1001_and_other_numbers_have_no_names() -> None:
    assert imagenet_labels(1001) == ["background", *(imagenet_labels(1000) or [])]
    for number in (0, 10, 999, 1002):
        assert imagenet_labels(number) is None


def test_changing_the_answer_does_not_change_the_next_one() -> None:
    first = imagenet_labels(1000)
    assert first is not None
    first[0] = "changed"
    assert imagenet_labels(1000) != first


def test_the_imagenet_names_are_a_label_file_of_their_own_making(file: Path) -> None:
    """slim's form of the 1001 labels reads back as written."""
    labels = imagenet_labels(1001)
    assert labels is not None
    file.write_text("".join(f"{number}:{label}\n" for number, label in enumerate(labels)))
    assert read_labels(file, 1001) == labels
