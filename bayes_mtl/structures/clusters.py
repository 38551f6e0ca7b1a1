"""Tasks in a known number of unknown groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Label
from bayes_mtl.errors import SpecError, raise_if_any
from bayes_mtl.structures._options import count_finding, positive_finding
from bayes_mtl.structures.base import Namer, TaskComponents, TaskMixture


@dataclass(frozen=True)
class Clusters(TaskMixture):
    """A mixture of `n` groups of tasks, whose labels are summed out.

        z_t ~ Categorical(w),      beta_t ~ N(m_{z_t}, Sigma),      m_k ~ N(beta_mean, diag(cluster_sd)^2)

    Sigma is how far tasks lie from the centre of their cluster; where it is small, tasks of a cluster share
    their coefficients. Labels of clusters are arbitrary: read which tasks are together (`clusters`).

    Parameters
    ----------
    n : int
        Number of clusters at most, default 3; some may stay empty.
    concentration : float
        w ~ Dirichlet(concentration, ..., concentration), default 1.
    rank : int
        Number of directions in which tasks of a cluster vary together (a mixture of factor analysers):
        Sigma becomes D (R + F_k F_k') D, with columns of F_k that shrink where they are not needed. Default
        0.

    References
    ----------
    Bakker & Heskes (2003), JMLR 4; Passos, Rai, Wainer & Daume (2012), ICML.
    """

    n: int = 3
    concentration: float = 1.0
    rank: int = 0

    def __post_init__(self) -> None:
        findings = count_finding("Clusters", "n", self.n, 2)
        findings += positive_finding("Clusters", "concentration", self.concentration)
        findings += count_finding("Clusters", "rank", self.rank, 0)
        raise_if_any(findings, SpecError)
        object.__setattr__(self, "concentration", float(self.concentration))

    @property
    def parameters(self) -> tuple[str, ...]:
        """None: labels are arbitrary."""
        return ()

    @property
    def knows_new_tasks(self) -> bool:
        """Not with directions, which are not reported since their rotation is arbitrary."""
        return not self.rank

    def component_names(self, tasks: Sequence[Label]) -> Sequence[Label]:
        """Number the clusters."""
        return range(self.n)

    def components(self, tasks: Sequence[Label], n_features: int, name: Namer) -> TaskComponents:
        """Register weights, and directions."""
        weight = pm.Dirichlet(
            name("cluster_weight"), np.full(self.n, self.concentration), dims=name("cluster")
        )
        factors = None
        if self.rank:
            scale = pm.HalfNormal(name("cluster_factor_scale_part"), 1.0, shape=(self.n, 1, self.rank))
            factors = pm.Normal(
                name("cluster_factor_offset"), 0.0, 1.0, shape=(self.n, n_features, self.rank)
            )
            factors = scale * factors
        return TaskComponents(pt.log(weight)[None, :], factors)
