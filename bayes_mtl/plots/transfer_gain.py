"""Who gains from the others, and who is hurt, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.plots._common import (
    BLUE,
    MAX_ROWS,
    RED,
    FigureSize,
    at_most,
    beyond,
    limits,
    row_axes,
    table_of,
    title_rows,
)
from bayes_mtl.summaries.transfer_gain import transfer_gain


def plot_transfer_gain(
    found: xr.DataTree | xr.Dataset,
    *,
    tasks: Sequence[Label] | None = None,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw what each task gains by learning together, in log density over its rows.

    Points right of zero gain; bars are one and two standard errors of the paired difference. Tasks that the
    audit calls hurt are orange, those that contradict the others have a cross. Of more than 60 tasks, the 30
    that gain least are drawn, and 30 of the others, evenly spaced in the order of their gains.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or (so that nothing is fitted twice) what `transfer_gain` returned.
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
    >>> mtl.plot_transfer_gain(mtl.transfer_gain(idata))  # doctest: +SKIP
    """
    table = table_of(found, "transfer_gain", transfer_gain, "gain", "gain_se", "verdict")
    total = table.sizes["task"]
    table = table.isel(task=task_positions(table["task"].to_numpy(), tasks))
    gain = table["gain"].to_numpy()
    order = np.argsort(-gain, kind="stable")
    table = table.isel(task=at_most(order[::-1], first=MAX_ROWS // 2)[::-1])
    gain, se, hurt = (table[name].to_numpy() for name in ("gain", "gain_se", "hurt"))
    contradicts = np.array([w.startswith("contradicts") for w in table["verdict"].to_numpy().astype(str)])
    ax, at = row_axes(ax, table["task"].to_numpy(), figsize)
    ax.axvline(0.0, color="0.3", linewidth=1.0)
    for mask, colour in ((~hurt, BLUE), (hurt, RED)):
        ax.hlines(at[mask], (gain - 2 * se)[mask], (gain + 2 * se)[mask], color=colour, linewidth=1.0)
        ax.hlines(at[mask], (gain - se)[mask], (gain + se)[mask], color=colour, linewidth=2.5)
        ax.plot(gain[mask], at[mask], "o", color=colour, markersize=5)
    ax.plot(gain[contradicts], at[contradicts], "x", color="white", markersize=4, markeredgewidth=1.2)
    low, high = limits(gain, 0.0)
    for mask, colour in ((~hurt, BLUE), (hurt, RED)):
        beyond(ax, gain[mask], at[mask], low, high, colour=colour)
    ax.set_xlabel(
        "gain over learning alone (log predictive density, summed over the task's rows)", fontsize=9
    )
    shown = f" ({len(gain)} of {total} tasks)" if len(gain) < total else ""
    note = f"orange: hurt ({int(hurt.sum())})   ·   cross: contradicts the others   ·   bars: 1 and 2 se"
    title_rows(ax, f"What each {table.attrs.get('task', 'task')} gains{shown}", note)
    return ax
