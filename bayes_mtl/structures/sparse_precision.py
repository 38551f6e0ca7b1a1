"""Tasks that depend on few others, given all the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Label
from bayes_mtl.errors import SpecError, raise_if_any
from bayes_mtl.structures._horseshoe import horseshoe
from bayes_mtl.structures._options import positive_finding
from bayes_mtl.structures.base import Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class SparsePrecision(TaskCovariance):
    """Sparse conditional dependence: few partial correlations between tasks are far from zero.

    Omega is (C'C)^-1 scaled to a unit diagonal, with C lower triangular, C_tt = 1 and C_ts a regularised
    horseshoe with scale ~ HalfNormal(`scale`): row t says how task t follows from the tasks before it, so the
    prior is not quite the same for another order of tasks. Read the partial correlations
    -P_ts / sqrt(P_tt P_ss), P = Omega^-1: ``task_correlation(idata, kind="partial")``.

    Parameters
    ----------
    scale : float
        Default 0.5. Smaller: sparser.

    References
    ----------
    Zhang & Schneider (2010), NIPS; Li, Craig & Bhadra (2019), Journal of Computational and Graphical
    Statistics 28.
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        raise_if_any(positive_finding("SparsePrecision", "scale", self.scale), SpecError)
        object.__setattr__(self, "scale", float(self.scale))

    @property
    def triangular(self) -> bool:
        """Yes: loadings are the inverse of C, scaled."""
        return True

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register C."""
        n = len(tasks)
        if n == 1:
            return TaskLoadings(loadings=pt.ones((1, 1)))
        scale = pm.HalfNormal(name("task_precision_scale"), self.scale)
        below = horseshoe(name("task_precision"), scale, (n * (n - 1) // 2,))
        C = pt.set_subtensor(pt.eye(n)[np.tril_indices(n, -1)], below)
        inverse = pt.linalg.solve_triangular(C, pt.eye(n), lower=True)
        return TaskLoadings(loadings=inverse / pt.sqrt((inverse**2).sum(axis=1))[:, None])
