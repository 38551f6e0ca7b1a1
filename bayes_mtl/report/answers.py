"""What a fit has to say, as tables and plain sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayes_mtl.data.groupings import named
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import spec_of
from bayes_mtl.structures import CompletePooling, SparsePrecision, TaskMixture, Tree
from bayes_mtl.structures.known import KnownRelatedness
from bayes_mtl.summaries import task_correlation
from bayes_mtl.summaries.correlation import Kind

PAIRS_SHOWN = 8  # of each sign
COEFFICIENTS_SHOWN = 24
ELEMENTS_SHOWN = 24
_FEW_REPLICATES = 10


def relations_of(idata: xr.DataTree, kind: Kind | None = None) -> tuple[xr.Dataset | None, str]:
    """Return the correlations of tasks, or None and the reason.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    kind : str, optional
        As in `task_correlation`. Default: the one that belongs to the structure, if any.

    Returns
    -------
    relations : Dataset or None
        What `task_correlation` returned.
    reason : str
        Why there are none; empty if there are.
    """
    structure = spec_of(idata).task_covariance
    name = type(structure).__name__
    if isinstance(structure, CompletePooling):
        return (
            None,
            f"{name} gives all tasks the same coefficients, so there are no relations between tasks to show.",
        )
    if kind is None and isinstance(structure, KnownRelatedness | Tree):
        return None, f"How tasks relate is known beforehand under {name}."
    if kind is None and isinstance(structure, TaskMixture):
        return None, f"What relates tasks under {name} is the component that they are in."
    if kind is None and not structure.relates_tasks:
        return None, (
            f"{name} takes the tasks as draws from one population and learns no correlations between them; "
            "here are their coefficients instead."
        )
    try:
        usual: Kind = "partial" if isinstance(structure, SparsePrecision) else "structural"
        return task_correlation(idata, kind or usual), ""
    except SpecError as err:
        return None, f"There are no relations between tasks to show: {_sentence(err.findings[0])}"


def surest_pairs(relations: xr.Dataset, *, positive: bool, limit: int = PAIRS_SHOWN) -> pd.DataFrame:
    """Return the pairs of tasks whose correlation is most surely of one sign, the surest first.

    Parameters
    ----------
    relations : Dataset
        What `task_correlation` returned.
    positive : bool
        Which sign.
    limit : int
        Number of pairs at most. Pairs that rather have the other sign are left out.

    Returns
    -------
    DataFrame
        Text, ready to be printed.
    """
    table = relations.to_dataframe()
    table = table[table["p_positive"] > 0.5] if positive else table[table["p_positive"] < 0.5]
    # Pairs that look equally sure in print are put in the order of their size.
    table = table.assign(rounded=table["p_positive"].round(3))
    table = table.sort_values(["rounded", "mean"], ascending=not positive, kind="stable").head(limit)
    return pd.DataFrame(
        {
            "task": table["task_a"].astype(str),
            "other task": table["task_b"].astype(str),
            "mean": table["mean"].map("{:.2f}".format),
            interval_name(relations.attrs["ci_prob"]): intervals(
                table["lower"], table["upper"], "{:.2f}".format
            ),
            "P(rho>0)": table["p_positive"].map("{:.3f}".format),
            "contraction": table["contraction"].map("{:.0%}".format),
        }
    )


def what_data_added(relations: xr.Dataset) -> str:
    """Say how much the data narrowed the prior of the correlations, and why it is not more."""
    contraction = relations["contraction"].to_numpy()
    contraction = contraction[np.isfinite(contraction)]
    n_pairs, n_replicates = relations.sizes["pair"], int(relations.attrs["n_replicates"])
    if len(contraction):
        middle = float(np.median(contraction))
        size = "next to nothing" if middle < 0.1 else "something" if middle < 0.5 else "a good deal"
        pairs = "1 pair" if n_pairs == 1 else f"the {n_pairs} pairs"
        moved = middle < -0.1
        added = "The data moved them to where they are less certain" if moved else f"The data added {size}"
        text = (
            f"{added}: the median contraction from prior to posterior over {pairs} "
            f"is {middle:.0%} (0%: as wide as the prior; 100%: known exactly)."
        )
    else:
        text = "What the data added cannot be said: the prior has no spread."
    if relations.attrs["kind"] == "functions":
        return f"{text} What two tasks predict was compared over {n_replicates} rows."
    if n_replicates >= _FEW_REPLICATES:
        return f"{text} Two tasks are compared across {n_replicates} coefficients."
    coefficients = "1 coefficient" if n_replicates == 1 else f"{n_replicates} coefficients"
    text = f"{text} Two tasks are compared across {coefficients} only, and few features are few replicates:"
    if relations.attrs["kind"] == "structural":
        return f"{text} a structural correlation stays uncertain however many rows there are."
    return (
        f"{text} read a correlation as 'departs from the average in the same (opposite) direction', no finer."
    )


def coefficient_table(idata: xr.DataTree, ci_prob: float, grouping: str | None = None) -> pd.DataFrame:
    """Return the posterior of every task's coefficients, one row per task and feature.

    With a grouping: of the effects of its levels.
    """
    name, task, feature = "beta", "task", "feature"
    if grouping is not None:
        name, task, feature = named(grouping, "beta"), grouping, named(grouping, "feature")
    draws = idata["posterior"][name].transpose(task, feature, "chain", "draw")
    values = draws.to_numpy().reshape(*draws.shape[:2], -1)
    tasks, features = draws[task].to_numpy(), draws[feature].to_numpy()
    lower, upper = np.quantile(values, [(1 - ci_prob) / 2, (1 + ci_prob) / 2], axis=-1)
    return pd.DataFrame(
        {
            task: np.repeat(tasks, len(features)),
            "feature": np.tile(features, len(tasks)),
            "mean": values.mean(axis=-1).ravel(),
            "sd": values.std(axis=-1).ravel(),
            "lower": lower.ravel(),
            "upper": upper.ravel(),
            "p_positive": (values > 0).mean(axis=-1).ravel(),
        }
    )


def readable_coefficients(
    table: pd.DataFrame, ci_prob: float, limit: int = COEFFICIENTS_SHOWN
) -> pd.DataFrame:
    """Return the first rows of a coefficient table as text."""
    table = table.head(limit)
    task = str(table.columns[0])
    return pd.DataFrame(
        {
            task: table[task].astype(str),
            "feature": table["feature"].astype(str),
            "mean": table["mean"].map(short_number),
            "sd": table["sd"].map(short_number),
            interval_name(ci_prob): intervals(table["lower"], table["upper"], short_number),
            "P(>0)": table["p_positive"].map("{:.3f}".format),
        }
    )


def shorten(table: pd.DataFrame, limit: int = ELEMENTS_SHOWN) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep the first elements of each parameter; return how many of which are left out."""
    names = pd.Series([str(label).partition("[")[0] for label in table.index])
    keep = (names.groupby(names).cumcount() < limit).to_numpy()
    return table[keep], names[~keep].value_counts().to_dict()


def readable_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return ArviZ's summary as text, without the columns that only an expert looks at."""
    formats = {"ess_bulk": "{:.0f}".format, "ess_tail": "{:.0f}".format, "r_hat": "{:.3f}".format}
    shown = [c for c in table.columns if not str(c).startswith("mcse")]
    return pd.DataFrame({c: pd.Series(table[c]).map(formats.get(str(c), short_number)) for c in shown})


def short_number(value: float) -> str:
    """Return three significant digits, without an exponent where it can be helped."""
    if not np.isfinite(value) or value == 0:
        return f"{value:g}"
    decimals = 2 - int(np.floor(np.log10(abs(value))))
    return f"{value:.{min(max(decimals, 0), 3)}f}" if 1e-3 <= abs(value) < 1e6 else f"{value:.2e}"


def interval_name(ci_prob: float) -> str:
    """Name the column of an interval."""
    return f"{100 * ci_prob:.3g}% interval"


def intervals(lower: pd.Series, upper: pd.Series, number: Any) -> list[str]:
    """Write intervals as text."""
    return [f"[{number(a)}, {number(b)}]" for a, b in zip(lower, upper, strict=True)]


def _sentence(finding: Finding) -> str:
    return f"{finding.where} {finding.problem}."
