"""What a factor of a formula learned from the first table: levels, means, knots.

A factor is one expression of the right-hand side. Its levels are decided once, so that one row is coded
as it would be within its table, and a transform's state is kept as JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from formulaic.materializers.types import FactorValues
from formulaic.parser.types import Factor
from formulaic.utils.cast import as_columns

from bayes_mtl.data.expressions import Expression
from bayes_mtl.errors import Finding

_SINGLE_ROWS = 24  # rows that are evaluated alone, to see whether an expression reads other rows
_MANY_LEVELS = 10
_SOME = 5
_HINT = (
    "Write center(x), scale(x), scale(x, center=False, scale=x.max()), poly(x, 2) or bs(x, df=4), "
    "which keep what they learned, or compute the column beforehand"
)
_PUNCTUATED = re.compile(r"\s*[-+]?[$€£]?\s*\d[\d.,'\s]*[%$€£]?\s*")  # 1,234 or $5 or 12 %
_NOTHING = {
    "",
    "-",
    "--",
    "?",
    ".",
    "..",
    "*",
    "n/a",
    "na",
    "n.a.",
    "nan",
    "null",
    "none",
    "missing",
    "unknown",
    "nil",
    "#n/a",
}


@dataclass(frozen=True)
class LearnedFactor:
    """A factor of a formula, with what it learned.

    Attributes
    ----------
    levels : list or None
        Its levels in order; None where it is numeric.
    state
        What its transforms learned, in types of JSON.
    """

    levels: list[Any] | None = None
    state: Any = None


class FactorError(Exception):
    """What is wrong with a factor, for a finding."""


def learn(
    expression: Expression, columns: Mapping[str, pd.Series], rows: int
) -> tuple[LearnedFactor, Any, npt.NDArray[Any]]:
    """Evaluate an expression on the first table.

    Returns what it learned, its values for formulaic, and its (first) column as it is.
    """
    learning: dict[str, Any] = {}
    value = expression(columns, learning)
    state = _encode(learning)
    parts = _parts(value, rows)
    alone = all(
        _same(expression, state, columns, parts, piece) for piece in _pieces(columns, parts, rows)
    ) and _alone_beyond(expression, state, columns)
    if not alone:
        found = "reads other rows: some rows alone have other values, so new rows would be misread"
        raise FactorError(found, _HINT)
    levels = None
    if _is_categorical(value):
        plain = _plain(as_columns(value))
        is_category = isinstance(getattr(plain, "dtype", None), pd.CategoricalDtype)
        levels = levels_of(pd.Series(plain) if is_category else _single(parts))
    learned = LearnedFactor(levels, state)
    return learned, _coded(value, parts, levels), next(iter(parts.values()))


def repeat(
    learned: LearnedFactor, expression: Expression, columns: Mapping[str, pd.Series], rows: int
) -> Any:
    """Evaluate an expression on new rows, with what it learned; return its values for formulaic."""
    value = expression(columns, _decode(learned.state))
    parts = _parts(value, rows)
    if _is_categorical(value) != (learned.levels is not None):
        known, now = ("numeric", "text") if learned.levels is None else ("categorical", "numeric")
        raise FactorError(f"was {known} when the model was fitted, and is {now} now", "")
    if learned.levels is not None and (new := unknown_levels(_single(parts), learned.levels)):
        raise FactorError(f"has unknown levels {new}", f"Known: {learned.levels}")
    return _coded(value, parts, learned.levels)


def levels_of(values: npt.NDArray[Any] | pd.Series) -> list[Any]:
    """Return the levels of a factor in order; whole numbers as integers."""
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        used = set(values.dropna().unique())
        return [level for level in values.cat.categories.tolist() if level in used]
    present = pd.Series(values).dropna()
    levels = [v.item() if isinstance(v, np.generic) else v for v in present.unique()]
    if all(isinstance(v, float) and v.is_integer() for v in levels):
        levels = [int(v) for v in levels]
    numbers = all(isinstance(v, int | float) for v in levels)
    return sorted(levels) if numbers else sorted(levels, key=str)


def unknown_levels(values: Any, known: Sequence[Any]) -> list[Any]:
    """Return the values that are no level."""
    column = pd.Series(np.asarray(values, dtype=object))
    return levels_of(column[~column.isin(known)])


def as_categorical(values: Any, levels: Sequence[Any]) -> pd.Series:
    """Return values with levels that were decided before."""
    position = {level: i for i, level in enumerate(levels)}
    codes, found = pd.factorize(np.asarray(values, dtype=object))
    known = np.array([*(position.get(value, -1) for value in found), -1])  # the last: missing values
    return pd.Series(pd.Categorical.from_codes(known[codes], categories=pd.Index(list(levels), dtype=object)))


def many_levels(levels: Sequence[Any], rows: int) -> bool:
    """Whether a factor has nearly as many levels as there are rows."""
    return len(levels) > max(_MANY_LEVELS, rows / 2)


def level_findings(where: str, levels: Sequence[Any], values: Any, *, declared: bool) -> list[Finding]:
    """Find factors that are not what they look like.

    Parameters
    ----------
    declared : bool
        Whether the user said that it is a factor: by a categorical column, or C().
    """
    counts = pd.Series(np.asarray(values, dtype=object)).value_counts()
    rows = int(counts.sum())
    if odd := sorted({type(v).__name__ for v in levels} - {"str", "int", "float", "bool"}):
        hint = "Convert them to text"
        return [Finding(where, f"has levels that cannot be stored with a fit ({', '.join(odd)})", hint)]
    if len(levels) == 1:
        return [Finding(where, f"is {levels[0]!r} in every row", "Leave it out")]
    no_numbers = [v for v in levels if not is_number(v)]
    numbers = len(levels) - len(no_numbers)
    if not declared and numbers == len(levels) > _MANY_LEVELS:
        hint = "Convert it to numbers, or to a categorical if each value is a level"
        return [Finding(where, f"holds {len(levels)} different numbers as text", hint)]
    nothing = all(str(v).strip().lower() in _NOTHING or _PUNCTUATED.fullmatch(str(v)) for v in no_numbers)
    if (
        not declared
        and no_numbers
        and numbers > 1
        and (nothing or (len(levels) > _MANY_LEVELS and numbers >= len(no_numbers)))
    ):
        entries = ", ".join(f"{v!r} ({counts.get(v, 0)} rows)" for v in no_numbers[:_SOME])
        more = f" and {len(no_numbers) - _SOME} more" if len(no_numbers) > _SOME else ""
        hint = "Make these numbers or missing values, or the column a categorical if each value is a level"
        return [Finding(where, f"holds {numbers} different numbers as text beside {entries}{more}", hint)]
    if many_levels(levels, rows):
        hint = "Leave it out, join levels, make it a grouping (`groupings=[...]`), or convert it to numbers"
        entries = ", ".join(map(repr, levels[:_SOME]))
        return [Finding(where, f"has {len(levels)} levels in {rows} rows ({entries}, ...)", hint)]
    return []


def is_number(text: Any) -> bool:
    """Whether a text, or a value beside texts, reads as a number."""
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError):
        return False


def _same(
    expression: Expression,
    state: Any,
    columns: Mapping[str, pd.Series],
    parts: Mapping[str, npt.NDArray[Any]],
    rows: npt.NDArray[np.intp],
) -> bool:
    """Whether an expression has the values for some rows alone that it has for them among all."""
    some = {name: column.iloc[rows].reset_index(drop=True) for name, column in columns.items()}
    try:
        again = _parts(expression(some, _decode(state)), len(rows))
    except Exception:  # it has no value for a part of the rows
        return False
    return again.keys() == parts.keys() and all(_equal(again[k], parts[k], rows) for k in parts)


def _alone_beyond(expression: Expression, state: Any, columns: Mapping[str, pd.Series]) -> bool:
    """Whether rows are read alone also where numbers are beyond those of the table.

    `np.where(x > 0, x, x.mean())` reads other rows only where x is not positive, which a table may not hold.
    """
    beyond = {}
    for shift, (name, column) in enumerate(columns.items()):
        if column.dtype.kind == "f":
            low, high = column.min(), column.max()
            width = max(high - low, abs(high), 1.0)
            values = [
                low - 2 * width,
                high + width,
                0.0,
                -high,
                low - width,
                high + 3 * width,
                (low + high) / 2,
            ]
            beyond[name] = pd.Series(np.roll(values, shift))
        else:
            beyond[name] = column.iloc[np.arange(7) % len(column)].reset_index(drop=True)
    try:
        parts = _parts(expression(beyond, _decode(state)), 7)
    except Exception:  # as a spline beyond its bounds: refused when it is asked for
        return True
    return all(_same(expression, state, beyond, parts, np.array([row])) for row in range(7))


def _pieces(
    columns: Mapping[str, pd.Series], parts: Mapping[str, npt.NDArray[Any]], rows: int
) -> Iterator[npt.NDArray[np.intp]]:
    """Return parts of the rows: backwards, halves, some twice, and single rows, the extremes among them."""
    everything = np.arange(rows)
    yield everything[::-1]
    yield everything[: rows // 2]
    yield everything[rows // 2 :]
    yield np.repeat(everything[:_SINGLE_ROWS], 2)
    single = [*np.linspace(0, rows - 1, min(rows, _SINGLE_ROWS)).astype(int).tolist()]
    for values in [*columns.values(), *parts.values()]:
        numbers = np.asarray(values)
        if numbers.dtype.kind in "biuf":
            single += [int(np.argmin(numbers)), int(np.argmax(numbers))]
    for row in dict.fromkeys(single):
        yield np.array([row])


def _parts(value: Any, rows: int) -> dict[str, npt.NDArray[Any]]:
    """Return the columns that an expression gives."""
    found = as_columns(value)
    if not isinstance(found, dict):
        found = {"": found}
    parts = {str(k): _array(v) for k, v in found.items() if not str(k).startswith("__")}
    for part in parts.values():
        if part.shape != (rows,):
            raise FactorError(
                f"should have one value for each row, found shape {part.shape} of {rows} rows", ""
            )
        if part.dtype.kind in "mM":
            hint = "Convert them to numbers (days since a start)"
            raise FactorError("has dates or durations as values", hint)
        if part.dtype.kind not in "biufO":
            raise FactorError(f"has values of type {part.dtype}, which are no numbers", "")
    return parts


def _array(values: Any) -> npt.NDArray[Any]:
    plain = _plain(values)
    array = np.asarray(plain)
    if array.dtype.kind in "US" or isinstance(getattr(plain, "dtype", None), pd.CategoricalDtype):
        return np.asarray(plain, dtype=object)
    if array.dtype.kind == "O":
        column = pd.Series(array)
        present = column.dropna()
        if len(present) and all(isinstance(v, int | float | np.number) for v in present):
            return column.to_numpy(dtype=float, na_value=np.nan)
    return array


def _plain(values: Any) -> Any:
    return values.__wrapped__ if isinstance(values, FactorValues) else values


def _single(parts: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len(parts) != 1:
        raise FactorError(f"gives {len(parts)} columns of levels", "Use one column for each term")
    return next(iter(parts.values()))


def _is_categorical(value: Any) -> bool:
    if isinstance(value, FactorValues) and value.__formulaic_metadata__.kind is not Factor.Kind.UNKNOWN:
        return value.__formulaic_metadata__.kind is Factor.Kind.CATEGORICAL
    found = as_columns(value)
    return not isinstance(found, dict) and _array(found).dtype.kind == "O"


def _equal(part: npt.NDArray[Any], whole: npt.NDArray[Any], rows: npt.NDArray[np.intp]) -> bool:
    """Whether some rows alone have the values that they have in the whole."""
    if part.dtype.kind == "O" or whole.dtype.kind == "O":
        return all(a == b or (a != a and b != b) for a, b in zip(part, whole[rows], strict=True))
    finite = whole[np.isfinite(whole)].astype(float)
    # Rounding may differ with the number of rows; what other rows do is of the size of the range.
    atol = (1e-12 * np.max(np.abs(finite)) + 1e-7 * np.ptp(finite)) if len(finite) else 0.0
    return np.allclose(part.astype(float), whole[rows].astype(float), rtol=1e-9, atol=atol, equal_nan=True)


def _coded(value: Any, parts: Mapping[str, npt.NDArray[Any]], levels: list[Any] | None) -> Any:
    """Return values for formulaic: numbers as float64, a factor with all of its levels."""
    made: Any
    if levels is not None:
        values = _single(parts)
        if pd.isna(pd.Series(values)).any():
            raise FactorError("has no value for some rows", "Drop or fill them")
        made = as_categorical(values, levels)
    elif isinstance(as_columns(value), dict):
        made = {
            k: v if str(k).startswith("__") else parts[str(k)].astype(float)
            for k, v in as_columns(value).items()
        }
    else:
        made = _single(parts).astype(float)
    if isinstance(value, FactorValues):
        return FactorValues(made, metadata=value.__formulaic_metadata__)
    return made


def _encode(state: Any) -> Any:
    """Return a state in types of JSON that `_decode` knows to read."""
    if isinstance(state, Mapping):
        return {"items": [[_encode(k), _encode(v)] for k, v in state.items()]}
    if isinstance(state, np.ndarray):
        return {"array": state.tolist()}
    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, list | tuple):
        return [_encode(v) for v in state]
    if state is None or isinstance(state, str | int | float):
        return state
    raise FactorError(f"keeps a {type(state).__name__} that cannot be stored with a fit", "")


def _decode(state: Any) -> Any:
    if isinstance(state, dict):
        if "array" in state:
            return np.array(state["array"])
        return {_decode(k): _decode(v) for k, v in state["items"]}
    return [_decode(v) for v in state] if isinstance(state, list) else state
