"""`report`: from a fit to a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayes_mtl.data import TaskData
from bayes_mtl.errors import SpecError
from bayes_mtl.inference.attributes import data_of, schema_of, spec_of
from bayes_mtl.inference.diagnostics import kept
from bayes_mtl.plots import (
    plot_clusters,
    plot_coefficients,
    plot_pooling,
    plot_task_correlation,
    plot_task_fit,
    plot_transfer_gain,
)
from bayes_mtl.report import html
from bayes_mtl.report.words import model_equations, structure_in_words
from bayes_mtl.structures import CompletePooling, NoPooling, TaskMixture
from bayes_mtl.summaries import clusters, pooling, summary, task_correlation, transfer_gain

_PAIRS = 8


def report(
    idata: xr.DataTree,
    path: str | Path,
    *,
    title: str | None = None,
    question: str = "",
    gain: xr.Dataset | None = None,
    max_refits: int = 0,
) -> Path:
    """Write one HTML page: data, model, diagnostics, how tasks relate, who is hurt, how to repeat it.

    The page holds its pictures and needs no network, follows the reader's light or dark setting, and prints.

    Parameters
    ----------
    idata : DataTree
        What `fit` or `load` returned.
    path : str or Path
        File to write.
    title : str, optional
        Default: outcome and tasks.
    question : str
        What the fit was made to answer, in a sentence or two.
    gain : Dataset, optional
        What `transfer_gain` returned, if it is at hand. Otherwise it is computed for Gaussian outcomes; for
        others it would take two more fits, and is left out.
    max_refits : int
        Of the audit made here, see `transfer_gain`; each takes some seconds.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> mtl.report(idata, "report.html", question="Which schools are alike?")  # doctest: +SKIP
    """
    import matplotlib as mpl

    schema = schema_of(idata)
    noun = schema.task or "outcome"
    if gain is None and spec_of(idata).family.gaussian_coefficients:
        gain = transfer_gain(idata, max_refits=max_refits)
    with mpl.rc_context({"font.family": "sans-serif", "figure.max_open_warning": 0}):
        sections = [
            ("Data", _data(idata)),
            ("Model", _model(idata)),
            ("Can the draws be trusted?", _diagnosis(idata)),
            ("The population of tasks", _population(idata)),
            ("How do the tasks relate?", _relations(idata)),
            ("Who leans on whom?", _pooling(idata)),
            ("Who gains, who is hurt?", _gain(gain)),
            ("Predictions beside the data", _fit(idata)),
            ("How to repeat it", _repeat(idata)),
        ]
    heading = title or f"{schema.outcome or 'Outcomes'} by {noun}"
    text = html.page(heading, sections, html.paragraph(question, "quiet") if question else "")
    path = Path(path)
    path.write_text(text, encoding="utf-8")
    return path


def _data(idata: xr.DataTree) -> str:
    data, schema = data_of(idata), schema_of(idata)
    counts = data.rows_per_task
    noun = schema.task or "outcome"
    rows = (
        f"{data.n_rows:,} rows of {data.n_tasks:,} tasks ({noun}): between {counts.min()} and "
        f"{counts.max()} rows a task, {int(np.median(counts))} in the middle."
    )
    parts = [("outcome", schema.outcome or ", ".join(map(str, schema.outcomes)))]
    parts += [("coefficients by task", ", ".join(data.features))]
    if data.shared_features:
        parts.append(("one slope for all", ", ".join(data.shared_features)))
    if data.task_feature_names:
        parts.append(("known of the tasks", ", ".join(data.task_feature_names)))
    described = pd.DataFrame(parts, columns=["", "columns"])
    return html.paragraph(rows) + html.table(described, index=False) + _outcome_of(data)


def _outcome_of(data: TaskData) -> str:
    values = np.unique(data.y)
    if len(values) == 2 and set(values) <= {0.0, 1.0}:
        return html.paragraph(f"{data.y.mean():.1%} of the outcomes are 1.")
    low, high = np.quantile(data.y, [0.05, 0.95])
    return html.paragraph(
        f"The outcome has mean {data.y.mean():.3g} and standard deviation {data.y.std():.3g}; nine in "
        f"ten lie between {low:.3g} and {high:.3g}."
    )


def _model(idata: xr.DataTree) -> str:
    spec, data = spec_of(idata), data_of(idata)
    text = html.equations(model_equations(spec, data)) + html.paragraph(structure_in_words(spec))
    outside = spec.outside(data.features)
    if outside and spec.task_covariance.relates_tasks:
        text += html.paragraph(
            f"Outside the task covariance, independent across tasks: {', '.join(outside)}."
        )
    return text


def _diagnosis(idata: xr.DataTree) -> str:
    found = kept(idata)
    lines = str(found).splitlines()
    kind = "note warn" if found.problems else "note"
    return "".join(html.paragraph(line.strip(), kind) for line in lines)


def _population(idata: xr.DataTree) -> str:
    found = summary(idata)
    keep = [c for c in found.columns if not str(c).startswith("mcse")]
    whole = {"ess_bulk": "{:.0f}", "ess_tail": "{:.0f}", "r_hat": "{:.3f}"}
    return html.table(
        pd.DataFrame({c: pd.Series(found[c]).map(whole.get(str(c), "{:.3g}").format) for c in keep})
    )


def _relations(idata: xr.DataTree) -> str:
    spec = spec_of(idata)
    structure = spec.task_covariance
    if isinstance(structure, TaskMixture) and "cluster_mean" in idata["posterior"]:
        found = clusters(idata)
        groups = found["partition"].to_series()
        named = [
            f"{k}: {', '.join(map(str, members.index))}"
            for k, members in groups.groupby(groups)
            if len(members)
        ]
        text = html.paragraph(
            "Kinds of tasks, by one division that puts the fewest pairs wrongly together or apart:"
        )
        text += "".join(html.paragraph(line) for line in named)
        drawn = plot_clusters(found).figure
        return text + html.figure(drawn, "How likely two tasks are of one kind; lines divide the kinds.")
    if isinstance(structure, CompletePooling):
        return html.paragraph(
            "All tasks have the same coefficients: there is nothing between them to relate."
        )
    try:
        relations = task_correlation(idata, "structural" if structure.relates_tasks else "functions")
    except SpecError as err:
        text = html.paragraph(f"There are no correlations of tasks to show: {err.findings[0]}")
        drawn = plot_coefficients(idata)[0].figure
        return text + html.figure(drawn, "The tasks' coefficients.")
    return _correlations(relations, idata)


def _correlations(relations: xr.Dataset, idata: xr.DataTree) -> str:
    what = {
        "structural": "Correlations of the tasks' deviations from the population.",
        "functions": "Correlations of what two tasks predict over rows of the data.",
    }[relations.attrs["kind"]]
    contraction = float(np.nanmedian(relations["contraction"]))
    added = "next to nothing" if contraction < 0.1 else "something" if contraction < 0.5 else "a good deal"
    replicates = relations.attrs["n_replicates"]
    text = html.paragraph(what)
    text += html.paragraph(
        f"The data added {added} to the prior: the median contraction is {max(contraction, 0):.0%} "
        f"(0%: as wide as the prior, 100%: known exactly), from {replicates} replicates.",
        "note",
    )
    table = relations.to_dataframe()
    sure = table.assign(sure=(table["p_positive"] - 0.5).abs())
    sure = sure.sort_values("sure", ascending=False).head(_PAIRS)
    prob = relations.attrs["ci_prob"]
    shown = pd.DataFrame(
        {
            "task": sure["task_a"].astype(str),
            "other task": sure["task_b"].astype(str),
            "mean": sure["mean"].map("{:.2f}".format),
            f"{prob:.0%} interval": [
                f"[{a:.2f}, {b:.2f}]" for a, b in zip(sure["lower"], sure["upper"], strict=True)
            ],
            "P(rho > 0)": sure["p_positive"].map("{:.3f}".format),
        }
    )
    text += html.paragraph("The surest pairs:") + html.table(shown, index=False)
    caption = "Colour: the mean correlation. A full tile has a certain sign, a dot could be either."
    text += html.figure(plot_task_correlation(relations).figure, caption)
    drawn = plot_coefficients(idata)[0].figure
    return text + html.figure(
        drawn, "The tasks' coefficients: mean, middle half, interval; line: population."
    )


def _pooling(idata: xr.DataTree) -> str:
    structure = spec_of(idata).task_covariance
    if isinstance(structure, TaskMixture):
        return html.paragraph("Tasks lean on those of their own kind.")
    try:
        found = pooling(idata)
    except SpecError as err:
        return html.paragraph(f"Not looked at: {err.findings[0]}")
    text = html.paragraph(found.attrs["words"])
    if isinstance(structure, CompletePooling | NoPooling):
        return text
    rows = found["borrowed_rows"].to_series()
    text += html.paragraph(
        f"What a task learns from the others is worth {rows.median():.0f} more rows of its own in the middle "
        f"of all tasks, {rows.min():.0f} where it is worth least and {rows.max():.0f} where it is worth most."
    )
    caption = "Arrows lead from what the task's own rows say (least squares) to what is learned together."
    return text + html.figure(plot_pooling(found).figure, caption)


def _gain(gain: xr.Dataset | None) -> str:
    if gain is None:
        return html.paragraph("Not looked at: it takes two more fits here. Pass gain=transfer_gain(idata).")
    verdicts = gain["verdict"].to_series()
    text = "".join(
        html.paragraph(f"{name}: {len(members)} of {len(verdicts)}{_names(members)}.")
        for name, members in verdicts.groupby(verdicts)
    )
    total, hurt = float(gain["gain"].sum()), bool((gain["hurt"] | gain["hurts_others"]).any())
    over_pooled = float(gain["gain_over_pooled"].sum())
    text += html.paragraph(
        f"In all, learning together is worth {total:.1f} in log predictive density over learning alone, and "
        f"{over_pooled:.1f} over one model for all."
    )
    text += html.paragraph(gain.attrs["remedy"], "note warn" if hurt else "note")
    return text + html.figure(plot_transfer_gain(gain).figure, "What each task gains over learning alone.")


def _names(members: Any) -> str:
    return f" ({', '.join(map(str, members.index))})" if len(members) <= 12 else ""


def _fit(idata: xr.DataTree) -> str:
    caption = (
        "Bars: where the mean of as many new outcomes would lie. Points: the observed mean, red if outside."
    )
    return html.figure(plot_task_fit(idata).figure, caption)


def _repeat(idata: xr.DataTree) -> str:
    spec, posterior = spec_of(idata), idata["posterior"]
    size = f"{posterior.sizes['chain']} chains x {posterior.sizes['draw']} draws"
    version = idata.attrs.get("modeling_interface_version", "")
    seconds = float(idata.attrs.get("sampling_time", float("nan")))
    text = html.paragraph(
        f"bayes_mtl {version}, {size}, sampled in {seconds:.0f} s. The description of the model:"
    )
    return text + html.code(spec.to_toml())
