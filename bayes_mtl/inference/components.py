"""Draws of coefficients that belong to one of several components, and the probability of each component."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import PseudoRows, TaskData, sum_by_task
from bayes_mtl.families import Family
from bayes_mtl.inference.hyperdraws import MixtureDraws
from bayes_mtl.inference.recover import Coefficients
from bayes_mtl.kernels import evaluate_components, evaluate_evidence


def draw_prior(hyper: MixtureDraws, n_tasks: int, rng: np.random.Generator) -> Coefficients:
    """Draw components and coefficients from their law without data."""
    n_components = hyper.centre.shape[1]
    log_weight = np.broadcast_to(hyper.log_weight, (len(hyper), n_tasks, n_components))
    z = rng.standard_normal((len(hyper), n_tasks, hyper.centre.shape[2]))
    label = draw_labels(np.exp(log_weight), rng)
    at = np.arange(len(hyper))[:, None]
    cholesky = hyper.cholesky[at, label if hyper.cholesky.shape[1] > 1 else np.zeros_like(label)]
    beta = np.broadcast_to(hyper.mean, (len(hyper), n_tasks, hyper.mean.shape[2])).copy()
    beta[..., : z.shape[2]] += hyper.centre[at, label] + np.einsum("dtpq,dtq->dtp", cholesky, z)
    return Coefficients(beta, np.empty((len(hyper), 0)), np.exp(log_weight))


def draw_given_rows(
    hyper: MixtureDraws, data: TaskData, rows: PseudoRows, rng: np.random.Generator
) -> Coefficients:
    """Draw components and coefficients from their exact law given Gaussian outcomes."""
    exact = [rows.rest, data.statistics.count]

    def log_density(i: int, law: list[FloatArray]) -> Any:
        return evaluate_evidence(*law, rows.root, rows.target, *exact)

    z = rng.standard_normal((len(hyper), data.n_tasks, hyper.centre.shape[2]))
    return _draw(hyper, rows, z, log_density, rng)


def from_coordinates(
    hyper: MixtureDraws,
    data: TaskData,
    family: Family,
    rows: PseudoRows,
    z: FloatArray,
    rng: np.random.Generator,
) -> Coefficients:
    """Compute the coefficients of coordinates (D, T, P) under a component drawn by its probability."""
    X, task = data.full_matrix, data.task_index

    def log_density(i: int, law: list[FloatArray]) -> Any:
        density, beta = evaluate_components(*law, z[i], rows.root, rows.target)
        eta = np.einsum("np,knp->kn", X, (beta + rows.reference)[:, task]) + data.offset
        noise: Any = hyper.sigma[i][task] if hyper.sigma.shape[1] > 1 else hyper.sigma[i]
        by_row = family.log_likelihood(data.y, eta, noise if data.noise is None else data.noise, data.weights)
        return density + sum_by_task(by_row.T, data.starts)

    return _draw(hyper, rows, z, log_density, rng)


def _draw(
    hyper: MixtureDraws, rows: PseudoRows, z: FloatArray, log_density: Any, rng: np.random.Generator
) -> Coefficients:
    n_draws, n_tasks, n_components = len(hyper), z.shape[1], hyper.centre.shape[1]
    n_columns = hyper.mean.shape[2]
    centre = np.zeros((n_draws, n_components, n_columns))
    centre[..., : hyper.centre.shape[2]] = hyper.centre
    probability = np.empty((n_draws, n_tasks, n_components))
    beta = np.empty((n_draws, n_tasks, n_columns))
    everyone = np.arange(n_tasks)
    for i in range(n_draws):
        law = [centre[i], hyper.cholesky[i], hyper.sigma[i], hyper.mean[i] - rows.reference]
        joint = hyper.log_weight[i] + log_density(i, law)
        weight = np.exp(joint - joint.max(axis=1, keepdims=True))
        probability[i] = weight / weight.sum(axis=1, keepdims=True)
        label = draw_labels(probability[i], rng)
        _, given = evaluate_components(*law, z[i], rows.root, rows.target)
        beta[i] = given[label, everyone] + rows.reference
    return Coefficients(beta, np.empty((n_draws, 0)), probability)


def draw_labels(probability: FloatArray, rng: np.random.Generator) -> Any:
    """Draw from categorical distributions over the last axis."""
    below = np.cumsum(probability, axis=-1)[..., :-1]
    return (rng.random((*probability.shape[:-1], 1)) > below).sum(axis=-1)
