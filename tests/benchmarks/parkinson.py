"""Voices of 42 patients: tasks so unlike that sharing can hurt. Does it, and does the audit say so?

    python -m tests.benchmarks.parkinson TABLE [--splits 3] [--share 0.1] [--structure NAME ...]

TABLE has columns task (or subject), total_updrs and voice features. Of each patient a share of the rows is
trained on. Prints the root mean squared error over all other rows for every structure, with the standard
error over splits of its difference to a ridge regression for each patient alone (penalties by
cross-validation); then, for the patients that `transfer_gain` calls hurt, how many the ridge predicts
better.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.linear_model import RidgeCV

import bayes_mtl as mtl

STRUCTURES = {
    "Exchangeable": mtl.Exchangeable(),
    "LowRank": mtl.LowRank(2),
    "StudentT": mtl.StudentT(),
    "SparseBasis": mtl.SparseBasis(3),
    "Clusters": mtl.Clusters(2),
    "DirichletProcess": mtl.DirichletProcess(4),
}
VOICE = ("jitter", "shimmer", "nhr", "hnr", "rpde", "dfa", "ppe")
SETTINGS = {"draws": 300, "tune": 300, "chains": 2, "progressbar": False}


def read(path: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the table with standardised voice features, and their names."""
    table = pd.read_csv(path)
    table.columns = [c.lower().replace("#", "") for c in table.columns]
    table = table.rename(columns={"subject": "task"})
    features = [c for c in table if c.startswith(VOICE)]
    features = [c for c in features if "ddp" not in c and "dda" not in c]  # multiples of others
    table[features] = (table[features] - table[features].mean()) / table[features].std()
    return table[["task", "total_updrs", *features]], features


def split(table: pd.DataFrame, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which rows are trained on: a share of each task's, two at least."""
    chosen = np.zeros(len(table), dtype=bool)
    for rows in table.groupby("task").indices.values():
        chosen[rng.choice(rows, max(2, round(share * len(rows))), replace=False)] = True
    return chosen


def ridge_by_task(train: pd.DataFrame, test: pd.DataFrame, features: list[str]) -> pd.Series:
    """Return the mean squared error of a tuned ridge regression for each task alone."""
    found = {}
    for task, own in train.groupby("task"):
        ridge = RidgeCV(np.logspace(-1, 4, 16)).fit(own[features], own["total_updrs"])
        other = test[test["task"] == task]
        found[task] = float(((other["total_updrs"] - ridge.predict(other[features])) ** 2).mean())
    return pd.Series(found)


def errors_by_task(idata: xr.DataTree, test: pd.DataFrame) -> pd.Series:
    """Return the mean squared error of the posterior mean of each task's rows."""
    predicted = mtl.predict(idata, test)["predictions"]["y"].mean(("chain", "draw")).to_numpy()
    return (test["total_updrs"] - predicted).pow(2).groupby(test["task"]).mean()


def main() -> None:
    """Print a line per structure, and one for the audit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--structure", action="append", choices=list(STRUCTURES))
    options = parser.parse_args()
    warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
    table, features = read(options.table)
    chosen = {"Exchangeable", *(options.structure or STRUCTURES)}
    error: dict[str, list[float]] = {name: [] for name in STRUCTURES if name in chosen}
    ridge: list[float] = []
    seconds = dict.fromkeys(error, 0.0)
    audit: list[tuple[int, int, float]] = []
    for seed in range(options.splits):
        training = split(table, options.share, np.random.default_rng(seed))
        train, test = table[training], table[~training]
        data = mtl.TaskData.from_table(train, task="task", outcome="total_updrs", features=features)
        rows, alone = test.groupby("task").size(), ridge_by_task(train, test, features)
        ridge.append(float(np.sqrt((alone * rows).sum() / rows.sum())))
        for name in error:
            spec = mtl.ModelSpec(task_covariance=STRUCTURES[name], feature_covariance=mtl.Diagonal())
            started = time.perf_counter()
            idata = mtl.fit(data, spec, random_seed=seed, **SETTINGS)
            seconds[name] += time.perf_counter() - started
            by_task = errors_by_task(idata, test)
            error[name].append(float(np.sqrt((by_task * rows).sum() / rows.sum())))
            if name == "Exchangeable":
                found = mtl.transfer_gain(idata).to_dataframe()
                gain = (alone - by_task)[found.index]
                hurt = found["hurt"].to_numpy()
                agreement = float(found["gain"].corr(gain, method="spearman"))
                audit.append((int(hurt.sum()), int((gain[hurt] < 0).sum()), agreement))
    print("| structure | RMSE | difference to ridge | its standard error | seconds a fit |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| ridge, each alone | {np.mean(ridge):.2f} | | | |")
    for name, found in error.items():
        difference = np.subtract(found, ridge)
        se = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
        cost = seconds[name] / options.splits
        print(f"| {name} | {np.mean(found):.2f} | {difference.mean():+.2f} | {se:.2f} | {cost:.0f} |")
    for seed, (named, confirmed, agreement) in enumerate(audit):
        print(
            f"split {seed}: {named} patients named as hurt, of whom the ridge predicts {confirmed} "
            f"better in the other rows; rank correlation of the gain there and in the audit {agreement:.2f}"
        )


if __name__ == "__main__":
    main()
