"""Small dense matrices of many tasks at once: arrays whose last axis is the task.

Every scalar step of the algebra is one loop over tasks, which the processor does several at a time, so
matrices of a few rows run at the speed of long vectors. Arrays hold a block of tasks that fits in the
cache; `n` is how many of its lanes are in use. A loop over a few lanes that do not fill a vector takes as
long as one over many, so a kernel may use more lanes than there are tasks (`full_vectors`): those where the
rows are zeros add nothing to any sum.

Upper-triangular parts of symmetric results are filled in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayes_mtl._typing import FloatArray
from bayes_mtl.kernels.compile import subroutine

BoolArray = npt.NDArray[np.bool_]


@subroutine
def block_length(n_rows: int, n_columns: int, n_tasks: int) -> int:
    """Return how many tasks to treat at a time: full vectors, and a few matrices of them fit in the cache."""
    return max(8, min((n_tasks + 7) // 8 * 8, 64, 4096 // max(1, n_rows * n_columns) // 8 * 8))


@subroutine
def full_vectors(n: int) -> int:
    """Return the next multiple of what the processor does at a time."""
    return (n + 7) // 8 * 8


@subroutine
def take(out: FloatArray, source: FloatArray, start: int, n: int) -> None:
    """Copy the entries of tasks start to start + n, and set the lanes beyond to zero."""
    for t in range(n):
        out[t] = source[np.uintp(start + t)]  # an index without a sign needs no check for one
    for t in range(n, out.shape[0]):
        out[t] = 0.0


@subroutine
def take_rows(out: FloatArray, root: FloatArray, target: FloatArray, start: int, n: int) -> None:
    """Copy the pseudo-rows of tasks, with the outcome as the last column; zero in the lanes beyond n."""
    n_rows, n_columns = root.shape[0], root.shape[1]
    for f in range(n_rows):
        take(out[f, n_columns], target[f], start, n)
        for g in range(n_columns):
            take(out[f, g], root[f, g], start, n)


@subroutine
def weighted_sum(a: FloatArray, b: FloatArray, n: int) -> float:
    """Return sum_t a_t b_t."""
    total = 0.0
    for t in range(n):
        total += a[t] * b[t]
    return total


@subroutine
def times_lower(out: FloatArray, a: FloatArray, shared: FloatArray, n: int) -> None:
    """Write a times a lower-triangular matrix that all tasks share: out_ij = sum_m a_im shared_mj."""
    for i in range(a.shape[0]):
        for j in range(out.shape[1]):
            for t in range(n):
                out[i, j, t] = 0.0
            for m in range(j, shared.shape[0]):
                factor = shared[m, j]
                if factor != 0.0:
                    for t in range(n):
                        out[i, j, t] += a[i, m, t] * factor


@subroutine
def product(out: FloatArray, a: FloatArray, b: FloatArray, n: int) -> None:
    """Write out = a b, for as many rows and columns as `out` has."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for t in range(n):
                out[i, j, t] = 0.0
            for m in range(b.shape[0]):
                for t in range(n):
                    out[i, j, t] += a[i, m, t] * b[m, j, t]


@subroutine
def gram(out: FloatArray, a: FloatArray, n: int) -> None:
    """Write out = a'a for the first columns of a, as many as `out` has."""
    for i in range(out.shape[0]):
        for j in range(i + 1):
            for t in range(n):
                out[i, j, t] = 0.0
            for m in range(a.shape[0]):
                for t in range(n):
                    out[i, j, t] += a[m, i, t] * a[m, j, t]
            for t in range(n):
                out[j, i, t] = out[i, j, t]


@subroutine
def cholesky_and_solve(a: FloatArray, right: FloatArray, log_det: FloatArray, n: int) -> bool:
    """Factor a = K K' and overwrite `right` by K^-1 right.

    The lower triangle of `a` is overwritten by K, its diagonal by 1 / K_ii; log|K| is added to
    `log_det`. Returns whether every `a` was positive definite.
    """
    for i in range(a.shape[0]):
        for j in range(i + 1):
            for m in range(j):
                for t in range(n):
                    a[i, j, t] -= a[i, m, t] * a[j, m, t]
            if j < i:
                for t in range(n):
                    a[i, j, t] *= a[j, j, t]
        least = np.inf
        for t in range(n):
            least = min(least, a[i, i, t])
        if not (least > 0.0):
            return False
        for t in range(n):
            log_det[t] += 0.5 * np.log(a[i, i, t])
            a[i, i, t] = 1.0 / np.sqrt(a[i, i, t])
        for j in range(right.shape[1]):
            for m in range(i):
                for t in range(n):
                    right[i, j, t] -= a[i, m, t] * right[m, j, t]
            for t in range(n):
                right[i, j, t] *= a[i, i, t]
    return True


@subroutine
def solve_transposed(a: FloatArray, right: FloatArray, n: int) -> None:
    """Overwrite `right` by K^-T right, with K as `cholesky_and_solve` left it in `a`."""
    for i in range(a.shape[0] - 1, -1, -1):
        for j in range(right.shape[1]):
            for m in range(i + 1, a.shape[0]):
                for t in range(n):
                    right[i, j, t] -= a[m, i, t] * right[m, j, t]
            for t in range(n):
                right[i, j, t] *= a[i, i, t]


@subroutine
def pull_back_cholesky(a: FloatArray, d: FloatArray, work: FloatArray, n: int) -> None:
    """Overwrite `d`, the cotangent of K (lower triangle), by the symmetric cotangent of K K'.

    With P the lower triangle of K'd, made symmetric, it is K^-T P K^-1 / 2 (Murray, 2016). K is as
    `cholesky_and_solve` left it in `a`.
    """
    size = a.shape[0]
    for i in range(size):
        for j in range(i + 1):
            for t in range(n):
                work[i, j, t] = 0.5 * d[i, j, t] / a[i, i, t]
            for m in range(i + 1, size):
                for t in range(n):
                    work[i, j, t] += 0.5 * a[m, i, t] * d[m, j, t]
            for t in range(n):
                work[j, i, t] = work[i, j, t]
    solve_transposed(a, work, n)
    for i in range(size):
        for j in range(size):
            for t in range(n):
                d[i, j, t] = work[j, i, t]
    solve_transposed(a, d, n)
