"""Any data frame in, a pandas frame of the needed columns out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from numbers import Real
from typing import Any
from uuid import UUID

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from bayes_mtl.errors import Finding, FindingsError, raise_if_any

_DAY = pd.Timedelta(days=1)
_EXACT = 2**53  # whole numbers up to here are exact as float64
# What a column may hold besides numbers; anything else is refused where it is read.
_PLAIN = (str, bool, Real, Decimal, date, time, timedelta)


def column_names(table: Any) -> list[Any]:
    """Names of the columns of any data frame (or mapping of columns)."""
    if isinstance(table, Mapping | pd.DataFrame):
        return list(table)
    return list(getattr(table, "column_names", None) or nw.from_native(table).columns)


def as_names(given: Any) -> Any:
    """Make a list of names that may be given in anything that can be gone through once, as ``df.columns``.

    What is no such thing (None, a text, a truth value, a number) stays as it is.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return given
    return [str(name) if isinstance(name, str) else name for name in given]


def missing_columns(table: Any, wanted: Iterable[str]) -> list[Finding]:
    """Return a finding per wanted column that the table does not have, or one if it is no table."""
    try:
        have = column_names(table)
    except TypeError:
        return [_no_table(table)]
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

    Categories keep their order; the row labels become 0 .. n - 1. Columns that are not named are not
    looked at.
    """
    names = list(dict.fromkeys(columns))
    frame = _select(table, names, error)
    out = pd.DataFrame({name: _column(frame[name]) for name in names}, index=range(len(frame)))
    raise_if_any(_unreadable(out), error)
    return out


def exact_values(table: Any, column: str, error: type[FindingsError]) -> list[Any]:
    """Return the entries of a column as Python values; None where one is missing. Nothing is rounded."""
    return _exact(_select(table, [column], error)[column])


def plain_text(value: Any) -> Any:
    """Return dates, times, periods, intervals, UUIDs and enumerations as text that tells them apart.

    Dates and times are as in ISO 8601; a time stamp at midnight is its date. Other values stay.
    """
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, np.timedelta64 | timedelta):
        return str(pd.Timedelta(value))
    if isinstance(value, datetime):
        text = value.isoformat()
        return text.removesuffix("T00:00:00") if value.tzinfo is None else text
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, pd.Period | pd.Interval | UUID) else value


def day_number(value: Any) -> Any:
    """Return dates, time stamps and periods (their start) as days since 1970-01-01, durations as days.

    Other values stay.
    """
    if isinstance(value, np.timedelta64 | timedelta):
        return pd.Timedelta(value) / _DAY
    if isinstance(value, pd.Period):
        value = value.start_time
    if isinstance(value, np.datetime64 | date):
        stamp = pd.Timestamp(value)
        epoch = pd.Timestamp(0, tz=stamp.tz)
        return (stamp - epoch) / _DAY
    return value


def _select(table: Any, names: list[str], error: type[FindingsError]) -> nw.DataFrame[Any]:
    """Return the named columns of a table; whatever else is there is not looked at."""
    if isinstance(table, Mapping):
        raise_if_any(missing_columns(table, names), error)
        # Of a list that has gaps pandas would make floats.
        given = {n: table[n] for n in names or list(table)[:1]}
        given = {
            n: pd.Series(v, dtype=object) if isinstance(v, list | tuple) else v for n, v in given.items()
        }
        try:
            table = pd.DataFrame(given)
        except ValueError as err:
            hint = "Give as many values for each column"
            raise error(Finding("table", f"should be columns of one length ({err})", hint)) from err
    elif isinstance(table, pd.DataFrame) or hasattr(table, "column_names"):
        have = column_names(table)
        raise_if_any(missing_columns(table, names), error)
        if repeated := [name for name in names if have.count(name) > 1]:
            raise error(Finding("table", f"repeats columns {repeated}", "Rename them"))
        at = [i for i, name in enumerate(have) if name in names]
        table = table.iloc[:, at] if isinstance(table, pd.DataFrame) else table.select(at)
    try:
        frame = nw.from_native(table, eager_only=True)
    except TypeError as err:
        raise error(_no_table(table)) from err
    if absent := missing_columns(table, names):
        raise error(absent)
    return frame


def _no_table(table: Any) -> Finding:
    hint = "Pass a pandas, polars or pyarrow data frame, or a dict of columns"
    return Finding("table", f"should be a data frame, found {type(table).__name__}", hint)


def _exact(series: nw.Series[Any]) -> list[Any]:
    native = series.to_native()
    values: Iterable[Any]
    if isinstance(native, pd.Series) and isinstance(native.dtype, pd.CategoricalDtype):
        levels = [*native.cat.categories.tolist(), None]
        values = [levels[code] for code in native.cat.codes]  # -1: missing
    elif not isinstance(native, pd.Series) and isinstance(series.dtype, nw.Datetime):
        zone = series.dtype.time_zone  # lists would lose nanoseconds
        utc = series if zone is None else series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        stamps = pd.DatetimeIndex(utc.to_numpy())
        values = stamps if zone is None else stamps.tz_localize("UTC").tz_convert(zone)
    else:
        values = series.to_list()
    values = list(values)
    if set(map(type, values)) <= {int, str, bool}:
        return values
    return [None if _is_missing(v) else v for v in values]


def _is_missing(value: Any) -> bool:
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return (
        isinstance(value, float | Decimal | np.floating | np.datetime64 | np.timedelta64) and value != value
    )


def _column(series: nw.Series[Any]) -> Any:
    if series.dtype in (nw.Categorical, nw.Enum) and not _is_arrow(series):
        levels = list(dict.fromkeys(_level(v) for v in series.cat.get_categories().to_list()))
        return pd.Categorical([None if v is None else _level(v) for v in _exact(series)], categories=levels)
    missing = series.is_null().any()
    if series.dtype == nw.Boolean and not missing:
        return series.to_numpy().astype(bool)
    if series.dtype.is_integer() and series.dtype not in (nw.Int128, nw.UInt128) and not missing:
        numbers = series.to_numpy()
        fits = numbers.dtype.kind == "i" or not len(numbers) or numbers.max() < 2**63
        return numbers.astype(np.int64) if fits else numbers
    if series.dtype.is_float():
        return series.to_numpy().astype(float)
    values = _exact(series)
    out = np.empty(len(values), dtype=object)
    if set(map(type, values)) <= {str, type(None)}:  # the usual case, and long
        out[:] = values
        return out
    present = [v for v in values if v is not None]
    wide = [abs(v) for v in present if isinstance(v, int) and abs(v) > _EXACT]
    if wide and (len(present) < len(values) or max(wide) >= 2**63):  # as they are, so that nothing merges
        return pd.Series(values, dtype=object)
    if present and all(isinstance(v, bool | np.bool_) for v in present) and len(present) == len(values):
        return np.array(values, dtype=bool)
    if present and all(isinstance(v, Real | Decimal) and not isinstance(v, bool) for v in present):
        if len(present) == len(values) and all(isinstance(v, int) and abs(v) < 2**63 for v in values):
            return np.array(values, dtype=np.int64)
        return np.array([np.nan if v is None else float(v) for v in values])
    out[:] = [_level(v) for v in values]
    return out


def _is_arrow(series: nw.Series[Any]) -> bool:
    """Whether it is a dictionary of pyarrow inside of pandas, which has no categories."""
    return isinstance(getattr(series.to_native(), "dtype", None), pd.ArrowDtype)


def _level(value: Any) -> Any:
    """Return a level as a plain value; dates stay, since they are rather numbers than levels."""
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == int(value) else str(value)
    return value if isinstance(value, date | timedelta | np.datetime64) else plain_text(value)


def _unreadable(frame: pd.DataFrame) -> list[Finding]:
    """Find columns of lists, bytes, complex numbers, ..."""
    found = []
    for name in frame:
        values = frame[name].cat.categories if hasattr(frame[name], "cat") else frame[name]
        if values.dtype != object:
            continue
        odd = [v for v in values if not isinstance(v, _PLAIN) and not _is_missing(v)]
        if odd:
            shown = repr(odd[0])
            is_bytes = isinstance(odd[0], bytes)
            hint = "Decode them to text" if is_bytes else "Make columns of numbers or text of it"
            problem = f"holds values of type {type(odd[0]).__name__} ({shown[:40]})"
            found.append(Finding(f"column {name!r}", problem, hint))
    return found
