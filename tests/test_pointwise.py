"""Bias, activations, the residual sum and softmax: by hand, at the edges of float32, and against live TensorFlow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiers import TIERS, tier_named

from resnet_ref import kernels, oracle
from resnet_ref.errors import DeviceError, ShapeError
from resnet_ref.kernels import Tier
from resnet_ref.kernels.pointwise import cpu

Array = NDArray[Any]
EPS = float(np.finfo(np.float32).eps)
NAN, INF = np.nan, np.inf
# No denormals: TensorFlow takes them for 0, these kernels keep them.
EDGES = np.array([NAN, -INF, -7, -6, -1, -0.0, 0, 2e-38, 1, 6, 6.5, 3e38, INF], np.float32)


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    return tier_named(request.param)


def images(*shape: int, seed: int = 0) -> Array:
    return 5 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_activations_worked_out_by_hand_keep_nan(tier: Tier) -> None:
    relu = np.array([NAN, 0, 0, 0, 0, 0, 0, 2e-38, 1, 6, 6.5, 3e38, INF], np.float32)
    np.testing.assert_array_equal(tier.relu(EDGES), relu)
    np.testing.assert_array_equal(tier.relu6(EDGES), np.fmin(relu, np.where(np.isnan(relu), NAN, 6)))


def test_the_residual_sum_worked_out_by_hand(tier: Tier) -> None:
    """With bounded activations the residual is clipped to [-6, 6] before the sum, the sum to [0, 6] after it."""
    shortcut = np.array([1, 5, -9, 0, 7, NAN, 1, INF, -INF], np.float32)
    residual = np.array([2, -8, 8, 9, -8, 1, NAN, -INF, INF], np.float32)
    with np.errstate(invalid="ignore"):
        relu = tier.add_relu(shortcut, residual)
    np.testing.assert_array_equal(relu, [3, 0, 0, 9, 0, NAN, NAN, NAN, NAN])
    np.testing.assert_array_equal(tier.add_relu6(shortcut, residual), [3, 0, 0, 6, 1, NAN, NAN, 6, 0])


def test_the_bias_is_added_to_the_last_axis(tier: Tier) -> None:
    x, bias = np.zeros((2, 3, 4), np.float32), np.array([1, 2, 3, NAN], np.float32)
    np.testing.assert_array_equal(tier.add_bias(x, bias), np.broadcast_to(bias, x.shape))
    np.testing.assert_array_equal(tier.add_bias(bias, bias), [2, 4, 6, NAN])


KERNELS: dict[str, tuple[int, Callable[..., Array]]] = {
    "relu": (1, lambda a: np.maximum(a, 0)),
    "relu6": (1, lambda a: np.minimum(np.maximum(a, 0), 6)),
    "add_relu": (2, lambda a, b: np.maximum(a + b, 0)),
    "add_relu6": (2, lambda a, b: np.minimum(np.maximum(a + np.minimum(np.maximum(b, -6), 6), 0), 6)),
}


@pytest.mark.parametrize("shape", [(1,), (2, 3, 5, 7), (3, 0, 2), (41,)], ids=str)
@pytest.mark.parametrize("piece", [None, 7], ids=["one piece", "pieces of 7"])
@pytest.mark.parametrize("name", KERNELS)
def test_every_element_is_computed_in_any_shape(
    tier: Tier, monkeypatch: pytest.MonkeyPatch, name: str, piece: int | None, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(cpu, "PIECE", piece or cpu.PIECE)
    count, judge = KERNELS[name]
    arrays = [images(*shape, seed=seed) for seed in range(count)]
    got = getattr(tier, name)(*arrays)
    assert (got.shape, got.dtype) == (shape, np.float32)
    np.testing.assert_array_equal(got, judge(*arrays))


@pytest.mark.parametrize("target", ["another array", "the first input", "the last input"])
@pytest.mark.parametrize("name", KERNELS)
def test_out_receives_the_result_and_may_be_an_input(tier: Tier, name: str, target: str) -> None:
    count, judge = KERNELS[name]
    arrays = [images(2, 3, 5, seed=seed) for seed in range(count)]
    want = judge(*arrays)
    out = {"another array": np.full((2, 3, 5), 77, np.float32), "the first input": arrays[0]}.get(target, arrays[-1])
    assert getattr(tier, name)(*arrays, out=out) is out
    np.testing.assert_array_equal(out, want)


def test_without_out_inputs_are_not_modified_and_may_be_read_only_and_of_any_layout(tier: Tier) -> None:
    a, b, bias = np.asfortranarray(images(4, 3, 5)), images(4, 3, 10, seed=1)[..., ::2], images(10)[::2]
    for array in (a, b, bias):
        array.setflags(write=False)
    for name, (count, judge) in KERNELS.items():
        np.testing.assert_array_equal(getattr(tier, name)(*(a, b)[:count]), judge(*(a, b)[:count]))
    np.testing.assert_array_equal(tier.add_bias(b, bias), b + bias)
    np.testing.assert_array_equal(tier.softmax(a), tier.softmax(a.copy("C")))


def test_results_are_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "PIECE", 50)
    a, b = images(3, 7, 41), images(3, 7, 41, seed=1)
    one = kernels.on("cpu", 1)
    for threads in (2, 3, 5):
        tier = kernels.on("cpu", threads)
        for name, (count, _) in KERNELS.items():
            np.testing.assert_array_equal(getattr(tier, name)(*(a, b)[:count]), getattr(one, name)(*(a, b)[:count]))
        np.testing.assert_array_equal(tier.softmax(a), one.softmax(a))


def test_softmax_worked_out_by_hand(tier: Tier) -> None:
    """exp(ln k) is k: 1, 2, 5 of 8."""
    y = tier.softmax(np.log(np.array([[1, 2, 5], [3, 3, 3]], np.float32)))
    np.testing.assert_allclose(y, [[0.125, 0.25, 0.625], [1 / 3] * 3], rtol=4 * EPS)
    np.testing.assert_array_equal(tier.softmax(np.array([7], np.float32)), [1])


@pytest.mark.parametrize("shape", [(3, 1001), (2, 1, 4, 10), (5,)], ids=str)
def test_softmax_is_float64s_within_its_roundings_and_rows_sum_to_one(tier: Tier, shape: tuple[int, ...]) -> None:
    """exp(d) of a rounded d is off by |d| eps / 2; the exponential, the sum and the quotient round too."""
    x = images(*shape)
    wide = x.astype(np.float64) - x.max(-1, keepdims=True)
    want = np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)
    classes = shape[-1]
    got = tier.softmax(x)
    assert (np.abs(got - want) <= (np.abs(wide).max() + 4 + np.log2(classes)) * EPS * want).all()
    np.testing.assert_allclose(got.sum(-1, dtype=np.float64), 1, rtol=0, atol=(4 + np.log2(classes)) * EPS)


def test_softmax_survives_huge_logits_and_any_shift(tier: Tier) -> None:
    x = np.array([[3e38, -3e38, 3e38], [-3e38, -3e38, -3e38], [88.5, 89.5, -INF], [0, -200, 0]], np.float32)
    with np.errstate(over="ignore"):
        y = tier.softmax(x)
    e = np.exp(-1)
    want = [[0.5, 0, 0.5], [1 / 3] * 3, [e / (1 + e), 1 / (1 + e), 0], [0.5, 0, 0.5]]
    np.testing.assert_allclose(y, want, rtol=4 * EPS, atol=0)
    x = np.array([[1, 3, 2]], np.float32)
    np.testing.assert_array_equal(tier.softmax(x + 4096), tier.softmax(x))


@pytest.mark.parametrize("row", [[NAN, 1, 2], [1, NAN, 2], [2, 1, NAN], [INF, 1, 2], [-INF] * 3], ids=str)
def test_softmax_of_a_row_without_a_meaning_is_nan_and_leaves_other_rows_alone(tier: Tier, row: list[float]) -> None:
    x = np.array([[1, 2, 3], row, [3, 2, 1]], np.float32)
    with np.errstate(invalid="ignore"):
        y = tier.softmax(x)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[[0, 2]], tier.softmax(x[[0, 2]]))


def test_misuses_are_refused(tier: Tier) -> None:
    x = images(2, 3, 4)
    with pytest.raises(ShapeError, match=r"softmax: the last axis of \[3, 0\] holds no class"):
        tier.softmax(x[0, :, :0])
    with pytest.raises(ShapeError, match=r"add_bias: bias must have shape \[4\], got \[3\]"):
        tier.add_bias(x, images(3))
    with pytest.raises(ShapeError, match="add_bias: bias is float64, x is float32"):
        tier.add_bias(x, np.ones(4))
    for name, (count, _) in KERNELS.items():
        call = getattr(tier, name)
        with pytest.raises(ShapeError, match=rf"{name}: out must have shape \[2, 3, 4\], got \[2, 3, 5\]"):
            call(*[x] * count, out=np.empty((2, 3, 5), np.float32))
        with pytest.raises(ShapeError, match=f"{name}: out is float64, x is float32"):
            call(*[x] * count, out=np.empty((2, 3, 4)))
        with pytest.raises(ShapeError, match=f"{name}: out must be contiguous"):
            call(*[x] * count, out=np.empty((2, 3, 8), np.float32)[..., ::2])
        with pytest.raises(ShapeError, match=rf"{name}: x must be of at least one axis; got shape \[\]"):
            call(*[np.array(1, np.float32)] * count)
        with pytest.raises(ShapeError, match=f"{name}: x must be a NumPy array"):
            call(*[[1.0]] * count)
        with pytest.raises(DeviceError, match="computes in float32"):
            call(*[x.astype(np.float16)] * count)
        if count == 2:
            with pytest.raises(ShapeError, match=rf"{name}: residual must have shape \[2, 3, 4\], got \[3, 4\]"):
                call(x, x[0])
            with pytest.raises(ShapeError, match=f"{name}: residual is float64"):
                call(x, x.astype(np.float64))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_activations_are_tensorflows_for_nan_and_infinity_too(tier: Tier, name: str) -> None:
    x = np.concatenate([np.tile(EDGES, 5), images(100)])
    want = oracle.run(lambda nets, x: getattr(nets.tf.nn, name)(x), x, {}).net
    assert np.isnan(want).sum() == 5
    np.testing.assert_array_equal(getattr(tier, name)(x), want)


@pytest.mark.oracle
def test_the_residual_sum_is_tensorflows(tier: Tier) -> None:
    """Every pair of edge values."""
    pairs = np.stack([array.ravel() for array in np.meshgrid(EDGES, EDGES)])

    def sums(nets: oracle.Nets, x: Any) -> Any:
        tf = nets.tf
        return x, {
            "add_relu": tf.nn.relu(x[0] + x[1]),
            "add_relu6": tf.nn.relu6(x[0] + tf.clip_by_value(x[1], -6.0, 6.0)),
        }

    for name, want in oracle.run(sums, pairs, {}).end_points.items():
        with np.errstate(invalid="ignore", over="ignore"):
            np.testing.assert_array_equal(getattr(tier, name)(*pairs), want, err_msg=name)


@pytest.mark.oracle
def test_softmax_is_tensorflows_within_its_rounding(tier: Tier) -> None:
    x = images(3, 1001)
    want = oracle.run(lambda nets, x: nets.tf.nn.softmax(x), x, {}).net
    spread = x.max() - x.min()
    np.testing.assert_allclose(tier.softmax(x), want, rtol=2 * float(spread + 4 + np.log2(1001)) * EPS)
