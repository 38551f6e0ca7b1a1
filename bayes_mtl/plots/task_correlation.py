"""Heat map of task correlations: colour says how strong, size says how sure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.plots._common import FigureSize, colour_bar, label_square, square_axes, table_of
from bayes_mtl.summaries.contraction import contraction_in_words
from bayes_mtl.summaries.correlation import Kind, task_correlation

_SQUARES_UP_TO = 120
_NOTE_ON_ONE_LINE_FROM = 30  # tasks: there is room beside them


def plot_task_correlation(
    relations: xr.DataTree | xr.Dataset,
    kind: Kind = "structural",
    *,
    tasks: Sequence[Label] | None = None,
    order: str = "cluster",
    ax: Any = None,
    figsize: FigureSize | None = None,
    max_tasks: int = 500,
) -> Any:
    """Draw the posterior of all task correlations as one picture.

    The colour of a tile is the posterior mean correlation. Its area is how sure its sign is,
    2 max(P(rho > 0), P(rho < 0)) - 1: a full tile means that the sign is certain, a dot that it could be
    either. Tasks are put in the order of a hierarchical clustering (average linkage on 1 - mean
    correlation), so that groups show as blocks.

    Parameters
    ----------
    relations : DataTree or Dataset
        What `fit` returned, or what `task_correlation` returned.
    kind : {"structural", "partial", "coefficients", "functions"}
        See `task_correlation`; plays no role if a Dataset is given.
    order : {"cluster", "label"}
        Clustered order, or the order of the labels.
    tasks : sequence of labels, optional
        Only these tasks.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.
    max_tasks : int
        With more tasks, this many with the surest relations are drawn.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_task_correlation(idata)  # doctest: +SKIP
    """
    if order not in ("cluster", "label"):
        raise SpecError(Finding("order", f"should be 'cluster' or 'label', found {order!r}"))
    table = relations_of(relations, kind, tasks)
    shown, mean, sure = pair_matrices(table, tasks)
    total = len(shown)
    if total > max_tasks:
        kept = np.sort(np.argsort(-sure.mean(axis=1), kind="stable")[:max_tasks])
        shown, mean, sure = [shown[i] for i in kept], mean[np.ix_(kept, kept)], sure[np.ix_(kept, kept)]
    at = clustered_order(mean) if order == "cluster" else np.arange(len(shown))
    shown, mean, sure = [shown[i] for i in at], mean[np.ix_(at, at)], sure[np.ix_(at, at)]

    n = len(shown)
    ax = square_axes(ax, n, figsize)
    few = n < _NOTE_ON_ONE_LINE_FROM
    artist = _tiles(ax, mean, sure)
    ax.set_xlim(-0.5, n - 0.5)
    ax.set_ylim(n - 0.5, -0.5)
    ax.set_aspect("equal")
    noun = str(table.attrs.get("task", "task"))
    label_square(ax, shown, f"{noun} ({n}, in clustered order)" if order == "cluster" else f"{noun} ({n})")
    colour_bar(ax, artist, "correlation (posterior mean)")
    what = {
        "structural": "Task correlations",
        "partial": "Partial correlations of tasks",
        "coefficients": "Correlations of task coefficients",
        "conflict": "Agreement of gradients (cosine)",
    }
    title = what.get(str(table.attrs.get("kind")), "Correlations of task predictions")
    part = f" ({n} of {total} tasks)" if n < total else ""
    note = "full tile: sign certain, dot: either sign"
    if "contraction" in table and table.sizes["pair"]:
        learned = contraction_in_words(float(table["contraction"].median()))
        between = "\n" if few else "   ·   "
        note += f"{between}median contraction from the prior {learned}"
    ax.set_title(f"{title}{part}", loc="left", fontsize=11, pad=32 if few else 22)
    ax.annotate(
        note,
        (0, 1),
        xytext=(0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color="0.35",
    )
    return ax


def clustered_order(correlation: FloatArray) -> np.ndarray:
    """Return the leaves of an average-linkage tree on 1 - correlation, in optimal order."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    n = len(correlation)
    if n < 3:
        return np.arange(n)
    distance = np.clip(1.0 - correlation, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(
        squareform((distance + distance.T) / 2, checks=False), method="average", optimal_ordering=n <= 300
    )
    return leaves_list(tree)


def relations_of(relations: Any, kind: Kind, tasks: Sequence[Label] | None) -> xr.Dataset:
    """Return correlations as they were given, or those of a fit."""
    summarise = partial(task_correlation, kind=kind, tasks=tasks)
    return table_of(relations, "task_correlation", summarise, "task_a", "task_b", "mean", "p_positive")


def pair_matrices(
    table: xr.Dataset, tasks: Sequence[Label] | None = None
) -> tuple[list[Any], FloatArray, FloatArray]:
    """Return (some) tasks, and as matrices the mean of each pair and how sure its sign is."""
    a, b = table["task_a"].to_numpy().tolist(), table["task_b"].to_numpy().tolist()
    known = list(dict.fromkeys([*a, *b]))
    position = {task: i for i, task in enumerate(known)}
    i, j = [position[t] for t in a], [position[t] for t in b]
    n = len(known)
    mean, sure = np.eye(n), np.eye(n)
    p = table["p_positive"].to_numpy()
    mean[i, j] = mean[j, i] = table["mean"].to_numpy()
    sure[i, j] = sure[j, i] = 2 * np.maximum(p, 1 - p) - 1
    at = task_positions(known, tasks)
    if len(at) < 2:
        raise SpecError(Finding("tasks", f"should name two tasks at least, found {len(at)}"))
    return [known[i] for i in at], mean[np.ix_(at, at)], sure[np.ix_(at, at)]


def _tiles(ax: Any, mean: FloatArray, sure: FloatArray) -> Any:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    n = len(mean)
    if n > _SQUARES_UP_TO:
        # Too many tiles for sizes to be seen: fade towards white instead.
        return ax.imshow(mean * sure, cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    side = 0.94 * np.sqrt(np.clip(sure, 0.01, 1.0))
    off = ~np.eye(n, dtype=bool)
    rows, columns = np.nonzero(off)
    tiles = [
        Rectangle((c - side[r, c] / 2, r - side[r, c] / 2), side[r, c], side[r, c])
        for r, c in zip(rows, columns, strict=True)
    ]
    collection = PatchCollection(tiles, linewidths=0, cmap="RdBu", clim=(-1.0, 1.0))
    collection.set_array(mean[rows, columns])
    ax.add_collection(collection)
    ax.add_collection(
        PatchCollection(
            [Rectangle((i - 0.5, i - 0.5), 1, 1) for i in range(n)], facecolor="0.93", linewidths=0
        )
    )
    return collection
