"""What learning together is compared with: each task alone, and one model for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData
from bayes_mtl.inference.alone import adaptive_grid, floor, score_alone
from bayes_mtl.inference.alone_law import law_of_one, log_prior_of_noise
from bayes_mtl.inference.attributes import data_of, spec_of
from bayes_mtl.inference.leave_out import Stored, is_closed
from bayes_mtl.model import default_priors, explicit_priors
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec, PriorEntry, PriorValue, scaled_together
from bayes_mtl.structures import CompletePooling, NoPooling, StudentT, TaskMixture
from bayes_mtl.summaries.refit import quick_fit
from bayes_mtl.summaries.row_scores import BATCHES, RowScores, row_densities, smoothed_weights

_STEPS, _MANY = 64, 10_000  # of a grid of the noise scale; half of them for many rows
_ODD = 5  # rows without which it may be quite another
_LEAST_PRIOR_DRAWS, _PRIOR_DRAWS, _TASK_DRAWS = 200, 1000, 200_000


def alone_spec(spec: ModelSpec, data: TaskData) -> ModelSpec:
    """Describe every task alone, with a normal prior as wide as the one that it would have as the only one.

    beta_t = mean + deviation has variance sd(mean)^2 + E[feature_sd^2]. Where that is infinite, the normal
    law has the same central 90 %.
    """
    priors, scales = default_priors(spec, data)
    common, outside = _size(priors["feature_sd_scale"]), spec.outside(data.features)
    together = scaled_together(spec.task_covariance, spec.independent_features, data.features)
    heavy = _size_of_tails(spec)
    centre: dict[str, PriorValue] = {}
    width: dict[str, PriorValue] = {}
    for feature, mean, deviation, apart in zip(
        data.features, priors["beta_mean"], priors["feature_sd"], priors["cluster_sd"], strict=True
    ):
        spread = _size(deviation) * (common if feature in together else 1.0)
        spread *= 1.0 if feature in outside else heavy
        if isinstance(spec.task_covariance, TaskMixture) and spec.task_covariance.has_centres:
            spread = float(np.hypot(spread, _size(apart)))
        centre[feature], about = _middle(mean)
        width[feature] = float(np.hypot(about, spread))
    if spec.feature_scales is not None:
        at = dict(zip(data.features, scales["beta_mean"], strict=True))
        for feature in spec.candidates(data):  # as wide as the default
            centre[feature], width[feature] = 0.0, 2.5 * float(at[feature])
    kept = _kept(spec, ("sigma", "sigma_spread", "beta_shared"))
    return replace(
        spec,
        task_covariance=NoPooling(),
        independent_features=None,
        task_sd=False,
        feature_scales=None,
        priors={**kept, "beta_mean": centre, "feature_sd": width},
    )


def _size_of_tails(spec: ModelSpec) -> float:
    """Return sqrt(E[1 / reliability]) of a `StudentT` with known degrees of freedom."""
    structure = spec.task_covariance
    nu = structure.nu if isinstance(structure, StudentT) else None
    return float(np.sqrt(nu / (nu - 2.0))) if isinstance(nu, int | float) and nu > 2.0 else 1.0


def _size(prior: PriorValue) -> float:
    """Return the root mean square of a scale."""
    if not isinstance(prior, Prior):
        return abs(float(prior))
    law = prior.frozen()
    square = float(law.moment(2))
    if np.isfinite(square) and square > 0:
        return float(np.sqrt(square))
    return float(law.ppf(0.9) / norm.ppf(0.95))


def _middle(prior: PriorValue) -> tuple[float, float]:
    """Return centre and standard deviation of a location."""
    if not isinstance(prior, Prior):
        return float(prior), 0.0
    law = prior.frozen()
    with np.errstate(all="ignore"):
        first, second = (float(law.moment(order)) for order in (1, 2))
    if np.isfinite(first) and np.isfinite(second) and second > first**2:
        return first, float(np.sqrt(second - first**2))
    return float(law.ppf(0.5)), float((law.ppf(0.95) - law.ppf(0.05)) / (2 * norm.ppf(0.95)))


def pooled_spec(spec: ModelSpec, data: TaskData) -> ModelSpec:
    """Describe one coefficient vector for all tasks."""
    kept = _kept(spec, ("sigma", "sigma_spread", "beta_shared", "beta_mean", "task_feature_effects"))
    pooled = replace(
        spec,
        task_covariance=CompletePooling(),
        independent_features=None,
        task_sd=False,
        feature_scales=None,
        priors=kept,
    )
    return explicit_priors(pooled, data)


def _kept(spec: ModelSpec, names: tuple[str, ...]) -> dict[str, PriorEntry]:
    return {name: entry for name, entry in spec.priors.items() if name in names}


def alone_scores(idata: xr.DataTree) -> RowScores | None:
    """Score each row given the other rows of its task, with the prior that a task has as the only one.

    Its coefficients, shared slopes and noise are its own; their law under the hyperprior is integrated over
    draws of it, and over the noise scale by quadrature. None where that is not closed: outcomes that are not
    Gaussian, and effects of the levels of groupings, which tasks have in common.
    """
    spec, data = spec_of(idata), data_of(idata)
    if not spec.family.gaussian_coefficients or data.groupings:
        return None
    draws = int(np.clip(_TASK_DRAWS // data.n_tasks, _LEAST_PRIOR_DRAWS, _PRIOR_DRAWS))
    law = law_of_one(idata, draws, np.random.default_rng(0))
    found = score_alone(data, law, log_prior_of_noise(idata, draws), BATCHES)
    _, k = smoothed_weights(-found.log_weight)
    return RowScores(found.density, np.ones(data.n_rows), k[data.task_index], found.error)


def alone_fit(idata: xr.DataTree, **sampler: Any) -> tuple[xr.DataTree, Callable[[xr.DataTree], FloatArray]]:
    """Fit every task alone where that is not closed, with shared slopes of its own.

    Under a normal prior of coefficients; with it comes what weighs its draws as under the prior that a task
    has as the only one, log p(beta_t) - log N(beta_t), (D, T).
    """
    spec, data = spec_of(idata), data_of(idata)
    own = own_slopes(data)
    alone = alone_spec(spec, data)
    priors = {name: entry for name, entry in alone.priors.items() if name != "beta_shared"}
    slopes = zip(data.shared_features, default_priors(spec, data)[0]["beta_shared"], strict=True)
    of_slopes = {feature: _middle(prior) for feature, prior in slopes}
    centre = {**dict(priors["beta_mean"]), **{f: m for f, (m, _) in of_slopes.items()}}  # type: ignore[arg-type]
    width = {**dict(priors["feature_sd"]), **{f: s for f, (_, s) in of_slopes.items()}}  # type: ignore[arg-type]
    alone = replace(alone, priors={**priors, "beta_mean": centre, "feature_sd": width})
    draws = int(np.clip(_TASK_DRAWS // data.n_tasks, _LEAST_PRIOR_DRAWS, _PRIOR_DRAWS))
    law = law_of_one(idata, draws, np.random.default_rng(0))
    columns = [*data.features, *data.shared_features]
    middle = np.array([centre[f] for f in columns], dtype=float)
    spread = np.maximum(np.array([width[f] for f in columns], dtype=float), 1e-300)

    def log_ratio(fitted: xr.DataTree) -> FloatArray:
        beta = fitted["posterior"]["beta"].sel(feature=columns).transpose("task", "chain", "draw", "feature")
        values = beta.to_numpy().reshape(data.n_tasks, -1, len(columns))
        proposal = (-0.5 * ((values - middle) / spread) ** 2 - np.log(spread)).sum(axis=-1)
        proposal -= 0.5 * len(columns) * np.log(2.0 * np.pi)
        return np.stack([law.log_density(t, values[t]) - proposal[t] for t in range(data.n_tasks)], axis=1)

    return quick_fit(own, alone, "each task alone", **sampler), log_ratio


def own_slopes(data: TaskData) -> TaskData:
    """Let the slopes vary that all tasks share."""
    if not data.shared_features:
        return data
    at = {name: data.full_matrix[:, j] for j, name in enumerate([*data.features, *data.shared_features])}
    X = np.column_stack([at[name] for name in data.schema.design.columns])
    schema = replace(data.schema, shared=())
    return replace(data, X=X, X_shared=np.zeros((data.n_rows, 0)), schema=schema)


def pooled_scores(spec: ModelSpec, data: TaskData) -> RowScores | None:
    """Score each row given all others where the noise scale is all there is to learn, else None.

    It is integrated over a grid of its posterior, so nothing is sampled.
    """
    plain = spec.family.gaussian_coefficients and not getattr(spec.family, "task_noise", False)
    if not plain or not is_closed(spec) or data.groupings or spec.feature_scales is not None:
        return None
    prior: Any = 1.0 if data.noise is not None else default_priors(spec, data)[0]["sigma"]
    if Stored.at(spec, data, np.ones(1)).population.sampled is not None:
        return None

    error = data.y - data.offset - data.full_matrix @ data.pseudo_rows.reference
    odd = np.argsort(-np.abs(error) * np.sqrt(data.precision), kind="stable")[:_ODD]

    def height(sigma: FloatArray) -> FloatArray:
        """Return log p(sigma | y), and without the rows that are hardest to predict."""
        found = []
        for _, piece in Stored.at(spec, data, sigma).chunks():
            whole = piece.log_marginal(data)
            rows = [piece.row_log_density(data, slice(i, i + 1))[:, 0] for i in odd]
            found.append(np.stack([whole, *(whole - row for row in rows)]))
        known = prior.frozen().logpdf(sigma) + floor(sigma, float(data.pseudo_rows.rest.sum()))
        return np.asarray(np.concatenate(found, axis=1) + known + np.log(sigma))  # even steps

    sigma, log_weight = np.array([prior if not isinstance(prior, Prior) else 1.0]), np.zeros(1)
    if isinstance(prior, Prior):
        rows = data.pseudo_rows
        about = float(np.sqrt((rows.rest.sum() + (rows.target**2).sum()) / data.n_rows))
        sigma = adaptive_grid(height, about, _STEPS if data.n_rows < _MANY else _STEPS // 2)
        log_weight = height(sigma)[0]
    density, log_weight = np.empty(data.n_rows), log_weight - logsumexp(log_weight)
    for at, by_sigma in row_densities(Stored.at(spec, data, sigma), data):
        # p(y_i | rest) = 1 / E[1 / p(y_i | rest, sigma)]
        density[at] = -logsumexp(log_weight[:, None] - by_sigma, axis=0)
    none = np.zeros((BATCHES, data.n_tasks))
    return RowScores(density, np.ones(data.n_rows), np.zeros(data.n_rows), none)
