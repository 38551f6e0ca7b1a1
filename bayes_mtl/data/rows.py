"""The rows of the table that was given: their order there, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np
import numpy.typing as npt
import pandas as pd

from bayes_mtl._typing import IntArray

if TYPE_CHECKING:
    from bayes_mtl.data.task_data import TaskData

_STORABLE = "iufbM"  # kinds of arrays that a file holds as they are


def row_names(table: Any, n_rows: int) -> npt.NDArray[Any]:
    """Return the index of a pandas frame; of frames without one, positions.

    Numbers, dates without a time zone and text stay; everything else becomes text, levels of a MultiIndex
    joined by ", ".
    """
    index = None
    if isinstance(table, pd.DataFrame):
        index = table.index
    elif not isinstance(table, Mapping):
        index = nw.maybe_get_index(nw.from_native(table))
    if index is None:
        return np.arange(n_rows)
    if isinstance(index, pd.MultiIndex):
        return np.array([", ".join(map(str, names)) for names in index], dtype=object)
    if isinstance(index.dtype, pd.CategoricalDtype):
        index = pd.Index(index.tolist())
    values = np.asarray(index.to_numpy())
    if values.dtype.kind in _STORABLE and not index.hasnans:
        return values
    return np.array([str(name) for name in index], dtype=object)


def table_order(data: TaskData) -> IntArray:
    """Return where each row of the table is among the rows of `data`, which are sorted by task."""
    return np.argsort(data.row, kind="stable")


def in_table_order(data: TaskData, values: npt.NDArray[Any], axis: int = -1) -> npt.NDArray[Any]:
    """Put values of the rows of `data` into the order of its table."""
    return np.take(values, table_order(data), axis=axis)


def row_coords(data: TaskData) -> dict[str, Any]:
    """Return the coordinates of the dim ``row`` in the order of the table.

    ``row`` is the index of the table; of a wide table, whose rows are repeated for each outcome, together
    with the coordinate ``outcome``.
    """
    coords: dict[str, Any] = {"row": in_table_order(data, data.row_names)}
    if data.schema.outcomes:
        outcome = np.array(data.tasks, dtype=object)[data.task_index]
        coords["outcome"] = ("row", in_table_order(data, outcome))
    return coords
