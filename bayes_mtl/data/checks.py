"""Everything that can be wrong with a table, found in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.data.dependence import is_constant
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.errors import DataWarning, Finding

_MAX_SCALE_RATIO = 3.0
_FAR_FROM_ZERO = 3.0  # pooled sd between a column's mean and 0 from which an intercept is an extrapolation


def not_finite(name: str, values: FloatArray, tasks: Sequence[Any]) -> list[Finding]:
    """NaN and infinite entries of a column, with their rows and tasks."""
    found: list[Finding] = []
    for kind, bad in (("NaN", np.isnan(values)), ("infinite", np.isinf(values))):
        rows = np.flatnonzero(bad).tolist()
        if rows:
            some = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            labels = list(dict.fromkeys(repr(tasks[r]) for r in rows))
            where = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
            plural = "value is" if len(rows) == 1 else "values are"
            found.append(
                Finding(
                    f"column {name!r}",
                    f"{len(rows)} {plural} {kind} (rows {some}; tasks {where})",
                    "Impute them, or pass missing='drop'",
                )
            )
    return found


def not_positive(name: str, values: FloatArray) -> list[Finding]:
    """Entries of a weight or noise column that are zero or below."""
    bad = np.flatnonzero(values <= 0)
    if not len(bad):
        return []
    return [Finding(f"column {name!r}", f"should be positive, found {values[bad[0]]} in row {bad[0]}")]


def outcome_problems(
    name: str, y: FloatArray, tasks: Sequence[Label], starts: IntArray, *, allow_one_class: bool
) -> list[Finding]:
    """An outcome that never changes, or a 0/1 outcome of which a task has one class only.

    Parameters
    ----------
    tasks : sequence
        The labels, one per task; rows are sorted by task and `starts` says where each begins.
    """
    finite = np.isfinite(y)
    values = y[finite]
    if len(values) > 1 and np.ptp(values) == 0:
        return [
            Finding(
                f"outcome {name!r}",
                f"is constant ({values[0]:g} in every row)",
                "There is nothing to explain",
            )
        ]
    if allow_one_class or not len(values) or not np.isin(values, (0.0, 1.0)).all():
        return []
    one_class = []
    for t, label in enumerate(tasks):
        rows = slice(starts[t], starts[t + 1])
        mine = y[rows][finite[rows]]
        if len(mine) > 1 and np.ptp(mine) == 0:
            one_class.append(f"{label!r} (all {mine[0]:g})")
    if not one_class:
        return []
    some = ", ".join(one_class[:10]) + (", ..." if len(one_class) > 10 else "")
    plural = "task has" if len(one_class) == 1 else "tasks have"
    return [
        Finding(
            f"outcome {name!r}",
            f"{len(one_class)} {plural} one class only: {some}",
            "Pass allow_one_class=True to let them learn from the other tasks, or leave them out",
        )
    ]


def warn_if_far_from_zero(X: FloatArray, names: Sequence[str], varying: Sequence[str]) -> None:
    """Warn where the intercept is an extrapolation far outside of the data."""
    if INTERCEPT not in varying:
        return
    far = [
        f"{name} (mean {X[:, i].mean():.4g}, sd {X[:, i].std():.3g})"
        for i, name in enumerate(names)
        if name != INTERCEPT
        and abs(X[:, i].mean()) > _FAR_FROM_ZERO * X[:, i].std()
        and not is_constant(X[:, i])  # nothing can be done, and it has been named
    ]
    if far:
        warnings.warn(
            f"0 lies far outside of the data in {', '.join(far)}, so each task's intercept is an "
            "extrapolation: it will be hard to sample and to read. Pass center=True; Intercept then means "
            "the expected outcome at the features' averages.",
            DataWarning,
            stacklevel=4,
        )


def warn_if_scales_differ(y: FloatArray, outcomes: Sequence[Label], starts: IntArray) -> None:
    """Warn where the outcomes of a wide table are on scales that one prior cannot serve."""
    sd = np.array([y[starts[t] : starts[t + 1]].std() for t in range(len(outcomes))])
    if sd.min() > 0 and sd.max() > _MAX_SCALE_RATIO * sd.min():
        some = ", ".join(f"{o} (sd {s:.3g})" for o, s in zip(outcomes[:10], sd, strict=False))
        warnings.warn(
            f"The outcomes are on different scales: {some}. Coefficients of one scale prior and one noise "
            "scale will fit none of them: divide each outcome by its standard deviation, and use "
            "Gaussian(task_noise=True).",
            DataWarning,
            stacklevel=4,
        )
