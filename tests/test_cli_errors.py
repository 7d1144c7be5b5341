"""Whatever is wrong with what the command line is given: status 2, nothing on stdout, one line on stderr."""

import os
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from conftest import TINY, TINY_PREPROCESSING, Run
from PIL import Image
from test_cli import narrow_checkpoint
from variables import random_variables

from resnet_ref import save_weights
from resnet_ref.network import Network

PLACES = """
    photo.png text.png text.h5 empty.h5 photo.h5 folder plain.h5 featureless.h5 tiny.h5 damaged.h5 labels.txt list.json
    broken.json preprocessing.json classes.json deep.json pipe sparse loop.h5
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_file: Path, tiny_variables: dict[str, Any]) -> Path:
    """A folder with good and bad files under short names."""
    here = tmp_path_factory.mktemp("place")
    Image.fromarray(np.full((40, 50, 3), 77, np.uint8)).save(here / "photo.png")
    (here / "photo.h5").write_bytes((here / "photo.png").read_bytes())
    for name in ("text.png", "text.h5"):
        (here / name).write_text("only text")
    (here / "empty.h5").touch()
    (here / "folder").mkdir()
    (here / "tiny.h5").write_bytes(tiny_file.read_bytes())
    raw = bytearray(tiny_file.read_bytes())
    raw[len(raw) // 2] ^= 1
    (here / "damaged.h5").write_bytes(raw)
    save_weights(here / "plain.h5", tiny_variables, TINY)
    call = {**TINY, "num_classes": None}
    features = random_variables(Network.from_json(call).variables())
    save_weights(here / "featureless.h5", features, call, preprocessing={"name": "vgg"})
    (here / "labels.txt").write_text("a\nb\n")
    (here / "list.json").write_text("[]")
    (here / "broken.json").write_text("{")
    if needs.WINDOWS:  # neither links nor pipes
        (here / "loop.h5").touch()
        (here / "pipe").mkdir()
    else:
        (here / "loop.h5").symlink_to("loop.h5")
        os.mkfifo(here / "pipe")
    (here / "deep.json").write_text('{"a": ' + "[" * 200_000)
    (here / "sparse").touch()
    os.truncate(here / "sparse", 10**10)
    (here / "preprocessing.json").write_text('{"name": "inception"}')
    (here / "classes.json").write_text('{"function": "resnet_v1_50", "classes": 3}')
    assert {entry.name for entry in here.iterdir()} == set(PLACES.split())
    return here


def unix(*values: str) -> Any:
    return pytest.param(*values, marks=needs.UNIX)


TINY_PHOTO = "photo.png --weights tiny.h5"
WRONG = [
    ("unknown", "No such command 'unknown'", ""),
    ("--unknown", "No such option", ""),
    ("classify", "Missing argument 'IMAGE|DIR...'", ""),
    ("classify none.png", "none.png", "No such file"),
    ("classify folder --weights tiny.h5", "folder", "none of them"),
    ("classify text.png --weights tiny.h5", "text.png", "expected an image"),
    ("classify photo.png --weights none.h5", "none.h5", "No such file"),
    ("classify photo.png --weights folder", "folder is a directory", "convert"),
    ("classify photo.png --weights photo.h5", "photo.h5 is no HDF5 file", "89 50 4e 47"),
    ("classify photo.png --weights text.h5", "text.h5 is no HDF5 file", "6f 6e 6c 79"),
    ("classify photo.png --weights empty.h5", "empty.h5 is no HDF5 file", ""),
    ("classify photo.png --weights damaged.h5", "damaged.h5", ""),
    ("classify photo.png --weights plain.h5", "plain.h5 names no preprocessing", 'preprocessing=dict(name="vgg")'),
    ("classify photo.png --weights featureless.h5", "featureless.h5 has no logits", "resnet-ref features"),
    (f"classify {TINY_PHOTO} --device tpu", "'tpu' is not one of 'definition', 'cpu', 'gpu', 'auto'", ""),
    (f"classify {TINY_PHOTO} --device gpu:99", "gpu", ""),
    (f"classify {TINY_PHOTO} --threads 0", "--threads", "1<=x<=1024"),
    (f"classify {TINY_PHOTO} --batch-size 0", "--batch-size", ""),
    (f"classify {TINY_PHOTO} --top 0", "--top", ""),
    (f"classify {TINY_PHOTO} --top many", "--top", "not a valid integer"),
    (f"classify {TINY_PHOTO} --size 3", "No such option", "--size"),
    (f"features {TINY_PHOTO}", "Missing option '-o'", ""),
    (f"features {TINY_PHOTO} -o folder", "folder is a directory", "name of a file"),
    (f"features {TINY_PHOTO} -o none/f.h5", "cannot write none/f.h5", "No such file or directory"),
    unix(f"features {TINY_PHOTO} -o text.png/f.h5", "cannot write text.png/f.h5", "Not a directory"),
    unix(f"features {TINY_PHOTO} -o /sys/f.h5", "cannot write /sys/f.h5", ""),
    (f"features {TINY_PHOTO} -o f.h5 --end-point block9", "no end point 'block9'", "nearest are"),
    (f"features {TINY_PHOTO} -o f.h5 --end-point tiny/block7", "no end point", "tiny/block1"),
    ("features photo.png text.png -o f.h5 --weights tiny.h5", "text.png", "expected an image"),
    ("features photo.png -o f.h5 --weights plain.h5", "plain.h5 names no preprocessing", ""),
    ("features folder -o f.h5 --weights tiny.h5", "folder", "none of them"),
    ("convert", "Missing argument 'SOURCE'", ""),
    ("convert none.ckpt", "Missing argument 'DEST.h5'", ""),
    ("convert none.ckpt new.h5", "none.ckpt", "expected a checkpoint"),
    ("convert EMPTY new.h5", "the name of what is to be converted is empty", "name a file or a folder"),
    unix("convert CHECKPOINT loop.h5", "loop.h5 is a link that leads to itself", "name of a file"),
    ("convert folder new.h5", "folder", "expected a checkpoint in it, got none"),
    ("convert photo.png new.h5", "photo.png", "a PNG image"),
    ("convert tiny.h5 new.h5", "tiny.h5", "already"),
    ("convert text.png new.h5", "text.png", "a text file"),
    ("convert CHECKPOINT tiny.h5", "tiny.h5 is there already", "--force"),
    ("convert CHECKPOINT folder --force", "folder is a directory", ""),
    ("convert CHECKPOINT none/new.h5", "cannot write none/new.h5", ""),
    ("convert CHECKPOINT new.h5 --labels none.txt", "none.txt", "no such file"),
    ("convert CHECKPOINT new.h5 --labels labels.txt", "labels.txt: expected 3 labels", "got 2 labels"),
    ("convert CHECKPOINT new.h5 --variant resnet_v1_34", "'resnet_v1_34' is not one of", "resnet_v1_50"),
    ("convert CHECKPOINT new.h5 --variant resnet_v1_101", "is missing", "resnet_v1_101"),
    ("convert CHECKPOINT new.h5 --scope other", "with scope other", "resnet_v1_50"),
    ("convert CHECKPOINT new.h5 --depth-multiplier -1", "--depth-multiplier", "x>=0"),
    ("convert CHECKPOINT new.h5 --depth-multiplier 1", "is missing", "If it is another network"),
    ("convert CHECKPOINT new.h5 --output-stride 6", "multiple of 4", ""),
    ("convert CHECKPOINT new.h5 --output-stride 64", "cannot be reached", ""),
    ("convert CHECKPOINT new.h5 --network none.json", "none.json: expected a file of one JSON object", "no such file"),
    ("convert CHECKPOINT new.h5 --network list.json", "list.json: expected a file of one JSON object", "got list"),
    (
        "convert CHECKPOINT new.h5 --network broken.json",
        "broken.json: expected a file of one JSON object",
        "no JSON (Expecting",
    ),
    ("convert CHECKPOINT new.h5 --network photo.png", "photo.png: expected UTF-8 text", "bytes that are not at 0"),
    ("convert CHECKPOINT new.h5 --network deep.json", "deep.json: expected a file of one JSON object", "recursion"),
    ("convert CHECKPOINT new.h5 --network folder", "folder: expected a file of one JSON object", "a directory, pipe"),
    ("convert CHECKPOINT new.h5 --network pipe", "pipe: expected a file of one JSON object", "a directory, pipe"),
    ("convert CHECKPOINT new.h5 --preprocessing pipe", "pipe: expected a file of one JSON object", "pipe or device"),
    unix("convert CHECKPOINT new.h5 --preprocessing /dev/zero", "/dev/zero: expected a file", "pipe or device"),
    ("convert CHECKPOINT new.h5 --preprocessing sparse", "sparse: expected at most 16,777,216 bytes", "got 10,000,000"),
    ("convert CHECKPOINT new.h5 --network classes.json", "unknown argument 'classes'", "num_classes"),
    ("convert CHECKPOINT new.h5 --preprocessing preprocessing.json", "inception", "one of vgg"),
    ("summary --weights tiny.h5 --variant resnet_v1_50", "give --weights or --variant, not both", ""),
    ("summary --num-classes 7", "describe a --variant; name one", ""),
    ("summary --variant resnet_v1_18", "'resnet_v1_18' is not one of", ""),
    ("summary --variant resnet_v1_50 --size 0 0", "--size", "x>=1"),
    ("summary --variant resnet_v1_50 --size 224", "--size", "2 arguments"),
    ("summary --variant resnet_v1_50 --output-stride 6", "The output_stride needs to be a multiple of 4.", ""),
    ("summary --variant resnet_v1_50 --output-stride 0", "The target output_stride cannot be reached.", ""),
    ("summary --variant resnet_v1_50 --output-stride 64", "The target output_stride cannot be reached.", ""),
    ("summary --variant resnet_v1_50 --depth-multiplier nan", "depth_multiplier", ""),
    (
        "summary --variant resnet_v1_50 --num-classes 9999999",
        "num_classes must be a whole number from 0 to 1048576",
        "got 9999999",
    ),
    ("summary --variant resnet_v1_50 --batch 0", "--batch", ""),
    ("summary --weights photo.h5", "photo.h5 is no HDF5 file", ""),
    ("summary --threads 2", "are about a --plan", ""),
    ("summary --isa plain", "are about a --plan", ""),
    ("summary --plan --algorithm fft", "algorithm must be one of auto, direct, fast, tuned; got 'fft'", ""),
    ("summary --plan --isa sse9", "isa must be None or one of avx512, avx2, neon, plain; got 'sse9'", ""),
    ("summary surplus", "unexpected extra argument", "surplus"),
    ("bench --weights none.h5", "none.h5", "No such file"),
    ("bench --weights tiny.h5 --variant resnet_v1_50", "give --weights or --variant, not both", ""),
    ("bench --weights tiny.h5 --ours fast", "'fast' must be KEY=VALUE", "algorithm, precision, isa"),
    ("bench --weights tiny.h5 --ours threads=2", "'threads=2' must be KEY=VALUE", ""),
    ("bench --weights tiny.h5 --ours algorithm=auto --ours algorithm=auto", "'algorithm=auto' is given twice", ""),
    ("bench --weights tiny.h5 --ours algorithm=quick", "algorithm must be one of", "'quick'"),
    ("bench --weights tiny.h5 --precision float16", "precision must be one of", "'float16'"),
    ("bench --weights tiny.h5 --isa mmx", "isa", "'mmx'"),
    ("bench --weights tiny.h5 --peer mxnet", "'mxnet' is not one of 'onnxruntime'", ""),
    ("bench --weights tiny.h5 --output-stride 7", "The output_stride needs to be a multiple of 4.", ""),
    ("bench --weights tiny.h5 --batch 0", "--batch", "x>=1"),
    ("bench --weights tiny.h5 -o none/b.json", "cannot write none/b.json", ""),
    ("bench --weights tiny.h5 -o tiny.h5", "tiny.h5 is one of the files it is made from", ""),
    ("devices surplus", "unexpected extra argument", "surplus"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize(("line", "said", "also"), WRONG)
def test_a_wrong_call_is_one_line_of_stderr_and_status_2(
    line: str,
    said: str,
    also: str,
    place: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    monkeypatch.chdir(place)
    words: dict[str, Any] = {"CHECKPOINT": checkpoint, "EMPTY": ""}
    status, out, err = run(*(words.get(word, word) for word in line.split()))
    assert (status, out) == (2, "")
    assert err.startswith("resnet-ref: ")
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert said in err
    assert also in err
    assert "Traceback" not in err
    assert {entry.name for entry in place.iterdir()} == set(PLACES.split())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # as the command line does
def test_numbers_that_are_none_are_not_written(
    run: Run, photos: list[Path], tmp_path: Path, tiny_variables: dict[str, Any]
) -> None:
    huge = {name: np.full_like(array, 1e30) for name, array in tiny_variables.items()}
    save_weights(tmp_path / "huge.h5", huge, TINY, None, TINY_PREPROCESSING)
    line = ("features", photos[0], "--weights", tmp_path / "huge.h5", "-o", tmp_path / "f.h5", "--device", "cpu")
    status, out, err = run(*line, "--end-point", "tiny/block1")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert f"{photos[0]}: {tmp_path}/huge.h5 gives nan at [0, 0, 0] of tiny/block1" in err
    assert not (tmp_path / "f.h5").exists()


def test_a_width_beyond_all_memory_is_one_line(run: Run) -> None:
    status, out, err = run("summary", "--variant", "resnet_v1_50", "--depth-multiplier", 1e6, "--plan")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "a variable of it is larger than any memory" in err


def test_an_empty_name_is_no_folder(run: Run) -> None:
    status, out, err = run("classify", "")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "an empty name: expected an image or a folder" in err
