"""The same model fitted to some of the rows: exact cross-validation, by hand or by ArviZ."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.arguments import generator
from bayes_mtl.data import TaskData
from bayes_mtl.errors import ConvergenceWarning, DataWarning, Finding, SpecError
from bayes_mtl.inference import fit
from bayes_mtl.inference.attributes import data_of, order_by_task, spec_of
from bayes_mtl.inference.fit import check_sampler
from bayes_mtl.inference.log_likelihood import log_likelihood
from bayes_mtl.model import explicit_priors
from bayes_mtl.progress import progress
from bayes_mtl.spec import ModelSpec

if TYPE_CHECKING:
    from arviz import SamplingWrapper


def sampling_wrapper(idata: xr.DataTree, *, random_seed: int | None = 1, **sampler: Any) -> SamplingWrapper:
    """Tell ArviZ how to fit this model again without some of its rows.

    For `arviz.loo_kfold` (leave rows, or whole tasks, out by refitting) and `arviz.reloo` (refit where
    importance sampling fails).

    Parameters
    ----------
    idata : DataTree
        What `fit` returned; with ``log_likelihood``, which ArviZ reads.
    random_seed : int, optional
        Of the fits.
    **sampler
        Options of the fits: `draws`, `tune`, `chains`, ... (default 1000, 1000, 2).

    Returns
    -------
    arviz.SamplingWrapper
        Fits keep the priors of all data. A task whose rows are all left out stays in the model, without rows:
        its coefficients are drawn from the population.

    Raises
    ------
    SpecError
        If the fit has no pointwise log-likelihood.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Statistics and Computing 27.

    Examples
    --------
    >>> import arviz as az
    >>> wrapper = mtl.sampling_wrapper(idata, draws=500)                               # doctest: +SKIP
    >>> az.loo_kfold(idata, wrapper, k=5)                                              # doctest: +SKIP
    >>> az.loo_kfold(idata, wrapper, group_by=idata["constant_data"]["task_index"])    # doctest: +SKIP
    """
    from arviz import SamplingWrapper  # loads slowly

    data, spec = data_of(idata), spec_of(idata)
    generator(random_seed)
    check_sampler(sampler)
    if "log_likelihood" not in idata:
        hint = "Fit with log_likelihood=True"
        raise SpecError(Finding("sampling_wrapper", "needs a fit with log_likelihood", hint))

    class Refit(SamplingWrapper):
        """The four steps that ArviZ asks for."""

        def sel_observations(self, idx: npt.ArrayLike) -> tuple[TaskData, IntArray]:
            """Divide into the rows that stay, and the positions of the others."""
            out = np.atleast_1d(np.asarray(idx))
            return keep_rows(data, ~np.isin(order_by_task(idata), out)), out

        def sample(self, modified_observed_data: TaskData) -> xr.DataTree:
            """Fit."""
            return quick_fit(
                modified_observed_data, explicit_priors(spec, data), random_seed=random_seed, **sampler
            )

        def get_inference_data(self, fitted_model: xr.DataTree) -> xr.DataTree:
            """Return the fit as it is."""
            return fitted_model

        def log_likelihood__i(self, excluded_obs: IntArray, idata__i: xr.DataTree) -> xr.DataArray:
            """Return the log density of the rows left out, dims (chain, draw, row)."""
            return log_likelihood_of(idata, excluded_obs, idata__i)

    return Refit(None, idata_orig=idata)


def log_likelihood_of(idata: xr.DataTree, rows: IntArray, refit: xr.DataTree) -> xr.DataArray:
    """Return the log density of some rows of the groups of `idata` under a refit, dims (chain, draw, row)."""
    groups = {"posterior": refit["posterior"].to_dataset()}
    for name in ("constant_data", "observed_data"):
        groups[name] = idata[name].to_dataset().isel(row=rows)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(idata.attrs)
    return log_likelihood(tree)["y"]


def exact_rows(
    idata: xr.DataTree,
    density: FloatArray,
    k: FloatArray,
    worst: float,
    max_refits: int,
    *,
    count: FloatArray | None = None,
    log_ratio: Callable[[xr.DataTree], FloatArray] | None = None,
    **sampler: Any,
) -> tuple[FloatArray, FloatArray, int]:
    """Replace log densities of rows left out whose Pareto k is above `worst` by those of refits.

    Rows are in the order of `data_of(idata)`, divided among at most `max_refits` fits. Of a row that
    stands for `count` equal ones, one is left out. `log_ratio` is what weighs the draws of a refit, task by
    task (D, T). Returns densities, Pareto k (0 where the row was left out), and how many refits there were.
    """
    bad = np.flatnonzero(k > worst)
    n_folds = min(len(bad), max_refits)
    if not n_folds:
        return density, k, 0
    density, k = density.copy(), k.copy()
    position = order_by_task(idata)
    count = np.ones(len(k)) if count is None else count
    with progress("refits without some rows", n_folds, show=sampler.get("progressbar", True)) as done:
        for fold in np.array_split(bad, n_folds):
            left = count.copy()
            left[fold] = np.maximum(left[fold] - 1.0, 0.0)
            refit = _fit_to(idata, left > 0.0, left, **sampler)
            of_rows = log_likelihood_of(idata, position[fold], refit)
            by_draw = of_rows.to_numpy().reshape(-1, len(fold)) / count[fold]
            weight = np.zeros(by_draw.shape)
            if log_ratio is not None:
                weight = log_ratio(refit)[:, data_of(idata).task_index[fold]]
            total = np.logaddexp.reduce(weight, axis=0)
            density[fold] = np.logaddexp.reduce(weight + by_draw, axis=0) - total
            k[fold] = 0.0
            done()
    return density, k, n_folds


def fit_without(idata: xr.DataTree, t: int, **sampler: Any) -> xr.DataTree:
    """Fit the same model with the same priors, but without the rows of task t.

    The task stays, so that structures that know its place go on meaning the same; without rows it says
    nothing.
    """
    return _fit_to(idata, data_of(idata).task_index != t, **sampler)


def _fit_to(
    idata: xr.DataTree, keep: npt.NDArray[np.bool_], count: FloatArray | None = None, **sampler: Any
) -> xr.DataTree:
    """Fit to some of the rows; `count` is how many equal rows each then stands for."""
    data, spec = data_of(idata), spec_of(idata)
    kept = keep_rows(data, keep)
    if count is not None and (data.weights == spec.family.copies(data.weights)).all():
        kept = replace(kept, weights=count[keep])
    return quick_fit(kept, explicit_priors(spec, data), "a fit without some rows", **sampler)


def keep_rows(data: TaskData, keep: npt.NDArray[np.bool_]) -> TaskData:
    """Leave out the rows where `keep` is false; all tasks stay."""
    return replace(
        data,
        X=data.X[keep],
        X_shared=data.X_shared[keep],
        y=data.y[keep],
        task_index=data.task_index[keep],
        row=data.row[keep],
        weights=data.weights[keep],
        offset=data.offset[keep],
        noise=None if data.noise is None else data.noise[keep],
        groupings=tuple(replace(g, index=g.index[keep], X=g.X[keep]) for g in data.groupings),
        names=None if data.names is None else data.names[keep],
    )


def quick_fit(data: TaskData, spec: ModelSpec, about: str = "a refit", **sampler: Any) -> xr.DataTree:
    """Fit with fewer draws than usual, which are enough for a mean over them; warnings say what it is."""
    options: dict[str, Any] = {"chains": 2, "target_accept": 0.95, "progressbar": False}
    options |= {"log_likelihood": False, "posterior_predictive": False, **sampler}
    with named_warnings(about):
        found = fit(data, spec, **options)
    if not found.attrs["complete"]:  # what is computed from several fits needs them whole
        raise KeyboardInterrupt(f"interrupted in {about}")
    return found


@contextmanager
def named_warnings(about: str) -> Iterator[None]:
    """Say in warnings of the sampler which fit they are about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, DataWarning):
            continue  # said of the data when they were fitted first
        warnings.warn(f"{about}: {warning.message}", warning.category, stacklevel=4)
