"""Draws of the coefficients given draws of their law, with the data or without."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import PseudoRows
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES, Hyperdraws
from bayes_mtl.kernels import chain
from bayes_mtl.model import AssembledModel, CoefficientPrior


@dataclass(frozen=True)
class Coefficients:
    """Draws of all Gaussian coefficients.

    Attributes
    ----------
    beta : (D, T, F)
        Coefficients of varying and shared columns.
    alpha : (D, A)
        Effects of the population in units of their priors, then standardised factors.
    probability : (D, T, K) or None
        Where tasks belong to one of several components: the probability of each.
    """

    beta: FloatArray
    alpha: FloatArray
    probability: FloatArray | None = None


def recover(
    assembled: AssembledModel, hyper: Hyperdraws, rows: PseudoRows | None, rng: np.random.Generator
) -> Coefficients:
    """Draw the coefficients from their exact law given the rows (None: from the prior), once per draw."""
    block, effects = _gaussian(assembled), assembled.population
    z_common = rng.standard_normal((len(hyper), len(effects.column) + block.n_common))
    z = rng.standard_normal((len(hyper), hyper.unique_sd.shape[1], len(block.own)))
    return from_whitened(assembled, hyper, rows, z_common, z)


def from_coordinates(
    assembled: AssembledModel, hyper: Hyperdraws, rows: PseudoRows, z_common: FloatArray, z: FloatArray
) -> Coefficients:
    """Compute the coefficients of sampled coordinates (D, A) and (D, T, U)."""
    if not assembled.chained:
        return from_whitened(assembled, hyper, rows, z_common, z)
    block, effects = _gaussian(assembled), assembled.population
    beta, alpha = np.empty((*z.shape[:2], hyper.mean.shape[2])), np.empty(z_common.shape)
    data = (rows.root, rows.target, block.inside, effects.column, effects.design)
    scale = hyper.effect_scale
    for d in range(len(hyper)):
        law = (hyper.sd[d], hyper.correlation[d], hyper.loadings[d], hyper.sigma[d])
        shift = _shift(assembled, hyper.levels[d])
        mean = hyper.mean[d] - rows.reference + shift
        _, beta[d], alpha[d] = chain(*law, mean, scale[d], z_common[d], z[d], *data)
        beta[d] -= shift
    return Coefficients(beta + rows.reference, alpha * scale)


def from_whitened(
    assembled: AssembledModel,
    hyper: Hyperdraws,
    rows: PseudoRows | None,
    z_common: FloatArray,
    z: FloatArray,
) -> Coefficients:
    """Compute the coefficients from their coordinates, as `kernels._whitening` does for one draw.

    Parameters
    ----------
    z_common, z : (D, A), (D, T, U)
        The coordinates; standard normal ones give exact draws.
    """
    n_draws, n_tasks, _ = z.shape
    n_columns, n_factors = hyper.mean.shape[2], hyper.loadings.shape[2]
    size = z_common.shape[1]
    beta, alpha = np.empty((n_draws, n_tasks, n_columns)), np.empty((n_draws, size))
    per_draw = 8 * (n_tasks * n_columns * (4 * n_columns + 4 * size + n_factors) + 4 * size**2)
    threads = os.cpu_count() or 1
    length = min(CHUNK_BYTES // (threads * max(1, per_draw)), -(-n_draws // (4 * threads)))

    def fill(piece: tuple[slice, Hyperdraws]) -> None:
        at, chunk = piece
        beta[at], alpha[at] = _chunk(assembled, chunk, rows, z_common[at], z[at])

    with ThreadPoolExecutor(threads) as pool:  # linear algebra leaves the interpreter to others
        list(pool.map(fill, hyper.chunks(length)))
    return Coefficients(beta, alpha)


def _chunk(
    assembled: AssembledModel,
    hyper: Hyperdraws,
    rows: PseudoRows | None,
    z_common: FloatArray,
    z: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    block, effects = _gaussian(assembled), assembled.population
    n_draws, n_tasks, n_own = z.shape
    n_varying, n_columns = hyper.sd.shape[1], hyper.mean.shape[2]
    n_common, n_factors, n_inside = len(effects.column), hyper.loadings.shape[2], len(block.inside)
    inside = block.inside

    L = hyper.sd[:, :, None] * np.eye(n_varying)
    L[:, inside[:, None], inside] = hyper.sd[:, inside, None] * hyper.correlation
    scale = np.where(np.isin(block.own, inside), hyper.unique_sd[:, :, None], 1.0)  # S
    Z = np.zeros((n_draws, n_tasks, n_columns, z_common.shape[1]))
    Z[:, :, effects.column, np.arange(n_common)] = hyper.effect_scale[:, None, :] * effects.design.T
    Z[:, :, :n_varying, n_common:] = np.einsum(
        "dtk,dpx->dtpkx", hyper.loadings, L[:, :, inside], optimize=True
    ).reshape(n_draws, n_tasks, n_varying, n_factors * n_inside)
    reference = 0.0 if rows is None else rows.reference
    beta = np.broadcast_to(hyper.mean, (n_draws, n_tasks, n_columns)).copy()

    own = L[:, None, :, block.own] * scale[:, :, None, :]  # L S, (D, T, P, U)
    if rows is None:
        alpha = z_common
        eps = z
    else:
        R = np.moveaxis(rows.root, -1, 0) / hyper.sigma[:, :, None, None]
        seen = beta + _shift(assembled, hyper.levels) - reference
        y = (rows.target.T - np.einsum("fgt,dtg->dtf", rows.root, seen)) / hyper.sigma[..., None]
        M = R[..., :n_varying] @ own
        Mt = np.swapaxes(M, -1, -2)
        inverse = _inverse(np.linalg.cholesky(Mt @ M + np.eye(n_own)))  # K^-1: well conditioned, K >= I
        Y = inverse @ (Mt @ np.concatenate([R, y[..., None]], axis=-1))
        # R'R - Y'Y = R'(I + M M')^-1 R, in the form in which nothing cancels where there is little noise.
        outer = np.linalg.cholesky(M @ Mt + np.eye(n_columns))
        V = np.linalg.solve(
            outer, np.concatenate([np.broadcast_to(R, M.shape[:-1] + R.shape[-1:]), y[..., None]], axis=-1)
        )
        Vt = np.swapaxes(V[..., :-1], -1, -2)
        G, g = Vt @ V[..., :-1], Vt @ V[..., -1:]
        Zt = np.swapaxes(Z, -1, -2)
        Q = (Zt @ (G @ Z)).sum(axis=1) + np.eye(Z.shape[-1])
        h = (Zt @ g).sum(axis=1)
        U = np.linalg.cholesky(Q)
        alpha = _solve(np.swapaxes(U, -1, -2), _solve(U, h) + z_common[..., None])[..., 0]
        phi = Z @ alpha[:, None, :, None]
        w = Y[..., -1:] - Y[..., :-1] @ phi + z[..., None]
        eps = (np.swapaxes(inverse, -1, -2) @ w)[..., 0]
    beta += (Z @ alpha[:, None, :, None])[..., 0]
    beta[..., :n_varying] += (own @ eps[..., None])[..., 0]
    return beta, np.hstack([hyper.effect_scale * alpha[:, :n_common], alpha[:, n_common:]])


def _shift(assembled: AssembledModel, levels: FloatArray) -> Any:
    """Return by how much effects of levels (..., C) move what rows say of coefficients, (..., T, F)."""
    if assembled.levels is None:
        return 0.0
    return np.einsum("tfc,...c->...tf", assembled.levels.slope, levels, optimize=True)


def _inverse(a: FloatArray) -> FloatArray:
    return np.linalg.inv(a) if a.shape[-1] else a


def _solve(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.linalg.solve(a, b) if a.shape[-1] else np.zeros(b.shape)


def _gaussian(assembled: AssembledModel) -> CoefficientPrior:
    assert isinstance(assembled.block, CoefficientPrior)
    return assembled.block
