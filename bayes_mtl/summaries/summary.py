"""The numbers that matter, and whether they can be trusted."""

from __future__ import annotations

from typing import Any

import pandas as pd
import xarray as xr

from bayes_mtl.arguments import truth
from bayes_mtl.data.groupings import named
from bayes_mtl.inference.attributes import schema_of, spec_of
from bayes_mtl.inference.diagnostics import kept, unique_elements
from bayes_mtl.summaries.correlation import interval_probability

_SHOWN = (
    "beta_mean",
    "beta_shared",
    "task_feature_effects",
    "feature_sd",
    "feature_sd_scale",
    "feature_corr",
    "task_sd",
    "sigma",
    "sigma_mean",
    "sigma_spread",
)


class Summary(pd.DataFrame):
    """ArviZ's summary table that says below what the diagnostics found."""

    _metadata = ["diagnosis"]  # noqa: RUF012

    diagnosis: Any = None

    @property
    def _constructor(self) -> type[Summary]:
        return Summary

    def __str__(self) -> str:
        words = f"\n\n{self.diagnosis}" if self.diagnosis is not None else ""
        return self.to_string(formatters=_formatters(self)) + words

    __repr__ = __str__

    def _repr_html_(self) -> str:
        words = f"<pre>{self.diagnosis}</pre>" if self.diagnosis is not None else ""
        return self.to_html(formatters=_formatters(self)) + words


def _formatters(table: pd.DataFrame) -> dict[Any, Any]:
    """Show as many digits as are known: the table itself keeps them all."""
    digits = {
        "ess_bulk": "{:z.0f}",
        "ess_tail": "{:z.0f}",
        "r_hat": "{:z.3f}",
        "mcse_mean": "{:z.1g}",
        "mcse_sd": "{:z.1g}",
    }
    return {c: digits.get(str(c), "{:z.3g}").format for c in table.columns}


def summary(idata: xr.DataTree, *, ci_prob: float | None = None, coefficients: bool = False) -> Summary:
    """Summarise the hyperparameters, each free number once, with the diagnostics in words.

    Where none is left to learn, the coefficients (of many, a spread-out sample).

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    ci_prob : float, optional
        Probability of the interval; default ArviZ's ``stats.ci_prob``.
    coefficients : bool
        Also list every task's coefficients, and the effects of the levels of groupings. Correlations of
        tasks are not listed; see `task_correlation`.

    Returns
    -------
    Summary
        A data frame with ArviZ's columns; its attribute ``diagnosis`` says what the checks found, and
        is printed below the table.

    Examples
    --------
    >>> mtl.summary(idata)  # doctest: +SKIP
    """
    import arviz_stats  # loads slowly

    spec = spec_of(idata)  # says so if this is not a fit of ours
    ci_prob, coefficients = interval_probability(ci_prob), truth("coefficients", coefficients)
    posterior = idata["posterior"].to_dataset()
    groupings = schema_of(idata).groupings
    shown = [*_SHOWN, *spec.task_covariance.parameters]
    shown += spec.feature_scales.parameters if spec.feature_scales else ()
    for grouping in groupings:
        keys = ("feature_sd", "feature_sd_scale", "feature_corr", *spec.levels_of(grouping).parameters)
        shown += [named(grouping, key) for key in keys]
    if "cluster_mean" in posterior:  # where the centres of clusters lie says little of the point around
        shown.remove("beta_mean")
    names = [n for n in shown if n in posterior]
    names += ["beta", *(named(g, "beta") for g in groupings)] if coefficients else []
    elements = unique_elements(posterior[names], limit=None)
    if not elements.data_vars:  # all hyperparameters are fixed
        elements = unique_elements(posterior[["beta"]] if "beta" in posterior else posterior)
    columns = {}
    for name, values in elements.data_vars.items():
        axis = f"{name}_element"
        for label in values[axis].to_numpy():
            columns[str(label)] = values.sel({axis: label}, drop=True)
    table = arviz_stats.summary(xr.Dataset(columns), ci_prob=ci_prob)
    out = Summary(pd.DataFrame(table))
    out.diagnosis = kept(idata)
    return out
