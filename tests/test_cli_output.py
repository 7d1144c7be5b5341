"""What files say reaches a terminal as text alone: no command of theirs, and no line that looks like ours."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from resnet_ref import WeightsError, load_weights, save_weights
from resnet_ref.cli import options
from resnet_ref.network import Network
from resnet_ref.weights import store
from resnet_ref.weights.description import Description

EVIL = "\x1b[2J\x1b]0;title\x07\r\nresnet-ref: fine\x9b2J\u202e\ud800"
COMMANDS = Path(options.__file__).parent


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    out = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in out)
    return out


def test_what_is_printed_is_printable_however_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    options.echo(EVIL)
    assert len(shown(capsys).splitlines()) == 1
    options.echo_table(["a", EVIL], [[EVIL, "b"], ["c", "d"]])
    lines = shown(capsys).splitlines()
    assert len(lines) == 3
    assert len({len(line) for line in lines[:2]}) <= 2
    options.echo_json({"a": EVIL, "é": ["ü", 1.5]})
    text = shown(capsys)
    assert json.loads(text) == {"a": EVIL, "é": ["ü", 1.5]}
    assert "ü" in text


def test_no_command_prints_in_another_way() -> None:
    """But for the help and the errors of group.py, which are ours and escaped."""
    for path in COMMANDS.glob("*.py"):
        if path.name not in ("options.py", "group.py"):
            assert "click.echo(" not in path.read_text(), path.name
            assert not re.search(r"\bprint\(", path.read_text()), path.name


@pytest.mark.parametrize(
    ("label", "said"),
    [("a\x1b[2J", "a control character"), ("a\nb", "a control character"), ("\ud800", "half a character")],
)
def test_labels_that_a_terminal_would_obey_are_neither_saved_nor_loaded(
    tmp_path: Path, tiny_variables: dict[str, Any], label: str, said: str
) -> None:
    labels = ["x", label, "z", "four", "five"]
    with pytest.raises(WeightsError, match=f"labels: label 1 holds {said}: "):
        save_weights(tmp_path / "w.h5", tiny_variables, TINY, labels=labels)
    path = tmp_path / "evil.h5"
    call = Network.from_json(TINY).to_json()
    described = Description(call, labels=tuple(labels))
    if said != "half a character":  # which HDF5 has no bytes for
        store.write(path, tiny_variables, tiny_variables.__getitem__, described)
        with pytest.raises(WeightsError, match=f"evil.h5: label 1 holds {said}"):
            load_weights(path)


def test_half_a_character_in_the_json_of_labels_is_refused(tmp_path: Path, tiny_variables: dict[str, Any]) -> None:
    class Escaped(Description):
        def to_attributes(self) -> dict[str, str]:
            return {name: json.dumps(value) for name, value in vars(self).items()}

    path = tmp_path / "evil.h5"
    described = Escaped(Network.from_json(TINY).to_json(), labels=("a", "\ud800", "c", "d", "e"))
    store.write(path, tiny_variables, tiny_variables.__getitem__, described)
    with pytest.raises(WeightsError, match="label 1 holds half a character"):
        load_weights(path)


def test_a_scope_is_printable() -> None:
    for scope in ("a\x1b[2J", "a\nb", "\ud800"):
        with pytest.raises(WeightsError, match="a scope must be text like") as caught:
            Network.from_json({**TINY, "scope": scope})
        assert "\x1b" not in str(caught.value)
