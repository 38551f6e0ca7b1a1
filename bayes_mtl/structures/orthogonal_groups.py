"""Groups of tasks that are known to have nothing in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.data.labels import plain_labels
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.kernels import product
from bayes_mtl.structures._options import count_finding
from bayes_mtl.structures.base import Namer, TaskComponents, TaskMixture
from bayes_mtl.structures.known import label_findings

# Keeps covariances positive definite where tasks do not leave their directions.
_LEAST_REST = 1e-3


@dataclass(frozen=True, init=False)
class OrthogonalGroups(TaskMixture):
    """Unrelated auxiliary tasks: what they use, the others do not.

    Tasks of group g vary in a subspace of few directions U_g, and a little in all others:

        beta_t = beta_mean + D (U_g diag(s_g) a_t + w e_t),      a_t ~ N(0, I),      e_t ~ N(0, R)
        s_gk ~ HalfNormal(1),      w ~ Uniform(0, 1)

    with D = diag(feature_sd) and all columns of all U_g orthonormal. Auxiliary tasks with many rows tell
    which directions the principal tasks do not use. If the groups are in fact related, this costs accuracy:
    compare with `LowRank`.

    Parameters
    ----------
    groups : mapping from task to group
        For example ``{"identity 1": "identity", "emotion 1": "emotion"}``. There may be more tasks than the
        data have: `predict` draws new ones from the law of their group.
    rank : int or mapping from group to int
        Number of directions of each group, default 1. All groups together need no more than there are
        features.

    References
    ----------
    Romera-Paredes, Argyriou, Berthouze & Pontil (2012), AISTATS.
    """

    groups: tuple[tuple[Label, Label], ...]
    rank: int | tuple[tuple[Label, int], ...]

    def __init__(self, groups: Any, rank: Any = 1):
        pairs = list(groups.items()) if isinstance(groups, Mapping) else [tuple(p) for p in groups]
        if isinstance(rank, Mapping) or (isinstance(rank, Sequence) and not isinstance(rank, str)):
            rank = tuple(plain_labels(p) for p in (rank.items() if isinstance(rank, Mapping) else rank))
            findings = [f for _, r in rank for f in count_finding("OrthogonalGroups", "rank", r)]
            if missing := {p[1] for p in pairs if len(p) == 2} - {g for g, _ in rank}:
                findings.append(Finding("OrthogonalGroups", f"`rank` should name every group, not {missing}"))
        else:
            findings = count_finding("OrthogonalGroups", "rank", rank)
        if any(len(p) != 2 for p in pairs) or len({g for _, g in pairs}) < 2:
            findings.append(
                Finding(
                    "OrthogonalGroups", f"`groups` should map tasks to two groups at least, found {groups!r}"
                )
            )
        elif len({t for t, _ in pairs}) < len(set(pairs)):
            findings.append(Finding("OrthogonalGroups", "has a task in two groups", "Each task is in one"))
        raise_if_any(findings, SpecError)
        object.__setattr__(self, "groups", tuple(plain_labels(p) for p in dict.fromkeys(pairs)))
        object.__setattr__(self, "rank", rank)

    @property
    def parameters(self) -> tuple[str, ...]:
        """How far each group varies along each of its directions, and how far all do in any other."""
        return ("direction_scale", "direction_rest")

    @property
    def has_centres(self) -> bool:
        """No: groups differ in how their tasks vary."""
        return False

    def findings(self, tasks: Sequence[Label]) -> list[Finding]:
        """Say which tasks are in no group."""
        return label_findings("OrthogonalGroups", tasks, dict(self.groups))

    def membership(self, new: Sequence[Label], known: Sequence[Label]) -> FloatArray:
        """Return the groups of new tasks, which have to be among those of known ones."""
        raise_if_any(self.findings(new), SpecError)
        names, of = list(self.component_names(known)), dict(self.groups)
        if odd := [task for task in new if of[task] not in names]:
            found = f"puts {odd[:5]} into groups of which the fit has no task, so nothing is known of them"
            raise SpecError(Finding("OrthogonalGroups", found, "Fit tasks of these groups"))
        return np.array([[of[task] == name for name in names] for task in new], dtype=float)

    def component_names(self, tasks: Sequence[Label]) -> Sequence[Label]:
        """Return the groups of these tasks."""
        of = dict(self.groups)
        return list(dict.fromkeys(of[t] for t in tasks))

    def components(self, tasks: Sequence[Label], n_features: int, name: Namer) -> TaskComponents:
        """Register directions and their scales."""
        names = list(self.component_names(tasks))
        ranks = [self.rank if isinstance(self.rank, int) else dict(self.rank)[g] for g in names]
        if sum(ranks) > n_features:
            found = f"needs {sum(ranks)} orthogonal directions (groups of rank {ranks})"
            raise SpecError(Finding("OrthogonalGroups", f"{found}, but there are {n_features} features"))
        dim = name("direction")
        pm.modelcontext(None).add_coord(
            dim, [f"{g} {i}" for g, r in zip(names, ranks, strict=True) for i in range(r)]
        )
        U = self.directions(ranks, n_features, name)
        directions = U * pm.HalfNormal(name("direction_scale"), 1.0, shape=sum(ranks), dims=dim)
        rest = _LEAST_REST + (1.0 - _LEAST_REST) * pm.Uniform(name("direction_rest"), 0.0, 1.0)
        first, widest = np.cumsum([0, *ranks]), max(ranks)
        factors = []
        for start, rank in zip(first[:-1], ranks, strict=True):
            padding = pt.zeros((n_features, widest - rank))
            factors.append(pt.concatenate([directions[:, start : start + rank], padding], axis=1))
        log_weight = np.where(self.membership(tasks, tasks) > 0.0, 0.0, -np.inf)
        return TaskComponents(pt.as_tensor_variable(log_weight), pt.stack(factors), rest)

    def directions(self, ranks: Sequence[int], n_features: int, name: Namer) -> Tensor:
        """Register orthonormal directions, (feature, direction)."""
        # The Q of a standard normal matrix is uniform over orthonormal columns.
        shape = (n_features, sum(ranks))
        raw = pm.Normal(name("direction_offset"), 0.0, 1.0, shape=shape, initval=np.eye(*shape))
        return pt.linalg.solve_triangular(pt.linalg.cholesky(product(raw.T, raw)), raw.T, lower=True).T
