"""Which features matter, and for which tasks, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.plots._common import LABELS_UP_TO, colour_bar, frame, label_size
from bayes_mtl.summaries.features import feature_selection


def plot_feature_selection(found: xr.DataTree | xr.Dataset, *, ax: Any = None) -> Any:
    """Draw how probably each task uses each feature, and how little each feature is shrunk.

    Left, the darker, the surer that the task uses the feature. Right, the part of what the data say that is
    not taken away, 1 - kappa, with its interval; the tick is its mean under the prior. Features are in this
    order.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or what `feature_selection` returned.
    ax : sequence of two matplotlib Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    ndarray of matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_feature_selection(idata)  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    table = found if isinstance(found, xr.Dataset) else feature_selection(found)
    table = table.isel(feature=np.argsort(table["shrinkage"].to_numpy(), kind="stable"))
    features = [str(f) for f in table["feature"].to_numpy()]
    tasks = [str(t) for t in table["task"].to_numpy()]
    n, size = len(features), label_size(max(len(features), len(tasks)), 10.0)
    if ax is None:
        width = float(np.clip(0.17 * len(tasks) + 1.5, 2.5, 10.0))
        shape = (width + 4.0, float(np.clip(0.25 * n + 1.4, 3.0, 13.0)))
        ratios = {"width_ratios": (width, 2.5)}
        _, ax = plt.subplots(
            1, 2, figsize=shape, sharey=True, layout="constrained", squeeze=True, gridspec_kw=ratios
        )
    left, right = ax
    picture = left.imshow(
        table["p_used"].transpose("feature", "task").to_numpy(),
        cmap="Blues",
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
        aspect="auto",
    )
    for set_ticks, labels, turn in ((left.set_xticks, tasks, 90), (left.set_yticks, features, 0)):
        shown = labels if len(labels) <= LABELS_UP_TO else []
        set_ticks(range(len(shown)), shown, rotation=turn, fontsize=size)
    left.set_xlabel(f"{table.attrs.get('task', 'task')} ({len(tasks)})", fontsize=9)
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
        f"{float(table['n_effective']):.1f} matter ({low:.1f} to {high:.1f})", loc="right", fontsize=9
    )
    for axes in ax:
        frame(axes)
    return np.array([left, right])
