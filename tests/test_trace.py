"""The life of a number: equal to what the network gave, re-summed within rounding, and followed down to the pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, TINY_PREPROCESSING, Run
from variables import random_variables

from resnet_ref import ShapeError, load_model, save_weights
from resnet_ref.accuracy import EPS
from resnet_ref.eager import Eager
from resnet_ref.handle import Handle
from resnet_ref.images import read_image
from resnet_ref.model import Model
from resnet_ref.network import Network
from resnet_ref.tracing.graph import traced
from resnet_ref.tracing.life import as_map, life
from resnet_ref.tracing.receptive_field import receptive_field
from resnet_ref.tracing.web import web

ATROUS = {"function": "resnet_v1_50", "scope": "dense", "num_classes": 4, "depth_multiplier": 0, "min_base_depth": 3,
          "output_stride": 8}  # fmt: skip
BOUNDED = {**TINY, "scope": "bounded", "arg_scope": {"use_bounded_activations": True, "batch_norm_epsilon": 1e-2}}
BIASES = {**TINY, "scope": "biases", "arg_scope": {"use_batch_norm": False}}
NETWORKS = {"tiny": TINY, "atrous": ATROUS, "bounded": BOUNDED, "biases": BIASES}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    for name, call in NETWORKS.items():
        variables = random_variables(Network.from_json(call).variables())
        save_weights(folder / f"{name}.h5", variables, call, preprocessing=TINY_PREPROCESSING)
    return {name: folder / f"{name}.h5" for name in NETWORKS}


def prepared(model: Model, file: Path) -> Any:
    assert model.preprocessing is not None
    return model.preprocessing(read_image(file))


@pytest.mark.parametrize("device", ["definition", "cpu"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_value_is_the_networks_and_its_products_sum_to_it(
    files: dict[str, Path], photos: list[Path], network: str, device: str
) -> None:
    """Random positions, corners and edges of every end point; each step after the sum is equal to the last bit."""
    model = load_model(files[network], device=device)
    image = prepared(model, photos[1])
    names = list(model.end_points(*image.shape[:2]))
    eager = Eager(model.tier, model.weights, model.dtype)  # a plan fuses layers, and rounds elsewhere
    _, given = model.network.describe(Handle(eager, np.ascontiguousarray(image[None], model.dtype)))
    tracer, _ = traced(model, image, names[-1])
    rng = np.random.default_rng(5)
    padded = apart = 0
    for name in names:
        _, step = traced(model, image, name)
        height, width, depth = as_map(step.output).shape[1:]
        corners = [(0, 0), (height - 1, width - 1), (0, width - 1)]
        places = corners + [(int(rng.integers(height)), int(rng.integers(width))) for _ in range(3)]
        for y, x in places:
            at = (y, x, int(rng.integers(depth)))
            found = life(tracer, tracer.steps[step.number], at, 10**6)
            assert found.value == as_map(given[name])[(0, *at)], name
            if step.op == "conv2d":
                products = [one.product for one in found.inputs if one.product is not None]
                assert sum(sorted(products, key=abs)) == pytest.approx(found.total, rel=1e-12, abs=1e-12)
                assert found.taps is not None
                assert found.count == found.taps.padded.size * as_map(step.inputs[0].output).shape[3]
                assert len(products) == (~found.taps.padded).sum() * as_map(step.inputs[0].output).shape[3]
                padded += int(found.taps.padded.sum())
                apart = max(apart, *found.taps.rate)
                if found.network_sum is None:  # a bias is added inside the kernel, so its sum alone is not to be seen
                    last = list(found.stages.values())[-1]
                    allowed = found.bound + 2 * EPS * (abs(found.total) + abs(found.parts["bias"]))
                    assert abs(last - found.value) <= allowed
                    continue
            if found.network_sum is not None:
                assert abs(found.network_sum - found.total) <= found.bound
            assert list(found.stages.values())[-1] == found.value, (name, found)
    assert padded > 0
    assert apart == (4 if network == "atrous" else 1)


def test_a_convolutions_numbers_are_those_worked_out_by_hand(files: dict[str, Path], photos: list[Path]) -> None:
    """The corner of conv1 reads a 4x4 corner of the image, three rows and columns of padding before it."""
    model = load_model(files["tiny"], device="definition")
    image = prepared(model, photos[0])
    tracer, step = traced(model, image, "tiny/conv1")
    found = life(tracer, step, (0, 0, 5), 3)
    weights = model.weights["tiny/conv1/weights"].astype(np.float64)
    corner = image[:4, :4].astype(np.float64) * weights[3:, 3:, :, 5]
    assert found.total == pytest.approx(corner.sum(), rel=1e-12)
    assert found.taps is not None
    assert found.taps.rows.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert found.taps.padded.tolist() == [[y < 3 or x < 3 for x in range(7)] for y in range(7)]
    largest = np.unravel_index(np.argmax(np.abs(corner)), corner.shape)
    assert found.inputs[0].at == tuple(largest)
    assert found.inputs[0].product == corner[largest]


@pytest.mark.parametrize("name", ["tiny/conv1", "tiny/pool1", "tiny/block1/unit_2/bottleneck_v1", "tiny/block2"])
def test_a_receptive_field_is_what_a_change_of_pixels_can_reach(
    files: dict[str, Path], photos: list[Path], name: str
) -> None:
    """A change outside of it changes nothing; a change of its outer rows and columns does."""
    model = load_model(files["tiny"], device="definition")
    image = prepared(model, photos[2])
    _, step = traced(model, image, name)
    height, width, _ = as_map(step.output).shape[1:]
    for at in ((0, 0), (height // 2, width // 2), (height - 1, width - 1)):
        field = receptive_field(step, (*at, 0))
        mask = np.zeros(image.shape[:2], bool)
        mask[field.top : field.bottom + 1, field.left : field.right + 1] = True
        rng = np.random.default_rng(1)
        outside = np.where(mask[..., None], image, rng.normal(0, 60, image.shape).astype(np.float32))
        _, changed = traced(model, outside, name)
        np.testing.assert_array_equal(changed.output[0, at[0], at[1]], step.output[0, at[0], at[1]])
        for edge in (np.s_[field.top], np.s_[field.bottom], np.s_[:, field.left], np.s_[:, field.right]):
            edges = np.zeros_like(mask)
            edges[edge] = True
            inside = image.copy()
            inside[edges & mask] += 500
            _, changed = traced(model, inside, name)
            assert (changed.output[0, at[0], at[1]] != step.output[0, at[0], at[1]]).any(), edge


def test_whoever_follows_the_first_inputs_arrives_at_a_pixel(files: dict[str, Path], photos: list[Path]) -> None:
    model = load_model(files["tiny"], device="cpu")
    tracer, step = traced(model, prepared(model, photos[0]), "predictions")
    found = web(tracer, step, (0, 0, 2), budget=120)
    assert 120 <= len(found.lives) < 200
    for key, one in found.lives.items():
        steps = 0
        while one.inputs:
            first = one.inputs[0]
            one = found.lives[(first.step.number, first.at)]
            steps += 1
        assert one.step.op == "images", key
        assert steps < 40
    assert set(found.users) == set(list(found.lives)[1:])


@pytest.mark.parametrize("at", [(-1, 0, 0), (0, 99, 0), (0, 0, 64)])
def test_a_position_outside_is_an_error_that_says_the_size(
    files: dict[str, Path], photos: list[Path], at: tuple[int, int, int]
) -> None:
    model = load_model(files["tiny"])
    tracer, step = traced(model, prepared(model, photos[0]), "tiny/conv1")
    with pytest.raises(ShapeError, match="15 rows, 13 columns, 64 channels"):
        life(tracer, step, at)


def test_a_name_that_is_not_there_is_an_error_with_the_nearest(files: dict[str, Path], photos: list[Path]) -> None:
    model = load_model(files["tiny"])
    with pytest.raises(ShapeError, match="tiny/block2"):
        traced(model, prepared(model, photos[0]), "tiny/blokc2")


def test_the_command_prints_the_value_and_how_it_came_about(run: Run, tiny_file: Path, photos: list[Path]) -> None:
    line = ("trace", photos[0], "--weights", tiny_file, "--end-point", "tiny/block1/unit_2/bottleneck_v1/conv2")
    model = load_model(tiny_file)
    name = "tiny/block1/unit_2/bottleneck_v1/conv2"
    _, given = model(prepared(model, photos[0])[None], end_points=[name])
    status, out, err = run(*line, "--at", 0, 0, 1)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    value = float(given[name][0, 0, 0, 1])
    assert lines[0] == f"{name} at row 0, column 0, channel 1 of 4x4x4: {value:.9g}"
    assert lines[-1].split() == ["the", "network", "gave", f"{value:.9g}"]
    assert "3x3 taps on tiny/block1/unit_2/bottleneck_v1/conv1; 5 on padding" in out
    assert "batch norm " in out
    data = json.loads(run(*line, "--at", 0, 0, 1, "--json")[1])
    assert (data["value"], data["op"], data["count"]) == (value, "conv2d", 27 + 9)
    assert data["receptive_field"].keys() == {"top", "left", "bottom", "right"}


@pytest.mark.parametrize(
    "arguments",
    [(), ("--end-point", "x"), ("--at", 0, 0, 0), ("--profile", "--end-point", "x", "--at", 0, 0, 0),
     ("--end-point", "tiny/conv1", "--at", 0, 0, 0, "--chrome", "x.json"), ("--end-point", "none", "--at", 0, 0, 0),
     ("--end-point", "tiny/conv1", "--at", 0, 0, 64)],
)  # fmt: skip
def test_wrong_use_is_one_line_and_status_2(
    run: Run, tiny_file: Path, photos: list[Path], arguments: tuple[Any, ...]
) -> None:
    status, out, err = run("trace", photos[0], "--weights", tiny_file, *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
