"""What a structure is: loadings of tasks on latent coefficient vectors, and what is left to each task.

beta_t = mean_t + sum_k Lambda_tk f_k + e_t,    f_k ~ N(0, Sigma),   e_t ~ N(0, delta_t^2 Sigma)
=>  Cov(vec B) = Omega (x) Sigma,               Omega = Lambda Lambda' + diag(delta^2)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from bayes_mtl._typing import Tensor
from bayes_mtl.description import Described

Namer = Callable[[str], str]  # from the name in the notation ("task_corr") to the name in the model


@dataclass(frozen=True)
class TaskLoadings:
    """The tensors of a task structure. None means that the part is not there (zero).

    Attributes
    ----------
    loadings : (n_tasks, n_factors) or None
        Lambda.
    unique_sd : (n_tasks,) or None
        delta.
    """

    loadings: Tensor | None = None
    unique_sd: Tensor | None = None


class TaskCovariance(Described, ABC):
    """How the coefficient vectors of tasks co-vary: Omega, a correlation matrix of tasks."""

    relates_tasks: ClassVar[bool] = True
    """Whether Omega has entries off the diagonal to be learned."""

    triangular: ClassVar[bool] = False
    """Whether loadings are square and lower triangular, without unique parts: factor t is task t's own."""

    @abstractmethod
    def task_loadings(self, n_tasks: int, name: Namer) -> TaskLoadings:
        """Register this structure's variables in the current model and return its tensors."""


class FeatureCovariance(Described, ABC):
    """How the coefficients of one task co-vary: the correlation in Sigma = diag(sd) R diag(sd)."""

    @abstractmethod
    def correlation_cholesky(self, n_features: int, name: Namer) -> Tensor | None:
        """Register variables in the current model; return the Cholesky factor of R (None: identity)."""
