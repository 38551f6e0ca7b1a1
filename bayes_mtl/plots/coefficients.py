"""The coefficients of every task with their uncertainty, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import schema_of
from bayes_mtl.plots._common import BLUE, MAX_ROWS, ORANGE, bare, label_rows, rows_height
from bayes_mtl.summaries.correlation import interval_probability


def plot_coefficients(
    idata: xr.DataTree, features: Sequence[str] | None = None, *, ci_prob: float | None = None
) -> Any:
    """Draw every task's coefficients, one column per feature.

    Points are posterior means, bars equal-tailed intervals (thin) and their middle half (thick), the line
    is the population mean. Tasks are in the order of the first feature drawn.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    features : sequence of str, optional
        Which coefficients; default the first four.
    ci_prob : float, optional
        Probability of the interval; default ArviZ's ``stats.ci_prob``.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        One per feature.

    Raises
    ------
    SpecError
        If there is no such feature.

    Examples
    --------
    >>> mtl.plot_coefficients(idata, ["standLRT"])  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    prob = interval_probability(ci_prob)
    posterior = idata["posterior"].to_dataset()
    known = [str(f) for f in posterior["feature"].to_numpy()]
    chosen = known[:4] if features is None else [features] if isinstance(features, str) else list(features)
    if unknown := [f for f in chosen if f not in known]:
        raise SpecError(Finding("features", f"{unknown} are not among {known}"))
    beta = posterior["beta"].sel(feature=chosen)
    mean = beta.mean(("chain", "draw")).transpose("task", "feature").to_numpy()
    order = np.argsort(-mean[:, 0], kind="stable")
    if len(order) > MAX_ROWS:
        order = order[np.linspace(0, len(order) - 1, MAX_ROWS).astype(int)]
    levels = [(1 - prob) / 2, 0.25, 0.75, (1 + prob) / 2]
    bounds = beta.quantile(levels, ("chain", "draw")).transpose("quantile", "task", "feature").to_numpy()
    n, total = len(order), len(mean)
    figure, all_axes = plt.subplots(
        1, len(chosen), figsize=(2.2 + 2.6 * len(chosen), rows_height(n)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    at = np.arange(n)
    for j, (name, ax) in enumerate(zip(chosen, all_axes[0], strict=True)):
        low, inner_low, inner_high, high = bounds[:, order, j]
        if "beta_mean" in posterior:
            centre = posterior["beta_mean"].sel(feature=name).mean()
            ax.axvline(float(centre), color=ORANGE, linewidth=1.5)
        ax.hlines(at, low, high, color=BLUE, linewidth=1.0)
        ax.hlines(at, inner_low, inner_high, color=BLUE, linewidth=2.5)
        ax.plot(mean[order, j], at, "o", color=BLUE, markersize=4)
        bare(ax)
        ax.set_xlabel(name, fontsize=9)
    label_rows(all_axes[0, 0], posterior["task"].to_numpy()[order])
    noun = schema_of(idata).task or "outcome"
    shown = f" ({n} of {total})" if n < total else ""
    figure.suptitle(
        f"Coefficients by {noun}{shown}: mean, middle half and {prob:.0%} interval; line: population mean",
        x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return all_axes[0]
