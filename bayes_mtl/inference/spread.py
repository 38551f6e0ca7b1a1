"""Whether `feature_sd` is as large as the spread of the coefficients that were drawn.

Per draw, s_j^2 = mean_t (beta_tj - mean_tj)^2 / scale_t^2 is feature_sd_j^2 times a chi^2 over its
degrees of freedom: T where tasks are independent, about T_e = T^2 / sum_ts Omega_ts^2 where Omega relates
them. If the model is right, the average of s_j / feature_sd_j over the draws of a fit is about 1, with a
standard deviation of at most 1 / sqrt(2 T_e). It is larger where the prior of scales and correlations pulls
scales down: `LKJ` with independent half-normal scales, where coefficients move along few directions.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.data.groupings import named
from bayes_mtl.errors import Finding
from bayes_mtl.inference.attributes import inside_of, schema_of, spec_of
from bayes_mtl.inference.deviations import coefficient_deviations, task_scales
from bayes_mtl.inference.hyperdraws import thinned
from bayes_mtl.structures import Namer, TaskMixture

_DRAWS = 200  # averages of these are exact enough
_LEAST = 1.25  # what is said is worth saying
_DEVIATIONS = 2.0  # a bound: the average over draws varies less than one draw


def spread_findings(idata: xr.DataTree) -> list[Finding]:
    """Say which `feature_sd` are well below the spread of the coefficients across tasks, or levels.

    Nothing under mixtures, where `feature_sd` is not how far tasks spread.
    """
    spec = spec_of(idata)
    draws = thinned(idata["posterior"].to_dataset(), _DRAWS)
    found = []
    if "feature_sd" in draws and not isinstance(spec.task_covariance, TaskMixture):
        found += _findings(draws, coefficient_deviations(idata, draws), inside_of(idata), "task", str)
    for grouping in schema_of(idata).groupings:
        name = partial(named, grouping)
        found += _findings(draws, draws[name("beta")], inside_of(idata, grouping), grouping, name)
    return found


def _findings(
    draws: xr.Dataset, deviations: xr.DataArray, inside: list[str], unit: str, name: Namer
) -> list[Finding]:
    feature = name("feature")
    values = deviations.transpose("draw", unit, feature).to_numpy()
    sd = draws[name("feature_sd")].transpose("draw", feature).to_numpy()
    features = [str(f) for f in draws[feature].to_numpy()]
    is_inside = np.isin(features, inside)
    if (scales := task_scales(draws, name)) is not None:
        values = values / np.where(is_inside, scales[..., None], 1.0)
    spread = np.sqrt((values**2).mean(axis=1))
    ratio = np.mean(spread / np.where(sd > 0.0, sd, np.inf), axis=0)
    independent = np.where(is_inside, _independent(draws, unit, name), values.shape[1])
    limit = np.maximum(_LEAST, 1.0 + _DEVIATIONS / np.sqrt(2.0 * independent))
    low = np.flatnonzero(ratio > limit)
    if not len(low):
        return []
    sizes = [f"{features[j]} {sd[:, j].mean():.2g} for {spread[:, j].mean():.2g}" for j in low[:5]]
    more = f", and {len(low) - 5} more" if len(low) > 5 else ""
    where, what = name("feature_sd"), "levels" if unit != "task" else "tasks"
    problem = (
        f"is well below the spread of the coefficients across {what} that were drawn "
        f"({'; '.join(sizes)}{more}), so intervals for new {what} are too narrow"
    )
    hint = "Use feature_covariance=LowRank(1), which lets features move together, or wider priors"
    return [Finding(where, problem, hint)]


def _independent(draws: xr.Dataset, unit: str, name: Namer) -> float:
    """Return T_e, the number of independent tasks that vary as much."""
    n = draws.sizes[unit]
    if (corr := name("task_corr")) not in draws:
        return float(n)
    squares: FloatArray = (draws[corr].to_numpy() ** 2).sum(axis=tuple(range(draws[corr].ndim)))
    return float(n**2 * draws.sizes["draw"] / squares)
