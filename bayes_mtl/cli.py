"""The command `bayes-mtl`: fit a recipe, say what it found, predict."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_mtl.description import Described
from bayes_mtl.errors import BayesMTLError, ConvergenceWarning, DataWarning

if TYPE_CHECKING:  # imported where used, so that --help does not wait for them
    import pandas as pd
    import xarray as xr

    from bayes_mtl.data import TaskData
    from bayes_mtl.recipes import Recipe
    from bayes_mtl.report.by_structure import Answer
    from bayes_mtl.spec import ModelSpec

_WIDTH = 100
_SHORT = 30  # characters of an option of a structure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        0; 2 if a recipe, option or file is not right; 130 if interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        with _readable_warnings():
            options.run(options)
    except (BayesMTLError, OSError) as err:
        print(f"bayes-mtl: error: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as err:
        print(f"bayes-mtl: {str(err) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from bayes_mtl import __version__

    parser = argparse.ArgumentParser(
        prog="bayes-mtl",
        description="Bayesian multi-task learning: many related regressions, and how they relate.",
    )
    parser.add_argument("--version", action="version", version=f"bayes-mtl {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="65 real schools: how do they relate? A first look, in about two minutes"
    )
    demo.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("bayes-mtl-demo"), help="default: ./bayes-mtl-demo"
    )
    demo.set_defaults(run=_demo)

    fit = commands.add_parser("fit", help="fit a recipe and write what it found into a folder")
    fit.add_argument("recipe", metavar="RECIPE", help="a TOML file, or a name from `bayes-mtl recipes`")
    fit.add_argument(
        "--data", type=Path, metavar="FILE", help="use this CSV or Parquet file instead of the recipe's data"
    )
    fit.add_argument("--out", type=Path, metavar="DIR", help="default: ./bayes-mtl-RECIPE")
    fit.add_argument(
        "--structure", metavar="NAME", help="another structure, for example NoPooling or CompletePooling"
    )
    fit.add_argument("--draws", type=int, metavar="N", help="draws to keep per chain")
    fit.add_argument("--tune", type=int, metavar="N", help="draws per chain to adapt")
    fit.add_argument("--chains", type=int, metavar="N", help="number of chains")
    fit.add_argument("--seed", type=int, metavar="N", help="for draws that can be repeated")
    fit.set_defaults(run=_fit)

    predict = commands.add_parser("predict", help="predict the rows of a table from a stored fit")
    predict.add_argument(
        "fit", type=Path, metavar="FIT.nc", help="a fit that `bayes-mtl fit` or `bayes_mtl.save` wrote"
    )
    predict.add_argument(
        "table", type=Path, metavar="TABLE", help="CSV or Parquet file of the rows to predict"
    )
    predict.add_argument("--out", type=Path, metavar="FILE.csv", help="default: print to the terminal")
    predict.add_argument(
        "--kind", choices=("mean", "response"), default="mean", help="expected outcome, or with its noise"
    )
    predict.add_argument(
        "--new-tasks",
        choices=("error", "population"),
        default="error",
        help="tasks that the fit does not know: an error, or drawn from the population of tasks",
    )
    predict.add_argument("--seed", type=int, metavar="N", help="for draws that can be repeated")
    predict.set_defaults(run=_predict)

    report = commands.add_parser("report", help="write a stored fit up as one HTML page")
    report.add_argument("fit", type=Path, metavar="FIT", help="a file that `bayes-mtl fit` wrote (fit.nc)")
    report.add_argument("--out", type=Path, metavar="FILE.html", help="default: report.html beside the fit")
    report.add_argument("--question", default="", metavar="TEXT", help="what the fit was made to answer")
    kinds = ("structural", "partial", "coefficients", "functions")
    report.add_argument("--kind", choices=kinds, help="which correlations of tasks to show")
    report.set_defaults(run=_report)

    recipes = commands.add_parser("recipes", help="list the recipes that ship with the package")
    recipes.set_defaults(run=_recipes)
    return parser


def _demo(options: argparse.Namespace) -> None:
    from bayes_mtl.recipes import load_recipe

    fit_recipe(load_recipe("schools"), options.out)


def _fit(options: argparse.Namespace) -> None:
    from bayes_mtl.recipes import load_recipe

    recipe = load_recipe(options.recipe)
    if options.data is not None:
        recipe = recipe.with_data(options.data)
    if options.structure is not None:
        recipe = recipe.with_structure(options.structure)
    sampling = {
        "draws": options.draws,
        "tune": options.tune,
        "chains": options.chains,
        "random_seed": options.seed,
    }
    fit_recipe(recipe.with_fit(**sampling), options.out or Path(f"bayes-mtl-{recipe.name}"))


def _recipes(options: argparse.Namespace) -> None:
    from bayes_mtl.recipes import list_recipes

    recipes = list_recipes()
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        print(f"{recipe.name:{width}}  {recipe.title}")
    print("\nRun one with: bayes-mtl fit NAME")


def _predict(options: argparse.Namespace) -> None:
    import numpy as np
    import pandas as pd
    from arviz_base import rcParams

    from bayes_mtl.inference import load
    from bayes_mtl.inference.attributes import schema_of
    from bayes_mtl.predict import predict
    from bayes_mtl.recipes import read_table

    idata = load(options.fit)
    schema = schema_of(idata)
    # A CSV file does not say whether 007 is text; the fit does.
    columns = {"task": schema.task, **{name: name for name in schema.groupings}}
    labels = {dim: idata["posterior"][dim].to_numpy().tolist() for dim in columns}
    text = [c for dim, c in columns.items() if c and all(isinstance(label, str) for label in labels[dim])]
    table = read_table(options.table, text=text)
    found = predict(idata, table, kind=options.kind, new_tasks=options.new_tasks, random_seed=options.seed)
    y = found["predictions"]["y"]
    draws = y.transpose("chain", "draw", "row").to_numpy().reshape(-1, y.sizes["row"])
    prob = float(rcParams["stats.ci_prob"])
    lower, upper = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    out = pd.DataFrame(
        {
            "row": y["row"].to_numpy(),
            "task": y["row_task"].to_numpy(),
            "mean": draws.mean(axis=0),
            "sd": draws.std(axis=0),
            "lower": lower,
            "upper": upper,
        }
    )
    if options.out is None:
        print(out.to_csv(index=False), end="")
    else:
        out.to_csv(options.out, index=False)
        what = "expected outcome" if options.kind == "mean" else "outcome"
        print(
            f"Wrote {options.out}: {len(out)} rows, {what} {schema.outcome!r}, {100 * prob:.3g}% intervals."
        )


def _report(options: argparse.Namespace) -> None:
    from bayes_mtl.inference import load
    from bayes_mtl.report import report

    path = options.out or options.fit.parent / "report.html"
    report(load(options.fit), path, question=options.question, kind=options.kind)
    print(f"Wrote {path}: open it in a browser.")


def fit_recipe(recipe: Recipe, folder: Path) -> xr.DataTree:
    """Fit a recipe, print what was found, and write it into a folder.

    Parameters
    ----------
    recipe : Recipe
        What to fit.
    folder : Path
        Made if it is not there.

    Returns
    -------
    DataTree
        What `fit` returned.
    """
    from bayes_mtl.inference import fit, save
    from bayes_mtl.report.answers import readable_summary, shorten
    from bayes_mtl.report.by_structure import answers, effects_of_levels
    from bayes_mtl.summaries import summary
    from bayes_mtl.summaries.correlation import interval_probability

    data, spec = recipe.load()
    folder.mkdir(
        parents=True, exist_ok=True
    )  # before the fit: a folder that cannot be written should not cost one
    _heading(recipe.title)
    _paragraph(recipe.question)
    print()
    _paragraph(f"Data: {recipe.source}.")
    print(data)
    _paragraph(f"Model: {_describe(spec, data)}.")
    print(flush=True)
    idata = fit(data, spec, **recipe.fit)
    files = {"fit.nc": "the fit: bayes_mtl.load reads it, and so does xarray"}
    save(idata, folder / "fit.nc")

    table = summary(idata)
    table.to_csv(folder / "summary.csv", index_label="parameter")
    files["summary.csv"] = "the hyperparameters"
    _heading("Hyperparameters")
    shown, hidden = shorten(table)
    _table(readable_summary(shown), index=True)
    for name, count in hidden.items():
        print(f"... and {count} more rows of {name} in summary.csv")
    prob = interval_probability(None)
    of_levels = [a for name in data.schema.groupings for a in effects_of_levels(idata, name, prob)]
    for answer in [*of_levels, *answers(idata, recipe.relations)]:
        files |= _show(answer, folder)

    _heading("Can the draws be trusted?")
    print(table.diagnosis)
    _heading("Written")
    width = max(len(str(folder / name)) for name in files)
    for name, what in files.items():
        print(f"{folder / name!s:{width}}  {what}")
    _next_steps(folder, recipe, files)
    return idata


def _show(answer: Answer, folder: Path) -> dict[str, str]:
    """Print an answer, write its files, and return what they are."""
    if answer.heading:
        _heading(answer.heading)
    for text in answer.text:
        _paragraph(text)
    for title, table in answer.tables:
        print(f"\n{title}" if title else "")
        _table(table)
    for name, (_, write) in answer.files.items():
        write(folder / name)
    return {name: what for name, (what, _) in answer.files.items()}


def _describe(spec: ModelSpec, data: TaskData) -> str:
    return (
        f"{type(spec.family).__name__} outcome, task covariance {_short(spec.task_covariance)}, "
        f"feature covariance {_short(spec.feature_covariance_of(data))}"
    )


def _short(structure: Described) -> str:
    """Write a structure with the options that are short: not a matrix, nor a list of every task."""
    options = {f.name: getattr(structure, f.name) for f in dataclasses.fields(structure)}  # type: ignore[arg-type]
    parts = {k: _short(v) if isinstance(v, Described) else repr(v) for k, v in options.items()}
    inner = ", ".join(f"{k}={v if len(v) <= _SHORT else '...'}" for k, v in parts.items() if v != "None")
    return f"{type(structure).__name__}({inner})"


def _next_steps(folder: Path, recipe: Recipe, files: Collection[str]) -> None:
    path = (folder / "fit.nc").as_posix()
    shows = {
        "task_correlation.csv": f'mtl.task_correlation(idata, "{recipe.relations or "structural"}")',
        "clusters.csv": "mtl.clusters(idata)",
    }
    show = next((code for name, code in shows.items() if name in files), "mtl.summary(idata)")
    print("\nNext, predict new rows:")
    print(f"  bayes-mtl predict {path} NEW_ROWS.csv --out predictions.csv")
    print("or go on in Python:")
    print(f'  import bayes_mtl as mtl\n  idata = mtl.load("{path}")\n  {show}')


def _heading(text: str) -> None:
    print(f"\n{text}\n{'-' * min(len(text), _WIDTH)}")


def _paragraph(text: str) -> None:
    print(textwrap.fill(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False))


def _table(table: pd.DataFrame, *, index: bool = False) -> None:
    print(table.to_string(index=index))


@contextmanager
def _readable_warnings() -> Iterator[None]:
    """Print our own warnings as sentences, and drop those of libraries, which nobody here can act on."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = str(message)
        if issubclass(category, ConvergenceWarning):  # the report below says it in full
            text = "the draws should not be trusted yet. Why, and what to do: 'Can the draws be trusted?'"
        print(textwrap.fill(f"warning: {text}", _WIDTH, break_long_words=False), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for category in (DataWarning, ConvergenceWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield
