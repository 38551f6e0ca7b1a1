"""What the data added to the prior of one task correlation, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.inference.attributes import schema_of
from bayes_mtl.plots._common import FigureSize, axes, before_and_after, name
from bayes_mtl.summaries.contraction import (
    LEAST_PRIOR_SD,
    contraction,
    contraction_in_words,
    prior_in_words,
)
from bayes_mtl.summaries.correlation import Kind, correlation_draws


def plot_correlation_update(
    idata: xr.DataTree,
    task_a: Any,
    task_b: Any,
    kind: Kind = "structural",
    *,
    ax: Any = None,
    figsize: FigureSize | None = None,
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
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SpecError
        If there is no such task, or they are one and the same.

    Examples
    --------
    >>> mtl.plot_correlation_update(idata, "Ann", "Bob")  # doctest: +SKIP
    """
    schema_of(idata)  # says so if it is no fit
    prior, posterior = (
        correlation_draws(idata, kind, tasks=[task_a, task_b], group=group)[..., 0, 1].ravel()
        for group in ("prior", "posterior")
    )
    ax = axes(ax, 5.6, 3.2, figsize)
    before_and_after(ax, prior, posterior, np.linspace(-1, 1, 61))
    ax.axvline(0.0, color="0.3", linewidth=0.8)
    ax.set_xlim(-1, 1)
    ax.set_xlabel(f"correlation of {name(task_a)} and {name(task_b)}", fontsize=9)
    learned = contraction(posterior.std(), prior.std(), least=LEAST_PRIOR_SD).item()
    before, after = (prior_in_words(draws.mean(), draws.std()) for draws in (prior, posterior))
    ax.set_title(
        f"P(positive) = {np.mean(posterior > 0):z.2f}, contraction from the prior "
        f"{contraction_in_words(learned)}\nmean ± sd: {before} before the data, {after} after",
        loc="left",
        fontsize=10,
    )
    ax.legend(frameon=False, fontsize=8)
    return ax
