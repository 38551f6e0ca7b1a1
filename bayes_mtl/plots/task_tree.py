"""Which tasks are alike, as a tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.plots._common import GREY, LABELS_UP_TO, axes, label_size
from bayes_mtl.plots.task_correlation import pair_matrices
from bayes_mtl.summaries.correlation import Kind, task_correlation


def plot_task_tree(relations: xr.DataTree | xr.Dataset, kind: Kind = "structural", *, ax: Any = None) -> Any:
    """Draw a dendrogram of tasks: those that join low are alike.

    Average linkage on 1 - posterior mean correlation. It shows what `task_correlation` says, one way of
    drawing it: how sure each correlation is, the heat map shows.

    Parameters
    ----------
    relations : DataTree or Dataset
        What `fit` returned, or what `task_correlation` returned.
    kind : {"structural", "partial", "coefficients", "functions"}
        See `task_correlation`; plays no role if a Dataset is given.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_task_tree(idata)  # doctest: +SKIP
    """
    from scipy.cluster.hierarchy import dendrogram, linkage
    from scipy.spatial.distance import squareform

    table = relations if isinstance(relations, xr.Dataset) else task_correlation(relations, kind)
    tasks, mean, _ = pair_matrices(table)
    n = len(tasks)
    distance = np.clip(1.0 - mean, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    joined = linkage(squareform(distance, checks=False), "average", optimal_ordering=n <= 300)
    ax = axes(ax, 6.4, float(np.clip(0.17 * n + 1.6, 2.6, 13.0)))
    dendrogram(
        joined,
        orientation="left",
        labels=[str(t) for t in tasks] if n <= LABELS_UP_TO else None,
        no_labels=n > LABELS_UP_TO,
        ax=ax,
        color_threshold=0.0,
        above_threshold_color=GREY,
        leaf_font_size=label_size(n),
    )
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("1 - mean correlation where two groups join", fontsize=9)
    noun = table.attrs.get("task", "task")
    ax.set_title(f"Which {noun}s are alike ({n})", loc="left", fontsize=11)
    return ax
