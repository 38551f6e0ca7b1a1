"""Which features matter: for all tasks, for some, or for none."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.inference.attributes import coefficient_size, schema_of, spec_of
from bayes_mtl.structures._options import positive_finding
from bayes_mtl.summaries.correlation import interval_probability


def feature_selection(
    idata: xr.DataTree, *, ci_prob: float | None = None, delta: float = 0.1, sure: float = 0.8
) -> xr.Dataset:
    """Summarise which features are used by all tasks, by some, or by none.

    Parameters
    ----------
    idata : DataTree
        A fit with `feature_scales` (`Horseshoe` or `R2D2M2`).
    ci_prob : float, optional
        Probability of the equal-tailed intervals; default ArviZ's ``stats.ci_prob``.
    delta : float
        Smallest effect that counts: what one standard deviation of the feature adds to the linear predictor,
        in standard deviations of the outcome (for a logit: in its own units). Default 0.1.
    sure : float
        How probable it has to be that a task uses a feature, for `used_by`. Default 0.8.

    Returns
    -------
    Dataset
        One entry per ``feature``, the intercept and shared features apart:

        ``used_by``
            "all tasks", "some tasks" or "no task": those that use it with probability `sure`.
        ``p_used`` (task, feature)
            That the effect of the feature in the task is larger than `delta`, in its more probable direction:
            max(P(effect > delta), P(effect < -delta)). About a feature of which nothing is known it says
            one half at most.
        ``effect``, ``effect_lower``, ``effect_upper``
            The population mean, as an effect.
        ``shrinkage``, ``shrinkage_lower``, ``shrinkage_upper``, ``shrinkage_prior``
            kappa_j = 1 / (1 + n s_j^2 (Var(beta_mean_j) + feature_sd_j^2) / sigma^2), n rows per task: how
            much of what the rows of one task say of its coefficient the prior takes away. Near 1 where the
            feature plays no role, near 0 where it does. Its mean under the prior stands beside it.
        ``n_effective``, ``n_effective_lower``, ``n_effective_upper``, ``n_effective_prior`` ()
            Number of features that matter, sum_j (1 - kappa_j).
        ``p_specific`` (task, feature)
            With ``Horseshoe(task_specific=True)``: as `p_used`, of what the task has of its own.

    Raises
    ------
    SpecError
        If the fit has no scales of features.

    References
    ----------
    Piironen & Vehtari (2017), Electronic Journal of Statistics 11.

    Examples
    --------
    >>> mtl.feature_selection(idata)["used_by"].to_series()  # doctest: +SKIP
    """
    if spec_of(idata).feature_scales is None:
        hint = "Fit ModelSpec(feature_scales=Horseshoe())"
        raise SpecError(Finding("feature_scales", "are not part of this fit", hint))
    findings = positive_finding("feature_selection", "delta", delta)
    if not 0.5 <= sure < 1.0:
        odd = f"`sure` should be from 0.5 to below 1, found {sure!r}"
        findings.append(Finding("feature_selection", odd))
    raise_if_any(findings, SpecError)
    prob = interval_probability(ci_prob)
    posterior, prior = idata["posterior"].to_dataset(), idata["prior"].to_dataset()
    features = posterior["candidate_feature"].to_numpy()
    size = xr.DataArray(
        coefficient_size(idata), dims="feature", coords={"feature": idata["constant_data"]["feature"]}
    ).sel(feature=features)

    effects = posterior["beta"].sel(feature=features) / size
    p_used = _probability(effects, delta)
    kappa = posterior["feature_shrinkage"].rename(candidate_feature="feature")
    kappa_prior = prior["feature_shrinkage"].rename(candidate_feature="feature")
    uses = (p_used >= sure).to_numpy()
    label = np.where(uses.all(axis=0), "all tasks", np.where(uses.any(axis=0), "some tasks", "no task"))
    found: dict[str, Any] = {
        "used_by": ("feature", label),
        "p_used": p_used,
        **_interval("effect", posterior["beta_mean"].sel(feature=features) / size, prob),
        **_interval("shrinkage", kappa, prob),
        "shrinkage_prior": kappa_prior.mean(("chain", "draw")),
        **_interval("n_effective", (1.0 - kappa).sum("feature"), prob),
        "n_effective_prior": (1.0 - kappa_prior).sum("feature").mean(("chain", "draw")),
    }
    if "beta_specific" in posterior:
        own = posterior["beta_specific"].rename(candidate_feature="feature") / size
        found["p_specific"] = _probability(own, delta)
    attrs = {"task": schema_of(idata).task or "outcome", "delta": delta, "sure": sure, "ci_prob": prob}
    return xr.Dataset(found, attrs=attrs)


def _probability(effects: xr.DataArray, delta: float) -> xr.DataArray:
    """Return how probable an effect larger than `delta` is, in the more probable direction."""
    above, below = ((sign * effects > delta).mean(("chain", "draw")) for sign in (1.0, -1.0))
    return xr.where(above > below, above, below).transpose("task", "feature")


def _interval(name: str, draws: xr.DataArray, prob: float) -> dict[str, xr.DataArray]:
    ends = draws.quantile([(1 - prob) / 2, (1 + prob) / 2], ("chain", "draw"))
    return {
        name: draws.mean(("chain", "draw")),
        f"{name}_lower": ends.isel(quantile=0, drop=True),
        f"{name}_upper": ends.isel(quantile=1, drop=True),
    }
