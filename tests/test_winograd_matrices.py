"""Winograd's matrices give the correlation, tap by tap, and their points lose fewer digits than the usual ones."""

import numpy as np
import pytest

from resnet_ref.kernels.conv2d import winograd_matrices
from resnet_ref.kernels.conv2d.winograd_matrices import POINTS, TAPS, matrices, transformed_weights

SIZES = sorted(POINTS)


@pytest.mark.parametrize("m", SIZES)
def test_every_impulse_of_input_and_weights_lands_where_the_correlation_puts_it(m: int) -> None:
    """y[i] = sum over k of d[i + k] g[k], so d = 1 at i + k and g = 1 at k make y = 1 at i and nothing else."""
    a, g, b = matrices(m)
    n = m + TAPS - 1
    for k in range(TAPS):
        for j in range(n):
            y = a @ (g[:, k] * b[:, j])
            expected = [float(i + k == j) for i in range(m)]
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-15 if m == 2 else 4e-15)


@pytest.mark.parametrize("m", SIZES)
def test_in_two_dimensions_too(m: int) -> None:
    a, g, b = matrices(m)
    rng = np.random.default_rng(m)
    n = m + TAPS - 1
    d, w = rng.standard_normal((n, n)), rng.standard_normal((TAPS, TAPS))
    y = a @ ((g @ w @ g.T) * (b @ d @ b.T)) @ a.T
    expected = [[(d[i : i + TAPS, j : j + TAPS] * w).sum() for j in range(m)] for i in range(m)]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)


def test_f2_is_lavin_and_grays() -> None:
    """As printed in arXiv:1509.09308, up to the signs of rows, which cancel."""
    a, g, b = matrices(2)
    signs = np.array([-1, 1, 1, 1])[:, None]
    np.testing.assert_array_equal(g * signs, [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    np.testing.assert_array_equal(b * signs, [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]])
    np.testing.assert_array_equal(a, [[1, 1, 1, 0], [0, 1, -1, 1]])


@pytest.mark.parametrize("m", SIZES)
def test_weights_are_transformed_in_float64_and_rounded_once(m: int) -> None:
    w = np.random.default_rng(m).standard_normal((3, 3, 5, 7)).astype(np.float32)
    _, g, _ = matrices(m)
    exact = np.einsum("ik,jl,klcf->ijcf", g, g, w.astype(np.float64)).reshape((m + 2) ** 2, 5, 7)
    got = transformed_weights(w, m)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact, rtol=6e-8, atol=1e-15)


def float32_error(m: int) -> float:
    """Root mean square error of 400 tiles of 64 channels, all steps in float32."""
    a, _, b = (x.astype(np.float32) for x in matrices(m))
    rng = np.random.default_rng(7)
    n = m + TAPS - 1
    d = rng.standard_normal((400, 64, n, n)).astype(np.float32)
    w = rng.standard_normal((64, TAPS, TAPS)).astype(np.float32)
    transformed = transformed_weights(w.transpose(1, 2, 0)[..., None], m).reshape(n, n, 64).transpose(2, 0, 1)
    y = a @ (transformed * (b @ d @ b.T)).sum(1, dtype=np.float32) @ a.T
    patches = np.lib.stride_tricks.sliding_window_view(d.astype(np.float64), (TAPS, TAPS), axis=(2, 3))
    return float(np.sqrt(np.square(y - np.einsum("tcijkl,ckl->tij", patches, w)).mean()))


def with_points(monkeypatch: pytest.MonkeyPatch, points: tuple[float, ...]) -> None:
    monkeypatch.setitem(winograd_matrices.POINTS, 4, points)
    matrices.cache_clear()


def test_the_points_of_f4_err_less_than_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, f2 = float32_error(4), float32_error(2)
    try:
        with_points(monkeypatch, (0.0, 1.0, -1.0, 2.0, -2.0))
        usual = float32_error(4)
    finally:
        monkeypatch.undo()
        matrices.cache_clear()
    print(f"\nF(2x2) {f2:.2e}, F(4x4) {chosen:.2e}, at the usual points {usual:.2e}")
    assert f2 < chosen < 0.7 * usual
