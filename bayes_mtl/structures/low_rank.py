"""Tasks that share a few latent coefficient vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.structures._new_tasks import draw_from_basis
from bayes_mtl.structures.base import KnownTasks, Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class LowRank(TaskCovariance):
    """A factor model of tasks: Omega = Lambda Lambda' + diag(delta^2) with a unit diagonal.

    Unconstrained loadings a_tk = c_k z_tk, with z_tk ~ N(0, 1) and column scales c_k ~ HalfNormal(1)
    that shrink the columns that are not needed, give

        Lambda_t = a_t / sqrt(1 + |a_t|^2)        delta_t = 1 / sqrt(1 + |a_t|^2)

    The rotation of the columns is left free: it does not matter for Omega, and fixing it makes the
    sampler slow. Read Omega and the coefficients, not single loadings.

    Parameters
    ----------
    rank : int
        Number of latent coefficient vectors, default 2.

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
        """Register the loadings."""
        pm.modelcontext(None).add_coord(name("factor"), range(self.rank))
        scale = pm.HalfNormal(name("task_loadings_scale"), 1.0, shape=self.rank, dims=name("factor"))
        raw = scale * pm.Normal(name("task_loadings_offset"), 0.0, 1.0, shape=(len(tasks), self.rank))
        unique_sd = 1.0 / pt.sqrt(1.0 + (raw**2).sum(axis=1))
        return TaskLoadings(loadings=raw * unique_sd[:, None], unique_sd=unique_sd)

    def draw_new(self, new: Sequence[Label], known: KnownTasks, rng: np.random.Generator) -> FloatArray:
        """Draw loadings from their law given the column scales; the basis is the one of the known tasks."""
        scale = known.read("task_loadings_scale")[:, None, :]
        raw = scale * rng.standard_normal((known.n_draws, len(new), self.rank))
        return draw_from_basis(raw, known, rng)
