"""benchmarks/gpu_check.py and what it runs and makes: its bars, its parts, README's table, the sanitizer's script."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.runtime import EmulatedRuntime
from tiers import Gpus, why_no_gpu

from resnet_ref import ResnetRefError, kernels
from resnet_ref.kernels import Tier
from resnet_ref.plan.offer import PRECISIONS_OF

ROOT = Path(__file__).parents[1]
SMALL = {"rounds": 1, "repeats": 2}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> EmulatedRuntime:
    return Gpus(monkeypatch)[0]


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
    ok = {part: {"ok": ""} for part in ("tests", "sanitizer", "ladder")}
    data: dict[str, Any] = {"device": "NVIDIA H200", **ok, "runs": RUNS, **changes}
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
    assert not well(found(scripts, runs=good, ladder={"error": "status 1: coalesced is wrong"}))


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
    assert data["ladder"] == failed
    assert len(ran) == 1 + 4 + 4 + 1
    assert ran[-1][-2:] == ["-o", str(tmp_path / "ladder_o.json")]
    assert all(not scripts.check.Bar(**bar).is_met for bar in data["bars"])


def test_the_bench_of_a_precision_and_the_ladder_are_lines_that_bench_takes(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    scripts.check.ladder(tmp_path / "ladder.json")
    bench.make_context("bench", json.loads((tmp_path / "ladder.json").read_text())["line"][1:])
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
    assert lines[:3] == ["tests: ok", "sanitizer: left out", "ladder: ok"]
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
    monkeypatch.setattr(table, "ladder", lambda: "rungs\n")
    marks = [(table.START, table.END), (table.GPU_START, table.GPU_END), (table.LADDER_START, table.LADDER_END)]
    old = "a\n" + "".join(f"{start}x{number}\n{end}\nb\n" for number, (start, end) in enumerate(marks))
    assert table.renewed(old) == old.replace("x0", "cpu").replace("x1", "gpu").replace("x2", "rungs")


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
