"""Labels of tasks and of levels: exact, plain, and never numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from bayes_mtl._typing import IntArray, Label
from bayes_mtl.data.frames import exact_values, plain_text
from bayes_mtl.errors import Finding, FindingsError

_EXACT = 2**53  # whole floats beyond may be another integer than they were


def plain_label(value: Any) -> Any:
    """Return a label as text, an integer or a boolean; what is none of these stays as it is.

    Whole numbers are integers (a column of integers with gaps is a column of floats). Dates, times, periods,
    intervals and UUIDs are their text (ISO 8601; a time stamp at midnight is its date), members of an
    enumeration their name. Equal values have equal labels, different ones different labels.
    """
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain_label(value.value) if isinstance(value, int | str) else value.name
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _EXACT else value
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == int(value) else value
    return plain_text(value)


def plain_labels(values: Iterable[Any]) -> tuple[Label, ...]:
    """Return labels as plain Python values."""
    return tuple(map(plain_label, values))


def label_array(labels: Sequence[Label]) -> npt.NDArray[Any]:
    """Return labels as an array that changes none of them: of objects, unless they are of one plain type."""
    kinds = {type(label) for label in labels}
    if kinds == {int} and not _too_wide(labels):
        return np.array(labels, dtype=np.uint64 if _is_unsigned(labels) else np.int64)
    if len(kinds) == 1 and kinds <= {str, bool}:
        return np.array(labels)
    out = np.empty(len(labels), dtype=object)
    out[:] = labels
    return out


def as_coordinate(labels: Sequence[Label]) -> Any:
    """Return labels as a list, or as an array where a list would become one of floats (1 beside 2**63)."""
    return label_array(labels) if _is_unsigned(labels) else list(labels)


@dataclass(frozen=True)
class Labels:
    """The labels in a column of a table, row by row.

    Attributes
    ----------
    column : str
    values : list
        Plain labels; None where one is missing.
    floats : bool
        Whether the table has them as floats: integers with gaps.
    """

    column: str
    values: list[Any]
    floats: bool = False

    @classmethod
    def read(cls, table: Any, column: str, error: type[FindingsError]) -> Labels:
        """Read a column of any data frame; nothing is rounded or converted on the way."""
        values = exact_values(table, column, error)
        kinds = set(map(type, values))
        floats = any(issubclass(kind, float | np.floating) for kind in kinds)
        plain = kinds <= {int, str, bool, type(None)}
        return cls(column, values if plain else [plain_label(v) for v in values], floats)

    def take(self, rows: IntArray) -> Labels:
        """Keep these rows."""
        return replace(self, values=[self.values[row] for row in rows])

    def findings(self, what: str = "task labels") -> list[Finding]:
        """Say what is wrong with labels that a model is to learn."""
        where, present = f"column {self.column!r}", [v for v in self.values if v is not None]
        found = []
        if missing := [i for i, v in enumerate(self.values) if v is None]:
            problem = f"{len(missing)} {what} are missing (rows {missing[:5]})"
            found.append(Finding(where, problem, "Fill them in, or pass missing='drop'"))
        kinds = {type(v) for v in present}
        if len(kinds) > 1 or not kinds <= {str, int, bool}:
            names = sorted({"float" if k is int and self.floats else k.__name__ for k in kinds})
            hint = "Convert the column to text or integers"
            if kinds == {bytes}:
                hint = "Decode them to text"
            elif any(isinstance(v, float) and abs(v) > _EXACT for v in present):
                hint = "Floats of this size are rounded: read the column as integers or text"
            found.append(Finding(where, f"should hold text or integers as {what}, found {names}", hint))
        elif kinds == {int} and _too_wide(present):
            most = max(present, key=abs)
            found.append(Finding(where, f"has {what} beyond 64 bits, found {most}", "Convert them to text"))
        if cut := [v for v in present if isinstance(v, str) and v.endswith("\0")]:  # NumPy cuts them off
            found.append(
                Finding(where, f"has {what} that end in a null character, found {cut[0]!r}", "Remove it")
            )
        return found

    def index(self) -> tuple[tuple[Label, ...], IntArray]:
        """Return the labels in order, and the position of each row's label."""
        try:
            labels = sorted(set(self.values))
            position = {label: i for i, label in enumerate(labels)}
            return tuple(labels), np.array([position[v] for v in self.values], dtype=np.int64)
        except TypeError:  # labels with findings; the other checks want to know their rows all the same
            return replace(self, values=[repr(v) for v in self.values]).index()

    def codes(
        self, known: Sequence[Label], what: str, *, were_floats: bool, new: bool
    ) -> tuple[IntArray, list[Label], list[Finding]]:
        """Return each row's position among the known labels followed by unknown ones, these, and findings.

        Labels of another type than the known ones ("01" or 1.0 for 1, 9 among texts) are neither known nor
        new: they are findings. Only a text that reads as no number may be new among numbers.

        Parameters
        ----------
        known : sequence
            Labels that the model learned.
        what : str
            What they label.
        were_floats : bool
            Whether the model learned them from floats, so that 1.0 is 1.
        new : bool
            Whether unknown ones are welcome.
        """
        where, kind = f"column {self.column!r}", type(known[0])
        if odd := [v for v in self.values if v is not None and type(v) not in (str, int, bool)]:
            problem = f"should hold text or integers as labels of {what}, found {odd[0]!r}"
            return np.zeros(0, np.int64), [], [Finding(where, problem, "Convert them")]
        position = {(type(label), label): i for i, label in enumerate(known)}
        unknown = list(
            dict.fromkeys(v for v in self.values if v is not None and (type(v), v) not in position)
        )
        found = []
        if missing := [i for i, v in enumerate(self.values) if v is None]:
            hint = f"Name one of the {what} in every row"
            found.append(Finding(where, f"has missing labels in rows {missing[:5]}", hint))
        elif self.floats and kind is int and not were_floats:
            first = next(v for v in self.values if isinstance(v, int))
            problem = f"has labels of type float ({float(first)!r}), the model knows int"
            found.append(Finding(where, problem, "Convert the column to int"))
        elif odd := [v for v in unknown if type(v) is not kind and not _is_word(v)]:
            problem = (
                f"has labels of type {type(odd[0]).__name__} ({odd[0]!r}), the model knows {kind.__name__}"
            )
            found.append(Finding(where, problem, f"Convert the column to {kind.__name__}"))
        elif unknown and not new:
            some = ", ".join(map(repr, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
            hint = "Pass new_tasks='population' to draw their coefficients from the population"
            found.append(Finding(where, f"has {what} that the model does not know: {some}", hint))
        position |= {(type(label), label): len(position) + i for i, label in enumerate(unknown)}
        codes = [position.get((type(v), v), -1) for v in self.values]
        return np.array(codes, dtype=np.int64), unknown, found


def _too_wide(labels: Iterable[Any]) -> bool:
    """Whether these integers do not fit into one type of 64 bits."""
    numbers = [v for v in labels if type(v) is int]
    least, most = min(numbers, default=0), max(numbers, default=0)
    return least < -(2**63) or most >= (2**64 if least >= 0 else 2**63)


def _is_unsigned(labels: Iterable[Any]) -> bool:
    return any(type(v) is int and v >= 2**63 for v in labels)


def _is_word(label: Any) -> bool:
    """Whether it is text that could not be a number or a truth value."""
    if not isinstance(label, str) or label.strip() in ("True", "False"):
        return False
    try:
        Decimal(label.strip())
    except InvalidOperation:
        return True
    return False
