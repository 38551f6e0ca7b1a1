"""Which features matter, and for which tasks, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.plots._common import FigureSize, colour_bar, frame, panels, table_of, ticks
from bayes_mtl.summaries.features import feature_selection


def plot_feature_selection(
    found: xr.DataTree | xr.Dataset,
    *,
    tasks: Sequence[Label] | None = None,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw how probably each task uses each feature, and how little each feature is shrunk.

    Left, the darker, the surer that the task uses the feature. Right, the part of what the data say that is
    not taken away, 1 - kappa, with its interval; the tick is its mean under the prior. Features are in this
    order.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or what `feature_selection` returned.
    tasks : sequence of labels, optional
        Only these tasks.
    ax : sequence of two matplotlib Axes, optional
        Where to draw; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    ndarray of matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_feature_selection(idata)  # doctest: +SKIP
    """
    table = table_of(found, "feature_selection", feature_selection, "shrinkage", "p_used")
    table = table.isel(feature=np.argsort(table["shrinkage"].to_numpy(), kind="stable"))
    table = table.isel(task=task_positions(table["task"].to_numpy(), tasks))
    features = [str(f) for f in table["feature"].to_numpy()]
    shown = [str(t) for t in table["task"].to_numpy()]
    n = len(features)
    width = float(np.clip(0.17 * len(shown) + 1.5, 2.5, 10.0))
    shape = (width + 4.0, float(np.clip(0.25 * n + 1.4, 3.0, 13.0)))
    ratios = {"width_ratios": (width, 2.5)}
    left, right = panels(ax, 1, 2, shape, figsize, sharey=True, gridspec_kw=ratios)
    picture = left.imshow(
        table["p_used"].transpose("feature", "task").to_numpy(),
        cmap="Blues",
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
        aspect="auto",
    )
    ticks(left.set_yticks, features, most=10.0)
    note = ticks(left.set_xticks, shown, most=10.0, rotation=90)
    left.set_xlabel(f"{table.attrs.get('task', 'task')} ({len(shown)}{note})", fontsize=9)
    counts = [int((table["used_by"] == label).sum()) for label in ("all tasks", "some tasks", "no task")]
    left.set_title("Used by all tasks: {}, some: {}, none: {}".format(*counts), loc="left", fontsize=9)
    colour_bar(left, picture, f"P(|effect| > {table.attrs.get('delta', 0.1):g})", location="left")

    at = np.arange(n)
    right.hlines(
        at, 1.0 - table["shrinkage_upper"], 1.0 - table["shrinkage_lower"], color="C0", linewidth=1.5
    )
    right.plot(1.0 - table["shrinkage"], at, "o", color="C0", markersize=5)
    right.plot(1.0 - table["shrinkage_prior"], at, "|", color="0.5", markersize=9)
    right.set_xlim(-0.02, 1.02)
    right.set_xlabel("1 - shrinkage (tick: prior)", fontsize=9)
    low, high = float(table["n_effective_lower"]), float(table["n_effective_upper"])
    right.set_title(
        f"{float(table['n_effective']):z.1f} matter ({low:z.1f} to {high:z.1f})", loc="right", fontsize=9
    )
    for axes in (left, right):
        frame(axes)
    return np.array([left, right])
