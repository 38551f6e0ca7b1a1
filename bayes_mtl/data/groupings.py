"""Grouping factors beside the task: every level has effects of its own, which all tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.data.schema import INTERCEPT, Design
from bayes_mtl.errors import Finding

# Effects of levels are related to each other through every task, so that C of them cost C^3 in every step.
MAX_EFFECTS = 300
# Names that a fit has anyway.
_TAKEN = {
    "chain", "draw", "row", "task", "task_bis", "feature", "feature_bis", "shared_feature",
    "task_feature", "candidate_feature", "factor", "level", "cluster", "direction", "term", "beta",
    "beta_mean", "beta_mean_sd", "beta_shared", "beta_specific", "beta_specific_scale", "feature_relevance",
    "feature_relevance_scale", "feature_share", "feature_shrinkage", "r2", "variance_share",
    "task_feature_effects", "feature_sd", "feature_sd_scale", "feature_corr", "feature_loadings",
    "feature_loadings_scale", "feature_factor", "task_corr", "task_sd",
    "task_reliability",
    "task_loadings", "task_unique_sd", "task_precision", "cluster_mean", "cluster_sd", "cluster_weight",
    "cluster_probability", "cluster_gating", "gating_sd", "gate",
    "sigma", "sigma_mean", "sigma_spread", "rho", "nu", "lengthscale",
    "level_share", "concentration", "X", "X_shared", "y", "task_index", "task_features", "weights",
    "offset", "noise", "row_task", "row_position", "outcome",
}  # fmt: skip


@dataclass(frozen=True)
class Grouping:
    """A grouping factor: which level each row belongs to, and the features whose effects vary by level.

    Attributes
    ----------
    name : str
        Column of the table.
    features : tuple of str
    levels : tuple
        Labels, as in the table.
    index : ndarray of int, shape (n_rows,)
        Position of each row's level in `levels`.
    X : ndarray, shape (n_rows, n_features)
    """

    name: str
    features: tuple[str, ...]
    levels: tuple[Label, ...]
    index: IntArray
    X: FloatArray

    @property
    def n_effects(self) -> int:
        """Number of levels times features."""
        return len(self.levels) * len(self.features)

    def subset(self, rows: IntArray) -> Grouping:
        """Keep some rows, and the levels that still have any."""
        present, index = np.unique(self.index[rows], return_inverse=True)
        levels = tuple(self.levels[i] for i in present)
        return replace(self, levels=levels, index=index.astype(np.int64), X=self.X[rows])


def named(grouping: str, key: str) -> str:
    """Return what a part of the notation is called for a grouping: "task_corr" becomes "item_corr"."""
    if key.startswith("beta"):
        return f"{grouping}_effects{key.removeprefix('beta')}"
    return f"{grouping}_{key.replace('feature_sd', 'sd').removeprefix('task_')}"


@dataclass(frozen=True)
class LevelColumns:
    """The design of all effects: a column for each level and feature, groupings one after the other.

    A row has few entries that are not zero: one for each feature of each grouping.

    Attributes
    ----------
    column : (E, n_rows)
        Entry e of row i stands in column[e, i].
    value : (E, n_rows)
    size : int
        Number of columns.
    """

    column: IntArray
    value: FloatArray
    size: int

    @classmethod
    def of(cls, groupings: Sequence[Grouping], n_rows: int) -> LevelColumns:
        """Number the columns: levels one after the other, the features of each side by side."""
        columns, values, size = [np.zeros((0, n_rows), dtype=np.int64)], [np.zeros((0, n_rows))], 0
        for grouping in groupings:
            within = np.arange(len(grouping.features))[:, None]
            columns.append(size + len(grouping.features) * grouping.index + within)
            values.append(grouping.X.T)
            size += grouping.n_effects
        return cls(np.concatenate(columns), np.concatenate(values), size)

    def times(self, effects: FloatArray) -> FloatArray:
        """Return what effects (..., size) add to the linear predictor of each row (..., n_rows)."""
        found: FloatArray = (effects[..., self.column] * self.value).sum(axis=-2)
        return found

    def dense(self) -> FloatArray:
        """Return the columns (n_rows, size)."""
        out = np.zeros((self.column.shape[1], self.size))
        for column, value in zip(self.column, self.value, strict=True):
            out[np.arange(len(out)), column] = value
        return out

    def sums(self, rows: FloatArray, group: IntArray, n_groups: int) -> FloatArray:
        """Return Z'v of every group of rows, shape (n_groups, size)."""
        out = np.zeros(n_groups * self.size)
        for column, value in zip(self.column, self.value, strict=True):
            out += np.bincount(group * self.size + column, weights=rows * value, minlength=len(out))
        return out.reshape(n_groups, self.size)

    def gram(self, weights: FloatArray, group: IntArray, n_groups: int) -> FloatArray:
        """Return Z'WZ of every group of rows, shape (n_groups, size, size)."""
        cell = [
            self.sums(weights * value, group * self.size + column, n_groups * self.size)
            for column, value in zip(self.column, self.value, strict=True)
        ]
        total = np.sum(cell, axis=0) if cell else np.zeros(0)
        return np.reshape(total, (n_groups, self.size, self.size))


def asked_features(groupings: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the features of each grouping; where only columns are named, the intercept."""
    if isinstance(groupings, Mapping):
        return {name: tuple(features) for name, features in groupings.items()}
    return dict.fromkeys(groupings, (INTERCEPT,))


def grouping_findings(groupings: Any, task: str | None, others: Mapping[str, str | None]) -> list[Finding]:
    """Say what is wrong with the argument `groupings`, whatever the table."""
    if isinstance(groupings, str):
        hint = f"Pass [{groupings!r}], or {{{groupings!r}: ['Intercept', ...]}}"
        return [Finding("groupings", f"should be a list of columns, found the text {groupings!r}", hint)]
    if not isinstance(groupings, Mapping | Sequence):
        return [Finding("groupings", f"should be a list of columns, found {groupings!r}")]
    if odd := [name for name in groupings if not isinstance(name, str)]:
        return [Finding("groupings", f"should be names of columns, found {odd}")]
    found = []
    if isinstance(groupings, Mapping):
        for name, features in groupings.items():
            if not isinstance(features, list | tuple) or not all(isinstance(f, str) for f in features):
                problem = f"should be a list of features, found {features!r}"
                found.append(Finding(f"groupings {name!r}", problem, "For example ['Intercept', 'x']"))
            elif not len(features):
                found.append(Finding(f"groupings {name!r}", "has no feature", "Name 'Intercept' at least"))
    elif repeated := sorted({g for g in groupings if list(groupings).count(g) > 1}):
        found.append(Finding("groupings", f"repeats {repeated}"))
    for name in groupings:
        where = f"grouping {name!r}"
        if name == task:
            found.append(Finding(where, "is also the task column", "Name a second grouping factor"))
        for role, column in others.items():
            if name == column:
                found.append(Finding(where, f"is also the {role} column", "Name a column of labels"))
        if "/" in name:
            hint = "Rename the column: variables of the fit are named after it"
            found.append(Finding(where, "has '/' in its name, which files cannot hold", hint))
    told = {finding.where for finding in found}
    return found + _clashes([name for name in groupings if f"grouping {name!r}" not in told])


def _clashes(names: Sequence[str]) -> list[Finding]:
    """Say which variables or dims of a fit would bear a name twice."""
    found, used = [], dict.fromkeys(_TAKEN, "the model itself")
    for name in dict.fromkeys(names):
        keys = (
            "beta",
            "feature",
            "feature_bis",
            "feature_sd",
            "feature_sd_scale",
            "feature_corr",
            "feature_loadings",
            "feature_loadings_scale",
            "feature_factor",
            "task_corr",
            "index",
        )
        own = [name, f"{name}_bis", f"X_{name}", *(named(name, key) for key in keys)]
        if twice := [n for n in own if n in used]:
            problem = f"would give the fit a second {twice[0]!r}, a name that belongs to {used[twice[0]]}"
            found.append(Finding(f"grouping {name!r}", problem, "Rename the column"))
        used |= dict.fromkeys(own, f"grouping {name!r}")
    return found


def make_groupings(
    wanted: Mapping[str, tuple[str, ...]],
    labels: Mapping[str, tuple[tuple[Label, ...], IntArray]],
    design: Design,
    matrix: FloatArray,
    task_index: IntArray,
    *,
    known_noise: bool,
) -> tuple[tuple[Grouping, ...], list[Finding]]:
    """Put the groupings together, and say what is wrong with them.

    Parameters
    ----------
    wanted : mapping
        Features of each grouping: columns or terms of the design.
    labels : mapping
        Levels of each grouping, and the position of each row's level.
    design, matrix
        Of all rows.
    task_index : (n_rows,)
    known_noise : bool
        Whether the noise of each row is known, so that it can be told from an effect of each row.
    """
    found: list[Finding] = []
    groupings = []
    divisions = {"the task": task_index}
    for name, features in wanted.items():
        where, (levels, index) = f"grouping {name!r}", labels[name]
        at = _positions(features, design)
        if unknown := [f for f in features if not at[f]]:
            known = ", ".join(dict.fromkeys([*design.columns, *design.terms]))
            problem = f"names {unknown}, which the design does not have"
            found.append(Finding(where, problem, f"Add them to the features. Known: {known}"))
        if len(levels) == 1:
            problem = f"has one level only ({levels[0]!r}), so nothing varies"
            found.append(Finding(where, problem, "Remove it"))
        elif len(levels) == len(index) and not known_noise:
            problem = "has a level of its own for every row, which is what noise is"
            found.append(Finding(where, problem, "Remove it, or join levels"))
        for other, division in divisions.items():
            if len(levels) > 1 and _same_division(index, division):
                problem = f"divides the rows as {other} does, so their effects cannot be told apart"
                found.append(Finding(where, problem, "Remove it"))
        divisions[f"grouping {name!r}"] = index
        chosen = [i for f in features for i in at[f]]
        columns = [np.ones(len(index)) if i < 0 else matrix[:, i] for i in dict.fromkeys(chosen)]
        names = tuple(INTERCEPT if i < 0 else design.columns[i] for i in dict.fromkeys(chosen))
        X = np.column_stack([*columns, np.zeros((len(index), 0))])
        groupings.append(Grouping(name, names, levels, index, X))
    total = sum(g.n_effects for g in groupings)
    if total > MAX_EFFECTS:
        sizes = ", ".join(f"{g.name!r} has {len(g.levels)} levels x {len(g.features)}" for g in groupings)
        hint = "Make the factor with the most levels the task: tasks may be many, levels of the others not"
        found.append(Finding("groupings", f"have {total} effects, more than {MAX_EFFECTS} ({sizes})", hint))
    return tuple(groupings), found


def _positions(features: Sequence[str], design: Design) -> dict[str, list[int]]:
    """Return where the columns of each feature are; -1: an intercept that the design does not have."""
    at = {f: [design.columns.index(c) for c in design.columns_of(f)] for f in features}
    if INTERCEPT in at and not at[INTERCEPT]:
        at[INTERCEPT] = [-1]
    return at


def _same_division(one: IntArray, two: IntArray) -> bool:
    """Whether two groupings put the same rows together."""
    pairs = len(np.unique(np.column_stack([one, two]), axis=0))
    return pairs == len(np.unique(one)) == len(np.unique(two))
