"""How tasks relate: correlations drawn per posterior draw, with what the data added to the prior."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.arguments import task_positions, truth
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.inference.attributes import check_grouping, inside_of, schema_of, spec_of
from bayes_mtl.inference.hyperdraws import evenly_spaced
from bayes_mtl.progress import progress
from bayes_mtl.summaries.contraction import LEAST_PRIOR_SD, contraction
from bayes_mtl.summaries.others_draws import pairs_of
from bayes_mtl.summaries.pair_draws import (
    Budget,
    Kind,
    PairDraws,
    pair_draws,
    reference_rows,
)

_MAX_DIAGNOSED_PAIRS = 1000
_MAX_DIAGNOSED_TASKS = 45  # whose pairs are about as many
MAX_PAIRS = 2**22  # of 2,896 tasks
_MAX_NUMBERS = 2**31  # correlations that are computed: minutes
_MAX_HELD = 2**24  # numbers behind them that are held: 128 MiB


def task_correlation(
    idata: xr.DataTree | None = None,
    kind: Kind = "structural",
    *,
    draws: xr.DataArray | None = None,
    mean: xr.DataArray | FloatArray | float | None = None,
    scale: xr.DataArray | FloatArray | float | None = None,
    tasks: Sequence[Label] | None = None,
    grouping: str | None = None,
    ci_prob: float | None = None,
    delta: float = 0.1,
    progressbar: bool = True,
) -> xr.Dataset:
    """Summarise the correlation of every pair of tasks, or of levels of a grouping.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    kind : {"structural", "partial", "coefficients", "functions"}
        What is correlated. "structural": Omega, the hyperparameter that says how coefficients co-vary
        across tasks; exists for structures that relate tasks. "partial": of two tasks given all others,
        -P_ts / sqrt(P_tt P_ss) with P = Omega^-1. "coefficients": the realised
        deviations beta_t - mean of two tasks across the features inside the task covariance, each in
        units of its `feature_sd`; needs two features at least. "functions": what two tasks predict
        (linear predictor) over a reference set of rows, under any structure; needs two slopes at least, one
        of each task's own.
    draws : DataArray, optional
        Instead of `idata`, draws from a model of your own: coefficients with dims (chain, draw, task,
        feature), whatever their names, for the kind "coefficients"; or a correlation matrix, whose dims are
        (chain, draw, task, task_bis), for "structural". There is no prior then, and no contraction.
    mean, scale : DataArray, array or number, optional
        Of coefficients in `draws`: what they deviate from, and how far (their population mean and standard
        deviation). Default: average and standard deviation over tasks, in each draw; around their average,
        unrelated tasks have the correlation -1 / (T - 1).
    tasks : sequence of labels, optional
        Only the pairs of these tasks, in this order. Default: all tasks. Needed beyond 2,896 tasks.
    grouping : str, optional
        Correlate the effects of the levels of this grouping instead of tasks ("functions": tasks only);
        `tasks` then names levels.
    ci_prob : float, optional
        Probability of the equal-tailed interval; default ArviZ's ``stats.ci_prob``.
    delta : float
        Smallest correlation that matters, for `p_relevant`.
    progressbar : bool
        Show progress if it takes more than two seconds.

    Returns
    -------
    Dataset
        One entry per pair of tasks (dim ``pair``; coordinates ``task_a``, ``task_b``): ``mean``,
        ``sd``, ``lower``, ``upper``, ``p_positive`` = P(rho > 0), ``p_relevant`` = P(abs(rho) >
        delta), ``prior_mean`` and ``prior_sd``, ``contraction`` = 1 - var(posterior) / var(prior),
        ``ess``, ``r_hat``. A contraction near 0 with a mean near the prior's says that the data added
        nothing: with P features a structural correlation has P replicates only. A negative contraction
        says that the data moved the correlation to where it is less certain: compare the means. It is
        NaN where the prior states the correlation (a standard deviation of 0.02 at most, or a tenth of
        the posterior's). ``ess`` and ``r_hat`` are of all draws; with more than 1,000 pairs, of the pairs
        of 45 evenly spaced tasks, and NaN for the others. `.to_dataframe()` gives a tidy table.

    Raises
    ------
    SpecError
        If the fit has no correlation of this kind, `tasks` names unknown ones, or there are too many pairs.

    Notes
    -----
    Every number comes from correlations computed draw by draw. Correlating posterior means instead
    would push them towards -1 and 1, since shrinkage moves the means together.

    Working memory is bounded: draws of correlations are held for the pairs of one task at a time. If pairs
    times draws exceed 2^31 (4,000 draws: from about 1,040 tasks on), or tasks times coefficients times draws
    exceed 2^24, draws are thinned evenly; the attribute ``n_draws`` says how many were used.

    Examples
    --------
    >>> mtl.task_correlation(idata).to_dataframe().query("p_positive > 0.95")  # doctest: +SKIP
    """
    prob, progressbar = interval_probability(ci_prob), truth("progressbar", progressbar)
    _check_what_is_given(idata, draws, mean, scale)
    if draws is not None:
        return _of_others(draws, mean, scale, tasks, prob, delta, progressbar)
    assert idata is not None
    spec_of(idata)  # says so if this is not a fit of ours
    noun, drawn = "task" if grouping is None else grouping, idata["posterior"]
    if noun not in drawn.dims:
        check_grouping(idata, noun)
    known = drawn[noun].to_numpy()
    labels = known if tasks is None else known[task_positions(known, tasks, least=2)]
    n = len(labels)
    n_pairs = check_number(n, noun, "task_correlation")

    def draws_of(group: str, chosen: Sequence[Label] | None, budget: Budget) -> PairDraws:
        return pair_draws(idata, kind, group=group, grouping=grouping, tasks=chosen, budget=budget)

    budget = Budget(draws=_MAX_NUMBERS // max(n_pairs, 1), held=_MAX_HELD)
    posterior, prior = (draws_of(group, tasks, budget) for group in ("posterior", "prior"))
    what = f"correlations of {noun}s"
    values = pair_summaries(posterior, prob, what, delta=delta, prior=prior, show=progressbar)
    n_draws = posterior.n_draws
    some = np.arange(n) if n_pairs <= _MAX_DIAGNOSED_PAIRS else evenly_spaced(n, _MAX_DIAGNOSED_TASKS)
    if len(some) < n or n_draws < drawn.sizes["chain"] * drawn.sizes["draw"]:
        del posterior, prior
        posterior = draws_of("posterior", [labels[i] for i in some], Budget())
    del values["p_negative"]
    values["ess"], values["r_hat"] = _convergence_among(posterior, some, n)
    return xr.Dataset(
        {name: ("pair", value) for name, value in values.items()},
        coords=pair_coords(labels),
        attrs={
            "kind": kind,
            "ci_prob": prob,
            "delta": delta,
            "n_replicates": n_replicates(idata, kind, grouping),
            "n_draws": n_draws,
            "task": grouping or schema_of(idata).task or "outcome",
        },
    )


def _check_what_is_given(idata: Any, draws: Any, mean: Any, scale: Any) -> None:
    findings = []
    if (idata is None) == (draws is None):
        which = "nothing" if idata is None else "both"
        findings.append(Finding("task_correlation", f"takes a fit, or `draws`, and found {which}"))
    for name, value in (("mean", mean), ("scale", scale)):
        if draws is None and value is not None:
            findings.append(Finding(name, "is about `draws`, which are not given", "A fit knows its own"))
    raise_if_any(findings, SpecError)


def _of_others(
    draws: xr.DataArray, mean: Any, scale: Any, tasks: Any, prob: float, delta: float, show: bool
) -> xr.Dataset:
    found, labels, n_replicates_ = pairs_of(draws, mean, scale, tasks)
    n = len(labels)
    n_pairs = check_number(n, "task", "task_correlation")
    values = pair_summaries(found, prob, "correlations of tasks", delta=delta, show=show)
    del values["p_negative"]
    values |= dict.fromkeys(("prior_mean", "prior_sd", "contraction"), np.full(n_pairs, np.nan))
    some = np.arange(n) if n_pairs <= _MAX_DIAGNOSED_PAIRS else evenly_spaced(n, _MAX_DIAGNOSED_TASKS)
    among = found if len(some) == n else pairs_of(draws, mean, scale, [labels[i] for i in some])[0]
    values["ess"], values["r_hat"] = _convergence_among(among, some, n)
    return xr.Dataset(
        {name: ("pair", value) for name, value in values.items()},
        coords=pair_coords(labels),
        attrs={
            "kind": "coefficients" if n_replicates_ else "structural",
            "ci_prob": prob,
            "delta": delta,
            "n_replicates": n_replicates_ or draws.sizes[draws.dims[-1]],
            "n_draws": found.n_draws,
            "task": str(next(d for d in draws.dims if d not in ("chain", "draw"))),
        },
    )


def check_number(n: int, noun: str, who: str) -> int:
    """Return the number of pairs of n tasks, or say that there are too many."""
    n_pairs = n * (n - 1) // 2
    if n_pairs > MAX_PAIRS:
        hint = "Name some of them in `tasks`, for example those with the most rows"
        raise SpecError(Finding(who, f"{n:,} {noun}s have {n_pairs:,} pairs", hint))
    return n_pairs


def pair_coords(labels: np.ndarray) -> dict[str, xr.Variable]:
    """Return the labels of both tasks of every pair.

    Text as references to one object per task: a pair then holds two of them, not two copies of long names.
    (`fastpath` keeps xarray from copying them one by one.)
    """
    labels = np.asarray(labels)
    labels = labels.astype(object) if labels.dtype.kind == "U" else labels
    at = np.triu_indices(len(labels), k=1)
    names = ("task_a", "task_b")
    return {k: xr.Variable(("pair",), labels[i], fastpath=True) for k, i in zip(names, at, strict=True)}


def pair_summaries(
    draws: PairDraws,
    prob: float,
    what: str,
    *,
    delta: float | None = None,
    prior: PairDraws | None = None,
    show: bool = True,
) -> dict[str, FloatArray]:
    """Return numbers of all pairs, from the draws of one task's pairs at a time.

    Parameters
    ----------
    draws : PairDraws
    prob : float
        Of the interval.
    what : str
        Description of the work, for a progress bar.
    delta : float, optional
        Also the probability of being larger in size.
    prior : PairDraws, optional
        Also its means and standard deviations, and the contraction.
    show : bool
        Whether to show progress.
    """
    n = draws.n_tasks
    names = ["mean", "sd", "lower", "upper", "p_positive", "p_negative"]
    names += ["p_relevant"] if delta is not None else []
    names += ["prior_mean", "prior_sd"] if prior is not None else []
    out = {name: np.empty(n * (n - 1) // 2) for name in names}
    start = 0
    with progress(what, n - 1, show=show) as done:
        for a in range(n - 1):
            at = slice(start, start + n - a - 1)
            rho = draws.with_later(a)
            out["mean"][at], out["sd"][at] = rho.mean(axis=1), rho.std(axis=1)
            out["p_positive"][at], out["p_negative"][at] = (rho > 0).mean(axis=1), (rho < 0).mean(axis=1)
            if delta is not None:
                out["p_relevant"][at] = (np.abs(rho) > delta).mean(axis=1)
            if prior is not None:
                before = prior.with_later(a)
                out["prior_mean"][at], out["prior_sd"][at] = before.mean(axis=1), before.std(axis=1)
            ends = [(1 - prob) / 2, (1 + prob) / 2]
            out["lower"][at], out["upper"][at] = np.quantile(rho, ends, axis=1, overwrite_input=True)
            start = at.stop
            done()
    if prior is not None:
        out["contraction"] = contraction(out["sd"], out["prior_sd"], least=LEAST_PRIOR_SD)
    return out


def _convergence_among(some: PairDraws, at: IntArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Return ESS and R-hat of the pairs of some of n tasks, and NaN for all others."""
    i, j = np.triu_indices(len(at), k=1)
    found = convergence(some.pairs(i, j))
    if len(at) == n:
        return found
    # Pairs (a, b), a < b, are in the order of np.triu_indices.
    a, b = at[i], at[j]
    place = a * (2 * n - a - 1) // 2 + b - a - 1
    out = np.full((2, n * (n - 1) // 2), np.nan)
    out[:, place] = found
    return out[0], out[1]


def correlation_draws(
    idata: xr.DataTree,
    kind: Kind = "structural",
    *,
    tasks: Sequence[Label] | None = None,
    group: str = "posterior",
    grouping: str | None = None,
) -> FloatArray:
    """Return the correlation matrix of (some) tasks under every draw, shape (chain, draw, task, task)."""
    found = pair_draws(idata, kind, group=group, grouping=grouping, tasks=tasks)
    n = found.n_tasks
    out = np.ones((*found.shape, n, n))
    a, b = np.triu_indices(n, k=1)
    out[..., a, b] = out[..., b, a] = found.pairs(a, b)
    return out


def n_replicates(idata: xr.DataTree, kind: Kind, grouping: str | None = None) -> int:
    """Return the number of coefficients (or rows) across which tasks are correlated."""
    if kind == "functions":
        return len(reference_rows(idata))
    return len(inside_of(idata, grouping))


def convergence(pairs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ESS and R-hat of each column (chain, draw, column); NaN for most of them if there are very many."""
    import arviz_stats  # loads slowly

    n_pairs = pairs.shape[2]
    ess, r_hat = np.full(n_pairs, np.nan), np.full(n_pairs, np.nan)
    if pairs.shape[1] < 4 or not n_pairs:
        return ess, r_hat
    at = evenly_spaced(n_pairs, _MAX_DIAGNOSED_PAIRS)
    values = xr.DataArray(pairs[..., at], dims=("chain", "draw", "pair"))
    ess[at] = arviz_stats.ess(values).to_numpy()
    if pairs.shape[0] > 1:
        r_hat[at] = arviz_stats.rhat(values).to_numpy()
    return ess, r_hat


def interval_probability(ci_prob: float | None) -> float:
    """Return ArviZ's default, or the given probability after a check."""
    if ci_prob is None:
        from arviz_base import rcParams

        return float(rcParams["stats.ci_prob"])
    if not (isinstance(ci_prob, Real) and 0 < ci_prob < 1):
        raise SpecError(Finding("ci_prob", f"should be between 0 and 1, found {ci_prob!r}"))
    return float(ci_prob)
