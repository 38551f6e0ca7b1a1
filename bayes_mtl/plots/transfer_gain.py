"""Who gains from the others, and who is hurt, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.inference.hyperdraws import evenly_spaced
from bayes_mtl.plots._common import BLUE, GREY, MAX_ROWS, RED, axes, bare, label_rows, rows_height
from bayes_mtl.summaries.transfer_gain import transfer_gain


def plot_transfer_gain(found: xr.DataTree | xr.Dataset, *, ax: Any = None) -> Any:
    """Draw what each task gains by learning together, in log density over its rows.

    Points right of zero gain; bars are one and two standard errors of the paired difference. Tasks that the
    audit calls hurt are orange, those that contradict the others have a cross.

    Parameters
    ----------
    found : DataTree or Dataset
        What `fit` returned, or (so that nothing is fitted twice) what `transfer_gain` returned.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_transfer_gain(mtl.transfer_gain(idata))  # doctest: +SKIP
    """
    table = found if isinstance(found, xr.Dataset) else transfer_gain(found)
    total = table.sizes["task"]
    gain = table["gain"].to_numpy()
    order = np.argsort(-gain, kind="stable")
    if total > MAX_ROWS:  # the most hurt, and a sample of the others
        worst = order[-MAX_ROWS // 2 :]
        spread = evenly_spaced(total - len(worst), MAX_ROWS - len(worst))
        order = np.concatenate([order[spread], worst])
    table = table.isel(task=order)
    gain, se, hurt = (table[name].to_numpy() for name in ("gain", "gain_se", "hurt"))
    contradicts = np.array([w.startswith("contradicts") for w in table["verdict"].to_numpy().astype(str)])
    at = np.arange(len(gain))
    ax = axes(ax, 6.4, rows_height(len(gain)))
    ax.axvline(0.0, color="0.3", linewidth=1.0)
    for mask, colour in ((~hurt, BLUE), (hurt, RED)):
        ax.hlines(at[mask], (gain - 2 * se)[mask], (gain + 2 * se)[mask], color=colour, linewidth=1.0)
        ax.hlines(at[mask], (gain - se)[mask], (gain + se)[mask], color=colour, linewidth=2.5)
        ax.plot(gain[mask], at[mask], "o", color=colour, markersize=5)
    ax.plot(gain[contradicts], at[contradicts], "x", color="white", markersize=4, markeredgewidth=1.2)
    label_rows(ax, table["task"].to_numpy())
    bare(ax)
    ax.set_xlabel(
        "gain over learning alone (log predictive density, summed over the task's rows)", fontsize=9
    )
    shown = f" ({len(gain)} of {total} tasks)" if len(gain) < total else ""
    ax.set_title(f"What each {table.attrs.get('task', 'task')} gains{shown}", loc="left", fontsize=11, pad=20)
    note = f"orange: hurt ({int(hurt.sum())})   ·   cross: contradicts the others   ·   bars: 1 and 2 se"
    ax.annotate(note, (0, 1), xytext=(0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=8,
                color=GREY)  # fmt: skip
    return ax
