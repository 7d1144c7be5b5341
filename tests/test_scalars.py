"""Numbers of NumPy are taken wherever Python's are, and leave no trace; bools and floats are no whole numbers."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from variables import random_variables

from resnet_ref import (
    Preprocessing,
    ShapeError,
    kernels,
    load_model,
    load_weights,
    resnet_utils,
    resnet_v1,
    save_weights,
)
from resnet_ref.kernels import geometry
from resnet_ref.kernels.scalars import real, whole
from resnet_ref.kernels.vector.executor import thread_count
from resnet_ref.network import Network

HUGE = 1 << 1100  # more than float holds
WHOLE = [int, np.int8, np.uint16, np.int32, np.int64, np.uint64, lambda n: np.array(n)]


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_number_of_any_kind_becomes_pythons(kind: Callable[[int], Any]) -> None:
    assert type(whole(kind(7))) is int
    assert whole(kind(7)) == 7
    assert real(kind(7)) == 7


@pytest.mark.parametrize("value", [True, False, np.True_, 7.0, np.float32(7), "7", None, [7], np.array([7]), 7j])
def test_nothing_else_is_a_whole_number(value: Any) -> None:
    assert whole(value) is None


@pytest.mark.parametrize(
    ("value", "number"), [(0.5, 0.5), (np.float32(0.5), 0.5), (np.float64(-2), -2.0), (Fraction(1, 4), 0.25)]
)
def test_a_real_number_of_any_kind_becomes_pythons(value: Any, number: float) -> None:
    assert type(real(value)) is float
    assert real(value) == number


@pytest.mark.parametrize("value", [True, np.False_, "0.5", None, 1j, [0.5], np.array([0.5]), HUGE, Fraction(HUGE)])
def test_nothing_else_is_a_real_number(value: Any) -> None:
    assert real(value) is None


@pytest.mark.parametrize("kind", WHOLE)
def test_windows_hold_pythons_numbers(kind: Callable[[int], Any]) -> None:
    made = [
        geometry.same(kind(9), kind(3), kind(2), kind(1)),
        geometry.valid(kind(3)),
        geometry.fixed(kind(3), kind(2)),
    ]
    assert made == [geometry.same(9, 3, 2), geometry.valid(3), geometry.fixed(3, 2)]
    assert {type(number) for window in made for number in window} == {int}


@pytest.mark.parametrize("kind", WHOLE)
def test_every_argument_of_a_network_takes_it_and_computes_the_same(kind: Callable[[int], Any]) -> None:
    images = np.random.default_rng(0).standard_normal((1, 40, 36, 3)).astype(np.float32)

    def run(number: Callable[[int], Any]) -> Any:
        blocks = [
            resnet_v1.resnet_v1_block("block1", base_depth=number(2), num_units=2, stride=number(2)),
            resnet_utils.Block(
                "block2",
                resnet_v1.bottleneck,
                [{"depth": number(12), "depth_bottleneck": number(3), "stride": number(2)}],
            ),
        ]
        described = {"function": "resnet_v1", "num_classes": number(5), "blocks": blocks}
        weights = random_variables(Network.from_json(described).variables())
        return resnet_v1.resnet_v1(
            images, blocks, number(5), is_training=False, output_stride=number(8), scope="resnet_v1", weights=weights
        )[0]

    np.testing.assert_array_equal(run(kind), run(int))
    np.testing.assert_array_equal(
        resnet_utils.subsample(images, kind(3), weights={}), resnet_utils.subsample(images, 3, weights={})
    )


@pytest.mark.parametrize("kind", WHOLE)
def test_a_saved_network_is_plain_data(kind: Callable[[int], Any], tmp_path: Path) -> None:
    data = {
        "function": "resnet_v1_50",
        "num_classes": kind(5),
        "depth_multiplier": np.float32(0.125),
        "channels": kind(1),
    }
    data["arg_scope"] = {"batch_norm_epsilon": np.float32(0.25), "batch_norm_decay": np.float64(0.5)}
    network = Network.from_json(data)
    prepared = {"name": "vgg", "resize_side": kind(40), "height": kind(33), "width": kind(36)}
    prepared["means"] = np.array([1, 2, 3], np.float32)
    save_weights(tmp_path / "w.h5", random_variables(network.variables()), data, preprocessing=prepared)
    read = load_weights(tmp_path / "w.h5")
    assert read.network == network
    assert json.loads(json.dumps(network.to_json())) == network.to_json()
    assert read.preprocessing == Preprocessing("vgg", 40, 33, 36, (1.0, 2.0, 3.0))


@pytest.mark.parametrize("kind", WHOLE)
def test_threads_and_the_shape_of_a_plan_may_be_of_any_kind(kind: Callable[[int], Any]) -> None:
    assert type(thread_count(kind(2))) is int
    model = load_model(device="cpu", threads=kind(1))
    assert model.plan(kind(1), kind(64), kind(60)).program.nbytes == model.plan(1, 64, 60).program.nbytes


@pytest.mark.parametrize("wrong", [True, 2.0, np.float32(2), np.True_])
def test_bools_and_floats_stay_refused(wrong: Any) -> None:
    images = np.zeros((1, 8, 9, 3), np.float32)
    for call in (
        lambda: geometry.valid(wrong),
        lambda: resnet_utils.subsample(images, wrong, weights={}),
        lambda: resnet_utils.conv2d_same(images, wrong, 3, 1, weights={}),
        lambda: resnet_utils.conv2d_same(images, 3, wrong, 1, weights={}),
        lambda: kernels.on("definition").subsample(images, wrong),
    ):
        with pytest.raises(ShapeError, match="must be a whole number"):
            call()


def test_a_number_that_float_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(ShapeError, match="batch_norm_epsilon must be a number"):
        resnet_utils.resnet_arg_scope(batch_norm_epsilon=HUGE)
