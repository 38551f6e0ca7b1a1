"""A factor model: of tasks that share latent coefficient vectors, or of features that move together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.structures._new_tasks import draw_from_basis
from bayes_mtl.structures.base import FeatureCovariance, KnownTasks, Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class LowRank(TaskCovariance, FeatureCovariance):
    """A factor model with a unit diagonal, Lambda Lambda' + diag(delta^2): of tasks, or of features.

    Unconstrained loadings a_tk = c_k z_tk, with z_tk ~ N(0, 1) and column scales c_k ~ HalfNormal(1)
    that shrink the columns that are not needed, give

        Lambda_t = a_t / sqrt(1 + |a_t|^2)        delta_t = 1 / sqrt(1 + |a_t|^2)

    As a task covariance, that is Omega: tasks combine `rank` latent coefficient vectors. As a feature
    covariance it is the correlation R of the coefficients of one task, with `feature_loadings` and
    a_jk = c_k sinh(2 z_jk) / 2, of which many may be large at once: suited where coefficients move along few
    directions, which `LKJ` takes for unlikely (see there).

    The rotation of the columns is left free: it does not matter for Omega or R, and fixing it makes the
    sampler slow. Read the correlations and the coefficients, not single loadings.

    Parameters
    ----------
    rank : int
        Number of columns, default 2.

    References
    ----------
    Bonilla, Chai & Williams (2007), NIPS; Rai & Daume (2010), AISTATS.
    """

    rank: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise SpecError(Finding("LowRank", f"`rank` should be a positive integer, found {self.rank!r}"))

    @property
    def has_one_mode(self) -> bool:
        """No: loadings may be rotated."""
        return False

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register the loadings of tasks."""
        model, dim = pm.modelcontext(None), name("factor")
        model.add_coord(dim, range(self.rank))
        scale = pm.HalfNormal(name("task_loadings_scale"), 1.0, shape=self.rank, dims=dim)
        return _of_unit_variance(scale * self._offsets(len(tasks), name("task_loadings")))

    def feature_loadings(self, n_features: int, name: Namer) -> TaskLoadings | None:
        """Register the loadings of features; one feature has nothing to correlate with.

        Where coefficients move along one direction, with little of their own (delta -> 0), loadings a are
        large. Linear in z they would need large c, and the posterior would have a wall of width 1 / c between
        z and -z, on which long steps diverge. With sinh(2 z) / 2, log delta is linear in z instead, and
        the prior of a hardly prefers one size of large loadings to another.
        """
        if n_features == 1:
            return None
        model, dim = pm.modelcontext(None), name("feature_factor")
        model.add_coord(dim, range(self.rank))
        scale = pm.HalfNormal(name("feature_loadings_scale"), 1.0, shape=self.rank, dims=dim)
        z = self._offsets(n_features, name("feature_loadings"))
        return _of_unit_variance(scale * pt.sinh(2.0 * z) / 2.0)

    def correlation_cholesky(self, n_features: int, name: Namer) -> Tensor | None:
        """Return None: one feature has the identity, and of more `feature_loadings` says all."""
        return None

    def _offsets(self, n: int, name: str) -> Tensor:
        return pm.Normal(f"{name}_offset", 0.0, 1.0, shape=(n, self.rank))

    def draw_new(self, new: Sequence[Label], known: KnownTasks, rng: np.random.Generator) -> FloatArray:
        """Draw loadings from their law given the column scales; the basis is the one of the known tasks."""
        scale = known.read("task_loadings_scale")[:, None, :]
        raw = scale * rng.standard_normal((known.n_draws, len(new), self.rank))
        return draw_from_basis(raw, known, rng)


def _of_unit_variance(a: Tensor) -> TaskLoadings:
    unique_sd = 1.0 / pt.sqrt(1.0 + (a**2).sum(axis=1))
    return TaskLoadings(loadings=a * unique_sd[:, None], unique_sd=unique_sd)
