"""Tasks whose relatedness follows from a known matrix, or from where (or when) they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.structures.base import Namer
from bayes_mtl.structures.known import (
    KnownRelatedness,
    correlation_of,
    labelled_matrix,
    numbers_of_tasks,
    plain_matrix,
    positions_of,
    values_of_tasks,
)

_ROOT3, _ROOT5 = np.sqrt(3.0), np.sqrt(5.0)

# Correlation as a function of d = distance / lengthscale.
SHAPES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "exponential": lambda d: pt.exp(-d),
    "matern32": lambda d: (1.0 + _ROOT3 * d) * pt.exp(-_ROOT3 * d),
    "matern52": lambda d: (1.0 + _ROOT5 * d + 5.0 / 3.0 * d**2) * pt.exp(-_ROOT5 * d),
    "gaussian": lambda d: pt.exp(-0.5 * d**2),
}


@dataclass(frozen=True, init=False)
class Kernel(KnownRelatedness):
    """Known relatedness: Omega = rho K + (1 - rho) I, with rho ~ Uniform(0, 1) learned.

    K is a given matrix, scaled to a unit diagonal, or falls with the distance of tasks in space, time, age
    or whatever is known of them: K_ts = shape(|x_t - x_s| / lengthscale).

    Parameters
    ----------
    matrix : data frame or (n, n) array, optional
        Positive semi-definite; with labels as its index and columns, or beside `tasks`.
    positions : data frame, series, mapping from task to number(s), or (n,) or (n, d) array, optional
        Instead of `matrix`: where each task is. Columns should be in comparable units: the distance is
        Euclidean. Dates and time stamps are taken in days since 1970-01-01, durations in days.
    tasks : sequence of labels, optional
        Labels of the rows of an array. There may be more of them than the data have tasks.
    shape : {"matern32", "exponential", "matern52", "gaussian"}
        How correlation falls with distance.
    lengthscale : float, optional
        In the units of `positions`. Default: learned, log-normal with 90 % of its mass between the least
        and the greatest distance.
    columns : sequence of str, optional
        Names of the coordinates in `positions`. `predict` reads them for tasks that have no position here.

    Raises
    ------
    SpecError
        If the matrix is not symmetric or not positive semi-definite, or labels are missing.

    See Also
    --------
    Kernel.from_table : from columns of a table.

    Notes
    -----
    A new task at a known place has a conditional law given the known tasks, which
    ``predict(..., new_tasks="population")`` uses.

    References
    ----------
    Evgeniou, Micchelli & Pontil (2005), JMLR 6; Bonilla, Chai & Williams (2007), NIPS.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> near = mtl.Kernel(positions={"Delft": (52.0, 4.4), "Leiden": (52.2, 4.5), "Liege": (50.6, 5.6)})
    >>> near.tasks
    ('Delft', 'Leiden', 'Liege')
    """

    matrix: tuple[tuple[float, ...], ...] | None
    positions: tuple[tuple[float, ...], ...] | None
    tasks: tuple[Label, ...]
    shape: str
    lengthscale: float | None
    columns: tuple[str, ...] | None

    def __init__(
        self,
        matrix: Any = None,
        *,
        positions: Any = None,
        tasks: Sequence[Label] | None = None,
        shape: str = "matern32",
        lengthscale: float | None = None,
        columns: Sequence[str] | None = None,
    ):
        findings = []
        if (matrix is None) == (positions is None):
            findings.append(Finding("Kernel", "needs either `matrix` or `positions`"))
        if shape not in SHAPES:
            findings.append(
                Finding("Kernel", f"`shape` should be one of {', '.join(SHAPES)}, found {shape!r}")
            )
        if lengthscale is not None and not (_is_number(lengthscale) and 0 < lengthscale < np.inf):
            findings.append(
                Finding("Kernel", f"`lengthscale` should be a positive number, found {lengthscale!r}")
            )
        if matrix is not None and lengthscale is not None:
            findings.append(Finding("Kernel", "`lengthscale` has no meaning with `matrix`", "Remove it"))
        if matrix is not None and columns is not None:
            findings.append(Finding("Kernel", "`columns` has no meaning with `matrix`", "Remove it"))
        raise_if_any(findings, SpecError)
        fixed, places = None, None
        if matrix is not None:
            labels, values = labelled_matrix("Kernel", "matrix", matrix, tasks)
            fixed = plain_matrix(correlation_of("Kernel", "matrix", values, labels))
        else:
            labels, values = numbers_of_tasks("Kernel", "positions", positions, tasks)
            if len(labels) > 1 and not np.ptp(values, axis=0).any():
                raise SpecError(Finding("Kernel", "has all tasks at one place", "Use Exchangeable()"))
            places = plain_matrix(values)
            if columns is not None and (isinstance(columns, str) or len(columns) != values.shape[1]):
                found = f"`columns` should be a name for each of {values.shape[1]} coordinates"
                raise SpecError(Finding("Kernel", f"{found}, found {columns!r}"))
        given = {
            "matrix": fixed,
            "positions": places,
            "tasks": labels,
            "shape": shape,
            "lengthscale": None if lengthscale is None else float(lengthscale),
            "columns": None if columns is None else tuple(columns),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        task: str,
        columns: Sequence[str],
        shape: str = "matern32",
        lengthscale: float | None = None,
    ) -> Self:
        """Read positions from a table.

        Parameters
        ----------
        table : data frame
        task : str
            Column of tasks.
        columns : sequence of str
            Columns of numbers that do not change within a task, in comparable units. May be the column of
            tasks itself, if its labels are numbers (years, ages). `predict` reads them for new tasks.
        shape, lengthscale
            See the class.

        Raises
        ------
        SpecError
            If a task is in several places.

        Examples
        --------
        >>> import bayes_mtl as mtl
        >>> table = {"plot": ["a", "a", "b"], "east": [0.0, 0.0, 3.0], "north": [1.0, 1.0, 2.0]}
        >>> mtl.Kernel.from_table(table, task="plot", columns=["east", "north"]).positions
        ((0.0, 1.0), (3.0, 2.0))
        """
        found = values_of_tasks("Kernel", "columns", table, task, columns, "place")
        return cls(positions=found, columns=columns, shape=shape, lengthscale=lengthscale)

    @property
    def task_columns(self) -> tuple[str, ...] | None:
        """`columns`."""
        return self.columns

    def with_tasks(self, places: Mapping[Label, Sequence[Any]]) -> Kernel:
        """Return this kernel with more positions."""
        if self.positions is None:
            return self
        known = dict(zip(self.tasks, self.positions, strict=True))
        return Kernel(
            positions=known | dict(places),
            shape=self.shape,
            lengthscale=self.lengthscale,
            columns=self.columns,
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """How much of the relatedness the data believe, and how far it reaches."""
        return ("rho",) if self.positions is None or self.lengthscale is not None else ("rho", "lengthscale")

    def correlation(self, rho: Tensor, tasks: Sequence[Label], name: Namer) -> Tensor:
        """Return rho K + (1 - rho) I; register the lengthscale."""
        return rho * self._known(positions_of(tasks, self.tasks), name) + (1.0 - rho) * np.eye(len(tasks))

    def _known(self, at: Sequence[int], name: Namer) -> Tensor:
        if self.matrix is not None:
            return np.array(self.matrix)[np.ix_(at, at)]
        distance = _distances(np.array(self.positions)[at])
        return SHAPES[self.shape](distance / self._lengthscale(distance, name))

    def _lengthscale(self, distance: FloatArray, name: Namer) -> Tensor:
        if self.lengthscale is not None:
            return self.lengthscale
        if not distance.any():  # all tasks at one place: what is known of others says how far is far
            distance = _distances(np.array(self.positions))
        if not distance.any():
            return pm.LogNormal(name("lengthscale"), 0.0, 1.0)
        low, high = np.log([distance[distance > 0].min(), distance.max()])
        sigma = max(0.5, (high - low) / (2 * 1.645))
        return pm.LogNormal(name("lengthscale"), (low + high) / 2, sigma)


def _distances(x: FloatArray) -> FloatArray:
    """Return the distance of every two positions."""
    return np.asarray(np.sqrt(((x[:, None] - x[None, :]) ** 2).sum(axis=-1)))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
