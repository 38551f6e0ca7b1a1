"""`TaskData`: labelled, checked, sorted data of many related tasks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from textwrap import shorten
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.data import checks
from bayes_mtl.data.columns import gaps
from bayes_mtl.data.dependence import Dependence, dependent_columns, warn_of_dependent_columns
from bayes_mtl.data.design import evaluate_outcome, known_side
from bayes_mtl.data.formulas import Side, column_side, quote, read_side, split_formula
from bayes_mtl.data.frames import as_names, column_names, missing_columns, to_pandas
from bayes_mtl.data.groupings import (
    Grouping,
    LevelColumns,
    asked_features,
    grouping_findings,
    make_groupings,
)
from bayes_mtl.data.labels import Labels
from bayes_mtl.data.level_rows import LevelRows
from bayes_mtl.data.missing import complete_rows
from bayes_mtl.data.pseudo_rows import DesignRows, PseudoRows
from bayes_mtl.data.rows import row_names
from bayes_mtl.data.schema import INTERCEPT, Design, TaskSchema
from bayes_mtl.data.statistics import TaskStatistics
from bayes_mtl.errors import DataError, Finding, raise_if_any

_FIXED_MEANS = (
    " Where a feature varies by task around what shared features describe, fix its mean: "
    "priors={'beta_mean': {feature: 0.0}}."
)


@dataclass(frozen=True, repr=False)
class TaskData:
    """Data of many related regressions: rows sorted by task, with all their labels.

    Build it with `from_table` or `from_arrays`, which check everything and report all findings at once.

    Attributes
    ----------
    X : ndarray, shape (n_rows, n_features)
        Features whose coefficients vary by task, in the units of the table. The intercept is the
        feature named ``Intercept``.
    X_shared : ndarray, shape (n_rows, n_shared)
        Features with one slope for all tasks.
    y : ndarray, shape (n_rows,)
        Outcome.
    task_index : ndarray of int, shape (n_rows,)
        Position of each row's task in `tasks`; ascending.
    row : ndarray of int, shape (n_rows,)
        Position of each row in the table that was given. Of a wide table with n rows, outcome k of
        row i is at k n + i.
    tasks : tuple
        Task labels, as in the table.
    task_features : ndarray, shape (n_tasks, n_task_features)
        What is known of the tasks themselves (upper-level regression).
    weights : ndarray, shape (n_rows,)
        Prior weights as in R's `glm`: a Gaussian row with weight w has variance sigma^2 / w, a
        Bernoulli row with weight w counts as w equal rows.
    offset : ndarray, shape (n_rows,)
        Added to the linear predictor.
    noise : ndarray, shape (n_rows,), or None
        Known measurement sd of each row (meta-analysis). Then no `sigma` is learned.
    schema : TaskSchema
        How the arrays came from the table; makes the same design matrix of new rows.
    groupings : tuple of Grouping
        Further grouping factors, crossed with the tasks or nested, whose levels have effects of their own.
    names : ndarray, shape (n_rows,), or None
        What each row is called in the index of the table; None: its position there (`row`).
    """

    X: FloatArray
    X_shared: FloatArray
    y: FloatArray
    task_index: IntArray
    row: IntArray
    tasks: tuple[Label, ...]
    task_features: FloatArray
    weights: FloatArray
    offset: FloatArray
    noise: FloatArray | None
    schema: TaskSchema
    groupings: tuple[Grouping, ...] = ()
    names: npt.NDArray[Any] | None = None

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        task: str | None = None,
        formula: str | None = None,
        outcome: str | None = None,
        outcomes: Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        shared_features: Sequence[str] = (),
        task_features: Sequence[str] = (),
        groupings: Sequence[str] | Mapping[str, Sequence[str]] = (),
        weights: str | None = None,
        offset: str | None = None,
        noise: str | None = None,
        intercept: bool = True,
        center: bool | Sequence[str] = False,
        missing: Literal["error", "drop"] = "error",
        allow_one_class: bool = False,  # noqa: ARG003
        strict: bool = False,
    ) -> TaskData:
        """Read a data frame: long (a column of task labels) or wide (each outcome column a task).

        Parameters
        ----------
        table : data frame
            pandas, polars, pyarrow, or a dict of columns.
        task : str, optional
            Column of task labels: text or integers, of any size up to 64 bits. Dates, times, periods,
            intervals and UUIDs are taken as their text (ISO 8601: ``"2024-03-01"``), members of an
            enumeration as their name; so they are called in the result, and recognised in new rows. Left
            out for a wide table.
        formula : str, optional
            For example ``"normexam ~ standLRT + sex"``, in formulaic's syntax; for a wide table
            without the left-hand side. Instead of `outcome` and `features`.
        outcome : str, optional
            Outcome column. Numeric or boolean.
        outcomes : sequence of str, optional
            Outcome columns of a wide table.
        features : sequence of str, optional
            Feature columns: numeric, boolean, categorical or text. Levels are dummy-coded against the
            first. None or empty: the intercept alone.
        shared_features : sequence of str
            Features (columns, or terms of the formula, or ``"Intercept"``) with one slope for all
            tasks. Those not in `features` are added.
        task_features : sequence of str
            Columns that are constant within tasks: predictors of the coefficients themselves.
        groupings : sequence of str, or mapping from str to sequence of str
            Columns of labels of further grouping factors: items beside persons, regions of schools. Each
            level has effects that all tasks share, by default on the intercept; a mapping names the
            features (columns or terms of the design) whose effects vary by level. Make the factor with
            the most levels the task: all others together may have 300 effects (levels times features).
        weights, offset, noise : str, optional
            Columns; see the class.
        intercept : bool
            Whether `features` get an intercept. (A formula says so itself: ``0 + x``.)
        center : bool or sequence of str
            Subtract the mean over all rows from these design columns (True: from all, task features
            too). Slopes stay per unit; ``Intercept`` is then the expected outcome at the average.
        missing : {"error", "drop"}
            What to do with rows that have a missing value in any used column.
        allow_one_class : bool
            Has no effect any longer: tasks with one class of a 0/1 outcome learn from the others, and are
            counted where the data are printed.
        strict : bool
            Refuse columns that are constant or exact linear combinations of others, as they always are where
            there are more columns than rows. Default: accept them with a warning that names them, since
            priors tell their coefficients apart.

        Returns
        -------
        TaskData

        Raises
        ------
        DataError
            Lists everything that is wrong: columns that are not there, NaN and infinite values,
            labels that are neither text nor integers, ...

        Warns
        -----
        DataWarning
            If something about the table deserves a look: constant and collinear features, features that are
            constant within every task, an intercept far from the data, outcomes on different scales; or if
            missing="drop" leaves no row of a task or level.

        Examples
        --------
        >>> import pandas as pd, bayes_mtl as mtl
        >>> df = pd.DataFrame({"who": ["a", "a", "b", "b"], "x": [1.0, 2, 1, 3], "y": [1.0, 2.5, 0, 1]})
        >>> mtl.TaskData.from_table(df, task="who", formula="y ~ x")
        TaskData: 2 tasks ('who'), 4 rows (2 per task), outcome 'y'
          by task: Intercept, x
        """
        to_pandas(table, [], DataError)
        outcomes, features, center = as_names(outcomes), as_names(features), as_names(center)
        shared_features, task_features = as_names(shared_features), as_names(task_features)
        if isinstance(groupings, Mapping):
            groupings = {name: as_names(each) for name, each in groupings.items()}
        else:
            groupings = as_names(groupings)
        extra = {"weights": weights, "offset": offset, "noise": noise}
        odd = [
            Finding(
                role,
                f"should be the name of a column (text), found {shorten(repr(name), 60)}",
                "Put the values into the table, as a column whose name is text",
            )
            for role, name in {"task": task, "outcome": outcome, **extra}.items()
            if not isinstance(name, str | None)
        ]
        if not isinstance(center, bool | list):
            odd.append(Finding("center", f"should be True, False or a list of columns, found {center!r}"))
        odd += [
            Finding(name, f"should be True or False, found {flag!r}")
            for name, flag in {"intercept": intercept, "strict": strict}.items()
            if not isinstance(flag, int | np.bool_)
        ]
        odd += grouping_findings(groupings, task, {"outcome": outcome, **extra})
        lists = {"shared_features": shared_features, "task_features": task_features}
        _check_arguments(task, formula, outcome, outcomes, features, lists, odd)
        by_level = asked_features(groupings)
        if missing not in ("error", "drop"):
            raise DataError(Finding("missing", f"should be 'error' or 'drop', found {missing!r}"))
        formula_text, left = _formulas(formula, outcomes, features, shared_features, intercept)
        wide = tuple(outcomes or ())
        wanted = [*(wide or ()), *([task] if task else []), *task_features, *by_level]
        wanted += [c for c in (weights, offset, noise) if c]
        hints: list[Finding] = []
        columns = column_names(table)
        sides = (read_side(left, columns, python=True), read_side(formula_text, columns))
        if formula is not None:
            wanted += [name for side in sides for name in side.unknown]
            hints = [finding for side in sides for finding in side.findings]
        else:
            wanted += [*([outcome] if outcome else []), *(features or ())]
            wanted += [c for c in shared_features if c != INTERCEPT]
        raise_if_any([*missing_columns(table, wanted), *hints], DataError)

        labelled = {c: Labels.read(table, c, DataError) for c in (*([task] if task else ()), *by_level)}
        read = [*wide, *([outcome] if outcome else []), *task_features, *(c for c in extra.values() if c)]
        read += [name for side in sides for name in side.columns]
        given, table = table, to_pandas(table, read, DataError)
        names = row_names(given, len(table))
        if wide:
            table, task_column, outcome_column = _melt(table, wide)
            outcome_side, outcome_name = column_side(outcome_column), "outcome"
            again = np.tile(np.arange(len(names)), len(wide))
            labelled = {c: found.take(again) for c, found in labelled.items()}
            labelled[task_column] = Labels(task_column, table[task_column].tolist())
        else:
            task_column = str(task)
            outcome_side = column_side(outcome) if outcome else known_side(left, table, python=True)
            outcome_name = outcome_side.columns[0] if outcome_side.is_column else left
        outcome_reads = outcome_side.columns
        position = np.arange(len(table))
        if missing == "drop":
            used = [*task_features, *(c for c in extra.values() if c)]
            used += [*known_side(formula_text, table).columns, *outcome_reads]
            position = complete_rows(
                table[list(dict.fromkeys(used))], labelled, task_column, outcome_reads[0] if wide else None
            )
            table = table.iloc[position].reset_index(drop=True)
            labelled = {c: found.take(position) for c, found in labelled.items()}
        labels = labelled[task_column]
        levels = {name: labelled[name] for name in by_level}
        design, matrix = Design.learn(formula_text, table, center=center)
        y = _outcome(table, outcome_side)
        side = {k: _numeric(table, c) if c else None for k, c in extra.items()}
        shared = _resolve_shared(shared_features, design)

        roles = {
            "outcome": [*(outcome_reads if len(outcome_reads) == 1 else ()), *wide],
            "task": [task_column],
            **{k: [c] for k, c in extra.items() if c},
        }
        findings = [
            *labels.findings(),
            *(finding for found in levels.values() for finding in found.findings("labels")),
            *_role_findings(design.reads, roles, task_features),
        ]
        look = checks.EntryChecks(labels.values, position % len(names), missing == "drop")
        findings += _row_findings(
            table,
            design,
            matrix,
            outcome_reads,
            outcome_name,
            y,
            extra,
            side,
            look,
            wide,
        )
        read_as_numbers = dict(zip(design.columns, matrix.T, strict=True)) | {outcome_name: y}
        read_as_numbers |= {str(extra[k]): values for k, values in side.items() if values is not None}
        if extreme := checks.beyond_range(read_as_numbers):
            raise DataError([*findings, *extreme])
        tasks, index = labels.index()
        rows = np.argsort(index, kind="stable")
        index, matrix, y = index[rows], matrix[rows], y[rows]
        starts = np.searchsorted(index, np.arange(len(tasks) + 1))
        dependent = dependent_columns(matrix, design.columns)
        findings += [d.finding for d in dependent if strict]
        findings += checks.constant_outcome(outcome_name, y)
        look = checks.EntryChecks(tasks, look.rows[rows[starts[:-1]]], look.dropped)
        task_design, task_matrix, task_dependent, task_findings = _task_features(
            table, task_features, rows, index, look, center
        )
        task_findings += [d.finding for d in task_dependent if strict]
        factors, level_findings = make_groupings(
            by_level,
            {name: _of_rows(found, rows) for name, found in levels.items()},
            design,
            matrix,
            index,
            known_noise=noise is not None,
        )
        raise_if_any([*findings, *task_findings, *level_findings], DataError)

        schema = TaskSchema(
            outcome=outcome_name,
            design=design,
            task=None if wide else task_column,
            outcomes=wide,
            shared=shared,
            task_design=task_design,
            groupings={g.name: g.features for g in factors},
            left="" if wide else outcome_side.written,
            float_labels=tuple(c for c, found in labelled.items() if found.floats),
            **extra,
        )
        warn_of_dependent_columns(
            dependent,
            len(design.columns),
            what="columns",
            remedy="Remove some, or pass strict=True to refuse such a table."
            + (_FIXED_MEANS if schema.shared and schema.varying else ""),
        )
        warn_of_dependent_columns(
            task_dependent,
            len(task_features),
            what="features of tasks",
            remedy="Remove some, or describe more tasks.",
        )
        checks.warn_if_constant_within(matrix, design, schema.varying, starts, "outcome" if wide else "task")
        checks.warn_if_far_from_zero(matrix, design.columns, schema.varying)
        if wide:
            checks.warn_if_scales_differ(y, tasks, starts)
        varying, shared_matrix = schema.split(matrix)
        pick = {k: None if v is None else v[rows] for k, v in side.items()}
        return cls(
            X=varying,
            X_shared=shared_matrix,
            y=y,
            task_index=index,
            row=position[rows],
            tasks=tasks,
            task_features=task_matrix,
            weights=np.ones(len(rows)) if pick["weights"] is None else pick["weights"],
            offset=np.zeros(len(rows)) if pick["offset"] is None else pick["offset"],
            noise=pick["noise"],
            schema=schema,
            groupings=factors,
            names=names[position[rows] % len(names)],
        )

    @classmethod
    def from_arrays(
        cls,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        task: npt.ArrayLike,
        *,
        feature_names: Sequence[str] | None = None,
        shared_features: Sequence[str] = (),
        intercept: bool = True,
        groupings: Mapping[str, npt.ArrayLike] | None = None,
        weights: npt.ArrayLike | None = None,
        offset: npt.ArrayLike | None = None,
        noise: npt.ArrayLike | None = None,
        center: bool | Sequence[str] = False,
        missing: Literal["error", "drop"] = "error",
        allow_one_class: bool = False,  # noqa: ARG003
        strict: bool = False,
    ) -> TaskData:
        """Read arrays.

        Parameters
        ----------
        X : array_like, shape (n_rows, n_features)
            Features without the intercept.
        y : array_like, shape (n_rows,)
            Outcome.
        task : array_like, shape (n_rows,)
            Task label of each row.
        feature_names : sequence of str, optional
            Default: the names of the columns of `X` if it is a data frame, else ``x0, x1, ...``.
        groupings : mapping from str to array_like, shape (n_rows,), optional
            Names of further grouping factors, and the level of each row. Intercepts vary by level.
        weights, offset, noise : array_like, shape (n_rows,), optional
            See the class.
        shared_features, intercept, center, missing, allow_one_class, strict
            As in `from_table`.

        Returns
        -------
        TaskData

        Raises
        ------
        DataError
            As in `from_table`, and where lengths do not match.

        Examples
        --------
        >>> import bayes_mtl as mtl
        >>> mtl.TaskData.from_arrays([[0.0], [1.0], [2.0], [4.0]], [1, 3, 2, 5], ["a", "a", "b", "b"])
        TaskData: 2 tasks ('task'), 4 rows (2 per task), outcome 'y'
          by task: Intercept, x0
        """
        matrix = np.asarray(X, dtype=float)
        if matrix.ndim != 2:
            raise DataError(
                Finding("X", f"should have 2 dimensions, found {matrix.ndim}", "Shape (n_rows, n_features)")
            )
        names = _feature_names(X, matrix.shape[1]) if feature_names is None else list(feature_names)
        findings = []
        if len(names) != matrix.shape[1]:
            findings.append(
                Finding("feature_names", f"should have {matrix.shape[1]} names, found {len(names)}")
            )
        if repeated := sorted({n for n in names if names.count(n) > 1}):
            findings.append(Finding("feature_names", f"repeats {repeated}"))
        if reserved := [n for n in names if n in (INTERCEPT, "y", "task", "weights", "offset", "noise")]:
            findings.append(Finding("feature_names", f"uses the reserved names {reserved}", "Rename them"))
        by_level = dict(groupings or {})
        others = {"y": y, "task": task, "weights": weights, "offset": offset, "noise": noise}
        if clash := [g for g in by_level if g in (*others, *names, INTERCEPT)]:
            findings.append(Finding("groupings", f"have names that are in use: {clash}", "Rename them"))
        columns = by_level | others
        labelled = ("task", *by_level)
        given = {k: _array(v, labels=k in labelled) for k, v in columns.items() if v is not None}
        for key, values in given.items():
            if values.shape != (len(matrix),):
                findings.append(
                    Finding(key, f"should have shape ({len(matrix)},) like X, found {values.shape}")
                )
        raise_if_any(findings, DataError)
        return cls.from_table(
            pd.DataFrame(
                matrix, columns=names, index=X.index if isinstance(X, pd.DataFrame) else None
            ).assign(**given),
            task="task",
            groupings=list(by_level),
            outcome="y",
            features=names,
            shared_features=shared_features,
            intercept=intercept,
            weights="weights" if "weights" in given else None,
            offset="offset" if "offset" in given else None,
            noise="noise" if "noise" in given else None,
            center=center,
            missing=missing,
            strict=strict,
        )

    def subset(self, rows: npt.ArrayLike) -> TaskData:
        """Keep some rows of the table, and the tasks that still have any.

        Nothing is learned anew: levels and centers stay those of the full data.

        Parameters
        ----------
        rows : array_like
            Positions in the table that was given, or a mask over all of its rows (not over the rows of
            this object, which are sorted by task).

        Returns
        -------
        TaskData

        Raises
        ------
        DataError
            If the mask is too short, or nothing is selected.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if len(chosen) <= self.row.max():
                found = f"is a mask of {len(chosen)} rows, but the table has {self.row.max() + 1} at least"
                raise DataError(Finding("rows", found))
            chosen = np.flatnonzero(chosen)
        index = np.flatnonzero(np.isin(self.row, chosen))
        if not len(index):
            raise DataError(Finding("rows", "select nothing"))
        present, new = np.unique(self.task_index[index], return_inverse=True)
        return replace(
            self,
            X=self.X[index],
            X_shared=self.X_shared[index],
            y=self.y[index],
            task_index=new.astype(np.int64),
            row=self.row[index],
            tasks=tuple(self.tasks[t] for t in present),
            task_features=self.task_features[present],
            weights=self.weights[index],
            offset=self.offset[index],
            noise=None if self.noise is None else self.noise[index],
            groupings=tuple(g.subset(index) for g in self.groupings),
            names=None if self.names is None else self.names[index],
        )

    @property
    def row_names(self) -> npt.NDArray[Any]:
        """What each row is called in the table that was given."""
        return self.row if self.names is None else self.names

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.tasks)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features whose coefficients vary by task."""
        return self.schema.varying

    @property
    def n_features(self) -> int:
        """Number of features whose coefficients vary by task."""
        return self.X.shape[1]

    @property
    def shared_features(self) -> tuple[str, ...]:
        """Names of the features with one slope for all tasks."""
        return self.schema.shared

    @property
    def task_feature_names(self) -> tuple[str, ...]:
        """Names of the features of tasks."""
        design = self.schema.task_design
        return () if design is None else design.columns

    @property
    def one_class(self) -> tuple[Label, ...]:
        """Tasks of which all outcomes are 0, or all are 1, if outcomes are 0 or 1."""
        if not np.isin(self.y, (0.0, 1.0)).all():
            return ()
        ones = np.bincount(self.task_index, self.y, minlength=self.n_tasks)
        alike = ((ones == 0) | (ones == self.rows_per_task)) & (self.rows_per_task > 0)
        return tuple(self.tasks[t] for t in np.flatnonzero(alike))

    @cached_property
    def starts(self) -> IntArray:
        """Task t owns rows starts[t] to starts[t + 1]."""
        return np.searchsorted(self.task_index, np.arange(self.n_tasks + 1)).astype(np.int64)

    @property
    def rows_per_task(self) -> IntArray:
        """Number of rows of each task."""
        return np.diff(self.starts)

    @cached_property
    def full_matrix(self) -> FloatArray:
        """Varying and shared columns side by side, shape (n_rows, n_features + n_shared)."""
        if not self.shared_features:
            return np.ascontiguousarray(self.X)
        return np.hstack([self.X, self.X_shared])

    @cached_property
    def measured(self) -> dict[Hashable, Any]:
        """What was measured on these data once, by keys of those who did."""
        return {}

    @cached_property
    def levels(self) -> LevelColumns:
        """The columns of the effects of all groupings."""
        return LevelColumns.of(self.groupings, self.n_rows)

    @cached_property
    def all_columns(self) -> FloatArray:
        """`full_matrix` with the columns of the effects of levels behind it."""
        return np.hstack([self.full_matrix, self.levels.dense()]) if self.groupings else self.full_matrix

    @cached_property
    def precision(self) -> FloatArray:
        """Weights over the square of the known noise of each row."""
        return self.weights if self.noise is None else self.weights / self.noise**2

    @cached_property
    def statistics(self) -> TaskStatistics:
        """Sufficient statistics for Gaussian outcomes, with weights and known noise inside."""
        y = self.y - self.offset if self.offset.any() else self.y
        equal = (self.precision == 1.0).all()
        return TaskStatistics.from_rows(self.full_matrix, y, self.starts, None if equal else self.precision)

    @cached_property
    def pseudo_rows(self) -> PseudoRows:
        """The rows of each task compressed to as many as there are columns, for Gaussian outcomes."""
        left = self.y - self.offset - self.full_matrix @ self.statistics.reference
        rows = DesignRows(self.full_matrix, self.precision, self.starts, left)
        return PseudoRows.compress(self.statistics, rows)

    def level_rows(self, *, by_task: bool) -> LevelRows:
        """Compress what the rows say of the effects of levels, for Gaussian outcomes.

        `by_task` is that of `LevelRows.compress`.
        """
        left = self.y - self.offset - self.full_matrix @ self.pseudo_rows.reference
        return LevelRows.compress(
            self.levels,
            self.full_matrix,
            self.precision,
            self.precision * left,
            self.task_index,
            self.pseudo_rows,
            by_task=by_task,
        )

    def __repr__(self) -> str:
        counts = self.rows_per_task
        size = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        noun = "task" if self.n_tasks == 1 else "tasks"
        by = f"{self.schema.task!r}" if self.schema.task else "outcome columns"
        rows = "row" if self.n_rows == 1 else "rows"
        lines = [
            f"TaskData: {self.n_tasks} {noun} ({by}), {self.n_rows} {rows} ({size} per task), "
            f"outcome {self.schema.outcome!r}"
        ]
        if alone := self.one_class:
            lines.append(
                f"  one class only: {len(alone)} of {self.n_tasks} tasks (they learn from the others)"
            )
        for title, names in (
            ("by task", self.features),
            ("shared", self.shared_features),
            ("of tasks", self.task_feature_names),
        ):
            if names:
                lines.append(f"  {title}: {', '.join(names)}")
        lines += [
            f"  by {g.name!r} ({len(g.levels)} levels): {', '.join(g.features)}" for g in self.groupings
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the columns with their range as a table, for notebooks."""
        roles = [
            ("outcome", (str(self.schema.outcome),), self.y[:, None]),
            ("by task", self.features, self.X),
            ("shared", self.shared_features, self.X_shared),
            ("of tasks", self.task_feature_names, self.task_features),
        ]
        rows = [
            {"": role, "column": name, "mean": x.mean(), "sd": x.std(), "least": x.min(), "most": x.max()}
            for role, names, columns in roles
            for name, x in zip(names, columns.T, strict=True)
        ]
        table = pd.DataFrame(rows).to_html(index=False, float_format="{:z.3g}".format, border=0)
        return f"<p>{escape(repr(self).splitlines()[0])}</p>{table}"


def _array(values: npt.ArrayLike, *, labels: bool) -> npt.NDArray[Any]:
    """Return an array; labels keep their own types, so that 1 and "1" stay different."""
    if not labels or isinstance(values, np.ndarray) or not isinstance(values, Iterable):
        return np.asarray(values)
    found: list[Any] = list(values)
    out = np.empty(len(found), dtype=object)
    for i, value in enumerate(found):
        out[i] = value
    return out


def _feature_names(X: Any, number: int) -> list[str]:
    """Return the names of the columns of a data frame, made up for an array, or where they are no text."""
    try:
        names = column_names(X)
    except TypeError:
        names = []
    is_named = len(names) == number and all(isinstance(name, str) for name in names)
    return names if is_named else [f"x{i}" for i in range(number)]


def _of_rows(labels: Labels, rows: IntArray) -> tuple[tuple[Label, ...], IntArray]:
    levels, index = labels.index()
    return levels, index[rows]


def _check_arguments(
    task: Any,
    formula: Any,
    outcome: Any,
    outcomes: Any,
    features: Any,
    lists: Mapping[str, Any],
    others: Sequence[Finding] = (),
) -> None:
    found = list(others)
    if not isinstance(formula, str | None):
        found.append(Finding("formula", f"should be text, found {formula!r}", 'For example "y ~ x"'))
    if isinstance(outcomes, list) and outcomes:
        if task is not None or outcome is not None:
            found.append(
                Finding("outcomes", "makes each outcome column a task, so `task` and `outcome` have no place")
            )
        if formula is not None and features is not None:
            found.append(Finding("formula", "was given together with `features`", "Give one of them"))
        if repeated := sorted({o for o in outcomes if list(outcomes).count(o) > 1}):
            found.append(Finding("outcomes", f"repeats {repeated}"))
    else:
        if task is None:
            found.append(
                Finding(
                    "task",
                    "is missing",
                    "Name the column of task labels, or give `outcomes` for a wide table",
                )
            )
        if (formula is None) == (outcome is None):
            found.append(
                Finding(
                    "formula",
                    "exactly one of `formula` and `outcome` should be given",
                    'For example formula="y ~ x"',
                )
            )
        if formula is not None and features is not None:
            found.append(Finding("formula", "was given together with `features`", "Give one of them"))
    for name, value in {"features": features, "outcomes": outcomes, **lists}.items():
        if isinstance(value, str):
            found.append(Finding(name, f"should be a list of columns, found the text {value!r}"))
        elif value is not None and not isinstance(value, list):
            found.append(Finding(name, f"should be a list of columns, found {value!r}"))
        elif odd := [v for v in value or () if not isinstance(v, str)]:
            found.append(
                Finding(name, f"should be names of columns, found {odd}", "Rename the columns to text")
            )
        elif bad := [v for v in value or () if "`" in v or not v]:
            found.append(Finding(name, f"have names that a formula cannot hold: {bad}", "Rename the columns"))
    raise_if_any(found, DataError)


def _formulas(
    formula: str | None,
    outcomes: Sequence[str] | None,
    features: Sequence[str] | None,
    shared: Sequence[str],
    intercept: bool,
) -> tuple[str, str]:
    """Return the right-hand side, and the left-hand side (empty for a wide table)."""
    if formula is not None:
        sides = split_formula(formula)
        if sides is None:
            raise DataError(Finding(f"formula {formula!r}", "has no '~'", "For example 'y ~ x1 + x2'"))
        left, right = sides
        if bool(left) == bool(outcomes):
            rule = (
                "should have no left-hand side for a wide table" if outcomes else "has no outcome before '~'"
            )
            raise DataError(Finding(f"formula {formula!r}", rule))
        return right, left
    names = list(dict.fromkeys([*(features or ()), *(s for s in shared if s != INTERCEPT)]))
    return " + ".join(["1" if intercept else "0", *map(quote, names)]), ""


def _role_findings(
    reads: Sequence[str],
    roles: Mapping[str, Sequence[str]],
    task_features: Sequence[str],
) -> list[Finding]:
    """Find columns that play two parts."""
    found = []
    for role, columns in roles.items():
        for column in columns:
            if column in reads:
                found.append(
                    Finding(
                        f"feature {column!r}", f"is also the {role} column", "Remove it from the features"
                    )
                )
    for column in task_features:
        if column in reads:
            hint = "Keep it in one of the two"
            found.append(
                Finding(
                    f"feature {column!r}", "is also a task feature, so its effect is not identified", hint
                )
            )
    return found


def _melt(frame: pd.DataFrame, outcomes: Sequence[str]) -> tuple[pd.DataFrame, str, str]:
    """Return the long table, and the names of its task and outcome columns, which no other column has."""
    rest = frame.drop(columns=list(outcomes))
    task, outcome = "task", "outcome"
    while task in rest:
        task += "_"
    while outcome in rest:
        outcome += "_"
    parts = [rest.assign(**{outcome: frame[name].to_numpy(), task: name}) for name in outcomes]
    return pd.concat(parts, ignore_index=True), task, outcome


def _outcome(table: pd.DataFrame, side: Side) -> FloatArray:
    return _numeric(table, side.columns[0]) if side.is_column else evaluate_outcome(side, table)


def _numeric(table: Any, column: str) -> FloatArray:
    values = to_pandas(table, [column], DataError)[column]
    if not pd.api.types.is_numeric_dtype(values):
        as_number = pd.to_numeric(values.astype(object), errors="coerce")
        bad = values[as_number.isna() & values.notna()]
        if len(bad):
            hint = "Make it a number or a missing value"
            if len(classes := values.dropna().unique()) == 2:
                is_one = f"I({quote(column)} == {classes[1]!r})"
                hint = f'Make it 0 and 1, say by the formula "{is_one} ~ ..."'
            raise DataError(Finding(f"column {column!r}", f"should be numeric, found {bad.iloc[0]!r}", hint))
        values = as_number
    return values.to_numpy(dtype=float, na_value=np.nan)


def _resolve_shared(shared: Sequence[str], design: Design) -> tuple[str, ...]:
    chosen = []
    findings = []
    for name in shared:
        match = design.columns_of(name)
        if not match:
            known = ", ".join(dict.fromkeys([*design.columns, *design.terms]))
            findings.append(
                Finding("shared_features", f"names {name!r}, which is not in the design", f"Known: {known}")
            )
        chosen += match
    raise_if_any(findings, DataError)
    return tuple(c for c in design.columns if c in chosen)


def _row_findings(
    table: pd.DataFrame,
    design: Design,
    matrix: FloatArray,
    outcome_reads: Sequence[str],
    outcome: str,
    y: FloatArray,
    extra: Mapping[str, str | None],
    side: Mapping[str, FloatArray | None],
    look: checks.EntryChecks,
    wide: Sequence[str],
) -> list[Finding]:
    """Find missing, infinite and non-positive entries; of a wide table, in its own rows and columns."""
    n_rows, dropped = len(y) // max(1, len(wide)), look.dropped
    once = slice(0, len(y) if dropped else n_rows)
    raw = {name: gaps(table[name]) for name in (*design.reads, *outcome_reads)}

    def complete(names: Sequence[str]) -> npt.NDArray[np.bool_]:
        return np.isfinite(np.sum([np.zeros(len(y)), *(raw[name] for name in names)], axis=0))

    found = []
    if not wide or dropped:
        for name in outcome_reads:
            found += look.not_finite(name, raw[name])
        found += look.not_finite(outcome, np.where(complete(outcome_reads), y, 0.0), computed=True)
    for i, name in enumerate(() if dropped else wide):
        found += look.not_finite(name, y, slice(i * n_rows, (i + 1) * n_rows))
    reads = [name for name in design.reads if name not in outcome_reads]
    for name in reads:
        found += look.not_finite(name, raw[name], once)
    there = complete(design.reads)
    for i, name in enumerate(design.columns):
        found += look.not_finite(name, np.where(there, matrix[:, i], 0.0), once, computed=True)
    for key, column in extra.items():
        values = side[key]
        if column is not None and values is not None:
            found += look.not_finite(column, values, once)
            if key != "offset":
                found += look.not_positive(column, values, once)
    return found


def _task_features(
    table: Any,
    columns: Sequence[str],
    rows: IntArray,
    index: IntArray,
    look: checks.EntryChecks,
    center: bool | Sequence[str],
) -> tuple[Design | None, FloatArray, list[Dependence], list[Finding]]:
    """One row per task of the columns that describe tasks."""
    tasks = look.tasks
    if not columns:
        return None, np.zeros((len(tasks), 0)), [], []
    frame = to_pandas(table, columns, DataError).iloc[rows].reset_index(drop=True)
    grouped = frame.groupby(index)
    findings = []
    for name in columns:
        varies = np.flatnonzero(grouped[name].nunique(dropna=False).to_numpy() > 1)
        if len(varies):
            some = ", ".join(repr(tasks[t]) for t in varies[:5])
            findings.append(
                Finding(
                    f"task feature {name!r}",
                    f"is not constant within tasks {some}",
                    "Make it a feature of rows",
                )
            )
    per_task = frame.iloc[np.searchsorted(index, np.arange(len(tasks)))].reset_index(drop=True)
    design, matrix = Design.learn(" + ".join(["1", *map(quote, columns)]), per_task, center=center is True)
    names = design.columns[1:]
    matrix = matrix[:, 1:]
    for i, name in enumerate(names):
        findings += look.not_finite(name, matrix[:, i])
    raise_if_any(checks.beyond_range(dict(zip(names, matrix.T, strict=True))), DataError)
    dependent = dependent_columns(np.column_stack([np.ones(len(tasks)), matrix]), design.columns)
    trimmed = replace(design, columns=names, terms=design.terms[1:], center=design.center[1:])
    return trimmed, matrix, dependent, findings
