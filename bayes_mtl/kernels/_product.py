"""Matrix product of small matrices; numba takes half a minute to compile its first BLAS call."""

from __future__ import annotations

from bayes_mtl._typing import FloatArray


def forward(a: FloatArray, b: FloatArray, out: FloatArray) -> None:
    """Write a b to `out`."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            out[i, j] = 0.0
        for m in range(a.shape[1]):
            entry = a[i, m]
            for j in range(b.shape[1]):
                out[i, j] += entry * b[m, j]
