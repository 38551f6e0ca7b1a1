"""Any correlation matrix, with the LKJ prior: over tasks, over features, or over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Label, Tensor
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.kernels import cholesky_from_partials
from bayes_mtl.structures.base import FeatureCovariance, Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class LKJ(TaskCovariance, FeatureCovariance):
    """A free correlation matrix with density proportional to det(R)^(eta - 1).

    As a task covariance: Lambda is the Cholesky factor of Omega and delta is zero. With n tasks there
    are n (n - 1) / 2 correlations and each feature is one replicate, so this suits few tasks with many
    features; for many tasks use `LowRank`. As a feature covariance: the correlations among intercept
    and slopes of mixed-model software. Both at once: the matrix normal.

    A strong correlation of many features is a priori very unlikely, and with independent scales the
    posterior avoids it by smaller scales: where the coefficients of 30 tasks move along one direction in 8
    features, `feature_sd` comes out a third too small (0.59 for 0.88; the same model written by hand in
    PyMC gives the same). What is drawn of the tasks themselves is right; predictions for new tasks are too
    narrow. `summary` compares `feature_sd` with the spread of the coefficients and says so; `LowRank` as the
    feature covariance, the default from four coefficients on, does not have this tendency.

    Parameters
    ----------
    eta : float
        Concentration, default 2. With 1 all correlation matrices are equally likely; above 1 the
        identity is favoured. Each correlation has prior (r + 1) / 2 ~ Beta(a, a), a = eta - 1 + n / 2.

    Notes
    -----
    The prior of each correlation narrows with the number of tasks, whatever eta: its standard deviation is
    1 / sqrt(2 a + 1) = 1 / sqrt(2 eta + n - 1), .45 for two tasks with eta = 2, .24 for fifteen, .10 for a
    hundred. Tasks with strong common factors contradict that: over 15 tasks whose true correlations come
    from a factor model, the intervals of `task_corr` cover only 56 % of them. Where more than a handful of
    tasks may be strongly related, use `LowRank`, whose prior does not narrow.

    References
    ----------
    Lewandowski, Kurowicka & Joe (2009), Journal of Multivariate Analysis 100. Task relationship
    learning: Zhang & Yeung (2010), UAI.
    """

    eta: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.eta, bool) or not isinstance(self.eta, Real) or not 0 < self.eta < float("inf"):
            raise SpecError(Finding("LKJ", f"`eta` should be a positive number, found {self.eta!r}"))
        object.__setattr__(self, "eta", float(self.eta))

    @property
    def triangular(self) -> bool:
        """Yes: loadings are a Cholesky factor."""
        return True

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register the correlations of tasks."""
        return TaskLoadings(loadings=self._cholesky(len(tasks), name("task_corr")))

    def correlation_cholesky(self, n_features: int, name: Namer) -> Tensor:
        """Register the correlations of features."""
        return self._cholesky(n_features, name("feature_corr"))

    def _cholesky(self, n: int, name: str) -> Tensor:
        """Return the Cholesky factor from Beta-distributed partial correlations (see `kernels._lkj`)."""
        if n == 1:
            return pt.ones((1, 1))
        # Entry (i, j) below the diagonal, row by row: Beta(a_j, a_j) with a_j = eta + (n - 2 - j) / 2.
        column = np.concatenate([np.arange(i) for i in range(1, n)])
        concentration = self.eta + (n - 2 - column) / 2.0
        half = pm.Beta(f"{name}_partial", concentration, concentration, shape=len(concentration))
        return cholesky_from_partials(2.0 * half - 1.0, n)
