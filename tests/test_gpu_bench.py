"""What benchmarks of a gpu consist of, on the emulated one: roofs, contenders, checks, tables, and what is said where
there is no GPU."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Run
from cuda_on_cpu.memory import DeviceArray
from cuda_on_cpu.runtime import EmulatedRuntime
from tiers import Gpus, why_no_gpu

from resnet_ref import DeviceError, ResnetRefError, errors, kernels, load_model
from resnet_ref.bench import comparison, contenders, peaks, report, serve, torch_cuda, turns
from resnet_ref.bench.files import Files, prepare
from resnet_ref.bench.process import Outputs, job_of
from resnet_ref.bench.traffic import least_bytes
from resnet_ref.kernels import Tier
from resnet_ref.kernels.cuda.peak import CHAINS, STEPS, copy_peak, fma_peak
from resnet_ref.network import Network
from resnet_ref.plan.offer import PRECISIONS_OF

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


def test_ours_on_a_gpu_stands_twice_with_and_without_copies_of_the_host() -> None:
    found = contenders.our_contenders(["precision=tf32", "device=cpu"], {"device": "gpu:1"})
    assert [(one.name, one.device, one.from_host, one.exact) for one in found] == [
        ("ours device=gpu:1 precision=tf32", "gpu:1", False, False),
        ("ours device=gpu:1 precision=tf32, from host memory", "gpu:1", True, False),
        ("ours device=cpu", "cpu", False, True),
    ]
    assert [one.name for one in contenders.our_contenders([], {})] == ["ours"]
    with pytest.raises(errors.BenchError, match='"auto" may be either'):
        contenders.our_contenders(["device=auto"], {})


def test_peers_are_those_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda name: object())
    monkeypatch.setattr(contenders, "torch_cuda", lambda: {"torch": "2.9"})
    on_gpu, _ = contenders.peer_contenders([], True, "gpu:1")
    assert [(one.name, one.device, one.precision) for one in on_gpu] == [
        ("pytorch-gpu", "gpu:1", "float32"),
        ("pytorch-gpu-tf32", "gpu:1", "tf32"),
    ]
    on_cpu, _ = contenders.peer_contenders(["pytorch-gpu"], True, "cpu")
    assert {one.name: one.device for one in on_cpu} == {
        **dict.fromkeys(["onnxruntime", "openvino", "pytorch", "tensorflow"], "cpu"),
        "pytorch-gpu": "gpu",
    }


@pytest.mark.parametrize("has_cuda", [True, False])
def test_pytorch_is_asked_for_cuda_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_cuda: bool
) -> None:
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as S\n"
        f"cuda = S(is_available=lambda: {has_cuda})\n"
        "__version__, version = '2.9', S(cuda='13.0')\n"
        "backends = S(cudnn=S(version=lambda: 91000))\n"
        "print('a library may print')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(contenders, "find_spec", lambda name: object())
    torch_cuda.torch_cuda.cache_clear()
    try:
        found, absent = contenders.peer_contenders([], True, "gpu")
        if has_cuda:
            assert torch_cuda.torch_cuda() == {"torch": "2.9", "cuda": "13.0", "cudnn": 91000}
            assert (len(found), absent) == (2, {})
            return
        assert absent.keys() == {"pytorch-gpu", "pytorch-gpu-tf32"}
        assert "was built without CUDA, or finds no GPU" in absent["pytorch-gpu"]
        with pytest.raises(errors.BenchError, match="pytorch-gpu is not installed: this PyTorch was built without"):
            contenders.peer_contenders(["pytorch-gpu"], False, "gpu")
    finally:
        torch_cuda.torch_cuda.cache_clear()


class Torch:
    """As much of PyTorch as serve.py calls on a gpu; `log` holds what was done in which order."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.backends = SimpleNamespace(
            cudnn=SimpleNamespace(benchmark=False, allow_tf32=True),
            cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False)),
        )
        self.jit = SimpleNamespace(load=self.load)
        stream = SimpleNamespace(wait_stream=lambda other: None)
        self.cuda = SimpleNamespace(
            set_device=lambda device: self.log.append(device),
            CUDAGraph=lambda: SimpleNamespace(replay=lambda: self.log.append("replay")),
            Stream=lambda: stream, current_stream=lambda: stream, stream=lambda stream: self.noted("aside"),
            graph=lambda graph: self.noted("capture"), synchronize=lambda: self.log.append("synchronize"),
        )  # fmt: skip
        self.inference_mode = lambda: self.noted("inference")

    @contextmanager
    def noted(self, what: str) -> Iterator[None]:
        self.log.append(what)
        yield
        self.log.append(f"end of {what}")

    def set_num_threads(self, count: int) -> None: ...

    def device(self, kind: str, index: int) -> str:
        return f"{kind}:{index}"

    def from_numpy(self, array: Any) -> Any:
        return Tensor(array)

    def load(self, path: str, map_location: str) -> Any:
        self.log.append(("load", map_location))
        return SimpleNamespace(eval=lambda: self.module)

    def module(self, images: "Tensor") -> "tuple[Tensor, Tensor]":
        self.log.append(("call", images.device, images.array.shape))
        return images, Tensor(-images.array, images.device)


class Tensor:
    def __init__(self, array: Any, device: str = "cpu") -> None:
        self.array, self.device = array, device

    def permute(self, *axes: int) -> "Tensor":
        return Tensor(self.array.transpose(axes), self.device)

    def to(self, device: str) -> "Tensor":
        return Tensor(self.array, device)

    def cpu(self) -> "Tensor":
        return Tensor(self.array)

    def numpy(self) -> Any:
        assert self.device == "cpu"
        return self.array


@pytest.mark.parametrize("name", ["pytorch-gpu", "pytorch-gpu-tf32"])
def test_pytorch_runs_as_one_captured_graph_with_tf32_as_its_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torch = Torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    images = np.random.default_rng(0).standard_normal((2, 5, 4, 3), np.float32)
    np.save(tmp_path / "images.npy", images)
    job = {
        "threads": 1,
        "network": "n",
        "images": tmp_path / "images.npy",
        "logits": "l",
        "options": {"device": "gpu:1"},
    }
    engine = serve.ENGINES[name](job)
    assert torch.log[:2] == ["cuda:1", ("load", "cuda:1")]
    call = ("call", "cuda:1", (2, 3, 5, 4))
    assert torch.log[2:] == [
        *("inference", "aside", *[call] * 5, "end of aside"),
        *("capture", call, "end of capture", "end of inference"),
    ]
    is_tf32 = name.endswith("tf32")
    allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    assert (torch.backends.cudnn.benchmark, *allowed) == (True, is_tf32, is_tf32)
    torch.log.clear()
    serve.obey(engine, {"runs": 2, "warm": 1})
    assert torch.log == ["replay", "synchronize"] * 3
    serve.obey(engine, {"outputs": tmp_path / "o.npz"})
    with np.load(tmp_path / "o.npz") as found:
        np.testing.assert_array_equal(found["result"], images)
        np.testing.assert_array_equal(found["logits"], -images)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> EmulatedRuntime:
    (device,) = Gpus(monkeypatch)
    return device


def test_ours_goes_from_the_device_to_the_device_unless_it_is_to_come_from_the_host(
    gpu: EmulatedRuntime, tiny_file: Path, tmp_path: Path
) -> None:
    given = prepare(tmp_path, tiny_file, None, None, None, 224)
    there, here = contenders.our_contenders([], {"device": "gpu"})
    want = load_model(tiny_file, device="cpu")(given.images(2))
    for contender, kind in ((there, DeviceArray), (here, np.ndarray)):
        engine = serve.ours(job_of(contender, given, 2, 1))
        assert isinstance(engine.run(), kind)
        serve.obey(engine, {"outputs": tmp_path / "o.npz"})
        with np.load(tmp_path / "o.npz") as found:
            np.testing.assert_allclose(found["result"], want, atol=1e-5)
            assert found["logits"].shape == (2, 1, 1, 5)


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


# What stands in benchmarks/.


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_check
    import gpu_kernels_once
    import readme_table

    return SimpleNamespace(check=gpu_check, once=gpu_kernels_once, table=readme_table)


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--output", str(tmp_path / "o.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gpu_check: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o.json").exists()


def timed(precision: str, milliseconds: dict[int, tuple[float, float, float]]) -> dict[str, Any]:
    """As much of bench's JSON as is read: by batch ours, PyTorch and PyTorch with TF32."""
    ours = f"ours device=gpu precision={precision}"
    names = {ours: "ours", f"{ours}, from host memory": "ours", "pytorch-gpu": "", "pytorch-gpu-tf32": ""}

    def times(batch: int, number: int) -> float:
        own, *peers = milliseconds[batch]
        return (own, own + 1, *peers)[number] / 1000

    return {
        "contenders": [
            {"name": name, "engine": engine or name, "from_host": "host" in name} for name, engine in names.items()
        ],
        "batches": [
            {
                "batch": batch,
                "times": {
                    name: {
                        "median": times(batch, number),
                        "of_ours": times(batch, number) / times(batch, 0),
                        "images_s": batch / times(batch, number),
                        "error": 1e-6,
                    }
                    for number, name in enumerate(names)
                },
            }
            for batch in milliseconds
        ],
    }


RUNS = {
    "float32": timed("float32", {1: (1.0, 1.0, 0.9), 8: (2.0, 3.0, 2.5), 64: (20.0, 18.0, 9.0)}),
    "tf32x3": timed("tf32x3", {64: (15.0, 18.0, 9.0)}),
    "tf32": timed("tf32", {64: (10.0, 18.0, 9.0)}),
    "bfloat16": {"error": "status 1: ours and the float64 definition disagree"},
}


def test_bars_are_the_peers_time_over_ours_in_the_run_of_their_precision(scripts: SimpleNamespace) -> None:
    bars = scripts.check.measured(RUNS)
    assert [(bar.precision, bar.batch, bar.peer, bar.least) for bar in bars] == [
        ("float32", 1, "pytorch-gpu", 1.0),
        ("float32", 8, "pytorch-gpu", 1.0),
        ("float32", 64, "pytorch-gpu", 1.0),
        ("tf32x3", 64, "pytorch-gpu", 1.5),
        ("tf32", 64, "pytorch-gpu-tf32", 0.8),
    ]
    assert [bar.found for bar in bars] == pytest.approx([1.0, 1.5, 0.9, 1.2, 0.9])
    assert [bar.is_met for bar in bars] == [True, True, False, False, True]
    assert [bar.is_aim for bar in bars] == [False, False, False, True, False]
    assert [bar.found for bar in scripts.check.measured({"float32": {"error": "it failed"}})] == [None] * 5
    alone = {**RUNS["tf32"], "contenders": RUNS["tf32"]["contenders"][:2]}
    assert scripts.check.measured({"tf32": alone})[-1].found is None


def found(scripts: SimpleNamespace, **changes: Any) -> dict[str, Any]:
    """What gpu_check.py writes."""
    data: dict[str, Any] = {"device": "NVIDIA H200", "tests": {"ok": ""}, "sanitizer": {"ok": ""}, "runs": RUNS}
    data |= changes
    return {**data, "bars": [scripts.check.asdict(bar) for bar in scripts.check.measured(data["runs"])]}


def test_all_is_well_where_nothing_failed_and_only_an_aim_is_missed(scripts: SimpleNamespace) -> None:
    fast = timed("float32", dict.fromkeys((1, 8, 64), (1.0, 1.0, 1.0)))
    good = {**RUNS, "float32": fast, "bfloat16": RUNS["tf32x3"]}
    well = scripts.check.is_well
    assert well(found(scripts, runs=good))
    assert well(found(scripts, runs=good, sanitizer=None, tests=None))
    assert well({**found(scripts, runs={}), "bars": []})
    assert not well(found(scripts, runs={**good, "float32": RUNS["float32"]}))
    assert not well(found(scripts, runs={**good, "bfloat16": RUNS["bfloat16"]}))
    assert not well(found(scripts, runs=good, sanitizer={"error": "racecheck: status 9"}))
    assert not well(found(scripts, runs=good, tests={"error": "status 1: 1 failed"}))


def test_one_part_that_fails_does_not_hide_the_others(
    scripts: SimpleNamespace, gpu: EmulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def fails(command: list[str], **_: Any) -> Any:
        ran.append(command)
        return SimpleNamespace(returncode=3, stdout="first\nlast\n")

    monkeypatch.setattr(scripts.check.subprocess, "run", fails)
    monkeypatch.setattr(scripts.check, "find_sanitizer", lambda: Path("/x/compute-sanitizer"))
    output = tmp_path / "o.json"
    with pytest.raises(SystemExit) as ended:
        scripts.check.main(["--output", str(output)], standalone_mode=False)
    assert ended.value.code == 1
    data = json.loads(output.read_text())
    assert data["tests"] == {"error": "status 3: last"}
    assert data["sanitizer"]["racecheck"] == {"error": "status 3: last"}
    failed = {"error": "status 3: last"}
    assert data["runs"] == dict.fromkeys(("float32", "tf32x3", "tf32", "bfloat16"), failed)
    assert len(ran) == 1 + 4 + 4
    assert all(not scripts.check.Bar(**bar).is_met for bar in data["bars"])


def test_the_bench_of_a_precision_is_a_line_that_bench_takes(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(command: list[str], environment: Any) -> Any:
        line = command[command.index("bench") :]
        Path(line[-1]).write_text(json.dumps({"line": line[:-2]}))
        return {"ok": ""}

    monkeypatch.setattr(scripts.check, "_ran", ran)
    line = scripts.check.bench("tf32")["line"]
    assert " ".join(line) == (
        "bench --variant resnet_v1_50 --device gpu --precision tf32 --peers --profile "
        "--batch 1 --batch 8 --batch 64 --starts 1"
    )
    from resnet_ref.cli.bench import bench

    bench.make_context("bench", line[1:])
    done = subprocess.run(
        [sys.executable, "-c", scripts.check.COMMAND, "bench", "--help"], capture_output=True, text=True
    )
    assert "--device" in done.stdout


def test_a_sanitizer_that_is_not_there_is_a_failure_that_says_what_to_do(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    tool = tmp_path / "cuda" / "compute-sanitizer" / "compute-sanitizer"
    tool.parent.mkdir(parents=True)
    tool.touch(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert scripts.check.find_sanitizer() == tool
    monkeypatch.setattr(scripts.check, "find_sanitizer", lambda: None)
    assert "--no-sanitizer" in scripts.check.sanitizer()["error"]


def test_the_summary_shows_every_time_and_every_bar(scripts: SimpleNamespace) -> None:
    lines = scripts.check.summary(found(scripts, sanitizer=None)).splitlines()
    assert lines[:2] == ["tests: ok", "sanitizer: left out"]
    rows = [line.split() for line in lines]
    assert ["float32", "8", "2.000", "4000", "3.000", "3.000", "2.500", "1.0e-06"] in rows
    assert "bfloat16: status 1: ours and the float64 definition disagree" in lines
    assert ["tf32x3", "against", "pytorch-gpu", "64", "1.5", "1.20", "missed,", "an", "aim"] in rows
    assert ["float32", "against", "pytorch-gpu", "64", "1.0", "0.90", "MISSED"] in rows
    assert ["tf32", "against", "pytorch-gpu-tf32", "64", "0.8", "0.90", "met"] in rows


def test_readmes_table_is_made_of_results_or_says_that_there_are_none(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = scripts.table
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    assert table.gpu_tables() == table.NO_GPU
    assert "Not measured yet" in table.NO_GPU
    assert (ROOT / "benchmarks" / "gpu_check.py").exists()
    assert "`python benchmarks/gpu_check.py`" in table.NO_GPU
    (tmp_path / "gpu_h200.json").write_text(json.dumps(found(scripts)))
    made = table.gpu_tables().splitlines()
    assert made[0].startswith("| resnet_v1_50, 224x224, NVIDIA H200 | ours | images/s | from host memory | PyTorch | ")
    assert made[3] == "| float32, batch 8 | 2.0 ms | 4000 | 3.0 ms (1.50) | 3.0 ms (1.50) | 2.5 ms (1.25) | 1e-06 |"
    assert len(made) == 2 + 5 + 2
    assert "The tests: nothing wrong. compute-sanitizer: nothing wrong." in made[-1]
    assert "bfloat16: not measured, status 1" in made[-1]
    assert "Slower than wanted: float32 at batch 64, tf32x3 at batch 64." in made[-1]


def test_readmes_tables_are_renewed_between_their_marks_alone(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = scripts.table
    monkeypatch.setattr(table, "tables", lambda: "cpu\n")
    monkeypatch.setattr(table, "gpu_tables", lambda: "gpu\n")
    old = f"a\n{table.START}x1\n{table.END}\nb\n{table.GPU_START}x2\n{table.GPU_END}\nc\n"
    assert table.renewed(old) == old.replace("x1", "cpu").replace("x2", "gpu")


def test_the_sanitizers_script_calls_every_kernel_and_finds_it_right(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpus(monkeypatch, check=True)
    called = scripts.once.check_kernels("float32", scripts.once.others)
    public = {name for name, value in vars(Tier).items() if callable(value) and not name.startswith("_")}
    assert called == public - {"load", "dtype", "conv2d"}


def test_the_sanitizers_script_sees_a_kernel_that_is_wrong(
    scripts: SimpleNamespace, gpu: EmulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calls(rng: np.random.Generator) -> Iterator[Any]:
        yield "spatial_mean", (rng.standard_normal((2, 3, 4, 5), np.float32),), {}

    monkeypatch.setattr(kernels, "for_numpy", lambda tier: SimpleNamespace(spatial_mean=lambda x: x[:, :1, :1, :] + 1))
    with pytest.raises(ResnetRefError, match=r"spatial_mean in float32 on \[\(2, 3, 4, 5\)\]: the largest error"):
        scripts.once.check_kernels("float32", calls)


@pytest.mark.parametrize("precision", PRECISIONS_OF["gpu"])
def test_the_sanitizers_script_runs_convolutions_and_whole_networks_in_every_precision(
    scripts: SimpleNamespace, gpu: EmulatedRuntime, precision: str
) -> None:
    assert scripts.once.check_kernels(precision, scripts.once.convolutions) == {"conv2d"}
    scripts.once.check_networks(precision)
