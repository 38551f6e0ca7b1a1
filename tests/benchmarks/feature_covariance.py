"""Which covariance of features predicts best, for tasks that are new and for rows of known ones?

    python -m tests.benchmarks.feature_covariance [--tasks 30] [--coefficients 8] [--repeats 8]
    python -m tests.benchmarks.feature_covariance --table FILE [--family bernoulli] [--rows 60] [--repeats 3]

First, simulated tasks of 30 rows whose coefficients move along one direction (and by .15 or .5 on their own),
along two, in all directions (a Wishart matrix of one degree of freedom more than coefficients), or
independently: log density of the coefficients of 100 new tasks, against `LKJ`; coverage of 90 % intervals;
divergences. Second, a table with the columns `task` and `y`, all others features: some rows of each task are
learned from, up to 60 others scored. Differences in nats, with standard errors. Minutes each.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from scipy.stats import norm

import bayes_mtl as mtl

COVARIANCES = {
    "LKJ": mtl.LKJ(),
    "Diagonal": mtl.Diagonal(),
    "LowRank(1)": mtl.LowRank(1),
    "LowRank(2)": mtl.LowRank(2),
    "LowRank(3)": mtl.LowRank(3),
}
N_NEW, N_ROWS = 100, 30


def along(own: float, n_directions: int = 1) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    """Return a law of deviations along a few directions."""

    def draw(rng: np.random.Generator, n: int, p: int) -> np.ndarray:
        directions = rng.standard_normal((n_directions, p))
        directions /= np.sqrt(n_directions * (directions**2).mean(axis=1, keepdims=True))
        return rng.standard_normal((n, n_directions)) @ directions + own * rng.standard_normal((n, p))

    return draw


def in_all_directions(rng: np.random.Generator, n: int, p: int) -> np.ndarray:
    """Draw deviations with a correlation matrix that is drawn, too."""
    A = rng.standard_normal((p, p + 1))
    A /= np.sqrt((A**2).sum(axis=1, keepdims=True))
    return rng.standard_normal((n, p + 1)) @ A.T


TRUTHS = {
    "one direction, own .15": along(0.15),
    "one direction, own .5": along(0.5),
    "two directions, own .3": along(0.3, 2),
    "all directions": in_all_directions,
    "independent": lambda rng, n, p: rng.standard_normal((n, p)),
}


def hyperdraws(idata: xr.DataTree) -> tuple[np.ndarray, np.ndarray]:
    """Return means and Cholesky factors of the coefficients of a task, draw by draw."""
    draws = idata["posterior"].to_dataset().stack(sample=("chain", "draw")).transpose("sample", ...)
    mean, sd = draws["beta_mean"].to_numpy(), draws["feature_sd"].to_numpy()
    corr = draws["feature_corr"].to_numpy() if "feature_corr" in draws else np.eye(mean.shape[1])[None]
    return mean, sd[:, :, None] * np.linalg.cholesky(corr + 1e-9 * np.eye(mean.shape[1]))


def score_new(idata: xr.DataTree, beta: np.ndarray) -> tuple[float, float]:
    """Return the mean log density of new coefficients (task, feature), and the coverage of 90 %."""
    density, drawn, rng = [], [], np.random.default_rng(0)
    for mean, L in zip(*hyperdraws(idata), strict=True):
        u = solve_triangular(L, (beta - mean).T, lower=True)
        density.append(norm.logpdf(u).sum(axis=0) - np.log(np.diag(L)).sum())
        drawn.append(mean + L @ rng.standard_normal(len(mean)))
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    score = logsumexp(density, axis=0) - np.log(len(density))
    return float(score.mean()), float(((low < beta) & (beta < high)).mean())


def fitted(
    data: mtl.TaskData, family: str, covariance: mtl.FeatureCovariance, seed: int
) -> tuple[xr.DataTree, float, int]:
    """Return a short fit, its CPU seconds and the number of its divergences."""
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = mtl.ModelSpec(family, feature_covariance=covariance)
        short = {"draws": 500, "tune": 500, "chains": 2, "progressbar": False}
        idata = mtl.fit(
            data, spec, random_seed=seed, log_likelihood=False, posterior_predictive=False, **short
        )
    return idata, time.process_time() - started, int(idata["sample_stats"]["diverging"].sum())


def simulated(n_tasks: int, n_coefficients: int, repeats: int) -> None:
    """Print a line for each truth and covariance."""
    features = [f"x{i}" for i in range(1, n_coefficients)]
    for truth, draw in TRUTHS.items():
        found: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in COVARIANCES}
        for seed in range(repeats):
            rng = np.random.default_rng([n_coefficients, seed])
            beta = rng.standard_normal(n_coefficients) + draw(rng, n_tasks + N_NEW, n_coefficients)
            task = np.repeat(np.arange(n_tasks), N_ROWS)
            X = rng.standard_normal((len(task), n_coefficients - 1))
            eta = beta[task, 0] + (X * beta[task, 1:]).sum(axis=1)
            y = eta + 0.5 * rng.standard_normal(len(task))
            data = mtl.TaskData.from_arrays(X, y, task, feature_names=features)
            for name, covariance in COVARIANCES.items():
                idata, seconds, divergences = fitted(data, "gaussian", covariance, seed)
                found[name].append((*score_new(idata, beta[n_tasks:]), seconds, divergences))
        base = np.array(found["LKJ"])[:, 0]
        for name, values in found.items():
            score, coverage, seconds, divergences = np.array(values).T
            gain, se = score - base, np.sqrt(repeats)
            print(
                f"{truth}: {name}: {gain.mean():+.2f} (se {gain.std(ddof=1) / se:.2f}), coverage "
                f"{coverage.mean():.3f} (se {coverage.std(ddof=1) / se:.3f}), {np.median(seconds):.1f} CPU "
                f"s, {divergences.mean():.1f} divergences of 1000",
                flush=True,
            )


def held_out(path: str, family: str, n_rows: int, repeats: int) -> None:
    """Print a line for each covariance."""
    table = pd.read_csv(path)
    features = [c for c in table if c not in ("task", "y")]
    table[features] = (table[features] - table[features].mean()) / table[features].std()
    found: dict[str, list[np.ndarray]] = {name: [] for name in COVARIANCES}
    cost: dict[str, list[tuple[float, int]]] = {name: [] for name in COVARIANCES}
    for seed in range(repeats):
        mixed = table.sample(frac=1, random_state=seed)
        place = mixed.groupby("task").cumcount()
        test = mixed[(place >= n_rows) & (place < n_rows + 60)]
        data = mtl.TaskData.from_table(mixed[place < n_rows], task="task", outcome="y", features=features)
        for name, covariance in COVARIANCES.items():
            idata, *spent = fitted(data, family, covariance, seed)
            mean = mtl.predict(idata, test)["predictions"]["y"].stack(sample=("chain", "draw"))
            mean, y = mean.transpose("sample", ...).to_numpy(), test["y"].to_numpy()
            if family == "bernoulli":
                density = np.log(np.where(y == 1, mean, 1 - mean).clip(1e-300))
            else:
                sigma = idata["posterior"]["sigma"].stack(sample=("chain", "draw")).to_numpy()
                density = norm.logpdf(y, mean, sigma[:, None])
            found[name].append(logsumexp(density, axis=0) - np.log(len(density)))
            cost[name].append((spent[0], spent[1]))
    base = np.concatenate(found["LKJ"])
    for name, rows in found.items():
        gain = np.concatenate(rows) - base
        seconds, divergences = np.array(cost[name]).T
        print(
            f"{name}: {gain.mean():+.4f} a row (se {gain.std(ddof=1) / np.sqrt(len(gain)):.4f}), "
            f"{seconds.mean():.1f} CPU s, {divergences.mean():.0f} divergences of 1000",
            flush=True,
        )


def main() -> None:
    """Simulate, or read a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.feature_covariance")
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--coefficients", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--table")
    parser.add_argument("--family", choices=("gaussian", "bernoulli"), default="gaussian")
    parser.add_argument("--rows", type=int, default=60)
    options = parser.parse_args()
    if options.table:
        held_out(options.table, options.family, options.rows, options.repeats)
    else:
        simulated(options.tasks, options.coefficients, options.repeats)


if __name__ == "__main__":
    main()
