"""Relatedness that is known beforehand, as far as the data believe it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.data.frames import day_number, exact_values, missing_columns, to_pandas
from bayes_mtl.data.labels import Labels, plain_labels
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.structures._new_tasks import draw_related
from bayes_mtl.structures.base import KnownTasks, Namer, TaskCovariance, TaskLoadings

# Keeps Omega positive definite where rho is one.
_OWN = 1e-6


class KnownRelatedness(TaskCovariance):
    """Omega is a function of rho ~ Uniform(0, 1): the identity at 0, what is known at 1.

    Loadings are its Cholesky factor.
    """

    tasks: tuple[Label, ...]

    @property
    def triangular(self) -> bool:
        """Yes: loadings are a Cholesky factor."""
        return True

    @property
    def parameters(self) -> tuple[str, ...]:
        """How much of the known relatedness the data believe."""
        return ("rho",)

    def findings(self, tasks: Sequence[Label]) -> list[Finding]:
        """Say which tasks are not among the labels."""
        return label_findings(type(self).__name__, tasks, self.tasks)

    def knows(self, task: Label) -> bool:
        """Whether it is among the labels."""
        return task in self.tasks

    def draw_new(self, new: Sequence[Label], known: KnownTasks, rng: np.random.Generator) -> FloatArray:
        """Draw tasks whose label is known from their law given the known ones; others are independent."""
        return draw_related(self, new, known, rng)

    @abstractmethod
    def correlation(self, rho: Tensor, tasks: Sequence[Label], name: Namer) -> Tensor:
        """Return Omega of these tasks, and register what else it depends on."""

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register rho, and what else Omega depends on."""
        if len(tasks) == 1:
            return TaskLoadings(loadings=pt.ones((1, 1)))
        rho = pm.Uniform(name("rho"), 0.0, 1.0) * (1.0 - _OWN)
        return TaskLoadings(loadings=pt.linalg.cholesky(self.correlation(rho, tasks, name)))


def positions_of(tasks: Sequence[Label], known: Sequence[Label]) -> list[int]:
    """Return where each task is among the known labels."""
    at = {label: i for i, label in enumerate(known)}
    return [at[task] for task in tasks]


def label_findings(who: str, tasks: Sequence[Label], known: Iterable[Label]) -> list[Finding]:
    """Say which tasks of the data are not among the labels of a structure."""
    labels = set(known)
    if not (missing := [t for t in tasks if t not in labels]):
        return []
    some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
    have = ", ".join(map(repr, list(labels)[:5])) + (", ..." if len(labels) > 5 else "")
    found = f"does not know {len(missing)} of the tasks: {some}. It knows {have}"
    return [Finding(who, found, "Labels should be those of the task column, of the same type")]


def values_of_tasks(
    who: str,
    option: str,
    table: Any,
    task: str,
    columns: Sequence[str],
    what: str,
    *,
    only: Iterable[Label] | None = None,
) -> dict[Label, tuple[Any, ...]]:
    """Return what a table says of each task (or of `only` some) in columns that do not change within it.

    Raises
    ------
    SpecError
        If a column is missing, has gaps, or has several values within a task.
    """
    if isinstance(columns, str) or not columns:
        raise SpecError(Finding(who, f"`{option}` should be a list of columns, found {columns!r}"))
    raise_if_any(missing_columns(table, [task, *columns]), SpecError)
    to_pandas(table, columns, SpecError)  # says so if there are lists and the like
    labels = Labels.read(table, task, SpecError).values
    wanted = None if only is None else set(only)
    found: dict[Label, tuple[Any, ...]] = {}
    for label, *place in zip(labels, *(exact_values(table, c, SpecError) for c in columns), strict=True):
        if wanted is not None and label not in wanted:
            continue
        if gaps := [c for c, v in zip((task, *columns), (label, *place), strict=True) if v is None]:
            problem = f"has missing {what}s"
            raise SpecError(Finding(f"column {gaps[0]!r}", problem, f"Name a {what} in every row"))
        if found.setdefault(label, tuple(place)) != tuple(place):
            problem = f"has task {label!r} in more than one {what}"
            hint = f"{', '.join(map(repr, columns))} should not change within a task"
            raise SpecError(Finding(f"column {task!r}", problem, hint))
    return found


def numbers_of_tasks(
    who: str, option: str, values: Any, tasks: Any = None
) -> tuple[tuple[Label, ...], FloatArray]:
    """Return labels, and as many numbers for each of them; of dates and durations, days since 1970-01-01.

    Parameters
    ----------
    values : mapping from label to number(s), data frame, series, or array beside `tasks`

    Raises
    ------
    SpecError
        Lists everything that is wrong with it.
    """
    if isinstance(values, Mapping):
        tasks, values = list(values), [np.atleast_1d(v) for v in values.values()]
    elif tasks is None and hasattr(values, "index") and not isinstance(values, list | tuple):
        tasks = list(values.index)
    if tasks is None:
        hint = f"Or pass `{option}` as a mapping or a data frame"
        raise SpecError(Finding(who, f"needs `tasks`, the labels of `{option}`", hint))
    labels = plain_labels(tasks)
    if not labels:
        raise SpecError(Finding(who, f"`{option}` is empty"))
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    try:
        if getattr(values, "dtype", np.dtype(object)).kind in "fiu":
            numbers = np.asarray(values, dtype=float)
        else:
            numbers = np.array([[day_number(v) for v in np.ravel(row)] for row in values], dtype=float)
    except (TypeError, ValueError) as err:
        text = [v for row in values for v in np.ravel(row) if isinstance(v, str)]
        found = f", found {str(text[0])!r}" if text else ""
        hint = "Recode text as numbers, such as 0 and 1" if text else str(err)
        problem = f"`{option}` should hold as many numbers for each task{found}"
        raise SpecError(Finding(who, problem, hint)) from err
    numbers = numbers.reshape(len(numbers), -1)
    findings = []
    if len(numbers) != len(labels):
        findings.append(Finding(who, f"has {len(numbers)} {option} for {len(labels)} labels"))
    elif not np.isfinite(numbers).all():
        missing = [t for t, row in zip(labels, numbers, strict=True) if not np.isfinite(row).all()]
        findings.append(Finding(who, f"`{option}` should be finite, found others for {missing[:5]}"))
    if len(set(labels)) < len(labels):
        findings.append(Finding(who, "has a label more than once"))
    raise_if_any(findings, SpecError)
    return labels, numbers


def labelled_matrix(who: str, what: str, matrix: Any, tasks: Any) -> tuple[tuple[Label, ...], FloatArray]:
    """Return labels and numbers of a square symmetric matrix: a data frame, or an array beside labels.

    Raises
    ------
    SpecError
        Lists everything that is wrong with it.
    """
    if tasks is None and hasattr(matrix, "columns"):
        tasks, columns = list(matrix.index), list(matrix.columns)
        if tasks != columns:
            raise SpecError(
                Finding(who, f"rows and columns of `{what}` should have the same labels in order")
            )
    values = _numbers(who, what, matrix)
    if tasks is None:
        raise SpecError(
            Finding(who, "needs `tasks`, the labels of the rows", f"Or pass `{what}` as a data frame")
        )
    labels = plain_labels(tasks)
    findings = []
    if values.shape != (len(labels), len(labels)):
        found = f"`{what}` should be square with one row per label, found {values.shape} for {len(labels)}"
        raise SpecError(Finding(who, found))
    if len(set(labels)) < len(labels):
        twice = [t for i, t in enumerate(labels) if t in labels[:i]]
        findings.append(Finding(who, f"has labels more than once: {twice[:5]}"))
    if not np.isfinite(values).all():
        i, j = np.argwhere(~np.isfinite(values))[0]
        findings.append(
            Finding(who, f"`{what}` should be finite, found {values[i, j]} for {labels[i]!r}, {labels[j]!r}")
        )
    elif not np.allclose(values, values.T, rtol=1e-8, atol=1e-10):
        i, j = np.unravel_index(np.abs(values - values.T).argmax(), values.shape)
        found = f"found {values[i, j]:g} and {values[j, i]:g} for {labels[i]!r}, {labels[j]!r}"
        findings.append(Finding(who, f"`{what}` should be symmetric, {found}"))
    raise_if_any(findings, SpecError)
    return labels, (values + values.T) / 2


def correlation_of(who: str, what: str, matrix: FloatArray, labels: Sequence[Label]) -> FloatArray:
    """Scale a positive semi-definite matrix to a unit diagonal."""
    diagonal = np.diag(matrix)
    if (diagonal <= 0).any():
        i = int(diagonal.argmin())
        raise SpecError(
            Finding(who, f"`{what}` should have a positive diagonal, found {diagonal[i]:g} for {labels[i]!r}")
        )
    scaled = matrix / np.sqrt(np.outer(diagonal, diagonal))
    least = float(np.linalg.eigvalsh(scaled).min())
    if least < -1e-8 * len(scaled):
        hint = "Similarities need not be a covariance: use exp(-distance), or add a multiple of the identity"
        raise SpecError(
            Finding(who, f"`{what}` should be positive semi-definite, found the eigenvalue {least:.3g}", hint)
        )
    return scaled


def plain_matrix(values: FloatArray) -> tuple[tuple[float, ...], ...]:
    """Return numbers as nested tuples, which can be hashed and written."""
    return tuple(tuple(float(v) for v in row) for row in values)


def _numbers(who: str, what: str, values: Any) -> FloatArray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as err:
        raise SpecError(Finding(who, f"`{what}` should hold numbers only", str(err))) from err
