"""The audit: which tasks gain from the others, which are hurt by them, and which hurt them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from scipy.special import logit
from scipy.stats import norm

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData
from bayes_mtl.data.labels import as_coordinate
from bayes_mtl.families import Bernoulli
from bayes_mtl.inference.attributes import data_of, schema_of, spec_of
from bayes_mtl.inference.leave_out import is_closed
from bayes_mtl.model import default_priors, explicit_priors
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec, PriorEntry, PriorValue, scaled_together
from bayes_mtl.structures import CompletePooling, NoPooling, StudentT, TaskCovariance, TaskMixture
from bayes_mtl.summaries.leave_out import (
    MAX_PARETO_K,
    check_several_tasks,
    row_elpd,
    row_elpd_by_quadrature,
    row_elpd_without,
    score_of_absent,
    task_scores,
)
from bayes_mtl.summaries.refit import exact_rows, fit_without, quick_fit

_LEVEL = 0.05  # of the probability that any task is called hurt, or said to contradict, if none is or does


def transfer_gain(
    idata: xr.DataTree,
    *,
    single_task: xr.DataTree | None = None,
    pooled: xr.DataTree | None = None,
    max_refits: int = 10,
    random_seed: int | None = 1,
    **sampler: Any,
) -> xr.Dataset:
    """Compare, task by task, learning together with learning alone and with one model for all.

    Three questions are asked of each task. Does it predict its own rows better than alone (`gain`)? Do the
    other tasks contradict it (`surprise`)? And would the others be predicted better without it
    (`gain_of_others`)?

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    single_task, pooled : DataTree, optional
        Fits of the same data to compare with. Default: the same family with the prior that the description
        gives to a task if it were the only one, and with `CompletePooling`; both are integrated
        by quadrature where only a noise scale is unknown, and fitted here otherwise.
    max_refits : int
        At most this many fits to leave something out exactly, where importance sampling fails (Pareto k
        above 0.7): first for rows, which share these fits, then for tasks that move the hyperparameters too
        far, the most surprising first.
    random_seed : int, optional
        Of the fits made here.
    **sampler
        Options of these fits: `draws`, `tune`, `chains`, ... (default 1000, 1000, 2).

    Returns
    -------
    Dataset
        By task: ``n_rows``; ``elpd``, the expected log density of a row of the task given all others,
        summed over its rows; ``gain`` and ``gain_se``, by how much it exceeds learning alone, with the
        standard error of the sum of paired differences; ``gain_over_pooled`` and ``gain_over_pooled_se``;
        ``surprise``, the probability that a task like the others would lie further out (NaN for mixtures);
        ``gain_of_others`` and ``gain_of_others_se``, what the other
        tasks gain if it is left out (NaN where that was not looked at: a task that fits in hurts nobody);
        ``hurt``, ``hurts_others``; ``verdict`` in words; ``pareto_k``, the largest of its rows that were
        left out by weighting (above 0.7 the numbers of the task are unreliable). Attribute ``remedy``.

    Notes
    -----
    Rows are left out by Pareto-smoothed importance sampling; for Gaussian outcomes only over
    hyperparameters, the rest is exact. A task is called hurt if ``gain`` is below zero by so many standard
    errors that chance would do it with a probability of 0.05 / number of tasks (10 tasks: 2.6), or if the
    others contradict it, unless ``gain`` says otherwise (more than a standard error above zero: with few
    rows a task may be unlike the others and yet be better off than alone). Contradicted is a ``surprise``
    below 0.05 / number of tasks, so that with tasks that are all alike the chance of calling any one so is
    about 5 %. It hurts others if they contradict it, since it makes their population look wider than it is
    and keeps them from leaning on each other, unless `gain_of_others` says otherwise (more than a standard
    error below zero). For outcomes that are not Gaussian the surprise rests on a normal approximation of what
    a task's rows say.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Statistics and Computing 27; Marshall & Spiegelhalter (2007), Bayesian
    Analysis 2.

    Examples
    --------
    >>> mtl.transfer_gain(idata)[["gain", "gain_se", "verdict"]].to_dataframe()  # doctest: +SKIP
    """
    spec, data = spec_of(idata), data_of(idata)
    check_several_tasks(data, "transfer_gain")
    sampler = {"random_seed": random_seed, **sampler}
    refits = _Refits(max_refits, sampler)
    own, k = refits.row_elpd(idata)
    without_others, k_alone = _baseline(single_task, alone_spec(spec, data), data, refits)
    as_one, k_pooled = _baseline(pooled, pooled_spec(spec, data), data, refits)
    task, n_tasks = data.task_index, data.n_tasks
    gain, gain_se = _paired(own, without_others, spec, data)
    over_pooled, over_pooled_se = _paired(own, as_one, spec, data)
    surprise, others, others_se = np.full((3, n_tasks), np.nan)
    if is_closed(spec):
        _, surprise, unreliable = task_scores(idata)
        suspects = np.flatnonzero((surprise < 2 * _LEVEL / n_tasks) | (unreliable > MAX_PARETO_K))
        for t in suspects[np.argsort(surprise[suspects], kind="stable")]:
            if unreliable[t] <= MAX_PARETO_K and spec.family.gaussian_coefficients:
                change = row_elpd_without(idata, int(t)) - own[task != t]
            elif refits.left > 0:
                refits.left -= 1
                rest = fit_without(idata, int(t), **sampler)
                surprise[t] = score_of_absent(rest, data, int(t))[1]
                change = row_elpd(rest)[0] - own[task != t]
            else:
                continue
            others[t], others_se[t] = change.sum(), change.std(ddof=1) * np.sqrt(len(change))
    contradicted = surprise < _LEVEL / n_tasks
    z, limit = gain / np.maximum(gain_se, 1e-12), float(norm.ppf(_LEVEL / n_tasks))
    hurt = (z < limit) | (contradicted & (z < 1.0))
    hurts = contradicted & (others > -others_se)
    worst = np.zeros(n_tasks)
    np.maximum.at(worst, task, np.max([k, k_alone, k_pooled], axis=0))
    verdict = _verdicts(z, hurt, contradicted, hurts, worst > MAX_PARETO_K)
    remedy = _remedy(list(data.tasks), hurt, hurts, spec.task_covariance)
    columns = {
        "n_rows": data.rows_per_task,
        "elpd": np.bincount(task, own, minlength=n_tasks),
        "gain": gain,
        "gain_se": gain_se,
        "gain_over_pooled": over_pooled,
        "gain_over_pooled_se": over_pooled_se,
        "surprise": surprise,
        "gain_of_others": others,
        "gain_of_others_se": others_se,
        "hurt": hurt,
        "hurts_others": hurts,
        "verdict": verdict,
        "pareto_k": worst,
    }
    return xr.Dataset(
        {name: ("task", values) for name, values in columns.items()},
        coords={"task": as_coordinate(data.tasks)},
        attrs={"task": schema_of(idata).task or "outcome", "remedy": remedy},
    )


@dataclass
class _Refits:
    """How many fits may still be made to leave something out, and how."""

    left: int
    sampler: dict[str, Any]

    def row_elpd(self, idata: xr.DataTree) -> tuple[FloatArray, FloatArray]:
        """Return log densities of rows left out, exact where weights fail, and the Pareto k of the others."""
        density, k = row_elpd(idata)
        density, k, used = exact_rows(idata, density, k, MAX_PARETO_K, self.left, **self.sampler)
        self.left -= used
        return density, k


def _baseline(
    given: xr.DataTree | None, spec: ModelSpec, data: TaskData, refits: _Refits
) -> tuple[FloatArray, FloatArray]:
    """Return log densities of rows left out, and the Pareto k, of a given fit or of one made here."""
    if given is not None:
        return refits.row_elpd(given)
    if spec.family.gaussian_coefficients and (exact := row_elpd_by_quadrature(spec, data)) is not None:
        return exact, np.zeros(len(exact))
    return refits.row_elpd(quick_fit(data, spec, type(spec.task_covariance).__name__, **refits.sampler))


def alone_spec(spec: ModelSpec, data: TaskData) -> ModelSpec:
    """Describe every task alone, with the prior that it would have as the only one.

    beta_t = mean + deviation has variance sd(mean)^2 + E[feature_sd^2].
    """
    priors, scales = default_priors(spec, data)
    common = _root_mean_square(priors["feature_sd_scale"])
    together = scaled_together(spec.task_covariance, spec.independent_features, data.features)
    centre: dict[str, PriorValue] = {}
    width: dict[str, PriorValue] = {}
    for feature, mean, deviation, scale in zip(
        data.features, priors["beta_mean"], priors["feature_sd"], scales["beta_mean"], strict=True
    ):
        about = dict(mean.params) if isinstance(mean, Prior) else {"mu": mean, "sigma": 0.0}
        spread = dict(deviation.params).get("sigma", scale) if isinstance(deviation, Prior) else deviation
        spread = common * float(spread) if feature in together else spread
        centre[feature] = float(about.get("mu", 0.0))
        width[feature] = float(np.hypot(about.get("sigma", 2.5 * scale), spread))
    kept = _kept(spec, ("sigma", "sigma_spread", "beta_shared"))
    return replace(
        spec,
        task_covariance=NoPooling(),
        independent_features=None,
        task_sd=False,
        feature_scales=None,
        priors={**kept, "beta_mean": centre, "feature_sd": width},
    )


def _root_mean_square(prior: PriorValue) -> float:
    if not isinstance(prior, Prior):
        return float(prior)
    if prior.distribution == "HalfNormal":
        return float(dict(prior.params)["sigma"])
    distribution = getattr(pm, prior.distribution).dist(**dict(prior.params))
    draws = pm.draw(distribution, 10_000, mode="FAST_COMPILE", random_seed=0)
    return float(np.sqrt((draws**2).mean()))


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


def _paired(
    own: FloatArray, other: FloatArray, spec: ModelSpec, data: TaskData
) -> tuple[FloatArray, FloatArray]:
    """Return the sum of differences of each task's rows, and its standard error.

    Rows of one outcome only hardly differ, so that their spread says nothing of how uncertain the sum is. If
    the outcome is binary, with probabilities p and q of a one, the difference of a row would be
    log(p / q) or log((1 - p) / (1 - q)), with variance m (1 - m) (logit p - logit q)^2 at m = (p + q) / 2.
    The larger of the two variances counts.
    """
    n, difference = data.rows_per_task, own - other
    total, square = (
        np.bincount(data.task_index, d, minlength=data.n_tasks) for d in (difference, difference**2)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(square - total**2 / n, 0.0) / (n - 1) * n
    if isinstance(spec.family, Bernoulli):
        p, q = (np.where(data.y == 1, np.exp(e), -np.expm1(e)) for e in (own, other))
        middle = (p + q) / 2
        by_row = middle * (1 - middle) * (logit(p) - logit(q)) ** 2
        expected = np.bincount(data.task_index, by_row, minlength=data.n_tasks)
        variance = np.fmax(variance, expected)
    return total, np.sqrt(variance)


def _verdicts(z: FloatArray, hurt: Any, contradicted: Any, hurts: Any, unreliable: Any) -> list[str]:
    words = []
    for t in range(len(z)):
        if contradicted[t]:
            harm = "contradicts the others" + (", and hurts them" if hurts[t] else "")
            words.append(harm if hurt[t] else f"{harm}, yet is better off than alone")
        elif hurt[t]:
            words.append("hurt by the others")
        else:
            words.append("gains from the others" if z[t] > 2.0 else "no clear difference")
        if unreliable[t]:
            words[-1] += " (unreliable: see pareto_k)"
    return words


def _remedy(tasks: list[Any], hurt: Any, hurts: Any, structure: TaskCovariance) -> str:
    """Say what to do about tasks that are hurt or hurt others."""
    named = [str(t) for t, bad in zip(tasks, hurt | hurts, strict=True) if bad]
    if not named:
        return "No task is hurt: nothing needs to be done."
    several = len(named) > 0.2 * len(tasks) and not isinstance(structure, TaskMixture)
    advice = ""
    if several:
        advice = "Many tasks do not fit in: try Clusters(2), which lets there be several populations. Or "
    elif isinstance(structure, StudentT):
        advice = "StudentT lets them stand apart already. If that is not enough, "
    elif not isinstance(structure, TaskMixture | CompletePooling | NoPooling):
        advice = (
            "Try StudentT(...) around the structure: tasks can then stand apart without pulling others. Or "
        )
    apart = "fit these tasks apart (NoPooling), and compare."
    return f"{', '.join(named)}: {advice}{apart if advice else apart[0].upper() + apart[1:]}"
