"""What benchmarks of a gpu consist of, on the emulated one: roofs, contenders, checks, tables, and what is said where
there is no GPU."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Run
from cuda_on_cpu.memory import DeviceArray
from cuda_on_cpu.runtime import EmulatedRuntime
from tiers import Gpus, why_no_gpu

from resnet_ref import DeviceError, load_model
from resnet_ref.bench import comparison, contenders, peaks, report, serve, turns
from resnet_ref.bench.files import Files, prepare, wanted
from resnet_ref.bench.process import Outputs, job_of
from resnet_ref.bench.traffic import least_bytes
from resnet_ref.kernels.cuda.peak import CHAINS, STEPS, copy_peak, fma_peak
from resnet_ref.network import Network

ROOT = Path(__file__).parents[1]
SMALL = {"rounds": 1, "repeats": 2}


class Small(EmulatedRuntime):
    """A device of few multiprocessors, on which a peak is soon measured."""

    def __init__(self) -> None:
        super().__init__()
        self.multiprocessors = 1


def test_the_roofs_are_measured_by_numbers_that_are_checked() -> None:
    assert fma_peak(Small(), **SMALL) > 0
    for elements in (4, 4 * 256 * 2 + 4):
        assert copy_peak(Small(), elements, 2) > 0


def test_a_roof_counts_every_multiply_add_and_byte_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Small, "seconds", lambda self, run, runs: [run() or 2.0 for _ in range(runs)])
    assert fma_peak(Small(), **SMALL) == pytest.approx(2 * CHAINS * STEPS * 8 * 256 / 2 / 1e9)
    assert copy_peak(Small(), 400, 2) == pytest.approx(2 * 400 * 4 / 2 / 1e9)


def test_a_device_that_computes_wrongly_has_no_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Small.download

    def wrong(self: Small, array: Any) -> Any:
        numbers = right(self, array)
        numbers[-1] += 1
        return numbers

    monkeypatch.setattr(Small, "download", wrong)
    with pytest.raises(DeviceError, match="multiplies and adds wrongly"):
        fma_peak(Small(), **SMALL)
    with pytest.raises(DeviceError, match="copies wrongly"):
        copy_peak(Small(), 400, 1)


@pytest.mark.gpu
def test_the_roofs_of_a_real_gpu_are_sane() -> None:
    found = peaks.peak("gpu", 1)
    assert found.copy is not None
    assert 100 < found.gflops < 1e6
    assert 10 < found.copy < 1e5


def test_layers_move_their_inputs_outputs_and_weights_once() -> None:
    network = Network.from_json({**TINY, "num_classes": None})
    least = least_bytes(network, (2, 29, 26, 3))
    unit = "tiny/block1/unit_{}/bottleneck_v1/"
    # conv1: 7x7, stride 2, 29x26x3 -> 15x13x64; then the pool to 8x7.
    assert least["tiny/conv1"] == 4 * (2 * 29 * 26 * 3 + 2 * 15 * 13 * 64 + 7 * 7 * 3 * 64 + 64)
    assert least["tiny/pool1"] == 4 * (2 * 15 * 13 * 64 + 2 * 8 * 7 * 64)
    # 1x1 to 12 channels, with the shortcut, of as many, as residual.
    assert least[unit.format(1) + "conv3"] == 4 * (2 * 8 * 7 * (3 + 12 + 12) + 3 * 12 + 12)
    # The second unit has stride 2: its residual is every other pixel, and its conv2 reads all.
    assert least[unit.format(2) + "conv2"] == 4 * (2 * (8 * 7 + 4 * 4) * 4 + 9 * 4 * 4 + 4)
    assert least[unit.format(2) + "conv3"] == 4 * (2 * 4 * 4 * (4 + 12 + 12) + 4 * 12 + 12)
    assert set(least) == {layer.scope for layer in network.shapes(2, 29, 26).layers if "add" not in layer.op} - {
        unit.format(2) + "shortcut"
    }


def test_a_projection_with_a_stride_reads_the_pixels_that_it_steps_on_alone() -> None:
    blocks = [{"scope": "block1", "args": [{"depth": 12, "depth_bottleneck": 3, "stride": 2}]}]
    least = least_bytes(Network.from_json({**TINY, "blocks": blocks}), (2, 29, 26, 3))
    assert least["tiny/block1/unit_1/bottleneck_v1/shortcut"] == 4 * (2 * 4 * 4 * (64 + 12) + 64 * 12 + 12)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> EmulatedRuntime:
    (device,) = Gpus(monkeypatch)
    return device


def test_ours_goes_from_the_device_to_the_device_unless_it_is_to_come_from_the_host(
    gpu: EmulatedRuntime, tiny_file: Path, tmp_path: Path
) -> None:
    given = prepare(tmp_path, wanted(tiny_file, None, None, None, 224))
    there, here = contenders.our_contenders([], {"device": "gpu"})
    want = load_model(tiny_file, device="cpu")(given.images(2))
    for contender, kind in ((there, DeviceArray), (here, np.ndarray)):
        engine = serve.ours(job_of(contender, given, 2, 1))
        assert isinstance(engine.run(), kind)
        serve.obey(engine, {"outputs": tmp_path / "o.npz"})
        with np.load(tmp_path / "o.npz") as found:
            np.testing.assert_allclose(found["result"], want, atol=1e-5)
            assert found["logits"].shape == (2, 1, 1, 5)


def test_ours_by_the_devices_clock_is_the_whole_plan_as_one_graph(
    gpu: EmulatedRuntime, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = prepare(tmp_path, wanted(tiny_file, None, None, None, 224))
    engine = serve.ours(job_of(contenders.our_contenders([], {"device": "gpu"})[0], given, 2, 1))
    graphs: list[Any] = []
    right = EmulatedRuntime.capture
    monkeypatch.setattr(EmulatedRuntime, "capture", lambda self, run: graphs.append(right(self, run)) or graphs[-1])
    assert engine.clock is not None
    assert len(engine.clock(3)) == len(engine.clock(3)) == 3
    (graph,) = graphs
    steps = load_model(tiny_file, device="gpu").plan(2, *given.size).program.steps
    assert len(graph._launches) == sum(len(step.launches) for step in steps)
    assert serve.ours(job_of(contenders.our_contenders([], {"device": "cpu"})[0], given, 2, 1)).clock is None


class InProcess:
    """Stands for process.Process: the contender works in this process, where the gpu is an emulated one."""

    def __init__(self, contender: contenders.Contender, files: Files, batch: int, threads: int) -> None:
        self.contender = contender
        self.engine = serve.ENGINES[contender.engine](job_of(contender, files, batch, threads))

    def outputs(self, path: Path) -> Outputs:
        serve.obey(self.engine, {"outputs": path})
        with np.load(path) as found:
            return Outputs(found["result"], found.get("logits"))

    def runs(self, count: int, warm: int) -> list[float]:
        return list(serve.obey(self.engine, {"runs": 2, "warm": 0})["seconds"])


@pytest.fixture
def emulated(gpu: EmulatedRuntime, monkeypatch: pytest.MonkeyPatch) -> EmulatedRuntime:
    """`resnet-ref bench` in this process, on an emulated gpu."""

    @contextmanager
    def running(*arguments: Any) -> Iterator[InProcess]:
        yield InProcess(*arguments)

    gpu.multiprocessors = 2
    monkeypatch.setattr(comparison, "running", running)
    monkeypatch.setattr(turns.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(peaks.gpu, "fma_peak", partial(fma_peak, **SMALL))
    monkeypatch.setattr(peaks.gpu, "copy_peak", partial(copy_peak, elements=400, repeats=2))
    monkeypatch.setattr(report, "gpu", lambda runtime: {"name": runtime.name})
    return gpu


def test_a_gpu_is_measured_beside_the_cpu_with_its_own_roofs_and_layers(
    emulated: EmulatedRuntime, run: Run, tiny_file: Path
) -> None:
    line = ("bench", "--weights", tiny_file, "--device", "gpu", "--ours", "", "--ours", "device=cpu", "--batch", 2)
    short = ("--rounds", 1, "--starts", 0, "--profile", "--threads", 1)
    status, out, err = run(*line, *short, "--json")
    assert (status, err) == (0, "")
    data = json.loads(out)
    names = ["ours device=gpu", "ours device=gpu, from host memory", "ours device=cpu"]
    (batch,) = data["batches"]
    assert list(batch["times"]) == names
    assert data["gpus"] == {"gpu": {"name": "emulated"}}
    assert data["peaks"]["gpu"]["copy_gb_s"] > 0
    assert data["peaks"]["cpu"]["copy_gb_s"] is None
    least = least_bytes(Network.from_json(TINY), (2, 29, 26, 3))
    assert batch["bytes"] == sum(least.values())
    for name, device in zip(names, ("gpu", "gpu", "cpu"), strict=True):
        times, peak = batch["times"][name], data["peaks"][device]
        assert times["of_peak"] == pytest.approx(batch["flops"] / times["median"] / 1e9 / peak["gflops"])
        moved = batch["bytes"] / times["median"] / 1e9
        copy = peak["copy_gb_s"]
        assert times["of_bandwidth"] == (None if copy is None else pytest.approx(moved / copy))
    assert [profile["contender"] for profile in data["profiles"]] == ["ours device=gpu", "ours device=cpu"]
    steps = data["profiles"][0]["steps"]
    assert sum(step["flops"] for step in steps) == batch["flops"]
    assert dict(zip([step["layer"] for step in steps], data["profiles"][0]["bytes"], strict=True)) == least
    assert all(step["seconds"] >= 0 for step in steps)
    status, out, err = run(*line, *short)
    assert (status, err) == (0, "")
    assert "; copying: " in out
    header = next(text for text in out.splitlines() if text.startswith("ours device=gpu, batch 2"))
    assert header.endswith("MB  of bandwidth")
    assert "`from host memory` with copies" in out


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_a_gpu_that_computes_something_else_is_refused_before_anything_is_timed(
    emulated: EmulatedRuntime, run: Run, tiny_file: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """By an error that is ten times what float32 may have, or that TF32 explains."""
    error = {"float32": 1e-3, "tf32": 4e-2}[precision]
    right = EmulatedRuntime.download

    def wrong(self: EmulatedRuntime, array: Any) -> Any:
        numbers = right(self, array)
        return numbers * np.float32(1 + error) if numbers.size == 3 * 5 else numbers  # of results and logits

    monkeypatch.setattr(EmulatedRuntime, "download", wrong)
    monkeypatch.setattr(comparison, "take_turns", None)
    line = ("bench", "--weights", tiny_file, "--device", "gpu", "--precision", precision, "--batch", 3)
    status, out, err = run(*line, "--rounds", 1, "--starts", 0)
    assert (status, out) == (1, "")
    assert f"ours device=gpu precision={precision} and the float64 definition disagree" in err
    assert "nothing was timed" in err


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_bench_says_so_before_it_does_anything(run: Run, tiny_file: Path) -> None:
    status, out, err = run("bench", "--weights", tiny_file, "--device", "gpu")
    assert (status, out) == (2, "")
    assert "gpu" in err
    assert len(err.splitlines()) == 1
