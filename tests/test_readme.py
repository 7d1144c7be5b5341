"""What README shows runs, and its figures are those that were measured."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import CASES
from PIL import Image
from variables import random_variables

from resnet_ref import resnet_v1, save_weights
from resnet_ref.handle import Handle
from resnet_ref.network import Network
from resnet_ref.shapes import Shapes, Spec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = Network("resnet_v1_50", {"num_classes": 1000})
    save_weights("resnet_v1_50.h5", random_variables(network.variables()), network.to_json())
    Image.fromarray(np.arange(90 * 70 * 3, dtype=np.uint8).reshape(90, 70, 3)).save("photo.jpg")
    tiny = Shapes()
    block = resnet_v1.resnet_v1_block("block1", base_depth=4, num_units=2, stride=2)
    resnet_v1.resnet_v1(Handle(tiny, Spec((1, 224, 224, 3))), [block], num_classes=11, scope="tiny_net")
    rng = np.random.default_rng(0)
    shown = {
        "images": rng.normal(0, 60, (2, 224, 224, 3)).astype(np.float32),
        "my_weights": random_variables(tiny.variables),
        "x": rng.standard_normal((2, 9, 12, 5), np.float32),
        "w": rng.standard_normal((3, 3, 5, 4), np.float32),
        "height": 9,
        "width": 12,
    }
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    for code in blocks:
        exec(code, shown)
    assert shown["probabilities"].shape == (2, 1000)
    assert shown["images"].shape == (1, 224, 224, 3)
    assert {name.split("/")[-1] for name in shown["updates"]} == {"moving_mean", "moving_variance"}
    assert shown["y"].shape == (2, 5, 6, 4)


def test_the_atrous_page_shows_what_im2col_gives():
    page = (ROOT / "kernels" / "conv2d" / "atrous.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shown: dict[str, object] = {}
    *setup, last = [line for line in code.splitlines() if not line.startswith("#")]
    exec("\n".join(setup), shown)
    rows = re.findall(r"\[(\d, \d, \d)\]", code)
    assert eval(last, shown).tolist() == [[float(v) for v in row.split(", ")] for row in rows]


def test_the_figures_are_those_in_benchmarks_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme_table

    assert readme_table.renewed(README) == README, "run python benchmarks/readme_table.py"
    assert f"each of {len(CASES)} networks" in README
    runs = [json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("bench_*.json")]
    assert runs
    for run in runs:
        names = " | ".join(contender["name"] for contender in run["contenders"])
        assert f"{run['threads']} threads | {names} |" in README
        for batch in run["batches"]:
            ours, *peers = batch["times"].values()
            milliseconds = 1000 * ours["median"]
            shown = f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
            assert f"| batch {batch['batch']} | {shown} ms | " in README
            assert all(f" ({peer['median'] / ours['median']:.2f})" in README for peer in peers)


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a Unix shell")
def test_ci_runs_the_commands_that_readme_shows():
    script = (ROOT / ".ci" / "run").read_text()
    for name in ("main", "tests", "docs"):
        assert f"<!-- command: {name} -->" in README
        assert f"readme {name}" in script
