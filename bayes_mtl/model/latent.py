"""Task coefficients as a random variable that bears their name, centered or not.

beta = mean + U L',    L = diag(sd) C,    U = A Z inside the task covariance, Z outside, Z standard normal

where A is lower triangular with A A' = Omega, or diagonal. A centered sampler moves beta, a non-centered one
Z; whoever holds draws of beta need not know which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.logprob.transforms import Transform

from bayes_mtl._typing import IntArray, Tensor
from bayes_mtl.kernels import product


class Noncentered(Transform):
    """The sampler moves Z. Inputs of the random variable: (size, mean, L, A or its diagonal, ...)."""

    name = "offset"

    def __init__(self, inside: IntArray):
        self.inside = inside

    def backward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Return beta of Z."""
        _, mean, L, tasks, *_ = inputs
        inside, n_features = self.inside, L.type.shape[0]
        if tasks.type.ndim == 1:
            U = value * pt.switch(np.isin(np.arange(n_features), inside), tasks[:, None], 1.0)
        elif len(inside) == n_features:
            U = product(tasks, value)
        else:
            U = pt.set_subtensor(value[:, inside], product(tasks, value[:, inside]))
        return mean + product(U, L.T)

    def forward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Return Z of beta."""
        _, mean, L, tasks, *_ = inputs
        inside, n_features = self.inside, L.type.shape[0]
        U = pt.linalg.solve_triangular(L, (value - mean).T, lower=True).T
        if tasks.type.ndim == 1:
            return U / pt.switch(np.isin(np.arange(n_features), inside), tasks[:, None], 1.0)
        within = pt.linalg.solve_triangular(tasks, U[:, inside], lower=True)
        return within if len(inside) == n_features else pt.set_subtensor(U[:, inside], within)

    def log_jac_det(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Return one log determinant per task."""
        _, _, L, tasks, *_ = inputs
        own = tasks if tasks.type.ndim == 1 else pt.diagonal(tasks)
        return pt.log(pt.diagonal(L)).sum() + len(self.inside) * pt.log(own)


def register_coefficients(
    name: str,
    mean: Tensor,
    L: Tensor,
    tasks: Tensor,
    inside: IntArray,
    *,
    dims: tuple[str, str],
    transform: Transform | None,
) -> Tensor:
    """Register beta in the current model.

    Its log density has an entry per task: given the tasks before it.

    Parameters
    ----------
    mean, L : (n_tasks, n_features), (n_features, n_features)
    tasks : (n_tasks,) or (n_tasks, n_tasks)
        The diagonal of A, or A.
    inside : ndarray of int
        Positions of the features inside the task covariance.
    transform : Transform or None
        `Noncentered`, or None: centered.
    """
    law, n_features = Noncentered(inside), int(L.type.shape[0])

    def logp(value: Tensor, *parameters: Tensor) -> Tensor:
        z = law.forward(value, None, *parameters)
        constant = 0.5 * n_features * np.log(2.0 * np.pi)
        return -0.5 * (z**2).sum(axis=1) - constant - law.log_jac_det(z, None, *parameters)

    def draw(*parameters: Any) -> Tensor:
        *law_, _ = parameters  # the last one is the size
        z = pm.Normal.dist(0.0, 1.0, shape=mean.type.shape)
        return law.backward(z, None, *law_)

    return pm.CustomDist(
        name,
        mean,
        L,
        tasks,
        logp=logp,
        dist=draw,
        signature=f"(t,p),(p,p),{'(t)' if tasks.type.ndim == 1 else '(t,t)'}->(t,p)",
        class_name="TaskCoefficients",
        dims=dims,
        transform=transform,
    )
