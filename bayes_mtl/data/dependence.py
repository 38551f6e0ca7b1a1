"""Columns that add nothing to the ones before them: only their priors tell such coefficients apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.errors import DataWarning, Finding

_NOTHING_LEFT = 1e-7  # of a column's length
_CONSTANT = 1e-12  # of a column's largest value
_NAMED = 5  # columns in a sentence


@dataclass(frozen=True)
class Dependence:
    """One column that is a linear combination of others.

    Attributes
    ----------
    name : str
    value : float or None
        What it is in every row, if it never changes.
    of : tuple of str
        Otherwise: the columns that it is a combination of, the intercept apart.
    """

    name: str
    value: float | None = None
    of: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.value is not None:
            return f"is constant ({self.value:g} in every row)"
        many = len(self.of) > _NAMED
        of = f"{len(self.of)} columns before it" if many else ", ".join(map(repr, self.of))
        return f"is collinear: an exact linear combination of {of}"

    @property
    def finding(self) -> Finding:
        """The same as a reason to refuse the table."""
        return Finding(
            f"feature {self.name!r}", str(self), "Remove it" if self.of == () else "Remove one of them"
        )


def is_constant(values: FloatArray) -> bool:
    """Whether a column never changes, but for rounding."""
    return bool(np.ptp(values) <= _CONSTANT * np.abs(values).max())


def dependent_columns(X: FloatArray, names: Sequence[str]) -> list[Dependence]:
    """Return the columns that are constant, or exact linear combinations of the ones before them.

    Over all complete rows; column by column, orthogonalised twice against what the columns before span.
    """
    values = X[np.isfinite(X).all(axis=1)]
    if not len(values):
        return []
    constant = [n != INTERCEPT and is_constant(v) for n, v in zip(names, values.T, strict=True)]
    found = [
        Dependence(names[i], value=float(values[0, i]))
        for i, never_changes in enumerate(constant)
        if never_changes
    ]
    columns = [i for i, n in enumerate(names) if n != INTERCEPT and not constant[i]]
    if len(values) == 1 or not columns:
        return found
    scaled = values[:, columns] - (values[:, columns].mean(axis=0) if INTERCEPT in names else 0.0)
    scaled /= np.linalg.norm(scaled, axis=0)
    if len(scaled) > len(columns):  # scaled = Q R: the columns of R are combined in the same way, and short
        scaled = np.linalg.qr(scaled, mode="r")
    basis = np.zeros((scaled.shape[0], min(scaled.shape)))
    independent: list[int] = []
    dependent: list[int] = []
    for i, column in enumerate(scaled.T):
        span = basis[:, : len(independent)]
        left = column - span @ (span.T @ column)
        left -= span @ (span.T @ left)
        length = np.linalg.norm(left)
        if len(independent) < basis.shape[1] and length > _NOTHING_LEFT:
            basis[:, len(independent)] = left / length
            independent.append(i)
        else:
            dependent.append(i)
    if dependent:
        parts = np.linalg.lstsq(scaled[:, independent], scaled[:, dependent], rcond=None)[0]
        for i, part in zip(dependent, parts.T, strict=True):
            of = tuple(names[columns[independent[m]]] for m in np.flatnonzero(np.abs(part) > 1e-6))
            found.append(Dependence(names[columns[i]], of=of))
    return found


def warn_of_dependent_columns(found: Sequence[Dependence], n_columns: int, *, what: str, remedy: str) -> None:
    """Say in one sentence which columns only their priors tell from the others.

    Parameters
    ----------
    found : sequence of Dependence
    n_columns : int
        How many columns there are.
    what : str
        What the columns are features of.
    remedy : str
        What else can be done but removing them.
    """
    if not found:
        return
    named = "; ".join(f"{d.name!r} {d}" for d in found[:_NAMED])
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    one = len(found) == 1
    warnings.warn(
        f"{len(found)} of {n_columns} {what} {'adds' if one else 'add'} nothing that the rows could tell "
        f"from the others: {named}{more}. Priors alone tell such coefficients apart: what they add up to is "
        f"known from the rows, the share of each is as wide as its prior. {remedy}",
        DataWarning,
        stacklevel=3,
    )
