"""load_model on a gpu: every precision's end points against float64, arrays where they came from, and the commands.

The gpu is the emulated one, and a real one where there is one.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from accuracy import error
from conftest import Run
from cuda_on_cpu.runtime import EmulatedRuntime
from recordings import record_definition
from tiers import GPU_TIERS, Gpus, gpu_named, tier_named

from resnet_ref import DeviceError, ShapeError, kernels, load_model, load_weights
from resnet_ref.accuracy import COARSER, Rule
from resnet_ref.images import read_image
from resnet_ref.kernels.cuda.cupy_runtime import device_count
from resnet_ref.kernels.geometry import Window
from resnet_ref.plan.offer import PRECISIONS_OF

IMAGES = (np.random.default_rng(3).standard_normal((3, 29, 26, 3)) * 60).astype(np.float32)


@pytest.fixture(params=GPU_TIERS)
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return gpu_named(request.param, monkeypatch)


@pytest.mark.parametrize("precision", PRECISIONS_OF["gpu"])
def test_every_end_point_holds_the_rule_of_its_precision(gpu: Any, tiny_file: Path, precision: str) -> None:
    """Also from below: coarse products that err no more than float32 would not be coarse."""
    truth = load_model(tiny_file, device="definition", precision="float64")
    beside = load_model(tiny_file, device="definition")
    names = list(truth.end_points(29, 26))
    model = load_model(tiny_file, device="gpu", precision=precision)
    assert (model.precision, model.tier.device) == (precision, "gpu")
    assert f"on gpu in {precision}" in repr(model)
    wanted, found, other = (one(IMAGES, end_points=names)[1] for one in (truth, model, beside))
    rule, errors = Rule(precision=precision), {}
    for name in names:
        errors[name] = error(found[name], wanted[name])
        slim = error(other[name], wanted[name])
        near = float(np.abs(found[name] - other[name]).max() / np.abs(wanted[name]).max())
        shares = rule.shares(name, errors[name], slim, near, float(np.abs(wanted[name]).max()))
        assert max(shares["ours is right"], shares["they are near"]) <= 1, (name, shares)
    least = {"tf32": 2e-5, "bfloat16": 2e-4}.get(precision, 0.0)
    assert (least > 0) == (precision in COARSER)
    assert errors["tiny/logits"] > least


def test_images_on_the_device_give_results_there(gpu: Any, tiny_file: Path) -> None:
    model = load_model(tiny_file, device="gpu")
    want, wanted = model(IMAGES, end_points=["tiny/block1", "global_pool"])
    got, found = model(gpu.upload(IMAGES), end_points=["tiny/block1", "global_pool"])
    assert type(want) is np.ndarray
    for ours, value in ((got, want), *((found[name], value) for name, value in wanted.items())):
        assert gpu.owns(ours)
        np.testing.assert_array_equal(gpu.download(ours), value)
    again = model(gpu.upload(IMAGES[::-1].copy()))
    np.testing.assert_array_equal(gpu.download(got), want)  # not the memory that the next call writes
    np.testing.assert_array_equal(gpu.download(again), want[::-1])


def test_map_gives_what_calls_give_in_order(gpu: Any, tiny_file: Path) -> None:
    model = load_model(tiny_file, device="gpu")
    batches = [IMAGES[:1], IMAGES, IMAGES[1:2] * 2, IMAGES[:0], IMAGES[:, :20], IMAGES[2:]]
    for names in (None, ["global_pool"]):
        found = list(model.map(iter(batches), names))
        assert len(found) == len(batches)
        for got, images in zip(found, batches, strict=True):
            want = model(images, end_points=names)
            for ours, value in (
                [(got, want)]
                if names is None
                else [(got[0], want[0]), *zip(got[1].values(), want[1].values(), strict=True)]
            ):
                np.testing.assert_array_equal(ours, value)


def test_an_error_in_the_middle_of_map_comes_through_and_leaves_the_model_usable(gpu: Any, tiny_file: Path) -> None:
    model = load_model(tiny_file, device="gpu")
    results = model.map([IMAGES, IMAGES[..., :2]])
    with pytest.raises(ShapeError, match="images must be"):
        list(results)
    np.testing.assert_array_equal(next(model.map([IMAGES])), model(IMAGES))


def test_the_shipped_network_reads_the_shipped_digits(gpu: Any, digit_files: list[Path]) -> None:
    model = load_model(device="gpu")
    images = np.stack([model.preprocessing(read_image(file)) for file in digit_files])  # type: ignore[misc]
    assert [str(i) for i in model(images).argmax(axis=1)] == [file.name[6] for file in digit_files]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "bf16x6"}, "device 'gpu' computes in float32, tf32x3, tf32, bfloat16, not in 'bf16x6'"),
        ({"precision": "float64"}, 'device="definition" computes in float64 too'),
        ({"algorithm": "fast"}, "algorithm must be one of auto, tuned; got 'fast' on device 'gpu'"),
        ({"isa": "avx2"}, 'isa is for device "cpu"'),
        ({"device": "cpu", "precision": "tf32"}, 'device="gpu" computes in tf32 too'),
    ],
)
def test_what_a_gpu_does_not_have_is_an_error_that_says_who_has_it(
    gpu: Any, tiny_file: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DeviceError) as caught:
        load_model(tiny_file, **{"device": "gpu", **options})
    assert said in str(caught.value)


def test_auto_takes_the_gpu(gpu: Any, tiny_file: Path) -> None:
    assert load_model(tiny_file).tier.device == "gpu"
    assert load_model(tiny_file, precision="tf32").precision == "tf32"


def test_the_commands_run_on_it_and_say_which_precision_ran(
    gpu: Any, run: Run, tmp_path: Path, tiny_file: Path, photos: list[Path]
) -> None:
    file = tmp_path / "f.h5"
    common = ("--weights", tiny_file, "--device", "gpu")
    status, _, err = run("features", *photos, "-o", file, *common, "--precision", "bfloat16")
    assert (status, err) == (0, "")
    with h5py.File(file) as store:
        assert (store.attrs["device"], store.attrs["precision"]) == ("gpu", "bfloat16")
        assert store["global_pool"].shape[0] == len(photos)
    status, out, _ = run("classify", *photos, *common)
    assert status == 0
    status, plain, _ = run("classify", *photos, "--weights", tiny_file, "--device", "cpu")
    assert out == plain
    status, out, _ = run("summary", "--weights", tiny_file, "--plan", "--device", "gpu")
    assert status == 0
    assert "\nfloat32 on " in out
    status, out, _ = run(
        "summary", "--weights", tiny_file, "--plan", "--device", "gpu", "--precision", "tf32", "--json"
    )
    assert (json.loads(out)["device"], json.loads(out)["precision"]) == ("gpu", "tf32")
    status, out, _ = run("trace", photos[0], "--end-point", "tiny/block1", "--at", "1", "2", "3", *common, "--json")
    assert json.loads(out)["step"]
    status, _, err = run("trace", photos[0], "--profile", *common)
    assert (status, "bench --device gpu --profile" in err) == (2, True)


def test_verify_runs_in_each_precision_and_says_so(
    gpu: Any, run: Run, tmp_path: Path, tiny_file: Path, photos: list[Path]
) -> None:
    """Coarse products are allowed as much more as they are coarser, and not within what float32 is allowed."""
    file = record_definition(tmp_path / "r.h5", load_weights(tiny_file), photos, device="cpu")
    for precision in PRECISIONS_OF["gpu"]:
        status, out, err = run("verify", tiny_file, file, "--device", "gpu", "--precision", precision, "--json")
        assert (status, err) == (0, "")
        found = json.loads(out)
        assert (found["device"], found["precision"]) == ("gpu", precision)
        times = 4 * COARSER.get(precision, 1)
        assert f"at most {times} x slim's" in found["tolerance"]
        logits = next(row for row in found["end_points"] if row["name"] == "tiny/logits")
        assert (logits["shares"]["ours is right"] * times > 4) == (precision in COARSER)
    status, _, err = run("verify", tiny_file, file, "--device", "cpu", "--precision", "bfloat16")
    assert status == 2
    assert 'device "gpu" does in tf32x3 and tf32 and bfloat16' in err


def test_an_older_gpu_has_float32_alone(monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    gpu = Gpus(monkeypatch)[0]
    monkeypatch.setattr(gpu, "architecture", "sm_75")
    assert load_model(tiny_file, device="gpu").precision == "float32"
    for precision in PRECISIONS_OF["gpu"][1:]:
        with pytest.raises(DeviceError, match=f"is sm_75; precision '{precision}' needs sm_80"):
            load_model(tiny_file, device="gpu", precision=precision)


@pytest.mark.parametrize("name", GPU_TIERS)
@pytest.mark.parametrize("precision", PRECISIONS_OF["gpu"])
@pytest.mark.parametrize(("c", "f"), [(20, 72), (3, 5)])
def test_whole_numbers_are_convolved_exactly_in_each_precision(name: str, precision: str, c: int, f: int) -> None:
    """Products and sums of small whole numbers are exact in all of them, so that a fragment out of place shows."""
    rng = np.random.default_rng(8)
    x, w, bias = (rng.integers(-8, 9, shape).astype(np.float32) for shape in [(2, 9, 11, c), (3, 2, c, f), (f,)])
    rows, cols = Window(3, 2, 1, 1, 1), Window(2, 1, 2, 1, 1)
    want = kernels.on("definition").conv2d(x, w, rows, cols, bias=bias)
    np.testing.assert_array_equal(tier_named(name, precision).conv2d(x, w, rows, cols, bias=bias), want)


def test_tuned_ways_give_the_same_numbers_within_rounding(
    gpu: Any, tiny_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESNET_REF_CACHE_DIR", str(tmp_path / "cache"))
    want = load_model(tiny_file, device="gpu")(IMAGES[:1])
    for _ in range(2):  # timed, then remembered
        got = load_model(tiny_file, device="gpu", algorithm="tuned")(IMAGES[:1])
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_a_second_gpu_gives_the_numbers_of_the_first(
    gpu: Any, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET_REF_CACHE_DIR", str(tmp_path / "cache"))
    if isinstance(gpu, EmulatedRuntime):
        Gpus(monkeypatch, 2)
    elif device_count() < 2:
        pytest.skip("this machine has one GPU")
    want = load_model(tiny_file, device="gpu")(IMAGES)
    for algorithm in ("auto", "tuned"):
        got = load_model(tiny_file, device="gpu:1", algorithm=algorithm)(IMAGES)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
