"""Tasks that are neighbours in a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.kernels import product
from bayes_mtl.structures.base import Namer
from bayes_mtl.structures.known import (
    KnownRelatedness,
    labelled_matrix,
    plain_matrix,
    positions_of,
)


@dataclass(frozen=True, init=False)
class Graph(KnownRelatedness):
    """Neighbours are alike: tasks given all others look like the mean of their neighbours.

    Omega is (rho (D - W) + (1 - rho) I)^-1, scaled to a unit diagonal, for weights W with row sums D, and
    rho ~ Uniform(0, 1) is learned. rho = 0: exchangeable tasks; rho = 1: tasks in one connected component are
    the same. A task without neighbours is independent of the others.

    Parameters
    ----------
    adjacency : data frame, (n, n) array, or mapping from task to its neighbours
        Symmetric weights, zero where tasks are not neighbours; the diagonal is not read. In a mapping, being
        named once makes two tasks neighbours.
    tasks : sequence of labels, optional
        Labels of the rows of an array. There may be more of them than the data have tasks.

    Raises
    ------
    SpecError
        If weights are negative or not symmetric, or labels are missing.

    References
    ----------
    Leroux, Lei & Breslow (2000), in Statistical Models in Epidemiology; Evgeniou, Micchelli & Pontil (2005),
    JMLR 6.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> mtl.Graph({"a": ["b"], "b": ["c"]}).tasks
    ('a', 'b', 'c')
    """

    adjacency: tuple[tuple[float, ...], ...]
    tasks: tuple[Label, ...]

    def __init__(self, adjacency: Any, tasks: Sequence[Label] | None = None):
        if isinstance(adjacency, Mapping):
            adjacency, tasks = _from_neighbours(adjacency)
        labels, weights = labelled_matrix("Graph", "adjacency", adjacency, tasks)
        weights = weights - np.diag(np.diag(weights))
        findings = []
        if (weights < 0).any():
            i, j = np.argwhere(weights < 0)[0]
            found = f"found {weights[i, j]:g} for {labels[i]!r}, {labels[j]!r}"
            findings.append(Finding("Graph", f"weights should not be negative, {found}"))
        if not weights.any() and len(labels) > 1:
            findings.append(Finding("Graph", "has no neighbours at all", "Use Exchangeable()"))
        raise_if_any(findings, SpecError)
        object.__setattr__(self, "adjacency", plain_matrix(weights))
        object.__setattr__(self, "tasks", labels)

    def correlation(self, rho: Tensor, tasks: Sequence[Label], name: Namer) -> Tensor:
        """Return the inverse of the precision, scaled; tasks that are not in the data are summed out."""
        weights = np.array(self.adjacency)
        values, vectors = np.linalg.eigh(np.diag(weights.sum(axis=1)) - weights)
        here = vectors[positions_of(tasks, self.tasks)]
        covariance = product(here / (rho * np.maximum(values, 0.0) + (1.0 - rho)), here.T)
        sd = pt.sqrt(pt.diagonal(covariance))
        return covariance / (sd[:, None] * sd)


def _from_neighbours(neighbours: Mapping[Any, Any]) -> tuple[FloatArray, list[Any]]:
    for task, others in neighbours.items():
        if isinstance(others, str) or not hasattr(others, "__iter__"):
            found = f"should map each task to a list of its neighbours, found {others!r} for {task!r}"
            raise SpecError(Finding("Graph", found))
    labels = list(dict.fromkeys([*neighbours, *(n for others in neighbours.values() for n in others)]))
    at = {label: i for i, label in enumerate(labels)}
    weights = np.zeros((len(labels), len(labels)))
    for task, others in neighbours.items():
        for other in others:
            weights[at[task], at[other]] = weights[at[other], at[task]] = 1.0
    return weights, labels
