"""How tasks relate: correlations drawn per posterior draw, with what the data added to the prior."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.data.groupings import named
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import check_grouping, inside_of, schema_of, spec_of
from bayes_mtl.inference.deviations import deviations
from bayes_mtl.inference.hyperdraws import evenly_spaced, task_corr

Kind = Literal["structural", "partial", "coefficients", "functions"]
_REFERENCE_ROWS = 200
_MAX_DIAGNOSED_PAIRS = 1000


def task_correlation(
    idata: xr.DataTree,
    kind: Kind = "structural",
    *,
    grouping: str | None = None,
    ci_prob: float | None = None,
    delta: float = 0.1,
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
        (linear predictor) over a reference set of rows, under any structure; needs two slopes at least.
    grouping : str, optional
        Correlate the effects of the levels of this grouping instead of tasks ("functions": tasks only).
    ci_prob : float, optional
        Probability of the equal-tailed interval; default ArviZ's ``stats.ci_prob``.
    delta : float
        Smallest correlation that matters, for `p_relevant`.

    Returns
    -------
    Dataset
        One entry per pair of tasks (dim ``pair``; coordinates ``task_a``, ``task_b``): ``mean``,
        ``sd``, ``lower``, ``upper``, ``p_positive`` = P(rho > 0), ``p_relevant`` = P(abs(rho) >
        delta), ``contraction`` = 1 - var(posterior) / var(prior), ``ess``, ``r_hat``. A contraction
        near 0 says that the data added nothing: with P features a structural correlation has P
        replicates only. `.to_dataframe()` gives a tidy table.

    Raises
    ------
    SpecError
        If the fit has no correlation of this kind.

    Notes
    -----
    Every number comes from correlations computed draw by draw. Correlating posterior means instead
    would push them towards -1 and 1, since shrinkage moves the means together.

    Examples
    --------
    >>> mtl.task_correlation(idata).to_dataframe().query("p_positive > 0.95")  # doctest: +SKIP
    """
    prob = interval_probability(ci_prob)
    posterior = correlation_draws(idata, kind, grouping=grouping)
    prior = correlation_draws(idata, kind, group="prior", grouping=grouping)
    tasks = idata["posterior"]["task" if grouping is None else grouping].to_numpy()
    a, b = np.triu_indices(len(tasks), k=1)
    pairs = posterior[:, :, a, b]
    lower, upper = np.quantile(pairs, [(1 - prob) / 2, (1 + prob) / 2], axis=(0, 1))
    prior_var = prior[:, :, a, b].var(axis=(0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        contraction = 1.0 - pairs.var(axis=(0, 1)) / prior_var
    ess, r_hat = convergence(pairs)
    values = {
        "mean": pairs.mean(axis=(0, 1)),
        "sd": pairs.std(axis=(0, 1)),
        "lower": lower,
        "upper": upper,
        "p_positive": (pairs > 0).mean(axis=(0, 1)),
        "p_relevant": (np.abs(pairs) > delta).mean(axis=(0, 1)),
        "contraction": contraction,
        "ess": ess,
        "r_hat": r_hat,
    }
    return xr.Dataset(
        {name: ("pair", value) for name, value in values.items()},
        coords={"task_a": ("pair", tasks[a]), "task_b": ("pair", tasks[b])},
        attrs={
            "kind": kind,
            "ci_prob": prob,
            "delta": delta,
            "n_replicates": n_replicates(idata, kind, grouping),
            "task": grouping or schema_of(idata).task or "outcome",
        },
    )


def correlation_draws(
    idata: xr.DataTree,
    kind: Kind = "structural",
    *,
    group: str = "posterior",
    grouping: str | None = None,
) -> FloatArray:
    """Return the task correlation matrix of every draw, shape (chain, draw, task, task)."""
    spec_of(idata)  # says so if this is not a fit of ours
    draws = idata[group].to_dataset()
    if grouping is not None:
        return _of_levels(idata, draws, kind, grouping)
    if draws.sizes["task"] < 2:
        raise SpecError(Finding("task_correlation", "needs two tasks at least, found one"))
    if kind == "structural":
        return _structural(idata, draws)
    if kind == "partial":
        return _partial(_structural(idata, draws))
    if kind == "coefficients":
        return _realised(idata, draws)
    if kind == "functions":
        return _functions(idata, draws)
    raise SpecError(
        Finding("kind", f"should be one of {', '.join(map(repr, get_args(Kind)))}, found {kind!r}")
    )


def n_replicates(idata: xr.DataTree, kind: Kind, grouping: str | None = None) -> int:
    """Return the number of coefficients (or rows) across which tasks are correlated."""
    if kind == "functions":
        return len(_reference_rows(idata))
    return len(inside_of(idata, grouping))


def _of_levels(idata: xr.DataTree, draws: xr.Dataset, kind: Kind, grouping: str) -> FloatArray:
    """Return the correlation matrix of the levels of a grouping."""
    check_grouping(idata, grouping)
    if kind == "coefficients":
        inside, feature = inside_of(idata, grouping), named(grouping, "feature")
        effects = draws[named(grouping, "beta")] / draws[named(grouping, "feature_sd")]
        return _cosines(
            effects.sel({feature: inside}).transpose("chain", "draw", grouping, feature).to_numpy()
        )
    corr = named(grouping, "task_corr")
    if kind not in ("structural", "partial"):
        hint = "Choose 'structural', 'partial' or 'coefficients'"
        raise SpecError(Finding("kind", f"{kind!r} is not for groupings", hint))
    if corr not in draws:
        structure = spec_of(idata).levels_of(grouping)
        found = f"{type(structure).__name__} has no correlation of levels to learn"
        hint = "Use a structure that relates levels (LowRank, for example)"
        if structure.relates_tasks:
            found = f"the correlations of {draws.sizes[grouping]} levels were too many to store"
            hint = "Fit with fewer draws"
        raise SpecError(Finding("kind", found, hint))
    matrices = draws[corr].transpose("chain", "draw", grouping, f"{grouping}_bis").to_numpy()
    return matrices if kind == "structural" else _partial(matrices)


def _structural(idata: xr.DataTree, draws: xr.Dataset) -> FloatArray:
    structure = spec_of(idata).task_covariance
    if not structure.relates_tasks:
        name = type(structure).__name__
        hint = "Use a structure that relates tasks (LowRank, for example), or kind='coefficients'"
        raise SpecError(Finding("kind", f"{name} has no task correlation to learn", hint))
    if "task_corr" in draws:
        return draws["task_corr"].transpose("chain", "draw", "task", "task_bis").to_numpy()
    loadings = draws["task_loadings"].transpose("chain", "draw", "task", "factor").to_numpy()
    return task_corr(loadings, draws["task_unique_sd"].transpose("chain", "draw", "task").to_numpy())


def _partial(corr: FloatArray) -> FloatArray:
    """Return the correlation of every two tasks given all others."""
    precision = np.linalg.inv(corr)
    sd = np.sqrt(np.diagonal(precision, axis1=-2, axis2=-1))
    partial = -precision / (sd[..., :, None] * sd[..., None, :])
    at = np.arange(corr.shape[-1])
    partial[..., at, at] = 1.0
    return partial


def _realised(idata: xr.DataTree, draws: xr.Dataset) -> FloatArray:
    inside = inside_of(idata)
    if len(inside) < 2 or "feature_sd" not in draws:
        hint = "Look at the coefficients themselves"
        found = f"found {len(inside)}" if "feature_sd" in draws else "but nothing varies in this model"
        raise SpecError(
            Finding("kind='coefficients'", f"needs two features that vary at least, {found}", hint)
        )
    return _cosines(deviations(idata, draws))


def _cosines(values: FloatArray) -> FloatArray:
    """Return correlations around the known mean of zero: sum_j d_tj d_sj / (|d_t| |d_s|)."""
    if values.shape[-1] < 2:
        found = f"needs two features that vary at least, found {values.shape[-1]}"
        raise SpecError(Finding("kind='coefficients'", found, "Look at the effects themselves"))
    unit = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-300)
    return unit @ np.swapaxes(unit, -1, -2)


def _reference_rows(idata: xr.DataTree) -> np.ndarray:
    n_rows = idata["constant_data"].sizes["row"]
    return evenly_spaced(n_rows, _REFERENCE_ROWS)


def _functions(idata: xr.DataTree, draws: xr.Dataset) -> FloatArray:
    fixed = idata["constant_data"].to_dataset()
    rows = _reference_rows(idata)
    X = fixed["X"].to_numpy()[rows]
    shared = None
    if "X_shared" in fixed:
        shared = draws["beta_shared"].transpose("chain", "draw", "shared_feature").to_numpy()
        shared = shared @ fixed["X_shared"].to_numpy()[rows].T
    beta = draws["beta"].transpose("chain", "draw", "task", "feature").to_numpy()
    columns = X if shared is None else np.hstack([X, fixed["X_shared"].to_numpy()[rows]])
    if np.linalg.matrix_rank(columns - columns.mean(axis=0)) < 2:
        found = "needs two features at least: with one slope it would be the sign of a product of slopes"
        raise SpecError(Finding("kind='functions'", found, "Look at the coefficients themselves"))
    out = np.empty((*beta.shape[:3], beta.shape[2]))
    for chain in range(beta.shape[0]):
        for draw in range(beta.shape[1]):
            f = beta[chain, draw] @ X.T
            if shared is not None:
                f = f + shared[chain, draw]
            f -= f.mean(axis=1, keepdims=True)
            f /= np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-300)
            out[chain, draw] = f @ f.T
    return out


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
    if not 0 < ci_prob < 1:
        raise SpecError(Finding("ci_prob", f"should be between 0 and 1, found {ci_prob!r}"))
    return float(ci_prob)
