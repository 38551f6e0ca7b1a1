"""Do intervals for the coefficients of new tasks cover them as often as they say?

    python -m tests.calibration.new_tasks [--part prior realistic] [--structure NAME ...] [--repeats 200]
        [--own 0.5] [--draws 500] [--seed 0]

First, data sets drawn from the model's prior, some tasks of which are left out of the fit: 90 % intervals
have to cover 87 to 93 % of their coefficients over 200 data sets. Then realistic truths under default priors:
30 tasks with 4 and 8 coefficients that move along one shared direction, with a standard deviation of one, and
on their own (`--own`); a quarter of the repeats each, no structure below 85 %. All data sets of a structure
have one shape, so that a model is compiled once. Exits with 1 if a bar is missed by more than two standard
errors.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

import bayes_mtl as mtl
from tests.calibration.sbc import prior_draws

PROBABILITY = 0.9
N_KNOWN, N_NEW, N_ROWS = 12, 4, 10
TASKS = [f"t{i:02d}" for i in range(N_KNOWN + N_NEW)]
NEW = TASKS[::4]  # among the known ones, where they have places
SETTINGS: dict[str, Any] = {"chains": 2, "progressbar": False, "log_likelihood": False}


def structures(tasks: list[str]) -> dict[str, dict[str, Any]]:
    """Return what is fitted by name; these tasks have places on a line, by their order, and in a tree."""
    places = {t: float(i) for i, t in enumerate(tasks)}
    groups = {t: f"g{i % 4}" for i, t in enumerate(tasks)}
    kernel = mtl.Kernel(positions=places, lengthscale=3.0)
    covariances: dict[str, mtl.TaskCovariance] = {
        "Exchangeable": mtl.Exchangeable(),
        "LKJ": mtl.LKJ(),
        "SparsePrecision": mtl.SparsePrecision(),
        "StudentT": mtl.StudentT(),
        "StudentT, nu": mtl.StudentT(nu="learned"),
        "LowRank": mtl.LowRank(1),
        "StudentT(LowRank)": mtl.StudentT(mtl.LowRank(1)),
        "SparseBasis": mtl.SparseBasis(2),
        "DisjointBasis": mtl.SparseBasis(2, overlap=False),
        "Kernel": kernel,
        "StudentT(Kernel)": mtl.StudentT(kernel),
        "Graph": mtl.Graph({a: [b] for a, b in pairwise(tasks)}),
        "Tree": mtl.Tree(groups | {"g0": "A", "g1": "A", "g2": "B", "g3": "B"}),
        "Clusters": mtl.Clusters(2),
        "Clusters, rank": mtl.Clusters(2, rank=1),
        "DirichletProcess": mtl.DirichletProcess(3),
        "OrthogonalGroups": mtl.OrthogonalGroups(
            {t: "even" if i % 2 else "odd" for i, t in enumerate(tasks)}
        ),
    }
    found: dict[str, dict[str, Any]] = {name: {"task_covariance": c} for name, c in covariances.items()}
    found["task_sd"] = {"task_sd": True}
    found["LowRank features"] = {"feature_covariance": mtl.LowRank(1)}
    found["LKJ features"] = {"feature_covariance": mtl.LKJ()}
    return found


NAMES = tuple(structures(["a", "b"]))


def unit_rows(tasks: list[str], features: list[str]) -> pd.DataFrame:
    """Rows whose expected outcomes are the coefficients: the intercept, then it plus each slope."""
    frame = pd.DataFrame(np.vstack([np.zeros(len(features)), np.eye(len(features))]), columns=features)
    return pd.concat([frame.assign(task=task) for task in tasks], ignore_index=True)


def shares(idata: Any, truth: np.ndarray, tasks: list[str], features: list[str], seed: int) -> np.ndarray:
    """Return, per coefficient, the share of new tasks whose interval holds the truth (task, feature)."""
    rows = unit_rows(tasks, features)
    found = mtl.predict(idata, rows, new_tasks="population", random_seed=seed)["predictions"]["y"].to_numpy()
    beta = found.reshape(-1, len(tasks), len(features) + 1)
    beta[..., 1:] -= beta[..., :1]
    lower, upper = np.quantile(beta, [(1 - PROBABILITY) / 2, (1 + PROBABILITY) / 2], axis=0)
    return ((lower < truth) & (truth < upper)).mean(axis=0)


def from_the_prior(name: str, n: int, seed: int) -> np.ndarray:
    """Return the coverage of `n` data sets drawn from the prior."""
    rng = np.random.default_rng(seed)
    features = ["x1", "x2"]
    frame = pd.DataFrame(rng.standard_normal((len(TASKS) * N_ROWS, 2)), columns=features)
    frame["task"] = np.repeat(TASKS, N_ROWS)
    frame["y"] = rng.standard_normal(len(frame))
    options = structures(TASKS)[name]
    priors: dict[str, Any] = {
        "beta_mean": mtl.Prior("Normal", mu=0, sigma=1),
        "feature_sd": mtl.Prior("HalfNormal", sigma=1),
        "sigma": mtl.Prior("HalfNormal", sigma=1),
    }
    structure = options.get("task_covariance", mtl.Exchangeable())
    mixture = isinstance(structure, mtl.Clusters | mtl.DirichletProcess | mtl.OrthogonalGroups)
    if mixture and not isinstance(structure, mtl.OrthogonalGroups):
        priors["cluster_sd"] = 1.5
    spec = mtl.ModelSpec(priors=priors, independent_features=None if mixture else (), **options)
    columns = {"task": "task", "outcome": "y", "features": features}
    data = mtl.TaskData.from_table(frame, **columns)
    out = []
    for truth in prior_draws(spec, data, n, rng):
        beta = truth["beta"].to_numpy()[0, 0]
        eta = (data.X * beta[data.task_index]).sum(axis=1)
        observed = pd.DataFrame(data.X[:, 1:], columns=features).assign(
            task=np.array(data.tasks)[data.task_index], y=rng.normal(eta, float(truth["sigma"].item()))
        )
        fitted = mtl.TaskData.from_table(observed[~observed["task"].isin(NEW)], **columns)
        idata = mtl.fit(fitted, spec, random_seed=int(rng.integers(2**31)), **SETTINGS)
        new = beta[[data.tasks.index(t) for t in NEW]]
        out.append(shares(idata, new, NEW, features, seed=1).mean())
    return np.array(out)


def realistic(name: str, n_coefficients: int, own: float, n: int, seed: int) -> np.ndarray:
    """Return the coverage of `n` data sets of 30 tasks that move along one direction, default priors.

    The standard deviation along the direction is one, and `own` in every coefficient besides.
    """
    rng = np.random.default_rng(seed)
    n_tasks, n_new, n_rows = 30, 100, 30
    features = [f"x{i}" for i in range(1, n_coefficients)]
    tasks = [f"t{i:02d}" for i in range(n_tasks)]
    new = [f"n{i}" for i in range(n_new)]
    mixed = rng.permutation([*tasks, *new]).tolist()  # places say nothing of coefficients
    spec, out = mtl.ModelSpec(**structures(mixed)[name]), []
    for _ in range(n):
        direction = rng.standard_normal(n_coefficients)
        direction /= np.sqrt((direction**2).mean())
        beta = rng.standard_normal(n_coefficients) + rng.standard_normal((n_tasks + n_new, 1)) * direction
        beta = beta + own * rng.standard_normal(beta.shape)
        frame = pd.DataFrame(rng.standard_normal((n_tasks * n_rows, len(features))), columns=features)
        index = np.repeat(np.arange(n_tasks), n_rows)
        eta = beta[index, 0] + (frame.to_numpy() * beta[index, 1:]).sum(axis=1)
        frame = frame.assign(task=np.array(tasks)[index], y=eta + 0.5 * rng.standard_normal(len(frame)))
        data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=features)
        idata = mtl.fit(data, spec, random_seed=int(rng.integers(2**31)), **SETTINGS)
        out.append(shares(idata, beta[n_tasks:], new, features, seed=1).mean())
    return np.array(out)


def main() -> int:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration.new_tasks")
    parser.add_argument("--part", nargs="+", choices=("prior", "realistic"), default=("prior", "realistic"))
    parser.add_argument("--structure", nargs="+", choices=NAMES)
    parser.add_argument("--own", type=float, default=0.5, help="what tasks have of their own (realistic)")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    SETTINGS.update(draws=options.draws, tune=options.draws)
    warnings.simplefilter("ignore")
    missed = 0
    print("| truths | structure | data sets | coverage of 90 % | standard error | seconds |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)

    def show(truths: str, name: str, found: np.ndarray, low: float, high: float, started: float) -> bool:
        error = found.std(ddof=1) / np.sqrt(len(found))
        seconds = time.perf_counter() - started
        line = f"| {truths} | {name} | {len(found)} | {found.mean():.3f} | {error:.3f} | {seconds:.0f} |"
        print(line, flush=True)
        return bool(not low - 2 * error < found.mean() < high + 2 * error)

    for name in options.structure or NAMES:
        if "prior" in options.part:
            started = time.perf_counter()
            found = from_the_prior(name, options.repeats, options.seed)
            missed += show("prior", name, found, 0.87, 0.93, started)
        if "realistic" in options.part:
            for n_coefficients in (4, 8):
                started = time.perf_counter()
                n = max(2, options.repeats // 4)
                found = realistic(name, n_coefficients, options.own, n, options.seed)
                truths = f"{n_coefficients} coefficients, own {options.own:g}"
                missed += show(truths, name, found, 0.85, 1.0, started)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
