"""Whether outcomes of one row of a wide table go together beyond what the model says of them.

Rows of all outcomes are counted as independent. Residuals of one row with correlation r add (T - 1) r to the
variance of what T outcomes have in common, which the posterior does not know of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.data import TaskData
from bayes_mtl.data.groupings import named
from bayes_mtl.inference.attributes import data_of, order_by_task, spec_of
from bayes_mtl.inference.log_likelihood import fitted_predictor

_LEAST = 10  # rows beyond the number of columns, for a correlation
_LEVEL = 0.01  # probability that any pair is called correlated where none is
_INFLATION = 1.2  # of a variance, below which it does not matter
_SIZE = 0.2  # of a typical correlation, below which it does not matter


@dataclass(frozen=True)
class RowCorrelation:
    """Correlations of the residuals of outcomes that are in one row.

    Attributes
    ----------
    pairs : DataFrame
        ``task_a``, ``task_b``, ``correlation`` and ``rows`` in common, of every pair with enough rows.
    n_tasks : int
    significant : bool
        Whether any correlation is larger than chance makes it, at a level of 1 % for all pairs together.
    typical : float
        Root mean square of the correlations, less what chance adds.
    """

    pairs: pd.DataFrame
    n_tasks: int
    significant: bool
    typical: float

    @property
    def mean(self) -> float:
        """Average correlation."""
        return float(self.pairs["correlation"].mean())

    @property
    def inflation(self) -> float:
        """How many times the variance of a slope that all outcomes share is what independent rows say."""
        return 1.0 + (self.n_tasks - 1) * self.mean

    @property
    def matters(self) -> bool:
        """Whether correlations are beyond chance and large enough to change intervals."""
        return self.significant and (self.inflation > _INFLATION or self.typical > _SIZE)

    def __str__(self) -> str:
        largest = self.pairs.loc[self.pairs["correlation"].abs().idxmax()]
        text = (
            f"Residuals of outcomes in one row are correlated: {self.mean:z.2f} on average, "
            f"{largest['correlation']:z.2f} for {largest['task_a']} and {largest['task_b']}. The model "
            "counts them as independent, so what outcomes have in common row by row may be taken for a "
            "relation of their coefficients"
        )
        if self.inflation > _INFLATION:
            text += (
                f", and the variance of what outcomes share is about {self.inflation:z.1f} times what it says"
                ": intervals of population means, shared slopes and partially pooled coefficients should be "
                f"up to {np.sqrt(self.inflation):z.1f} times as wide"
            )
        return text + (
            ". Add a column that explains what rows have in common, average outcomes that measure the same, "
            "or compare with NoPooling, under which intervals of each outcome alone are right."
        )


def row_correlation(idata: xr.DataTree) -> RowCorrelation | None:
    """Measure how residuals from the posterior means go together; None where there is nothing to measure.

    A pair of outcomes is looked at if they have ten rows more in common than there are columns.
    """
    data = data_of(idata)
    if not data.schema.outcomes or data.n_tasks < 2:
        return None
    unit = _units(data)
    if unit is None:
        return None
    residual = np.full((unit.max() + 1, data.n_tasks), np.nan)
    residual[unit, data.task_index] = _residuals(idata, data)
    return correlate(residual, data.full_matrix.shape[1], data.tasks)


def correlate(residual: FloatArray, n_columns: int, tasks: Sequence[Label]) -> RowCorrelation | None:
    """Correlate residuals (rows, tasks) from as many columns, NaN where there are none.

    Least-squares residuals of independent outcomes lie in n - F dimensions, where their correlation has the
    law of Student's t with n - F - 1 degrees of freedom.
    """
    seen = np.isfinite(residual)
    rows = seen.T.astype(float) @ seen
    found = pd.DataFrame(residual).corr().to_numpy()
    a, b = np.triu_indices(len(tasks), 1)
    spare = rows[a, b] - n_columns
    use = (spare >= _LEAST) & np.isfinite(found[a, b])
    a, b, spare = a[use], b[use], spare[use]
    if not len(a):
        return None
    r = np.clip(found[a, b], -1 + 1e-12, 1 - 1e-12)
    p = 2 * stats.t.sf(np.abs(r) * np.sqrt((spare - 1) / (1 - r**2)), spare - 1)
    one, two = ([tasks[t] for t in at] for at in (a, b))
    return RowCorrelation(
        pairs=pd.DataFrame({"task_a": one, "task_b": two, "correlation": r, "rows": rows[a, b].astype(int)}),
        n_tasks=len(tasks),
        significant=bool(p.min() < _LEVEL / len(p)),
        typical=float(np.sqrt(max(np.mean(r**2 - 1 / spare), 0.0))),
    )


def _residuals(idata: xr.DataTree, data: TaskData) -> FloatArray:
    """Return y less its mean at the posterior means of the coefficients, rows as in `data`."""
    posterior = idata["posterior"].to_dataset()
    names = ["beta", "beta_shared", *(named(g.name, "beta") for g in data.groupings)]
    means = posterior[[n for n in names if n in posterior]].mean(("chain", "draw")).expand_dims("draw")
    eta = fitted_predictor(means, idata["constant_data"].to_dataset(), [g.name for g in data.groupings])
    return data.y - spec_of(idata).family.mean(eta[0])[order_by_task(idata)]


def _units(data: TaskData) -> IntArray | None:
    """Return which row of the table each entry is from, or None where that cannot be known.

    By the names of rows; where these are not unique, by their positions: entry (outcome k, row i) of n rows
    is at k n + i, which says what n is unless rows at both ends are missing.
    """
    _, by_name = np.unique(data.row_names, return_inverse=True)
    if len(np.unique(by_name * data.n_tasks + data.task_index)) == data.n_rows:
        return by_name
    place = np.array([data.schema.outcomes.index(str(task)) for task in data.tasks])[data.task_index]
    least = int((data.row // (place + 1)).max()) + 1
    later = place > 0
    most = int((data.row[later] // place[later]).min()) if later.any() else least
    return data.row - place * least if least == most else None
