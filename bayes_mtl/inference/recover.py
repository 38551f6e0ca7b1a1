"""Draws of the coefficients given draws of their law, with the data or without."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import PseudoRows
from bayes_mtl.inference.conditional import Conditional
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
    few = rows is not None and 2 * rows.used <= len(block.own)
    noise = rng.standard_normal((*z.shape[:2], rows.used)) if rows is not None and few else None
    return from_whitened(assembled, hyper, rows, z_common, z, noise)


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
    noise: FloatArray | None = None,
) -> Coefficients:
    """Compute the coefficients from their coordinates, as `kernels._whitening` does for one draw.

    Parameters
    ----------
    z_common, z : (D, A), (D, T, U)
        The coordinates; standard normal ones give exact draws.
    noise : (D, T, R), optional
        More standard normal numbers: tasks with fewer rows than columns are then drawn by their rows. The
        coordinates are others, the law is the same.
    """
    n_draws, n_tasks, _ = z.shape
    n_columns, n_factors = hyper.mean.shape[2], hyper.loadings.shape[2]
    size = z_common.shape[1]
    beta, alpha = np.empty((n_draws, n_tasks, n_columns)), np.empty((n_draws, size))
    per_draw = 8 * (n_tasks * n_columns * (4 * n_columns + 4 * size + n_factors) + 4 * size**2)
    threads = max(1, min(os.cpu_count() or 1, CHUNK_BYTES // max(1, per_draw)))
    length = min(CHUNK_BYTES // (threads * max(1, per_draw)), -(-n_draws // (4 * threads)))

    def fill(piece: tuple[slice, Hyperdraws]) -> None:
        at, chunk = piece
        more = None if noise is None else noise[at]
        beta[at], alpha[at] = _chunk(assembled, chunk, rows, z_common[at], z[at], more)

    pool = ThreadPoolExecutor(threads)  # linear algebra leaves the interpreter to others
    try:
        list(pool.map(fill, hyper.chunks(length)))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for what has begun, not for the rest
    return Coefficients(beta, alpha)


def _chunk(
    assembled: AssembledModel,
    hyper: Hyperdraws,
    rows: PseudoRows | None,
    z_common: FloatArray,
    z: FloatArray,
    noise: FloatArray | None,
) -> tuple[FloatArray, FloatArray]:
    block, effects = _gaussian(assembled), assembled.population
    n_varying, n_common = hyper.sd.shape[1], len(effects.column)
    shift = 0.0 if rows is None else _shift(assembled, hyper.levels)
    law = Conditional(hyper, effects, block.inside, block.own, rows, shift)
    if rows is None:
        alpha, eps = z_common, z
    else:
        Q, h = law.common
        U = np.linalg.cholesky(Q)
        shifted = np.linalg.solve(U, h[..., None]) + z_common[..., None]
        alpha = np.linalg.solve(np.swapaxes(U, -1, -2), shifted)[..., 0]
        R, y = law.scaled_rows
        left = y[..., None] - R @ (law.design @ alpha[:, None, :, None])
        M, Mt = law.own_rows, np.swapaxes(law.own_rows, -1, -2)
        if noise is None:
            inverse = np.linalg.inv(np.linalg.cholesky(law.own_information))  # well conditioned: K K' >= I
            eps = (np.swapaxes(inverse, -1, -2) @ (inverse @ (Mt @ left) + z[..., None]))[..., 0]
        else:  # a draw of the prior, moved by what rows say of it: z + M'(I + M M')^-1 (left - M z - noise)
            outer = M @ Mt + np.eye(M.shape[-2])
            moved = left - M @ z[..., None] - noise[..., None]
            eps = z + (Mt @ np.linalg.solve(outer, moved))[..., 0]
    beta = hyper.mean + (law.design @ alpha[:, None, :, None])[..., 0]
    beta[..., :n_varying] += (law.own @ eps[..., None])[..., 0]
    return beta, np.hstack([hyper.effect_scale * alpha[:, :n_common], alpha[:, n_common:]])


def _shift(assembled: AssembledModel, levels: FloatArray) -> Any:
    """Return by how much effects of levels (..., C) move what rows say of coefficients, (..., T, F)."""
    if assembled.levels is None:
        return 0.0
    return np.einsum("tfc,...c->...tf", assembled.levels.slope, levels, optimize=True)


def _gaussian(assembled: AssembledModel) -> CoefficientPrior:
    assert isinstance(assembled.block, CoefficientPrior)
    return assembled.block
