"""One name for the same factor in every draw, where rotation, order and sign are arbitrary."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.inference.hyperdraws import evenly_spaced

_ROUNDS = 20
_CANDIDATES = 200


def varimax(loadings: FloatArray) -> FloatArray:
    """Return the rotation of each draw that makes its loadings large or small, (N, K, K).

    Maximises sum_k var_t (Lambda R)_tk^2 over rotations R, which are unique but for order and signs of
    columns; by the gradient's polar factor, for all draws at once.

    Parameters
    ----------
    loadings : (N, T, K)

    References
    ----------
    Kaiser (1958), Psychometrika 23.
    """
    n_draws, _, n_factors = loadings.shape
    R = np.broadcast_to(np.eye(n_factors), (n_draws, n_factors, n_factors)).copy()
    if n_factors < 2:
        return R
    transposed, value = np.swapaxes(loadings, 1, 2), np.full(n_draws, -np.inf)
    for _ in range(500):
        turned = loadings @ R
        gradient = transposed @ (turned**3 - turned * (turned**2).mean(axis=1, keepdims=True))
        left, singular, right = np.linalg.svd(gradient)
        R, before, value = left @ right, value, singular.sum(axis=1)
        if (value <= before * (1.0 + 1e-13)).all():
            break
    return R


def match_factors(loadings: FloatArray) -> tuple[IntArray, FloatArray]:
    """Match the factors of all draws by order and sign.

    Each draw takes the order and the signs that bring its loadings nearest to a reference (least squares: a
    linear assignment on |reference' Lambda|). The reference begins as the draw whose Lambda Lambda' is
    nearest to the mean, and is the mean of the matched draws from then on.

    Parameters
    ----------
    loadings : (N, T, K)

    Returns
    -------
    order : (N, K)
        Which column of the draw is factor k.
    sign : (N, K)
        By what to multiply it then.

    References
    ----------
    Poworoznek, Ferrari & Dunson (2021), arXiv 2107.13783.
    """
    n_draws, _, n_factors = loadings.shape
    reference = loadings[_central(loadings)]
    order, sign = np.full((n_draws, n_factors), -1), np.ones((n_draws, n_factors))
    everything = np.arange(n_draws)[:, None]
    for _ in range(_ROUNDS):
        alike = np.einsum("tk,ntl->nkl", reference, loadings)
        found = np.array([linear_sum_assignment(-np.abs(a))[1] for a in alike])
        sign = np.where(alike[everything, np.arange(n_factors), found] < 0.0, -1.0, 1.0)
        if (found == order).all():
            break
        order = found
        reference = matched(loadings, order, sign).mean(axis=0)
    return order, sign


def matched(columns: FloatArray, order: IntArray, sign: FloatArray) -> FloatArray:
    """Return the columns (N, ..., K) in this order with these signs."""
    return np.take_along_axis(columns, order[:, None, :], axis=2) * sign[:, None, :]


def _central(loadings: FloatArray) -> int:
    some = evenly_spaced(len(loadings), _CANDIDATES)
    gram = loadings[some] @ np.swapaxes(loadings[some], 1, 2)
    return int(some[((gram - gram.mean(axis=0)) ** 2).sum(axis=(1, 2)).argmin()])
