"""Groups of tasks that are known to have nothing in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Label
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.kernels import product
from bayes_mtl.structures._options import count_finding
from bayes_mtl.structures.base import Namer, TaskComponents, TaskMixture
from bayes_mtl.structures.known import label_findings, plain_labels


@dataclass(frozen=True, init=False)
class OrthogonalGroups(TaskMixture):
    """Unrelated auxiliary tasks: what they use, the others do not.

    Tasks of group g vary in a subspace of few directions U_g, and a little in all others:

        beta_t = beta_mean + D (U_g diag(s_g) a_t + e_t),      a_t ~ N(0, I),      e_t ~ N(0, R)

    with D = diag(feature_sd) and all columns of all U_g orthonormal. Auxiliary tasks with many rows tell
    which directions the principal tasks do not use. If the groups are in fact related, this costs accuracy:
    compare with `LowRank`.

    Parameters
    ----------
    groups : mapping from task to group
        For example ``{"identity 1": "identity", "emotion 1": "emotion"}``. There may be more tasks than the
        data have.
    rank : int
        Number of directions of each group, default 1. All groups together need no more than there are
        features.

    References
    ----------
    Romera-Paredes, Argyriou, Berthouze & Pontil (2012), AISTATS.
    """

    groups: tuple[tuple[Label, Label], ...]
    rank: int

    def __init__(self, groups: Any, rank: int = 1):
        pairs = list(groups.items()) if isinstance(groups, Mapping) else [tuple(p) for p in groups]
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
        """How far each group varies along its directions, relative to all others."""
        return ("direction_scale",)

    @property
    def has_centres(self) -> bool:
        """No: groups differ in how their tasks vary."""
        return False

    def findings(self, tasks: Sequence[Label]) -> list[Finding]:
        """Say which tasks are in no group."""
        return label_findings("OrthogonalGroups", tasks, dict(self.groups))

    def component_names(self, tasks: Sequence[Label]) -> Sequence[Label]:
        """Return the groups of these tasks."""
        of = dict(self.groups)
        return list(dict.fromkeys(of[t] for t in tasks))

    def components(self, tasks: Sequence[Label], n_features: int, name: Namer) -> TaskComponents:
        """Register directions and their scales."""
        names, of = list(self.component_names(tasks)), dict(self.groups)
        size = len(names) * self.rank
        if size > n_features:
            found = f"needs {size} orthogonal directions ({len(names)} groups of rank {self.rank})"
            raise SpecError(Finding("OrthogonalGroups", f"{found}, but there are {n_features} features"))
        # The Q of a standard normal matrix is uniform over orthonormal columns.
        pm.modelcontext(None).add_coord(name("direction"), range(self.rank))
        shape = (n_features, size)
        raw = pm.Normal(name("direction_offset"), 0.0, 1.0, shape=shape, initval=np.eye(*shape))
        U = pt.linalg.solve_triangular(pt.linalg.cholesky(product(raw.T, raw)), raw.T, lower=True).T
        scale = pm.HalfNormal(
            name("direction_scale"),
            3.0,
            shape=(len(names), self.rank),
            dims=(name("cluster"), name("direction")),
        )
        factors = [U[:, g * self.rank : (g + 1) * self.rank] * scale[g] for g in range(len(names))]
        member = np.array([[of[t] == g for g in names] for t in tasks])
        log_weight = np.where(member, 0.0, -np.inf)
        return TaskComponents(pt.as_tensor_variable(log_weight), pt.stack(factors))
