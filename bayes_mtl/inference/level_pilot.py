"""A quick approximate fit of a model with groupings, that says roughly what the data say of tasks and levels.

As `inference.pilot`, it only chooses the coordinates in which effects and coefficients are sampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import LevelRows, PseudoRows, TaskData, sum_by_task
from bayes_mtl.data.groupings import named
from bayes_mtl.data.level_rows import compress
from bayes_mtl.model import LevelPilot, default_priors, outcome_units
from bayes_mtl.spec import ModelSpec

_ROUNDS = 15
_LEAST = 1e-4  # of a variance, in the units of its prior


@dataclass
class _Hyper:
    """What is estimated beside the coefficients: noise, and variances of deviations and of effects."""

    noise: float
    deviation: FloatArray  # (P,)
    effect: FloatArray  # (C,)


@dataclass(frozen=True)
class _Moments:
    """Normal approximations, given the hyperparameters."""

    common: FloatArray  # (F + C,) means of the columns of tasks, then effects
    covariance: FloatArray  # of these
    deviation: FloatArray  # (T, P)
    spread: FloatArray  # (T, P) variance of these
    information: FloatArray  # (F + C, F + C) on the common ones, deviations integrated out, and
    moment: FloatArray  # (F + C,) its product with their estimates, both without their prior


def level_pilot(spec: ModelSpec, data: TaskData) -> tuple[PseudoRows, LevelPilot]:
    """Approximate what the rows say of each task's coefficients, and together of the effects of levels.

    Alternates between normal approximations of coefficients beta_t ~ N(m, diag(v)) and effects
    gamma ~ N(0, diag(w)), all solved for at once, and v, w and the noise (EM). Under other families than the
    Gaussian a round also takes one Newton step.

    Returns
    -------
    rows : PseudoRows
        Exact for Gaussian outcomes.
    levels : LevelPilot
    """
    gaussian = spec.family.gaussian_coefficients
    _, scales = default_priors(spec, data)
    unit = np.concatenate([scales["beta_mean"], scales["beta_shared"]])
    P, F = data.n_features, len(unit)
    outcome = outcome_units(spec, data)
    size = np.concatenate(
        [np.tile(scales[named(g.name, "feature_sd")], len(g.levels)) for g in data.groupings]
    )
    knows_noise = not spec.family.has_noise or data.noise is not None
    hyper = _Hyper(1.0 if knows_noise else 0.5 * outcome.noise**2, unit[:P] ** 2, size**2)
    eta = np.zeros(data.n_rows)
    rows, levels = _rows(spec, data, eta)
    for _ in range(_ROUNDS):
        found = _solve(rows, levels, hyper, unit)
        common, gamma = found.common[:F] + rows.reference, found.common[F:]
        beta = np.tile(common, (data.n_tasks, 1))
        beta[:, :P] += found.deviation
        if not knows_noise:
            hyper.noise = _noise(rows, levels, found, hyper, data.n_rows)
        variance = np.mean(found.deviation**2 + found.spread, axis=0) if P else np.zeros(0)
        hyper.deviation = np.clip(variance, _LEAST * unit[:P] ** 2, unit[:P] ** 2)
        square = gamma**2 + np.diagonal(found.covariance)[F:]
        hyper.effect = np.clip(_by_feature(square, data), _LEAST * size**2, size**2)
        if not gaussian:
            eta = (data.full_matrix * beta[data.task_index]).sum(axis=1) + data.levels.times(gamma)
            rows, levels = _rows(spec, data, eta)
    found = _solve(rows, levels, hyper, unit)
    # What is left for the effects when the means are integrated out too.
    prior = np.diag(1.0 / unit**2)
    S, s = found.information, found.moment
    gain = S[F:, :F] @ np.linalg.inv(S[:F, :F] + prior)
    information = S[F:, F:] - gain @ S[:F, F:]
    moment = s[F:] - gain @ (s[:F] - rows.reference / unit**2)
    return rows, LevelPilot(levels.slope, (information + information.T) / 2, moment)


def _rows(spec: ModelSpec, data: TaskData, eta: FloatArray) -> tuple[PseudoRows, LevelRows]:
    """Return pseudo-rows: exact for Gaussian outcomes, otherwise of the quadratic at linear predictors."""
    if spec.family.gaussian_coefficients:
        return data.pseudo_rows, data.level_rows(by_task=False)
    eta = np.clip(eta, -30.0, 30.0)
    weights, score = spec.family.information(data, eta + data.offset)
    response = weights * eta + score
    X, starts = data.full_matrix, data.starts
    gram = np.stack([sum_by_task(X * (weights * x)[:, None], starts) for x in X.T], axis=1)
    rows = compress(gram, sum_by_task(X * response[:, None], starts))
    return rows, LevelRows.compress(data.levels, X, weights, response, data.task_index, rows)


def _solve(rows: PseudoRows, levels: LevelRows, hyper: _Hyper, unit: FloatArray) -> _Moments:
    """Return normal approximations of coefficients and effects, all at once."""
    P, F = len(hyper.deviation), len(unit)
    R, y = np.moveaxis(rows.root, -1, 0) / np.sqrt(hyper.noise), rows.target.T / np.sqrt(hyper.noise)
    inner = np.swapaxes(R[:, :, :P], 1, 2) @ R[:, :, :P] + np.diag(1.0 / hyper.deviation)
    K = np.linalg.inv(inner)
    KR = K @ np.swapaxes(R[:, :, :P], 1, 2)
    V = np.eye(F) - R[:, :, :P] @ KR  # (I + R v R')^-1
    Z = np.concatenate([R, R @ levels.slope], axis=2)  # rows of the common unknowns
    flat, weighted = Z.reshape(-1, Z.shape[2]), (V @ Z).reshape(-1, Z.shape[2])
    S, s = flat.T @ weighted, weighted.T @ y.ravel()
    within, outcome = np.moveaxis(levels.root, -1, 0), levels.target.T
    S[F:, F:] += np.einsum("gca,gcb->ab", within, within) / hyper.noise
    s[F:] += np.einsum("gca,gc->a", within, outcome) / hyper.noise
    prior = np.concatenate([1.0 / unit**2, 1.0 / hyper.effect])
    mean = np.concatenate([-rows.reference, np.zeros(len(hyper.effect))])
    covariance = np.linalg.inv(S + np.diag(prior))
    common = covariance @ (s + prior * mean)
    deviation = np.einsum("tpf,tf->tp", KR, y - Z @ common)
    lever = KR @ Z
    spread = np.einsum("tpp->tp", K) + np.einsum("tpa,ab,tpb->tp", lever, covariance, lever, optimize=True)
    return _Moments(common, covariance, deviation, spread, S, s)


def _noise(rows: PseudoRows, levels: LevelRows, found: _Moments, hyper: _Hyper, n_rows: int) -> float:
    """Return the variance of what is left, for the coefficients and effects that were estimated."""
    F, P = rows.root.shape[0], found.deviation.shape[1]
    gamma = found.common[F:]
    beta = found.common[:F] + levels.slope @ gamma
    beta[:, :P] += found.deviation
    left = rows.target - np.einsum("fgt,tg->ft", rows.root, beta)
    within = levels.target - np.einsum("acg,c->ag", levels.root, gamma)
    square = (left**2).sum() + (within**2).sum() + levels.rest.sum()
    used = np.sum(found.information * found.covariance)  # trace, of common unknowns
    used += np.sum(1.0 - found.spread / hyper.deviation)  # roughly, of deviations
    return float(square / max(n_rows - used, 0.1 * n_rows))


def _by_feature(square: FloatArray, data: TaskData) -> FloatArray:
    """Replace entries of (C,) by their mean over the levels of their grouping."""
    out, used = np.empty_like(square), 0
    for grouping in data.groupings:
        at = slice(used, used + grouping.n_effects)
        by_level = square[at].reshape(len(grouping.levels), -1)
        out[at] = np.tile(by_level.mean(axis=0), len(by_level))
        used = at.stop
    return out
