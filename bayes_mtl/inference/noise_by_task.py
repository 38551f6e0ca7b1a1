"""Whether tasks differ by their noise, and what it costs that a model has one noise scale for all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import chi2

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData
from bayes_mtl.errors import Finding
from bayes_mtl.inference.attributes import data_of, reads_data_once, spec_of
from bayes_mtl.spec import ModelSpec

REMEDY = "try Gaussian(task_noise=True)"
_LEAST_RATIO = 1.25  # smaller factors are not worth a word
_LEAST_COST = 4.0  # nats: models that differ by less predict alike
_LEVEL = 0.05  # of the probability that any task is said to have another noise, if none has
_SOME = 5


def has_one_noise(spec: ModelSpec, data: TaskData) -> bool:
    """Whether one noise scale stands for all tasks, and their rows alone say how large it is."""
    plain = spec.family.gaussian_coefficients and data.noise is None and not data.groupings
    return plain and not getattr(spec.family, "task_noise", False)


def noise_ratios(data: TaskData) -> tuple[FloatArray, FloatArray]:
    """Compare what is left of the rows of each task around its own least squares.

    Returns
    -------
    ratio : (T,)
        To that of the task in the middle (weighted by degrees of freedom); NaN without degrees of freedom.
    chance : (T,)
        Probability of a larger difference, in either direction, if noise were the same.
    """
    rows = data.pseudo_rows
    spare = data.statistics.count - rows.rank
    able = (spare > 0) & (rows.rest > 0)
    ratio, chance = np.full(data.n_tasks, np.nan), np.ones(data.n_tasks)
    if able.sum() < 2:
        return ratio, chance
    rest, spare = rows.rest[able], spare[able]
    variance = rest / chi2.ppf(0.5, spare)  # half of the tasks lie above
    order = np.argsort(variance)
    below = np.cumsum(spare[order]) - spare[order] / 2
    middle = float(np.exp(np.interp(spare.sum() / 2, below, np.log(variance[order]))))
    ratio[able] = np.sqrt(rest / spare / middle)
    chance[able] = 2.0 * np.minimum(chi2.sf(rest / middle, spare), chi2.cdf(rest / middle, spare))
    return ratio, chance


def stands_out(ratio: FloatArray, chance: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which tasks have another noise than most: no accident, and by a factor that matters."""
    with np.errstate(invalid="ignore"):
        return np.asarray((chance < _LEVEL / len(ratio)) & (np.abs(np.log(ratio)) > np.log(_LEAST_RATIO)))


def noise_cost(fitted: xr.DataTree) -> tuple[FloatArray, FloatArray]:
    """Return the noise of each task relative to the one that the model has for all, and what that costs.

    n rows with noise s that are predicted with noise sigma lose n [log(sigma / s) + s^2 / (2 sigma^2) - 1/2]
    on average.
    """
    data = data_of(fitted)
    sigma = (
        float(np.exp(np.log(fitted["posterior"]["sigma"]).mean())) if "sigma" in fitted["posterior"] else 1.0
    )
    rows, count = data.pseudo_rows, data.statistics.count
    spare = np.maximum(count - rows.rank, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where((spare > 0) & (rows.rest > 0), np.sqrt(rows.rest / spare) / sigma, np.nan)
        cost = count * (0.5 * share**2 - 0.5 - np.log(share))
    return share, np.where(np.isnan(cost), 0.0, cost)


@reads_data_once
def noise_findings(fitted: xr.DataTree) -> list[Finding]:
    """Say which tasks differ by their noise, where the model has one for all and that costs something."""
    data = data_of(fitted)
    if not has_one_noise(spec_of(fitted), data):
        return []
    share, cost = noise_cost(fitted)
    odd = np.flatnonzero(stands_out(*noise_ratios(data)))
    total = float(cost[odd].sum())
    if total < _LEAST_COST:
        return []
    most = odd[np.argsort(-cost[odd], kind="stable")]
    named = ", ".join(f"{data.tasks[t]} {share[t]:.2g}" for t in most[:_SOME])
    more = f", and {len(most) - _SOME} more" if len(most) > _SOME else ""
    problem = (
        f"is one for all tasks, and some have another noise ({named}{more} times as much), which costs about "
        f"{total:.3g} in log predictive density"
    )
    return [Finding("sigma", problem, REMEDY[0].upper() + REMEDY[1:])]
