"""The Gaussian law of task coefficients, latent or waiting to be integrated out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import IntArray, Tensor
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.model.coords import FACTOR, bis
from bayes_mtl.model.feature_correlation import feature_correlation
from bayes_mtl.model.numbers import Numbers, constants
from bayes_mtl.model.priors import register
from bayes_mtl.prior import Prior
from bayes_mtl.structures import (
    CompletePooling,
    FeatureCovariance,
    Namer,
    NoPooling,
    TaskCovariance,
)


@dataclass(frozen=True)
class CoefficientPrior:
    """Law of the deviations L u_t of the coefficients from their means, given the hyperparameters.

    L = diag(sd) C is the Cholesky factor of Sigma. Inside the task covariance
    u_t = sum_k loadings_tk f_k + unique_sd_t e_t; outside u_t = e_t.

    Attributes
    ----------
    sd : (n_features,)
    correlation : (n_inside, n_inside)
        Cholesky factor of the correlation of the features inside the task covariance. The others are
        independent.
    loadings : (n_tasks, n_factors) or None
    unique_sd : (n_tasks,) or None
    inside : ndarray of int
        Positions of the features inside the task covariance.
    varies : bool
        False if beta equals its mean (complete pooling).
    """

    sd: Tensor
    correlation: Tensor
    loadings: Tensor | None
    unique_sd: Tensor | None
    inside: IntArray
    varies: bool

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.sd.type.shape[0])

    @property
    def n_tasks(self) -> int:
        """Number of tasks, where tasks deviate."""
        part: Tensor = self.unique_sd if self.unique_sd is not None else self.loadings
        return int(part.type.shape[0])

    @property
    def has_factors(self) -> bool:
        """Whether the entries of a few factors are variables beside the coefficients."""
        if not self.varies or self.loadings is None or self.unique_sd is None:
            return False
        return int(self.loadings.type.shape[1]) < self.n_tasks

    @property
    def law(self) -> dict[str, Tensor]:
        """What says all of the coefficients but their means."""
        return {
            "sd": self.sd,
            "correlation": self.correlation,
            "loadings": pt.zeros((self.n_tasks, 0)) if self.loadings is None else self.loadings,
            "unique_sd": pt.zeros(self.n_tasks) if self.unique_sd is None else self.unique_sd,
        }

    @property
    def own(self) -> IntArray:
        """Positions of the features in which tasks deviate on their own."""
        everything = np.arange(self.n_features)
        alone = self.varies and self.unique_sd is not None
        return everything if alone else np.setdiff1d(everything, self.inside)

    @property
    def n_common(self) -> int:
        """Number of entries of the factors f_k."""
        return 0 if self.loadings is None else int(self.loadings.type.shape[1]) * len(self.inside)


def coefficient_prior(
    *,
    task_covariance: TaskCovariance,
    feature_covariance: FeatureCovariance,
    outside: Sequence[str],
    tasks: Sequence[Any],
    features: Sequence[str],
    dims: tuple[str, str],
    feature_sd: Any,
    task_sd: Any,
    name: Namer,
    feature_sd_scale: Any = 1.0,
    numbers: Numbers = constants,
) -> CoefficientPrior:
    """Register the hyperparameters of a coefficient block in the current model.

    Parameters
    ----------
    feature_sd : list of Prior or float, or (n_features,)
        One per feature; a tensor is registered already.
    task_sd : Prior, float, (n_tasks,) or None
        One for all tasks; a tensor is registered already; None: no scale per task.
    name : Namer
        From the names of the notation to the names in this model.
    feature_sd_scale : Prior or float
        What the priors of `feature_sd` of slopes inside the task covariance are multiplied by.
    numbers : callable
        How the parameters of the priors enter the graph.
    """
    n_tasks, n_features = len(tasks), len(features)
    task_dim, feature_dim = dims
    if isinstance(task_covariance, CompletePooling):
        everything = np.arange(n_features)
        return CoefficientPrior(
            pt.ones(n_features), pt.eye(n_features), None, pt.zeros(n_tasks), everything, varies=False
        )

    inside = np.array([i for i, f in enumerate(features) if f not in outside], dtype=np.int64)
    sd = feature_sd
    if isinstance(feature_sd, list):
        factor = None
        together = [i for i in inside if features[i] != INTERCEPT]
        if feature_sd_scale != 1.0 and together:
            common = feature_sd_scale
            if isinstance(common, Prior):
                common = register(name("feature_sd_scale"), common, shape=(), numbers=numbers)
            factor = pt.set_subtensor(pt.ones(n_features)[np.array(together)], common)
        sd = register(name("feature_sd"), feature_sd, dims=feature_dim, factor=factor, numbers=numbers)
    independent = isinstance(task_covariance, NoPooling) or not len(inside)
    correlation = pt.eye(len(inside))
    if not independent:
        correlation = feature_correlation(feature_covariance, inside, n_features, feature_dim, name)

    law = task_covariance.task_loadings(tasks, name)
    if task_covariance.relates_tasks:
        corr = pt.zeros((n_tasks, n_tasks)) if law.loadings is None else law.loadings @ law.loadings.T
        if law.unique_sd is not None:
            corr = corr + pt.diag(law.unique_sd**2)
        pm.Deterministic(name("task_corr"), corr, dims=(task_dim, bis(task_dim)))
        if law.loadings is not None:
            factor_dim = name(FACTOR)
            if factor_dim not in pm.modelcontext(None).coords:
                pm.modelcontext(None).add_coord(factor_dim, range(law.loadings.type.shape[1]))
            pm.Deterministic(name("task_loadings"), law.loadings, dims=(task_dim, factor_dim))
        if law.unique_sd is not None:
            pm.Deterministic(name("task_unique_sd"), law.unique_sd, dims=task_dim)
    scale = None
    if law.reliability is not None:
        scale = pm.Deterministic(name("task_reliability"), law.reliability, dims=task_dim) ** -0.5
    if task_sd is not None:
        own = task_sd
        if isinstance(task_sd, Prior | float | int):
            own = register(name("task_sd"), task_sd, dims=task_dim, shape=(n_tasks,))
        scale = own if scale is None else scale * own
    loadings, unique_sd = law.loadings, law.unique_sd
    if scale is not None:
        loadings = None if loadings is None else scale[:, None] * loadings
        unique_sd = None if unique_sd is None else scale * unique_sd
    return CoefficientPrior(sd, correlation, loadings, unique_sd, inside, varies=True)
