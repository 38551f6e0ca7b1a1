"""Binary outcomes with the logit link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from scipy.optimize import brentq
from scipy.special import expit

from bayes_mtl._typing import FloatArray, IntArray, Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.data.spread import between_spread, weighted_median
from bayes_mtl.errors import Finding
from bayes_mtl.families.base import Family, OutcomeScale, briefly, check_switch, linear_predictor
from bayes_mtl.kernels import bernoulli_components, bernoulli_tasks


@dataclass(frozen=True)
class Bernoulli(Family):
    """y ~ Bernoulli(1 / (1 + exp(-eta))); a row with weight w counts as w equal rows.

    Parameters
    ----------
    single_precision : bool
        Whether the sampler keeps the features in single precision: half the memory to hold and to read,
        seven digits of each feature. Sums are in double precision. Default False.
    """

    single_precision: bool = False
    latent_sd: ClassVar[float] = float(np.pi / np.sqrt(3.0))  # of a logistic variable, whose sign is y

    def __post_init__(self) -> None:
        check_switch(self, "single_precision")

    def outcome_scale(self, data: TaskData, *, own_levels: bool = True) -> OutcomeScale:
        """One unit on the logit scale, around the level at which the offsets give as many ones as there are.

        The level solves sum_i w_i (y_i - p_i) + (1/2 - p_o) = 0: half of a row more, at the middle of the
        offsets, keeps it finite. Levels of tasks spread as far as their offsets do.
        """
        of_levels = [g.index for g in data.groupings if INTERCEPT in g.features]
        ones, rows = data.weights @ data.y, data.weights.sum()
        if not data.offset.any():
            level = float(np.log((ones + 0.5) / (rows - ones + 0.5)))
            return OutcomeScale(level, 1.0, by_grouping=(0.0,) * len(of_levels))
        index = data.task_index if own_levels else np.zeros(data.n_rows, dtype=np.int64)
        middle, between = _levels(data.offset, data.weights, index)

        def surplus(level: float) -> float:
            expected = data.weights @ expit(data.offset + level) + expit(middle + level)
            return float(ones + 0.5 - expected)

        far = 60.0 + float(np.abs(data.offset - middle).max())
        level = float(brentq(surplus, -middle - far, -middle + far))
        by_grouping = tuple(_levels(data.offset, data.weights, g)[1] for g in of_levels)
        return OutcomeScale(level, 1.0, between, by_grouping)

    def findings(self, data: TaskData) -> list[Finding]:
        """The outcome must be 0 or 1, and known noise has no meaning."""
        found = []
        bad = np.flatnonzero(~np.isin(data.y, (0.0, 1.0)))
        if len(bad):
            where = f"row {data.row[bad[0]]} of task {data.tasks[data.task_index[bad[0]]]!r}"
            found.append(
                Finding(
                    f"outcome {data.schema.outcome!r}",
                    f"should be 0 or 1 for the Bernoulli family, found {data.y[bad[0]]:g} in {where}",
                    'Recode it, or use family="gaussian"',
                )
            )
        if data.noise is not None:
            found.append(Finding("noise", "has no meaning for the Bernoulli family", "Leave it out"))
        return found

    def observe(self, beta: Tensor, sigma: Tensor | None, data: TaskData, *, by_row: bool = False) -> Tensor:
        """Register y with one fused log-likelihood: X is read once for value and gradient."""
        X, *others = self._rows(data)

        def logp(value: Tensor, beta: Tensor, X: Tensor) -> Tensor:
            if not by_row:
                return bernoulli_tasks(beta, value, X, *others)
            eta = linear_predictor(beta, X.T, data)
            return -data.weights * pt.softplus(pt.switch(pt.eq(value, 1), -eta, eta))

        def simulate(beta: Tensor, X: Tensor, size: Any) -> Tensor:
            return pm.Bernoulli.dist(logit_p=linear_predictor(beta, X.T, data))

        return pm.CustomDist(
            "y",
            beta,
            X,
            dist=simulate,
            logp=logp,
            signature="(t,f),(f,n)->(n)",
            class_name="BernoulliTasks",
            observed=pm.Data("outcome", data.y.astype(np.int8)),
            dims="row",
        )

    def observe_components(
        self, log_weight: Tensor, beta: Tensor, sigma: Tensor | None, data: TaskData
    ) -> Tensor:
        """Register y with one fused log-likelihood of each task under each component."""
        X, *others = self._rows(data)

        def logp(value: Tensor, log_weight: Tensor, beta: Tensor, X: Tensor) -> Tensor:
            return pt.logsumexp(log_weight + bernoulli_components(beta, value, X, *others), axis=1).sum()

        return pm.CustomDist(
            "y",
            log_weight,
            beta,
            X,
            logp=logp,
            signature="(t,k),(k,t,f),(f,n)->(n)",
            class_name="BernoulliComponents",
            observed=pm.Data("outcome", data.y.astype(np.int8)),
            dims="row",
        )

    def _rows(self, data: TaskData) -> tuple[Tensor, ...]:
        """Return X by columns, weights, offset, and where tasks start."""
        kind = np.float32 if self.single_precision else np.float64
        columns = np.ascontiguousarray(data.all_columns.T, dtype=kind)
        return (
            pytensor.shared(columns, name="X", shape=columns.shape, borrow=True),
            pm.Data("weights", briefly(data.weights)),
            pm.Data("offset", briefly(data.offset)),
            pm.Data("starts", data.starts),
        )

    def information(self, data: TaskData, eta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return w p (1 - p) and w (y - p)."""
        p = expit(eta)
        return data.weights * p * (1.0 - p), data.weights * (data.y - p)

    def copies(self, weights: FloatArray) -> FloatArray:
        """Return the weights: a row of weight w is w equal rows."""
        return weights

    def mean(self, eta: FloatArray) -> FloatArray:
        """Probability of a 1."""
        return expit(eta)

    def log_likelihood(
        self, y: FloatArray, eta: FloatArray, sigma: FloatArray, weights: FloatArray
    ) -> FloatArray:
        """Log probability of each row, times its weight."""
        return -weights * np.logaddexp(0.0, np.where(y == 1, -eta, eta))

    def residuals(self, y: FloatArray, eta: FloatArray, sigma: FloatArray) -> FloatArray:
        """Pearson's: (y - p) / sqrt(p (1 - p)) = (2 y - 1) exp(-(2 y - 1) eta / 2)."""
        sign = 2.0 * y - 1.0
        return sign * np.exp(-sign * eta / 2.0)

    def draw(self, rng: np.random.Generator, eta: FloatArray, sigma: FloatArray) -> FloatArray:
        """Zeros and ones."""
        return rng.binomial(1, expit(eta)).astype(float)


def _levels(offset: FloatArray, weights: FloatArray, index: IntArray) -> tuple[float, float]:
    """Return the middle of the levels of offsets by group, and how far they spread."""
    precision = np.bincount(index, weights)
    return between_spread(weighted_median(offset, weights, index, len(precision)), precision)
