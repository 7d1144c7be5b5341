"""Whole networks by plans: any network, any outputs, any shape that comes, in parts or whole."""

import threading
import tracemalloc
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from accuracy import error
from conftest import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import ISAS, Array, Method, forced, planned, target_for
from random_networks import RandomNetwork, networks
from variables import random_variables

from resnet_ref import DeviceError, load_model, resnet_v1
from resnet_ref.handle import Handle
from resnet_ref.kernels.conv2d.choice import Way
from resnet_ref.kernels.conv2d.direct_planned import direct
from resnet_ref.kernels.conv2d.winograd_planned import winograd
from resnet_ref.kernels.vector import step
from resnet_ref.kernels.vector.isa import isa_named
from resnet_ref.layers import add_relu, conv2d
from resnet_ref.network import Network
from resnet_ref.plan import lowering, planner
from resnet_ref.plan.plan import RESULT, Plan
from resnet_ref.plan.planner import Planner
from resnet_ref.resnet_utils import Block
from resnet_ref.shapes import Shapes, Spec

Weights = dict[str, Any]
ALLOWED = {"auto": 4, "direct": 4, "fast": 20}  # times the definition's own error in float32
IMAGES = (np.random.default_rng(3).standard_normal((5, 29, 26, 3)) * 60).astype(np.float32)
DESCRIBE = Network.from_json(TINY).describe
END_POINTS = list(DESCRIBE(Handle(Shapes(), Spec(IMAGES.shape)))[1])


METHODS: dict[str, Method] = {
    "direct": direct,
    "F(2x2) staged": partial(winograd, m=2, fused_tiles=None),
    "F(2x2) fused": partial(winograd, m=2, fused_tiles=28),
    "F(4x4) fused": partial(winograd, m=4, fused_tiles=28),
}


def eager(images: Array, weights: Weights, dtype: str = "float64") -> dict[str, Array]:
    """End points of the tiny network by the definition."""
    network, where = Network.from_json(TINY), {"device": "definition", "dtype": dtype}
    return resnet_v1.resnet_v1(images, network.blocks, 5, False, scope="tiny", weights=weights, **where)[1]


def planner_for(weights: Weights, algorithm: str = "auto", threads: int = 2, isa: str | None = None) -> Planner:
    return Planner(DESCRIBE, weights, isa_named(isa), threads, Way(algorithm))


def assert_near(found: dict[str, Array], images: Array, weights: Weights) -> None:
    truth = eager(images, weights)
    for name, value in found.items():
        true = truth["predictions" if name == RESULT else name]
        assert value.shape == true.shape
        assert error(value, true) <= 2e-6, name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    network=networks(), algorithm=st.sampled_from(list(ALLOWED)), isa=st.sampled_from(ISAS),
    threads=st.integers(1, 4), data=st.data(),
)  # fmt: skip
def test_any_network_is_as_near_to_float64_as_the_definition_in_float32_is(network, algorithm, isa, threads, data):
    """All end points, some, and only the result: fused less and less, and equally right."""
    some = data.draw(st.lists(st.sampled_from(list(network.described)), unique=True))
    require_right(network, (list(network.described), some, []), algorithm, isa=isa, threads=threads)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ALLOWED)
def test_a_network_of_single_values_that_no_image_reaches_is_as_near(algorithm: str, isa: str) -> None:
    """Its shortcut in block3 nearly cancels, and the definition's own rounding errors happen to do so, too."""
    depths = [[(2, 1)], [(1, 1), (15, 1)], [(1, 1)]]
    blocks = [
        Block(f"block{i}", resnet_v1.bottleneck, [{"depth": d, "depth_bottleneck": b, "stride": 1} for d, b in units])
        for i, units in enumerate(depths, 1)
    ]
    call = {"num_classes": 3, "is_training": False, "include_root_block": False, "output_stride": 1}
    scope = resnet_v1.resnet_arg_scope(batch_norm_scale=False)
    network = RandomNetwork(blocks, (1, 1, 1, 1), {**call, "arg_scope": scope}, seed=7)
    require_right(network, (list(network.described), []), algorithm, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ALLOWED)
def test_a_strided_network_of_two_pixels_is_as_near(algorithm: str, isa: str) -> None:
    """Of 8 samples by the definition none errs a quarter as much as the plan does: two values that nearly cancel."""
    unit = {"depth_bottleneck": 1}
    blocks = [
        Block("block1", resnet_v1.bottleneck, [{**unit, "depth": 24, "stride": 2}]),
        Block("block2", resnet_v1.bottleneck, [{**unit, "depth": 1, "stride": 1}]),
    ]
    call = {"num_classes": 3, "is_training": False, "include_root_block": False, "store_non_strided_activations": True}
    scope = resnet_v1.resnet_arg_scope(batch_norm_scale=False)
    network = RandomNetwork(blocks, (1, 2, 1, 2), {**call, "arg_scope": scope}, seed=2)
    require_right(network, (list(network.described), []), algorithm, isa=isa)


def require_right(network: RandomNetwork, asked: Iterable[Sequence[str]], algorithm: str, **how: Any) -> None:
    """Plans for each choice of end points err at most ALLOWED times as much as the definition in float32."""
    compute = partial(planned, network.describe, network.weights, network.images, algorithm=algorithm, **how)
    network.require_right(compute, asked, ALLOWED[algorithm])


def unit_by_hand(inputs: Handle, *, kernel: int, rate: int) -> Handle:
    """One convolution and no shortcut."""
    return conv2d(inputs, 7, kernel, rate=rate, scope="alone")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("method", ["direct", "F(2x2) staged", "F(2x2) fused"])
@pytest.mark.parametrize("kernels", [(3,), (5,), (3, 1), (1, 3), (7, 3)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_of_few_channels_reach_whatever_reads_them_first(
    isa: str, method: str, kernels: tuple[int, ...], channels: int
) -> None:
    """Pixels may lie side by side only where all that read them take that."""
    blocks = [Block(f"block{i}", unit_by_hand, [{"kernel": kernel}]) for i, kernel in enumerate(kernels)]
    call = partial(resnet_v1.resnet_v1, blocks=blocks, is_training=False, include_root_block=False, global_pool=False)
    shapes = Shapes()
    call(Handle(shapes, Spec((2, 9, 8, channels))))
    weights = random_variables(shapes.variables)
    images = np.random.default_rng(channels).standard_normal((2, 9, 8, channels)).astype(np.float32)
    truth, _ = call(images, weights=weights, device="definition", dtype="float64")
    found = planned(call, weights, images, [RESULT], forced(METHODS[method]), isa=isa)[RESULT]
    assert error(found, truth) <= 2e-6


@pytest.mark.parametrize("isa", ISAS)
def test_images_of_few_channels_may_be_a_shortcut(isa: str) -> None:
    def unit(inputs: Handle, *, rate: int) -> Handle:
        return add_relu(inputs, conv2d(inputs, 3, 5, activation_fn=None, rate=rate, scope="alone"), bounded=True)

    call = partial(resnet_v1.resnet_v1, blocks=[Block("block1", unit, [{}])], is_training=False)
    call = partial(call, include_root_block=False, global_pool=False)
    shapes = Shapes()
    call(Handle(shapes, Spec((2, 9, 8, 3))))
    weights = random_variables(shapes.variables)
    images = np.random.default_rng(0).normal(0, 20, (2, 9, 8, 3)).astype(np.float32)
    truth, _ = call(images, weights=weights, device="definition", dtype="float64")
    assert error(planned(call, weights, images, [RESULT], isa=isa)[RESULT], truth) <= 2e-6


@pytest.mark.parametrize("fused", [True, False])
def test_a_bounded_unit_clips_its_residual_before_the_sum(fused: bool) -> None:
    """Where residuals are far larger than 6, and the shortcut, which are the images, is larger still."""
    unit = {"depth": 3, "depth_bottleneck": 3, "stride": 1, "use_bounded_activations": True}
    call = partial(resnet_v1.resnet_v1, blocks=[Block("block1", resnet_v1.bottleneck, [unit])], is_training=False)
    call = partial(call, include_root_block=False, global_pool=False)
    shapes = Shapes()
    _, ends = call(Handle(shapes, Spec(IMAGES.shape)))
    weights = random_variables(shapes.variables)
    truth, true_ends = call(IMAGES, weights=weights, device="definition", dtype="float64")
    (conv3,) = [name for name in ends if name.endswith("conv3")]
    assert true_ends[conv3].min() < -10
    assert true_ends[conv3].max() > 10
    assert (np.maximum(IMAGES + true_ends[conv3], 0) > 6)[truth == 0].any(), "without the clip it would be another"
    found = planned(call, weights, IMAGES, [RESULT] if fused else [RESULT, conv3])
    assert error(found[RESULT], truth) <= 1e-4


def test_a_network_of_no_layers_gives_the_images() -> None:
    call = partial(resnet_v1.resnet_v1, blocks=[], is_training=False, include_root_block=False, global_pool=False)
    for threads in (1, 2):
        np.testing.assert_array_equal(planned(call, {}, IMAGES, [RESULT], threads=threads)[RESULT], IMAGES)


@pytest.mark.parametrize("algorithm", [*ALLOWED, "tuned"])
def test_changing_shapes_give_right_results(tiny_variables: Weights, algorithm: str) -> None:
    run = planner_for(tiny_variables, algorithm)
    rng = np.random.default_rng(0)
    for shape in [(2, 29, 26), (1, 5, 7), (3, 29, 26), (2, 29, 26), (1, 1, 1), (2, 26, 29), (1, 5, 7)]:
        images = rng.normal(0, 60, (*shape, 3)).astype(np.float32)
        for names in ([RESULT], ["tiny/block1", RESULT], END_POINTS):
            found = run(images, names)
            assert list(found) == names
            truth = eager(images, tiny_variables)
            for name in names:
                assert error(found[name], truth["predictions" if name == RESULT else name]) <= 1e-5, name


def test_plans_are_kept_up_to_a_number_the_least_recently_used_go_first(
    tiny_variables: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, ...]] = []

    class Counted(Plan):
        def __init__(self, *arguments: Any) -> None:
            made.append(arguments[3][:3])
            super().__init__(*arguments)

    monkeypatch.setattr(planner, "Plan", Counted)
    run, most = planner_for(tiny_variables), planner.MOST_PLANS
    shapes = [(1, 6 + k, 5, 3) for k in range(most + 1)]
    for shape in [*shapes[:most], *shapes[:most], shapes[0]]:
        run(np.zeros(shape, np.float32), [RESULT])
    assert len(made) == most
    run(np.zeros(shapes[most], np.float32), [RESULT])
    run(np.zeros(shapes[0], np.float32), [RESULT])
    assert len(made) == most + 1, "the first was used last, and is still there"
    run(np.zeros(shapes[1], np.float32), [RESULT])
    assert len(made) == most + 2
    assert len(run._idle) == most


def test_calls_at_once_have_plans_of_their_own_and_leave_no_more_than_are_kept(tiny_variables: Weights) -> None:
    run = planner_for(tiny_variables, threads=1)
    expected = run(IMAGES, [RESULT])[RESULT]
    start = threading.Barrier(12)
    wrong: list[object] = []

    def call() -> None:
        start.wait(600)
        for _ in range(10):
            if not np.array_equal(run(IMAGES, [RESULT])[RESULT], expected):
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(600)
    assert not wrong
    assert len(run._idle) <= planner.MOST_PLANS


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
def test_a_large_batch_goes_through_in_parts_with_equal_results(
    tiny_variables: Weights, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    names = [*END_POINTS, RESULT]
    whole = planner_for(tiny_variables, "direct")(IMAGES, names)
    monkeypatch.setattr(planner, "MOST_PIXELS", 29 * 26 * (at_once + 1) - 1)
    run = planner_for(tiny_variables, "direct")
    parts = run(IMAGES, names)
    assert {key[0][0] for key, _ in run._idle.values()} == {at_once, 5 % at_once or at_once}
    for name in names:
        np.testing.assert_array_equal(parts[name], whole[name])


def test_an_image_larger_than_any_part_goes_alone(tiny_variables: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "MOST_PIXELS", 1)
    assert_near(planner_for(tiny_variables)(IMAGES, END_POINTS), IMAGES, tiny_variables)


def test_an_empty_batch_gives_empty_outputs_of_the_right_shapes(tiny_variables: Weights) -> None:
    found = planner_for(tiny_variables)(IMAGES[:0], [*END_POINTS, RESULT])
    for name, value in planner_for(tiny_variables)(IMAGES[:1], [*END_POINTS, RESULT]).items():
        assert (found[name].shape, found[name].dtype) == ((0, *value.shape[1:]), np.float32)


def test_results_are_new_arrays_and_inputs_are_not_modified(tiny_variables: Weights) -> None:
    run, names = planner_for(tiny_variables), [*END_POINTS, RESULT]
    images = IMAGES.copy()
    images.flags.writeable = False
    first = run(images, names)
    kept = {name: value.copy() for name, value in first.items()}
    run(-images, names)
    np.testing.assert_array_equal(images, IMAGES)
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])
        assert value.flags.owndata
        assert value.flags.writeable
        value[...] = 7
    for name, value in run(images, names).items():
        np.testing.assert_array_equal(value, kept[name])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("few", "passes"), [(1, 5), (2, 3), (3, 2), (5, 1)])
def test_a_batch_in_passes_gives_the_bits_of_the_whole(
    tiny_variables: Weights, monkeypatch: pytest.MonkeyPatch, method: str, few: int, passes: int
) -> None:
    """Five images, a few at a time through the first layers, in the last pass perhaps fewer."""
    names = [*END_POINTS, RESULT]
    choose = forced(METHODS[method])
    whole = planned(DESCRIBE, tiny_variables, IMAGES, names, choose)
    largest = 4 * (15 * 13 * 64 + 29 * 26 * 3)  # of one image: the root convolution
    for threads in (1, 3):
        monkeypatch.setattr(lowering, "CACHE", largest * few + largest // 2)
        plan = Plan(DESCRIBE, tiny_variables, target_for(ISAS[0], threads), IMAGES.shape, names, choose)
        assert sum(step.name == "tiny/conv1" for step in plan.program.steps) == passes
        for name, value in plan(IMAGES).items():
            np.testing.assert_array_equal(value, whole[name], err_msg=name)
        monkeypatch.undo()


@pytest.mark.parametrize("algorithm", ALLOWED)
def test_the_result_of_an_image_does_not_depend_on_the_images_beside_it(
    tiny_variables: Weights, algorithm: str
) -> None:
    run = planner_for(tiny_variables, algorithm)
    other = IMAGES.copy()
    other[[0, 1, 3, 4]] = np.nan
    np.testing.assert_array_equal(run(other, [RESULT])[RESULT][2], run(IMAGES, [RESULT])[RESULT][2])


@pytest.mark.parametrize("most", [100_000, 400_000])
def test_a_plan_that_tables_cannot_address_is_refused(
    tiny_variables: Weights, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Where a single map is too large, and where all of them are together."""
    monkeypatch.setattr(step, "ADDRESSABLE", most)
    with pytest.raises(MemoryError, match="give fewer images or end points at a time") as caught:
        planner_for(tiny_variables)(IMAGES, END_POINTS)
    assert (caught.traceback[-2].name == "new_map") == (most == 100_000)


def test_a_plan_for_absurd_images_is_refused_before_it_takes_memory(tiny_variables: Weights) -> None:
    tracemalloc.start()
    with pytest.raises(MemoryError, match="give fewer images or end points at a time"):
        planner_for(tiny_variables).plan((1, 10**9, 10**9, 3), [RESULT])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"algorithm": "fft"}, "algorithm must be one of auto, direct, fast, tuned; got 'fft'"),
        ({"algorithm": None}, "algorithm must be one of auto, direct, fast, tuned; got None"),
        ({"algorithm": ["auto"]}, "algorithm must be one of"),
        ({"isa": "mmx"}, "isa must be None or one of avx512, avx2, neon, plain; got 'mmx'"),
        ({"precision": "float16"}, "precision must be one of float32, float64"),
        ({"precision": None}, "precision must be one of float32, float64"),
        ({"device": "cpu", "precision": "float64"}, '"definition" computes in float64 too'),
        ({"device": "definition", "algorithm": "direct"}, "must be one of auto; got 'direct' on device 'definition'"),
        ({"device": "definition", "isa": "plain"}, 'isa is for device "cpu"'),
    ],
)
def test_an_option_there_is_not_is_an_error_that_lists_what_there_is(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DeviceError) as caught:
        load_model(**options)
    assert said in str(caught.value)


def test_a_model_on_the_definition_makes_no_plan() -> None:
    with pytest.raises(DeviceError, match="computes layer by layer"):
        load_model(device="definition").plan(1, 28, 28)


def test_a_planner_takes_no_more_threads_than_there_are_cores(
    tiny_variables: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "thread_count", lambda threads: threads or 3)
    plans = [planner_for(tiny_variables, threads=n).plan(IMAGES.shape, [RESULT]) for n in (1, 3, 64)]
    assert [plan.program.target.threads for plan in plans] == [1, 3, 3]
