"""The units of the default priors: of the outcome, and of a coefficient of every column."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData, feature_spread
from bayes_mtl.data.dependence import is_constant
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.families import OutcomeScale
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import CompletePooling


def outcome_units(spec: ModelSpec, data: TaskData) -> OutcomeScale:
    """Return the units of the outcome: its spread around the levels that intercepts take up."""
    pooled = isinstance(spec.task_covariance, CompletePooling)
    own_levels = not pooled and _once(data, "level", lambda: _holds_level(data.X, data.features))
    key = ("outcome", spec.family, own_levels)
    return _once(data, key, lambda: spec.family.outcome_scale(data, own_levels=own_levels))


def _once[Measured](data: TaskData, key: Hashable, measure: Callable[[], Measured]) -> Measured:
    """Return what was measured before: it takes seconds for millions of rows."""
    if key not in data.measured:
        data.measured[key] = measure()
    found: Measured = data.measured[key]
    return found


def _holds_level(X: FloatArray, names: Sequence[str]) -> bool:
    """Whether coefficients of these columns can add a constant to every row: an intercept, or all levels."""
    if INTERCEPT in names or not len(names):
        return INTERCEPT in names
    total = X.sum(axis=0)
    fitted = total @ np.linalg.lstsq(X.T @ X, total, rcond=None)[0]
    return bool(len(X) - fitted < 1e-8 * len(X))


@dataclass(frozen=True)
class _Columns:
    """How columns of a design spread, and (mean / spread)^2, 0 of a constant one, and |mean| / E[x^2]."""

    spread: FloatArray
    away: FloatArray
    through_origin: FloatArray

    @classmethod
    def of(cls, X: FloatArray, weights: FloatArray) -> Self:
        share = weights / weights.sum()
        constant = np.array([is_constant(column) for column in X.T], dtype=bool)
        mean, spread, square = share @ X, feature_spread(X, weights), share @ X**2
        away = np.where(constant, 0.0, mean / spread) ** 2
        return cls(spread, away, np.abs(mean) / np.where(square > 0.0, square, 1.0))


@dataclass(frozen=True)
class CoefficientSizes:
    """The sizes of coefficients: what moves the outcome by one unit of its own, for one of the feature."""

    spec: ModelSpec
    data: TaskData
    unit: OutcomeScale

    def of(self, key: str, X: FloatArray, names: Sequence[str], between: float) -> FloatArray:
        """Return the size of the coefficient of each column, where levels spread as far as `between`.

        Parameters
        ----------
        key : str
            What the columns are called in the data.
        """
        columns = self._measured(key, X)
        size = self.unit.scale / columns.spread
        if INTERCEPT not in (*self.data.features, *self.data.shared_features):
            size = np.hypot(size, np.hypot(self.unit.location, between) * columns.through_origin)
        level = np.hypot(between, self.unit.scale * np.sqrt(1.0 + self._away))
        return np.where([name == INTERCEPT for name in names], level, size)

    @property
    def _away(self) -> float:
        """Return how far the data are from where the intercept is: sum_j (mean_j / s_j)^2."""
        parts = (self._measured("X", self.data.X), self._measured("X_shared", self.data.X_shared))
        return float(sum(part.away.sum() for part in parts))

    def _measured(self, key: str, X: FloatArray) -> _Columns:
        weights = self.spec.family.row_weights
        return _once(
            self.data, ("columns", self.spec.family, key), lambda: _Columns.of(X, weights(self.data))
        )
