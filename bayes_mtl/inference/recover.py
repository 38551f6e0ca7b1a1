"""Draws of the coefficients given draws of their law, with the data or without."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES, Hyperdraws
from bayes_mtl.model import CoefficientPrior


def recover(
    data: TaskData, hyper: Hyperdraws, inside: npt.NDArray[np.int64], *, varies: bool, seed: int
) -> FloatArray:
    """Draw beta from p(beta | y, hyperparameters), once per draw: exact, with no Markov chain.

    With the symbols of `kernels._collapsed_gaussian`: first the factors, F ~ N(Q^-1 h, Q^-1), then
    each task's unique part, e_t | F ~ N(W_t^-1 S_t (b_t - A_t phi_t), W_t^-1).

    Returns
    -------
    ndarray, shape (n_draws, n_tasks, n_features)
    """
    if not varies:
        return hyper.mean.copy()
    n_tasks, n_features, n_factors = data.n_tasks, data.n_features, hyper.loadings.shape[2]
    per_draw = 8 * (6 * n_tasks * n_features**2 + 3 * (n_factors * len(inside)) ** 2 + n_tasks * n_factors)
    beta = np.empty((len(hyper), n_tasks, n_features))
    rng = np.random.default_rng(seed)
    for at, chunk in hyper.chunks(CHUNK_BYTES // per_draw):
        beta[at] = _recover_chunk(data, chunk, inside, rng)
    return beta


def _recover_chunk(
    data: TaskData, hyper: Hyperdraws, inside: npt.NDArray[np.int64], rng: np.random.Generator
) -> FloatArray:
    stats = data.statistics
    n_draws, n_tasks, n_features = hyper.mean.shape
    n_factors, n_inside = hyper.loadings.shape[2], len(inside)
    shared = np.broadcast_to(hyper.shared[:, None, :], (n_draws, n_tasks, hyper.shared.shape[1]))
    mean = np.concatenate([hyper.mean, shared], axis=2) - stats.reference
    residual = stats.moment - np.einsum("tpq,dtq->dtp", stats.gram, mean)
    precision = 1.0 / hyper.sigma**2
    L = hyper.cholesky
    gram = stats.gram[:, :n_features, :n_features]
    A = np.einsum("dpi,tpq,dqj,dt->dtij", L, gram, L, precision, optimize=True)
    b = np.einsum("dpi,dtp,dt->dti", L, residual[:, :, :n_features], precision, optimize=True)
    scale = unique_scale(hyper.unique_sd, inside, n_features)

    W = scale[..., :, None] * A * scale[..., None, :] + np.eye(n_features)
    K = np.linalg.cholesky(W)
    phi = np.zeros((n_draws, n_tasks, n_features))
    if n_factors:
        V = np.linalg.solve(K, scale[..., :, None] * A)
        v = np.linalg.solve(K, (scale * b)[..., None])
        J = (A - np.swapaxes(V, -1, -2) @ V)[..., inside[:, None], inside]
        j = (b - (np.swapaxes(V, -1, -2) @ v)[..., 0])[..., inside]
        size = n_factors * n_inside
        Q = np.einsum("dtk,dtl,dtij->dkilj", hyper.loadings, hyper.loadings, J, optimize=True)
        R = np.linalg.cholesky(Q.reshape(n_draws, size, size) + np.eye(size))
        h = np.einsum("dtk,dti->dki", hyper.loadings, j, optimize=True).reshape(n_draws, size, 1)
        white = np.linalg.solve(R, h) + rng.standard_normal((n_draws, size, 1))
        factors = np.linalg.solve(np.swapaxes(R, -1, -2), white).reshape(n_draws, n_factors, n_inside)
        phi[..., inside] = hyper.loadings @ factors
    score = scale * (b - (A @ phi[..., None])[..., 0])
    white = np.linalg.solve(K, score[..., None]) + rng.standard_normal((n_draws, n_tasks, n_features, 1))
    unique = np.linalg.solve(np.swapaxes(K, -1, -2), white)[..., 0]
    whitened = phi + scale * unique
    return hyper.mean + np.einsum("dij,dtj->dti", L, whitened)


def draw_from_population(
    hyper: Hyperdraws, inside: npt.NDArray[np.int64], *, varies: bool, rng: np.random.Generator
) -> FloatArray:
    """Draw coefficients from their law given the hyperparameters, ignoring any data."""
    if not varies:
        return hyper.mean.copy()
    n_draws, n_tasks, n_features = hyper.mean.shape
    scale = unique_scale(hyper.unique_sd, inside, n_features)
    whitened = scale * rng.standard_normal((n_draws, n_tasks, n_features))
    factors = rng.standard_normal((n_draws, hyper.loadings.shape[2], len(inside)))
    whitened[..., inside] += hyper.loadings @ factors
    return hyper.mean + np.einsum("dij,dtj->dti", hyper.cholesky, whitened)


def from_whitened(hyper: Hyperdraws, block: CoefficientPrior, draws: xr.Dataset) -> FloatArray:
    """Compute the coefficients from sampled standard normals, as `latent_coefficients` does in the graph."""
    if not block.varies:
        return hyper.mean.copy()
    n_draws, n_tasks, n_features = hyper.mean.shape
    whitened = np.zeros((n_draws, n_tasks, n_features))
    if "beta_offset" in draws:
        offset = draws["beta_offset"].to_numpy().reshape(n_draws, n_tasks, -1)
        scale = unique_scale(hyper.unique_sd, block.inside, n_features)
        everything = np.arange(n_features)
        at = everything if block.unique_sd is not None else np.setdiff1d(everything, block.inside)
        whitened[..., at] = scale[..., at] * offset
    if "basis_offset" in draws:
        factors = draws["basis_offset"].to_numpy().reshape(n_draws, -1, len(block.inside))
        whitened[..., block.inside] += hyper.loadings @ factors
    return hyper.mean + np.einsum("dij,dtj->dti", hyper.cholesky, whitened)


def unique_scale(unique_sd: FloatArray, inside: npt.NDArray[np.int64], n_features: int) -> FloatArray:
    """Return the sd of the unique part of each whitened coefficient: delta_t inside, 1 outside."""
    scale = np.ones((*unique_sd.shape, n_features))
    scale[..., inside] = unique_sd[..., None]
    return scale
