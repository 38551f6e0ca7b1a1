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
from bayes_mtl.summaries.contraction import contraction_in_words, prior_in_words
from bayes_mtl.summaries.pair_draws import Kind

PAIRS_SHOWN = 8  # of each sign
COEFFICIENTS_SHOWN = 24
ELEMENTS_SHOWN = 24
SURE = 0.9  # probability of a sign from which on a pair is listed under it
LITTLE = 0.1  # contraction
_MOVED = 0.5  # standard deviations of the prior
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


def surest_pairs(
    relations: xr.Dataset, *, positive: bool, limit: int = PAIRS_SHOWN, least: float = SURE
) -> pd.DataFrame:
    """Return the pairs of tasks whose correlation most probably has one sign, the most probable first.

    Parameters
    ----------
    relations : Dataset
        What `task_correlation` returned.
    positive : bool
        Which sign.
    limit : int
        Number of pairs at most.
    least : float
        Smallest probability of the sign: other pairs are left out.

    Returns
    -------
    DataFrame
        Text, ready to be printed.
    """
    p = relations["p_positive"].to_numpy()
    at = np.flatnonzero(p >= least if positive else p <= 1.0 - least)
    # Pairs that look equally sure in print are put in the order of their size.
    sign = 1.0 if positive else -1.0
    keys = (-sign * relations["mean"].to_numpy()[at], -sign * p[at].round(3))
    table = relations.isel(pair=at[np.lexsort(keys)][:limit])
    return pd.DataFrame(
        {
            "task": [str(t) for t in table["task_a"].to_numpy()],
            "other task": [str(t) for t in table["task_b"].to_numpy()],
            "mean": [f"{v:z.2f}" for v in table["mean"].to_numpy()],
            interval_name(relations.attrs["ci_prob"]): intervals(
                table["lower"].to_series(), table["upper"].to_series(), "{:z.2f}".format
            ),
            "P(rho>0)": [f"{v:z.3f}" for v in table["p_positive"].to_numpy()],
            "prior mean ± sd": [
                prior_in_words(m, s)
                for m, s in zip(table["prior_mean"].to_numpy(), table["prior_sd"].to_numpy(), strict=True)
            ],
            "contraction": [contraction_in_words(v) for v in table["contraction"].to_numpy()],
        }
    )


def most_probable_sign(relations: xr.Dataset, *, positive: bool) -> str:
    """Say that no pair surely has this sign, and which is the most probable to have it."""
    sign = "positive" if positive else "negative"
    p = relations["p_positive"].to_numpy() if positive else 1.0 - relations["p_positive"].to_numpy()
    best = relations.isel(pair=int(np.argmax(p)))
    none = f"No correlation is {sign} with a probability of {SURE:.0%}."
    if p.max() < 0.005:
        return none
    pair = f"{best['task_a'].item()} and {best['task_b'].item()}"
    return f"{none} The most probable one is that of {pair}, with a probability of {p.max():.0%}."


def data_added(relations: xr.Dataset) -> str:
    """Return how far the data changed the law of the median correlation.

    Returns
    -------
    {"nothing", "something", "much", "moved", "unknown"}
        "moved": the law is hardly narrower, but lies elsewhere (by half a standard deviation of the prior at
        least). "unknown": the prior has no spread to be compared with.
    """
    narrower = relations["contraction"].to_numpy()
    narrower = narrower[np.isfinite(narrower)]
    if not len(narrower):
        return "unknown"
    shift = (relations["mean"] - relations["prior_mean"]).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = np.abs(shift) / relations["prior_sd"].to_numpy()
    middle = float(np.median(narrower))
    if middle < LITTLE:
        return "moved" if np.median(shift[np.isfinite(shift)]) >= _MOVED or middle < -LITTLE else "nothing"
    return "something" if middle < 0.5 else "much"


def what_data_added(relations: xr.Dataset) -> str:
    """Say how the data changed the prior of the correlations, and why not more."""
    text = f"{_change(relations)}{_without_contraction(relations)}"
    n_replicates = int(relations.attrs["n_replicates"])
    if relations.attrs["kind"] == "functions":
        return f"{text} Predictions of two tasks are compared over {n_replicates} rows."
    if n_replicates >= _FEW_REPLICATES:
        return f"{text} Two tasks are compared across {n_replicates} coefficients."
    coefficients = "1 coefficient" if n_replicates == 1 else f"{n_replicates} coefficients"
    text = f"{text} Two tasks are compared across {coefficients} only, and few features are few replicates:"
    if relations.attrs["kind"] == "structural":
        return f"{text} a structural correlation stays uncertain however many rows there are."
    return (
        f"{text} read a correlation as 'departs from the average in the same (opposite) direction', no finer."
    )


_ADDED = {
    "nothing": "The data added next to nothing",
    "something": "The data narrowed the prior somewhat",
    "much": "The data narrowed the prior a good deal",
    "moved": "The data moved the correlations, and hardly narrowed them",
}


def _change(relations: xr.Dataset) -> str:
    """Say what the data added, with medians over the pairs of prior and posterior."""
    n_pairs, kind = relations.sizes["pair"], data_added(relations)
    pairs = "1 pair" if n_pairs == 1 else f"the {n_pairs:,} pairs"
    before, after = (float(relations[name].median()) for name in ("prior_mean", "mean"))
    if kind == "unknown":
        return (
            f"The prior states the correlations of {pairs} (median {before:z.2f}) with hardly any spread, so "
            f"there is no contraction to report. The median of the posterior means is {after:z.2f}."
        )
    middle = float(np.nanmedian(relations["contraction"].to_numpy()))
    text = (
        f"{_ADDED[kind]}: the median contraction from prior to posterior over {pairs} is "
        f"{contraction_in_words(middle)} (0%: as wide as the prior; 100%: known exactly). The median of the "
        f"prior means is {before:z.2f}, of the posterior means {after:z.2f}."
    )
    pair = relations.isel(pair=int(np.nanargmin(relations["contraction"].to_numpy())))
    if float(pair["contraction"]) > -LITTLE:
        return text
    wider = int((relations["contraction"] < 0).sum())
    a, b = pair["task_a"].item(), pair["task_b"].item()
    was, now = (
        prior_in_words(float(pair[mean]), float(pair[sd]))
        for mean, sd in (("prior_mean", "prior_sd"), ("mean", "sd"))
    )
    return (
        f"{text} A negative contraction ({wider:,} of {pairs}) says that the posterior is wider than the "
        "prior: the data disagree with the prior and leave more doubt than it had. The correlation of "
        f"{a} and {b} went from {was} to {now}."
    )


def _without_contraction(relations: xr.Dataset) -> str:
    """Say how many pairs have no contraction, if some do."""
    n = int(relations["contraction"].isnull().sum())
    if n in (0, relations.sizes["pair"]):
        return ""
    return f" {n:,} pairs have no contraction, because their prior has hardly any spread."


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
            "P(>0)": table["p_positive"].map("{:z.3f}".format),
        }
    )


def shorten(table: pd.DataFrame, limit: int = ELEMENTS_SHOWN) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep the first elements of each parameter; return how many of which are left out."""
    names = pd.Series([str(label).partition("[")[0] for label in table.index])
    keep = (names.groupby(names).cumcount() < limit).to_numpy()
    return table[keep], names[~keep].value_counts().to_dict()


def readable_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return ArviZ's summary as text, without the columns that only an expert looks at."""
    formats = {"ess_bulk": "{:z.0f}".format, "ess_tail": "{:z.0f}".format, "r_hat": "{:z.3f}".format}
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
    return f"{100 * ci_prob:z.3g}% interval"


def intervals(lower: pd.Series, upper: pd.Series, number: Any) -> list[str]:
    """Write intervals as text."""
    return [f"[{number(a)}, {number(b)}]" for a, b in zip(lower, upper, strict=True)]


def _sentence(finding: Finding) -> str:
    return f"{finding.where} {finding.problem}."
