"""What the parts of benchmarks/gpu_check.py measure and keep, on an emulated device and a small network."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_results import (
    BENCHMARKS,
    folder,
    gpu_kernels_once,
    ladder,
    layers,
    needs,
    networks,
    ours,
    parts,
    pytorch,
    timing,
    versions,
    what,
)
from launches import Recorder
from tiers import Gpus

from resnet_ref import VerificationError, load_weights, save_weights
from resnet_ref.bench import files, machine
from resnet_ref.bench.fused_layers import fused_layers
from resnet_ref.bench.peaks import Peak
from resnet_ref.kernels.conv2d import tiles
from resnet_ref.kernels.geometry import same
from resnet_ref.network import Network
from resnet_ref.plan.gpu.choice import Convolution, candidates
from resnet_ref.random_weights import random_variables

ROOT = Path(__file__).parents[1]
L2 = 4096


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> EmulatedRuntime:
    """A device on which the tiny network is measured, in a moment."""
    (made,) = Gpus(monkeypatch)
    for module in (ours, pytorch, ladder):
        monkeypatch.setattr(module, "wanted", lambda *_: files.wanted(tiny_file, None, None, None, 224))
    monkeypatch.setattr(ours, "peak", lambda *_: Peak(100.0, 10.0))
    monkeypatch.setattr(machine, "gpu", lambda runtime: {"name": runtime.name, "l2": L2})
    monkeypatch.setattr(what, "BATCHES", (1, 2))
    monkeypatch.setattr(what, "PRECISIONS", ("float32", "tf32"))
    monkeypatch.setattr(timing, "TURN", 0)
    monkeypatch.setattr(layers, "RUNS", 2)
    monkeypatch.setattr(layers, "WARM", 1)
    return made


def kept(path: Path, part: str) -> dict[str, Any]:
    return folder.Folder(path).pieces(part)


def test_ours_leaves_every_network_and_every_way_of_every_layer(device: EmulatedRuntime, tmp_path: Path) -> None:
    assert ours.main(str(tmp_path)) == 0
    found = kept(tmp_path, "ours")
    wanted = {make(p, b) for make in (what.network_piece, what.layers_piece) for p in what.PRECISIONS for b in (1, 2)}
    assert found.keys() == {*wanted, "peak"}
    network = found["network_tf32_2"]
    assert (network["precision"], network["batch"]) == ("tf32", 2)
    assert 1e-6 < network["error"] < 1e-2
    for how in ("graph", "call", "host"):
        low, high = network[how]["quartiles"]
        assert 0 < low <= network[how]["median"] <= high
        assert len(network[how]["seconds"]) >= timing.FEWEST
    one = found["layers_float32_2"]
    assert one["l2"] == L2
    assert one["cache"] == f"flushed: {2 * L2} bytes read and as many written before each run; L2 has {L2}"
    convolutions = [layer for layer in fused_layers(Network.from_json(TINY), (2, 29, 26, 3)) if layer.layer.rows]
    scopes = [layer.layer.scope for layer in convolutions if layer.layer.op == "conv2d"]
    assert sorted(scope for kind in one["kinds"] for scope in kind["layers"]) == sorted(scopes)
    for kind in one["kinds"]:
        names = [way["way"] for way in kind["ways"]]
        assert len(set(names)) == len(names)
        assert {name.split()[1] for name in names} == {tile.name for tile in tiles.TILES["float32"]}
        by_model = [way["predicted"] for way in kind["ways"]]
        assert by_model[0] == min(by_model), "the model's choice comes first"
        way = tiles.by_name("float32", names[0])
        assert by_model[0] == tiles.seconds(way, *kind["m_n_k"], device.multiprocessors)
        assert kind["flops"] == 2 * np.prod(kind["m_n_k"])
        assert all(way["runs"] == layers.RUNS for way in kind["ways"])
    conv1 = next(kind for kind in one["kinds"] if "tiny/conv1" in kind["layers"])
    assert conv1["m_n_k"] == [2 * 15 * 13, 64, 7 * 7 * 3]


def test_layers_of_one_kind_are_timed_once_and_all_named(device: EmulatedRuntime, tmp_path: Path) -> None:
    unit = {"depth": 12, "depth_bottleneck": 4, "stride": 1}
    network = Network.from_json({**TINY, "blocks": [{"scope": "block1", "args": [unit] * 3}]})
    save_weights(tmp_path / "w.h5", random_variables(network.variables()), network)
    given = files.Files(tmp_path, load_weights(tmp_path / "w.h5"), (13, 14), 1)
    found = layers.Layers(device, given, L2).timed("float32", 1)["kinds"]
    named = {kind["layers"][0].removeprefix("tiny/block1/"): len(kind["layers"]) for kind in found}
    assert named["unit_1/bottleneck_v1/conv2"] == 3
    assert named["unit_2/bottleneck_v1/conv1"] == 2
    assert sum(named.values()) == 3 * 3 + 3, "and the root, the shortcut, the logits"


def test_every_tile_is_judged_beside_those_that_tuning_would_try() -> None:
    """At 7x7 and batch 1 the model's best six are all of one tile."""
    window = same(7, 3)
    conv = Convolution((1, 7, 7, 512), (3, 3, 512, 512), window, window, False)
    runtime: Any = Recorder()
    tried, all_tried = candidates(runtime, "float32", conv), layers.judged(runtime, "float32", conv)
    assert len({way.tile for way in tried}) < len(tiles.TILES["float32"])
    assert all_tried[: len(tried)] == list(tried)
    assert {way.tile for way in all_tried} == set(tiles.TILES["float32"])
    assert len(all_tried) == len(tried) + len({way.tile for way in all_tried} - {way.tile for way in tried})


@pytest.mark.parametrize("wrong", ["network", "layers"])
def test_what_fails_in_one_piece_leaves_all_other_pieces(
    device: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """float32 at batch 2 computes something else: it is not timed, and nothing else is lost."""
    right = networks.require_agreement

    def differs(outputs: Any, true: Any, precisions: Any) -> None:
        if set(precisions.values()) == {"float32"} and len(next(iter(outputs.values())).result) == 2:
            raise VerificationError("ours and the float64 definition disagree")
        right(outputs, true, precisions)

    monkeypatch.setattr(networks if wrong == "network" else layers, "require_agreement", differs)
    monkeypatch.setattr(what, "PRECISIONS", ("float32",))
    assert ours.main(str(tmp_path)) == 1
    found = kept(tmp_path, "ours")
    failed = {name for name, piece in found.items() if not folder.is_well(piece)}
    assert failed == {f"{wrong}_float32_2"}
    assert found[f"{wrong}_float32_2"] == {"failed": "ours and the float64 definition disagree"}
    assert found.keys() == {"network_float32_1", "network_float32_2", "layers_float32_1", "layers_float32_2", "peak"}


def test_a_way_that_computes_something_else_is_not_timed(
    device: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = EmulatedRuntime.download

    def wrong(self: EmulatedRuntime, array: Any) -> Any:
        numbers = right(self, array)
        return numbers * np.float32(1.01) if numbers.size == 2 * 5 else numbers

    monkeypatch.setattr(EmulatedRuntime, "download", wrong)
    given = files.prepare(tmp_path, ours.wanted())
    with pytest.raises(VerificationError, match="ours in float32, ways 0 and the float64 definition disagree"):
        layers.Layers(device, given, L2).timed("float32", 2)


def test_another_run_of_ours_measures_what_is_missing_alone(
    device: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: what was there is as it was."""
    monkeypatch.setattr(what, "PRECISIONS", ("float32",))
    for name in ("network_float32_1", "layers_float32_1", "layers_float32_2", "peak"):
        folder.write(tmp_path / "ours" / f"{name}.json", {"old": True})
    assert ours.main(str(tmp_path)) == 0
    found = kept(tmp_path, "ours")
    assert [name for name, piece in found.items() if "old" not in piece] == ["network_float32_2"]


def test_before_each_run_that_counts_the_cache_is_flushed() -> None:
    """By the device's clock, and the flushes' own time is not counted."""
    log: list[str] = []

    def seconds(run: Callable[[], None], runs: int) -> list[float]:
        taken = []
        for _ in range(runs):
            run()
            taken.append(100.0 if log[-1] == "flush" else float(len(log)))
        return taken

    runtime: Any = SimpleNamespace(seconds=seconds)
    found = layers.cold_seconds(runtime, lambda: log.append("flush"), lambda: log.append("run"))
    assert log == ["flush", "run"] * (layers.WARM + layers.RUNS)
    assert found == [float(2 * number) for number in range(layers.WARM + 1, layers.WARM + layers.RUNS + 1)]


def test_a_flush_reads_and_writes_more_than_the_cache_holds() -> None:
    runtime = EmulatedRuntime()
    flush = layers.Flush(runtime, 3000)
    x, y = flush._launch.arguments[:2]
    assert flush.bytes == x.nbytes == y.nbytes >= 2 * 3000
    flush()
    np.testing.assert_array_equal(runtime.download(y), np.arange(x.size))


def test_a_time_is_of_runs_after_the_device_is_awake() -> None:
    asked: list[int] = []

    def clock(runs: int) -> list[float]:
        asked.append(runs)
        return [9.0] * (runs - 60) + [0.005] * 60 if runs > 60 else [0.005] * runs

    found = timing.timed(clock)
    assert asked == [timing.FEWEST, 60 + 30]
    assert (found["median"], len(found["seconds"])) == (0.005, 60)


def test_pytorch_that_differs_or_breaks_is_noted_piece_by_piece(
    device: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(contender: Any, given: Any, batch: int) -> dict[str, Any]:
        if contender.precision == "tf32":
            raise VerificationError("pytorch-gpu-tf32 and the float64 definition disagree")
        if (contender.precision, batch) == ("float32", 2):
            raise RuntimeError("CUDA out of memory")
        return {"engine": contender.engine, "device": contender.device}

    monkeypatch.setattr(pytorch, "network", network)
    monkeypatch.setattr(pytorch, "make_network_files", lambda *_: None)
    monkeypatch.setattr(pytorch, "torch_cuda", lambda: {"torch": "2.13"})
    assert pytorch.main(str(tmp_path)) == 1
    assert kept(tmp_path, "pytorch") == {
        "about": {"torch": "2.13"},
        "network_float32_1": {"engine": "pytorch-gpu", "device": "gpu"},
        "network_float32_2": {"failed": "RuntimeError: CUDA out of memory"},
        "network_tf32_1": {"failed": "pytorch-gpu-tf32 and the float64 definition disagree"},
        "network_tf32_2": {"failed": "pytorch-gpu-tf32 and the float64 definition disagree"},
        "network_bfloat16_1": {"engine": "pytorch-gpu-bf16", "device": "gpu"},
        "network_bfloat16_2": {"engine": "pytorch-gpu-bf16", "device": "gpu"},
    }


def test_pytorch_without_cuda_says_so_once(
    device: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytorch, "torch_cuda", lambda: None)
    assert pytorch.main(str(tmp_path)) == 1
    (piece,) = kept(tmp_path, "pytorch").values()
    assert "was built without CUDA" in piece["failed"]


def test_every_kernel_is_checked_and_one_that_is_wrong_hides_no_other(
    device: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_kernels_once, "cupy", lambda: SimpleNamespace(cuda=SimpleNamespace(set_allocator=print)))
    names = [name for name, _ in gpu_kernels_once.checks(device)]
    assert set(names) == set(parts.BY_NAME["kernels"].pieces)

    def checks(runtime: Any) -> Any:
        for name in names:
            yield name, (lambda: 1 / 0) if name == "ladder" else (lambda: {"conv2d"})

    monkeypatch.setattr(gpu_kernels_once, "checks", checks)
    assert gpu_kernels_once.main(str(tmp_path)) == 1
    found = kept(tmp_path, "kernels")
    assert [name for name, piece in found.items() if not folder.is_well(piece)] == ["ladder"]
    assert found["others"] == {"ok": True, "kernels": ["conv2d"]}
    assert "NOT every kernel is right" in capsys.readouterr().out


def test_a_device_without_tensor_cores_leaves_their_checks_out(device: EmulatedRuntime) -> None:
    device.architecture = "sm_75"
    nothing = {name for name, check in gpu_kernels_once.checks(device) if check is gpu_kernels_once._nothing}
    assert nothing == {f"{w}_{p}" for w in ("convolutions", "networks") for p in ("tf32x3", "tf32", "bfloat16")}


def test_the_ladder_is_climbed_on_the_heaviest_kinds_and_kept_after_each(
    device: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_ref.bench.ladder.peak", lambda *_: Peak(100.0, 10.0))
    monkeypatch.setattr("resnet_ref.bench.ladder._TURN", 1e-4)
    monkeypatch.setattr("resnet_ref.bench.ladder_report.gpu", lambda runtime: {"name": runtime.name})
    monkeypatch.setattr(ladder, "KINDS", 2)
    right, written = ladder.write, []

    def write(path: Path, data: Any) -> None:
        written.append((path.name, len(data["kinds"])))
        right(path, data)

    monkeypatch.setattr(ladder, "write", write)
    assert ladder.main(str(tmp_path)) == 0
    assert written == [("measured.json", 1), ("measured.json", 2)]
    found = kept(tmp_path, "ladder")
    assert found["complete"] == {"kinds": 2}
    measured = found["measured"]
    every = ladder.kinds(Network.from_json(TINY), (1, 29, 26, 3))
    assert sorted(kind.flops for kind in every)[-2:] == sorted(k["count"] * k["flops"] for k in measured["kinds"])
    assert (measured["convolutions"], measured["of"]) == (2, sum(kind.count for kind in every))
    (tmp_path / "ladder" / "complete.json").unlink()
    monkeypatch.setattr(ladder, "KINDS", 1)
    assert ladder.main(str(tmp_path)) == 0
    assert len(kept(tmp_path, "ladder")["measured"]["kinds"]) == 2, "what got further is kept"


def test_the_kinds_of_the_ladder_are_two_thirds_of_the_networks_products() -> None:
    network, shape = Network(what.VARIANT, {"num_classes": 1000}), (1, what.SIZE, what.SIZE, 3)
    found = ladder.heaviest(network, shape)
    assert len(found) == 8
    assert sum(kind.flops for kind in found) > 0.66 * sum(kind.flops for kind in ladder.kinds(network, shape))


def test_versions_tell_the_device_and_the_sources(
    device: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert versions.main(str(tmp_path)) == 0
    found = kept(tmp_path, "versions")["device"]
    assert (found["device"], found["gpu"]["l2"]) == ("emulated", L2)
    assert re.fullmatch("[0-9a-f]{16}", found["sources"])
    assert found["sources"] == versions.sources()
    assert found["versions"].keys() >= {"python", "numpy", "resnet-ref"}


def test_sources_are_all_that_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/__init__.py", "a/b.py", "k/__init__.py", "k/c.cu", "k/d.cuh", "k/note.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(versions, "resnet_ref", SimpleNamespace(__file__=tmp_path / "a" / "__init__.py"))
    monkeypatch.setattr(versions, "kernels", SimpleNamespace(__file__=tmp_path / "k" / "__init__.py"))
    seen = {versions.sources()}
    for name in ("a/b.py", "k/c.cu", "k/d.cuh"):
        (tmp_path / name).write_text("2")
        seen.add(versions.sources())
    assert len(seen) == 4
    (tmp_path / "k" / "note.md").write_text("2")
    assert versions.sources() in seen


@pytest.mark.parametrize("name", ["versions", "kernels", "ours", "pytorch", "ladder"])
def test_each_part_of_ours_is_a_line_that_runs(name: str, tmp_path: Path) -> None:
    """It gets as far as asking for the device, or for PyTorch, and says in its log that there is none."""
    command = parts.BY_NAME[name].command(folder.Folder(tmp_path))
    environment = {"PATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "GPU" in said or "gpu" in said
    assert "ModuleNotFoundError" not in said
    assert "SyntaxError" not in said


def test_a_sanitizer_is_found_on_the_path_or_in_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    tool = tmp_path / "cuda" / "compute-sanitizer" / "compute-sanitizer"
    tool.parent.mkdir(parents=True)
    tool.touch(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert needs.find_sanitizer() == tool
    assert needs.SANITIZER not in needs.missing()
    line = parts.BY_NAME["racecheck"].command(folder.Folder(tmp_path))
    assert line == [str(tool), "--tool", "racecheck", "--error-exitcode", "9", sys.executable, str(parts.ONCE)]
    assert parts.ONCE.is_file()
    monkeypatch.setattr(needs, "find_sanitizer", lambda: None)
    assert "put it on the PATH" in needs.missing()[needs.SANITIZER]


@pytest.mark.slow
def test_the_tests_of_a_gpu_are_all_found_in_the_files_that_are_given() -> None:
    """Others are not even imported: on a bare machine what they import may not be there."""
    line = parts.BY_NAME["tests"].command(folder.Folder(ROOT))
    given = [word for word in line if word.endswith(".py")]
    found = []
    for paths in (given, [str(ROOT / "tests")]):
        command = [*line[: -len(given)], *paths, "--collect-only", "-qq"]
        done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        found.append({line for line in done.stdout.splitlines() if "::" in line})
    assert len(found[0]) > 1000
    assert found[0] == found[1]
    assert Path(given[0]).name.startswith("test_gpu")
