"""The profile of a run: every kernel call with its arithmetic and memory, as a table, as data and as a Chrome trace."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from resnet_ref import load_model
from resnet_ref.tracing.profile import Call, Peak, profile


@pytest.mark.parametrize("device", ["definition", "cpu"])
def test_every_kernel_call_is_counted_with_its_flops_and_bytes(tiny_file: Path, device: str) -> None:
    model = load_model(tiny_file, device=device)
    images = np.random.default_rng(0).normal(0, 60, (2, 29, 26, 3)).astype(np.float32)
    found = profile(model, images, runs=2)
    shapes = model.network.shapes(2, 29, 26)
    convs = [layer for layer in shapes.layers if layer.op == "conv2d"]
    calls = [call for call in found.calls if call.kernel == "conv2d"]
    assert [(c.scope, c.flops, c.output) for c in calls] == [(x.scope, x.flops, x.output.shape) for x in convs]
    first = found.calls[0]
    assert first.bytes == 4 * (images.size + 7 * 7 * 3 * 64 + 2 * 15 * 13 * 64)
    assert len([call for call in found.calls if call.kernel == "batch_norm"]) == len(convs) - 1  # logits have biases
    assert {call.kernel for call in found.calls} >= {"max_pool2d", "add_relu", "spatial_mean", "softmax", "subsample"}
    assert all(call.seconds > 0 for call in found.calls)
    starts = [call.start for call in found.calls]
    assert starts == sorted(starts)
    assert found.peak.flops > 0
    assert found.peak.bytes > 0


def test_the_roof_is_arithmetic_or_memory_whichever_takes_longer() -> None:
    call = Call("conv2d", "a", (), (1,), flops=100, bytes=50, start=0.0, taken=1.0, seconds=1.0)
    assert Peak(flops=10, bytes=1000).roof(call) == 10
    assert Peak(flops=1000, bytes=5).roof(call) == 10
    assert call.intensity == 2


def test_the_command_writes_a_table_json_and_a_chrome_trace(
    run: Run, tiny_file: Path, photos: list[Path], tmp_path: Path
) -> None:
    line = ("trace", photos[0], "--weights", tiny_file, "--device", "cpu", "--profile", "--runs", 2)
    status, out, err = run(*line, "--chrome", tmp_path / "c.json")
    assert (status, err) == (0, "")
    assert "of the roof" in out
    assert "tiny/block2/unit_1/bottleneck_v1/conv2" in out
    events = json.loads((tmp_path / "c.json").read_text())["traceEvents"]
    kernels = [event for event in events if event["ph"] == "X"]
    assert kernels[0]["args"]["scope"] == "tiny/conv1"
    for before, after in itertools.pairwise(kernels):
        assert before["ts"] + before["dur"] <= after["ts"]
    data = json.loads(run(*line, "--json")[1])
    assert len(data["calls"]) == len(kernels)
    assert data["calls"][0]["share_of_roof"] > 0
