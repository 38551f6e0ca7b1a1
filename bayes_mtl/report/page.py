"""`report`: from a fit to a page."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayes_mtl.arguments import file_path, truth, whole_number
from bayes_mtl.data import TaskData
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.inference.attributes import data_of, given_spec_of, reads_data_once, schema_of, spec_of
from bayes_mtl.inference.diagnostics import kept
from bayes_mtl.inference.row_correlation import row_correlation
from bayes_mtl.plots import (
    plot_coefficients,
    plot_pooling,
    plot_task_fit,
    plot_transfer_gain,
)
from bayes_mtl.plots._common import off_screen
from bayes_mtl.progress import progress
from bayes_mtl.report import html
from bayes_mtl.report.answers import data_added, readable_summary, relations_of
from bayes_mtl.report.by_structure import Answer, effects_of_levels, pairs_of_tasks, particular_answers
from bayes_mtl.report.words import data_in_code, model_equations, structure_in_words
from bayes_mtl.structures import CompletePooling, NoPooling, OrthogonalGroups, SparsePrecision, TaskMixture
from bayes_mtl.summaries import pooling, summary, task_fit, transfer_gain
from bayes_mtl.summaries.contraction import contraction_in_words
from bayes_mtl.summaries.correlation import Kind, interval_probability
from bayes_mtl.summaries.task_fit import CHECKS, misfit_in_words, p_value_in_words

_KINDS = {
    "structural": "the correlations that the structure learns",
    "partial": "the partial correlations that the structure learns",
    "functions": "correlations of what tasks predict, over rows of the data",
    "coefficients": "correlations of the tasks' coefficients, in units of their spread",
}


@reads_data_once
def report(
    idata: xr.DataTree,
    path: str | Path,
    *,
    title: str | None = None,
    question: str = "",
    kind: Kind | None = None,
    gain: xr.Dataset | None = None,
    max_refits: int = 0,
    progressbar: bool = True,
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
    kind : str, optional
        Which correlations of tasks to show, as in `task_correlation`. Default: those of the structure if the
        data say anything of them, otherwise those of what tasks predict, or of their coefficients.
    gain : Dataset, optional
        What `transfer_gain` returned, if it is at hand. Otherwise it is computed for Gaussian outcomes (in
        seconds; with groupings, feature scales or noise per task by two more fits); for others it would
        take two more fits too, and is left out.
    max_refits : int
        Of the audit made here, see `transfer_gain`; each takes some seconds.
    progressbar : bool
        Show progress if it takes more than two seconds.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SpecError
        Before anything is computed, if `gain` is of another fit, `kind` is not one, or the folder is missing.

    Examples
    --------
    >>> mtl.report(idata, "report.html", question="Which schools are alike?")  # doctest: +SKIP
    """
    import matplotlib as mpl

    spec, schema, path = spec_of(idata), schema_of(idata), file_path(path)
    max_refits, progressbar = whole_number("max_refits", max_refits), truth("progressbar", progressbar)
    texts = {"title": title, "question": question}
    bad = [
        Finding(n, f"should be text, found {v!r}") for n, v in texts.items() if not isinstance(v, str | None)
    ]
    raise_if_any(bad, SpecError)
    _check(idata, kind, gain, path)
    noun = schema.task or "outcome"
    several = idata["posterior"].sizes["task"] > 1

    def gained() -> str:
        if not several:
            return html.paragraph("There is one task only.")
        if gain is None and spec.family.gaussian_coefficients:
            return _gain(transfer_gain(idata, max_refits=max_refits))
        return _gain(gain)

    parts: dict[str, Callable[[], str]] = {
        "Data": lambda: _data(idata),
        "Model": lambda: _model(idata),
        "Can the draws be trusted?": lambda: _diagnosis(idata),
        "The population of tasks": lambda: _population(idata),
        "How do the tasks relate?": lambda: _relations(idata, kind),
        **{f"What is added by each {name}": partial(_levels, idata, name) for name in schema.groupings},
        "Who leans on whom?": lambda: _pooling(idata),
        "Who gains, who is hurt?": gained,
        "Posterior predictive checks": lambda: _fit(idata),
        "How to repeat it": lambda: _repeat(idata),
    }
    sections = []
    with (
        progress("sections of the report", len(parts), show=progressbar) as done,
        mpl.rc_context({"font.family": "sans-serif"}),
        off_screen(),
    ):
        for name, write in parts.items():
            sections.append((name, write()))
            done()
    heading = title or f"{schema.outcome or 'Outcomes'} by {noun}"
    text = html.page(heading, sections, html.paragraph(question, "quiet") if question else "")
    path.write_text(text, encoding="utf-8")
    return path


def _check(idata: xr.DataTree, kind: Kind | None, gain: xr.Dataset | None, path: Path) -> None:
    found = []
    if kind is not None and kind not in _KINDS:
        found.append(Finding("kind", f"should be one of {', '.join(_KINDS)}, found {kind!r}"))
    if not path.absolute().parent.is_dir():
        found.append(Finding("path", f"is in a folder that is not there: {path.parent}", "Make it first"))
    if gain is not None:
        data = data_of(idata)
        if not isinstance(gain, xr.Dataset) or "verdict" not in gain:
            found.append(Finding("gain", "should be what transfer_gain returned"))
        elif gain["task"].to_numpy().tolist() != list(data.tasks) or not np.array_equal(
            gain["n_rows"], data.rows_per_task
        ):
            hint = "Pass transfer_gain of this fit, or leave it out"
            found.append(Finding("gain", "is the audit of a fit of other tasks or rows", hint))
    raise_if_any(found, SpecError)


def _data(idata: xr.DataTree) -> str:
    data, schema = data_of(idata), schema_of(idata)
    counts = data.rows_per_task
    noun = schema.task or "outcome"
    each = f"{counts.min()} rows each"
    if counts.min() < counts.max():
        middle = int(np.median(counts))
        each = f"between {counts.min()} and {counts.max()} rows a task, {middle} in the middle"
    rows = f"{data.n_rows:,} rows of {data.n_tasks:,} tasks ({noun}): {each}."
    parts = [("outcome", schema.outcome or ", ".join(map(str, schema.outcomes)))]
    parts += [("coefficients by task", ", ".join(data.features))]
    for grouping in data.groupings:
        of_levels = f"{', '.join(grouping.features)} ({len(grouping.levels)} levels)"
        parts.append((f"effects by {grouping.name}", of_levels))
    if data.shared_features:
        parts.append(("one slope for all", ", ".join(data.shared_features)))
    gating = getattr(spec_of(idata).task_covariance, "gating", None)
    if gating is not None:
        columns = spec_of(idata).task_covariance.task_columns or [f"{len(gating[0][1])} columns of gating"]
        parts.append(("known of the tasks", ", ".join(columns)))
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
        f"The outcome has mean {data.y.mean():z.3g} and standard deviation {data.y.std():z.3g}; nine in "
        f"ten lie between {low:z.3g} and {high:z.3g}."
    )


def _model(idata: xr.DataTree) -> str:
    spec, data = spec_of(idata), data_of(idata)
    text = html.equations(model_equations(spec, data)) + html.paragraph(
        structure_in_words(spec.task_covariance)
    )
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
    text = "".join(html.paragraph(line.strip(), kind) for line in lines)
    between = row_correlation(idata)
    return text + (html.paragraph(str(between), "note warn") if between and between.matters else "")


def _population(idata: xr.DataTree) -> str:
    return html.table(readable_summary(summary(idata)))


def _relations(idata: xr.DataTree, kind: Kind | None) -> str:
    structure = spec_of(idata).task_covariance
    particular = particular_answers(idata, interval_probability(None))
    text = "".join(html.subheading(answer.heading) + _answer(answer) for answer in particular)
    if not (isinstance(structure, TaskMixture) and structure.has_centres):
        text += html.subheading("Pairs of tasks") if particular else ""
        text += _correlations(idata, kind)
    if isinstance(structure, CompletePooling):
        return text
    return text + html.figure(plot_coefficients(idata)[0].figure, "The tasks' coefficients.")


def _levels(idata: xr.DataTree, grouping: str) -> str:
    first, *others = effects_of_levels(idata, grouping, interval_probability(None))
    words = structure_in_words(spec_of(idata).levels_of(grouping), f"Structure of the levels of {grouping}")
    text = html.paragraph(words) + _answer(first)
    return text + "".join(html.subheading(answer.heading) + _answer(answer) for answer in others)


def _correlations(idata: xr.DataTree, kind: Kind | None) -> str:
    """Return the correlations of one kind: by default the first that the data say something of."""
    structure = spec_of(idata).task_covariance
    kinds: list[Kind] = ["functions", "coefficients"]
    if structure.relates_tasks:
        kinds.insert(0, "partial" if isinstance(structure, SparsePrecision) else "structural")
    text, reason = "", ""
    for chosen in kinds if kind is None else [kind]:
        relations, why = relations_of(idata, chosen)
        reason = reason or why
        if relations is None:
            continue
        if (
            chosen == kinds[0]
            and structure.relates_tasks
            and kind is None
            and data_added(relations) == "nothing"
        ):
            narrower = contraction_in_words(float(relations["contraction"].median()))
            text += html.paragraph(
                f"The data say next to nothing about {_KINDS[chosen]} (median contraction from the prior "
                f"{narrower}): each has as many replicates as there are coefficients."
            )
            continue
        return text + html.paragraph(f"Shown are {_KINDS[chosen]}.") + _answer(pairs_of_tasks(relations))
    return text or html.paragraph(reason)


def _answer(answer: Answer) -> str:
    """Return words, tables and pictures of an answer."""
    parts = [html.paragraph(text, "note") for text in answer.text]
    for title, table in answer.tables:
        parts.append((html.paragraph(f"{title}:") if title else "") + html.table(table, index=False))
    for name, (what, write) in answer.files.items():
        if name.endswith(".png"):
            buffer = io.BytesIO()
            write(buffer)
            parts.append(html.picture(buffer.getvalue(), f"{what[:1].upper()}{what[1:]}."))
    return "".join(parts)


def _pooling(idata: xr.DataTree) -> str:
    structure = spec_of(idata).task_covariance
    if isinstance(structure, TaskMixture):
        return html.paragraph(
            "All tasks lean on one population mean, and tasks of a group on its directions."
            if isinstance(structure, OrthogonalGroups)
            else "Tasks lean on those of their own kind."
        )
    try:
        found = pooling(idata)
    except SpecError as err:
        return html.paragraph(f"Not looked at: {err.findings[0]}")
    text = html.paragraph(found.attrs["words"])
    if isinstance(structure, CompletePooling | NoPooling):
        return text
    rows = found["borrowed_rows"].to_series()
    text += html.paragraph(
        f"What a task learns from the others is worth {rows.median():z.0f} more rows of its own in the "
        f"middle of all tasks, {rows.min():z.0f} where it is worth least and {rows.max():z.0f} where it is "
        "worth most."
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
        f"In all, learning together is worth {total:z.1f} in log predictive density over learning alone, and "
        f"{over_pooled:z.1f} over one model for all."
    )
    text += html.paragraph(gain.attrs["remedy"], "note warn" if hurt else "note")
    return text + html.figure(plot_transfer_gain(gain).figure, "What each task gains over learning alone.")


def _names(members: Any) -> str:
    return f" ({', '.join(map(str, members.index))})" if len(members) <= 12 else ""


def _fit(idata: xr.DataTree) -> str:
    try:
        found = task_fit(idata)
    except SpecError as err:
        return html.paragraph(f"Not checked: {err.findings[0]}")
    misfit = bool(found["misfit"].any())
    text = html.paragraph(
        "Outcomes are replicated from the posterior, and statistics of the residuals of each task, in units "
        "of the noise, are compared with those of the replicated outcomes. Means of tasks are not compared: "
        "the model fits them by construction."
    )
    text += "".join(
        html.paragraph(line, "note warn" if misfit else "note") for line in misfit_in_words(found)
    )
    overall = pd.DataFrame(
        {
            "check": [str(c) for c in found["check"].to_numpy()],
            "what": [CHECKS[str(c)] for c in found["check"].to_numpy()],
            "tasks that do not fit": [str(int(n)) for n in found["misfit"].sum("task").to_numpy()],
            "p-value": [p_value_in_words(p) for p in found["p_overall"].to_numpy()],
        }
    )
    caption = (
        "Bars: where the statistic of as many new outcomes would lie. Points: that of the outcomes, orange "
        "if the task does not fit."
    )
    return text + html.table(overall, index=False) + html.figure(plot_task_fit(found).figure, caption)


def _repeat(idata: xr.DataTree) -> str:
    posterior, found = idata["posterior"], idata.attrs
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    seconds = float(found.get("sampling_time", float("nan")))
    version = found.get("modeling_interface_version", "")
    options = {"draws": draws, "tune": found.get("tuning_steps"), "chains": chains}
    options |= {name: found.get(name) for name in ("target_accept", "random_seed")}
    given = ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)
    lines = [
        "import bayes_mtl as mtl",
        "",
        data_in_code(data_of(idata)),
        'spec = mtl.ModelSpec.from_toml("spec.toml")  # below',
        f"idata = mtl.fit(data, spec, {given})",
    ]
    return (
        html.paragraph(
            f"bayes_mtl {version}, sampled in {seconds:z.0f} s. With the table of the data as `table`:"
        )
        + html.code("\n".join(lines))
        + html.paragraph("The description of the model, spec.toml:")
        + html.code(given_spec_of(idata).to_toml())
    )
