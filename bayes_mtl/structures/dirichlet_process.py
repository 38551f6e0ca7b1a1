"""Tasks in an unknown number of unknown groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Label
from bayes_mtl.errors import SpecError, raise_if_any
from bayes_mtl.structures._options import count_finding
from bayes_mtl.structures.base import Namer, TaskComponents, TaskMixture


@dataclass(frozen=True)
class DirichletProcess(TaskMixture):
    """A mixture of as many groups of tasks as the data need, whose labels are summed out.

    As `Clusters`, with the stick-breaking weights of a Dirichlet process, cut off:

        w_k = v_k prod_{l<k} (1 - v_l),      v_k ~ Beta(1, alpha),      alpha ~ Gamma(2, 2)

    Before any data, T tasks fall into about alpha log(1 + T / alpha) groups.

    Parameters
    ----------
    truncation : int
        Largest number of groups, default 6.

    References
    ----------
    Xue, Liao, Carin & Krishnapuram (2007), JMLR 8; Ishwaran & James (2001), Journal of the American
    Statistical Association 96.
    """

    truncation: int = 6

    def __post_init__(self) -> None:
        raise_if_any(count_finding("DirichletProcess", "truncation", self.truncation, 2), SpecError)

    @property
    def parameters(self) -> tuple[str, ...]:
        """How many groups there tend to be."""
        return ("concentration",)

    def component_names(self, tasks: Sequence[Label]) -> Sequence[Label]:
        """Number the clusters."""
        return range(self.truncation)

    def components(self, tasks: Sequence[Label], n_features: int, name: Namer) -> TaskComponents:
        """Register weights."""
        alpha = pm.Gamma(name("concentration"), 2.0, 2.0)
        broken = pm.Beta(name("cluster_weight_part"), 1.0, alpha, shape=self.truncation - 1)
        kept = pt.log1p(-broken)
        left = pt.concatenate([pt.zeros(1), pt.cumsum(kept)])
        log_weight = pt.concatenate([pt.log(broken), pt.zeros(1)]) + left
        pm.Deterministic(name("cluster_weight"), pt.exp(log_weight), dims=name("cluster"))
        return TaskComponents(log_weight[None, :])
