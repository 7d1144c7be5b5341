"""What is made of the results of gpu_check.py: bars, a summary, README's table, the site's; and gpu_kernels_once.py.

How it runs its parts: test_gpu_check_runner.py; what they measure: test_gpu_check_parts.py."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_results
import numpy as np
import pytest
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_results import figures, gpu_kernels_once, readme_table, summary
from gpu_results import folder as files
from tiers import Gpus, why_no_gpu

from resnet_ref import ResnetRefError, kernels
from resnet_ref.kernels import Tier
from resnet_ref.plan.offer import PRECISIONS_OF

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> EmulatedRuntime:
    return Gpus(monkeypatch)[0]


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--output", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gpu_check: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_without_the_package_the_check_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('No module named numba')")
    (tmp_path / "resnet_ref.py").write_text("import numba")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "gpu_check: No module named numba; in the checkout, `pip install .` installs this package and what it needs\n"
    )


def remade(path: Path, milliseconds: dict[tuple[str, str, int], float]) -> Path:
    """A folder of results with other times: by part, precision and batch."""
    gpu_results.lay_all(path)
    for (part, precision, batch), taken in milliseconds.items():
        file = path / part / f"network_{precision}_{batch}.json"
        data = json.loads(file.read_text())
        data["graph"] = gpu_results.times(taken / 1000)
        file.write_text(json.dumps(data))
    return path


SLOW = {
    ("ours", "float32", 1): 1.0, ("pytorch", "float32", 1): 1.0,
    ("ours", "float32", 8): 2.0, ("pytorch", "float32", 8): 3.0,
    ("ours", "float32", 64): 20.0, ("pytorch", "float32", 64): 18.0,
    ("ours", "tf32x3", 64): 15.0,
    ("ours", "tf32", 64): 10.0, ("pytorch", "tf32", 64): 9.0,
}  # fmt: skip


def test_bars_are_pytorchs_time_over_ours(tmp_path: Path) -> None:
    folder = files.Folder(remade(tmp_path, SLOW))
    bars = figures.bars(folder)
    assert [(bar.precision, bar.batch, bar.peer, bar.least) for bar in bars] == [
        ("float32", 1, "float32", 1.0),
        ("float32", 8, "float32", 1.0),
        ("float32", 64, "float32", 1.0),
        ("tf32x3", 64, "float32", 1.5),
        ("tf32", 64, "tf32", 0.8),
    ]
    assert [bar.found for bar in bars] == pytest.approx([1.0, 1.5, 0.9, 1.2, 0.9])
    assert [bar.is_met for bar in bars] == [True, True, False, False, True]
    assert [bar.is_aim for bar in bars] == [False, False, False, True, False]
    for damage in ('{"failed": "differs"}', '{"graph": 3}', '{"graph": {"median": 0}}', "{"):
        (tmp_path / "pytorch" / "network_tf32_64.json").write_text(damage)
        assert figures.bars(folder)[-1].found is None


def test_all_is_well_where_every_part_is_and_only_an_aim_is_missed(tmp_path: Path) -> None:
    fast = {key: taken for key, taken in SLOW.items() if key[1:] != ("float32", 64)} | {
        ("ours", "float32", 64): 10.0, ("pytorch", "float32", 64): 10.0
    }  # fmt: skip
    folder = files.Folder(remade(tmp_path, fast))
    assert not figures.bars(folder)[3].is_met
    assert summary.all_asked_is_well(folder)
    folder.close("racecheck", files.Outcome("FAILED", "status 9"))
    assert not summary.all_asked_is_well(folder)
    assert figures.all_well(folder, ["ours", "tests"])
    assert not summary.all_asked_is_well(files.Folder(remade(tmp_path / "slow", SLOW)))


def test_the_summary_shows_every_time_every_bar_and_the_model(tmp_path: Path) -> None:
    folder = files.Folder(remade(tmp_path, SLOW))
    (tmp_path / "ours" / "network_bfloat16_8.json").write_text('{"failed": "ours and the definition disagree"}')
    lines = summary.text(folder).splitlines()
    rows = [line.split() for line in lines]
    assert lines[0] == "NVIDIA H200"
    assert ["float32", "8", "2.000", "4000", "3.000", "4.000", "3.000", "4.000", "4.000", "1.0e-06"] in rows
    assert "ours, network_bfloat16_8: FAILED, ours and the definition disagree" in lines
    assert ["tf32x3", "against", "PyTorch's", "float32", "64", "1.5", "1.20", "missed,", "an", "aim"] in rows
    assert ["float32", "against", "PyTorch's", "float32", "64", "1.0", "0.90", "MISSED"] in rows
    assert ["tf32", "against", "PyTorch's", "tf32", "64", "0.8", "0.90", "met"] in rows
    # Of the three layers two are of the kind whose second way is faster: 1 + 1 + 1 predicted, 3 + 3 + 1 and 2 + 2 + 1.
    assert ["tf32", "64", "3.000", "7.000", "5.000", "1", "of", "2", "kinds"] in rows


def test_readmes_table_is_made_of_results_or_says_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = readme_table
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    assert table.gpu_tables() == table.NO_GPU
    assert "Not measured yet" in table.NO_GPU
    assert (ROOT / "benchmarks" / "gpu_check.py").exists()
    assert "`python benchmarks/gpu_check.py`" in table.NO_GPU
    folder = remade(tmp_path / "gpu_h200", SLOW)
    (folder / "ours" / "network_bfloat16_64.json").write_text('{"failed": "status 1"}')
    (folder / "pytorch" / "network_bfloat16_1.json").unlink()
    files.Folder(folder).close("memcheck", files.Outcome("CUT", "ended"))
    (tmp_path / "gpu_that_never_measured").mkdir()
    made = table.gpu_tables().splitlines()
    assert made[0] == (
        "| resnet_v1_50, 224x224, NVIDIA H200 | ours | images/s | from host memory "
        "| PyTorch, float32 | PyTorch, tf32 | PyTorch, bfloat16 | error |"
    )
    own = "| float32, batch 8 | 2.0 ms | 4000 | 4.0 ms (2.00) | 3.0 ms (1.50) | 4.0 ms (2.00) | 4.0 ms (2.00) | 1e-06 |"
    assert made[3] == own
    assert made[2].endswith("| 4.0 ms (4.00) | - | 1e-06 |")
    assert len(made) == 2 + 11 + 2
    assert "The tests: nothing wrong. compute-sanitizer's memcheck: CUT. " in made[-1]
    assert "bfloat16 at batch 64: FAILED, status 1. Not measured: PyTorch's bfloat16 at batch 1. " in made[-1]
    assert "Slower than wanted: float32 at batch 64, tf32x3 at batch 64." in made[-1]


def test_the_pages_of_the_ladder_show_what_there_was_time_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx", reason="the pages are made by Sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    import ladder as pages

    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    assert pages.figures("gpu") == pages.NOT_MEASURED
    data = json.loads((ROOT / "benchmarks" / "results" / "ladder_cpu.json").read_text())
    rungs = [rung.name for rung in pages.ladder("gpu")]
    data["rungs"] = dict(zip(rungs, data["rungs"].values(), strict=False))
    data |= {"gpus": {"gpu": {"name": "NVIDIA H200"}}, "convolutions": 21, "of": 54}
    (tmp_path / "gpu_h200" / "ladder").mkdir(parents=True)
    (tmp_path / "gpu_h200" / "ladder" / "measured.json").write_text(json.dumps(data))
    made = pages.figures("gpu")
    assert "NVIDIA H200" in made
    assert "| 21 of 54 convolutions |" in made
    assert "*3453 ms, " in pages.rungs("gpu")
    assert pages.figures("cpu") == pages.NOT_MEASURED


def test_readmes_tables_are_renewed_between_their_marks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    table = readme_table
    monkeypatch.setattr(table, "tables", lambda: "cpu\n")
    monkeypatch.setattr(table, "gpu_tables", lambda: "gpu\n")
    monkeypatch.setattr(table, "ladder", lambda: "rungs\n")
    marks = [(table.START, table.END), (table.GPU_START, table.GPU_END), (table.LADDER_START, table.LADDER_END)]
    old = "a\n" + "".join(f"{start}x{number}\n{end}\nb\n" for number, (start, end) in enumerate(marks))
    assert table.renewed(old) == old.replace("x0", "cpu").replace("x1", "gpu").replace("x2", "rungs")


def test_the_sanitizers_script_calls_every_kernel_and_finds_it_right(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(monkeypatch, check=True)
    called = gpu_kernels_once.check_kernels("float32", gpu_kernels_once.others)
    public = {name for name, value in vars(Tier).items() if callable(value) and not name.startswith("_")}
    assert called == public - {"load", "dtype", "conv2d"}


def test_the_sanitizers_script_sees_a_kernel_that_is_wrong(
    gpu: EmulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calls(rng: np.random.Generator) -> Iterator[Any]:
        yield "spatial_mean", (rng.standard_normal((2, 3, 4, 5), np.float32),), {}

    monkeypatch.setattr(kernels, "for_numpy", lambda tier: SimpleNamespace(spatial_mean=lambda x: x[:, :1, :1, :] + 1))
    with pytest.raises(ResnetRefError, match=r"spatial_mean in float32 on \[\(2, 3, 4, 5\)\]: the largest error"):
        gpu_kernels_once.check_kernels("float32", calls)


@pytest.mark.parametrize("precision", PRECISIONS_OF["gpu"])
def test_the_sanitizers_script_runs_convolutions_and_whole_networks_in_every_precision(
    gpu: EmulatedRuntime, precision: str
) -> None:
    assert gpu_kernels_once.check_kernels(precision, gpu_kernels_once.convolutions) == {"conv2d"}
    gpu_kernels_once.check_networks(precision)
