"""How well do structures tell two kinds of minefield apart, with few rows a task?

    python -m tests.benchmarks.landmine FILE [--rows 20 40] [--ones 1] [--subsets 10] [--structure NAME ...]

FILE is the landmine data of Xue, Liao, Carin & Krishnapuram (2007) as a table with columns task, y and
features: 29 fields of radar images, of which 1 to 15 are overgrown and 16 to 29 bare. Of fields 1-10 and
16-24, random rows are trained on (redrawn until there are as many ones as `--ones` says), all others tested
on. Prints the mean area under the ROC curve over tasks and subsets, and how likely two fields are to be in
one cluster.

Gating: means of three features over all rows of a field, which need nobody to say where mines are. Beside,
what can be had at most: two ridge regressions, one for each kind, by somebody who knows the kinds.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

import bayes_mtl as mtl

TASKS = [*range(1, 11), *range(16, 25)]
_FEATURES = [f"x{i}" for i in range(1, 10)]
_GATES = ["x3", "x4", "x5"]
# With so few ones, tasks of a cluster share their coefficients, and clusters lie near each other.
_TIGHT = {
    "feature_sd": 0.02,
    "cluster_sd": 0.4,
    "beta_mean": {
        "Intercept": mtl.Prior("Normal", mu=-3, sigma=1),
        **dict.fromkeys(_FEATURES, mtl.Prior("Normal", mu=0, sigma=0.4)),
    },
}
SPECS = {
    "Exchangeable": {"task_covariance": mtl.Exchangeable()},
    "Clusters(2)": {"task_covariance": mtl.Clusters(2), "priors": _TIGHT},
    "Clusters(3)": {"task_covariance": mtl.Clusters(3), "priors": _TIGHT},
    "DirichletProcess(5)": {"task_covariance": mtl.DirichletProcess(5), "priors": _TIGHT},
    "Clusters(2), default priors": {"task_covariance": mtl.Clusters(2)},
    "Clusters(2), gating": {"priors": _TIGHT},
    "two kinds, known": {},
}


def subset(table: pd.DataFrame, rows: int, ones: int, rng: np.random.Generator) -> np.ndarray:
    """Return a mask of training rows: `rows` of each task, with as many ones at least."""
    train = np.zeros(len(table), dtype=bool)
    for task in TASKS:
        at = np.flatnonzero(table.task == task)
        while True:
            chosen = rng.choice(at, rows, replace=False)
            if table.y.to_numpy()[chosen].sum() >= ones:
                break
        train[chosen] = True
    return train


def ridge_by_kind(table: pd.DataFrame, train: np.ndarray, strength: float) -> np.ndarray:
    """Return log odds of all rows by two ridge regressions, of overgrown and of bare fields."""
    score = np.empty(len(table))
    X = np.column_stack([np.ones(len(table)), table[_FEATURES]])
    for side in (table.task <= 15, table.task > 15):
        rows, y = X[train & side], table.y.to_numpy()[train & side]

        def loss(w: np.ndarray, rows: np.ndarray = rows, y: np.ndarray = y) -> tuple[float, np.ndarray]:
            eta, slope = rows @ w, np.append(0.0, w[1:])
            value = np.logaddexp(0.0, eta).sum() - y @ eta + strength / 2 * (slope**2).sum()
            return value, rows.T @ (expit(eta) - y) + strength * slope

        score[side] = X[side] @ minimize(loss, np.zeros(X.shape[1]), jac=True).x
    return score


def area_under_curve(y: np.ndarray, score: np.ndarray) -> float:
    """Return the probability that a one has a higher score than a zero."""
    ones = int(y.sum())
    rank = rankdata(score)
    return float((rank[y == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--rows", type=int, nargs="+", default=[20, 40])
    parser.add_argument("--ones", type=int, default=1)
    parser.add_argument("--subsets", type=int, default=10)
    parser.add_argument("--structure", action="append", choices=SPECS)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=300)
    options = parser.parse_args()
    table = pd.read_csv(options.file)
    table = table[table.task.isin(TASKS)].reset_index(drop=True)
    table[_FEATURES] = (table[_FEATURES] - table[_FEATURES].mean()) / table[_FEATURES].std()
    gated = mtl.Clusters(2, gating=table.groupby("task")[_GATES].mean(), columns=_GATES)
    overgrown = np.array(sorted(TASKS)) <= 15
    for rows in options.rows:
        for name in options.structure or SPECS:
            started, scores, together = time.perf_counter(), [], []
            for seed in range(options.subsets):
                train = subset(table, rows, options.ones, np.random.default_rng(seed))
                test = table[~train]
                if name == "two kinds, known":
                    mean = ridge_by_kind(table, train, strength=8.0)[~train]
                else:
                    spec = {"task_covariance": gated} | SPECS[name]
                    fit = fitted(table[train], spec, seed, options)
                    mean = mtl.predict(fit, test)["predictions"]["y"].mean(("chain", "draw")).to_numpy()
                    if "cluster_probability" in fit["posterior"]:
                        same = mtl.clusters(fit)["co_clustering"].to_numpy()
                        among = same[np.ix_(overgrown, overgrown)], same[np.ix_(~overgrown, ~overgrown)]
                        off = [a[~np.eye(len(a), dtype=bool)].mean() for a in among]
                        together.append([*off, same[np.ix_(overgrown, ~overgrown)].mean()])
                areas = [
                    area_under_curve(test.y.to_numpy()[test.task == t], mean[test.task == t]) for t in TASKS
                ]
                scores.append(np.mean(areas))
            seconds = (time.perf_counter() - started) / options.subsets
            line = f"{rows} rows, {name}: AUC {np.mean(scores):.4f} +- {np.std(scores):.4f}, "
            line += f"median {np.median(scores):.4f}, {seconds:.1f} s a fit"
            if together:
                among = np.mean(together, axis=0)
                line += "; together: {:.2f} overgrown, {:.2f} bare, {:.2f} across".format(*among)
            print(line, flush=True)


def fitted(
    table: pd.DataFrame, spec: Mapping[str, Any], seed: int, options: argparse.Namespace
) -> xr.DataTree:
    """Fit a structure to the training rows."""
    data = mtl.TaskData.from_table(table, task="task", outcome="y", features=_FEATURES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mtl.fit(
            data,
            mtl.ModelSpec("bernoulli", feature_covariance=mtl.Diagonal(), **spec),
            draws=options.draws,
            tune=options.draws,
            chains=options.chains,
            random_seed=seed,
            progressbar=False,
            log_likelihood=False,
        )


if __name__ == "__main__":
    main()
