"""Task coefficients as a random variable that bears their name, centered or not.

beta = mean + U L',    L = diag(sd) C,    U = A Z inside the task covariance, Z outside, Z standard normal

where A is lower triangular with A A' = Omega, or diagonal. A centered sampler moves beta, a non-centered one
Z; whoever holds draws of beta need not know which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.logprob.transforms import Transform
from pytensor.graph.traversal import ancestors
from pytensor.tensor.type import discrete_dtypes

from bayes_mtl._typing import IntArray, Tensor
from bayes_mtl.kernels import product, repeat
from bayes_mtl.model.feature_correlation import embed
from bayes_mtl.structures import Namer

if TYPE_CHECKING:
    from bayes_mtl.model.coefficients import CoefficientPrior


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


class CenteredWhereRowsAreMany(Noncentered):
    """Decides when a density is built, since the rows of a model come after its coefficients.

    Centered if the outcomes that depend on the coefficients are many: `_MANY` values for each coefficient of
    a task, on average; of a discrete outcome, which says less, ten times as many.
    """

    _MANY = 10.0
    _VALUE_OF_DISCRETE = 0.1
    variable: Any = None  # the coefficients
    model: Any = None  # to which they belong

    @property
    def centered(self) -> bool:
        """Whether there are many rows now."""
        if self.model is None:  # being registered
            return False
        outcomes = [rv for rv in self.model.root.observed_RVs if self.variable in ancestors([rv])]
        found = 0.0
        for rv in outcomes:
            worth = self._VALUE_OF_DISCRETE if rv.type.dtype in discrete_dtypes else 1.0
            found += worth * _size(self.model.root.rvs_to_values[rv])
        return bool(found >= self._MANY * np.prod(self.variable.type.shape))

    def backward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Return beta of what the sampler moves."""
        return value if self.centered else super().backward(value, *inputs)

    def forward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Return what the sampler moves of beta."""
        return value if self.centered else super().forward(value, *inputs)

    def log_jac_det(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Return one log determinant per task."""
        found = super().log_jac_det(value, *inputs)
        return pt.zeros_like(found) if self.centered else found


def _size(value: Any) -> int:
    """Return how many numbers there are in an observed value."""
    shape = value.type.shape
    return int(np.prod(shape if None not in shape else value.shape.eval(mode="FAST_COMPILE")))


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

    beta = pm.CustomDist(
        name,
        mean,
        L,
        tasks,
        logp=logp,
        dist=draw,
        signature=f"(t,p),(p,p),{'(t)' if tasks.type.ndim == 1 else '(t,t)'}->(t,p)",
        class_name="TaskCoefficients",
        dims=dims,
        **({} if transform is None else {"transform": transform}),
    )
    if isinstance(transform, CenteredWhereRowsAreMany):
        transform.model, transform.variable = pm.modelcontext(None), beta
    return beta


def latent_coefficients(
    prior: CoefficientPrior,
    mean: Tensor,
    *,
    n_tasks: int,
    dims: tuple[str, str],
    name: Namer,
    centered: bool | Literal["auto"] = False,
    factors: bool = True,
) -> Tensor:
    """Register the coefficients themselves.

    Parameters
    ----------
    mean : (n_tasks, n_features) or (1, n_features)
    centered : bool or "auto"
        Whether a sampler moves the coefficients, or standard normals that they are an affine map of. "auto":
        see `CenteredWhereRowsAreMany`.
    factors : bool
        Whether the entries f_k of a few latent factors may be variables of their own, which saves a Cholesky
        factor of Omega.
    """
    mean = repeat(mean, n_tasks)
    if not prior.varies:
        return pm.Deterministic(name("beta"), mean, dims=dims)
    inside, n_features = prior.inside, prior.n_features
    loadings: Tensor = prior.loadings
    tasks: Tensor = prior.unique_sd
    correlation = prior.correlation
    if len(inside) < n_features:
        correlation = embed(correlation, inside, n_features)
    L = prior.sd[:, None] * correlation
    if loadings is not None and tasks is None:
        tasks = loadings  # square and lower triangular
    elif factors and prior.has_factors:
        f = pm.Normal(name("basis_offset"), 0.0, 1.0, shape=(loadings.type.shape[1], len(inside)))
        if len(inside) < n_features:
            f = product(f, pt.as_tensor_variable(np.eye(n_features)[inside]))
        mean = mean + product(product(loadings, f), L.T)
    elif loadings is not None:
        tasks = pt.linalg.cholesky(product(loadings, loadings.T) + pt.diag(tasks**2))
    transform: Noncentered | None = None
    if centered == "auto":
        transform = CenteredWhereRowsAreMany(inside)
    elif not centered:
        transform = Noncentered(inside)
    return register_coefficients(name("beta"), mean, L, tasks, inside, dims=dims, transform=transform)
