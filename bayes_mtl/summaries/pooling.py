"""How much each task leans on the others, and on which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData, sum_by_task
from bayes_mtl.data.labels import as_coordinate
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import schema_of, spec_of
from bayes_mtl.inference.leave_out import LeftOut, Stored
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import CompletePooling, NoPooling, TaskMixture

_DRAWS = 200
_MAX_TASKS = 150  # with more, who lends to whom is left out: it is a number per pair, of a matrix per pair


def pooling(idata: xr.DataTree) -> xr.Dataset:
    """Say how much each coefficient is decided by the other tasks, and how many rows that is worth.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.

    Returns
    -------
    Dataset
        ``factor`` (task, feature), between 0 and 1: the variance of a coefficient given everything over its
        variance given the other tasks alone. Near 0 the task's own rows decide; near 1 they add nothing,
        and the coefficient is what the others say. ``n_rows`` (task), a binary row of weight w being w rows;
        ``effective_rows`` (task): how many
        rows of its own would tell the task as much as it knows; ``borrowed_rows``, the difference.
        ``borrowed_from`` (task, task_bis): how many effective rows the first would lose without the rows of
        the second (150 tasks at most). ``alone`` (task, feature), least squares on the task's own rows, NaN
        where they do not determine it; ``together``, the posterior mean; ``population`` (feature), the
        population mean. Attribute ``words`` says what is pooled over what.

    Raises
    ------
    SpecError
        For mixtures.

    Notes
    -----
    Everything is computed given the hyperparameters, draw by draw, and averaged. With Gamma_t the posterior
    covariance of the coefficients of task t and V_t their covariance given the rows of the other tasks,
    `factor` = Gamma_t / V_t on the diagonal: for one coefficient, the share of the prior in the precision
    (Gelman & Pardoe 2006). With rows x_i of rank r, n rows alone would leave a mean variance of x_i'beta of
    r sigma^2 / n, so `effective_rows` = r sigma^2 / mean_i x_i' Gamma_t x_i. For outcomes that are not
    Gaussian, what rows say is approximated by a normal density. Effects of the levels of groupings, and what
    single tasks have of their own under `Horseshoe(task_specific=True)`, are taken as known.

    References
    ----------
    Gelman & Pardoe (2006), Bayesian measures of explained variance and pooling in multilevel models,
    Technometrics 48.

    Examples
    --------
    >>> mtl.pooling(idata)["factor"].to_pandas()  # doctest: +SKIP
    """
    spec = spec_of(idata)
    if isinstance(spec.task_covariance, TaskMixture):
        found = f"under {type(spec.task_covariance).__name__} a task is in one of several populations"
        raise SpecError(Finding("pooling", found, "Look at `clusters` instead"))
    stored = Stored.read(idata, draws=_DRAWS)
    data = stored.data
    n_varying, n_tasks = data.n_features, data.n_tasks
    count = spec.family.copies(data.weights)
    n_rows = sum_by_task(count, data.starts)
    every: dict[str, list[FloatArray]] = {"factor": [], "rows": [], "from": []}
    for _, piece in stored.chunks():
        covariance = piece.coefficients[1]
        before = piece.covariance_given_others()
        ratio = np.diagonal(covariance, axis1=-2, axis2=-1) / np.diagonal(before, axis1=-2, axis2=-1)
        every["factor"].append(ratio[..., :n_varying])
        known = _effective_rows(piece, covariance, data, count)
        every["rows"].append(known)
        if n_tasks <= _MAX_TASKS:
            lost = [known - _without(piece, s, data, count) for s in range(n_tasks)]
            every["from"].append(np.stack(lost, axis=2))
    effective = np.concatenate(every["rows"]).mean(axis=0)
    posterior = idata["posterior"].to_dataset()
    shared = np.zeros(0)
    if "beta_shared" in posterior:
        shared = posterior["beta_shared"].mean(("chain", "draw")).to_numpy()
    features, tasks = list(data.features), as_coordinate(data.tasks)
    square, each = ("task", "task_bis"), ("task", "feature")
    out = xr.Dataset(
        {
            "factor": (each, np.concatenate(every["factor"]).mean(axis=0)),
            "n_rows": ("task", n_rows.astype(np.int64) if (n_rows == np.rint(n_rows)).all() else n_rows),
            "effective_rows": ("task", effective),
            "borrowed_rows": ("task", effective - n_rows),
            "alone": (each, _alone(stored, shared)),
            "together": (each, posterior["beta"].mean(("chain", "draw")).transpose("task", "feature").data),
        },
        coords={"task": tasks, "feature": features},
        attrs={
            "task": schema_of(idata).task or "outcome",
            "words": in_words(spec, list(features), schema_of(idata).groupings),
        },
    )
    if "beta_mean" in posterior:
        out["population"] = ("feature", posterior["beta_mean"].mean(("chain", "draw")).to_numpy())
    if every["from"]:
        lent = np.concatenate(every["from"]).mean(axis=0)
        np.fill_diagonal(lent, np.nan)
        out["borrowed_from"] = (square, lent)
        out = out.assign_coords(task_bis=tasks)
    return out


def _effective_rows(piece: LeftOut, covariance: FloatArray, data: TaskData, count: FloatArray) -> FloatArray:
    """Return r sigma^2 / mean_i x_i' Gamma x_i = r n / trace(Gamma J), with J = X'WX / sigma^2, (D, T)."""
    n = sum_by_task(count, data.starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return piece.rows.rank * n / np.einsum("dtfg,dtgf->dt", covariance, piece.information)


def _without(piece: LeftOut, s: int, data: TaskData, count: FloatArray) -> FloatArray:
    """Return the effective rows of every task if the rows of task s are left out."""
    B, left = piece.reach
    covariance = B @ piece.covariance_without(s)[:, None] @ np.swapaxes(B, -1, -2) + left
    return _effective_rows(piece, covariance, data, count)


def _alone(stored: Stored, shared: FloatArray) -> FloatArray:
    """Return least squares on each task's own rows, (T, P); NaN if they do not determine it.

    Slopes that all tasks share and effects of levels are taken as known: at their mean.
    """
    data, rows, P = stored.data, stored.rows, stored.data.n_features
    moved = np.zeros((data.n_tasks, rows.root.shape[1]))
    if stored.levels is not None:
        moved = stored.levels.slope @ stored.hyper.levels.mean(axis=0)
    out = np.full((data.n_tasks, P), np.nan)
    for t in range(data.n_tasks):
        own, common = rows.root[:, :P, t], rows.root[:, P:, t]
        if len(own) and np.linalg.matrix_rank(own) == P:
            target = (
                rows.target[:, t] - rows.root[:, :, t] @ moved[t] - common @ (shared - rows.reference[P:])
            )
            out[t] = rows.reference[:P] + np.linalg.lstsq(own, target, rcond=None)[0]
    return out


def in_words(
    spec: ModelSpec, features: list[str], groupings: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> str:
    """Say what is pooled over what."""
    structure = spec.task_covariance
    named = ", ".join(features) if len(features) <= 8 else f"{len(features)} coefficients"
    if isinstance(structure, CompletePooling):
        return f"{named}: one value for all tasks (complete pooling)."
    if isinstance(structure, NoPooling):
        return f"{named}: each task for itself (no pooling)."
    outside = spec.outside(features)
    inside = [f for f in features if f not in outside]
    text = (
        f"{named}: each task has its own, drawn from a population whose mean and spread are learned from all "
        "tasks, so that tasks with few rows lean on the others."
    )
    if structure.relates_tasks:
        name = type(getattr(structure, "inner", structure)).__name__
        text += f" In {', '.join(inside)}, tasks lean most on those that {name} relates to them."
        if outside:
            text += f" {', '.join(outside)} lean{'s' if len(outside) == 1 else ''} on all tasks alike."
    for name, features_of_levels in groupings.items():
        text += (
            f" Levels of {name} have effects of their own ({', '.join(features_of_levels)}), which are taken "
            "as known here."
        )
    return text
