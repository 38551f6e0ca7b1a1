"""What the data said of a structure's own parameters, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import spec_of
from bayes_mtl.inference.diagnostics import unique_elements
from bayes_mtl.plots._common import FigureSize, before_and_after, name, name_list
from bayes_mtl.plots._common import panels as new_panels

_BINS = 40


def plot_prior_posterior(
    idata: xr.DataTree,
    names: Sequence[str] | None = None,
    *,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw draws of hyperparameters before (grey) and after the data (blue), one panel per number.

    Where the two look alike, the data said nothing.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    names : sequence of str, optional
        Hyperparameters, as in ``idata["posterior"]``. Default: those of the structure of tasks, for example
        `rho`, or `level_share`.
    ax : sequence of matplotlib Axes, optional
        Where to draw, one per panel; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        One per panel.

    Raises
    ------
    SpecError
        If there is nothing to draw, or a name is not in the fit.

    Examples
    --------
    >>> mtl.plot_prior_posterior(idata, ["sigma"])  # doctest: +SKIP
    """
    structure = spec_of(idata).task_covariance
    prior, posterior = idata["prior"].to_dataset(), idata["posterior"].to_dataset()
    chosen = (
        [n for n in structure.parameters if n in posterior] if names is None else name_list("names", names)
    )
    if unknown := [n for n in chosen if n not in posterior or n not in prior]:
        known = ", ".join(str(n) for n in posterior if n in prior)
        raise SpecError(Finding("names", f"has {unknown}, which are not in the fit", f"Known: {known}"))
    if not chosen:
        hint = "Pass `names`, for example ['feature_sd']"
        raise SpecError(
            Finding("names", f"{type(structure).__name__} has no parameters that are worth reading", hint)
        )
    after, before = (unique_elements(group[chosen], limit=None) for group in (posterior, prior))
    panels = [
        (str(label), values.sel({f"{name}_element": label}), before[name].sel({f"{name}_element": label}))
        for name, values in after.data_vars.items()
        for label in values[f"{name}_element"].to_numpy()
    ]
    rows = -(-len(panels) // 4)
    columns = min(len(panels), 4)
    axes = new_panels(ax, rows, columns, (2.6 * columns + 0.4, 2.1 * rows), figsize, needed=len(panels))
    for each, (label, *draws) in zip(axes, panels, strict=False):
        new, old = (values.to_numpy().ravel() for values in draws)
        low = min(np.quantile(old, 0.02), new.min())
        high = max(np.quantile(old, 0.95), np.quantile(new, 0.995))
        before_and_after(each, old, new, np.linspace(low, high, _BINS + 1))
        each.set_title(name(label), fontsize=9)
        each.tick_params(labelsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    for each in axes[len(panels) :] if ax is None else ():
        each.set_visible(False)
    return axes[: len(panels)]
