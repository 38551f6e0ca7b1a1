"""Noise scales of tasks, in coordinates that suit what the rows say of them.

The law is sigma_t = sigma_mean exp(sigma_spread k_t), k_t ~ N(0, 1). Of a task of many rows sigma_t is known,
so neither k_t nor log sigma_t is a good coordinate for every value of the spread, and nor is log sigma_mean,
which is known the better the smaller the spread is. With s_t the scale of what the task's own coefficients
leave, and i_t = 2 df_t the information on log s_t,

    log sigma_mean | spread            is about N(sum_t j_t log s_t / J, 1 / J),    J = sum_t j_t
    log sigma_t | sigma_mean, spread   is about N(., 1 / (i_t + 1 / spread^2)),   1 / j_t = spread^2 + 1 / i_t

What the sampler moves is standard normal where this is exact. The density is that of the law in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.graph.replace import graph_replace

from bayes_mtl._typing import FloatArray, Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.model.coords import TASK
from bayes_mtl.model.numbers import Numbers
from bayes_mtl.model.priors import register
from bayes_mtl.model.units import outcome_units
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec, PriorValue

SIGMA_OFFSET = "sigma_offset"  # k
NOISE_OFFSETS = MEAN_OFFSET, OFFSET = "log_sigma_mean_offset", "log_sigma_offset"


def has_task_noise(spec: ModelSpec) -> bool:
    """Whether every task has a noise scale of its own to learn."""
    return bool(getattr(spec.family, "task_noise", False))


@dataclass(frozen=True)
class TaskNoise:
    """What the rows say of the log noise scale of each task, and the prior of their median.

    Attributes
    ----------
    estimate, information : (T,)
        log s_t and i_t; no information where a task has no more rows than columns.
    middle : float
        Of the prior of log sigma_mean, roughly; it counts as information 1.
    median, spread : Prior or float
        Priors of sigma_mean and sigma_spread.
    """

    estimate: FloatArray
    information: FloatArray
    middle: float
    median: PriorValue
    spread: PriorValue

    @classmethod
    def of(cls, spec: ModelSpec, data: TaskData, median: PriorValue, spread: PriorValue) -> TaskNoise:
        """Read it off the squares that each task's own coefficients leave."""
        rows, middle = data.pseudo_rows, float(np.log(outcome_units(spec, data).noise))
        freedom = np.maximum(data.statistics.count - rows.rank, 0.0) * (rows.rest > 0.0)
        variance = np.divide(rows.rest, freedom, out=np.ones_like(freedom), where=freedom > 0.0)
        estimate = np.where(freedom > 0.0, 0.5 * np.log(variance), middle)
        return cls(estimate, 2.0 * freedom, middle, median, spread)

    @property
    def moves_median(self) -> bool:
        """Whether sigma_mean has a coordinate of its own; priors with an upper bound keep theirs."""
        return isinstance(self.median, Prior) and self.median.support == "positive"

    def register(self, numbers: Numbers) -> Tensor:
        """Register the noise scales in the current model; return them (T,)."""
        spread = register("sigma_spread", self.spread, numbers=numbers)
        estimate = pt.as_tensor_variable(numbers("log_sigma_estimate", self.estimate))
        information = pt.as_tensor_variable(numbers("log_sigma_information", self.information))
        middle = pt.as_tensor_variable(numbers("log_sigma_middle", np.float64(self.middle)))
        if self.moves_median:
            assert isinstance(self.median, Prior)
            centre, scale = _of_median(estimate, information, middle, spread)
            log_median = centre + scale * pm.Flat(MEAN_OFFSET, shape=())
            median = pm.Deterministic("sigma_mean", pt.exp(log_median))
            given = {key: numbers(f"sigma_mean_{key}", np.float64(v)) for key, v in self.median.params}
            prior = pm.logp(getattr(pm, self.median.distribution).dist(**given), median)
            pm.Potential("sigma_mean_coordinate", prior + log_median + pt.log(scale))
        else:
            median = register("sigma_mean", self.median, numbers=numbers)
            log_median = pt.log(median)
        centre, scale = _of_tasks(estimate, information, log_median, spread)
        log_sigma = centre + scale * pm.Flat(OFFSET, shape=self.estimate.shape)
        k = pm.Deterministic(SIGMA_OFFSET, (log_sigma - log_median) / spread, dims=TASK)
        density = -0.5 * k**2 - 0.5 * np.log(2 * np.pi) + pt.log(scale / spread)
        pm.Potential("sigma_coordinates", density.sum())
        return pm.Deterministic("sigma", pt.exp(log_sigma), dims=TASK)

    def with_median(self, model: pm.Model, free: list[Tensor]) -> dict[str, Tensor]:
        """Return what can be drawn from the prior: `free` variables, given a random sigma_mean, and that one.

        Scales of features may be relative to it, and its coordinate has no law to be drawn from.
        """
        drawn = {v.name: v for v in free}
        if not self.moves_median:
            return drawn
        assert isinstance(self.median, Prior)
        median = getattr(pm, self.median.distribution).dist(**dict(self.median.params))
        given = graph_replace(free, {model["sigma_mean"]: median}, strict=False)
        return dict(zip(drawn, given, strict=True)) | {"sigma_mean": median}

    def draw_coordinates(
        self, drawn: Mapping[str, FloatArray], n: int, rng: np.random.Generator
    ) -> dict[str, FloatArray]:
        """Return what the sampler moves, of `n` draws from the prior.

        `drawn` has sigma_mean and sigma_spread, those of them that are learned.
        """
        spread, found = _values(drawn, "sigma_spread", self.spread, n), {}
        log_median = np.log(_values(drawn, "sigma_mean", self.median, n))
        if self.moves_median:
            centre, scale = _of_median(self.estimate, self.information, self.middle, spread)
            found[MEAN_OFFSET] = (log_median - centre) / scale
        log_sigma = log_median + spread * rng.standard_normal((len(self.estimate), n))
        centre, scale = _of_tasks(self.estimate[:, None], self.information[:, None], log_median, spread)
        return found | {OFFSET: ((log_sigma - centre) / scale).T}


def _values(drawn: Mapping[str, FloatArray], name: str, fixed: PriorValue, n: int) -> FloatArray:
    return drawn[name] if isinstance(fixed, Prior) else np.full(n, float(fixed))


def _of_median(estimate: Any, information: Any, middle: Any, spread: Any) -> tuple[Any, Any]:
    """Return centre and scale of log sigma_mean given the spread."""
    j = information / (1.0 + spread[..., None] ** 2 * information)
    total = 1.0 + j.sum(axis=-1)
    return (middle + (j * estimate).sum(axis=-1)) / total, total**-0.5


def _of_tasks(estimate: Any, information: Any, log_median: Any, spread: Any) -> tuple[Any, Any]:
    """Return centre and scale of log sigma_t given their median and spread."""
    share = 1.0 / (1.0 + spread**2 * information)
    return share * log_median + (1.0 - share) * estimate, spread * share**0.5
