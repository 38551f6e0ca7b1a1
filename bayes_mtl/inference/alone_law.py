"""What the hyperprior of a fit says of a task if it were the only one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData
from bayes_mtl.inference.alone import LawOfOne
from bayes_mtl.inference.attributes import data_of, spec_of
from bayes_mtl.inference.hyperdraws import thinned
from bayes_mtl.inference.stored_draws import read
from bayes_mtl.model import default_priors, integrated_population, outcome_units
from bayes_mtl.model.feature_scales import coefficient_sizes
from bayes_mtl.model.mixture import CLUSTER_COV
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import CompletePooling

_SLICES = 64  # of equal probability, of a prior that is no such mixture: each replaced by a normal law


def law_of_one(idata: xr.DataTree, draws: int, rng: np.random.Generator) -> LawOfOne:
    """Read what the draws of the prior of a fit say of each task."""
    return law_of_prior(spec_of(idata), data_of(idata), idata["prior"].to_dataset(), draws, rng)


def law_of_prior(
    spec: ModelSpec, data: TaskData, prior: xr.Dataset, draws: int, rng: np.random.Generator
) -> LawOfOne:
    """Read what draws of the prior say of each task, if it were the only one.

    Tasks are alike a priori: their correlation says nothing of one alone. A population mean whose prior is
    not normal is a mixture of normal laws too (of a Student t: with gamma distributed precisions).
    """
    prior = thinned(prior, draws)
    n, P = prior.sizes["draw"], data.n_features
    mean, variance = _population(spec, data, prior, rng)
    own = np.zeros((n, P, P))
    scale = np.ones((n, data.n_tasks, P))
    outside = np.isin(data.features, spec.outside(data.features))
    if not isinstance(spec.task_covariance, CompletePooling):
        own = _covariance(spec, prior, P, rng)
        size = np.ones((n, data.n_tasks))
        if "task_sd" in prior:
            size = size * read(prior, "task_sd", "task")
        if "task_reliability" in prior:
            size = size / np.sqrt(read(prior, "task_reliability", "task"))
        scale = np.where(outside, 1.0, size[..., None])
    if "cluster_mean" in prior:
        apart = np.array([_fixed_or_drawn(p, n, rng) for p in default_priors(spec, data)[0]["cluster_sd"]])
        apart = read(prior, "cluster_sd", "feature") if "cluster_sd" in prior else apart.T
        own = own + apart[:, :, None] ** 2 * np.eye(P)
    if spec.feature_scales is None or data.noise is not None or "sigma" not in prior:
        return LawOfOne(mean, own, scale, variance)
    at = np.isin(data.features, prior["candidate_feature"].to_numpy())
    sigma = read(prior, "sigma") if "task" not in prior["sigma"].dims else read(prior, "sigma_mean")
    unit = getattr(spec.feature_scales, "unit", None) or outcome_units(spec, data).scale
    size = coefficient_sizes(spec, data, unit)[at]
    of_mean, of_task = read(prior, "beta_mean_sd", "candidate_feature"), read(prior, "feature_sd", "feature")
    relative = np.hypot(of_mean, of_task[:, at]) / size

    def follow(ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
        assert spec.feature_scales is not None
        each, moved = np.ones((n, P)), variance.copy()
        each[:, at] = spec.feature_scales.at_noise(relative, ratio[:, None]) / relative
        moved[:, :, np.flatnonzero(at)] += ((each[:, at] ** 2 - 1.0) * of_mean**2)[:, None]
        return each[:, :, None] * own * each[:, None, :], moved

    return LawOfOne(mean, own, scale, variance, follow, sigma)


def _covariance(spec: ModelSpec, prior: xr.Dataset, P: int, rng: np.random.Generator) -> FloatArray:
    n = prior.sizes["draw"]
    if CLUSTER_COV in prior:
        of_components = read(prior, CLUSTER_COV, "cluster", "feature", "feature_bis")
        return np.asarray(of_components[np.arange(n), rng.integers(of_components.shape[1], size=n)])
    if "feature_sd" not in prior:
        return np.tile(np.eye(P), (n, 1, 1))
    sd = read(prior, "feature_sd", "feature")
    R = np.tile(np.eye(P), (n, 1, 1))
    if "feature_corr" in prior:
        R = read(prior, "feature_corr", "feature", "feature_bis")
    return sd[:, :, None] * R * sd[:, None, :]


def _population(
    spec: ModelSpec, data: TaskData, prior: xr.Dataset, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the means of coefficients (H, T or 1, F), and the variance of what moves them (H, T or 1, F)."""
    effects, n = integrated_population(spec, data), prior.sizes["draw"]
    n_columns = data.full_matrix.shape[1]
    size = np.ones((n, len(effects.column)))
    if "beta_mean_sd" in prior:
        at = np.isin(data.features, prior["candidate_feature"].to_numpy())
        size[:, effects.integrated["beta_mean"].position[at]] = read(
            prior, "beta_mean_sd", "candidate_feature"
        )
    by_task = bool(data.task_feature_names)
    shape = (n, data.n_tasks if by_task else 1, n_columns)
    mean, variance = np.zeros(shape), np.zeros(shape)
    mean += effects.fixed
    for c, column in enumerate(effects.column):
        variance[:, :, column] += np.square(size[:, c, None] * effects.design[c, : shape[1]])
    priors = default_priors(spec, data)[0]
    first = {"beta_mean": 0, "beta_shared": data.n_features}
    for name, start in first.items():
        if name not in effects.integrated:
            for j, one in enumerate(priors[name]):
                about, spread = normal_mixture(one, n, rng)
                mean[:, :, start + j] += about[:, None]
                variance[:, :, start + j] += spread[:, None]
    if data.task_feature_names and "task_feature_effects" not in effects.integrated:
        for j, row in enumerate(priors["task_feature_effects"]):
            for q, one in enumerate(row):
                about, spread = normal_mixture(one, n, rng)
                mean[:, :, j] += about[:, None] * data.task_features[:, q]
                variance[:, :, j] += spread[:, None] * data.task_features[:, q] ** 2
    return mean, variance


def normal_mixture(prior: Any, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return means and variances of n normal laws that a prior of a location is the mixture of.

    References
    ----------
    Andrews & Mallows (1974), Scale mixtures of normal distributions, JRSS B 36.
    """
    if not isinstance(prior, Prior):
        return np.full(n, float(prior)), np.zeros(n)
    p, even = dict(prior.params), rng.permutation((np.arange(n) + 0.5) / n)
    name = prior.distribution
    if name not in ("Normal", "Cauchy", "StudentT", "Laplace", "Logistic"):
        at = (np.floor(even * _SLICES) + 0.5) / _SLICES
        middle, below, above = (prior.frozen().ppf(at + step / _SLICES) for step in (0.0, -0.25, 0.25))
        return middle, np.square(above - below)
    centre = np.full(n, p["alpha"] if name == "Cauchy" else p["mu"])
    if name == "Normal":
        variance = np.full(n, p["sigma"] ** 2)
    elif name == "Cauchy":
        variance = p["beta"] ** 2 / stats.chi2.ppf(even, 1.0)
    elif name == "StudentT":
        variance = p["sigma"] ** 2 * p["nu"] / stats.chi2.ppf(even, p["nu"])
    elif name == "Laplace":
        variance = -2.0 * p["b"] ** 2 * np.log1p(-even)
    else:  # logistic: twice a variable of Kolmogorov's law
        assert name == "Logistic"
        variance = (2.0 * p["s"] * stats.kstwobign.ppf(even)) ** 2
    return centre, variance


def _fixed_or_drawn(prior: Any, n: int, rng: np.random.Generator) -> FloatArray:
    if not isinstance(prior, Prior):
        return np.full(n, float(prior))
    return np.asarray(prior.frozen().ppf(rng.permutation((np.arange(n) + 0.5) / n)))


def log_prior_of_noise(idata: xr.DataTree, draws: int) -> Callable[[FloatArray], FloatArray] | float:
    """Return the log density of the noise scale of one task before any data; its value, if that is known."""
    spec, data = spec_of(idata), data_of(idata)
    prior = 1.0 if data.noise is not None else default_priors(spec, data)[0]["sigma"]
    drawn = thinned(idata["prior"].to_dataset(), draws)
    ratio = np.ones(1)
    if "sigma_mean" in drawn and "task" in drawn["sigma"].dims:
        ratio = (read(drawn, "sigma", "task") / read(drawn, "sigma_mean")[:, None])[:, 0]
    if not isinstance(prior, Prior):
        if len(ratio) == 1:
            return float(prior)
        centre, spread = float(prior) * np.exp(np.log(ratio).mean()), np.log(ratio).std()
        return lambda sigma: np.asarray(stats.lognorm.logpdf(sigma, spread, scale=centre))
    density = prior.frozen().logpdf

    def of_mixture(sigma: FloatArray) -> FloatArray:
        every = density(sigma[:, None] / ratio) - np.log(ratio)
        return np.asarray(np.logaddexp.reduce(every, axis=1) - np.log(len(ratio)))

    return of_mixture
