"""Predictions for new rows, and for new tasks if asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.arguments import generator
from bayes_mtl.data import TaskSchema
from bayes_mtl.data.frames import column_names, missing_columns, to_pandas
from bayes_mtl.data.groupings import named
from bayes_mtl.data.labels import Labels, label_array
from bayes_mtl.data.rows import row_names
from bayes_mtl.errors import Finding, PredictionError, SpecError, raise_if_any
from bayes_mtl.inference.attributes import schema_of, spec_of
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES
from bayes_mtl.inference.log_likelihood import (
    effects_of_levels,
    fitted_mean,
    linear_predictor,
    posterior_predictive,
    sigma_of_rows,
)
from bayes_mtl.inference.new_tasks import draw_new_levels, draw_new_noise, draw_new_tasks
from bayes_mtl.structures import Clusters, TaskCovariance
from bayes_mtl.structures.known import values_of_tasks


def predict(
    idata: xr.DataTree,
    table: Any = None,
    *,
    kind: Literal["mean", "response"] = "mean",
    new_tasks: Literal["error", "population"] = "error",
    random_seed: int | np.random.Generator | None = None,
) -> xr.DataTree:
    """Predict the outcome of new rows, or of those that were fitted.

    Parameters
    ----------
    idata : DataTree
        What `fit` or `load` returned.
    table : data frame, optional
        The columns that the model was fitted with, the outcome apart. For a model of a wide table,
        every row gets a prediction for every outcome. Default: the rows that were fitted.
    kind : {"mean", "response"}
        The expected outcome, or draws of the outcome with its noise.
    new_tasks : {"error", "population"}
        What to do with tasks, and levels of groupings, that were not there when the model was fitted.
        "population": each new task gets its own draw from the population of tasks (the same label the
        same draw), given what the known tasks revealed about it. What a task has of its own is drawn anew
        from its law given the hyperparameters: scales (`task_sd`, `StudentT`), loadings (`LowRank`,
        `SparseBasis`), noise (`task_noise`), clusters, and exceptions of single tasks (`Horseshoe`). Likewise
        each new level of a grouping, whose place, if its structure needs one, has to be in the description.
        If the structure says how a new task relates to the known ones, the draw is from its law given
        theirs. Under `LowRank` and `SparseBasis` it has loadings of its own on the latent vectors that the
        known tasks revealed. Under `Kernel`, `Graph` and `Tree` it has a place if the description names it
        although the data did not have it, and under `Kernel.from_table` and `Tree.from_table` always: places
        are read from the same columns of `table`. All others are independent of the known tasks, which under
        `Graph` and `Tree` means that they have no neighbours and share no group. Under `Clusters` with
        `gating`, new tasks fall into clusters by their values there, or in its columns of `table`; under
        `OrthogonalGroups`, their groups have to be in the description.
    random_seed : int or Generator, optional
        For "response" and "population".

    Returns
    -------
    DataTree
        Group ``predictions`` with ``y`` (chain, draw, row), rows in the order of `table`: the coordinate
        ``row`` is its index, ``row_task`` holds each row's task. Of a wide table, all rows for the first
        outcome come first, and the coordinate ``outcome`` says which it is.

    Raises
    ------
    PredictionError
        Lists everything that is wrong: unknown tasks and levels, missing columns and values.

    Notes
    -----
    Per draw, with deviations D of the known tasks o from their means in units in which features are
    independent (tasks in rows). Places that are known, with the correlation Omega of known and new tasks n:

        D_n | D_o ~ MN(Omega_no Omega_oo^-1 D_o, Omega_nn - Omega_no Omega_oo^-1 Omega_on, I)

    Loadings, with a = Lambda_o / delta_o: latent vectors f given the known tasks, and new tasks given these:

        f | D_o ~ MN(Q^-1 a' (D_o / delta_o), Q^-1, I),  Q = I + a'a,    D_n = Lambda_n f + delta_n e_n

    Features outside the task covariance are independent of the known tasks.

    Examples
    --------
    >>> mtl.predict(idata, new_pupils)["predictions"]["y"].mean(("chain", "draw"))  # doctest: +SKIP
    """
    schema, spec = schema_of(idata), spec_of(idata)
    _check_arguments(kind, new_tasks)
    rng = generator(random_seed, PredictionError)
    if table is None:
        return _in_sample(idata, kind, rng)
    structure = spec.task_covariance
    original = table
    known: list[Label] = idata["posterior"]["task"].to_numpy().tolist()
    table, of_tasks, of_levels, coords = _rows(table, schema, known)
    labels = of_tasks.values
    findings: list[Finding] = []

    def position(found: Labels, dim: str, what: str) -> tuple[IntArray, list[Label]]:
        codes, unknown, wrong = found.codes(
            idata["posterior"][dim].to_numpy().tolist(),
            what,
            were_floats=found.column in schema.float_labels,
            new=new_tasks == "population",
        )
        findings.extend(wrong)
        return codes, unknown

    codes, unknown = position(of_tasks, "task", "tasks")
    levels = {name: position(found, name, "levels") for name, found in of_levels.items()}
    if unknown and new_tasks != "error":
        findings += missing_columns(original, structure.task_columns or ())
    offset = _column(table, schema.offset, findings, 0.0, positive=False)
    needs_noise = kind == "response" and schema.noise is not None
    noise = _column(table, schema.noise if needs_noise else None, findings, 1.0)
    weights = _column(
        table,
        schema.weights if kind == "response" and spec.family.has_noise else None,
        findings,
        1.0,
    )
    matrix = None
    try:
        matrix = schema.design.matrix(table, PredictionError)
    except PredictionError as err:
        findings += err.findings
    raise_if_any(findings, PredictionError)
    assert matrix is not None
    X, X_shared = schema.split(matrix)

    posterior = idata["posterior"].to_dataset()
    effects, of_rows = _levels(idata, posterior, levels, matrix, schema, rng)
    if unknown:
        structure = _with_places(structure, original, schema, unknown)
        posterior = _with_new_tasks(idata, posterior, unknown, table, labels, schema, structure, rng)
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    out = np.empty((chains, draws, len(labels)))
    step = max(1, CHUNK_BYTES // (8 * max(1, len(labels)) * (X.shape[1] + 3)))
    for chain in range(chains):
        for start in range(0, draws, step):
            part = posterior.isel(chain=chain, draw=slice(start, start + step))
            eta = linear_predictor(part, X, X_shared if X_shared.shape[1] else None, offset, codes)
            own = effects.isel(chain=chain, draw=slice(start, start + step))
            eta += effects_of_levels(own, of_rows, list(schema.groupings))
            if kind == "mean":
                value = spec.family.mean(eta)
            else:
                scale = noise if needs_noise else sigma_of_rows(part, codes)
                value = spec.family.draw(rng, eta, scale / np.sqrt(weights))
            out[chain, start : start + step] = value
    dataset = xr.Dataset(
        {"y": (("chain", "draw", "row"), out)},
        coords={
            "chain": posterior["chain"],
            "draw": posterior["draw"],
            **coords,
            "row_task": ("row", label_array(labels)),
        },
        attrs={"kind": kind, "outcome": schema.outcome},
    )
    return xr.DataTree.from_dict({"predictions": dataset})


def _in_sample(idata: xr.DataTree, kind: str, rng: np.random.Generator) -> xr.DataTree:
    if kind == "mean":
        found = fitted_mean(idata)
    else:
        found = posterior_predictive(idata, int(rng.integers(2**31 - 1)))
    task = idata["constant_data"]["task"].to_numpy()[idata["constant_data"]["task_index"].to_numpy()]
    found = found.assign_coords(row_task=("row", task))
    return xr.DataTree.from_dict(
        {"predictions": found.assign_attrs(kind=kind, outcome=schema_of(idata).outcome)}
    )


def _check_arguments(kind: str, new_tasks: str) -> None:
    findings = []
    if kind not in ("mean", "response"):
        findings.append(Finding("kind", f"should be 'mean' or 'response', found {kind!r}"))
    if new_tasks not in ("error", "population"):
        findings.append(Finding("new_tasks", f"should be 'error' or 'population', found {new_tasks!r}"))
    raise_if_any(findings, PredictionError)


def _rows(
    table: Any, schema: TaskSchema, known: Sequence[Label]
) -> tuple[pd.DataFrame, Labels, dict[str, Labels], dict[str, Any]]:
    """Return the needed columns, the labels of tasks and levels, and coordinates of the rows."""
    task_design = schema.task_design
    reads = [*schema.design.reads, *(task_design.reads if task_design else ())]
    labelled = [*schema.groupings, *([schema.task] if schema.task else [])]
    raise_if_any(missing_columns(table, [*reads, *labelled]), PredictionError)
    optional = [c for c in (schema.offset, schema.noise, schema.weights) if c and c in column_names(table)]
    frame = to_pandas(table, [*reads, *optional], PredictionError)
    labels = {column: Labels.read(table, column, PredictionError) for column in labelled}
    levels = {name: labels[name] for name in schema.groupings}
    names = row_names(table, len(frame))
    if schema.task is not None:
        return frame, labels[schema.task], levels, {"row": names}
    fitted = [outcome for outcome in schema.outcomes if outcome in known]  # others had no rows
    again = np.tile(np.arange(len(frame)), len(fitted))
    outcome = np.repeat(fitted, len(frame))
    return (
        frame.iloc[again].reset_index(drop=True),
        Labels("outcome", outcome.tolist()),
        {name: found.take(again) for name, found in levels.items()},
        {"row": names[again], "outcome": ("row", outcome)},
    )


def _levels(
    idata: xr.DataTree,
    posterior: xr.Dataset,
    levels: Mapping[str, tuple[Any, list[Label]]],
    matrix: FloatArray,
    schema: TaskSchema,
    rng: np.random.Generator,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return effects of the levels of all groupings, with a draw for each new one, and what rows read."""
    effects = []
    of_rows = xr.Dataset(coords={"row": np.arange(len(matrix))})
    for name, (codes, unknown) in levels.items():
        name_of, feature = partial(named, name), named(name, "feature")
        known = posterior[name_of("beta")]
        known = known.drop_vars([c for c in known.coords if c not in known.dims])
        if unknown:
            new = draw_new_levels(idata, name, unknown, rng)
            coords = {name: label_array(unknown), feature: known[feature]}
            known = xr.concat([known, xr.DataArray(new, coords, ("chain", "draw", name, feature))], dim=name)
        effects.append(known.rename(name_of("beta")))
        of_rows[name_of("index")] = ("row", codes)
        of_rows[f"X_{name}"] = (("row", feature), schema.by_level(matrix, name))
    sizes = xr.Dataset(coords={"chain": posterior["chain"], "draw": posterior["draw"]})
    return xr.merge([sizes, *effects], join="exact"), of_rows


def _column(
    table: pd.DataFrame, name: str | None, findings: list[Finding], default: float, *, positive: bool = True
) -> FloatArray:
    if name is None:
        return np.full(len(table), default)
    if name not in table:
        findings.append(Finding(f"column {name!r}", "is not in the table", "The model was fitted with it"))
        return np.full(len(table), default)
    values = table[name].to_numpy(dtype=float, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        findings.append(Finding(f"column {name!r}", f"is not finite in rows {bad[:5].tolist()}"))
    elif positive and (values <= 0).any():
        bad = np.flatnonzero(values <= 0)
        findings.append(
            Finding(f"column {name!r}", f"should be positive, found {values[bad[0]]} in row {bad[0]}")
        )
    return values


def _with_new_tasks(
    idata: xr.DataTree,
    posterior: xr.Dataset,
    unknown: list[Label],
    table: pd.DataFrame,
    labels: list[Label],
    schema: TaskSchema,
    structure: TaskCovariance,
    rng: np.random.Generator,
) -> xr.Dataset:
    """Append to `beta` (and a noise scale per task) a draw from the population for each new task."""
    chains, draws, n_new = posterior.sizes["chain"], posterior.sizes["draw"], len(unknown)
    if "beta_mean" in posterior:
        mean = posterior["beta_mean"].transpose("chain", "draw", "feature").to_numpy()[:, :, None, :]
    else:  # every feature is shared
        mean = np.zeros((chains, draws, 1, posterior.sizes["feature"]))
    mean = np.broadcast_to(mean, (chains, draws, n_new, mean.shape[-1]))
    if schema.task_design is not None:
        first = [labels.index(label) for label in unknown]
        known_of_task = table[list(schema.task_design.reads)].assign(_label=pd.Series(labels, dtype=object))
        varies = known_of_task.groupby("_label", sort=False).nunique(dropna=False).max(axis=1)
        if odd := [label for label in unknown if varies[label] > 1]:
            raise PredictionError(
                Finding(f"tasks {odd[:5]}", "have task features that change within the task")
            )
        z = schema.task_design.matrix(table.iloc[first].reset_index(drop=True), PredictionError)
        effects = (
            posterior["task_feature_effects"].transpose("chain", "draw", "feature", "task_feature").to_numpy()
        )
        mean = mean + np.einsum("nq,cdpq->cdnp", z, effects)
    beta = mean + draw_new_tasks(idata, structure, unknown, rng)
    coords = {"task": label_array(unknown), "feature": posterior["feature"]}
    new = {"beta": xr.DataArray(beta, dims=("chain", "draw", "task", "feature"), coords=coords)}
    keep = {"beta": posterior["beta"]}
    if (sigma := draw_new_noise(posterior, n_new, rng)) is not None:
        new["sigma"] = xr.DataArray(
            sigma, dims=("chain", "draw", "task"), coords={"task": label_array(unknown)}
        )
        keep["sigma"] = posterior["sigma"]
    joined = {
        name: xr.concat(
            [values.drop_vars([c for c in values.coords if c not in values.dims]), new[name]], dim="task"
        )
        for name, values in keep.items()
    }
    rest = {
        name: posterior[name] for name in ("beta_shared", "sigma") if name in posterior and name not in joined
    }
    return xr.Dataset(joined | rest)


def _with_places(
    structure: TaskCovariance, table: Any, schema: TaskSchema, unknown: list[Label]
) -> TaskCovariance:
    """Return the structure with the places of new tasks, if it says where to find them."""
    columns = structure.task_columns
    if columns is None or schema.task is None:
        return structure
    what = "value" if isinstance(structure, Clusters) else "place"
    new = [task for task in unknown if not structure.knows(task)]
    try:
        places = values_of_tasks("new_tasks", "columns", table, schema.task, columns, what, only=new)
        return structure.with_tasks(places)
    except SpecError as err:
        raise PredictionError(err.findings) from err
