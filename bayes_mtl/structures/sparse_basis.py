"""Tasks that combine a few of several basis tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Label
from bayes_mtl.errors import SpecError, raise_if_any
from bayes_mtl.structures._horseshoe import horseshoe
from bayes_mtl.structures._options import count_finding
from bayes_mtl.structures.base import Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class SparseBasis(TaskCovariance):
    """Sparse combinations of basis tasks: groups of tasks that may overlap (GO-MTL).

    As `LowRank`, but most loadings are near zero: a_tk is a regularised horseshoe whose scale c_k ~
    HalfNormal(1) is learned for every basis task, and

        Lambda_t = a_t / sqrt(1 + |a_t|^2)        delta_t = 1 / sqrt(1 + |a_t|^2)

    Tasks that load on the same basis tasks form a group; a task that loads on several belongs to several.
    Sign and order of basis tasks are arbitrary: read Omega, and the overlap of groups.

    Parameters
    ----------
    n_basis : int
        Number of basis tasks, default 3.

    References
    ----------
    Kumar & Daume (2012), ICML; Piironen & Vehtari (2017), Electronic Journal of Statistics 11.
    """

    n_basis: int = 3

    def __post_init__(self) -> None:
        raise_if_any(count_finding("SparseBasis", "n_basis", self.n_basis), SpecError)

    @property
    def has_one_mode(self) -> bool:
        """No: order and sign of basis tasks are arbitrary."""
        return False

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register the loadings."""
        pm.modelcontext(None).add_coord(name("factor"), range(self.n_basis))
        scale = pm.HalfNormal(name("task_loadings_scale"), 1.0, shape=self.n_basis, dims=name("factor"))
        raw = horseshoe(name("task_loadings"), scale, (len(tasks), self.n_basis))
        unique_sd = 1.0 / pt.sqrt(1.0 + (raw**2).sum(axis=1))
        return TaskLoadings(loadings=raw * unique_sd[:, None], unique_sd=unique_sd)
