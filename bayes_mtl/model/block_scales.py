"""Scales that are decided for all features together, in a block of somebody's own model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Tensor
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.errors import Finding
from bayes_mtl.model.coords import CANDIDATE
from bayes_mtl.model.feature_scales import place
from bayes_mtl.model.priors import register
from bayes_mtl.structures import (
    Candidates,
    CompletePooling,
    FeatureScales,
    Namer,
    NoPooling,
    TaskCovariance,
    TaskMixture,
)


@dataclass(frozen=True)
class ScaledBy:
    """What scales of features are relative to in a model of your own.

    Parameters
    ----------
    noise : number or variable of the model
        Standard deviation of a row given its mean; for a logit pi / sqrt(3).
    rows_per_task : float
    features : number, sequence or mapping, optional
        Standard deviation of each feature over all rows (a sequence: without the intercept, in order).
        Default 1, standardised features.
    outcome : float, optional
        Size of the outcome, for `Horseshoe`: its standard deviation, 1 for a logit. Default 1.

    Examples
    --------
    >>> import pymc as pm, bayes_mtl as mtl
    >>> with pm.Model(coords={"task": list("abc"), "feature": ["Intercept", "x1", "x2"]}):
    ...     sigma = pm.HalfNormal("sigma", 1)
    ...     by = mtl.ScaledBy(noise=sigma, rows_per_task=50)
    ...     beta = mtl.task_coefficients("beta", feature_scales=mtl.R2D2M2(), scaled_by=by)
    """

    noise: Any
    rows_per_task: float
    features: Any = 1.0
    outcome: float = 1.0

    def spread(self, features: Sequence[str]) -> Any:
        """Return the standard deviation of each of these features; NaN where it is not known."""
        if isinstance(self.features, Mapping):
            return np.array([float(self.features.get(f, np.nan)) for f in features])
        given = np.asarray(self.features, dtype=float)
        return np.broadcast_to(given, (len(features),)) if given.shape in ((), (len(features),)) else given


def scale_findings(
    scales: Any,
    by: Any,
    structure: TaskCovariance,
    features: Sequence[str],
    given: Mapping[str, Any],
    mean: Any,
) -> list[Finding]:
    """Return what does not fit between scales of features and a block."""
    if scales is None:
        return (
            [Finding("scaled_by", "is about `feature_scales`, which are not given")] if by is not None else []
        )
    if not isinstance(scales, FeatureScales) or not isinstance(by, ScaledBy):
        hint = "For example feature_scales=R2D2M2(), scaled_by=ScaledBy(noise=sigma, rows_per_task=50)"
        return [
            Finding("feature_scales", f"needs a FeatureScales and a ScaledBy, found {scales!r}, {by!r}", hint)
        ]
    found, candidates = [], [f for f in features if f != INTERCEPT]
    name = type(scales).__name__
    if not candidates:
        found.append(Finding("feature_scales", "is about features beside the intercept, and there are none"))
    else:
        found += scales.findings(len(candidates))
        spread = by.spread(candidates)
        if len(spread) != len(candidates) or not (np.isfinite(spread) & (spread > 0)).all():
            problem = f"`features` should be positive for each of {candidates}, found {by.features!r}"
            found.append(Finding("scaled_by", problem))
    if not by.rows_per_task > 0 or not by.outcome > 0:
        found.append(Finding("scaled_by", "`rows_per_task` and `outcome` should be positive"))
    if isinstance(structure, TaskMixture | CompletePooling | NoPooling):
        found.append(Finding("feature_scales", f"has no meaning under {type(structure).__name__}"))
    if mean is not None:
        found.append(Finding("mean", f"would not be used: means are scaled by {name}"))
    for prior in ("beta_mean", "feature_sd", "feature_sd_scale"):
        entry = given.get(prior)
        asked = (
            set(entry) - {INTERCEPT} if isinstance(entry, Mapping) else {prior} if entry is not None else ()
        )
        if asked:
            problem = f"would not be used: the scales are those of {name}"
            found.append(Finding(f"prior {prior!r}", problem, f"Give it for {INTERCEPT!r} alone"))
    return found


def scaled_block(
    scales: FeatureScales,
    by: ScaledBy,
    priors: Mapping[str, Sequence[Any]],
    tasks: Sequence[Any],
    features: Sequence[str],
    dims: tuple[str, str],
    name: Namer,
) -> tuple[Tensor, Tensor]:
    """Register the scales, and the means that they scale; return these (T, P), and `feature_sd` (P,).

    `priors` has one of `beta_mean` and of `feature_sd` for each feature; those of the intercept are used.
    """
    at = np.array([i for i, f in enumerate(features) if f != INTERCEPT], dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(features)), at)
    candidates, dim = [features[int(i)] for i in at], name(CANDIDATE)
    pm.modelcontext(None).add_coord(dim, candidates)
    law = scales.law(
        Candidates(
            inverse_sd=pt.as_tensor_variable(1.0 / by.spread(candidates)),
            unit=pt.as_tensor_variable(float(by.outcome)),
            noise=pt.as_tensor_variable(by.noise),
            rows_per_task=pt.as_tensor_variable(float(by.rows_per_task)),
            n_tasks=len(tasks),
            dims=(dims[0], dim),
        ),
        name,
    )
    mean, sd = pt.zeros(len(features)), pt.zeros(len(features))
    if len(rest):
        own = {key: [entry[int(i)] for i in rest] for key, entry in priors.items()}
        mean = place(mean, rest, register(name("beta_mean_part"), own["beta_mean"]))
        sd = place(sd, rest, register(name("feature_sd_part"), own["feature_sd"]))
    offset = pm.Normal(name("beta_mean_offset"), 0.0, 1.0, shape=len(at))
    mean = pm.Deterministic(name("beta_mean"), place(mean, at, offset * law.mean_sd), dims=dims[1])
    sd = pm.Deterministic(name("feature_sd"), place(sd, at, law.feature_sd), dims=dims[1])
    centre = pt.zeros((len(tasks), len(features))) + mean
    if law.specific_sd is not None:
        z = pm.Normal(name("beta_specific_offset"), 0.0, 1.0, shape=(len(tasks), len(at)))
        specific = pm.Deterministic(name("beta_specific"), z * law.specific_sd, dims=(dims[0], dim))
        centre = pt.inc_subtensor(centre[:, at], specific)
    return centre, sd
