"""Correlation matrices from partial correlations (the C-vine of Lewandowski, Kurowicka & Joe 2009).

With partial correlations r_ij (i > j, row by row), the Cholesky factor of the correlation matrix is

    L_ij = r_ij prod_{m<j} sqrt(1 - r_im^2)        L_ii = prod_{m<i} sqrt(1 - r_im^2)

and R = L L' is LKJ(eta) exactly when (1 + r_ij) / 2 ~ Beta(a_j, a_j), a_j = eta + (n - 2 - j) / 2
(j from 0), independently. So an LKJ prior is a vector of Beta variables and this one map.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray


def forward(partials: FloatArray, factor: FloatArray) -> None:
    """Write the n x n Cholesky factor for n (n - 1) / 2 partial correlations."""
    n = factor.shape[0]
    factor[:] = 0.0
    at = 0
    for i in range(n):
        remaining = 1.0
        for j in range(i):
            r = partials[at]
            factor[i, j] = r * remaining
            remaining *= np.sqrt(max(0.0, (1.0 - r) * (1.0 + r)))
            at += 1
        factor[i, i] = remaining


def reverse(partials: FloatArray, factor: FloatArray, cotangent: FloatArray, out: FloatArray) -> None:
    """Write the cotangent of the partial correlations, row by row from the right."""
    n = factor.shape[0]
    for i in range(n):
        row = i * (i - 1) // 2
        # `tail` = sum over m > j of cotangent_im L_im: all of them carry the factor sqrt(1 - r_ij^2).
        tail = cotangent[i, i] * factor[i, i]
        for j in range(i - 1, -1, -1):
            r = partials[row + j]
            complement = max((1.0 - r) * (1.0 + r), 1e-300)
            remaining = factor[i, j] / r if abs(r) > 1e-150 else np.nan
            if not abs(r) > 1e-150:
                remaining = 1.0
                for m in range(j):
                    q = partials[row + m]
                    remaining *= np.sqrt(max(0.0, (1.0 - q) * (1.0 + q)))
            out[row + j] = cotangent[i, j] * remaining - tail * r / complement
            tail += cotangent[i, j] * factor[i, j]
