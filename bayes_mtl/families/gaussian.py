"""Gaussian outcomes with the identity link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.data.spread import outcome_spread, relative_weights, weighted_median
from bayes_mtl.errors import Finding
from bayes_mtl.families.base import Family, OutcomeScale, check_switch, linear_predictor


@dataclass(frozen=True)
class Gaussian(Family):
    """y ~ Normal(eta, sigma / sqrt(weight)), or with the known noise of each row.

    Parameters
    ----------
    task_noise : bool
        Whether each task has its own noise scale, sigma_t = sigma_mean exp(sigma_spread k_t) with
        k_t ~ N(0, 1). Default: one scale for all.
    """

    task_noise: bool = False
    gaussian_coefficients: ClassVar[bool] = True
    has_noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_switch(self, "task_noise")

    def outcome_scale(self, data: TaskData, *, own_levels: bool = True) -> OutcomeScale:
        """Middle of the levels of tasks, and the spread around and between them, of what is no offset."""
        found = outcome_spread(
            data.y - data.offset,
            data.precision,
            data.task_index if own_levels else None,
            [g.index for g in data.groupings if INTERCEPT in g.features],
        )
        # Where nothing varies there is no other unit than the outcome's own size.
        scale = found.within or found.between or abs(found.location) or 1.0
        if data.noise is not None:  # outcomes may happen to differ by less than their noise
            known = weighted_median(data.precision, relative_weights(data.precision))
            scale = max(scale, float(known[0]) ** -0.5)
            return OutcomeScale(found.location, scale, found.between, found.by_grouping, noise=scale)
        noise = found.noise or scale * float(np.median(data.weights)) ** 0.5
        return OutcomeScale(found.location, scale, found.between, found.by_grouping, noise)

    def row_weights(self, data: TaskData) -> FloatArray:
        """Relative precision: rows that are hardly known say little."""
        return relative_weights(data.precision)

    def findings(self, data: TaskData) -> list[Finding]:
        """Only known noise together with a noise per task is a contradiction."""
        if self.task_noise and data.noise is not None:
            return [
                Finding("Gaussian", "task_noise=True, but the data bring a known noise", "Drop one of them")
            ]
        return []

    def observe(self, beta: Tensor, sigma: Tensor | None, data: TaskData, *, by_row: bool = False) -> Tensor:
        """Register a plain `pm.Normal`."""
        eta = linear_predictor(beta, pm.Data("X", data.all_columns), data)
        one_for_all = sigma is not None and sigma.type.shape[0] == 1
        scale = data.noise if sigma is None else sigma if one_for_all else sigma[data.task_index]
        return pm.Normal("y", eta, scale / np.sqrt(data.weights), observed=data.y, dims="row")

    def observe_components(
        self, log_weight: Tensor, beta: Tensor, sigma: Tensor | None, data: TaskData
    ) -> Tensor:
        """Register y with a plain density of each task under each component."""
        one_for_all = sigma is not None and sigma.type.shape[0] == 1
        scale = data.noise if sigma is None else sigma if one_for_all else sigma[data.task_index]

        def logp(value: Tensor, log_weight: Tensor, beta: Tensor, scale: Tensor) -> Tensor:
            eta = (data.all_columns * beta[:, data.task_index]).sum(axis=-1) + data.offset
            by_row = -0.5 * ((value - eta) / scale) ** 2 - pt.log(scale) - 0.5 * np.log(2 * np.pi)
            by_task = pt.inc_subtensor(pt.zeros(beta.shape[:2])[:, data.task_index], by_row)
            return pt.logsumexp(log_weight + by_task.T, axis=1).sum()

        parameters = [log_weight, beta, pt.as_tensor_variable(scale / np.sqrt(data.weights))]
        signature = "(t,k),(k,t,f),(n)->(n)"
        return pm.CustomDist(
            "y", *parameters, logp=logp, signature=signature, class_name="GaussianComponents",
            observed=data.y, dims="row",
        )  # fmt: skip

    def information(self, data: TaskData, eta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return w and w (y - eta), in units of 1 / sigma^2."""
        return np.broadcast_to(data.precision, eta.shape), data.precision * (data.y - eta)

    def mean(self, eta: FloatArray) -> FloatArray:
        """Identity."""
        return eta

    def log_likelihood(
        self, y: FloatArray, eta: FloatArray, sigma: FloatArray, weights: FloatArray
    ) -> FloatArray:
        """Normal log density."""
        scale = sigma / np.sqrt(weights)
        return -0.5 * ((y - eta) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)

    def residuals(self, y: FloatArray, eta: FloatArray, sigma: FloatArray) -> FloatArray:
        """Standard normal if the model is right."""
        return (y - eta) / sigma

    def draw(self, rng: np.random.Generator, eta: FloatArray, sigma: FloatArray) -> FloatArray:
        """Normal draws."""
        return rng.normal(eta, sigma)
