"""Batch norm in inference and training: by hand, against float64 within rounding, and against live TensorFlow."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiers import TIERS, tier_named

from resnet_ref import kernels, oracle
from resnet_ref.errors import DeviceError, ShapeError
from resnet_ref.kernels import Tier

Array = NDArray[Any]
EPS = float(np.finfo(np.float32).eps)
SHAPE = (2, 9, 8, 5)


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    return tier_named(request.param)


def numbers(*values: float) -> Array:
    return np.array(values, np.float32)


def drawn(channels: int = 5, seed: int = 0) -> dict[str, Array]:
    """gamma, beta, mean, variance [channels]."""
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(channels) for name in ("gamma", "beta", "mean")}
    values["variance"] = rng.uniform(0.1, 3, channels)
    return {name: value.astype(np.float32) for name, value in values.items()}


def images(shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def judged(
    x: Array, gamma: Array | None, beta: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array]:
    """Batch norm in float64, and how far float32 may be from it.

    Seven roundings (the difference, epsilon, sum, root, quotient, two products) and the last sum's: 8 * eps/2.
    """
    factor = np.float64(1) if gamma is None else gamma.astype(np.float64)
    scale = factor / np.sqrt(variance.astype(np.float64) + epsilon)
    product = (x.astype(np.float64) - mean) * scale
    return product + beta, 4 * EPS * (np.abs(product) + np.abs(beta))


def test_inference_worked_out_by_hand(tier: Tier) -> None:
    """(5 - 1) / sqrt(3.75 + .25) * 6 - 2 = 10; without gamma 4 / 2 - 2 = 0."""
    x = numbers(5, -3, 7, 1).reshape(1, 2, 1, 2)
    beta, mean, variance = numbers(-2, 1), numbers(1, -3), numbers(3.75, 0)
    y = tier.batch_norm(x, numbers(6, 8), beta, mean, variance, 0.25)
    np.testing.assert_array_equal(y, numbers(10, 1, 16, 65).reshape(x.shape))
    y = tier.batch_norm(x, None, beta, mean, variance, 0.25)
    np.testing.assert_array_equal(y, numbers(0, 1, 1, 9).reshape(x.shape))


def test_statistics_worked_out_by_hand(tier: Tier) -> None:
    """1, 2, 3, 6 have mean 3 and squared deviations 4, 1, 0, 9; the mean of those, not divided by 3."""
    x = np.stack([numbers(1, 2, 3, 6), numbers(10, 10, 10, 10)], -1).reshape(2, 1, 2, 2)
    mean, variance = tier.batch_statistics(x)
    np.testing.assert_array_equal(mean, [3, 10])
    np.testing.assert_array_equal(variance, [3.5, 0])


def test_moving_averages_worked_out_by_hand(tier: Tier) -> None:
    """10 - (10 - 2) * (1 - .75) = 8; a variance of 3 over four values is 4 when divided by three."""
    np.testing.assert_array_equal(tier.moving_average(numbers(10, -4), numbers(2, 4), 0.75), [8, -2])
    np.testing.assert_array_equal(tier.unbiased(numbers(3, 0), 4), [4, 0])
    np.testing.assert_array_equal(tier.unbiased(numbers(5), 1), [5])
    np.testing.assert_array_equal(tier.moving_average(numbers(10), numbers(2), 1.0), [10])
    np.testing.assert_array_equal(tier.moving_average(numbers(10), numbers(2), 0.0), [2])


@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
@pytest.mark.parametrize("with_gamma", [True, False])
def test_inference_is_the_formula_within_its_roundings(tier: Tier, with_gamma: bool, epsilon: float) -> None:
    x, given = images(), drawn()
    if not with_gamma:
        given["gamma"] = None  # type: ignore[assignment]
    want, bound = judged(x, **given, epsilon=epsilon)
    got = tier.batch_norm(x, **given, epsilon=epsilon)
    assert got.dtype == np.float32
    assert (np.abs(got - want) <= bound).all()


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("out", ["none", "another", "x itself"])
def test_the_activation_clamps_and_out_receives_the_result(tier: Tier, activation: str | None, out: str) -> None:
    x, given = images() * np.float32(9), drawn()
    plain = tier.batch_norm(x, **given, epsilon=1e-5)
    want = plain if activation is None else np.clip(plain, 0, 6 if activation == "relu6" else np.inf)
    assert plain.min() < 0
    assert plain.max() > 6
    target = {"none": None, "another": np.full_like(x, 77), "x itself": x}[out]
    before = x.copy()
    got = tier.batch_norm(x, **given, epsilon=1e-5, activation=activation, out=target)
    np.testing.assert_array_equal(got, want)
    assert target is None or got is target
    assert out == "x itself" or (x == before).all()


@pytest.mark.parametrize("shape", [SHAPE, (3, 1, 2, 1), (2, 71, 67, 3)], ids=str)
def test_statistics_are_float64s_rounded_once(tier: Tier, shape: tuple[int, ...]) -> None:
    """The last shape has more rows than one partial sum holds."""
    x = images(shape) + np.float32(3)
    wide = x.astype(np.float64)
    mean, variance = tier.batch_statistics(x)
    assert (mean.dtype, variance.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=EPS, atol=0)
    np.testing.assert_allclose(variance, wide.var((0, 1, 2)), rtol=EPS, atol=0)


def test_a_large_mean_does_not_drown_a_small_variance(tier: Tier) -> None:
    """Mean 10000, deviation .01: the mean of squares less the squared mean would be off by thousands of times."""
    x = (1e4 + 1e-2 * np.random.default_rng(2).standard_normal((3, 16, 17, 4))).astype(np.float32)
    wide = x.astype(np.float64)
    mean, variance = tier.batch_statistics(x)
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=EPS, atol=0)
    np.testing.assert_allclose(variance, wide.var((0, 1, 2)), rtol=EPS, atol=0)
    assert (variance < 2e-4).all()


def test_a_single_pixel_has_variance_zero_and_normalises_to_beta(tier: Tier) -> None:
    x, given = images((1, 1, 1, 5)), drawn()
    mean, variance = tier.batch_statistics(x)
    np.testing.assert_array_equal(mean, x[0, 0, 0])
    np.testing.assert_array_equal(variance, np.zeros(5))
    np.testing.assert_array_equal(tier.unbiased(variance, 1), np.zeros(5))
    y = tier.batch_norm(x, given["gamma"], given["beta"], mean, variance, 1e-5)
    np.testing.assert_array_equal(y[0, 0, 0], given["beta"])


def test_nan_stays_in_its_channel(tier: Tier) -> None:
    x = images()
    x[1, 2, 3, 4] = np.nan
    got = tier.batch_norm(x, **drawn(), epsilon=1e-5, activation="relu6")
    np.testing.assert_array_equal(np.isnan(got), np.isnan(x))
    assert [np.isnan(statistic).tolist() for statistic in tier.batch_statistics(x)] == [[False] * 4 + [True]] * 2


def test_results_are_the_same_bits_on_any_number_of_threads() -> None:
    """The second image takes away the first, which leaves of the sums what their order rounded."""
    x, given = images((2, 71, 67, 30)), drawn(30)
    x[0] *= 10 ** np.abs(x[1])
    x[1] = -x[0]
    results = []
    for threads in (1, 2, 3, 5):
        tier = kernels.on("cpu", threads)
        results.append([tier.batch_norm(x, **given, epsilon=1e-5), *tier.batch_statistics(x)])
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, want)


def test_a_batch_of_none_gives_none_but_has_no_statistics(tier: Tier) -> None:
    assert tier.batch_norm(images()[:0], **drawn(), epsilon=1e-5).shape == (0, *SHAPE[1:])
    with pytest.raises(ShapeError, match=r"an empty batch \[0, 9, 8, 5\] has no mean; give at least one image"):
        tier.batch_statistics(images()[:0])


def test_inputs_may_be_read_only_and_of_any_layout(tier: Tier) -> None:
    x, given = images(), drawn()
    want = tier.batch_norm(x, **given, epsilon=1e-5)
    strided = {name: np.repeat(value, 2)[::2] for name, value in given.items()}
    fortran = np.asfortranarray(x)
    for array in (fortran, *strided.values()):
        array.setflags(write=False)
    np.testing.assert_array_equal(tier.batch_norm(fortran, **strided, epsilon=1e-5), want)
    for got, same in zip(tier.batch_statistics(fortran), tier.batch_statistics(x), strict=True):
        np.testing.assert_allclose(got, same, rtol=EPS)


@pytest.mark.parametrize("name", ["gamma", "beta", "mean", "variance"])
def test_a_number_per_channel_of_another_length_or_dtype_is_named(tier: Tier, name: str) -> None:
    with pytest.raises(ShapeError, match=rf"batch_norm: {name} must have shape \[5\], got \[4\]"):
        tier.batch_norm(images(), **{**drawn(), name: drawn(4)[name]}, epsilon=1e-5)
    with pytest.raises(ShapeError, match=f"batch_norm: {name} is float64, x is float32"):
        tier.batch_norm(images(), **{**drawn(), name: np.ones(5)}, epsilon=1e-5)


def test_other_misuses_are_refused(tier: Tier) -> None:
    x, given = images(), drawn()
    with pytest.raises(ShapeError, match=r"batch_norm: x must be \[N, H, W, C\], .*; got shape \[9, 8, 5\]"):
        tier.batch_norm(x[0], **given, epsilon=1e-5)
    with pytest.raises(ShapeError, match=r"out must have shape \[2, 9, 8, 5\]"):
        tier.batch_norm(x, **given, epsilon=1e-5, out=x[:1].copy())
    with pytest.raises(ShapeError, match="activation must be None"):
        tier.batch_norm(x, **given, epsilon=1e-5, activation="elu")
    with pytest.raises(ShapeError, match=r"batch_statistics: x must be \[N, H, W, C\]"):
        tier.batch_statistics(x[0])
    with pytest.raises(ShapeError, match=r"moving_average: batch must have shape \[2\], got \[3\]"):
        tier.moving_average(numbers(1, 2), numbers(1, 2, 3), 0.9)
    with pytest.raises(DeviceError, match="computes in"):
        tier.batch_statistics(x.astype(np.float16))


def test_the_definition_computes_in_float64_when_asked() -> None:
    x, given = images().astype(float), {name: value.astype(float) for name, value in drawn().items()}
    got = kernels.on("definition").batch_norm(x, **given, epsilon=1e-5)
    np.testing.assert_allclose(got, judged(x, **given, epsilon=1e-5)[0], rtol=1e-14, atol=1e-14)
    assert kernels.on("definition").batch_statistics(x)[1].dtype == np.float64


@pytest.mark.oracle
@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_inference_is_tensorflows_fused_batch_norm(tier: Tier, epsilon: float) -> None:
    """Each is within its own roundings of float64, so the two are within twice that of each other."""
    x, given = images(), drawn()

    def fused(nets: oracle.Nets, x: Any) -> Any:
        tensors = (given[name] for name in ("gamma", "beta", "mean", "variance"))
        return nets.tf.compat.v1.nn.fused_batch_norm(x, *tensors, epsilon=epsilon, is_training=False)[0]

    want = oracle.run(fused, x, {}).net
    _, bound = judged(x, **given, epsilon=epsilon)
    assert (np.abs(tier.batch_norm(x, **given, epsilon=epsilon) - want) <= 2 * bound).all()


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(2, 9, 8, 5), (3, 1, 1, 4), (1, 1, 1, 3)], ids=str)
def test_training_is_tensorflows_fused_batch_norm(tier: Tier, shape: tuple[int, ...]) -> None:
    """TensorFlow's sums of K values are off by K eps of the largest term at most."""
    x, given = images(shape), drawn(shape[3])

    def fused(nets: oracle.Nets, x: Any) -> Any:
        y, mean, variance = nets.tf.compat.v1.nn.fused_batch_norm(x, given["gamma"], given["beta"], epsilon=1e-3)
        return y, {"mean": mean, "variance": variance}

    want = oracle.run(fused, x, {})
    count = x.size // shape[3]
    mean, variance = tier.batch_statistics(x)
    largest = np.abs(x).max((0, 1, 2))
    assert (np.abs(mean - want.end_points["mean"]) <= count * EPS * largest).all()
    off = np.abs(tier.unbiased(variance, count) - want.end_points["variance"])
    assert (off <= 2 * count * EPS * (2 * largest) ** 2).all()
    y = tier.batch_norm(x, given["gamma"], given["beta"], mean, variance, 1e-3)
    np.testing.assert_allclose(y, want.net, rtol=count * EPS, atol=count * EPS * np.abs(y).max())


@pytest.mark.oracle
@pytest.mark.parametrize("decay", [0.997, 0.9])
def test_moving_averages_are_slims(tier: Tier, decay: float) -> None:
    x = images() + np.float32(2)

    def layer(nets: oracle.Nets, x: Any) -> Any:
        return nets.slim.batch_norm(x, decay=decay, scale=True, epsilon=1e-5, is_training=True, scope="bn")

    given = {f"bn/{name}": value for name, value in drawn().items() if name in ("gamma", "beta")}
    given |= {"bn/moving_mean": drawn()["mean"], "bn/moving_variance": drawn()["variance"]}
    result = oracle.run(layer, x, given, fetch_updates=True)
    count = x.size // 5
    mean, variance = tier.batch_statistics(x)
    fed = {"bn/moving_mean": mean, "bn/moving_variance": tier.unbiased(variance, count)}
    assert result.updated.keys() == fed.keys()
    for name, batch in fed.items():
        got = tier.moving_average(given[name], batch, decay)
        # What TensorFlow's statistic may be off, weighted, and three roundings.
        bound = (1 - decay) * count * EPS * np.abs(batch) + 3 * EPS * np.maximum(np.abs(given[name]), np.abs(batch))
        assert (np.abs(got - result.updated[name]) <= bound).all(), name
        assert (np.abs(given[name] - result.updated[name]) > 10 * bound).any(), name
