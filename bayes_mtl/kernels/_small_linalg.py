"""Dense linear algebra for matrices of a few rows, where a LAPACK call costs more than the work."""

from __future__ import annotations

from numba.extending import register_jitable

from bayes_mtl._typing import FloatArray


@register_jitable
def cholesky_in_place(a: FloatArray) -> bool:
    """Overwrite the lower triangle of `a` by its Cholesky factor; say whether `a` was positive definite."""
    n = a.shape[0]
    for j in range(n):
        pivot = a[j, j]
        for m in range(j):
            pivot -= a[j, m] * a[j, m]
        if not pivot > 0.0 or pivot == float("inf"):
            return False
        pivot = pivot**0.5
        a[j, j] = pivot
        for i in range(j + 1, n):
            entry = a[i, j]
            for m in range(j):
                entry -= a[i, m] * a[j, m]
            a[i, j] = entry / pivot
    return True


@register_jitable
def inverse_from_cholesky(factor: FloatArray, out: FloatArray, work: FloatArray) -> None:
    """Write `(factor factor')^-1` to `out`; `work` is overwritten by `factor^-1`."""
    n = factor.shape[0]
    for j in range(n):
        for i in range(j):
            work[i, j] = 0.0
        work[j, j] = 1.0 / factor[j, j]
        for i in range(j + 1, n):
            entry = 0.0
            for m in range(j, i):
                entry -= factor[i, m] * work[m, j]
            work[i, j] = entry / factor[i, i]
    for i in range(n):
        for j in range(i + 1):
            entry = 0.0
            for m in range(i, n):
                entry += work[m, i] * work[m, j]
            out[i, j] = entry
            out[j, i] = entry


@register_jitable
def multiply(a: FloatArray, b: FloatArray, out: FloatArray) -> None:
    """Write `a b` to `out`."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            out[i, j] = 0.0
        for m in range(a.shape[1]):
            entry = a[i, m]
            for j in range(b.shape[1]):
                out[i, j] += entry * b[m, j]
