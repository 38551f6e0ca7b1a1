"""The columns that a formula reads, with types that do not depend on the rows at hand."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bayes_mtl._typing import FloatArray
from bayes_mtl.data.factors import (
    as_categorical,
    is_number,
    level_findings,
    levels_of,
    many_levels,
    unknown_levels,
)
from bayes_mtl.data.formulas import Side, alias
from bayes_mtl.errors import Finding

INTERCEPT = "Intercept"
_SOME = 5
_NO_VALUE = ("nan", "NaN", "<NA>", "NaT")  # what pandas writes for a missing value


@dataclass(frozen=True)
class ColumnTypes:
    """What is known of columns from the first table.

    Attributes
    ----------
    levels : dict
        For each column of text or categories, its levels in order (not of text with a value of its own in
        most rows, which only expressions read).
    text, flags : tuple of str
        Those that hold text (not categories), and columns of truth values.
    """

    levels: dict[str, list[Any]] = field(default_factory=dict)
    text: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @classmethod
    def learn(cls, frame: pd.DataFrame, terms: Collection[str]) -> ColumnTypes:
        """Read the types of columns without missing values; `terms` are those used as they are."""
        typed = {str(name): _typed(column) for name, column in frame.items()}
        categorical = [name for name, column in typed.items() if is_categorical(column)]
        text = tuple(name for name in categorical if not is_category(typed[name]))
        levels = {name: levels_of(typed[name]) for name in categorical}
        free = {name for name in text if name not in terms and many_levels(levels[name], len(frame))}
        return cls(
            levels={name: known for name, known in levels.items() if name not in free},
            text=text,
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

    def values(self, columns: Mapping[str, pd.Series], terms: Collection[str]) -> dict[str, Any]:
        """Return what formulaic reads where columns are terms: numbers, or categories with all levels."""
        return {
            name: as_categorical(columns[name], self.levels[name])
            if name in self.levels
            else columns[name].to_numpy(dtype=float)
            for name in terms
        }

    def findings(self, columns: Mapping[str, pd.Series], terms: Collection[str]) -> list[Finding]:
        """Find columns, used as they are, that would become something else than what they look like."""
        found = []
        for name in [name for name in self.levels if name in terms]:
            declared = name not in self.text
            found += level_findings(f"column {name!r}", self.levels[name], columns[name], declared=declared)
        return found

    def new_findings(self, frame: pd.DataFrame, terms: Collection[str]) -> list[Finding]:
        """Find new rows with missing values, unknown levels, or text for numbers.

        Levels of columns that only expressions read are checked too: `arm == "a"` is false of any other.
        """
        found = missing(frame)
        for name, column in frame.items():
            present = column.dropna()
            if name in self.levels:
                if new := unknown_levels(present, self.levels[name]):
                    found.append(_new_levels(str(name), new, self.levels[name], is_term=name in terms))
            elif name not in self.text and len(present) and is_categorical(_typed(present)):
                problem = "was numeric when the model was fitted, found text"
                found.append(Finding(f"column {name!r}", problem))
        return found


def text_hint(side: Side, columns: Mapping[str, pd.Series], expression: str) -> str:
    """Say which columns of an expression hold no numbers, for one that cannot be evaluated."""
    texts = {n: columns[n] for n in sorted(side.names(expression)) if is_categorical(columns[n])}
    odd = {
        name: next((v for v in column if not is_number(v)), column.iloc[0]) for name, column in texts.items()
    }
    return "; ".join(f"{name!r} holds levels, for example {value!r}" for name, value in odd.items())


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
        types = set(map(type, values)) if values.dtype == object else {values.dtype.type}
        if any(issubclass(each, date | timedelta | np.datetime64 | np.timedelta64) for each in types):
            hint = "Convert them to numbers (days since a start), or to text for one level each"
            found.append(Finding(f"column {name!r}", "holds dates or durations", hint))
        if values.dtype.kind == "O" and (texts := sorted(set(values[values.isin(_NO_VALUE)]))):
            hint = "Make it a missing value, or rename the level"
            found.append(Finding(f"column {name!r}", f"has {texts}, missing values that became text", hint))
        if values is column and _merges(column.dropna()):
            hint = "Convert them to text if they are labels; else subtract a start"
            problem = "holds whole numbers beyond 2**53, of which float64 cannot tell some apart"
            found.append(Finding(f"column {name!r}", problem, hint))
    return found


def gaps(column: pd.Series) -> FloatArray:
    """Return NaN where a value is missing, infinity where it is infinite, and 0 elsewhere."""
    out = np.where(column.isna().to_numpy(), np.nan, 0.0)
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
        out[np.isinf(numbers)] = np.inf
    return out


def missing(frame: pd.DataFrame) -> list[Finding]:
    """Find the columns in which a value is missing or infinite."""
    found = {name: np.flatnonzero(~np.isfinite(gaps(column))) for name, column in frame.items()}
    return [not_there([name], rows) for name, rows in found.items() if len(rows)]


def not_there(names: Sequence[Any], rows: npt.NDArray[np.intp]) -> Finding:
    """Say in which rows columns have no value."""
    more = " and more" if len(rows) > _SOME else ""
    found = f"is missing or not finite in {', '.join(map(repr, names))}, rows {rows[:_SOME].tolist()}{more}"
    return Finding("table", found, "Drop or impute them")


def _new_levels(name: str, new: Sequence[Any], known: Sequence[Any], *, is_term: bool) -> Finding:
    """Say what is wrong with levels that were not there when the model was fitted."""
    where, hint = f"column {name!r}", f"Known: {list(known)}"
    kinds = ["text" if isinstance(levels[0], str) else "numbers" for levels in (new, known)]
    if kinds[0] != kinds[1]:
        convert = f"Convert it to {kinds[1]}. {hint}"
        return Finding(where, f"has {kinds[0]} ({new[0]!r}) for levels that are {kinds[1]}", convert)
    if not is_term:
        hint += ". Where the formula means any text, compute the column that it makes of it beforehand"
    return Finding(where, f"has unknown levels {list(new)}", hint)


def _merges(column: pd.Series) -> bool:
    """Whether different whole numbers are one as float64."""
    if column.dtype.kind == "O" and not (len(column) and all(isinstance(v, Integral) for v in column)):
        return False
    if column.dtype.kind not in "iuO":
        return False
    beyond = column[(column > 2**53) | (column < -(2**53))]
    return bool(beyond.nunique() > beyond.astype(np.float64).nunique())


def _typed(column: pd.Series, *, flag: bool = False) -> pd.Series:
    """Return numbers as float64, before anything is computed from them; truth values as such."""
    if is_category(column):
        return column
    if column.dtype.kind == "O" and len(column):
        if all(isinstance(v, bool | np.bool_) for v in column):
            column = column.astype(bool)
        elif all(isinstance(v, Real | Decimal) for v in column):
            column = column.astype(np.float64)
    if column.dtype.kind not in "biuf":
        return column
    numbers = column.astype(np.float64)
    is_truth = column.dtype.kind == "b" or (flag and bool(numbers.isin((0.0, 1.0)).all()))
    return numbers.astype(bool) if is_truth else numbers
