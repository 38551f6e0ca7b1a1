"""How far each task's coefficients are pulled towards the others, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.plots._common import (
    BLUE,
    GREY,
    ORANGE,
    FigureSize,
    at_most,
    beyond,
    limits,
    name,
    row_axes,
    table_of,
)
from bayes_mtl.summaries.pooling import pooling


def plot_pooling(
    found: xr.DataTree | xr.Dataset,
    feature: str | None = None,
    *,
    tasks: Sequence[Label] | None = None,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw an arrow per task, from what its own rows say to what is learned together.

    Of more than 60 tasks, 60 are drawn that are evenly spaced in the order of their coefficients.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or what `pooling` returned.
    feature : str, optional
        Which coefficient; default the one that is pulled furthest, relative to its spread.
    tasks : sequence of labels, optional
        Only these tasks.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SpecError
        If there is no such feature.

    Examples
    --------
    >>> mtl.plot_pooling(idata, "standLRT")  # doctest: +SKIP
    """
    table = table_of(found, "pooling", pooling, "feature", "together", "alone")
    features = [str(f) for f in table["feature"].to_numpy()]
    if feature is None:
        pulled = abs(table["together"] - table["alone"]).median("task") / table["together"].std("task")
        feature = features[int(np.nanargmax(np.nan_to_num(pulled.to_numpy(), nan=-1.0)))]
    if feature not in features:
        raise SpecError(Finding("feature", f"should be one of {features}, found {feature!r}"))
    table = table.sel(feature=feature)
    total = table.sizes["task"]
    table = table.isel(task=task_positions(table["task"].to_numpy(), tasks))
    order = np.argsort(-table["together"].to_numpy(), kind="stable")
    table = table.isel(task=at_most(order))
    alone, together = table["alone"].to_numpy(), table["together"].to_numpy()
    rows = zip(table["task"].to_numpy(), table["n_rows"].to_numpy(), strict=True)
    ax, at = row_axes(ax, [f"{name(t)}  ({n})" for t, n in rows], figsize)
    if "population" in table:
        ax.axvline(float(table["population"]), color=ORANGE, linewidth=1.5, label="population mean")
    low, high = _limits(alone, together)
    for t in np.flatnonzero(np.isfinite(alone)):
        start, end = np.clip((alone[t], together[t]), low, high)
        ax.annotate("", (end, t), (start, t), arrowprops={"arrowstyle": "->", "color": GREY})
    ax.set_xlim(low, high)
    inside = (alone > low) & (alone < high)
    ring = {"color": "white", "markeredgecolor": GREY, "markersize": 5}
    ax.plot(alone[inside], at[inside], "o", label="own rows alone", **ring)
    outside = np.isfinite(alone) & ~inside
    if outside.any():
        edge = np.clip(alone[outside], low, high)
        ax.plot(edge, at[outside], "D", color=GREY, markersize=4, clip_on=False, label="alone, further out")
    ax.plot(together, at, "o", color=BLUE, markersize=5, label="together")
    beyond(ax, together, at, low, high, colour=BLUE)
    ax.set_xlabel(f"coefficient of {feature}", fontsize=9)
    ax.set_ylabel(f"{table.attrs.get('task', 'task')} (rows)", fontsize=9)
    shown = f" ({len(together)} of {total} tasks)" if len(together) < total else ""
    factor = float(table["factor"].mean())
    ax.set_title(
        f"{feature}: {factor:.0%} decided by the other tasks{shown}", loc="left", fontsize=11, pad=26
    )
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, frameon=False, fontsize=8,
              borderaxespad=0.2, handletextpad=0.3)  # fmt: skip
    return ax


def _limits(alone: FloatArray, together: FloatArray) -> tuple[float, float]:
    """Return limits that leave out what a few rows say at random: arrows then begin at the edge."""
    known = alone[np.isfinite(alone)]
    return limits(
        together, *(np.clip(np.quantile(known, [0.05, 0.95]), *limits(known)) if len(known) else ())
    )
