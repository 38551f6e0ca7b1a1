"""Where tasks, outcome and features come from in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data.design import INTERCEPT, Design

__all__ = ["INTERCEPT", "Design", "TaskSchema"]


@dataclass(frozen=True)
class TaskSchema:
    """Where tasks, outcome and features come from in a table.

    Attributes
    ----------
    task : str or None
        Column of task labels; None when each outcome column is a task.
    outcome : str
        Name of the outcome (in messages and on axes).
    left : str
        The outcome as a formula writes it: a column, or an expression. Empty for a wide table.
    outcomes : tuple of str
        The outcome columns of a wide table.
    design, task_design : Design
        Features of rows, and features of tasks.
    shared : tuple of str
        Columns of the design with one slope for all tasks.
    weights, offset, noise : str or None
        Columns.
    groupings : dict
        Columns of further grouping factors, and for each the features whose effects vary by level.
    float_labels : tuple of str
        Columns of labels that were floats: integers with gaps.
    """

    outcome: str
    design: Design
    task: str | None = None
    outcomes: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    task_design: Design | None = None
    weights: str | None = None
    offset: str | None = None
    noise: str | None = None
    groupings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left: str = ""
    float_labels: tuple[str, ...] = ()

    @property
    def varying(self) -> tuple[str, ...]:
        """Columns of the design whose coefficients vary by task."""
        return tuple(c for c in self.design.columns if c not in self.shared)

    def split(self, matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Split a design matrix into the varying and the shared columns."""
        is_shared = np.array([c in self.shared for c in self.design.columns], dtype=bool)
        return np.ascontiguousarray(matrix[:, ~is_shared]), np.ascontiguousarray(matrix[:, is_shared])

    def by_level(self, matrix: FloatArray, grouping: str) -> FloatArray:
        """Return the columns of a design matrix whose effects vary by the levels of a grouping."""
        at = {name: matrix[:, i] for i, name in enumerate(self.design.columns)}
        ones = np.ones(len(matrix))  # an intercept that varies around none
        return np.column_stack([at.get(name, ones) for name in self.groupings[grouping]])

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskSchema:
        """Read what `to_dict` wrote."""
        plain = dict(values)
        plain["design"] = Design.from_dict(plain["design"])
        if plain.get("task_design"):
            plain["task_design"] = Design.from_dict(plain["task_design"])
        for name in ("outcomes", "shared", "float_labels"):
            plain[name] = tuple(plain.get(name, ()))
        plain["groupings"] = {k: tuple(v) for k, v in plain.get("groupings", {}).items()}
        return cls(**plain)
