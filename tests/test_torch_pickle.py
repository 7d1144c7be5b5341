"""The pickle in a file of torch.save: nothing that it names is run, whatever it asks for."""

import io
import os
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_files import ORDERED, PROTO, STOP, failure, number, sequence, state_dict, storage, tensor, text, torch_zip

from resnet_ref.weights.checkpoint.wire import DamagedError
from resnet_ref.weights.elsewhere.torch_pickle import _STEPS, MOST_OPCODES, ForeignError, load
from resnet_ref.weights.elsewhere.torch_zip import TorchZip

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_payload_is_not_run(tmp_path: Path) -> None:
    """Python's own unpickler runs it, in each protocol; the reader refuses it, naming what it asks for."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        harm, ugly = tmp_path / f"harm{protocol}", pickle.dumps({"a": Payload(tmp_path / f"harm{protocol}")}, protocol)
        message = failure(TorchZip, torch_zip(tmp_path / "a.pth", ugly))
        assert "its pickle holds more than a state dict" in message
        assert "Nothing of it was run; save the state dict alone: torch.save(model.state_dict(), " in message
        assert protocol != 2 or "more than a state dict: posix.mkdir." in message
        assert not harm.exists()
        pickle.loads(ugly)
        assert harm.is_dir()


FOREIGN = {
    "global": (b"cos\nsystem\n", "os.system"),
    "numpy": (b"cnumpy.core.multiarray\nscalar\n", "numpy.core.multiarray.scalar"),
    "builtin": (b"cbuiltins\neval\n", "builtins.eval"),
    "part of a name": (
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n",
        "torch._utils._rebuild_tensor_v2.__globals__",
    ),
    "other module": (b"ctorch\n_utils._rebuild_tensor_v3\n", "torch._utils._rebuild_tensor_v3"),
    "ugly": (b"c\xff\r\x85\n\x00\n", "\\xff"),
    "inst": (b"(ios\nsystem\n", "the opcode b'i'"),
    "obj": (b"(cos\nsystem\no", "os.system"),
    "quantised": (b"ctorch._utils\n_rebuild_qtensor\n", "not plain (torch._utils._rebuild_qtensor); use"),
    "float8": (b"ctorch._utils\n_rebuild_tensor_v3\n", "_rebuild_tensor_v3); use .dequantize(), "),
    "newobj": (b"\x81", "the opcode b'\\x81'"),
    "extension": (b"\x82\x01", "the opcode b'\\x82'"),
    "stack global": (b"\x93", "the opcode b'\\x93'"),
    "persistent text": (b"P0\n", "the opcode b'P'"),
    "bytes": (b"C\x01a", "the opcode b'C'"),
    "duplicate": (b"2", "the opcode b'2'"),
    "long number": (b"\x8b\xff\xff\xff\x7f", "the opcode b'\\x8b'"),
    "protocol": (b"\x80\x04", "protocol 4 of pickles, where torch.save writes 2"),
    "call of a dict": (b"})R", "a call of something that makes no tensor"),
    "call of a storage": (b"ctorch\nFloatStorage\n)R", "a call of something that makes no tensor"),
    "call with a list": (REBUILD + b"]R", "a call of something that makes no tensor"),
    "made": (b"ccollections\nOrderedDict\n]\x85R", "an OrderedDict made of something"),
    "negated": (tensor("0", 1, [1], [1], more=b"}" + text("neg") + b"\x88s"), "a tensor that is conjugated or negated"),
    "attributes": (b"}}" + text("__class__") + b"Nsb", "attributes of a dict"),
    "attributes of none": (b"}Nb", "attributes of a dict"),
    "tuple for a key": (b"})Ns", "a key that is a tuple"),
    "persistent": (b"NQ", "a persistent id that is no storage's"),
    "other persistent": (b"(" + text("module") + b"NNNNtQ", "a persistent id that is no storage's"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_more_than_a_state_dict_is_named(case: str) -> None:
    opcodes, message = FOREIGN[case]
    with pytest.raises(ForeignError) as caught:
        load(PROTO + opcodes + STOP)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


DAMAGED = {
    "empty": (b"", "cut off"),
    "no end": (PROTO + b"}", "cut off"),
    "no value": (PROTO + STOP, "ends before it is done"),
    "two values": (PROTO + b"}}" + STOP, "ends before it is done"),
    "open": (PROTO + b"}(" + STOP, "ends before it is done"),
    "behind": (PROTO + b"}" + STOP + b"}", "goes on behind its end"),
    "nothing to pop": (PROTO + b"\x85" + STOP, "takes a value that it has not put"),
    "below a mark": (PROTO + b"}(\x85" + STOP, "takes a value that it has not put"),
    "no mark": (PROTO + b"}t" + STOP, "closes what it has not opened"),
    "marks": (PROTO + b"(" * 65 + b"t" * 65 + STOP, "is nested more than 64 deep"),
    "memo": (PROTO + b"h\x01" + STOP, "refers to a value that it has not kept"),
    "list": (PROTO + b"}Na" + STOP, "fills a dict as if it were a list"),
    "dict": (PROTO + b"]NNs" + STOP, "fills a list as if it were a dict"),
    "attributes": (PROTO + b"]}b" + STOP, "fills a list as if it were a dict"),
    "odd": (PROTO + b"}(Nu" + STOP, "a key without a value"),
    "twice": (PROTO + b"}(" + text("a\n") + b"N" + text("a\n") + b"Nu" + STOP, "'a\\n' is there twice"),
    "long text": (PROTO + text("a" * 65537) + STOP, "a text of 65537 bytes, expected at most 65536"),
    "claimed text": (PROTO + b"X\xff\xff\xff\xffa" + STOP, "a text of 4294967295 bytes"),
    "no text": (PROTO + text(b"\xff") + STOP, "a text that is no UTF-8"),
    "number": (PROTO + b"\x8a\xff" + b"1" * 255 + STOP, "a number of 255 bytes, expected at most 8"),
    "name": (PROTO + b"c" + b"a" * 300 + b"\n\n" + STOP, "a name without an end"),
    "half a name": (PROTO + b"ca\n" + STOP, "a name without an end"),
    "tensor": (PROTO + REBUILD + b")R" + STOP, "is not made of a storage"),
    "text for a storage": (PROTO + REBUILD + b"(" + text("a") + b"NNNNNtR" + STOP, "is not made of a storage"),
    "true": (
        PROTO + REBUILD + b"(" + storage("0", 1) + b"K\0\x88\x85" + sequence([1]) + b"\x89" + ORDERED + b"tR" + STOP,
        "a tensor's offset, size and stride are no whole numbers",
    ),
    "parameter": (PROTO + b"ctorch._utils\n_rebuild_parameter\nNNN\x87R" + STOP, "is not made of a tensor"),
    "storage of text": (PROTO + b"(" + text("storage") + b"NNNK\1tQ" + STOP, "a storage without type, key or size"),
    "storage below 0": (PROTO + storage("0", -1) + STOP, "a storage without type, key or size"),
    "storage of a dict": (
        PROTO + b"(" + text("storage") + b"ccollections\nOrderedDict\n" + text("0") + b"N" + number(1) + b"tQ" + STOP,
        "a storage without type, key or size",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_breaks_a_pickle_is_said(case: str, tmp_path: Path) -> None:
    """In the reader's error too, with advice."""
    data, message = DAMAGED[case]
    with pytest.raises(DamagedError) as caught:
        load(data)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    said = failure(TorchZip, torch_zip(tmp_path / "a.pth", data))
    assert said.endswith(f"data.pkl: {caught.value}. The file is damaged or incomplete: copy or download it again.")


BOMBS = {
    "dicts": b"}" * (MOST_OPCODES + 1),
    "memo": b"}" + b"".join(b"r" + struct.pack("<I", n) for n in range(MOST_OPCODES)),
    "ten to the power of a million": b"]" + b"q\x00\x86h\x00" * MOST_OPCODES,
    "nested tuples": b")" + b"\x85" * MOST_OPCODES,
    "nested lists": b"]q\x00" + b"]h\x00aq\x00" * (MOST_OPCODES // 4),
    "wide text": (text("\N{GRINNING FACE}" + "a" * 65000) + b"q\x00") * 128,
    "marks": b"(t" * MOST_OPCODES,
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_takes_little_memory(case: str) -> None:
    """Fewer than 100 MB for whatever a pickle of the largest size builds; deep nesting does not recurse."""
    data = PROTO + BOMBS[case]
    tracemalloc.start()
    with pytest.raises((DamagedError, ForeignError)):
        load(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


def test_a_nest_of_tuples_is_built_and_dropped_without_recursion() -> None:
    assert load(PROTO + b")" + b"\x85" * 400_000 + STOP)


def test_a_list_in_itself_is_read() -> None:
    value = load(PROTO + b"]q\x00h\x00a" + STOP)
    assert value[0] is value


@pytest.mark.parametrize("name", ["plain", "wrapped"])
def test_pythons_unpickler_reads_the_same_from_what_torch_saved(name: str) -> None:
    """With stand-ins for torch's names; and each opcode in the files is one of those known here."""
    with zipfile.ZipFile(Path(__file__).parent / "recorded" / f"torch_{name}.pth") as archive:
        data = next(archive.read(member) for member in archive.namelist() if member.endswith("/data.pkl"))
    assert {opcode.code.encode("latin-1") for opcode, _, _ in pickletools.genops(data)} <= {*_STEPS, STOP}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if name == "OrderedDict":
                return type("Plain", (dict,), {})
            if name == "_rebuild_parameter":
                return lambda data, *_: data
            return (lambda *a: a[:4]) if name == "_rebuild_tensor_v2" else f"{module}.{name}"

        def persistent_load(self, pid: Any) -> Any:
            return pid[2], pid[4]

    def plainly(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plainly(item) for key, item in value.items()}
        if type(value).__name__ == "Tensor":
            return (value.storage.key, value.storage.length), *value[1:]
        return value

    assert plainly(load(data)) == plainly(Unpickler(io.BytesIO(data)).load())


PIECES = [bytes([code]) for code in range(256)] + [text("a"), ORDERED, tensor("0", 1, [1], [1]), REBUILD, PROTO]


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_whatever_the_opcodes_a_pickle_reads_or_is_refused(pieces: list[bytes]) -> None:
    try:
        load(PROTO + b"".join(pieces) + STOP)
    except (DamagedError, ForeignError) as error:
        said = str(error)
    else:
        said = ""
    assert said.isprintable()


def test_a_pickle_of_the_largest_size_is_the_largest() -> None:
    with pytest.raises(DamagedError, match="a pickle of 8388609 bytes, expected at most 8388608"):
        load(bytes((8 << 20) + 1))
    assert load(state_dict({})) == {}
