"""The law of task coefficients that belong to one of several components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Label, Tensor
from bayes_mtl.kernels import product
from bayes_mtl.model.coords import CLUSTER, bis
from bayes_mtl.model.feature_correlation import feature_correlation
from bayes_mtl.model.numbers import Numbers, constants
from bayes_mtl.model.priors import register
from bayes_mtl.structures import FeatureCovariance, Namer, TaskMixture

CLUSTER_COV = "cluster_cov"  # how coefficients vary within each component, where components differ in it


@dataclass(frozen=True)
class MixturePrior:
    """Deviations from the means: centre_k + L_k e_t for a task of component k, given the hyperparameters.

    Attributes
    ----------
    log_weight : (1, K) or (n_tasks, K)
    centre : (K, n_features)
    cholesky : (1, n_features, n_features) or (K, n_features, n_features)
        L_k.
    """

    log_weight: Tensor
    centre: Tensor
    cholesky: Tensor

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.centre.type.shape[1])

    @property
    def n_components(self) -> int:
        """Number of components."""
        return int(self.centre.type.shape[0])

    @property
    def law(self) -> dict[str, Tensor]:
        """What says all of the coefficients but their means."""
        return {"log_weight": self.log_weight, "centre": self.centre, "cholesky": self.cholesky}

    def padded_centre(self, n_columns: int) -> Tensor:
        """Return the centres with zeros for the shared columns."""
        if n_columns == self.n_features:
            return self.centre
        return pt.concatenate(
            [self.centre, np.zeros((self.n_components, n_columns - self.n_features))], axis=1
        )


def mixture_prior(
    structure: TaskMixture,
    feature_covariance: FeatureCovariance,
    *,
    tasks: Sequence[Label],
    features: Sequence[str],
    dims: tuple[str, str],
    feature_sd: Any,
    cluster_sd: Any,
    mean: Tensor | None,
    name: Namer,
    numbers: Numbers = constants,
) -> MixturePrior:
    """Register the hyperparameters of a mixture in the current model.

    Parameters
    ----------
    mean : (n_features,) or None
        Around which the centres of clusters lie. None: their deviations from the mean of each task are
        registered, as ``cluster_deviation``, and not ``cluster_mean``.
    others
        As in `coefficient_prior`.
    """
    model, n = pm.modelcontext(None), len(features)
    cluster_dim, feature_dim = name(CLUSTER), dims[1]
    names = list(structure.component_names(tasks))
    model.add_coord(cluster_dim, names)
    sd = register(name("feature_sd"), feature_sd, dims=feature_dim, numbers=numbers)
    correlation = feature_correlation(feature_covariance, np.arange(n), n, feature_dim, name)
    found = structure.components(tasks, n, name)
    centre = pt.zeros((len(names), n))
    if structure.has_centres:
        # Centered: the tasks of a cluster say where it lies, and there are too few clusters for its prior to.
        apart = register(name("cluster_sd"), cluster_sd, dims=feature_dim, numbers=numbers)
        options = {"shape": (len(names), n), "dims": (cluster_dim, feature_dim)}
        around = pt.zeros(n) if mean is None else mean
        centre = pm.Normal(
            name("cluster_mean" if mean is not None else "cluster_deviation"), around, apart, **options
        )
        centre = centre - around
    cholesky = (sd[:, None] * correlation)[None]
    if found.factors is not None:
        R = product(correlation, correlation.T)
        if found.rest is not None:
            R = found.rest**2 * R
        shapes = [R + product(F, F.T) for F in (found.factors[k] for k in range(len(names)))]
        cholesky = pt.stack([sd[:, None] * pt.linalg.cholesky(shape) for shape in shapes])
        whole = pt.stack([sd[:, None] * shape * sd for shape in shapes])
        pm.Deterministic(name(CLUSTER_COV), whole, dims=(cluster_dim, feature_dim, bis(feature_dim)))
    return MixturePrior(found.log_weight, centre, cholesky)


def draw_deviations(log_weight: Tensor, centre: Tensor, cholesky: Tensor, n_tasks: int) -> Tensor:
    """Return a draw of the deviations from the means; of as many columns as the centres have."""
    n_components, n_columns = centre.type.shape
    n_features = cholesky.type.shape[-1]
    label = pm.Categorical.dist(pt.broadcast_to(pt.exp(log_weight), (n_tasks, n_components)))
    L = cholesky[label] if cholesky.type.shape[0] != 1 else cholesky[pt.zeros_like(label)]
    white = pm.Normal.dist(0.0, 1.0, shape=(n_tasks, n_features))
    deviation = (L * white[:, None, :]).sum(axis=-1)
    if n_columns != n_features:  # shared columns do not deviate
        deviation = pt.concatenate([deviation, pt.zeros((n_tasks, n_columns - n_features))], axis=1)
    return centre[label] + deviation


def latent_mixture(
    prior: MixturePrior, mean: Tensor, *, n_tasks: int, dims: tuple[str, str], name: Namer
) -> Tensor:
    """Register the coefficients themselves, with the labels of their components summed out."""
    mean = pt.broadcast_to(pt.as_tensor_variable(mean), (n_tasks, prior.n_features))

    def logp(value: Tensor, mean: Tensor, log_weight: Tensor, centre: Tensor, cholesky: Tensor) -> Tensor:
        by_component = []
        for k in range(prior.n_components):
            L = cholesky[k if cholesky.type.shape[0] != 1 else 0]
            white = pt.linalg.solve_triangular(L, (value - mean - centre[k]).T, lower=True)
            log_det = pt.log(pt.diagonal(L)).sum() + 0.5 * prior.n_features * np.log(2 * np.pi)
            by_component.append(-0.5 * (white**2).sum(axis=0) - log_det)
        return pt.logsumexp(log_weight + pt.stack(by_component, axis=1), axis=1)

    def draw(mean: Tensor, log_weight: Tensor, centre: Tensor, cholesky: Tensor, size: Any) -> Tensor:
        return mean + draw_deviations(log_weight, centre, cholesky, n_tasks)

    return pm.CustomDist(
        name("beta"),
        mean,
        prior.log_weight,
        prior.centre,
        prior.cholesky,
        logp=logp,
        dist=draw,
        signature="(t,p),(w,k),(k,p),(l,p,p)->(t,p)",
        class_name="TaskMixture",
        dims=dims,
    )
