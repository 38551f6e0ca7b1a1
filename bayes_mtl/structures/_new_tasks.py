"""Deviations of new tasks given those of the known ones, where a structure relates them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.structures.base import KnownTasks, TaskCovariance


def draw_related(
    structure: TaskCovariance, new: Sequence[Label], known: KnownTasks, rng: np.random.Generator
) -> FloatArray:
    """Draw new tasks given the known ones, as far as the structure knows how they relate.

    With Omega of all tasks = L L', lower triangular, known tasks first: given the deviations D of the known
    tasks, those of the new ones are A D + C E, E standard normal, with

        A = L_no L_oo^-1 = Omega_no Omega_oo^-1,        C = L_nn, C C' = Omega_nn - A Omega_on
    """
    drawn = known.standard_normal(len(new), rng)
    related = np.array([structure.knows(task) for task in new])
    if not related.any():
        return drawn
    n_known = len(known.labels)
    tasks = [*known.labels, *(task for task, is_related in zip(new, related, strict=True) if is_related)]

    def law() -> list[Tensor]:
        found = structure.task_loadings(tasks, known.name)
        lower: Tensor = found.loadings
        if not structure.triangular:
            own: Tensor = found.unique_sd
            lower = pt.linalg.cholesky(lower @ lower.T + pt.diag(own**2))
        transposed = lower[:n_known, :n_known].T
        A = pt.linalg.solve_triangular(transposed, lower[n_known:, :n_known].T, lower=False).T
        return [A, lower[n_known:, n_known:]]

    A, C = known.evaluate(law)
    drawn[:, related] = A @ known.deviations() + C @ drawn[:, related]
    return drawn


def draw_from_basis(raw: FloatArray, known: KnownTasks, rng: np.random.Generator) -> FloatArray:
    """Draw new tasks with these loadings on the latent vectors that the known tasks revealed.

    With a_t = Lambda_t / delta_t, the loadings of a factor model before they are scaled, and deviations D of
    the known tasks, the latent vectors are Gaussian given both:

        f | D ~ N(Q^-1 A' Delta^-1 D, Q^-1 (x) I),      Q = I + A'A

    The basis is drawn once per draw: new tasks share it, and each has loadings of its own.

    Parameters
    ----------
    raw : (draw, new task, factor)
        a of the new tasks.
    """
    unique_sd = known.read("task_unique_sd")[..., None]
    A = known.read("task_loadings") / unique_sd
    At = np.swapaxes(A, -1, -2)
    root = np.linalg.cholesky(np.eye(A.shape[-1]) + At @ A)
    white = np.linalg.solve(root, At @ (known.deviations() / unique_sd))
    white = white + rng.standard_normal(white.shape)
    basis = np.linalg.solve(np.swapaxes(root, -1, -2), white)
    own = known.standard_normal(raw.shape[1], rng)
    return np.asarray((raw @ basis + own) / np.sqrt(1.0 + (raw**2).sum(axis=-1, keepdims=True)))
