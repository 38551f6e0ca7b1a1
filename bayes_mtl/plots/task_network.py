"""Which tasks are surely related, as a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.plots._common import BLUE, GREY, LABELS_UP_TO, RED, axes, label_size
from bayes_mtl.plots.task_correlation import clustered_order, pair_matrices
from bayes_mtl.summaries.correlation import Kind, task_correlation

_LINES = 400


def plot_task_network(
    relations: xr.DataTree | xr.Dataset, kind: Kind = "structural", *, sure: float = 0.95, ax: Any = None
) -> Any:
    """Draw tasks on a circle, with a line between two whose correlation has a sure sign.

    Blue lines are positive, red and dashed ones negative; the wider, the stronger. Neighbours on the circle
    are alike (the order of a hierarchical clustering).

    Parameters
    ----------
    relations : DataTree or Dataset
        What `fit` returned, or what `task_correlation` returned.
    kind : {"structural", "partial", "coefficients", "functions"}
        See `task_correlation`; plays no role if a Dataset is given.
    sure : float
        Least probability of the sign.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_task_network(idata, sure=0.9)  # doctest: +SKIP
    """
    table = relations if isinstance(relations, xr.Dataset) else task_correlation(relations, kind)
    tasks, mean, certainty = pair_matrices(table)
    n = len(tasks)
    angle = np.empty(n)
    angle[clustered_order(mean)] = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    place = np.column_stack([np.cos(angle), np.sin(angle)])
    a, b = np.triu_indices(n, 1)
    chosen = np.flatnonzero(certainty[a, b] >= 2 * sure - 1)
    strongest = chosen[np.argsort(-np.abs(mean[a, b][chosen]), kind="stable")][:_LINES]
    ax = axes(ax, 6.2, 6.2)
    for pair in strongest[::-1]:
        i, j, rho = a[pair], b[pair], mean[a[pair], b[pair]]
        # Through a point nearer to the centre, so that lines between neighbours can be told apart.
        bend = 0.35 * (place[i] + place[j])
        steps = np.linspace(0, 1, 20)[:, None]
        line = (1 - steps) ** 2 * place[i] + 2 * steps * (1 - steps) * bend + steps**2 * place[j]
        style = {"color": BLUE} if rho > 0 else {"color": RED, "linestyle": "--"}
        ax.plot(*line.T, linewidth=0.3 + 3.0 * abs(rho), alpha=0.75, solid_capstyle="round", **style)
    ax.plot(*place.T, "o", color="0.25", markersize=4, zorder=3)
    if n <= LABELS_UP_TO:
        size = label_size(n)
        for t, (x, y), turn in zip(tasks, 1.05 * place, np.degrees(angle), strict=True):
            left = x < -1e-9
            ax.text(x, y, str(t), rotation=turn + 180 if left else turn, rotation_mode="anchor",
                    ha="right" if left else "left", va="center", fontsize=size)  # fmt: skip
    reach = 1.05 + 0.055 * max((len(str(t)) for t in tasks), default=0) if n <= LABELS_UP_TO else 1.1
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.set_axis_off()
    few = f", the {_LINES} strongest drawn" if len(chosen) > _LINES else ""
    noun = table.attrs.get("task", "task")
    ax.set_title(
        f"{len(chosen)} of {len(a)} pairs of {noun}s related for sure (sign certain to {sure:.0%}{few})",
        loc="left",
        fontsize=10,
    )
    key = "blue: alike   ·   red, dashed: opposite   ·   width: how strong"
    ax.annotate(key, (0, 0), xycoords="axes fraction", fontsize=8, color=GREY)
    return ax
