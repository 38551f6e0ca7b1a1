"""What the model expects of each task's outcomes beside what they are, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.plots._common import (
    BLUE,
    MAX_ROWS,
    RED,
    FigureSize,
    at_most,
    beyond,
    limits,
    row_axes,
    table_of,
    title_rows,
)
from bayes_mtl.summaries.task_fit import CHECKS, p_value_in_words, task_fit


def plot_task_fit(
    found: xr.DataTree | xr.Dataset,
    check: str | None = None,
    *,
    tasks: Sequence[Label] | None = None,
    ci_prob: float | None = None,
    random_seed: int | None = 1,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw, by task, a statistic of the outcomes beside that of outcomes replicated from the model.

    A bar is the interval of replicated values, a point the observed one, red where `task_fit` calls it a
    misfit. Of more than 60 tasks, the 30 that depart most are drawn, and 30 of the others, evenly spaced.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or what `task_fit` returned.
    check : str, optional
        Which check of `task_fit`. Default: the one with the smallest `p_overall`.
    tasks : sequence of labels, optional
        Only these tasks.
    ci_prob, random_seed
        As in `task_fit`; play no role if a Dataset is given.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SpecError
        If there is no such check, or a task is not known.

    Examples
    --------
    >>> mtl.plot_task_fit(idata, "spread")  # doctest: +SKIP
    """
    summarise = partial(task_fit, ci_prob=ci_prob, random_seed=random_seed)
    table = table_of(found, "task_fit", summarise, "check", "p_overall", "misfit")
    known = [str(c) for c in table["check"].to_numpy()]
    if check is None:
        check = known[int(np.argmin(table["p_overall"].to_numpy()))]
    if check not in known:
        raise SpecError(Finding("check", f"should be one of {', '.join(known)}, found {check!r}"))
    p_overall = float(table["p_overall"].sel(check=check))
    table = table.sel(check=check).isel(task=task_positions(table["task"].to_numpy(), tasks))
    table = table.isel(task=np.flatnonzero(np.isfinite(table["observed"].to_numpy())))
    total, n_bad = table.sizes["task"], int(table["misfit"].sum())
    order = np.argsort(table["adjusted_p"].to_numpy(), kind="stable")
    order = at_most(order, first=MAX_ROWS // 2)
    table = table.isel(task=order[np.argsort(-table["observed"].to_numpy()[order], kind="stable")])
    observed, lower, upper = (table[n].to_numpy() for n in ("observed", "lower", "upper"))
    bad = table["misfit"].to_numpy()
    ax, at = row_axes(ax, table["task"].to_numpy(), figsize)
    ax.hlines(at, lower, upper, color=BLUE, linewidth=5, alpha=0.3)
    low, high = limits(np.concatenate([observed, lower, upper]))
    for mask, colour in ((~bad, BLUE), (bad, RED)):
        ax.plot(observed[mask], at[mask], "o", color=colour, markersize=4)
        beyond(ax, observed[mask], at[mask], low, high, colour=colour)
    ax.set_xlabel(CHECKS[check].partition(":")[0], fontsize=9, wrap=True)
    shown = f"; {len(at)} drawn" if len(at) < total else ""
    p = p_value_in_words(p_overall)
    note = f"bar: {table.attrs['ci_prob']:.0%} of replicated values   ·   point: observed, orange if a misfit"
    title_rows(ax, f"{check}: {n_bad} of {total} tasks do not fit (p-value {p}{shown})", note, size=10.0)
    return ax
