"""The columns that a formula reads, with types that do not depend on the rows at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bayes_mtl.data.factors import as_categorical, level_findings, levels_of, unknown_levels
from bayes_mtl.data.formulas import Side, alias
from bayes_mtl.errors import Finding

INTERCEPT = "Intercept"
_SOME = 5


@dataclass(frozen=True)
class ColumnTypes:
    """What is known of columns from the first table.

    Attributes
    ----------
    levels : dict
        For each column of text or categories, its levels in order.
    text, flags : tuple of str
        Those that hold text (not categories), and columns of truth values.
    """

    levels: dict[str, list[Any]] = field(default_factory=dict)
    text: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @classmethod
    def learn(cls, frame: pd.DataFrame) -> ColumnTypes:
        """Read the types of columns without missing values."""
        typed = {str(name): _typed(column) for name, column in frame.items()}
        return cls(
            levels={name: levels_of(column) for name, column in typed.items() if is_categorical(column)},
            text=tuple(
                name for name, column in typed.items() if is_categorical(column) and not is_category(column)
            ),
            flags=tuple(name for name, column in typed.items() if column.dtype.kind == "b"),
        )

    def columns(self, frame: pd.DataFrame) -> dict[str, pd.Series]:
        """Return what an expression reads: float64, truth values, text, or categories with all levels."""
        return {
            str(name): as_categorical(column, self.levels[name])
            if name in self.levels and name not in self.text
            else _typed(column, flag=name in self.flags)
            for name, column in frame.items()
        }

    def values(self, columns: Mapping[str, pd.Series]) -> dict[str, Any]:
        """Return what formulaic reads where a column is a term: numbers, or categories with all levels."""
        return {
            name: as_categorical(column, self.levels[name])
            if name in self.levels
            else column.to_numpy(dtype=float)
            for name, column in columns.items()
        }

    def findings(self, columns: Mapping[str, pd.Series], used: set[str]) -> list[Finding]:
        """Find columns, used as they are, that would become something else than what they look like."""
        found = []
        for name in [name for name in self.levels if name in used]:
            declared = name not in self.text
            found += level_findings(f"column {name!r}", self.levels[name], columns[name], declared=declared)
        return found

    def new_findings(self, frame: pd.DataFrame) -> list[Finding]:
        """Find new rows with missing values, unknown levels, or text for numbers."""
        found = missing(frame)
        for name, column in frame.items():
            present = column.dropna()
            if name in self.levels:
                if new := unknown_levels(present, self.levels[name]):
                    known = f"Known: {self.levels[name]}"
                    found.append(Finding(f"column {name!r}", f"has unknown levels {new}", known))
            elif len(present) and is_categorical(_typed(present)):
                problem = "was numeric when the model was fitted, found text"
                found.append(Finding(f"column {name!r}", problem))
        return found


def named(side: Side, columns: Mapping[str, pd.Series], expression: str) -> dict[str, pd.Series]:
    """Return the columns that an expression reads, by the names that it has for them."""
    read = side.names(expression)
    return {alias(i): columns[name] for i, name in enumerate(side.columns) if name in read}


def is_categorical(column: pd.Series) -> bool:
    """Whether a column holds levels rather than numbers."""
    return not pd.api.types.is_numeric_dtype(column)


def is_category(column: Any) -> bool:
    """Whether values are a categorical of pandas."""
    return isinstance(getattr(column, "dtype", None), pd.CategoricalDtype)


def unfit_columns(frame: pd.DataFrame) -> list[Finding]:
    """Find columns that no formula can read."""
    found = []
    for name, column in frame.items():
        if name == INTERCEPT:
            hint = "Rename it: the intercept is a feature of that name"
            found.append(Finding(f"column {INTERCEPT!r}", "has a reserved name", hint))
        if re.fullmatch(r"[\d.]+", str(name)):
            hint = "Rename the column"
            found.append(Finding(f"feature {name!r}", "has a name that a formula cannot hold", hint))
        values = column.cat.categories if is_category(column) else column
        if values.dtype.kind in "mM" or (
            values.dtype.kind == "O" and any(isinstance(v, date | timedelta) for v in values)
        ):
            hint = "Convert them to numbers (days since a start), or to text for one level each"
            found.append(Finding(f"column {name!r}", "holds dates or durations", hint))
    return found


def missing(frame: pd.DataFrame) -> list[Finding]:
    """Find the columns in which a value is missing."""
    gaps = {name: np.flatnonzero(column.isna().to_numpy()) for name, column in frame.items()}
    return [not_there([name], rows) for name, rows in gaps.items() if len(rows)]


def not_there(names: Sequence[Any], rows: npt.NDArray[np.intp]) -> Finding:
    """Say in which rows columns have no value."""
    more = " and more" if len(rows) > _SOME else ""
    found = f"is missing or not finite in {', '.join(map(repr, names))}, rows {rows[:_SOME].tolist()}{more}"
    return Finding("table", found, "Drop or impute them")


def _typed(column: pd.Series, *, flag: bool = False) -> pd.Series:
    """Return numbers as float64, before anything is computed from them; truth values as such."""
    if is_category(column):
        return column
    if column.dtype.kind == "O" and len(column) and all(isinstance(v, bool | np.bool_) for v in column):
        column = column.astype(bool)
    if column.dtype.kind not in "biuf":
        return column
    numbers = column.astype(np.float64)
    is_truth = column.dtype.kind == "b" or (flag and bool(numbers.isin((0.0, 1.0)).all()))
    return numbers.astype(bool) if is_truth else numbers
