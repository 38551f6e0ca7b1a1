"""What a family is: a likelihood of the outcome given the linear predictor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bayes_mtl._typing import FloatArray, Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.description import Described
from bayes_mtl.errors import Finding, SpecError


@dataclass(frozen=True)
class OutcomeScale:
    """Where and how wide the linear predictor is: the units of the default priors.

    Attributes
    ----------
    location : float
        Of the intercept, where all features are at their averages.
    scale : float
        How far outcomes spread around the levels that intercepts take up: the unit of slopes.
    between : float
        How far the levels of tasks spread.
    by_grouping : tuple of float
        How far the levels of each grouping spread.
    noise : float
        Size of the noise of a row of weight 1, at most; 1 where there is none to learn.
    """

    location: float
    scale: float
    between: float = 0.0
    by_grouping: tuple[float, ...] = ()
    noise: float = 1.0


def linear_predictor(beta: Tensor, X: Tensor, data: TaskData) -> Tensor:
    """Return eta_i = x_i . beta_t[i] + offset_i as a plain graph."""
    return (X * beta[data.task_index]).sum(axis=-1) + data.offset


def briefly(values: FloatArray) -> FloatArray:
    """Return one value where all are the same: a kernel then need not read one per row."""
    return values[:1] if len(values) and (values == values[0]).all() else values


def check_switch(family: Family, option: str) -> None:
    """Say so if an option that is on or off is neither."""
    value = getattr(family, option)
    if not isinstance(value, bool):
        found = f"`{option}` should be True or False, found {value!r}"
        raise SpecError(Finding(type(family).__name__, found))


class Family(Described, ABC):
    """A likelihood with its link; stateless.

    Arrays in the NumPy methods have one entry per row (broadcast over draws in front).
    """

    gaussian_coefficients: ClassVar[bool] = False
    """Whether coefficients with a Gaussian prior can be integrated out exactly."""

    has_noise: ClassVar[bool] = False
    """Whether there is a noise scale `sigma`."""

    latent_sd: ClassVar[float] = 1.0
    """What takes the place of the noise scale, where there is none, in priors that are relative to it."""

    @abstractmethod
    def outcome_scale(self, data: TaskData, *, own_levels: bool = True) -> OutcomeScale:
        """Return the units of the default priors.

        Parameters
        ----------
        data : TaskData
        own_levels : bool
            Whether tasks have levels of their own, or one for all.
        """

    def row_weights(self, data: TaskData) -> FloatArray:
        """Return how much each row counts where features are measured."""
        return data.weights

    @abstractmethod
    def findings(self, data: TaskData) -> list[Finding]:
        """Return what makes the outcome unfit for this family."""

    @abstractmethod
    def observe(self, beta: Tensor, sigma: Tensor | None, data: TaskData, *, by_row: bool = False) -> Tensor:
        """Register the observed variable ``y`` with dims ``("row",)``.

        Parameters
        ----------
        beta : (n_tasks, n_columns)
            Coefficients of `data.all_columns`, the shared ones repeated for every task.
        sigma : (1,), (n_tasks,) or None
            Noise scale.
        data : TaskData
        by_row : bool
            Whether the log density has an entry per row, as a plain graph; else it may be one fused sum.
        """

    def observe_components(
        self, log_weight: Tensor, beta: Tensor, sigma: Tensor | None, data: TaskData
    ) -> Tensor:
        """Register the observed variable ``y`` of tasks whose component is summed out.

        Parameters
        ----------
        log_weight : (n_tasks, n_components)
            Added to the log-likelihood of each task under each component.
        beta : (n_components, n_tasks, n_columns)
            Coefficients under each component.
        sigma, data
            As in `observe`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mixtures of tasks yet")

    def information(self, data: TaskData, eta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return minus the second and the first derivative of each row's log-likelihood by eta.

        Needed where coefficients cannot be integrated out, for the pilot fit that whitens them.
        """
        raise NotImplementedError

    def copies(self, weights: FloatArray) -> FloatArray:
        """Return how many equal rows each row stands for: one, where weights are precisions."""
        return np.ones_like(weights)

    @abstractmethod
    def mean(self, eta: FloatArray) -> FloatArray:
        """Return the expected outcome."""

    @abstractmethod
    def log_likelihood(
        self, y: FloatArray, eta: FloatArray, sigma: FloatArray, weights: FloatArray
    ) -> FloatArray:
        """Return the log density of each row; `sigma` is the sd before weights."""

    @abstractmethod
    def residuals(self, y: FloatArray, eta: FloatArray, sigma: FloatArray) -> FloatArray:
        """Return outcomes minus their means, in standard deviations; `sigma` is the sd of the row."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, eta: FloatArray, sigma: FloatArray) -> FloatArray:
        """Draw outcomes."""
