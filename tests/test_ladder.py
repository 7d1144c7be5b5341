"""The ladder: that its rungs are what they are said to be, and what `resnet-ref bench --ladder` prints and keeps.

That every rung computes the definition: test_conv2d.py. The rungs in CUDA: test_ladder_gpu.py.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from tiers import Gpus

from resnet_ref import DeviceError, ShapeError, load_model, save_weights
from resnet_ref.bench import ladder as bench_ladder
from resnet_ref.bench.ladder import climb, kinds
from resnet_ref.bench.peaks import Peak
from resnet_ref.kernels.conv2d.ladder.rungs import CPU, GPU, RUNGS, Rung, ladder
from resnet_ref.kernels.cuda.launch import FOLDER
from resnet_ref.kernels.geometry import valid
from resnet_ref.network import Network
from resnet_ref.random_weights import random_variables

RESNET = Network("resnet_v1_50", {"num_classes": 1000, "depth_multiplier": 0.5})
SHAPE = (1, 64, 48, 3)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_a_rung_opens_with_what_changed_and_why(rung: Rung) -> None:
    opening = rung.module.__doc__ or ""
    assert len(opening.split()) > 40, "what changed since the rung before, and why that should help"
    assert all((FOLDER / file).is_file() for file in rung.stands_on)


def test_every_file_of_the_ladder_is_a_rung() -> None:
    for device in (CPU, GPU):
        files = {path.stem for path in (FOLDER / "conv2d" / "ladder" / device).glob("*.py")} - {"__init__", "common"}
        assert files == {rung.file for rung in ladder(device)}


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ladder") / "resnet_v1_50.h5"
    save_weights(path, random_variables(RESNET.variables()), RESNET)
    return path


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rung", "algorithm"), [(-2, "direct"), (-1, "auto")])
def test_the_upper_rungs_on_the_cpu_are_what_a_model_runs_for_every_convolution(
    resnet_file: Path, rung: int, algorithm: str, threads: int
) -> None:
    """The same functions on the same shapes, cut into the same tasks; the top one is what load_model does unasked."""
    options = {} if algorithm == "auto" else {"algorithm": algorithm}
    model = load_model(resnet_file, device="cpu", threads=threads, **options)
    inside: dict[str, list[Any]] = {}
    for step in model.plan(*SHAPE[:3]).program.steps:
        inside.setdefault(step.layer, []).append(step)
    algorithms = set()
    for number, kind in enumerate(kinds(RESNET, SHAPE)):
        run = ladder(CPU)[rung].prepare(kind.problem(number), threads).run
        steps = run.__self__.steps  # type: ignore[attr-defined]
        assert [what(step) for step in steps] == [what(step) for step in inside[kind.first]], kind
        algorithms |= {step.algorithm for step in steps if step.flops}
    assert any("F(2x2)" in name for name in algorithms) == (algorithm == "auto")
    assert "direct" in algorithms


def what(step: Any) -> tuple[Any, ...]:
    return step.algorithm, step.function, step.layout, step.tasks, step.scratch, step.flops


def test_kinds_are_the_networks_convolutions_with_their_epilogues() -> None:
    found = kinds(RESNET, (2, 224, 224, 3))
    assert sum(kind.count for kind in found) == 54
    first = found[0]
    assert (first.first, first.x, first.w) == ("resnet_v1_50/conv1", (2, 224, 224, 3), (7, 7, 3, 64))
    assert (first.rows.stride, first.activation, first.residual) == (2, "relu", None)
    ends = [kind for kind in found if kind.residual]
    assert sum(kind.count for kind in ends) == 16
    assert all(kind.activation == "relu" for kind in ends)
    assert {kind.residual_stride for kind in ends} == {1, 2}
    flops = sum(kind.count * kind.problem(0).flops for kind in found)
    assert flops == sum(layer.flops for layer in RESNET.shapes(2, 224, 224).layers)


def test_a_climb_times_every_rung_on_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_ladder, "_TURN", 1e-4)
    done: list[int] = []
    network = Network("resnet_v1_50", {"num_classes": 7, "depth_multiplier": 0.1})
    found = climb(network, (2, 33, 39, 3), CPU, 2, 2, lambda: done.append(1))
    assert len(done) == len(found.rows) == len(kinds(network, (2, 33, 39, 3)))
    assert [rung.name for rung in found.rungs] == [rung.name for rung in ladder(CPU)]
    for row in found.rows:
        assert list(row.times) == [rung.name for rung in found.rungs]
        for timed in row.times.values():
            assert min(timed.seconds) > 0
            assert 0 < timed.error < 1e-5
    assert found.seconds("loops") == sum(row.kind.count * row.times["loops"].median for row in found.rows)
    assert found.flops == sum(layer.flops for layer in network.shapes(2, 33, 39).layers)


def test_a_rung_that_computes_something_else_is_not_timed(run: Run, tiny_file: Path, monkeypatch: Any) -> None:
    right = Rung.prepare

    def wrong(self: Rung, problem: Any, on: Any) -> Any:
        prepared = right(self, problem, on)
        if self.name == "indirect":
            return prepared._replace(result=lambda: prepared.result() * np.float32(1.001))
        return prepared

    monkeypatch.setattr(Rung, "prepare", wrong)
    status, out, err = run("bench", "--ladder", "--weights", tiny_file, "--rounds", 1)
    assert (status, out) == (1, "")
    assert "indirect on tiny/conv1 (7x7/2, " in err
    assert "is wrong: the largest error is 0.001 of the largest output, allowed is 1e-05; nothing more is timed" in err


def test_the_command_prints_two_tables_and_keeps_the_figures(run: Run, tiny_file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "ladder.json"
    line = ("--ladder", "--weights", tiny_file, "--batch", 2, "--threads", 1, "--rounds", 1, "-o", kept)
    status, out, err = run("bench", *line)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("resnet_v1, images [2, 29, 26, 3], 1 thread of ")
    assert [row.split("  ")[0] for row in lines[4:11]] == [rung.name for rung in ladder(CPU)]
    data = json.loads(kept.read_text())
    assert data["command"].startswith("resnet-ref bench ")
    assert data["shape"] == [2, 29, 26, 3]
    assert data["hardware"]["cores"] >= 1
    for kind in data["kinds"]:
        assert kind["text"] in out
        for times in kind["times"].values():
            low, high = times["quartiles"]
            assert low <= times["median"] <= high
            assert times["runs"] >= 1
            assert times["of_peak"] == pytest.approx(kind["flops"] / times["median"] / 1e9 / data["peak"]["gflops"])
    for name, rung in data["rungs"].items():
        seconds = sum(kind["count"] * kind["times"][name]["median"] for kind in data["kinds"])
        assert rung["seconds"] == pytest.approx(seconds)
        assert rung["gflops"] == pytest.approx(data["flops"] / seconds / 1e9)


def test_on_a_gpu_the_rungs_are_those_in_cuda_by_its_own_clock(
    run: Run, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = Gpus(monkeypatch)
    monkeypatch.setattr(bench_ladder, "peak", lambda *_: Peak(100.0, 10.0))
    monkeypatch.setattr("resnet_ref.bench.ladder_report.gpu", lambda runtime: {"name": runtime.name})
    line = ("bench", "--ladder", "--device", "gpu", "--weights", tiny_file, "--size", 17, 14, "--rounds", 1, "--json")
    status, out, err = run(*line)
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert list(data["rungs"]) == [rung.name for rung in ladder(GPU)]
    assert data["gpus"] == {"gpu": {"name": "emulated"}}
    monkeypatch.setattr(gpus[0], "architecture", "sm_75", raising=False)
    status, out, err = run(*line)
    assert (status, err) == (0, "")
    assert list(json.loads(out)["rungs"]) == [rung.name for rung in ladder(GPU)[:-1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peers",), "--ladder times its own rungs; leave out --peers"),
        (("--ours", "isa=avx2"), "--ladder times its own rungs; leave out --ours"),
        (("--isa", "avx2"), "leave out --isa"),
        (("--starts", 1), "leave out --starts"),
        (("--batch", 1, "--batch", 2), "--ladder is of one batch; give --batch once"),
        (("--device", "definition"), 'the ladder has rungs for "cpu" and "gpu", none for \'definition\''),
        (("--device", "auto"), 'name it: "cpu", "gpu"'),
    ],
)
def test_what_the_ladder_knows_nothing_of_is_refused(
    run: Run, tiny_file: Path, arguments: tuple[Any, ...], message: str
) -> None:
    status, out, err = run("bench", "--ladder", "--weights", tiny_file, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_a_kind_says_what_it_is() -> None:
    (kind,) = [kind for kind in kinds(RESNET, (1, 224, 224, 3)) if "block4/unit_1/bottleneck_v1/conv2" in kind.first]
    assert (kind.text, kind.count) == ("3x3, 7x7x256 to 256", 3)
    atrous = kinds(Network("resnet_v1_50", {"output_stride": 8}), (1, 225, 225, 3))
    assert "3x3 rate 4, 29x29x512 to 512" in [kind.text for kind in atrous]
    assert dataclasses.replace(kind, residual=(1, 7, 7, 256)).text == "3x3, 7x7x256 to 256 + residual"


@pytest.mark.parametrize("rung", ladder(CPU), ids=lambda rung: rung.name)
def test_a_rung_refuses_what_does_not_fit_as_every_tier_does(rung: Rung) -> None:
    """Compiled loops and machine code would read beyond the arrays."""
    x, w, window = np.ones((1, 5, 4, 3), np.float32), np.ones((3, 3, 3, 2), np.float32), valid(3)
    conv2d = rung.tier().conv2d
    assert conv2d(x, w, window, window).shape == (1, 3, 2, 2)
    with pytest.raises(ShapeError, match="w must be"):
        conv2d(x, w[:2], window, window)
    with pytest.raises(ShapeError, match="does not fit 2"):
        conv2d(x[:, :2], w, window, window)
    with pytest.raises(ShapeError, match=r"bias must have shape \[2\]"):
        conv2d(x, w, window, window, bias=np.ones(1, np.float32))
    with pytest.raises(DeviceError, match="computes in float32"):
        conv2d(x.astype(np.float64), w.astype(np.float64), window, window)
