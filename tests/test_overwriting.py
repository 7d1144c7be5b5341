"""What is written never takes the place of something that is no such file, or of what it was made from."""

import importlib
import os
import signal
import stat
import subprocess
import sys
import time

import needs
import numpy as np
import pytest
from conftest import RECORDING
from PIL import Image

from resnet_ref import WeightsError, load_model, load_weights, save_weights
from resnet_ref.weights.atomic import replacing


@needs.PIPES
def test_a_pipe_or_device_is_refused_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(WeightsError, match="device, pipe or socket"), replacing(pipe):
        pass
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@needs.LINKS
def test_a_symbolic_link_stays_and_the_file_it_names_is_replaced(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("name", ["", "a\0b.h5"])
def test_what_is_no_name_is_a_weights_error(name):
    with pytest.raises(WeightsError, match=r"give the name|choose another name"), replacing(name):
        pass


def test_features_does_not_replace_its_images_or_its_weights(run, tiny_file, tmp_path):
    image = tmp_path / "a.png"
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(image)
    for output in (image, tiny_file):
        before = output.read_bytes()
        status, _, err = run("features", image, "--weights", tiny_file, "-o", output)
        assert status == 2
        assert "one of the files it is made from" in err
        assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "work"),
    [
        (("trace", "IMAGE", "--profile", "--chrome", "OUTPUT"), "trace.profile"),
        pytest.param(("trace", "IMAGE", "--profile", "--html", "OUTPUT"), "trace.profile", marks=needs.PAGES),
        pytest.param(
            ("trace", "IMAGE", "--end-point", "tiny/block1", "--at", 0, 0, 0, "--html", "OUTPUT"),
            "trace.traced",
            marks=needs.PAGES,
        ),
        pytest.param(("verify", "digits", RECORDING, "--html", "OUTPUT"), "verify.verify_weights", marks=needs.PAGES),
        (("record", "digits", "IMAGE", "-o", "OUTPUT"), "record.open_source"),
        (("features", "IMAGE", "-o", "OUTPUT"), "features.computed"),
        (("bench", "-o", "OUTPUT"), "bench._compared"),
    ],
    ids=lambda one: one if isinstance(one, str) else f"{one[0]} {one[-2]}",
)
def test_where_nothing_can_be_written_nothing_is_computed(run, photos, tmp_path, monkeypatch, line, work):
    module, _, name = work.partition(".")
    monkeypatch.setattr(importlib.import_module(f"resnet_ref.cli.{module}"), name, None)
    for output, said in ((tmp_path / "none" / "file", "choose a folder that exists"), (tmp_path, "is a directory")):
        names = {"IMAGE": photos[0], "OUTPUT": output}
        status, out, err = run(*(names.get(word, word) for word in line))
        assert (status, out) == (2, "")
        assert said in err
        assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_models_own_description_saves_it_again(tmp_path, tiny_file):
    model = load_model(tiny_file)
    copy = tmp_path / "copy.h5"
    save_weights(copy, model.weights, model.network, model.labels, model.preprocessing)
    again = load_weights(copy)
    assert (again.network, again.labels, again.preprocessing) == (model.network, model.labels, model.preprocessing)
    assert all(np.array_equal(again[name], model.weights[name]) for name in model.weights)


@needs.SIGNALS
def test_a_command_that_is_ended_leaves_no_litter(tmp_path, tiny_file):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3000):
        Image.fromarray(np.full((90, 90, 3), number % 256, np.uint8)).save(images / f"{number}.bmp")
    output = tmp_path / "out.h5"
    code = "from resnet_ref.cli import main; main()"
    arguments = ["features", str(images), "--weights", str(tiny_file), "-o", str(output), "--batch-size", "1"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd="/", stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be stopped"
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
