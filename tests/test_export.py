"""Exports: slim and safetensors read the same numbers from them, and they are there whole or not at all."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import checkpoint_files
import needs
import numpy as np
import pytest
from accuracy import check_rule
from conftest import TINY, TINY_LABELS, TINY_PREPROCESSING, Run
from safetensors import safe_open
from safetensors.numpy import load_file
from test_checkpoint_writer import bundle, holds
from variables import random_variables

from resnet_ref import CheckpointError, Weights, load_model, load_weights, oracle, save_weights
from resnet_ref.convert import convert
from resnet_ref.export import export
from resnet_ref.network import Network

OTHER = {**TINY, "arg_scope": {"batch_norm_epsilon": 0.01}, "channels": 4}


@pytest.fixture(scope="module")
def tiny(tiny_file: Path) -> Weights:
    return load_weights(tiny_file)


@pytest.fixture(scope="module")
def other_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with other numbers, another epsilon and four channels; no labels, no preprocessing."""
    path = tmp_path_factory.mktemp("other") / "other.h5"
    save_weights(path, random_variables(Network.from_json(OTHER).variables(), 7), OTHER)
    return path


def test_a_checkpoint_holds_exactly_the_networks_variables(tmp_path: Path, tiny: Weights) -> None:
    made = export(tiny, tmp_path / "m.ckpt")
    assert made.format == "tensorflow"
    assert [file.name for file in made.files] == ["m.ckpt.index", "m.ckpt.data-00000-of-00001", "checkpoint"]
    assert set(os.listdir(tmp_path)) == {file.name for file in made.files}
    holds(tmp_path / "m.ckpt", tiny)
    holds(tmp_path, tiny)  # the state file names it


def test_converting_it_back_gives_the_same_weights_file(tmp_path: Path, tiny: Weights) -> None:
    export(tiny, tmp_path / "m.ckpt")
    convert(
        tmp_path / "m.ckpt",
        tmp_path / "w.h5",
        overrides=TINY,
        labels=lambda classes: TINY_LABELS,
        preprocessing=TINY_PREPROCESSING,
    )
    again = load_weights(tmp_path / "w.h5")
    assert (again.network, again.labels, again.preprocessing) == (tiny.network, tiny.labels, tiny.preprocessing)
    assert list(again) == list(tiny)
    assert all(again[name].tobytes() == tiny[name].tobytes() for name in tiny)


def test_the_shipped_networks_checkpoint_is_recognised_without_a_word(tmp_path: Path) -> None:
    export(load_weights(), tmp_path / "digits")
    made = convert(tmp_path / "digits", tmp_path / "w.h5")
    assert made.network.variables() == load_weights().network.variables()
    holds(tmp_path / "digits", load_weights(tmp_path / "w.h5"))


@pytest.mark.oracle
def test_tensorflow_lists_and_reads_every_bit(tmp_path: Path, tiny: Weights) -> None:
    tf = checkpoint_files.tensorflow()
    export(tiny, tmp_path / "m.ckpt")
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "m.ckpt")
    reader = tf.train.load_checkpoint(str(tmp_path / "m.ckpt"))
    assert reader.get_variable_to_shape_map() == {name: list(array.shape) for name, array in tiny.items()}
    assert set(reader.get_variable_to_dtype_map().values()) == {tf.float32}
    assert all(reader.get_tensor(name).tobytes() == tiny[name].tobytes() for name in tiny)


@pytest.mark.oracle
def test_tensorflow_too_refuses_new_data_under_an_older_index(tmp_path: Path, tiny: Weights) -> None:
    """What a kill between the two renames of a replacement leaves."""
    tf = checkpoint_files.tensorflow()
    bundle(tmp_path / "m.ckpt", random_variables(tiny.network.variables(), 9))
    index = (tmp_path / "m.ckpt.index").read_bytes()
    export(tiny, tmp_path / "m.ckpt")
    (tmp_path / "m.ckpt.index").write_bytes(index)
    reader = tf.train.load_checkpoint(str(tmp_path / "m.ckpt"))
    with pytest.raises(tf.errors.OpError, match="Checksum does not match"):
        reader.get_tensor("tiny/conv1/weights")


@pytest.mark.oracle
@pytest.mark.parametrize("source", ["digits", "tiny", "other"])
def test_slim_restores_it_and_computes_what_our_model_gives(
    tmp_path: Path, tiny_file: Path, other_file: Path, source: str
) -> None:
    file = {"digits": None, "tiny": tiny_file, "other": other_file}[source]
    network = load_weights(file).network
    export(load_weights(file), tmp_path / "m.ckpt")
    images = np.random.default_rng(3).normal(0, 60, (2, 64, 50, network.channels)).astype(np.float32)
    with oracle.graph() as nets:
        v1 = nets.tf.compat.v1
        inputs = v1.placeholder(nets.tf.float32, images.shape)
        _, end_points = oracle.calling(network)(nets, inputs)
        with oracle.session(nets) as session:
            v1.train.Saver().restore(session, str(tmp_path / "m.ckpt"))
            assert not session.run(v1.report_uninitialized_variables()).size
            slim = session.run(dict(end_points), {inputs: images})
    slim = {name: slim[name] for name in end_points}
    _, ours = load_model(file, device="cpu")(images, end_points=list(slim))
    _, truth = load_model(file, device="definition", precision="float64")(images, end_points=list(slim))
    check_rule(ours, slim, truth)


def test_a_scope_that_tensorflow_cannot_have_goes_into_safetensors_only(tmp_path: Path, run: Run) -> None:
    call = {**TINY, "scope": "é"}
    save_weights(tmp_path / "e.h5", random_variables(Network.from_json(call).variables()), call)
    status, out, err = run("export", tmp_path / "e.h5", tmp_path / "e.ckpt")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "TensorFlow gives no variable the name 'é/" in err
    assert os.listdir(tmp_path) == ["e.h5"]
    assert run("export", tmp_path / "e.h5", tmp_path / "e.safetensors")[0] == 0
    assert "é/conv1/weights" in load_file(tmp_path / "e.safetensors")


def test_safetensors_have_the_arrays_and_say_what_they_are(tmp_path: Path, tiny: Weights) -> None:
    made = export(tiny, tmp_path / "m.safetensors")
    assert made.files == (tmp_path / "m.safetensors",)
    read = load_file(tmp_path / "m.safetensors")
    assert set(read) == set(tiny)
    assert all(read[name].dtype == np.float32 and read[name].shape == tiny[name].shape for name in tiny)
    assert all(read[name].tobytes() == tiny[name].tobytes() for name in tiny)
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        said = json.loads(file.metadata()["resnet_ref"])
    assert said["network"] == tiny.network.to_json()
    assert said["labels"] == list(TINY_LABELS)
    assert {**said["preprocessing"], **TINY_PREPROCESSING} == said["preprocessing"]
    assert said["source"] is None
    assert "height, width, channels in, channels out" in said["layout"]
    digits = load_weights()
    export(digits, tmp_path / "d.safetensors")
    with safe_open(tmp_path / "d.safetensors", "np") as file:
        assert json.loads(file.metadata()["resnet_ref"])["source"] == digits.source


def test_the_same_weights_give_the_same_bytes_in_every_process(tmp_path: Path, tiny: Weights, tiny_file: Path) -> None:
    for name in ("m.safetensors", "m.ckpt"):
        export(tiny, tmp_path / name)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    script = "import sys; from resnet_ref.cli import main; main(sys.argv[1:])"
    for name in ("m.safetensors", "m.ckpt"):
        line = [sys.executable, "-c", script, "export", str(tiny_file), str(tmp_path / name), "--force"]
        subprocess.run(line, check=True, capture_output=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@needs.MODES
@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_who_may_read_what_is_written_follows_the_umask(tmp_path: Path, tiny: Weights, umask: int) -> None:
    old = os.umask(umask)
    try:
        export(tiny, tmp_path / "m.safetensors")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o666 & ~umask


def test_what_is_printed_says_what_was_written_and_what_to_do(run: Run, tmp_path: Path, other_file: Path) -> None:
    status, out, err = run("export", other_file, tmp_path / "m.ckpt-7")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{other_file} -> {tmp_path / 'm.ckpt-7'} (TensorFlow V2 checkpoint)"
    assert lines[1] == "files      m.ckpt-7.index, m.ckpt-7.data-00000-of-00001, checkpoint"
    assert lines[2] == f"written    {len(load_weights(other_file))} variables, float32, under slim's names"
    assert "resnet_v1(images, [Block('block1', bottleneck, [{'depth': 12, " in lines[3]
    assert lines[3].endswith("is_training=False) under resnet_arg_scope(batch_norm_epsilon=0.01); images of 4 channels")
    assert f"tf.compat.v1.train.Saver().restore(session, {str(tmp_path / 'm.ckpt-7')!r})" in lines[4]
    assert lines[5].startswith("left out   labels, preprocessing and the call")
    status, out, _ = run("export", other_file, tmp_path / "m.safetensors")
    assert status == 0
    assert out.splitlines()[0].endswith("m.safetensors (safetensors)")
    assert "channels in, channels out" in out
    assert "batch norm adds 0.01 to the variance" in out


def test_json_says_the_same(run: Run, tmp_path: Path) -> None:
    for name, format in (("d", "tensorflow"), ("d.safetensors", "safetensors")):
        status, out, err = run("export", "digits", tmp_path / name, "--json")
        assert (status, err) == (0, "")
        said = json.loads(out)
        assert (said["format"], said["destination"]) == (format, str(tmp_path / name))
        assert all(Path(file).is_file() for file in said["files"])
        assert said["network"] == load_weights().network.to_json()
        assert said["written"] == list(load_weights())


def test_the_format_is_the_suffixs_unless_it_is_given(run: Run, tmp_path: Path, tiny_file: Path) -> None:
    for name, how, made in [
        ("a.ckpt", [], "a.ckpt.index"),
        ("b.ckpt-1200", [], "b.ckpt-1200.index"),
        ("c", [], "c.index"),
        ("d.v1", ["--format", "tensorflow"], "d.v1.index"),
        ("e.SafeTensors", [], "e.SafeTensors"),
        ("f.ckpt", ["--format", "safetensors"], "f.ckpt"),
    ]:
        assert run("export", tiny_file, tmp_path / name, *how)[0] == 0
        assert (tmp_path / made).is_file()


def test_a_state_file_of_somebody_else_stays_as_it_is(run: Run, tmp_path: Path, tiny_file: Path) -> None:
    (state := tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"\n')
    _, out, _ = run("export", tiny_file, tmp_path / "m.ckpt")
    assert state.read_text() == 'model_checkpoint_path: "model.ckpt-1"\n'
    assert f"as it was  {state}: it is not of our making" in out
    state.unlink()
    run("export", tiny_file, tmp_path / "m.ckpt", "--force")
    run("export", tiny_file, tmp_path / 'an "odd" näme')
    holds(tmp_path, load_weights(tiny_file))
    assert state.read_bytes().count(rb'an \042odd\042 n\303\244me"') == 2


WRONG = [
    ("tiny.h5 new.h5", "new.h5: expected a name in .safetensors"),
    ("tiny.h5 new.index", "or a checkpoint's prefix, in .ckpt or without a suffix, got .index"),
    ("tiny.h5 old.safetensors", "old.safetensors is there already; pass --force to replace it"),
    ("tiny.h5 old.ckpt", "old.ckpt.index is there already; pass --force to replace it"),
    ("tiny.h5 folder", "folder is a directory; give a name in it, such as model.ckpt"),
    ("tiny.h5 new/", "new/ is a directory"),
    ("tiny.h5 .", ". is a directory"),
    ("tiny.h5 checkpoint --force", "TensorFlow keeps its state file under this name"),
    ("tiny.h5 v1.ckpt --force", "v1.ckpt is a file, and a checkpoint's files only begin with its name"),
    ("tiny.h5 folder --format safetensors --force", "folder is a directory"),
    ("tiny.h5 taken", "taken.index is a directory"),
    ("tiny.h5 none/new.ckpt", "cannot write none/"),
    ("tiny.h5 none/new.safetensors", "cannot write none/new.safetensors: No such file or directory"),
    (f"tiny.h5 {'x' * 300}", "File name too long"),
    (f"tiny.h5 {'x' * 300}.safetensors", "File name too long"),
    ("tiny.h5 /sys/new", "cannot write /sys/"),
    ("tiny.h5 new.ckpt --format keras", "'keras' is not one of 'safetensors', 'tensorflow'"),
    ("tiny.h5 tiny.h5 --format safetensors --force", "tiny.h5 is one of the files it is made from"),
    ("none.h5 new.ckpt", "cannot read none.h5: No such file"),
    ("v1.ckpt new.ckpt", "v1.ckpt is no HDF5 file"),
    ("tiny.h5", "Missing argument 'DEST'"),
]


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_a_wrong_call_is_one_line_and_status_2_and_changes_nothing(
    line: str, said: str, tmp_path: Path, tiny_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.h5").write_bytes(tiny_file.read_bytes())
    for name in ("old.safetensors", "old.ckpt.index", "v1.ckpt"):
        (tmp_path / name).write_text("older")
    for name in ("folder", "taken.index"):
        (tmp_path / name).mkdir()
    before = {file: file.is_dir() or file.read_bytes() for file in tmp_path.rglob("*")}
    monkeypatch.chdir(tmp_path)
    status, out, err = run("export", *line.split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert said in err
    assert {file: file.is_dir() or file.read_bytes() for file in tmp_path.rglob("*")} == before


def ending(prepare: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, after `prepare`."""
    script = f"import os, sys; from resnet_ref.cli import main\n{prepare}\nmain(sys.argv[1:])"
    line = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@needs.RESOURCE
@pytest.mark.parametrize("name", ["m.ckpt", "m.safetensors"])
@pytest.mark.parametrize("limit", [100, 3000, 1_000_000])  # the state file, the index of the tiny one, the data
def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    tmp_path: Path, tiny_file: Path, name: str, limit: int
) -> None:
    assert ending("", "export", tiny_file, tmp_path / name).returncode == 0
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    source = tiny_file if limit < 1_000_000 else "digits"
    done = ending(
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))",
        *("export", source, tmp_path / name, "--force"),
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "File too large; nothing was changed" in done.stderr
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("renamed", [0, 1, 2, 3])
def test_a_process_killed_between_two_files_leaves_none_that_reads_as_whole(
    tmp_path: Path, tiny: Weights, renamed: int, older: bool
) -> None:
    """The files get their names in the order data, index, state; the process ends after `renamed` of these."""
    prefix, old = tmp_path / "m.ckpt", random_variables(tiny.network.variables(), 9)
    if older:
        bundle(prefix, old)
    kill = f"""
real, count = os.replace, 0
def replace(*paths):
    global count
    if count == {renamed}:
        os._exit(137)
    count += 1
    real(*paths)
os.replace = replace"""
    assert ending(kill, "export", tiny.path, prefix, "--force").returncode == (137 if renamed < 3 else 0)
    if renamed > 1:
        holds(prefix, tiny)
    elif older and not renamed:
        holds(prefix, old)
    else:
        with pytest.raises(CheckpointError, match=r"checksum|missing|no such file"):
            holds(prefix, tiny)
        if not older:
            assert not (tmp_path / "m.ckpt.index").exists()  # which is what TensorFlow takes for a checkpoint
            with pytest.raises(CheckpointError):
                holds(tmp_path, tiny)
