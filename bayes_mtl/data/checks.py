"""Everything that can be wrong with a table, found in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.data.dependence import is_constant
from bayes_mtl.data.schema import INTERCEPT, Design
from bayes_mtl.errors import DataWarning, Finding

_MAX_SCALE_RATIO = 3.0
_LARGEST = 1e75  # squares of coefficients, which are an outcome over a feature, have to be numbers
_FAR_FROM_ZERO = 3.0  # pooled sd between a column's mean and 0 from which an intercept is an extrapolation


@dataclass(frozen=True)
class EntryChecks:
    """Checks of the entries of columns, which say where they are.

    Attributes
    ----------
    tasks : sequence
        The task of each entry.
    rows : ndarray of int
        Its row in the table that was given.
    dropped : bool
        Whether rows with missing values have been dropped already.
    """

    tasks: Sequence[Any]
    rows: IntArray
    dropped: bool = False

    def not_finite(
        self, name: str, values: FloatArray, part: slice = slice(None), *, computed: bool = False
    ) -> list[Finding]:
        """NaN and infinite entries among `part` of the rows; `values` are of these or of all rows.

        `computed`: by an expression from values that are there, so that there is nothing to drop.
        """
        if len(values) == len(self.rows):
            values = values[part]
        tasks, rows = self.tasks[part], self.rows[part]
        found: list[Finding] = []
        for kind, bad in (("NaN", np.isnan(values)), ("infinite", np.isinf(values))):
            at = np.flatnonzero(bad)
            if not len(at):
                continue
            some = ", ".join(map(str, rows[at[:5]].tolist())) + (", ..." if len(at) > 5 else "")
            labels = list(dict.fromkeys(repr(tasks[i]) for i in at.tolist()))
            where = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
            plural = "value is" if len(at) == 1 else "values are"
            can_drop = kind == "NaN" and not self.dropped and not computed
            hint = (
                "Impute them, or pass missing='drop'" if can_drop else "Correct them, or leave such rows out"
            )
            problem = f"{len(at)} {plural} {kind} (rows {some}; tasks {where})"
            found.append(Finding(f"column {name!r}", problem, hint))
        return found

    def not_positive(self, name: str, values: FloatArray, part: slice = slice(None)) -> list[Finding]:
        """Entries of a weight or noise column that are zero or below."""
        values, rows = values[part], self.rows[part]
        if not len(bad := np.flatnonzero(values <= 0)):
            return []
        problem = f"should be positive, found {values[bad[0]]} in row {rows[bad[0]]}"
        return [Finding(f"column {name!r}", problem)]


def beyond_range(columns: Mapping[str, FloatArray]) -> list[Finding]:
    """Columns in units so extreme that float64 cannot hold what is computed from them."""
    found = []
    for name, values in columns.items():
        size = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
        if size > _LARGEST or 0 < size < 1 / _LARGEST:
            some = f"numbers up to {size:.3g}" if size > 1 else f"no number beyond {size:.3g}"
            problem = f"holds {some}, and squares of what is computed from them have no room in float64"
            hint = f"Change its unit: {'divide' if size > 1 else 'multiply'} it by a power of ten"
            found.append(Finding(f"column {name!r}", problem, hint))
    return found


def constant_outcome(name: str, y: FloatArray) -> list[Finding]:
    """An outcome that never changes."""
    values = y[np.isfinite(y)]
    if len(values) < 2 or np.ptp(values) > 0:
        return []
    problem = f"is constant ({values[0]:g} in every row)"
    return [Finding(f"outcome {name!r}", problem, "There is nothing to explain")]


def warn_if_constant_within(
    X: FloatArray, design: Design, varying: Sequence[str], starts: IntArray, tasks: str
) -> None:
    """Warn of features that vary by task although they never change within one."""
    if np.diff(starts).max() < 2 or len(starts) < 3:
        return
    begin = starts[:-1]
    within = (np.maximum.reduceat(X, begin) - np.minimum.reduceat(X, begin)).max(axis=0) > 0
    changes = {t for t, moves in zip(design.terms, within, strict=True) if moves}
    still = [
        term
        for i, (name, term) in enumerate(zip(design.columns, design.terms, strict=True))
        if name in varying and name != INTERCEPT and term not in changes and not is_constant(X[:, i])
    ]
    if still:
        named = [repr(term) for term in dict.fromkeys(still)]
        one = len(named) == 1
        warnings.warn(
            f"{', '.join(named)} {'is' if one else 'are'} constant within every {tasks}, so that rows cannot "
            f"tell {'its coefficient' if one else 'their coefficients'} from the intercept of the {tasks}. "
            f"Name {'it' if one else 'them'} in task_features (what is known of a {tasks} predicts its "
            f"coefficients) or in shared_features (one slope for all).",
            DataWarning,
            stacklevel=4,
        )


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
