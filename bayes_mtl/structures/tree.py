"""Tasks in groups within groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.data.labels import plain_label, plain_labels
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.structures._new_tasks import draw_related
from bayes_mtl.structures.base import KnownTasks, Namer, TaskCovariance, TaskLoadings
from bayes_mtl.structures.known import label_findings, values_of_tasks

OWN = "own"


@dataclass(frozen=True, init=False)
class Tree(TaskCovariance):
    """Nested groups: pupils in classes in schools. Tasks are alike as far as they share groups.

    The deviation of a task is a sum over the groups it is in, and a part of its own:

        beta_t = mean + sum_{g above t} sqrt(w_level(g)) f_g + sqrt(own_t) e_t,      f_g, e_t ~ N(0, Sigma)

    The shares w of the levels and of what is a task's own are learned, Dirichlet(1, ..., 1). Two tasks
    correlate by the sum of the shares of the groups that they share. In a tree with branches of unequal
    length, the levels that a task does not have are its own.

    Parameters
    ----------
    parents : mapping or sequence of (child, parent)
        The group of every task, and the group of every group; groups at the top have none. Tasks are the
        leaves; there may be more of them than the data have.
    levels : sequence of str, optional
        Names of the levels of groups, the outermost first. Default: ``"level 1"``, ``"level 2"``, ...
    columns : sequence of str, optional
        Set by `from_table`: columns in which `predict` finds the groups of new tasks.

    Raises
    ------
    SpecError
        If there is a cycle, or a child with two parents.

    See Also
    --------
    Tree.from_table : from columns of a table.

    References
    ----------
    Daume (2009), UAI; Gelman & Hill (2007).

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> tree = mtl.Tree({"a": "north", "b": "north", "c": "south"}, levels=["region"])
    >>> tree.levels
    ('region',)
    """

    parents: tuple[tuple[Label, Label], ...]
    levels: tuple[str, ...]
    columns: tuple[str, ...] | None

    def __init__(
        self, parents: Any, levels: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ):
        pairs = list(parents.items()) if isinstance(parents, Mapping) else [tuple(p) for p in parents]
        findings = []
        if not pairs or any(len(p) != 2 for p in pairs):
            raise SpecError(Finding("Tree", "`parents` should map tasks and groups to their group"))
        pairs = [plain_labels(p) for p in pairs]
        if odd := [p for _, p in pairs if p is None or p != p]:
            hint = "Leave groups at the top out: they have none"
            raise SpecError(Finding("Tree", f"has a missing parent ({odd[0]})", hint))
        if odd := [v for p in pairs for v in p if not isinstance(v, str | int | float)]:
            found = f"should name tasks and groups by text or numbers, found {odd[0]!r}"
            raise SpecError(Finding("Tree", found))
        above: dict[Label, Label] = {child: parent for child, parent in pairs}  # noqa: C416
        if len(above) < len(set(pairs)):
            twice = [c for c, _ in pairs if len({p for k, p in pairs if k == c}) > 1]
            raise SpecError(
                Finding("Tree", f"has more than one parent for {twice[0]!r}", "Nested groups have one")
            )
        if circle := [c for c in above if len(_path(c, above)) > len(above)]:
            raise SpecError(Finding("Tree", f"has a cycle through {circle[0]!r}"))
        depth = max(len(_path(c, above)) for c in above)
        names = tuple(levels) if levels is not None else tuple(f"level {i + 1}" for i in range(depth))
        if len(names) != depth:
            findings.append(
                Finding("Tree", f"has {depth} levels of groups, found {len(names)} names in `levels`")
            )
        if OWN in names or len(set(names)) < len(names):
            findings.append(
                Finding("Tree", f"`levels` should differ, and none be {OWN!r}, found {list(names)}")
            )
        raise_if_any(findings, SpecError)
        object.__setattr__(self, "parents", tuple(dict.fromkeys(pairs)))
        object.__setattr__(self, "levels", names)
        object.__setattr__(self, "columns", None if columns is None else tuple(columns))

    @classmethod
    def from_table(cls, table: Any, *, task: str, levels: Sequence[str]) -> Self:
        """Read the groups from a table.

        Parameters
        ----------
        table : data frame
        task : str
            Column of tasks.
        levels : sequence of str
            Columns of groups, the outermost first. A label is taken within its outer groups: class 1 of
            school 1 is not class 1 of school 2.

        Raises
        ------
        SpecError
            If a task is in two groups of one level.
        """
        parents: dict[Label, Label] = {}
        for label, groups in values_of_tasks("Tree", "levels", table, task, levels, "group").items():
            parents.update(_chain(label, levels, groups))
        return cls(parents, levels=levels, columns=levels)

    def knows(self, task: Label) -> bool:
        """Whether it is a leaf."""
        return task in dict(self.parents) and task not in {p for _, p in self.parents}

    def draw_new(self, new: Sequence[Label], known: KnownTasks, rng: np.random.Generator) -> FloatArray:
        """Draw tasks that are leaves from their law given the known ones; others are independent."""
        return draw_related(self, new, known, rng)

    @property
    def task_columns(self) -> tuple[str, ...] | None:
        """`columns`."""
        return self.columns

    def with_tasks(self, places: Mapping[Label, Sequence[Any]]) -> Tree:
        """Return this tree with more leaves."""
        if self.columns is None:
            return self
        parents = dict(self.parents)
        for label, groups in places.items():
            parents.update(_chain(label, self.columns, groups))
        return Tree(parents, levels=self.levels, columns=self.columns)

    @property
    def parameters(self) -> tuple[str, ...]:
        """How much of the variance is between the groups of each level."""
        return ("level_share",)

    def findings(self, tasks: Sequence[Label]) -> list[Finding]:
        """Say which tasks have no group."""
        groups = {p for _, p in self.parents}
        found = label_findings("Tree", tasks, [c for c, _ in self.parents])
        if inner := [t for t in tasks if t in groups]:
            found.append(
                Finding("Tree", f"has the tasks {inner[:5]} as groups of others", "Tasks are leaves")
            )
        return found

    def incidence(self, tasks: Sequence[Label]) -> tuple[list[Label], FloatArray]:
        """Return the groups above these tasks, and which task is in which (task, group, level)."""
        above = dict(self.parents)
        paths = [_path(task, above)[::-1] for task in tasks]  # outermost first
        groups = list(dict.fromkeys(g for path in paths for g in path))
        out = np.zeros((len(tasks), len(groups), len(self.levels)))
        for t, path in enumerate(paths):
            for level, group in enumerate(path):
                out[t, groups.index(group), level] = 1.0
        return groups, out

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register the shares of the levels."""
        groups, incidence = self.incidence(tasks)
        dim = name("level")
        model = pm.modelcontext(None)
        model.add_coord(dim, [*self.levels, OWN])
        model.add_coord(name("factor"), groups)
        share = pm.Dirichlet(name("level_share"), np.ones(len(self.levels) + 1), dims=dim)
        by_group = (incidence.max(axis=0) * share[:-1]).sum(axis=1)
        own = share[-1] + ((1.0 - incidence.sum(axis=1)) * share[:-1]).sum(axis=1)
        return TaskLoadings(loadings=incidence.sum(axis=2) * pt.sqrt(by_group), unique_sd=pt.sqrt(own))


def _chain(task: Label, levels: Sequence[str], groups: Sequence[Any]) -> list[tuple[Label, Label]]:
    """Return who is in which group, from a task up; a group is named within its outer groups."""
    names = [f"{c}={plain_label(g)}" for c, g in zip(levels, groups, strict=True)]
    path = ["/".join(names[: i + 1]) for i in range(len(names))]
    return list(pairwise([task, *reversed(path)]))


def _path(node: Label, above: Mapping[Label, Label]) -> list[Label]:
    """Return the groups above a node, the nearest first; longer than `above` if there is a cycle."""
    path: list[Label] = []
    while node in above and len(path) <= len(above):
        node = above[node]
        path.append(node)
    return path
