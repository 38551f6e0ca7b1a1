"""Every task's coefficients, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.data.groupings import named
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.inference.attributes import check_grouping, schema_of, spec_of
from bayes_mtl.plots._common import LABELS_UP_TO, FigureSize, beyond, limits, name_list, ticks
from bayes_mtl.plots._common import panels as new_panels
from bayes_mtl.structures import NoPooling, TaskMixture
from bayes_mtl.summaries.correlation import interval_probability

MAX_PANELS = 6
_POINT, _INTERVAL, _AVERAGE = "#1f4e79", "#8fb3d9", "0.55"


def plot_coefficients(
    idata: xr.DataTree,
    features: Sequence[str] | None = None,
    *,
    tasks: Sequence[Label] | None = None,
    order: str = "value",
    ci_prob: float | None = None,
    grouping: str | None = None,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw the posterior of every task's coefficients, one panel per feature.

    A dot is the posterior mean, a line the equal-tailed interval; the dashed line is the population mean
    (under mixtures and `NoPooling`, which have none, and with task features, on which it depends, the average
    of the tasks). Where tasks have a
    reliability (`StudentT`), a last panel shows it. Tasks whose labels are numbers, in the order of their
    labels, are drawn along the horizontal axis. Of more than 80 tasks all are drawn, and 40 that are evenly
    spaced in this order are named. Triangles at the edge are tasks too far away to be drawn to scale.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    features : sequence of str, optional
        Default: the first six.
    tasks : sequence of labels, optional
        Only these tasks.
    order : {"value", "label"}
        Tasks by the coefficient of the first panel, or as in the data.
    ci_prob : float, optional
        Probability of the interval; default ArviZ's ``stats.ci_prob``.
    grouping : str, optional
        Draw the effects of the levels of this grouping instead, around zero; `tasks` then names levels.
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
        If a feature or the grouping is not in the fit, or `order` is neither.

    Examples
    --------
    >>> mtl.plot_coefficients(idata, ["Intercept"])  # doctest: +SKIP
    """
    spec, schema = spec_of(idata), schema_of(idata)
    posterior = idata["posterior"].to_dataset()
    if grouping is not None:
        check_grouping(idata, grouping)
        renamed = {named(grouping, "beta"): "beta", grouping: "task", named(grouping, "feature"): "feature"}
        posterior = posterior[[named(grouping, "beta")]].rename(renamed)
    posterior = posterior.isel(task=task_positions(posterior["task"].to_numpy(), tasks))
    known = [str(f) for f in posterior["feature"].to_numpy()]
    drawn = known[:MAX_PANELS] if features is None else name_list("features", features)
    findings = []
    if unknown := [f for f in drawn if f not in known]:
        findings.append(Finding("features", f"names {unknown}, which are not among {known}"))
    if order not in ("value", "label"):
        findings.append(Finding("order", f"should be 'value' or 'label', found {order!r}"))
    raise_if_any(findings, SpecError)
    panels = {f: posterior["beta"].sel(feature=f) for f in drawn}
    if "task_reliability" in posterior:
        panels["task_reliability"] = posterior["task_reliability"]

    prob = interval_probability(ci_prob)
    values = {name: _mean_and_interval(draws, prob) for name, draws in panels.items()}
    labels = posterior["task"].to_numpy()
    across = order == "label" and np.issubdtype(labels.dtype, np.number)
    at = np.arange(len(labels)) if order == "label" else np.argsort(values[drawn[0]][0], kind="stable")
    n, k = len(labels), len(panels)
    if across:
        axes = new_panels(ax, k, 1, (6.4, 1.6 * k + 0.8), figsize, sharex=True)
    else:
        height = float(np.clip(0.17 * n + 1.3, 2.2, 13.0)) if n <= LABELS_UP_TO else 8.0
        axes = new_panels(ax, 1, k, (1.5 + 2.3 * k, height), figsize, sharey=True)
    noun = f"{grouping or schema.task or 'outcome'} ({n})"
    without_mean = isinstance(spec.task_covariance, TaskMixture | NoPooling)
    one_population = "beta_mean" in posterior and not (without_mean or schema.task_design)
    for ax, (feature, (mean, lower, upper)) in zip(axes, values.items(), strict=False):
        if feature == "task_reliability":
            average = 1.0
        elif grouping is not None:
            average = 0.0
        else:
            average = float(
                posterior["beta_mean"].sel(feature=feature).mean() if one_population else mean.mean()
            )
        title = "reliability" if feature == "task_reliability" else feature
        ax.spines[["top", "right"]].set_visible(False)
        if across:
            x = labels.astype(float)
            ax.fill_between(x, lower, upper, color=_INTERVAL, alpha=0.5, linewidth=0)
            ax.plot(x, mean, "o-", color=_POINT, markersize=3, linewidth=1)
            ax.axhline(average, color=_AVERAGE, linestyle="--", linewidth=0.8)
            ax.set_title(title, loc="left", fontsize=9)
        else:
            y = np.arange(n)
            ax.hlines(y, lower[at], upper[at], color=_INTERVAL, linewidth=1.6 if n <= LABELS_UP_TO else 0.4)
            ax.plot(mean[at], y, "o", color=_POINT, markersize=3.2 if n <= LABELS_UP_TO else 0.8)
            ax.axvline(average, color=_AVERAGE, linestyle="--", linewidth=0.8)
            ax.set_title(title, fontsize=9)
            low, high = limits(np.concatenate([mean, lower, upper]), average)
            beyond(ax, mean[at], y, low, high, colour=_POINT)
            ax.locator_params(axis="x", nbins=4)
        ax.tick_params(labelsize=8)
    dashed = "population mean" if one_population else "average" if grouping is None else "no effect"
    legend = f"dot: mean   ·   line: {prob:.0%} interval   ·   dashed: {dashed}"
    if across:
        axes[-1].set_xlabel(f"{noun}\n{legend}", fontsize=9)
    else:
        note = ticks(axes[0].set_yticks, labels[at], most=8.0)
        axes[0].set_ylabel(noun.removesuffix(")") + note + ")", fontsize=9)
        axes[0].set_ylim(-0.7, n - 0.3)
        axes[0].figure.supxlabel(legend, fontsize=8)
    return axes


def _mean_and_interval(draws: xr.DataArray, prob: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    values = draws.transpose("task", "chain", "draw").to_numpy()
    values = values.reshape(len(values), -1)
    lower, upper = np.quantile(values, [(1 - prob) / 2, (1 + prob) / 2], axis=1)
    return values.mean(axis=1), lower, upper
