"""Which structure the data prefer, and whether it matters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from bayes_mtl._typing import FloatArray
from bayes_mtl.arguments import generator, whole_number
from bayes_mtl.data import TaskData
from bayes_mtl.errors import ConvergenceWarning, Finding, SpecError, raise_if_any
from bayes_mtl.inference import fit
from bayes_mtl.inference.attributes import data_of, spec_of
from bayes_mtl.inference.diagnostics import kept
from bayes_mtl.inference.fit import check_sampler
from bayes_mtl.inference.noise_by_task import REMEDY, noise_findings
from bayes_mtl.progress import progress
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import (
    Clusters,
    Exchangeable,
    LowRank,
    StudentT,
    TaskCovariance,
    TaskMixture,
)
from bayes_mtl.summaries.baselines import alone_spec, pooled_spec
from bayes_mtl.summaries.leave_out import without_each_task
from bayes_mtl.summaries.refit import named_warnings
from bayes_mtl.summaries.row_scores import (
    MAX_PARETO_K,
    RowScores,
    batch_variance,
    row_scores,
    with_refits,
)

_FEW_TASKS = 5  # with fewer, neither clusters nor factors can be told from chance
_DISAGREE = 1.1  # R-hat
_MAX_WRITTEN_OUT = 2**17  # rows, of which ArviZ makes stacking weights
_ANY = 1  # number of draws, which ArviZ does not read
_MATTERS = 4.0  # a difference below means models that predict alike (Sivula et al. 2020)


def compare(
    fits: Mapping[str, xr.DataTree] | Sequence[xr.DataTree],
    *,
    by: str = "row",
    max_refits: int = 10,
    random_seed: int | None = 1,
    progressbar: bool = True,
    **sampler: Any,
) -> pd.DataFrame:
    """Compare fits of the same data by how well they predict what they have not seen.

    Parameters
    ----------
    fits : mapping of str to DataTree, or sequence of DataTree
        What `fit` returned; a sequence is named by structures.
    by : {"row", "task"}
        What is left out: one row (prediction for known tasks), or a whole task (prediction for new ones;
        Gaussian outcomes).
    max_refits : int
        At most so many fits are repeated for each of `fits`, without the rows that its draws cannot leave out
        (Pareto k above 0.7). Rows of which there are more share them.
    random_seed : int, optional
        Of these.
    progressbar : bool
        Whether to show progress.
    **sampler
        Options of `fit` for these (default: 2 chains of 1000 draws).

    Returns
    -------
    DataFrame
        ArviZ's comparison, best first: ``elpd`` and ``se``, ``elpd_diff`` to the best and its standard error
        ``dse`` (of a sum of as many rows, and of the draws), ``p_worse``, and stacking ``weight``;
        ``diag_diff`` and ``diag_elpd`` say what ArviZ doubts. Attribute (``attrs``) ``words`` says what is
        preferred, and whether the difference matters; "clearly" only where there is no such doubt.

    Raises
    ------
    SpecError
        If the fits are not of the same rows.

    References
    ----------
    Yao, Vehtari, Simpson & Gelman (2018), Using stacking to average Bayesian predictive distributions,
    Bayesian Analysis 13; Sivula, Magnusson & Vehtari (2020), arXiv 2008.10296.

    Examples
    --------
    >>> mtl.compare({"pooled": pooled, "related": related})  # doctest: +SKIP
    """
    from arviz_stats import compare as arviz_compare

    if not isinstance(fits, Mapping | Sequence) or isinstance(fits, str | xr.DataTree):
        raise SpecError(Finding("fits", f"should be two fits at least, found {type(fits).__name__}"))
    generator(random_seed)
    max_refits = whole_number("max_refits", max_refits)
    named = dict(fits) if isinstance(fits, Mapping) else _by_structure(fits)
    _check(named, by)
    options = {"random_seed": random_seed, "progressbar": progressbar, **sampler}
    check_sampler(options)
    scores: dict[str, RowScores] = {}
    with progress("scores of fits", len(named), show=progressbar) as done:
        for name, idata in named.items():
            scores[name] = _scores(idata, by, max_refits, options)
            done()
    table = arviz_compare(
        {name: _for_arviz(found) for name, found in scores.items()}, method="stacking", round_to="none"
    )
    _complete(table, scores)
    disagree = {name: r for name, idata in named.items() if (r := kept(idata).worst_r_hat) > _DISAGREE}
    table.attrs["words"] = _words(table, by, disagree) + _noise_words(named)
    return table


def choose_structure(
    data: TaskData,
    spec: ModelSpec | None = None,
    *,
    structures: Sequence[TaskCovariance] | None = None,
    max_refits: int = 10,
    random_seed: int | None = 1,
    **sampler: Any,
) -> tuple[pd.DataFrame, dict[str, xr.DataTree]]:
    """Fit a ladder of structures, and say which the data prefer.

    The ladder goes from the strongest assumption to the weakest: one model for all; each task from a
    population; a population with outliers (`StudentT`); latent factors (`LowRank`); kinds of tasks
    (`Clusters`); each task alone. The last three but one need five tasks.

    Parameters
    ----------
    data : TaskData
    spec : ModelSpec, optional
        Everything but the structure.
    structures : sequence of TaskCovariance, optional
        Instead of the ladder.
    max_refits : int
        As in `compare`.
    random_seed : int, optional
    **sampler
        Options of `fit` (default: 2 chains).

    Returns
    -------
    table : DataFrame
        As `compare` returns it, with ``attrs["words"]``, and ``attrs["left_out"]``: by name, why a structure
        of the ladder does not go with these data or this description.
    fits : dict of DataTree
        By name.

    Raises
    ------
    SpecError
        Before anything is fitted, if the description is wrong, or one of `structures` does not go with it.

    Notes
    -----
    Priors and options that have no meaning under a structure of the ladder are left out for it.

    Examples
    --------
    >>> table, fits = mtl.choose_structure(data)  # doctest: +SKIP
    >>> print(table.attrs["words"])  # doctest: +SKIP
    """
    spec = ModelSpec() if spec is None else spec
    ladder, left_out = rungs(data, spec, structures)
    options = {"chains": 2, "random_seed": random_seed, "progressbar": True, **sampler}
    check_sampler(options)
    fits = _fit_ladder(data, ladder, options)
    table = compare(fits, max_refits=max_refits, **options)
    table.attrs["left_out"] = left_out
    if left_out:
        table.attrs["words"] += f" Left out: {', '.join(left_out)} (see attrs['left_out'])."
    return table, fits


def rungs(
    data: TaskData, spec: ModelSpec, structures: Sequence[TaskCovariance] | None = None
) -> tuple[dict[str, ModelSpec], dict[str, str]]:
    """Return the descriptions of the ladder by name, and why others are left out.

    Raises
    ------
    SpecError
        As `choose_structure`.
    """
    if not isinstance(data, TaskData):
        hint = "Pass TaskData.from_table(...)"
        raise SpecError(Finding("data", f"should be a TaskData, found {type(data).__name__}", hint))
    raise_if_any(spec.without_unused_priors(data).findings(data), SpecError)
    if structures is None:
        wanted: list[TaskCovariance] = [Exchangeable()]
        if data.n_tasks >= _FEW_TASKS:
            wanted += [StudentT(), LowRank(min(2, data.n_tasks - 1)), Clusters(2)]
        ladder = {"CompletePooling": pooled_spec(spec, data)}
        ladder |= {type(s).__name__: _under(spec, s) for s in wanted}
        ladder["NoPooling"] = alone_spec(spec, data)
        ladder = {name: rung.without_unused_priors(data) for name, rung in ladder.items()}
    else:
        ladder = {str(s): replace(spec, task_covariance=s) for s in structures}
    wrong = {name: found for name, rung in ladder.items() if (found := rung.findings(data))}
    if structures is not None:
        every = [replace(f, where=f"{name}, {f.where}") for name, found in wrong.items() for f in found]
        raise_if_any(every, SpecError)
    else:
        used = {name for rung in ladder.values() for name in rung.priors}
        hint = "Remove it"
        raise_if_any(
            [
                Finding(f"prior {name!r}", "would not be used by any structure of the ladder", hint)
                for name in spec.priors
                if name not in used
            ],
            SpecError,
        )
    fitting = {name: rung for name, rung in ladder.items() if name not in wrong}
    return fitting, {name: str(found[0]) for name, found in wrong.items()}


def _under(spec: ModelSpec, structure: TaskCovariance) -> ModelSpec:
    """Return the description under another structure, without options that have no meaning there."""
    mixed = isinstance(structure, TaskMixture)
    return replace(
        spec,
        task_covariance=structure,
        task_sd=spec.task_sd and not (mixed or isinstance(structure, StudentT)),
        independent_features=None if mixed else spec.independent_features,
        feature_scales=None if mixed else spec.feature_scales,
    )


def _fit_ladder(
    data: TaskData, ladder: Mapping[str, ModelSpec], options: dict[str, Any]
) -> dict[str, xr.DataTree]:
    """Fit one after the other; after an interrupt those that there are, if they can be compared."""
    fits: dict[str, xr.DataTree] = {}
    with progress("structures", len(ladder), show=options["progressbar"]) as done:
        for name, rung in ladder.items():
            try:
                with named_warnings(name):
                    found = fit(data, rung, **options)
                if not found.attrs["complete"]:
                    raise KeyboardInterrupt(f"interrupted in {name}")
            except KeyboardInterrupt:
                if len(fits) < 2:
                    raise
                rest = ", ".join(n for n in ladder if n not in fits)
                warnings.warn(f"Interrupted: not fitted are {rest}.", ConvergenceWarning, stacklevel=3)
                break
            fits[name] = found
            done()
    return fits


def _by_structure(fits: Sequence[xr.DataTree]) -> dict[str, xr.DataTree]:
    out: dict[str, xr.DataTree] = {}
    for idata in fits:
        name = str(spec_of(idata).task_covariance)
        out[f"{name} ({len(out) + 1})" if name in out else name] = idata
    return out


def _check(named: Mapping[str, xr.DataTree], by: str) -> None:
    if by not in ("row", "task"):
        raise SpecError(Finding("by", f"should be 'row' or 'task', found {by!r}"))
    if len(named) < 2:
        raise SpecError(Finding("fits", f"should be two at least, found {len(named)}"))
    first, *others = named
    y = data_of(named[first]).y
    for name in others:
        if not np.array_equal(data_of(named[name]).y, y):
            found = f"was fitted to other outcomes than {first!r}"
            raise SpecError(Finding(f"fit {name!r}", found, "Compare fits of the same rows"))


def _scores(idata: xr.DataTree, by: str, max_refits: int, sampler: dict[str, Any]) -> RowScores:
    """Score rows, or whole tasks."""
    if by == "row":
        return with_refits(idata, row_scores(idata), max_refits, **sampler)[0]
    found = without_each_task(idata, **sampler)
    k = np.where(found.refitted, 0.0, found.pareto_k)
    return RowScores(found.elpd, np.ones(len(k)), k, found.error)


def _for_arviz(scores: RowScores) -> Any:
    """Return scores in the form that ArviZ compares: rows that stand for several are written out."""
    from arviz_stats import ELPDDataLOO

    share = np.maximum(np.cumsum(scores.count) * min(1.0, _MAX_WRITTEN_OUT / scores.count.sum()), 0.0)
    copies = np.diff(np.rint(share), prepend=0.0).astype(np.int64)
    each = np.repeat(scores.density, copies)
    return ELPDDataLOO(
        elpd=float(scores.elpd.sum()),
        se=float(np.sqrt(_variance(scores.density, scores.count))),
        p=float("nan"),
        n_samples=_ANY,
        n_data_points=len(each),
        scale="log",
        warning=bool((scores.pareto_k > MAX_PARETO_K).any()),
        good_k=MAX_PARETO_K,
        elpd_i=xr.DataArray(each, dims="row"),
        pareto_k=xr.DataArray(scores.pareto_k, dims="k"),
    )


def _complete(table: pd.DataFrame, scores: Mapping[str, RowScores]) -> None:
    """Write differences of all rows, with the error of the draws in their standard errors."""
    best = scores[str(table.index[0])]
    for name in table.index:
        one = scores[str(name)]
        difference = one.density - best.density
        total = float((one.count * difference).sum())
        drawn = [] if one is best else [one, best]
        moved = sum(float(batch_variance(s.error.sum(axis=1))) for s in drawn)
        error = float(np.sqrt(_variance(difference, one.count) + moved))
        table.loc[name, ["elpd", "elpd_diff", "dse"]] = [float(one.elpd.sum()), total, error]
        if one is not best:
            table.loc[name, "p_worse"] = float(norm.cdf(-total / max(error, 1e-12)))


def _variance(values: FloatArray, count: FloatArray) -> float:
    """Return the variance of a sum of rows, each of which counts several times."""
    n, total = count.sum(), (count * values).sum()
    return float(max((count * values**2).sum() - total**2 / n, 0.0))


def _noise_words(named: Mapping[str, xr.DataTree]) -> str:
    """Say where one noise scale stands for tasks that differ by it, with the numbers of the first fit."""
    found = {name: noise[0] for name, idata in named.items() if (noise := noise_findings(idata))}
    if not found:
        return ""
    first = next(iter(found))
    return f" In {', '.join(found)} sigma {found[first].problem} (numbers of {first}): {REMEDY}."


def _words(table: pd.DataFrame, by: str, disagree: Mapping[str, float]) -> str:
    best = table.index[0]
    new = "rows of known tasks" if by == "row" else "new tasks"
    text = f"{best} predicts {new} best."
    loss, others = -table.elpd_diff, list(table.index[1:])
    alike = [n for n in others if loss[n] < _MATTERS]
    open_ = [n for n in others if _MATTERS <= loss[n] < 2.0 * table.dse[n]]
    worse = [n for n in others if n not in alike + open_]
    # ArviZ's own doubts: a score that rests on too few draws, and an error that rests on too few rows.
    unsure = [n for n in table.index if str(table.diag_elpd[n])]
    few = [n for n in worse if str(table.diag_diff[n]).startswith("N <") and loss[n] < 4.0 * table.dse[n]]
    doubted = [n for n in worse if n in few or n in unsure or best in unsure]
    clear = [n for n in worse if n not in doubted]
    if alike:
        text += f" {', '.join(alike)} predict{'s' if len(alike) == 1 else ''} as well: the simplest will do."
    if open_:
        text += f" Probably worse, but these rows cannot decide it: {', '.join(open_)}."
    if doubted:
        text += f" Worse as far as can be told: {', '.join(doubted)}."
    if clear:
        text += f" Clearly worse: {', '.join(clear)}."
    if few:
        text += " With fewer than 100 rows the standard errors are rough."
    if unsure:
        text += (
            f" Scores of {', '.join(map(str, unsure))} are rough: importance weights fail for some rows "
            f"(Pareto k above {MAX_PARETO_K}, see diag_elpd)."
        )
    if disagree:
        named = ", ".join(f"{name} ({r:z.2f})" for name, r in disagree.items())
        text += f" Do not trust yet, since chains disagree (R-hat): {named}."
    return text
