"""The command line: what it prints, what it writes, and one line of stderr for whatever goes wrong."""

import json
import os
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import checkpoint_files
import h5py
import numpy as np
import pytest
from conftest import TINY, TINY_LABELS, Run
from variables import random_variables

from resnet_ref import load_model, load_weights, save_weights
from resnet_ref.images import read_image
from resnet_ref.kernels.vector.executor import thread_count
from resnet_ref.network import Network
from resnet_ref.plan import planner

COMMANDS = ("classify", "features", "convert", "export", "summary", "record", "verify", "trace", "bench", "devices")


def expected(tiny_file: Path, photos: list[Path], *end_points: str) -> Any:
    model = load_model(tiny_file, device="definition")
    assert model.preprocessing is not None
    return model(np.stack([model.preprocessing(read_image(file)) for file in photos]), end_points=end_points)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_each_commands_help_says_what_it_does_and_has_an_example(run: Run, command: str, flag: str) -> None:
    status, out, err = run(command, flag)
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: resnet-ref {command}")
    assert f"\n  resnet-ref {command}" in out
    assert max(map(len, out.splitlines())) <= 100


def test_the_groups_help_lists_every_command(run: Run) -> None:
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for command in COMMANDS:
        assert f"\n  {command} " in out
    assert run()[0] == 2
    assert "classify" in "".join(run()[1:])


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version") == (0, f"resnet-ref, version {version('resnet-ref')}\n", "")


@pytest.mark.parametrize("device", ["definition", "cpu", "auto"])
def test_classify_gives_the_models_probabilities(run: Run, tiny_file: Path, photos: list[Path], device: str) -> None:
    probabilities, _ = expected(tiny_file, photos)
    status, out, err = run(
        "classify", *photos, "--weights", tiny_file, "--device", device, "--top", 5, "--json", "--batch-size", 2
    )
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert [Path(entry["file"]) for entry in found] == photos
    for entry, row in zip(found, probabilities, strict=True):
        order = [prediction["index"] for prediction in entry["predictions"]]
        assert sorted(order) == [0, 1, 2, 3, 4]
        values = [prediction["probability"] for prediction in entry["predictions"]]
        assert values == sorted(values, reverse=True)
        np.testing.assert_allclose(values, row[order], atol=1e-6)
        assert [prediction["label"] for prediction in entry["predictions"]] == [TINY_LABELS[i] for i in order]


def test_classify_prints_file_percent_and_label_and_a_folder_means_its_images_in_order(
    run: Run, tiny_file: Path, photos: list[Path]
) -> None:
    status, out, err = run("classify", photos[0].parent, "--weights", tiny_file, "--top", 2)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[::3] == [str(photo) for photo in photos]
    probabilities, _ = expected(tiny_file, photos)
    best = int(probabilities[0].argmax())
    assert lines[1] == f"  {100 * probabilities[0][best]:6.2f} %  {TINY_LABELS[best]}"


def test_classify_without_weights_reads_the_shipped_digits(run: Run, digit_files: list[Path]) -> None:
    status, out, err = run("classify", digit_files[0].parent, "--top", 1, "--json")
    assert (status, err) == (0, "")
    found = [(Path(entry["file"]).name[6], entry["predictions"][0]["label"]) for entry in json.loads(out)]
    assert len(found) == 12
    assert all(digit == label for digit, label in found)


def test_classify_without_labels_prints_the_number_of_the_class(
    run: Run, tmp_path: Path, tiny_variables: Any, photos: list[Path]
) -> None:
    save_weights(
        tmp_path / "w.h5",
        tiny_variables,
        TINY,
        preprocessing={"name": "vgg", "resize_side": 32, "height": 32, "width": 32},
    )
    _, out, _ = run("classify", photos[0], "--weights", tmp_path / "w.h5", "--json")
    for prediction in json.loads(out)[0]["predictions"]:
        assert prediction["label"] == str(prediction["index"])


def test_classify_prints_the_good_images_and_reports_each_bad_one(
    run: Run, tiny_file: Path, photos: list[Path], tmp_path: Path
) -> None:
    (text := tmp_path / "text.png").write_text("no image")
    (empty := tmp_path / "empty.png").touch()
    status, out, err = run("classify", photos[0], text, photos[1], empty, "--weights", tiny_file, "--json")
    assert status == 2
    assert [Path(entry["file"]) for entry in json.loads(out)] == photos[:2]
    lines = err.splitlines()
    assert len(lines) == 2
    assert str(text) in lines[0]
    assert str(empty) in lines[1]
    alone = run("classify", text, "--weights", tiny_file)
    assert (alone[0], alone[1], len(alone[2].splitlines())) == (2, "", 1)


def dotted(name: str) -> str:
    """The dataset's name for an end point: HDF5 has no dataset inside another."""
    return name.replace("/", ".")


def test_features_holds_the_models_end_points_and_the_files_names(
    run: Run, tiny_file: Path, photos: list[Path], tmp_path: Path
) -> None:
    names = ["tiny/block1", "global_pool", "predictions"]
    options = [f"--end-point={name}" for name in names]
    output = tmp_path / "f.h5"
    status, out, err = run(
        "features",
        *photos,
        "-o",
        output,
        "--weights",
        tiny_file,
        *options,
        "--batch-size",
        2,
        "--json",
        "--device",
        "cpu",
    )
    assert (status, err) == (0, "")
    _, values = expected(tiny_file, photos, *names)
    assert json.loads(out) == {
        "output": str(output),
        "images": 3,
        "end_points": {dotted(name): list(values[name].shape) for name in names},
    }
    with h5py.File(output) as file:
        assert set(file) == {*map(dotted, names), "files"}
        for name in names:
            found = file[dotted(name)]
            assert found.dtype == np.float32
            np.testing.assert_allclose(found[()], values[name], atol=1e-5 * float(np.abs(values[name]).max()))
        assert [name.decode() for name in file["files"]] == [str(photo) for photo in photos]
        ran = {"device": "cpu", "devices": 1, "precision": "float32"}
        assert dict(file.attrs) == {"network": "resnet_v1", "scope": "tiny", **ran}
    assert os.listdir(tmp_path) == ["f.h5"]


def test_results_name_the_precision_that_ran(run: Run, tiny_file: Path, photos: list[Path], tmp_path: Path) -> None:
    line = (photos[0], "--weights", tiny_file, "--device", "definition")
    for precision in ("float32", "float64"):
        chosen = (*line, "--precision", precision)
        (entry,) = json.loads(run("classify", *chosen, "--json")[1])
        assert (entry["device"], entry["precision"]) == ("definition", precision)
        said = run("classify", *chosen, "--top", 1)[1].splitlines()[2:]
        assert said == ([] if precision == "float32" else ["computed in float64 on definition"])
        assert run("features", *chosen, "-o", tmp_path / "f.h5")[0] == 0
        with h5py.File(tmp_path / "f.h5") as file:
            assert (file.attrs["device"], file.attrs["precision"]) == ("definition", precision)


def test_features_default_is_the_global_pool(run: Run, tiny_file: Path, photos: list[Path], tmp_path: Path) -> None:
    status, out, _ = run("features", photos[0], "--output", tmp_path / "f.h5", "--weights", tiny_file)
    assert status == 0
    assert out.splitlines() == ["global_pool  [1, 1, 1, 20]", f"1 images -> {tmp_path / 'f.h5'}"]


def test_features_is_written_whole_or_not_at_all(run: Run, tiny_file: Path, photos: list[Path], tmp_path: Path) -> None:
    (text := tmp_path / "text.png").write_text("no image")
    (output := tmp_path / "f.h5").write_text("older")
    status, out, err = run("features", *photos, text, "-o", output, "--weights", tiny_file, "--batch-size", 1)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert str(text) in err
    assert output.read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["f.h5", "text.png"]


def test_end_points_whose_names_contain_each_other_go_into_one_file(
    run: Run, tiny_file: Path, photos: list[Path], tmp_path: Path
) -> None:
    names = ["tiny/block1", "tiny/block1/unit_2/bottleneck_v1", "tiny/block1/unit_2/bottleneck_v1/conv1"]
    options = [f"--end-point={name}" for name in names]
    status, _, err = run("features", photos[0], "-o", tmp_path / "f.h5", "--weights", tiny_file, *options)
    assert (status, err) == (0, "")
    _, values = expected(tiny_file, photos[:1], *names)
    with h5py.File(tmp_path / "f.h5") as file:
        assert set(file) == {*map(dotted, names), "files"}
        for name in names:
            largest = np.abs(values[name]).max()
            np.testing.assert_allclose(file[dotted(name)][()], values[name], rtol=0, atol=1e-5 * largest)


def rows(out: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(out)["rows"]}


def test_a_plan_shows_how_each_convolution_is_computed(run: Run) -> None:
    """The 13 3x3 convolutions of stride 1 by Winograd's algorithm, where it is allowed, and every other one direct."""
    described = json.loads(run("summary", "--variant", "resnet_v1_50", "--batch", 3, "--json")[1])
    for algorithm, ways in (("auto", {"direct": 41, "F(2x2) fused": 13}), ("direct", {"direct": 54})):
        line = ("summary", "--variant", "resnet_v1_50", "--plan", "--algorithm", algorithm, "--batch", 3)
        status, out, err = run(*line, "--json", "--threads", 1, "--isa", "plain")
        assert (status, err) == (0, "")
        data = json.loads(out)
        assert (data["isa"], data["threads"], data["images"]) == ("plain", 1, 3)
        convolutions = {row["layer"]: row for row in data["rows"] if row["flops"]}
        assert Counter(row["algorithm"] for row in convolutions.values()) == ways
        assert sum(row["flops"] for row in convolutions.values()) == described["total_flops"]
        passes = [row["passes"] for row in convolutions.values()]
        assert passes[0] == 3, "the first layers take one image at a time"
        assert passes[-1] == 1
    lines = run(*line)[1].splitlines()
    assert lines[0] == "resnet_v1_50, images [3, 224, 224, 3]"
    assert lines[2].split()[:3] == ["resnet_v1_50/conv1,", "pad", "copy"]
    assert "images at a time: 3; memory " in lines[-1]


def test_the_plan_shown_for_a_large_batch_is_the_one_that_its_parts_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "MOST_PIXELS", 5 * 64 * 64)
    status, out, err = run("summary", "--plan", "--batch", 1_000_000, "--json")
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert (data["batch"], data["images"]) == (1_000_000, 5)


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("resnet_v1_50", 25_610_152), ("resnet_v1_101", 44_654_504), ("resnet_v1_152", 60_344_232)],
)
def test_summary_counts_all_variables(run: Run, variant: str, parameters: int) -> None:
    """The papers' networks: 25,557,032 trained numbers and 53,120 moving averages make the first."""
    status, out, err = run("summary", "--variant", variant, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["total_parameters"] == parameters
    assert found["total_parameters"] == sum(row["parameters"] for row in found["rows"])
    assert found["size"] == [224, 224]


def test_summary_of_resnet_50_has_the_arithmetic_worked_out_by_hand(run: Run) -> None:
    units = rows(run("summary", "--variant", "resnet_v1_50", "--json")[1])
    assert units["conv1"]["output"] == [1, 112, 112, 64]
    assert units["conv1"]["flops"] == 2 * 112 * 112 * 64 * 7 * 7 * 3
    assert units["conv1"]["bytes"] == 4 * 112 * 112 * 64
    assert units["conv1"]["parameters"] == 7 * 7 * 3 * 64 + 4 * 64
    assert units["block1/unit_1"]["flops"] == 2 * 56 * 56 * (64 * 256 + 64 * 64 + 9 * 64 * 64 + 64 * 256)
    last = units["block1/unit_3"]
    assert (last["output"], last["stride"], last["total_stride"]) == ([1, 28, 28, 256], 2, 8)
    assert last["flops"] == 2 * (56 * 56 * 256 * 64 + 28 * 28 * (9 * 64 * 64 + 64 * 256))
    assert units["logits"]["parameters"] == 2048 * 1000 + 1000
    assert units["block4/unit_3"]["total_stride"] == 32


@pytest.mark.parametrize(
    ("output_stride", "rates"),
    [(None, (1, 1, 1, 1)), (32, (1, 1, 1, 1)), (16, (1, 1, 1, 2)), (8, (1, 1, 2, 4)), (4, (1, 2, 4, 8))],
)
def test_summary_shows_the_rates_of_slims_table(run: Run, output_stride: int | None, rates: tuple[int, ...]) -> None:
    option = [] if output_stride is None else ["--output-stride", output_stride]
    units = rows(run("summary", "--variant", "resnet_v1_50", "--size", 321, 257, "--json", *option)[1])
    assert tuple(units[f"block{number}/unit_2"]["rate"] for number in (1, 2, 3, 4)) == rates
    coarse = output_stride or 32
    assert units["block4/unit_3"]["output"][1:3] == [-(-321 // coarse), -(-257 // coarse)]
    assert units["block4/unit_3"]["total_stride"] == coarse


def test_summary_prints_a_line_per_unit_and_the_sums(run: Run) -> None:
    status, out, err = run("summary", "--variant", "resnet_v1_50", "--batch", 3, "--num-classes", 0)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "resnet_v1_50, images [3, 224, 224, 3]"
    assert lines[1].split() == ["unit", "output", "stride", "total", "rate", "parameters", "MFLOPs", "bytes"]
    assert [line.split()[0] for line in lines[2:6]] == ["conv1", "pool1", "block1/unit_1", "block1/unit_2"]
    assert "logits" not in out
    assert any(line.startswith("sum ") and "23,561,152" in line for line in lines)
    assert "MiB at once" in lines[-1]


def test_summary_of_a_weights_file_has_its_own_image_size_and_parameters(run: Run, tiny_file: Path) -> None:
    found = json.loads(run("summary", "--weights", tiny_file, "--json")[1])
    assert found["size"] == [29, 26]
    assert found["network"] == TINY
    assert found["total_parameters"] == sum(array.size for array in load_weights(tiny_file).values())
    digits = json.loads(run("summary", "--json")[1])
    assert digits["network"]["function"] == "resnet_v1_50"
    assert digits["size"] == [64, 64]


def test_devices_lists_what_there_is_and_where_auto_leads(run: Run) -> None:
    status, out, err = run("devices", "--json")
    assert (status, err) == (0, "")
    found = {entry["device"]: entry for entry in json.loads(out)}
    definition, cpu, *gpus, auto = found
    assert (definition, cpu, auto) == ("definition", "cpu", "auto")
    assert found["definition"]["dtypes"] == ["float32", "float64"]
    assert found["cpu"]["threads"] == thread_count(None)
    first = found[gpus[0]]
    assert found["auto"]["what"].startswith("takes gpu:0" if first["available"] else f"takes cpu: {first['what']}")
    assert all(found[name]["available"] for name in ("definition", "cpu", "auto"))
    assert [line.split()[0] for line in run("devices")[1].splitlines()] == list(found)


NARROW = {
    "function": "resnet_v1_50",
    "scope": "resnet_v1_50",
    "num_classes": 3,
    "min_base_depth": 1,
    "depth_multiplier": 0.01,
}
VARIABLES = 267 - 5  # blocks 1 and 2 are equally wide, so block2 has no shortcut


def narrow_checkpoint(folder: Path) -> Path:
    """A V2 checkpoint of resnet_v1_50 for three classes, as narrow as can be, and a step."""
    entries, data = {}, np.int64(7).tobytes()
    entries[b"global_step"] = checkpoint_files.entry(data, b"", 9)
    for name, value in sorted(random_variables(Network.from_json(NARROW).variables()).items()):
        shape = checkpoint_files.shape(*value.shape)
        entries[name.encode()] = checkpoint_files.entry(value.tobytes(), shape, 1, len(data))
        data += value.tobytes()
    return checkpoint_files.v2(folder / "model.ckpt", entries, data)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_convert_makes_a_file_that_classify_takes(
    run: Run, checkpoint: Path, tmp_path: Path, photos: list[Path]
) -> None:
    (labels := tmp_path / "labels.txt").write_text("2:cat\n0:ant\n1:bee\n")
    (pipeline := tmp_path / "p.json").write_text('{"name": "vgg", "resize_side": 40, "height": 33, "width": 33}')
    made = tmp_path / "w.h5"
    status, out, err = run("convert", checkpoint, made, "--labels", labels, "--preprocessing", pipeline, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["network"] == NARROW
    assert len(found["written"]) == VARIABLES
    assert found["skipped"] == {"global_step": "not part of the network"}
    assert found["labels"] == 3
    assert found["source"]["kind"] == "TensorFlow V2"
    status, out, err = run("classify", photos[0], "--weights", made, "--json")
    assert (status, err) == (0, "")
    assert {p["label"] for p in json.loads(out)[0]["predictions"]} == {"ant", "bee", "cat"}


def test_convert_says_what_it_made(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    status, out, _ = run("convert", checkpoint, tmp_path / "w.h5", "--output-stride", 8)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == f"TensorFlow V2 -> {tmp_path / 'w.h5'}"
    assert lines[1].startswith("network    resnet_v1_50(")
    assert "output_stride=8" in lines[1]
    assert lines[2] == "labels     none"
    assert lines[3].startswith(
        "images     as vgg prepares them: resize_side 256, height 224, width 224, means [123.68,"
    )
    assert lines[4] == f"written    {VARIABLES} variables"
    assert lines[5] == "left out   1 x not part of the network: global_step"
    assert load_weights(tmp_path / "w.h5").network.arguments["output_stride"] == 8


def test_convert_replaces_only_with_force(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (made := tmp_path / "w.h5").write_text("older")
    status, out, err = run("convert", checkpoint, made)
    assert (status, out) == (2, "")
    assert err == f"resnet-ref: {made} is there already; pass --force to replace it\n"
    assert made.read_text() == "older"
    assert run("convert", checkpoint, made, "--force")[0] == 0
    assert len(load_weights(made)) == VARIABLES


def test_convert_takes_a_whole_network_from_json(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (network := tmp_path / "n.json").write_text(json.dumps({**NARROW, "spatial_squeeze": False}))
    assert run("convert", checkpoint, tmp_path / "w.h5", "--network", network)[0] == 0
    assert load_weights(tmp_path / "w.h5").network.arguments["spatial_squeeze"] is False
