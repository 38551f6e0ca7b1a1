"""Which tasks are alike, as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import IntArray, Label
from bayes_mtl.plots._common import GREY, FigureSize, axes, ticks
from bayes_mtl.plots.task_correlation import pair_matrices, relations_of
from bayes_mtl.summaries.correlation import Kind


def plot_task_tree(
    relations: xr.DataTree | xr.Dataset,
    kind: Kind = "structural",
    *,
    tasks: Sequence[Label] | None = None,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw a dendrogram of tasks: those that join low are alike.

    Average linkage on 1 - posterior mean correlation. It shows what `task_correlation` says, one way of
    drawing it: how sure each correlation is, the heat map shows.

    Parameters
    ----------
    relations : DataTree or Dataset
        What `fit` returned, or what `task_correlation` returned.
    kind : {"structural", "partial", "coefficients", "functions"}
        See `task_correlation`; plays no role if a Dataset is given.
    tasks : sequence of labels, optional
        Only these tasks.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_task_tree(idata)  # doctest: +SKIP
    """
    from scipy.cluster.hierarchy import dendrogram, linkage
    from scipy.spatial.distance import squareform

    table = relations_of(relations, kind, tasks)
    shown, mean, _ = pair_matrices(table, tasks)
    n = len(shown)
    distance = np.clip(1.0 - mean, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    joined = linkage(squareform(distance, checks=False), "average", optimal_ordering=n <= 300)
    ax = axes(ax, 6.4, float(np.clip(0.17 * n + 1.6, 2.6, 13.0)), figsize)
    tree = dendrogram(
        joined,
        orientation="left",
        no_labels=True,
        ax=ax,
        color_threshold=0.0,
        above_threshold_color=GREY,
    )

    def set_ticks(at: IntArray, labels: Sequence[str], **options: Any) -> None:
        ax.set_yticks(10 * at + 5, labels, **options)  # where SciPy puts leaves

    note = ticks(set_ticks, [shown[i] for i in tree["leaves"]])
    ax.yaxis.tick_right()
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("1 - mean correlation where two groups join", fontsize=9)
    noun = table.attrs.get("task", "task")
    ax.set_title(f"Which {noun}s are alike ({n}{note})", loc="left", fontsize=11)
    return ax
