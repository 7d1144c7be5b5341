"""`resnet-ref bench`: what it prints and keeps, in which order it runs, and what it says when something is wrong."""

import dataclasses
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from resnet_ref import errors
from resnet_ref.bench import agreement, comparison, contenders, files, process, serve, turns
from resnet_ref.bench.process import Outputs
from resnet_ref.kernels.vector.isa import available
from resnet_ref.kernels.vector.peak import fma_peak

SHORT = ("--threads", 1, "--rounds", 2, "--starts", 0)


def bench(run: Run, *arguments: object) -> tuple[int, Any, str]:
    """Status, what stdout holds as JSON (None for nothing), stderr."""
    status, out, err = run("bench", *arguments, "--json")
    return status, json.loads(out) if out else None, err


def test_ours_alone_is_timed_and_compared_with_the_definition(run: Run, tiny_file: Path) -> None:
    options = ("--weights", tiny_file, "--batch", 1, "--batch", 3, *SHORT)
    status, data, err = bench(run, *options)
    assert (status, err) == (0, "")
    assert data["command"] == f"resnet-ref bench {' '.join(map(str, options))} --json"
    assert data["network"]["scope"] == "tiny"
    assert (data["size"], data["threads"], data["rounds"], data["starts"]) == ([29, 26], 1, 2, {})
    assert [batch["batch"] for batch in data["batches"]] == [1, 3]
    one, three = data["batches"]
    assert three["flops"] == 3 * one["flops"]
    times = one["times"]["ours"]
    assert len(times["seconds"]) == 100
    assert times["quartiles"][0] <= times["median"] <= times["quartiles"][1]
    assert times["median"] == pytest.approx(np.median(times["seconds"]))
    assert times["gflops"] == pytest.approx(one["flops"] / times["median"] / 1e9)
    assert times["of_ours"] == 1
    assert 0 < times["error"] < 1e-5
    assert data["versions"].keys() >= {"python", "numpy", "numba", "resnet-ref"}
    assert data["peaks"]["cpu"]["copy_gb_s"] is None
    assert times["of_peak"] == pytest.approx(times["gflops"] / data["peaks"]["cpu"]["gflops"])
    assert three["times"]["ours"]["images_s"] == pytest.approx(3 / three["times"]["ours"]["median"])
    assert data["gpus"] == {}
    assert data["hardware"]["cores"] >= 1
    assert (data["hardware"]["memory"] or 1 << 30) > 1 << 20  # Windows does not tell


def test_the_text_has_a_row_for_each_contender_of_ours(run: Run, tiny_file: Path) -> None:
    line = ("bench", "--weights", tiny_file, "--size", 20, 31, "--algorithm", "auto", *SHORT)
    status, out, err = run(*line, "--ours", "device=definition", "--ours", "algorithm=direct")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("resnet_v1, images [N, 20, 31, 3], 1 thread of ")
    table = lines.index(next(line for line in lines if line.startswith("batch 1")))
    assert lines[table + 1].startswith("ours algorithm=auto device=definition  ")
    assert lines[table + 2].startswith("ours algorithm=direct  ")
    milliseconds, images_s, of_ours = (float(lines[table + 1].split()[column]) for column in (3, 7, 8))
    assert of_ours == 1
    assert images_s == pytest.approx(1000 / milliseconds, rel=0.1)


def test_a_profile_shows_what_every_step_takes_in_the_whole_network(run: Run, tiny_file: Path) -> None:
    status, data, err = bench(run, "--weights", tiny_file, "--batch", 2, "--profile", *SHORT)
    assert (status, err) == (0, "")
    (profile,) = data["profiles"]
    assert (profile["contender"], profile["batch"]) == ("ours", 2)
    steps = profile["steps"]
    assert sum(step["flops"] for step in steps) == data["batches"][0]["flops"]
    assert all(step["seconds"] >= 0 for step in steps)
    whole = sum(step["seconds"] for step in steps)
    assert whole > 0
    status, out, _ = run("bench", "--weights", tiny_file, "--profile", *SHORT)
    assert status == 0
    lines = [line.split() for line in out[out.index("ours, batch 1") :].splitlines()]
    assert [line[0] for line in lines[1:-1]] == [step["layer"].split()[0] for step in steps]
    assert lines[-1][0] == "sum"


def test_a_profile_of_nothing_on_the_cpu_is_refused_before_anything_is_timed(run: Run, tiny_file: Path) -> None:
    status, data, err = bench(run, "--weights", tiny_file, "--ours", "device=definition", "--profile", *SHORT)
    assert (status, data) == (2, None)
    assert "--profile is about cpu and gpu" in err


@pytest.mark.peers
def test_peers_run_beside_ours_on_another_output_stride(run: Run, tiny_file: Path, tmp_path: Path) -> None:
    peers = ("onnxruntime", "openvino", "openvino-bf16")
    asked = [word for peer in peers for word in ("--peer", peer)]
    kept = tmp_path / "bench.json"
    status, data, err = bench(
        run, "--weights", tiny_file, "--output-stride", 4, "--batch", 2, *asked, *SHORT, "-o", kept
    )
    assert (status, err) == (0, "")
    assert json.loads(kept.read_text()) == data
    assert data["network"]["output_stride"] == 4
    times = data["batches"][0]["times"]
    assert list(times) == ["ours", *peers]
    assert len({len(one["seconds"]) for one in times.values()}) == 1
    assert all(one["error"] < 1e-5 for name, one in times.items() if name != "openvino-bf16")
    assert [one["name"] for one in data["contenders"] if not one["exact"]] == ["openvino-bf16"]
    assert times["openvino"]["of_ours"] == pytest.approx(times["openvino"]["median"] / times["ours"]["median"])
    assert data["versions"].keys() >= {"onnx", "onnxruntime", "openvino"}


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.oracle
def test_all_peers_with_their_starts(run: Run, tiny_file: Path) -> None:
    status, out, err = run("bench", "--weights", tiny_file, "--peers", "--rounds", 1, "--starts", 1)
    assert (status, err) == (0, "")
    table = out[out.index("a new process") :].splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in table[1 : table.index("")]}
    absent = {} if find_spec("torch") else {"pytorch"}
    assert rows.keys() == {"ours", "onnxruntime", "openvino", "pytorch", "tensorflow"} - set(absent)
    assert float(rows["ours"][1]) > float(rows["ours"][0]) > 0, "with nothing compiled it takes longer"
    assert all(cells[1] == "-" for name, cells in rows.items() if name != "ours")
    assert int(rows["onnxruntime"][2]) > 20
    assert all(f"{name} is not installed" in out for name in absent)


@pytest.mark.peers
def test_a_peer_that_computes_something_else_ends_it_before_anything_is_timed(
    run: Run, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(given: files.Files, who: Any) -> None:
        from resnet_ref.bench.onnx_graph import write_onnx

        weights = dict(given.weights)
        weights["tiny/logits/biases"] = weights["tiny/logits/biases"] + np.float32(0.01)
        write_onnx(given.network, weights, given.size, given.network_file(who[1]))

    monkeypatch.setattr(comparison, "make_network_files", wrong)
    monkeypatch.setattr(turns, "take_turns", None)
    output = tmp_path / "o.json"
    status, out, err = run("bench", "--weights", tiny_file, "--peer", "onnxruntime", *SHORT, "-o", output)
    assert (status, out) == (1, "")
    assert "onnxruntime and the float64 definition disagree: the largest difference at the logits is 0.01" in err
    assert len(err.splitlines()) == 1
    assert not output.exists()


def outputs(*logits: float) -> Outputs:
    values = np.array([logits], np.float32)
    with np.errstate(invalid="ignore"):
        return Outputs(np.exp(values) / np.exp(values).sum(), values)


def test_any_two_must_agree_and_both_are_named() -> None:
    true = outputs(1, 2, 3)
    agreement.require_agreement({"a": outputs(1, 2, 3), "b": outputs(1, 2, 3.0002)}, true)
    with pytest.raises(errors.VerificationError, match=r"b and the float64 definition disagree.*logits is 0.0004"):
        agreement.require_agreement({"a": outputs(1, 2, 3), "b": outputs(1, 2, 3.0004)}, true)
    # Between the first image and the last, which alone the definition computes.
    a, b = (Outputs(np.ones((3, 1)), np.array([[5.0], [middle], [4.0]])) for middle in (5.0, 5.1))
    with pytest.raises(errors.VerificationError, match="a and b disagree"):
        agreement.require_agreement({"a": a, "b": b}, Outputs(np.ones((2, 1)), np.array([[5.0], [4.0]])))


def test_the_last_image_of_a_batch_is_compared_with_the_definition(tiny_file: Path, tmp_path: Path) -> None:
    given = files.prepare(tmp_path, files.wanted(tiny_file, None, None, None, 224))
    true = agreement.truth(given, 4)
    assert len(true.result) == 2
    assert true.logits is not None
    one = agreement.truth(given, 1)
    np.testing.assert_allclose(true.result[:1], one.result, rtol=1e-12)
    right = np.concatenate([true.logits[:1], true.logits[:1], true.logits])
    good = Outputs(np.concatenate([true.result[:1], true.result[:1], true.result]), right)
    agreement.require_agreement({"a": good}, true)
    wrong = good._replace(logits=np.concatenate([right[:3], right[3:] + 0.1]))
    assert agreement.error(wrong, true) > 0.001
    with pytest.raises(errors.VerificationError, match="a and the float64 definition disagree"):
        agreement.require_agreement({"a": wrong}, true)


@pytest.mark.parametrize(
    ("precision", "bound"),
    [("float32", 1e-4), ("tf32x3", 1e-4), ("bf16x6", 1e-4), ("bf16x3", 8 / 2**16), ("tf32", 1 / 2**8),
     ("bfloat16", 1 / 2**5)],
)  # fmt: skip
def test_fewer_bits_may_err_by_as_much_as_these_explain_and_no_more(precision: str, bound: float) -> None:
    assert agreement.allowed(precision) == bound
    true = outputs(1, 2, 3)
    near, far = (outputs(1, 2, 3 * (1 + times * bound)) for times in (0.9, 1.2))
    agreement.require_agreement({"a": near}, true, {"a": precision})
    precisions = {"a": precision, "exact": "float32"}
    agreement.require_agreement({"a": near, "exact": true}, true, precisions)
    agreement.require_agreement({"exact": true, "a": near}, true, precisions)
    with pytest.raises(errors.VerificationError, match="a and the float64 definition disagree"):
        agreement.require_agreement({"a": far, "exact": true}, true, {"a": precision})


def test_two_that_compute_in_fewer_bits_are_compared_with_each_other_too() -> None:
    a, b = (Outputs(np.ones((3, 1)), np.array([[5.0], [middle], [4.0]])) for middle in (5.0, 6.0))
    with pytest.raises(errors.VerificationError, match="a and b disagree"):
        agreement.require_agreement(
            {"a": a, "b": b}, Outputs(np.ones((2, 1)), np.array([[5.0], [4.0]])), {"a": "tf32", "b": "bfloat16"}
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_agrees_with_nothing(value: float) -> None:
    with pytest.raises(errors.VerificationError, match="a and the float64 definition disagree"):
        agreement.require_agreement({"a": outputs(1, 2, value)}, outputs(1, 2, 3))


def test_shapes_that_differ_are_a_disagreement_and_zeros_prove_nothing() -> None:
    with pytest.raises(errors.VerificationError, match=r"shapes \[1, 2\] and \[1, 3\]"):
        agreement.require_agreement({"a": outputs(1, 2)}, outputs(1, 2, 3))
    with pytest.raises(errors.VerificationError, match="all zero"):
        agreement.require_agreement({"a": outputs(0, 0)}, outputs(0, 0))


def test_the_result_alone_is_compared_too() -> None:
    a = outputs(1, 2, 3)
    with pytest.raises(errors.VerificationError, match="disagree: the largest difference at the result"):
        agreement.require_agreement({"a": a._replace(result=a.result[:, ::-1])}, a)


class Fake:
    """Stands for a process that takes `seconds` a run."""

    def __init__(self, name: str, seconds: float, log: list[tuple[str, int, int]]) -> None:
        self.name, self.taken, self.log = name, seconds, log

    def runs(self, count: int, warm: int) -> list[float]:
        self.log.append((self.name, count, warm))
        return [self.taken] * count


@pytest.mark.parametrize(
    ("slowest", "count", "pause"), [(0.0001, 50, 0.25), (0.025, 10, 0.25), (0.2, 5, 0.4), (9, 5, 1)]
)
def test_turns_alternate_with_a_pause_before_each(
    monkeypatch: pytest.MonkeyPatch, slowest: float, count: int, pause: float
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    log: list[tuple[str, int, int]] = []
    fakes: Any = [Fake("a", slowest / 2, log), Fake("b", slowest, log)]
    steps: list[int] = []
    taken = turns.take_turns(fakes, 3, lambda: steps.append(1))
    assert [entry[0] for entry in log[2:]] == ["a", "b", "b", "a", "a", "b"]
    assert {entry[1:] for entry in log[2:]} == {(count, 2)}
    assert slept == [pytest.approx(pause)] * 6
    assert len(steps) == 6
    assert taken == [[slowest / 2] * 3 * count, [slowest] * 3 * count]


def test_a_peers_process_loads_nothing_of_ours() -> None:
    code = f"import runpy, sys; runpy.run_path({serve.__file__!r}); print('resnet_ref' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; print('out of luck', file=sys.stderr); sys.exit(7)", "ended with status 7. out of luck"),
        ("import os; os.abort()", "ended with status -6"),
        ('print(\'{"error": "no such thing"}\')', "ours: no such thing"),
        ("print('{}', flush=True)", "ended with status 0"),
    ],
)
def test_a_process_that_fails_is_named_with_what_it_said(
    run: Run, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    (tmp_path / "serve.py").write_text(code)
    monkeypatch.setattr(process, "_SERVE", tmp_path / "serve.py")
    status, out, err = run("bench", "--weights", tiny_file, *SHORT)
    assert (status, out) == (2, "")
    assert expected in err
    assert len(err.splitlines()) == 1


def test_a_peer_that_is_not_installed_is_named(
    run: Run, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    status, out, err = run("bench", "--weights", tiny_file, "--peers", *SHORT)
    assert (status, err) == (0, "")
    assert "onnxruntime is not installed: no module onnxruntime, onnx; pip install 'resnet-ref[bench]'" in out
    assert "tensorflow is not installed" in out
    assert "pip install 'resnet-ref[oracle]'" in out
    assert "bf16" not in out
    status, data, _ = bench(run, "--weights", tiny_file, "--peers", *SHORT)
    assert data["not_installed"].keys() == {"onnxruntime", "openvino", "pytorch", "tensorflow"}
    status, out, err = run("bench", "--peer", "pytorch", "--peers")
    assert (status, out) == (2, "")
    assert "pytorch is not installed: no module torch" in err


def test_a_peer_that_cannot_be_imported_is_named(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = files.prepare(tmp_path, files.wanted(tiny_file, None, None, None, 224))
    (tmp_path / "torch.py").write_text("raise ImportError('libsomething.so is missing')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(errors.BenchError, match=r"pytorch cannot be imported: libsomething.so is missing; install"):
        files.make_network_files(given, [contenders.Contender("pytorch", "pytorch")])


def test_images_begin_alike_at_any_batch_and_come_as_each_contender_takes_them(tiny_file: Path, tmp_path: Path) -> None:
    given = files.prepare(tmp_path, files.wanted(tiny_file, None, None, (5, 4), 224))
    assert given.images(3).shape == (3, 5, 4, 3)
    np.testing.assert_array_equal(given.images(3)[:1], given.images(1))
    turned = np.load(given.images_file(3, nchw=True))
    np.testing.assert_array_equal(turned.transpose(0, 2, 3, 1), np.load(given.images_file(3, nchw=False)))
    assert turned.flags.c_contiguous


def test_a_random_variant_says_something(tmp_path: Path) -> None:
    given = files.prepare(tmp_path, files.wanted(None, "resnet_v1_50", 16, (33, 35), 224))
    assert given.network.to_json() == {"function": "resnet_v1_50", "num_classes": 1000, "output_stride": 16}
    true = agreement.truth(given, 1)
    assert true.logits is not None
    assert 0.1 < np.abs(true.logits).max() < 100
    assert true.result.max() < 0.9, "softmax is not saturated, so that probabilities are worth comparing"
    changed = dataclasses.replace(given, deviation=2.0)
    assert agreement.error(agreement.truth(changed, 1), true) > 1e-3


def test_the_peak_of_multiply_adds_is_measured_for_each_instruction_set() -> None:
    assert all(0 < fma_peak(1, isa.name) < 1e6 for isa in available())
