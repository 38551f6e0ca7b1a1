"""Which tasks are in one cluster, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.plots._common import FigureSize, colour_bar, label_square, square_axes, table_of
from bayes_mtl.plots.task_correlation import clustered_order
from bayes_mtl.summaries.clusters import clusters


def plot_clusters(
    found: xr.DataTree | xr.Dataset,
    *,
    tasks: Sequence[Label] | None = None,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw how likely every two tasks are in one cluster, cluster by cluster.

    The darker, the surer that two tasks are together. Lines divide the clusters of the point partition;
    within one, tasks that belong together most surely stand side by side.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or what `clusters` returned.
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
    >>> mtl.plot_clusters(idata)  # doctest: +SKIP
    """
    table = table_of(found, "clusters", clusters, "co_clustering", "partition")
    at = task_positions(table["task"].to_numpy(), tasks)
    table = table.isel(task=at, task_bis=at)
    same, partition = table["co_clustering"].to_numpy(), table["partition"].to_numpy()
    near = np.argsort(clustered_order(2.0 * same - 1.0))  # place of each task in a tree
    order = np.lexsort((near, partition))
    n = len(order)
    ax = square_axes(ax, n, figsize)
    picture = ax.imshow(same[np.ix_(order, order)], cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    ends = np.flatnonzero(np.diff(partition[order])) + 0.5
    ax.hlines(ends, -0.5, n - 0.5, color="0.3", linewidth=0.8)
    ax.vlines(ends, -0.5, n - 0.5, color="0.3", linewidth=0.8)
    label_square(ax, table["task"].to_numpy()[order].tolist(), f"{table.attrs.get('task', 'task')} ({n})")
    colour_bar(ax, picture, "probability of one cluster")
    certainty = float(table["certainty"].mean())
    number = "1 cluster" if partition.max() == 1 else f"{partition.max()} clusters"
    ax.set_title(f"{number}, {certainty:.0%} certain on average", loc="left", fontsize=11)
    return ax
