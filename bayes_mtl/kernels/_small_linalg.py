"""Dense linear algebra for one matrix of moderate size, without the start-up cost of LAPACK in numba."""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.kernels.compile import allocating_subroutine, subroutine


@subroutine
def cholesky_in_place(a: FloatArray) -> bool:
    """Overwrite the lower triangle of `a` by its Cholesky factor; say whether `a` was positive definite."""
    n = a.shape[0]
    for i in range(n):
        for j in range(i):
            entry = a[i, j]
            for m in range(j):  # along rows, which are contiguous
                entry -= a[i, m] * a[j, m]
            a[i, j] = entry / a[j, j]
        pivot = a[i, i]
        for m in range(i):
            pivot -= a[i, m] * a[i, m]
        if not pivot > 0.0 or pivot == np.inf:
            return False
        a[i, i] = np.sqrt(pivot)
    return True


@subroutine
def invert_factor(factor: FloatArray, columns: FloatArray) -> None:
    """Write the transpose of `factor^-1` to `columns`: row j is column j of the inverse."""
    n = factor.shape[0]
    columns[:] = 0.0
    for j in range(n):
        columns[j, j] = 1.0 / factor[j, j]
        for i in range(j + 1, n):
            columns[j, i] = -dot(factor[i, j:i], columns[j, j:i]) / factor[i, i]


@allocating_subroutine
def inverse_from_cholesky(factor: FloatArray, inverse: FloatArray) -> None:
    """Write `(factor factor')^-1` to `inverse`."""
    n = factor.shape[0]
    columns = np.empty((n, n))
    invert_factor(factor, columns)
    for i in range(n):
        for j in range(i + 1):
            inverse[i, j] = dot(columns[i, i:], columns[j, i:])
            inverse[j, i] = inverse[i, j]


@subroutine
def solve_lower(factor: FloatArray, b: FloatArray) -> None:
    """Overwrite `b` by `factor^-1 b`."""
    for i in range(b.shape[0]):
        b[i] = (b[i] - dot(factor[i, :i], b[:i])) / factor[i, i]


@subroutine
def solve_lower_transposed(factor: FloatArray, b: FloatArray) -> None:
    """Overwrite `b` by `factor'^-1 b`."""
    for i in range(b.shape[0] - 1, -1, -1):
        b[i] /= factor[i, i]
        for j in range(i):
            b[j] -= factor[i, j] * b[i]


@allocating_subroutine
def pull_back_cholesky_shared(factor: FloatArray, d: FloatArray) -> None:
    """Overwrite `d`, the cotangent of the factor's lower triangle, by that of `factor factor'`.

    The formula is that of `_lanes.pull_back_cholesky`.
    """
    n = factor.shape[0]
    inverse = np.empty((n, n))  # transposed
    invert_factor(factor, inverse)
    middle = np.zeros((n, n))
    for m in range(n):
        for i in range(m + 1):
            entry = 0.5 * factor[m, i]
            for j in range(i + 1):
                middle[i, j] += entry * d[m, j]
    for i in range(n):
        for j in range(i):
            middle[j, i] = middle[i, j]
    left = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            left[i, j] = dot(inverse[i, i:], middle[j, i:])
    for i in range(n):
        for j in range(i + 1):
            d[i, j] = dot(left[i, j:], inverse[j, j:])
            d[j, i] = d[i, j]


@subroutine
def add_multiple(out: FloatArray, x: FloatArray, factor: float) -> None:
    """Add factor * x to `out`."""
    for m in range(out.shape[0]):
        out[m] += factor * x[m]


@subroutine
def dot(a: FloatArray, b: FloatArray) -> float:
    """Return the inner product."""
    total = 0.0
    for m in range(a.shape[0]):  # from 0: an index that might be negative is not vectorised
        total += a[m] * b[m]
    return total
