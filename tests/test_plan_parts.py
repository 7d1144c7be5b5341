"""What a plan is made of: folded batch norm, fused layers, memory that buffers share, waits between steps."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_ref import layers, resnet_v1
from resnet_ref.arg_scope import BatchNorm
from resnet_ref.handle import Handle
from resnet_ref.kernels.vector.arena import barriers, lay_out
from resnet_ref.kernels.vector.memory import ALIGNMENT, aligned
from resnet_ref.kernels.vector.step import Buffer, Memory, Step
from resnet_ref.layers import conv2d
from resnet_ref.plan.folding import folded
from resnet_ref.plan.fusing import Fused, fused
from resnet_ref.resnet_utils import Block, subsample
from resnet_ref.shapes import Shapes, Spec

RNG = np.random.default_rng(0)
NORM = {
    "a/BatchNorm/gamma": np.array([2, -3], np.float32),
    "a/BatchNorm/beta": np.array([0.5, 7], np.float32),
    "a/BatchNorm/moving_mean": np.array([10, -1], np.float32),
    "a/BatchNorm/moving_variance": np.array([0, 3.75], np.float32),
    "a/weights": np.array([[1, 1], [3, -2]], np.float32).reshape(1, 2, 1, 2),
}


def test_batch_norm_worked_out_by_hand_is_a_scale_of_weights_and_a_bias() -> None:
    """Variances 0.25 and 4 with epsilon: scales 2 / .5 = 4 and -3 / 2; biases .5 - 10 * 4 and 7 - 1.5."""
    w, bias = folded(NORM, "a", BatchNorm(0.9, 0.25, True, False))
    np.testing.assert_array_equal(w.reshape(2, 2), [[4, -1.5], [12, 3]])
    np.testing.assert_array_equal(bias, [-39.5, 5.5])
    w, bias = folded(NORM, "a", BatchNorm(0.9, 0.25, False, False))
    np.testing.assert_array_equal(w.reshape(2, 2), [[2, 0.5], [6, -1]])
    np.testing.assert_array_equal(bias, [-19.5, 7.5])


@pytest.mark.parametrize("scale", [True, False])
def test_batch_norm_is_folded_in_float64_and_rounded_once(scale: bool) -> None:
    shapes = {"weights": (3, 2, 5, 33)} | {f"BatchNorm/{n}": (33,) for n in ("gamma", "beta", "moving_mean")}
    weights = {f"a/{name}": RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights["a/BatchNorm/moving_variance"] = RNG.uniform(1e-6, 1e-5, 33).astype(np.float32)
    if not scale:
        del weights["a/BatchNorm/gamma"]
    w, bias = folded(weights, "a", BatchNorm(0.9, 1e-5, scale, False))
    exact = {name: array.astype(np.float64) for name, array in weights.items()}
    factor = exact.get("a/BatchNorm/gamma", 1) / np.sqrt(exact["a/BatchNorm/moving_variance"] + 1e-5)
    np.testing.assert_array_equal(w, (exact["a/weights"] * factor).astype(np.float32))
    shift = exact["a/BatchNorm/beta"] - exact["a/BatchNorm/moving_mean"] * factor
    np.testing.assert_array_equal(bias, shift.astype(np.float32))


def test_without_batch_norm_the_biases_are_the_bias() -> None:
    weights = {"a/weights": NORM["a/weights"], "a/biases": np.array([3, 4], np.float32)}
    w, bias = folded(weights, "a", None)
    np.testing.assert_array_equal(w, weights["a/weights"])
    np.testing.assert_array_equal(bias, [3, 4])


Described = tuple[list[Fused], dict[str, Any]]


def described(unit_fn: Any, wanted: tuple[str, ...] = (), depth: int = 6, stride: int = 1, **options: Any) -> Described:
    """One unit on images of 6 channels: its layers, fused as the end points wanted allow, and all end points."""
    shapes = Shapes()
    blocks = [Block("b", unit_fn, [{"depth": depth, "depth_bottleneck": 4, "stride": stride}])]
    call = {"is_training": False, "include_root_block": False, "global_pool": False, "scope": "n", **options}
    net, ends = resnet_v1.resnet_v1(Handle(shapes, Spec((1, 5, 5, 6))), blocks, **call)
    return fused(shapes.layers, [ends[name] for name in wanted] or [net.value]), ends


def summary(layers_: list[Fused]) -> list[tuple[str, str | None, int | None]]:
    """Last name, activation, and with which stride a residual is read, or None."""
    return [
        (f.layer.scope.rpartition("/")[2], f.activation, f.residual_stride if f.residual is not None else None)
        for f in layers_
    ]


UNIT = "n/b/unit_1/bottleneck_v1"


def test_the_end_of_a_unit_goes_into_its_last_convolution() -> None:
    found, ends = described(resnet_v1.bottleneck)
    assert summary(found) == [("conv1", "relu", None), ("conv2", "relu", None), ("conv3", "relu", 1)]
    assert found[-1].output is ends[UNIT]
    assert found[-1].residual is found[0].layer.inputs[0], "the images are the shortcut"
    found, _ = described(resnet_v1.bottleneck, depth=7)
    assert summary(found)[0] == ("shortcut", None, None)
    assert summary(found)[-1] == ("conv3", "relu", 1)
    assert found[-1].residual is found[0].output


def test_a_subsampled_shortcut_is_read_with_its_stride() -> None:
    found, _ = described(resnet_v1.bottleneck, stride=3)
    assert summary(found) == [("conv1", "relu", None), ("conv2", "relu", None), ("conv3", "relu", 3)]
    assert found[-1].residual is found[0].layer.inputs[0]


def test_an_end_point_that_is_wanted_stays_a_value_of_its_own() -> None:
    found, ends = described(resnet_v1.bottleneck, (f"{UNIT}/conv3", UNIT), stride=3)
    assert [f.layer.op for f in found] == ["subsample", "conv2d", "conv2d", "conv2d", "add_relu"]
    assert [f.activation for f in found] == [None, "relu", "relu", None, "relu"]
    assert found[3].output is ends[f"{UNIT}/conv3"]


def test_a_shortcut_that_is_wanted_is_kept_and_still_added_in_the_convolution() -> None:
    found, ends = described(resnet_v1.bottleneck, (f"{UNIT}/shortcut", UNIT), depth=7, stride=2)
    assert summary(found) == [
        ("shortcut", None, None),
        ("conv1", "relu", None),
        ("conv2", "relu", None),
        ("conv3", "relu", 1),
    ]
    assert found[-1].residual is ends[f"{UNIT}/shortcut"]


def test_bounded_units_clip_their_residual_and_end_in_relu6() -> None:
    scope = resnet_v1.resnet_arg_scope(use_bounded_activations=True)
    (*_, last), _ = described(resnet_v1.bottleneck, arg_scope=scope)
    assert (last.activation, last.bounded) == ("relu6", True)
    (*_, last), _ = described(resnet_v1.bottleneck)
    assert (last.activation, last.bounded) == ("relu", False)


def unit(residual: Any, shortcut: Any = lambda net, stride: subsample(net, stride)) -> Any:
    """A unit function from what makes its two operands."""

    def made(inputs: Handle, depth: int, depth_bottleneck: int, stride: int, rate: int = 1) -> Handle:
        net = inputs.within("mine")
        return layers.add_relu(shortcut(net, stride), residual(net, depth, stride), bounded=False).at(inputs)

    return made


def plain(net: Handle, depth: int, stride: int, **options: Any) -> Handle:
    return conv2d(net, depth, 1, stride, **{"activation_fn": None, "scope": "last", **options})


@pytest.mark.parametrize(
    ("unit_fn", "kept"),
    [
        (unit(plain), ["conv2d"]),
        (unit(lambda *a: plain(*a, activation_fn="relu")), ["subsample", "conv2d", "add_relu"]),
        (unit(lambda net, depth, stride: subsample(net, stride)), ["subsample", "subsample", "add_relu"]),
        (unit(lambda net, depth, stride: layers.max_pool2d(net, 1, stride)), ["subsample", "max_pool2d", "add_relu"]),
    ],
    ids=["a convolution", "one with an activation", "no convolution", "a pooling"],
)
def test_a_sum_is_fused_into_a_convolution_without_activation_alone(unit_fn: Any, kept: list[str]) -> None:
    assert [f.layer.op for f in described(unit_fn, stride=2)[0]] == kept


def test_a_value_with_two_readers_is_not_fused_away() -> None:
    """Both operands one convolution; a shortcut that is subsampled once and read twice."""

    def doubled(inputs: Handle, depth: int, depth_bottleneck: int, stride: int, rate: int = 1) -> Handle:
        y = plain(inputs.within("mine"), depth, stride)
        return layers.add_relu(y, y, bounded=False).at(inputs)

    assert [f.layer.op for f in described(doubled)[0]] == ["conv2d", "add_relu"]

    def reread(inputs: Handle, depth: int, depth_bottleneck: int, stride: int, rate: int = 1) -> Handle:
        net = inputs.within("mine")
        small = subsample(net, stride)
        first = layers.add_relu(small, plain(net, depth, stride), bounded=False)
        return layers.add_relu(small, plain(first, depth, 1, scope="other"), bounded=False).at(inputs)

    found, _ = described(reread, stride=2)
    assert summary(found) == [("MaxPool2D", None, None), ("last", "relu", 1), ("other", "relu", 1)]
    assert found[1].residual is found[2].residual is found[0].output


@st.composite
def programs(draw: Any) -> tuple[list[Step], list[Buffer]]:
    """Steps that read and write any of a few buffers, and those that are kept."""
    buffers = [Buffer(draw(st.integers(1, 300))) for _ in range(draw(st.integers(1, 9)))]
    some = st.lists(st.sampled_from(buffers), max_size=3).map(tuple)
    steps = [
        Step(f"step {k}", "", 0, None, 1, draw(some), draw(some), lambda _: {})  # type: ignore[arg-type]
        for k in range(draw(st.integers(0, 8)))
    ]
    return steps, draw(st.lists(st.sampled_from(buffers), max_size=2, unique_by=id))


@settings(deadline=None, max_examples=300)
@given(programs())
def test_buffers_that_are_needed_together_share_no_byte(program: tuple[list[Step], list[Buffer]]) -> None:
    steps, kept = program
    nbytes = lay_out(steps, kept)
    uses: dict[Buffer, set[int]] = {buffer: set(range(len(steps) + 1)) for buffer in kept}
    for number, step in enumerate(steps):
        for buffer in (*step.reads, *step.writes):
            uses.setdefault(buffer, set()).add(number)
    lives = {buffer: range(min(numbers), max(numbers) + 1) for buffer, numbers in uses.items()}
    for a, life in lives.items():
        assert a.offset % ALIGNMENT == 0
        assert 0 <= a.offset <= a.offset + a.nbytes <= nbytes
        for b, other in lives.items():
            if a is not b and set(life) & set(other):
                assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


def test_buffers_that_are_never_needed_together_share_their_bytes() -> None:
    a, b, c, d = (Buffer(1000) for _ in range(4))
    steps = [
        Step("", "", 0, None, 1, (x,), (y,), lambda _: {})  # type: ignore[arg-type]
        for x, y in ((a, b), (b, c), (c, d))
    ]
    assert lay_out(steps, []) == 2 * 1024
    assert lay_out(steps, [a]) == 3 * 1024
    assert a.offset not in (b.offset, c.offset, d.offset)
    assert b.offset == d.offset


@settings(deadline=None, max_examples=300)
@given(programs())
def test_two_steps_between_which_nobody_waits_touch_no_byte_that_either_writes(
    program: tuple[list[Step], list[Buffer]],
) -> None:
    steps, kept = program
    lay_out(steps, kept)
    waits = barriers(steps)
    assert len(waits) == len(steps)
    assert waits[-1:] in ([], [True]), "at the end everybody waits"

    def touched(buffers: tuple[Buffer, ...]) -> set[int]:
        return {byte for b in buffers for byte in range(b.offset, b.offset + b.nbytes)}

    for last in range(len(steps)):
        for first in range(last):
            if not any(waits[first:last]):
                a, b = steps[first], steps[last]
                assert not touched(a.writes) & touched((*b.reads, *b.writes))
                assert not touched(a.reads) & touched(b.writes)


def test_nobody_waits_where_bytes_do_not_conflict() -> None:
    a, b, c, d = (Buffer(100) for _ in range(4))
    steps = [
        Step("", "", 0, None, 1, reads, writes, lambda _: {})  # type: ignore[arg-type]
        for reads, writes in (((a,), (b,)), ((a,), (c,)), ((b, c), (d,)))
    ]
    lay_out(steps, [a, b, c, d])
    assert barriers(steps) == [False, True, True]


def test_equal_tables_are_kept_once_and_no_table_twice() -> None:
    memory = Memory(aligned(3 * ALIGNMENT), *(Buffer(ALIGNMENT, number * ALIGNMENT) for number in range(3)))
    numbers = np.arange(1 << 20, dtype=np.int32)
    tracemalloc.start()
    try:
        first = memory.table(numbers[:, None].repeat(2, axis=1))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2 * numbers.nbytes <= kept < 2.1 * numbers.nbytes
    assert memory.table(numbers.repeat(2)) == first
    assert memory.table(numbers) != first
