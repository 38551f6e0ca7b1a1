"""Any data frame in, a pandas frame of the needed columns out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from numbers import Real
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from narwhals.exceptions import DuplicateError

from bayes_mtl.errors import Finding, FindingsError


def column_names(table: Any) -> list[str]:
    """Names of the columns of any data frame (or mapping of columns)."""
    return list(table) if isinstance(table, Mapping) else list(nw.from_native(table).columns)


def missing_columns(table: Any, wanted: Iterable[str]) -> list[Finding]:
    """Return a finding per wanted column that the table does not have."""
    have = column_names(table)
    found = []
    for name in dict.fromkeys(wanted):
        if name not in have:
            close = get_close_matches(str(name), [str(h) for h in have], n=3)
            hint = (
                f"Did you mean {' or '.join(map(repr, close))}"
                if close
                else f"Columns: {', '.join(map(str, have))}"
            )
            found.append(Finding(f"column {name!r}", "is not in the table", hint))
    return found


def to_pandas(table: Any, columns: Iterable[str], error: type[FindingsError]) -> pd.DataFrame:
    """Copy the named columns of a pandas, polars, pyarrow, ... frame (or a mapping) to pandas.

    Categories keep their order; the row labels become 0 .. n - 1.
    """
    names = list(dict.fromkeys(columns))
    try:
        native = pd.DataFrame(dict(table)) if isinstance(table, Mapping) else table
        frame = nw.from_native(native, eager_only=True)
    except TypeError as err:
        found = f"found {type(table).__name__}"
        hint = "Pass a pandas, polars or pyarrow data frame, or a dict of columns"
        raise error(Finding("table", f"should be a data frame, {found}", hint)) from err
    except DuplicateError as err:
        raise error(Finding("table", f"repeats columns ({err})", "Rename them")) from err
    if absent := missing_columns(table, names):
        raise error(absent)
    return pd.DataFrame({name: _column(frame[name]) for name in names}, index=range(len(frame)))


def _column(series: nw.Series[Any]) -> Any:
    if series.dtype in (nw.Categorical, nw.Enum):
        levels = series.cat.get_categories().to_list()
        return pd.Categorical(series.to_list(), categories=levels)
    missing = series.is_null().any()
    if series.dtype == nw.Boolean and not missing:
        return series.to_numpy().astype(bool)
    if series.dtype.is_signed_integer() and not missing:
        return series.to_numpy().astype(np.int64)  # small integers would overflow in a formula
    if series.dtype.is_numeric():
        return series.to_numpy().astype(float)
    values = series.to_list()
    present = [v for v in values if v is not None]
    if present and all(isinstance(v, Real | Decimal) and not isinstance(v, bool) for v in present):
        if len(present) == len(values) and all(isinstance(v, int) for v in values):
            return np.array(values, dtype=np.int64)
        return np.array([np.nan if v is None else float(v) for v in values])
    return np.array(values, dtype=object)
