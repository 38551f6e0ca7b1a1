"""Which tasks are in one cluster, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.plots.task_correlation import clustered_order, label_size, picture_side
from bayes_mtl.summaries.clusters import clusters

_LABELS_UP_TO = 80


def plot_clusters(found: xr.DataTree | xr.Dataset, *, ax: Any = None) -> Any:
    """Draw how likely every two tasks are in one cluster, cluster by cluster.

    The darker, the surer that two tasks are together. Lines divide the clusters of the point partition;
    within one, tasks that belong together most surely stand side by side.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or what `clusters` returned.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_clusters(idata)  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    table = found if isinstance(found, xr.Dataset) else clusters(found)
    same, partition = table["co_clustering"].to_numpy(), table["partition"].to_numpy()
    near = np.argsort(clustered_order(2.0 * same - 1.0))  # place of each task in a tree
    order = np.lexsort((near, partition))
    n = len(order)
    if ax is None:
        side = picture_side(n)
        _, ax = plt.subplots(figsize=(side + 1.2, side), layout="constrained")
    picture = ax.imshow(same[np.ix_(order, order)], cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    ends = np.flatnonzero(np.diff(partition[order])) + 0.5
    ax.hlines(ends, -0.5, n - 0.5, color="0.3", linewidth=0.8)
    ax.vlines(ends, -0.5, n - 0.5, color="0.3", linewidth=0.8)
    if n <= _LABELS_UP_TO:
        labels = [str(t) for t in table["task"].to_numpy()[order]]
        size = label_size(n)
        ax.set_xticks(range(n), labels, rotation=90, fontsize=size)
        ax.set_yticks(range(n), labels, fontsize=size)
    else:
        ax.set_xticks([])
        ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_color("0.85")
    ax.set_xlabel(f"{table.attrs.get('task', 'task')} ({n})", fontsize=9)
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.6, pad=0.02)
    bar.set_label("probability of one cluster")
    bar.outline.set_visible(False)
    certainty = float(table["certainty"].mean())
    ax.set_title(f"{partition.max()} clusters, {certainty:.0%} certain on average", loc="left", fontsize=11)
    return ax
