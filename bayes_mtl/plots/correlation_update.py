"""What the data added to the prior of one task correlation, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.plots._common import axes, before_and_after
from bayes_mtl.summaries.correlation import Kind, correlation_draws


def plot_correlation_update(
    idata: xr.DataTree, task_a: Any, task_b: Any, kind: Kind = "structural", *, ax: Any = None
) -> Any:
    """Draw prior and posterior of the correlation of two tasks.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    task_a, task_b : label
        Two tasks.
    kind : {"structural", "partial", "coefficients", "functions"}
        See `task_correlation`.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SpecError
        If there is no such task.

    Examples
    --------
    >>> mtl.plot_correlation_update(idata, "Ann", "Bob")  # doctest: +SKIP
    """
    tasks = idata["posterior"]["task"].to_numpy().tolist()
    findings = [Finding("task", f"{t!r} is not known") for t in (task_a, task_b) if t not in tasks]
    if not findings and task_a == task_b:
        findings = [Finding("task_a, task_b", f"should be two tasks, found {task_a!r} twice")]
    if findings:
        raise SpecError(findings)
    i, j = tasks.index(task_a), tasks.index(task_b)
    prior = correlation_draws(idata, kind, group="prior")[..., i, j].ravel()
    posterior = correlation_draws(idata, kind)[..., i, j].ravel()
    ax = axes(ax, 5.6, 3.2)
    before_and_after(ax, prior, posterior, np.linspace(-1, 1, 61))
    ax.axvline(0.0, color="0.3", linewidth=0.8)
    ax.set_xlim(-1, 1)
    ax.set_xlabel(f"correlation of {task_a} and {task_b}", fontsize=9)
    learned = 1.0 - posterior.var() / prior.var() if prior.var() > 0 else float("nan")
    ax.set_title(
        f"P(positive) = {np.mean(posterior > 0):.2f}, contraction from the prior {max(learned, 0.0):.0%}",
        loc="left",
        fontsize=10,
    )
    ax.legend(frameon=False, fontsize=8)
    return ax
