"""Do intervals of task correlations cover the truth as often as they say?

    python -m tests.calibration.coverage [--part prior fixed contraction] [--data-sets 400] [--repeats 100]
        [--draws 500] [--seed 0]

First, truths drawn from the prior: every kind of correlation has to cover at its nominal rate. Then fixed
correlations of -0.8, 0 and 0.8 between two tasks of 60 features, where the prior is not the truth. Last, what
the data add to the prior (contraction) with 1, 2 and 60 features.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

import bayes_mtl as mtl
from tests.calibration.sbc import STRUCTURES, TASKS, prior_draws, with_outcome

PROBABILITY = 0.9
PARTS = ("prior", "fixed", "contraction")
KINDS = ("structural", "partial", "coefficients", "functions")
SETTINGS = {"draws": 500, "tune": 500, "chains": 2, "progressbar": False, "log_likelihood": False}


def covered(idata: xr.DataTree, truth: xr.Dataset) -> Iterator[tuple[str, float]]:
    """Yield, per kind, the share of pairs whose interval holds the truth."""
    true = idata.copy()
    true["posterior"] = xr.DataTree(truth)
    for kind in KINDS:
        try:
            found = mtl.task_correlation(idata, kind, ci_prob=PROBABILITY)
        except mtl.errors.SpecError:
            continue  # the structure has no correlation of this kind
        value = mtl.task_correlation(true, kind)["mean"].to_numpy()
        yield kind, float(((found["lower"] < value) & (value < found["upper"])).mean())


def from_the_prior(structure: str, n: int, seed: int) -> None:
    """Print the coverage of every kind of correlation over `n` data sets."""
    rng = np.random.default_rng(seed)
    rows, features = 12, ["x1", "x2", "x3", "x4"]
    frame = pd.DataFrame(rng.standard_normal((len(TASKS) * rows, 4)), columns=features)
    frame["task"], frame["y"] = np.repeat(TASKS, rows), np.arange(len(frame)) % 2
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=features)
    priors = {
        "beta_mean": mtl.Prior("Normal", mu=0, sigma=1),
        "feature_sd": mtl.Prior("HalfNormal", sigma=1),
        "sigma": mtl.Prior("HalfNormal", sigma=1),
    }
    spec = mtl.ModelSpec(task_covariance=STRUCTURES[structure], priors=priors, independent_features=())
    shares: dict[str, list[float]] = {}
    for truth in prior_draws(spec, data, n, rng):
        observed = with_outcome(data, truth, "gaussian", rng)
        idata = mtl.fit(observed, spec, random_seed=int(rng.integers(2**31)), **SETTINGS)
        for kind, share in covered(idata, truth):
            shares.setdefault(kind, []).append(share)
    for kind, found in shares.items():
        error = np.std(found, ddof=1) / np.sqrt(n)
        z = (np.mean(found) - PROBABILITY) / error
        print(f"| {structure} | {kind} | {np.mean(found):.3f} | {error:.3f} | {z:+.1f} |", flush=True)


def pair(correlation: float, n_features: int, rng: np.random.Generator, n_tasks: int = 2) -> xr.Dataset:
    """Summarise the correlations of tasks all of whose pairs have this one; 200 rows a task."""
    omega = np.full((n_tasks, n_tasks), correlation)
    np.fill_diagonal(omega, 1.0)
    beta = np.linalg.cholesky(omega) @ rng.standard_normal((n_tasks, n_features))
    task = np.repeat(np.arange(n_tasks), 200)
    X = rng.standard_normal((len(task), n_features))
    y = (X * beta[task]).sum(axis=1) + rng.standard_normal(len(task))
    data = mtl.TaskData.from_arrays(X, y, task, intercept=False)
    spec = mtl.ModelSpec(
        task_covariance=mtl.LKJ(1.0), feature_covariance=mtl.Diagonal(), priors={"beta_mean": 0.0}
    )
    idata = mtl.fit(data, spec, random_seed=int(rng.integers(2**31)), **SETTINGS)
    return mtl.task_correlation(idata, ci_prob=PROBABILITY)


def main() -> None:
    """Print up to three tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration.coverage")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--structure", action="append", choices=list(STRUCTURES))
    parser.add_argument("--data-sets", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    SETTINGS.update(draws=options.draws, tune=options.draws)
    warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
    started = time.perf_counter()
    if "prior" in options.part:
        print(f"| structure | correlation | coverage of {PROBABILITY:.0%} | standard error | z |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        for structure in options.structure or ["LKJ", "LowRank", "Kernel", "Tree"]:
            from_the_prior(structure, options.data_sets, options.seed)
    rng = np.random.default_rng(options.seed)
    if "fixed" in options.part:
        print("\n| true correlation | coverage | median contraction |\n| --- | --- | --- |", flush=True)
        for correlation in (-0.8, 0.0, 0.8):
            found = [_only(pair(correlation, 60, rng)) for _ in range(options.repeats)]
            share = np.mean([f["lower"] < correlation < f["upper"] for f in found])
            contraction = np.median([f["contraction"] for f in found])
            print(f"| {correlation} | {share:.2f} | {contraction:.2f} |", flush=True)
    if "contraction" in options.part:
        print("\n| features | tasks | median contraction |\n| --- | --- | --- |", flush=True)
        for n_features in (1, 2):
            contraction = pair(0.0, n_features, rng, n_tasks=20)["contraction"]
            print(f"| {n_features} | 20 | {float(contraction.median()):.2f} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


def _only(found: xr.Dataset) -> dict[str, float]:
    return {name: float(found[name][0]) for name in ("lower", "upper", "contraction")}


if __name__ == "__main__":
    main()
