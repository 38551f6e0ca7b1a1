"""Rows with missing values, and what is lost with them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from bayes_mtl._typing import IntArray, Label
from bayes_mtl.data.labels import Labels
from bayes_mtl.errors import DataError, DataWarning, Finding

_SOME = 10


def complete_rows(
    read: pd.DataFrame, labelled: Mapping[str, Labels], task: str, outcome: str | None = None
) -> IntArray:
    """Return which rows have a value in every column and a label in every column of labels.

    Warns if tasks, levels of groupings or levels of features have no row left, and names them and the columns
    with missing values.

    Parameters
    ----------
    read : DataFrame
        The columns that are read.
    labelled : mapping
        The columns of labels.
    task : str
        The one of them that labels tasks.
    outcome : str, optional
        Of a wide table that was made long: its outcome column.
    """
    gone = {str(name): column.isna().to_numpy() for name, column in read.items()}
    gone |= {c: np.array([v is None for v in found.values]) for c, found in labelled.items()}
    drop = np.any([np.zeros(len(read), dtype=bool), *gone.values()], axis=0)
    if outcome is not None:  # of a wide table, whose tasks are its outcome columns
        of_task = np.array(labelled[task].values)
        missing = gone.pop(outcome)
        gone |= {str(name): missing & (of_task == name) for name in dict.fromkeys(of_task[missing])}
    counts = {name: int(missing.sum()) for name, missing in gone.items() if missing.any()}
    where = ", ".join(f"{name!r} ({n})" for name, n in sorted(counts.items(), key=lambda item: -item[1]))
    if drop.all():
        problem = f"has no complete row: of {len(drop)} rows values are missing in {where}"
        raise DataError(Finding("table", problem, "Leave columns out that are never there with the others"))
    lost = []
    for name, found in labelled.items():
        of_column = "" if name == task else f" of {name!r}"
        noun = ("task" if outcome is None else "outcome") if name == task else "level"
        lost.append((noun, of_column, _lost(pd.Series(found.values, dtype=object), drop)))
    for name, column in read.items():
        if not pd.api.types.is_numeric_dtype(column) and name not in labelled:
            lost.append(("level", f" of {str(name)!r}", _lost(column, drop)))
    said = [
        f"the {noun}{'s' if len(labels) > 1 else ''} {_named(labels)}{of_column}"
        for noun, of_column, labels in lost
        if labels
    ]
    if said:
        warnings.warn(
            f"missing='drop' removed {drop.sum()} of {len(drop)} rows (values are missing in {where}), and "
            f"with them altogether {' and '.join(said)}.",
            DataWarning,
            stacklevel=3,
        )
    return np.flatnonzero(~drop)


def _lost(column: pd.Series, drop: np.ndarray) -> list[Label]:
    """Return the values that only occur in rows that are dropped."""
    kept = set(column[~drop])
    return [value for value in dict.fromkeys(column[drop].dropna()) if value not in kept]


def _named(labels: Iterable[Label]) -> str:
    some = [repr(label) for label in labels]
    return ", ".join(some[:_SOME]) + (f" and {len(some) - _SOME} more" if len(some) > _SOME else "")
