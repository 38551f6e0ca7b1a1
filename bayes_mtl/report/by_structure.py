"""The answers that belong to a structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayes_mtl.errors import SpecError
from bayes_mtl.inference.attributes import spec_of
from bayes_mtl.inference.diagnostics import unique_elements
from bayes_mtl.plots import (
    plot_basis,
    plot_clusters,
    plot_coefficients,
    plot_feature_selection,
    plot_prior_posterior,
    plot_task_correlation,
)
from bayes_mtl.plots._common import off_screen
from bayes_mtl.plots.basis import CONVERGED
from bayes_mtl.plots.coefficients import MAX_PANELS
from bayes_mtl.report.answers import (
    COEFFICIENTS_SHOWN,
    PAIRS_SHOWN,
    SURE,
    coefficient_table,
    interval_name,
    intervals,
    most_probable_sign,
    readable_coefficients,
    relations_of,
    short_number,
    surest_pairs,
    what_data_added,
)
from bayes_mtl.structures import Kernel, SparseBasis, StudentT, TaskMixture
from bayes_mtl.summaries import basis, clusters, feature_selection, task_correlation
from bayes_mtl.summaries.contraction import contraction, contraction_in_words
from bayes_mtl.summaries.correlation import Kind, interval_probability

_TASKS_SHOWN = 30
_FAR = 0.25  # a reliability whose task deviates twice as far as one with a reliability of 1
_FEATURES_SHOWN = 6
_APART = 0.3  # chains that differ by more than this in who is together found different divisions

# Parameters of a structure, in words; those that are not here are for the table of hyperparameters only.
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "rho": "how much of the known relatedness the data believe (0: nothing, 1: all of it)",
        "lengthscale": "how far apart tasks may be and still be alike, in the units of their positions",
        "level_share": "what part of the variance of the coefficients the groups of a level share; 'own' is "
        "what is left to each task alone",
        "gating_sd": "how much what is known of tasks says of their cluster, in log odds for one standard "
        "deviation of it (0: nothing)",
        "direction_scale": "how far the tasks of a group vary along its directions, relative to all others",
    }
)


Target = Path | IO[bytes]


@dataclass(frozen=True)
class Answer:
    """A part of what a fit has to say.

    Attributes
    ----------
    heading : str
    text : list of str
        Paragraphs.
    tables : list of (title, DataFrame of text)
    files : mapping from name to (what it is, function that writes it to a path or an open file)
    """

    heading: str
    text: list[str] = field(default_factory=list)
    tables: list[tuple[str, pd.DataFrame]] = field(default_factory=list)
    files: Mapping[str, tuple[str, Callable[[Target], Any]]] = field(default_factory=dict)


def answers(idata: xr.DataTree, kind: Kind | None = None) -> list[Answer]:
    """Return what a fit says about its tasks, the most important first.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    kind : str, optional
        Which correlation of tasks to show, if not the usual one.

    Returns
    -------
    list of Answer
    """
    prob = interval_probability(None)
    structure = spec_of(idata).task_covariance
    out = particular_answers(idata, prob)
    relations, reason = relations_of(idata, kind)
    if relations is not None:
        out.append(pairs_of_tasks(relations))
    ordered = isinstance(structure, Kernel) and structure.positions is not None
    show = relations is None and not isinstance(structure, TaskMixture)
    heading = "Coefficients of the tasks" if out else "How the tasks relate"
    out.append(coefficients(idata, prob, heading, reason if not out else "", show=show, ordered=ordered))
    return out


def particular_answers(idata: xr.DataTree, prob: float) -> list[Answer]:
    """Return what only some structures have to say."""
    structure, out = spec_of(idata).task_covariance, []
    if "cluster_mean" in idata["posterior"]:
        out.append(kinds_of_tasks(idata))
    if isinstance(structure, StudentT):
        out.append(unlike_the_others(idata, prob))
    if spec_of(idata).feature_scales is not None:
        out.append(features_that_matter(idata))
    if any(name in MEANINGS for name in structure.parameters):
        out.append(what_was_known(idata, prob))
    if isinstance(getattr(structure, "inner", structure), SparseBasis):
        out.append(basis_tasks(idata))
    return out


def basis_tasks(idata: xr.DataTree) -> Answer:
    """Say which tasks use which basis tasks."""
    found = basis(idata)
    share, loading = found["share"].to_numpy(), found["loading"]
    explained, r_hat = float(found["shared"].mean()), float(found.attrs["r_hat"])
    text = [
        f"Each task is a combination of basis tasks; they explain {explained:.0%} of what tasks deviate by. "
        "Their order and signs are arbitrary."
    ]
    if r_hat > CONVERGED:
        text.append(
            f"Chains disagree on the basis tasks (R-hat {r_hat:z.2f}): do not read their numbers, only how "
            "tasks relate."
        )
    rows = []
    for k, number in enumerate(found["factor"].to_numpy()):
        sure = (found["loading_lower"][:, k] > 0) | (found["loading_upper"][:, k] < 0)
        users = loading[:, k].to_series()[sure.to_numpy()].sort_values(key=abs, ascending=False)
        signed = [f"{task} ({size:+z.2f})" for task, size in users.items()]
        rows.append({"basis task": str(number), "share": f"{share[k]:.0%}", "surely used by": _some(signed)})
    table = loading.to_dataframe().reset_index()
    return Answer(
        "Which tasks use which basis tasks",
        text,
        [("Tasks whose loading is surely not zero, the largest first", pd.DataFrame(rows))],
        {
            "basis.csv": ("every task's loadings", partial(_write_table, table)),
            "basis.png": ("the same as a picture", partial(_draw, partial(plot_basis, found))),
        },
    )


def effects_of_levels(idata: xr.DataTree, grouping: str, prob: float) -> list[Answer]:
    """Say what each level of a grouping adds, the largest first, and how levels relate if that is learned."""
    table = coefficient_table(idata, prob, grouping)
    table = table.sort_values(["feature", "mean"], ascending=[True, False], kind="stable")
    readable = readable_coefficients(table, prob)
    title = f"The first {len(readable)} of {len(table)}" if len(readable) < len(table) else ""
    files: dict[str, tuple[str, Callable[[Target], Any]]] = {
        f"{grouping}_effects.csv": (f"the effects of every {grouping}", partial(_write_table, table))
    }
    if table["feature"].nunique() <= MAX_PANELS:
        draw = partial(plot_coefficients, idata, grouping=grouping)
        files[f"{grouping}_effects.png"] = ("the same as a picture", partial(_draw, draw))
    out = [Answer(f"What is added by each {grouping}", [], [(title, readable)], files)]
    if spec_of(idata).levels_of(grouping).relates_tasks:
        try:
            relations = task_correlation(idata, grouping=grouping)
        except SpecError as err:
            found = f"How they relate is not shown: {err.findings[0]}"
            out.append(Answer(f"How levels of {grouping} relate", [found]))
        else:
            out.append(pairs_of_tasks(relations, grouping))
    return out


def features_that_matter(idata: xr.DataTree) -> Answer:
    """Say which features all tasks use, some, or none, for scales decided together."""
    found = feature_selection(idata)
    table = found.drop_dims("task").to_dataframe().reset_index()
    users = found["p_used"] >= found.attrs["sure"]
    shown = pd.DataFrame(
        {
            "feature": table["feature"].astype(str),
            "used by": table["used_by"].astype(str),
            "tasks": [
                "" if used.all() else _some([str(t) for t in found["task"].to_numpy()[used]])
                for used in users.to_numpy().T
            ],
            "mean effect": table["effect"].map(short_number),
            "shrinkage": table["shrinkage"].map("{:z.2f}".format),
        }
    )
    text = [
        f"A task uses a feature if the effect of one standard deviation of it exceeds {found.attrs['delta']} "
        f"of the outcome's with probability {found.attrs['sure']:z.2f}. Shrinkage is how much of what the "
        "rows say of a coefficient is taken away: near 1 where a feature plays no role."
    ]
    return Answer(
        "Which features matter",
        text,
        [("", shown)],
        {
            "features.csv": ("which features matter", partial(_write_table, table)),
            "features.png": ("the same as a picture", partial(_draw, partial(plot_feature_selection, found))),
        },
    )


def kinds_of_tasks(idata: xr.DataTree) -> Answer:
    """Say who is with whom, for a mixture."""
    found = clusters(idata)
    number = found["n_clusters"].to_series()
    likely = ", ".join(
        f"{count} with probability {p:z.2f}"
        for count, p in number.sort_values(ascending=False).items()
        if p >= 0.05
    )
    text = [
        f"Number of clusters in use: {likely}. Below is the one division that is least wrong on average; "
        "certainty is how likely a task is with the others of its cluster."
    ]
    if found.sizes["kind"] == 1:
        text.append("All tasks are best put together: the data do not call for several kinds.")
    if float(found["co_clustering_range"].max()) > _APART:
        text.append(
            "Chains found different divisions: look at co_clustering_range of mtl.clusters before you rely "
            "on this one."
        )
    columns = [c for c in ("partition", "certainty", "with_new_task") if c in found]
    table = found[columns].to_dataframe().reset_index().rename(columns={"partition": "cluster"})
    members = pd.DataFrame(
        {
            "cluster": str(number),
            "tasks": len(group),
            "least certain": f"{group['certainty'].min():.0%}",
            "members": _some(group["task"].astype(str).tolist()),
        }
        for number, group in table.groupby("cluster")
    )
    kinds = pd.DataFrame({"cluster": [str(k) for k in found["kind"].to_numpy()]})
    for name in found["gate"].to_numpy() if "known" in found else ():
        kinds[f"mean {name}"] = [short_number(v) for v in found["known"].sel(gate=name).to_numpy()]
    for feature in found["feature"].to_numpy()[:_FEATURES_SHOWN]:
        part = found.sel(feature=feature)
        means = part["coefficient"].to_series().map(short_number)
        lower, upper = (part[f"coefficient_{end}"].to_series() for end in ("lower", "upper"))
        kinds[str(feature)] = [
            f"{mean} {ends}" for mean, ends in zip(means, intervals(lower, upper, short_number), strict=True)
        ]
    return Answer(
        "Kinds of tasks",
        text,
        [("One division", members), ("Average coefficients of each cluster, with intervals", kinds)],
        {
            "clusters.csv": ("every task's cluster", partial(_write_table, table)),
            "clusters.png": ("who is with whom, as a picture", partial(_draw, partial(plot_clusters, found))),
        },
    )


def unlike_the_others(idata: xr.DataTree, prob: float) -> Answer:
    """Say which tasks are unlike the others, for `StudentT`."""
    draws = {
        group: idata[group]["task_reliability"].transpose("task", "chain", "draw").to_numpy()
        for group in ("prior", "posterior")
    }
    flat = draws["posterior"].reshape(len(draws["posterior"]), -1)
    lower, upper = np.quantile(flat, [(1 - prob) / 2, (1 + prob) / 2], axis=1)
    tasks = idata["posterior"]["task"].to_numpy()
    table = pd.DataFrame(
        {
            "task": tasks,
            "mean": flat.mean(axis=1),
            "lower": lower,
            "upper": upper,
            "p_far": (flat < _FAR).mean(axis=1),
        }
    ).sort_values("p_far", ascending=False, kind="stable")
    before = float((draws["prior"] < _FAR).mean())
    shown = table.head(_TASKS_SHOWN)
    readable = pd.DataFrame(
        {
            "task": shown["task"].astype(str),
            "reliability": shown["mean"].map(short_number),
            interval_name(prob): intervals(shown["lower"], shown["upper"], short_number),
            f"P(<{_FAR:g})": shown["p_far"].map("{:z.2f}".format),
        }
    )
    text = (
        f"A reliability below {_FAR:g} says that a task deviates at least twice as far as one with a "
        f"reliability of 1. Before the data the probability of that was {before:z.2f} for each task."
    )
    files: dict[str, tuple[str, Callable[[Target], Any]]] = {
        "task_reliability.csv": ("how much each task is like the others", partial(_write_table, table))
    }
    return Answer(
        "Is a task unlike the others?", [text], [("The most unlike the others first", readable)], files
    )


def what_was_known(idata: xr.DataTree, prob: float) -> Answer:
    """Say how far the data believe what the structure knew of the tasks."""
    names = [n for n in spec_of(idata).task_covariance.parameters if n in MEANINGS]
    after, before = (
        unique_elements(idata[group].to_dataset()[names], limit=None) for group in ("posterior", "prior")
    )
    rows = []
    for name, values in after.data_vars.items():
        axis = f"{name}_element"
        for label in values[axis].to_numpy():
            new = values.sel({axis: label}).to_numpy().ravel()
            old = before[name].sel({axis: label}).to_numpy().ravel()
            lower, upper = np.quantile(new, [(1 - prob) / 2, (1 + prob) / 2])
            rows.append(
                (label, new.mean(), lower, upper, old.mean(), contraction(new.std(), old.std()).item())
            )
    table = pd.DataFrame(rows, columns=["parameter", "mean", "lower", "upper", "prior_mean", "contraction"])
    readable = pd.DataFrame(
        {
            "parameter": table["parameter"],
            "mean": table["mean"].map(short_number),
            interval_name(prob): intervals(table["lower"], table["upper"], short_number),
            "prior mean": table["prior_mean"].map(short_number),
            "contraction": table["contraction"].map(contraction_in_words),
        }
    )
    text = [f"{n}: {MEANINGS[n]}." for n in names]
    text.append(
        "contraction: how much narrower the posterior is than the prior (0%: as wide; below 0%: wider, "
        "because the data moved the parameter to where it is less certain: compare the means)."
    )
    return Answer(
        "How far do the data follow what is known of the tasks?",
        text,
        [("Parameters of the structure", readable)],
        {
            "structure.png": (
                "the same before and after the data, as a picture",
                partial(_draw, partial(plot_prior_posterior, idata, names)),
            )
        },
    )


def pairs_of_tasks(relations: xr.Dataset, grouping: str | None = None) -> Answer:
    """Say which pairs of tasks, or of levels of a grouping, are related with some certainty."""
    n_pairs = relations.sizes["pair"]
    text, tables = [what_data_added(relations)], []
    noun = "tasks" if grouping is None else f"levels of {grouping}"
    prefix = "task" if grouping is None else grouping
    for positive, sign in ((True, "Positive"), (False, "Negative")):
        pairs = surest_pairs(relations, positive=positive)
        if not len(pairs):
            text.append(most_probable_sign(relations, positive=positive))
            continue
        first = f", the {len(pairs)} most probable of them first" if len(pairs) == PAIRS_SHOWN else ""
        tables.append((f"{sign} correlations (probability of the sign {SURE:.0%} at least{first})", pairs))
    return Answer(
        f"How the {noun} relate",
        text,
        tables,
        {
            f"{prefix}_correlation.csv": (
                f"all {n_pairs} pairs, kind {relations.attrs['kind']!r}",
                lambda path: _write_table(relations.to_dataframe(), path),  # large: made when it is written
            ),
            f"{prefix}_correlation.png": (
                "the same as a picture",
                partial(_draw, partial(plot_task_correlation, relations)),
            ),
        },
    )


def coefficients(
    idata: xr.DataTree, prob: float, heading: str, reason: str, *, show: bool, ordered: bool
) -> Answer:
    """List every task's coefficients; in words only where nothing else answers the question."""
    table = coefficient_table(idata, prob)
    text, tables = [reason] if reason else [], []
    if show:
        more = len(table) - COEFFICIENTS_SHOWN
        title = f"The first of them; {more} more rows in task_coefficients.csv" if more > 0 else ""
        tables.append((title, readable_coefficients(table, prob)))
    files: dict[str, tuple[str, Callable[[Target], Any]]] = {
        "task_coefficients.csv": ("every task's coefficients", partial(_write_table, table))
    }
    if idata["posterior"].sizes["feature"] <= MAX_PANELS:
        draw = partial(plot_coefficients, idata, order="label" if ordered else "value")
        files["task_coefficients.png"] = ("the same as a picture", partial(_draw, draw))
    return Answer(heading if text or tables else "", text, tables, files)


def _some(names: list[str], limit: int = 8) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _write_table(table: pd.DataFrame, path: Target) -> None:
    table.to_csv(path, index=False)


def _draw(plot: Callable[[], Any], path: Target) -> None:
    with off_screen():
        figure = np.atleast_1d(plot())[0].figure
    figure.savefig(path, format="png", dpi=110)
