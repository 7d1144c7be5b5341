"""Winograd's minimal filtering (arXiv:1509.09308) by Toom and Cook: a convolution is a product of polynomials, and a
product of polynomials is a product of their values at n points, one of them infinity.

    y = A^T [ (G g) * (B^T d) ]        r = 3 taps g, n = m + 2 inputs d, m outputs y, n products instead of 3 m

In two dimensions each matrix acts on columns and then on rows: m * m outputs take n * n products.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

TAPS = 3
Matrix = NDArray[np.float64]
# The finite points. The values of a polynomial at large points and at small ones differ by orders of magnitude, and
# float32 then loses digits: for m = 4, +-1/sqrt(2) and +-sqrt(2) err half as much as the usual +-1, +-2 (why:
# docs/accuracy.md).
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))}


@cache
def matrices(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """(A^T [m, n], G [n, 3], B^T [n, n]) for m outputs."""
    points = POINTS[m]
    n = len(points) + 1
    a, g, b = np.zeros((m, n)), np.zeros((n, TAPS)), np.zeros((n, n))
    for j, point in enumerate(points):
        others = [other for other in points if other != point]
        a[:, j] = point ** np.arange(m)
        g[j] = point ** np.arange(TAPS) / np.prod([point - other for other in others])
        b[j, : n - 1] = np.poly(others)[::-1]
    a[m - 1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(points)[::-1]
    # Roots leave dust beside whole numbers and halves.
    return tuple(np.where(np.abs(2 * x - np.round(2 * x)) < 1e-12, np.round(2 * x) / 2, x) for x in (a, g, b))  # type: ignore[return-value]


def transformed_weights(w: NDArray[np.float32], m: int) -> NDArray[np.float32]:
    """G w G^T of w [3, 3, C, F], in float64 and then rounded: [n * n, C, F]."""
    _, g, _ = matrices(m)
    both = np.kron(g, g)
    result = np.empty((len(both), *w.shape[2:]), np.float32)
    for c in range(w.shape[2]):  # row by row: all of it in float64 would be larger than the weights
        result[:, c] = both @ w[:, :, c].reshape(TAPS * TAPS, -1).astype(np.float64)
    return result
