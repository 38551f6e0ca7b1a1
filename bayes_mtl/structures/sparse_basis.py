"""Tasks that combine a few of several basis tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy.special import softmax

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.structures._horseshoe import draw_horseshoe, horseshoe
from bayes_mtl.structures._new_tasks import draw_from_basis
from bayes_mtl.structures._options import count_finding
from bayes_mtl.structures.base import KnownTasks, Namer, TaskCovariance, TaskLoadings

# How sharp the weights of disjoint groups are: before the data, the largest exceeds 0.9 in 80 % of tasks (two
# groups; three: 70 %). At 10, which is nearer to a label, there are twice the steps per draw, and hardly a
# difference after the data.
_SHARPNESS = 6.0


@dataclass(frozen=True)
class SparseBasis(TaskCovariance):
    """Sparse combinations of basis tasks: groups of tasks that may overlap (GO-MTL), or not.

    As `LowRank`, but most loadings are near zero. With

        Lambda_t = a_t / sqrt(1 + |a_t|^2)        delta_t = 1 / sqrt(1 + |a_t|^2)

    and a scale c_k ~ HalfNormal(1) learned for every basis task, a_tk is a regularised horseshoe around zero
    where groups may overlap; where they may not,

        a_tk = c_k z_tk w_tk,      w_t = softmax(6 g_t),      z_tk, g_tk ~ N(0, 1)

    The weights w_t stand for a label: one of them is nearly one, the others nearly zero, so each task loads
    on one basis task, with any sign and size. Labels themselves cannot be summed out here: the factors are,
    and what is left would be a sum over all divisions of the tasks. Tasks that load on the same basis tasks
    form a group. Sign and order of basis tasks are arbitrary: read Omega, or `basis`.

    Parameters
    ----------
    n_basis : int
        Number of basis tasks, default 3.
    overlap : bool
        Whether a task may load on several basis tasks, default True.

    See Also
    --------
    Clusters : groups whose tasks have the same coefficients but for noise, and not multiples of them.

    References
    ----------
    Kumar & Daume (2012), ICML; Kang, Grauman & Sha (2011), ICML; Piironen & Vehtari (2017), Electronic
    Journal of Statistics 11.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> mtl.SparseBasis(2, overlap=False).to_dict()
    {'name': 'SparseBasis', 'n_basis': 2, 'overlap': False}
    """

    n_basis: int = 3
    overlap: bool = True

    def __post_init__(self) -> None:
        findings = count_finding("SparseBasis", "n_basis", self.n_basis)
        if not isinstance(self.overlap, bool):
            found = f"`overlap` should be True or False, found {self.overlap!r}"
            findings.append(Finding("SparseBasis", found))
        raise_if_any(findings, SpecError)

    @property
    def has_one_mode(self) -> bool:
        """No: order and sign of basis tasks are arbitrary."""
        return False

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register the loadings."""
        pm.modelcontext(None).add_coord(name("factor"), range(self.n_basis))
        shape = (len(tasks), self.n_basis)
        scale = pm.HalfNormal(name("task_loadings_scale"), 1.0, shape=self.n_basis, dims=name("factor"))
        if self.overlap:
            raw = horseshoe(name("task_loadings"), scale, shape)
        else:
            raw = scale * pm.Normal(name("task_loadings_offset"), 0.0, 1.0, shape=shape)
            if self.n_basis > 1:
                raw = raw * self._weights(shape, name)
        unique_sd = 1.0 / pt.sqrt(1.0 + (raw**2).sum(axis=1))
        return TaskLoadings(loadings=raw * unique_sd[:, None], unique_sd=unique_sd)

    def draw_new(self, new: Sequence[Label], known: KnownTasks, rng: np.random.Generator) -> FloatArray:
        """Draw loadings from their law given the scales; the basis is the one of the known tasks."""
        scale = known.read("task_loadings_scale")[:, None, :]
        shape = (known.n_draws, len(new), self.n_basis)
        if self.overlap:
            raw = draw_horseshoe(scale, shape, rng)
        else:
            raw = scale * rng.standard_normal(shape)
            if self.n_basis > 1:
                raw = raw * softmax(_SHARPNESS * rng.standard_normal(shape), axis=-1)
        return draw_from_basis(raw, known, rng)

    def _weights(self, shape: tuple[int, int], name: Namer) -> Tensor:
        """Register the weights that stand for labels: normal coordinates, which NUTS likes, of a simplex."""
        position = pm.Normal(name("task_weights_offset"), 0.0, 1.0, shape=shape)
        return pt.special.softmax(_SHARPNESS * position, axis=1)
