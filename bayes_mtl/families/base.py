"""What a family is: a likelihood of the outcome given the linear predictor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bayes_mtl._typing import FloatArray, Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.description import Described
from bayes_mtl.errors import Finding

Dispersion = Mapping[str, Tensor]


@dataclass(frozen=True)
class OutcomeScale:
    """Where and how wide the linear predictor is: the unit of the default priors."""

    location: float
    scale: float


class Family(Described, ABC):
    """A likelihood with its link; stateless.

    Arrays in the NumPy methods have one entry per row (broadcast over draws in front); `dispersion`
    holds the family's own parameters, already picked per row.
    """

    gaussian_coefficients: ClassVar[bool] = False
    """Whether coefficients with a Gaussian prior can be integrated out exactly."""

    @abstractmethod
    def outcome_scale(self, data: TaskData) -> OutcomeScale:
        """Return the unit of the default priors."""

    @abstractmethod
    def findings(self, data: TaskData) -> list[Finding]:
        """Return what makes the outcome unfit for this family."""

    @abstractmethod
    def observe(self, eta: Tensor, sigma: Tensor | None, data: TaskData) -> Tensor:
        """Register the observed variable ``y`` with dims ``("row",)``; `sigma` is per row."""

    @abstractmethod
    def mean(self, eta: FloatArray) -> FloatArray:
        """Return the expected outcome."""

    @abstractmethod
    def log_likelihood(
        self, y: FloatArray, eta: FloatArray, sigma: FloatArray, weights: FloatArray
    ) -> FloatArray:
        """Return the log density of each row; `sigma` is the sd before weights."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, eta: FloatArray, sigma: FloatArray) -> FloatArray:
        """Draw outcomes."""
