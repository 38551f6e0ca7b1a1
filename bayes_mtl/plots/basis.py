"""Basis tasks as two heat maps: who uses them, and what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.plots._common import FigureSize, colour_bar, frame, panels, table_of, ticks
from bayes_mtl.plots.task_correlation import clustered_order
from bayes_mtl.summaries.basis import basis

_NUMBERS_UP_TO = 12  # rows of a panel, up to which its numbers are written into it
CONVERGED = 1.05


def plot_basis(
    found: xr.DataTree | xr.Dataset,
    *,
    tasks: Sequence[Label] | None = None,
    axes: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw which tasks use which basis tasks, and what each basis task does to each coefficient.

    On the left the loadings of tasks, those that use the same basis tasks side by side; on the right what a
    basis task adds to each coefficient, in units of how far that coefficient varies (`feature_sd`). A tile
    is pale where its sign is in doubt: where the interval holds zero. If chains disagree on the basis tasks,
    the title says so.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or what `basis` returned.
    tasks : sequence of labels, optional
        Only these tasks.
    axes : sequence of two matplotlib Axes, optional
        Where to draw; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    ndarray of two matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_basis(idata)  # doctest: +SKIP
    """
    table = table_of(found, "basis", basis, "loading", "overlap")
    at = task_positions(table["task"].to_numpy(), tasks)
    table = table.isel(task=at, task_bis=at)
    shown, features, factors = (table[d].to_numpy() for d in ("task", "feature", "factor"))
    height = float(np.clip(0.19 * max(len(shown), len(features)) + 2.0, 3.2, 13.0))
    width = float(np.clip(1.1 * len(factors) + 6.0, 7.0, 16.0))
    axes = panels(axes, 1, 2, (width, height), figsize)
    if len(axes) != 2:
        raise SpecError(Finding("axes", f"should be two, found {len(axes)}"))

    names = [str(f) if isinstance(f, str) else f"basis {f}" for f in factors]
    order = clustered_order(2.0 * table["overlap"].to_numpy() - 1.0)
    noun = str(table.attrs.get("task", "task"))
    for ax, name, rows, unit in (
        (axes[0], "loading", [str(t) for t in shown], 1.0),
        (axes[1], "basis", [str(f) for f in features], table["feature_sd"].to_numpy()[:, None]),
    ):
        mean, lower, upper = (
            table[n].transpose(..., "factor").to_numpy() / unit
            for n in (name, f"{name}_lower", f"{name}_upper")
        )
        at = order if name == "loading" else np.arange(len(rows))
        limit = 1.0 if name == "loading" else max(1.0, float(np.abs(mean).max(initial=0.0)))
        picture = _tiles(ax, mean[at], (lower * upper > 0.0)[at], limit)
        ax.set_xticks(range(len(names)), names, rotation=90 if len(names) > 5 else 0, fontsize=9)
        note = ticks(ax.set_yticks, [rows[i] for i in at])
        ax.set_ylabel(f"{noun} ({len(rows)}{note})" if ax is axes[0] else "", fontsize=9)
        frame(ax)
        colour_bar(ax, picture, "loading" if name == "loading" else "in units of feature_sd")
    axes[0].set_title("Who uses which basis task", loc="left", fontsize=11)
    axes[1].set_title("What it does to coefficients", loc="left", fontsize=11)
    if (worst := float(table.attrs.get("r_hat", 1.0))) > CONVERGED:
        words = f"chains disagree (R-hat {worst:z.2f}): do not trust the numbers of basis tasks"
        axes[0].set_xlabel(words, fontsize=8, color="firebrick", loc="left")
    return axes


def _tiles(ax: Any, mean: FloatArray, sure: Any, limit: float) -> Any:
    # Where the sign is in doubt the colour fades towards white.
    shade = np.where(sure, 1.0, 0.35)
    picture = ax.imshow(
        mean, cmap="RdBu", vmin=-limit, vmax=limit, alpha=shade, aspect="auto", interpolation="nearest"
    )
    if len(mean) <= _NUMBERS_UP_TO:
        for (row, column), value in np.ndenumerate(mean):
            colour = "white" if abs(value) > 0.6 * limit and sure[row, column] else "0.25"
            ax.text(column, row, f"{value:z.2f}", ha="center", va="center", fontsize=8, color=colour)
    return picture
