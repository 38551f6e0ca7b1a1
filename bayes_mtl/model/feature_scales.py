"""Scales of coefficients that are decided for all features together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, IntArray, Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.data.dependence import is_constant
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.model.coords import CANDIDATE, FEATURE, TASK
from bayes_mtl.model.numbers import Numbers
from bayes_mtl.model.priors import register
from bayes_mtl.model.units import outcome_units
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import Candidates, FeatureLaw

# The size of the population mean of a candidate feature is left to its scale.
STANDARD = Prior("Normal", mu=0, sigma=1)


@dataclass(frozen=True)
class ScaledFeatures:
    """The law of the candidate features, and where they are among the features that vary by task.

    Attributes
    ----------
    at : (C,)
    law : FeatureLaw
    feature_sd : (P,)
        Of all features.
    """

    at: IntArray
    law: FeatureLaw
    feature_sd: Tensor


def place(base: Tensor, at: IntArray, values: Tensor) -> Tensor:
    """Return `base` with `values` in the rows `at`; a slice compiles faster than positions."""
    first, last = int(at[0]), int(at[-1]) + 1
    return pt.set_subtensor(base[first:last] if last - first == len(at) else base[at], values)


def scaled_features(
    spec: ModelSpec,
    data: TaskData,
    priors: dict[str, Any],
    sigma: Tensor | None,
    numbers: Numbers,
) -> ScaledFeatures | None:
    """Register the scales of the candidate features in the current model, if the description has any.

    Those of the others keep their priors, and population means of candidates are standardised in `priors`.
    """
    if spec.feature_scales is None:
        return None
    pm.modelcontext(None).add_coord(CANDIDATE, list(spec.candidates(data)))
    at = np.array([i for i, f in enumerate(data.features) if f in spec.candidates(data)], dtype=np.int64)
    unit = outcome_units(spec, data).scale
    rest = [i for i, f in enumerate(data.features) if f == INTERCEPT]
    candidates = Candidates(
        inverse_sd=pt.as_tensor_variable(numbers("inverse_sd", 1.0 / column_sd(spec, data)[at])),
        unit=pt.as_tensor_variable(numbers("unit", np.float64(unit))),
        noise=_noise_scale(spec, data, sigma, numbers),
        rows_per_task=pt.as_tensor_variable(numbers("rows_per_task", np.float64(_rows_per_task(data)))),
        n_tasks=data.n_tasks,
        dims=(TASK, CANDIDATE),
    )
    law = spec.feature_scales.law(candidates, str)
    sd = pt.zeros(data.n_features)
    if rest:
        own = [priors["feature_sd"][i] for i in rest]
        sd = place(sd, np.array(rest), register("feature_sd_part", own, numbers=numbers))
    sd = pm.Deterministic("feature_sd", place(sd, at, law.feature_sd), dims=FEATURE)
    pm.Deterministic("beta_mean_sd", law.mean_sd, dims=CANDIDATE)
    signal = (law.mean_sd**2 + law.feature_sd**2) / (candidates.noise * candidates.inverse_sd) ** 2
    pm.Deterministic("feature_shrinkage", 1.0 / (1.0 + candidates.rows_per_task * signal), dims=CANDIDATE)
    priors["beta_mean"] = standardised(priors["beta_mean"], at)
    return ScaledFeatures(at, law, sd)


def standardised(priors: Sequence[Any], at: IntArray) -> list[Any]:
    """Return the priors of population means, standard normal `at` the candidate features."""
    return [STANDARD if i in at else p for i, p in enumerate(priors)]


def _noise_scale(spec: ModelSpec, data: TaskData, sigma: Tensor | None, numbers: Numbers) -> Tensor:
    """Return one scale of the noise: of a row of weight one, in the middle of those of tasks."""
    if not spec.family.has_noise:
        return pt.as_tensor_variable(spec.family.latent_sd)
    if data.noise is not None:
        return pt.as_tensor_variable(numbers("noise_scale", np.float64(np.median(data.noise))))
    assert sigma is not None
    return sigma[0] if sigma.type.shape[0] == 1 else pm.modelcontext(None)["sigma_mean"]


def column_sd(spec: ModelSpec, data: TaskData) -> FloatArray:
    """Return the standard deviation of every feature over all rows: what explained variance is made of."""
    share = spec.family.row_weights(data)
    share = share / share.sum()
    return np.sqrt(share @ (data.X - share @ data.X) ** 2)


def coefficient_sizes(spec: ModelSpec, data: TaskData, unit: float) -> FloatArray:
    """Return the coefficient of each feature that moves the outcome by `unit` for one standard deviation.

    Infinite for the intercept and for other columns that never change.
    """
    sd = column_sd(spec, data)
    return np.array([np.inf if is_constant(x) else unit / s for x, s in zip(data.X.T, sd, strict=True)])


def _rows_per_task(data: TaskData) -> float:
    return float(data.weights.sum() / data.n_tasks)
