"""What must be remembered of a table so that new rows become the same design matrix."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelMatrix
from formulaic.errors import DataMismatchWarning, FormulaicError, FormulaMaterializationError

from bayes_mtl._typing import FloatArray
from bayes_mtl.data.frames import column_names, to_pandas
from bayes_mtl.errors import DataError, Finding, FindingsError, raise_if_any

INTERCEPT = "Intercept"
_MANY_LEVELS = 10


@dataclass(frozen=True)
class Design:
    """The right-hand side of a formula, with all it learned from the first table.

    Attributes
    ----------
    formula : str
        Right-hand side, in formulaic's syntax.
    reads : tuple of str
        Columns of the table that it reads.
    levels : dict
        For each categorical column, its levels in order.
    training : dict
        The columns as they were, kept only where a term learns from them (`center(x)`, `bs(x)`).
    columns, terms : tuple of str
        Columns of the design matrix, and for each the term that it comes from.
    center : tuple of float
        What is subtracted from each column (zero where nothing is).
    """

    formula: str
    reads: tuple[str, ...]
    levels: dict[str, list[Any]] = field(default_factory=dict)
    training: dict[str, list[Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    center: tuple[float, ...] = ()

    @classmethod
    def learn(
        cls, formula: str, table: Any, *, center: bool | Sequence[str] = False
    ) -> tuple[Design, FloatArray]:
        """Build the design matrix of a table, and the `Design` that repeats it on new rows."""
        if "|" in formula:
            hint = "Tasks come from `task=`: write 'y ~ x', and name shared slopes in `shared_features`"
            raise DataError(Finding(f"formula {formula!r}", "has '|', which has no meaning here", hint))
        try:
            parsed = Formula(formula)
        except FormulaicError as err:
            raise DataError(Finding(f"formula {formula!r}", f"cannot be read ({_plain(err)})")) from err
        # formulaic lists the columns inside of calls only after it has evaluated them.
        inside = {c for c in column_names(table) if str(c) in formula}
        # Of a column `a.b`, formulaic says that `a` is read.
        plain = {v for v in _names(parsed) if not any(str(c).startswith(f"{v}.") for c in inside)}
        reads = tuple(sorted(plain | inside))
        frame = to_pandas(table, reads, DataError)
        levels = {name: _levels(frame[name]) for name in reads if _is_categorical(frame[name])}
        frame = _with_levels(frame, levels)
        try:
            matrix = _materialise(parsed, frame)
        except (FormulaicError, ValueError, TypeError) as err:
            dotted = sorted(str(c) for c in inside if "." in str(c))
            hint = f"Write such names in backticks: `{dotted[0]}`" if dotted else ""
            found = f"cannot be evaluated ({_plain(err)})"
            raise DataError(Finding(f"formula {formula!r}", found, hint)) from err
        spec = matrix.model_spec
        required = _names(spec)
        reads = tuple(name for name in reads if {str(name), str(name).partition(".")[0]} & required)
        levels = {name: known for name, known in levels.items() if name in reads}
        raise_if_any(_unfit_columns(frame, reads, levels), DataError)
        terms = [str(t) for t, at in spec.term_slices.items() for _ in range(at.stop - at.start)]
        stateful = bool(spec.transform_state)
        values = _as_float(matrix)
        for name in levels:  # dummy coding would turn a missing level into the reference level
            gone = frame[name].isna().to_numpy()
            for term, at in spec.term_slices.items():
                if name in spec.term_variables[term]:
                    values[gone, at] = np.nan
        columns = tuple(str(c) for c in matrix.columns)
        centered = set(columns) - {INTERCEPT} if center is True else set(center or ())
        if unknown := centered - set(columns):
            raise DataError(
                Finding("center", f"names {sorted(unknown)}", f"Columns of the design: {', '.join(columns)}")
            )
        shift = [
            float(np.mean(values[np.isfinite(values[:, i]), i])) if c in centered else 0.0
            for i, c in enumerate(columns)
        ]
        design = cls(
            formula=formula,
            reads=reads,
            levels=levels,
            training={name: frame[name].tolist() for name in reads} if stateful else {},
            columns=columns,
            terms=tuple("Intercept" if t == "1" else t for t in terms),
            center=tuple(shift),
        )
        return design, values - np.asarray(shift)

    def matrix(self, table: Any, error: type[FindingsError]) -> FloatArray:
        """Build the design matrix of new rows, with the levels and states of the first table."""
        frame = to_pandas(table, self.reads, error)
        findings = []
        for name, levels in self.levels.items():
            known = frame[name].isin(levels)
            if not known.all():
                new = sorted(map(str, pd.unique(frame[name][~known])))
                findings.append(Finding(f"column {name!r}", f"has unknown levels {new}", f"Known: {levels}"))
        for name in set(self.reads) - set(self.levels):
            if _is_categorical(frame[name]):
                findings.append(
                    Finding(f"column {name!r}", "was numeric when the model was fitted, found text")
                )
        if findings:
            raise error(findings)
        frame = _with_levels(frame, self.levels)
        spec: Any = Formula(self.formula)
        if self.training:
            first = _with_levels(pd.DataFrame(self.training), self.levels)
            spec = _materialise(spec, first).model_spec
        try:
            matrix = _materialise(spec, frame)
        except (FormulaicError, ValueError, TypeError) as err:
            raise error(
                Finding(f"formula {self.formula!r}", f"cannot be evaluated on these rows ({_plain(err)})")
            ) from err
        made = [str(c) for c in matrix.columns]
        values = _as_float(matrix)[:, [made.index(c) for c in self.columns]]
        if not np.isfinite(values).all():
            rows = np.flatnonzero(~np.isfinite(values).all(axis=1))[:5].tolist()
            odd = [c for c, bad in zip(self.columns, ~np.isfinite(values).all(axis=0), strict=True) if bad]
            found = f"is not finite in {', '.join(map(repr, odd))}, rows {rows} (and perhaps more)"
            raise error(Finding("table", found, "Drop or impute them"))
        return values - np.asarray(self.center)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Design:
        """Read what `to_dict` wrote."""
        plain = dict(values)
        for name in ("reads", "columns", "terms", "center"):
            plain[name] = tuple(plain[name])
        return cls(**plain)


@dataclass(frozen=True)
class TaskSchema:
    """Where tasks, outcome and features come from in a table.

    Attributes
    ----------
    task : str or None
        Column of task labels; None when each outcome column is a task.
    outcome : str
        Name of the outcome (in messages and on axes).
    outcomes : tuple of str
        The outcome columns of a wide table.
    design, task_design : Design
        Features of rows, and features of tasks.
    shared : tuple of str
        Columns of the design with one slope for all tasks.
    weights, offset, noise : str or None
        Columns.
    groupings : dict
        Columns of further grouping factors, and for each the features whose effects vary by level.
    """

    outcome: str
    design: Design
    task: str | None = None
    outcomes: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    task_design: Design | None = None
    weights: str | None = None
    offset: str | None = None
    noise: str | None = None
    groupings: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def varying(self) -> tuple[str, ...]:
        """Columns of the design whose coefficients vary by task."""
        return tuple(c for c in self.design.columns if c not in self.shared)

    def split(self, matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Split a design matrix into the varying and the shared columns."""
        is_shared = np.array([c in self.shared for c in self.design.columns], dtype=bool)
        return np.ascontiguousarray(matrix[:, ~is_shared]), np.ascontiguousarray(matrix[:, is_shared])

    def by_level(self, matrix: FloatArray, grouping: str) -> FloatArray:
        """Return the columns of a design matrix whose effects vary by the levels of a grouping."""
        at = {name: matrix[:, i] for i, name in enumerate(self.design.columns)}
        ones = np.ones(len(matrix))  # an intercept that varies around none
        return np.column_stack([at.get(name, ones) for name in self.groupings[grouping]])

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskSchema:
        """Read what `to_dict` wrote."""
        plain = dict(values)
        plain["design"] = Design.from_dict(plain["design"])
        if plain.get("task_design"):
            plain["task_design"] = Design.from_dict(plain["task_design"])
        for name in ("outcomes", "shared"):
            plain[name] = tuple(plain[name])
        plain["groupings"] = {k: tuple(v) for k, v in plain.get("groupings", {}).items()}
        return cls(**plain)


def _names(described: Any) -> set[str]:
    """Return the names of the columns that a formula, or a design, reads."""
    return {str(v) for v in described.required_variables}


def quote(column: str) -> str:
    """Quote a column name for a formula."""
    return column if column.isidentifier() else f"`{column}`"


def _is_categorical(column: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(column)


def _unfit_columns(
    frame: pd.DataFrame, reads: Sequence[str], levels: Mapping[str, Sequence[Any]]
) -> list[Finding]:
    """Find columns that would silently become something else than what they look like."""
    found = []
    if INTERCEPT in reads:
        hint = "Rename it: the intercept is a feature of that name"
        found.append(Finding(f"column {INTERCEPT!r}", "has a reserved name", hint))
    for name, known in levels.items():
        if len(known) == 1:
            found.append(Finding(f"column {name!r}", f"is {known[0]!r} in every row", "Leave it out"))
        elif any(isinstance(v, date | timedelta) for v in known):
            hint = "Convert them to numbers (days since a start), or to text for one level each"
            found.append(Finding(f"column {name!r}", "holds dates or durations", hint))
        elif len(known) > _MANY_LEVELS and all(_is_number(v) for v in known):
            hint = "Convert it to numbers, or to a categorical if each value is a level"
            found.append(Finding(f"column {name!r}", f"holds {len(known)} different numbers as text", hint))
    return found


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _plain(err: Exception) -> str:
    """Return a message without terminal colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[⧛⧚]", "", str(err)).split())


def _levels(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        used = set(column.dropna().unique())
        return [level for level in column.cat.categories.tolist() if level in used]
    return sorted(column.dropna().unique().tolist(), key=str)


def _with_levels(frame: pd.DataFrame, levels: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    return frame.assign(
        **{
            name: pd.Categorical(frame[name].astype(object), categories=list(known))
            for name, known in levels.items()
        }
    )


def _materialise(formula_or_spec: Any, frame: pd.DataFrame) -> ModelMatrix:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            return formula_or_spec.get_model_matrix(frame, na_action="ignore", output="pandas")
        except DataMismatchWarning as err:
            raise FormulaMaterializationError(str(err)) from err


def _as_float(matrix: ModelMatrix) -> FloatArray:
    return np.ascontiguousarray(matrix.to_numpy(dtype=float, na_value=np.nan))
