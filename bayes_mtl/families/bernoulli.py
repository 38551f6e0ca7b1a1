"""Binary outcomes with the logit link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
from scipy.special import expit

from bayes_mtl._typing import FloatArray, Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.errors import Finding
from bayes_mtl.families.base import Family, OutcomeScale


@dataclass(frozen=True)
class Bernoulli(Family):
    """y ~ Bernoulli(1 / (1 + exp(-eta))); a row with weight w counts as w equal rows."""

    def outcome_scale(self, data: TaskData) -> OutcomeScale:
        """One unit on the logit scale."""
        return OutcomeScale(0.0, 1.0)

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

    def observe(self, eta: Tensor, sigma: Tensor | None, data: TaskData) -> Tensor:
        """Register a plain `pm.Bernoulli`, or a weighted one."""
        y = data.y.astype(np.int64)
        if (data.weights == 1).all():
            return pm.Bernoulli("y", logit_p=eta, observed=y, dims="row")

        def logp(value: Tensor, eta: Tensor, weights: Tensor) -> Tensor:
            return weights * pm.logp(pm.Bernoulli.dist(logit_p=eta), value)

        def random(eta: Any, weights: Any, rng: Any = None, size: Any = None) -> Any:
            return rng.binomial(1, expit(eta), size=size)

        return pm.CustomDist(
            "y", eta, data.weights, logp=logp, random=random, dtype="int64", observed=y, dims="row"
        )

    def mean(self, eta: FloatArray) -> FloatArray:
        """Probability of a 1."""
        return expit(eta)

    def log_likelihood(
        self, y: FloatArray, eta: FloatArray, sigma: FloatArray, weights: FloatArray
    ) -> FloatArray:
        """Log probability of each row, times its weight."""
        return -weights * np.logaddexp(0.0, np.where(y == 1, -eta, eta))

    def draw(self, rng: np.random.Generator, eta: FloatArray, sigma: FloatArray) -> FloatArray:
        """Zeros and ones."""
        return rng.binomial(1, expit(eta)).astype(float)
