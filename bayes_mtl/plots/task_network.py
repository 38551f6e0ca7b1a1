"""Which tasks are surely related, as a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.plots._common import BLUE, GREY, LABELS_UP_TO, RED, FigureSize, axes, label_size, name
from bayes_mtl.plots.task_correlation import clustered_order, pair_matrices, relations_of
from bayes_mtl.summaries.correlation import Kind

_LINES = 400


def plot_task_network(
    relations: xr.DataTree | xr.Dataset,
    kind: Kind = "structural",
    *,
    sure: float = 0.95,
    tasks: Sequence[Label] | None = None,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw tasks on a circle, with a line between two whose correlation has a sure sign.

    Blue lines are positive, red and dashed ones negative; the wider, the stronger. Neighbours on the circle
    are alike (the order of a hierarchical clustering). Of more than 80 tasks, those with most lines are
    named, as far as names do not touch.

    Parameters
    ----------
    relations : DataTree or Dataset
        What `fit` returned, or what `task_correlation` returned.
    kind : {"structural", "partial", "coefficients", "functions"}
        See `task_correlation`; plays no role if a Dataset is given.
    sure : float
        Least probability of the sign.
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
    >>> mtl.plot_task_network(idata, sure=0.9)  # doctest: +SKIP
    """
    table = relations_of(relations, kind, tasks)
    shown, mean, certainty = pair_matrices(table, tasks)
    n = len(shown)
    angle = np.empty(n)
    angle[clustered_order(mean)] = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    place = np.column_stack([np.cos(angle), np.sin(angle)])
    a, b = np.triu_indices(n, 1)
    chosen = np.flatnonzero(certainty[a, b] >= 2 * sure - 1)
    strongest = chosen[np.argsort(-np.abs(mean[a, b][chosen]), kind="stable")][:_LINES]
    ax = axes(ax, 6.2, 6.2, figsize)
    for pair in strongest[::-1]:
        i, j, rho = a[pair], b[pair], mean[a[pair], b[pair]]
        # Through a point nearer to the centre, so that lines between neighbours can be told apart.
        bend = 0.35 * (place[i] + place[j])
        steps = np.linspace(0, 1, 20)[:, None]
        line = (1 - steps) ** 2 * place[i] + 2 * steps * (1 - steps) * bend + steps**2 * place[j]
        style = {"color": BLUE} if rho > 0 else {"color": RED, "linestyle": "--"}
        ax.plot(*line.T, linewidth=0.3 + 3.0 * abs(rho), alpha=0.75, solid_capstyle="round", **style)
    ax.plot(*place.T, "o", color="0.25", markersize=4, zorder=3)
    lines = np.bincount(np.concatenate([a[strongest], b[strongest]]), minlength=n)
    named = _named(angle, lines)
    names = [name(shown[i]) for i in named]
    size = label_size(len(named))
    for text, i in zip(names, named, strict=True):
        (x, y), turn = 1.05 * place[i], np.degrees(angle[i])
        left = x < -1e-9
        ax.text(x, y, text, rotation=turn + 180 if left else turn, rotation_mode="anchor",
                ha="right" if left else "left", va="center", fontsize=size)  # fmt: skip
    reach = 1.05 + 0.0061 * size * max(map(len, names))
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.set_axis_off()
    note = f", {len(named)} of {n} named" if len(named) < n else ""
    few = f", the {_LINES} strongest drawn" if len(chosen) > _LINES else ""
    noun = table.attrs.get("task", "task")
    ax.set_title(
        f"{len(chosen)} of {len(a)} pairs of {noun}s whose sign is certain to {sure:.0%}{few}{note}",
        loc="left",
        fontsize=10,
    )
    key = "blue: alike   ·   red, dashed: opposite   ·   width: how strong"
    ax.annotate(key, (0, 0), xycoords="axes fraction", fontsize=8, color=GREY)
    return ax


def _named(angle: FloatArray, lines: IntArray) -> IntArray:
    """Return which tasks there is room to name on the circle, those with most lines first."""
    if len(angle) <= LABELS_UP_TO:
        return np.arange(len(angle))
    room = 2 * np.pi / LABELS_UP_TO
    found: list[int] = []
    for i in np.argsort(-lines, kind="stable"):
        apart = np.abs((angle[found] - angle[i] + np.pi) % (2 * np.pi) - np.pi)
        if (apart >= room).all():
            found.append(int(i))
    return np.array(found)
