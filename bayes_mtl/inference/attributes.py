"""The description of a fit, kept as JSON in the attributes of its DataTree."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data import TaskData, TaskSchema
from bayes_mtl.data.groupings import Grouping, named
from bayes_mtl.errors import Finding, SpecError, StorageError
from bayes_mtl.model.feature_scales import coefficient_sizes
from bayes_mtl.spec import ModelSpec, inside_features

FORMAT = 2
FORMAT_KEY, _SPEC, _SCHEMA = "bayes_mtl_format", "bayes_mtl_spec", "bayes_mtl_schema"
_GIVEN = "bayes_mtl_spec_as_given"
DESCRIPTION = {
    _SPEC: "the description",
    _GIVEN: "the description as it was given",
    _SCHEMA: "the formula or columns",
}


def describe(
    spec: ModelSpec, schema: TaskSchema, version: str, given: ModelSpec | None = None
) -> dict[str, Any]:
    """Return the attributes that make a DataTree a fit of this package.

    Parameters
    ----------
    spec : ModelSpec
        With all priors, so that they stay what they are when defaults change.
    schema : TaskSchema
    version : str
    given : ModelSpec, optional
        As it was given to `fit`, which says what was left to defaults. Default: `spec`.
    """
    return {
        _GIVEN: json.dumps((spec if given is None else given).to_dict()),
        FORMAT_KEY: FORMAT,
        "modeling_interface": "bayes_mtl",
        "modeling_interface_version": version,
        _SPEC: json.dumps(spec.to_dict()),
        _SCHEMA: json.dumps(schema.to_dict(), default=_to_json),
    }


def spec_of(idata: xr.DataTree) -> ModelSpec:
    """Return the description of the model that was fitted, with all priors."""
    return ModelSpec.from_dict(json.loads(_attribute(idata, _SPEC)))


def given_spec_of(idata: xr.DataTree) -> ModelSpec:
    """Return the description as it was given: priors that it does not have were left to defaults."""
    return ModelSpec.from_dict(json.loads(_attribute(idata, _GIVEN)))


def schema_of(idata: xr.DataTree) -> TaskSchema:
    """Return how the data came from their table."""
    return TaskSchema.from_dict(json.loads(_attribute(idata, _SCHEMA)))


def reads_data_once[**Options, Result](
    answer: Callable[Concatenate[xr.DataTree, Options], Result],
) -> Callable[Concatenate[xr.DataTree, Options], Result]:
    """Let a function of a fit, and all that it calls, share what `data_of` and the data find out.

    Sorting millions of rows and measuring them takes seconds.
    """

    @wraps(answer)
    def call(idata: xr.DataTree, *args: Options.args, **options: Options.kwargs) -> Result:
        known = _reading.get()
        if known is not None and known[0] is idata:
            return answer(idata, *args, **options)
        token = _reading.set([idata, None])
        try:
            return answer(idata, *args, **options)
        finally:
            _reading.reset(token)

    return call


_reading: ContextVar[list[Any] | None] = ContextVar("bayes_mtl_reading", default=None)


def data_of(idata: xr.DataTree) -> TaskData:
    """Return the data that were fitted, rows sorted by task."""
    known = _reading.get()
    if known is None or known[0] is not idata:
        return _read_data(idata)
    if known[1] is None:
        known[1] = _read_data(idata)
    data: TaskData = known[1]
    return data


def _read_data(idata: xr.DataTree) -> TaskData:
    schema = schema_of(idata)
    fixed = rows_by_task(idata, "constant_data")
    n_rows, n_tasks = fixed.sizes["row"], fixed.sizes["task"]
    return TaskData(
        X=fixed["X"].to_numpy(),
        X_shared=fixed["X_shared"].to_numpy() if "X_shared" in fixed else np.zeros((n_rows, 0)),
        y=rows_by_task(idata, "observed_data")["y"].to_numpy(),
        task_index=fixed["task_index"].to_numpy(),
        row=fixed["row_position" if "row_position" in fixed else "row"].to_numpy(),
        tasks=tuple(fixed["task"].to_numpy().tolist()),
        task_features=(
            fixed["task_features"].to_numpy() if "task_features" in fixed else np.zeros((n_tasks, 0))
        ),
        weights=fixed["weights"].to_numpy(),
        offset=fixed["offset"].to_numpy(),
        noise=fixed["noise"].to_numpy() if "noise" in fixed else None,
        schema=schema,
        groupings=tuple(
            Grouping(
                name=name,
                features=tuple(features),
                levels=tuple(fixed[name].to_numpy().tolist()),
                index=fixed[named(name, "index")].to_numpy(),
                X=fixed[f"X_{name}"].to_numpy(),
            )
            for name, features in schema.groupings.items()
        ),
        names=fixed["row"].to_numpy(),
    )


def order_by_task(idata: xr.DataTree) -> IntArray:
    """Return where each row of `data_of(idata)` stands in the groups of a fit, which are in table order."""
    return np.argsort(idata["constant_data"]["task_index"].to_numpy(), kind="stable")


def rows_by_task(idata: xr.DataTree, group: str) -> xr.Dataset:
    """Return a group with its rows in the order of `data_of(idata)`: sorted by task."""
    order, found = order_by_task(idata), idata[group].to_dataset()
    return found if (np.diff(order) == 1).all() else found.isel(row=order)


def inside_of(idata: xr.DataTree, grouping: str | None = None) -> list[str]:
    """Return the features inside the covariance of tasks, or of the levels of a grouping."""
    spec = spec_of(idata)
    structure = spec.task_covariance if grouping is None else spec.levels_of(grouping)
    features = idata["posterior"]["feature" if grouping is None else named(grouping, "feature")]
    return inside_features(structure, spec.independent_features, [str(f) for f in features.to_numpy()])


def check_groups(idata: xr.DataTree, *groups: str) -> None:
    """Say so if this is no fit, of this package or another, with these groups."""
    if absent := [name for name in groups if name not in getattr(idata, "children", {})]:
        kind = type(idata).__name__
        raise StorageError(f"this {kind} is not a fit (no group {absent[0]!r})")


def check_grouping(idata: xr.DataTree, grouping: str) -> None:
    """Say so if the fit does not have this grouping."""
    known = schema_of(idata).groupings
    if grouping not in known:
        have = f"Groupings: {', '.join(known)}" if known else "The fit has none"
        raise SpecError(Finding("grouping", f"{grouping!r} is not a grouping of this fit", have))


def coefficient_size(idata: xr.DataTree, unit: float | None = None) -> FloatArray:
    """Return the coefficient of each feature that moves the outcome by `unit` for one standard deviation.

    Of rows by their weight, as `feature_scales` have it. Default: the unit of the outcome, its standard
    deviation (1 for a logit). Infinite for the intercept and for other columns that never change.
    """
    unit = float(idata["constant_data"]["outcome_unit"]) if unit is None else unit
    return coefficient_sizes(spec_of(idata), data_of(idata), unit)


def _attribute(idata: xr.DataTree, name: str) -> Any:
    if name not in getattr(idata, "attrs", {}):
        kind = type(idata).__name__
        raise StorageError(f"this {kind} is not a fit of this package (no attribute {name!r})")
    return idata.attrs[name]


def _to_json(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
