"""Simulated tables, and the description of the same model for this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

N_FEATURES = 6  # intercept and five slopes
LKJ_ETA = 2.0
BETA_MEAN_SD = 2.5  # beta_mean ~ N(0, 2.5), feature_sd and sigma ~ HalfNormal(1)

Relation = Literal["exchangeable", "dense", "low_rank"]


@dataclass(frozen=True)
class Workload:
    """One model at several sizes.

    Attributes
    ----------
    title : str
    sizes : tuple of int
        Rows a task, rows in total or tasks, as `unit` says.
    unit : str
    bars : mapping
        By size: how many times the best other form's ESS per second is aimed at.
    """

    title: str
    sizes: tuple[int, ...]
    unit: str
    family: Literal["gaussian", "bernoulli"] = "gaussian"
    relation: Relation = "exchangeable"
    n_tasks: int = 50
    bars: tuple[tuple[int, float], ...] = ()
    rivals: tuple[str, ...] = ("pymc centered", "pymc non-centered", "stan centered", "stan non-centered")


WORKLOADS = {
    "W1": Workload(
        "Gaussian, 50 exchangeable tasks x 6 coefficients, LKJ(2) over features",
        (20, 400, 4000),
        "rows a task",
        bars=((20, 5), (400, 8), (4000, 80)),
    ),
    "W2": Workload(
        "Bernoulli, 50 exchangeable tasks x 6 coefficients, LKJ(2) over features",
        (20, 200, 2000),
        "rows a task",
        family="bernoulli",
        bars=((20, 3), (200, 10), (2000, 10)),
    ),
    "W3": Workload(
        "Gaussian, more and more rows in 50 tasks x 6 coefficients",
        (10**4, 10**5, 10**6, 10**7),
        "rows in total",
    ),
    "W4": Workload(
        "Gaussian, more and more tasks x 6 coefficients, LowRank(3), 40 rows a task",
        (50, 500, 5000),
        "tasks",
        relation="low_rank",
    ),
    "W5": Workload(
        "Gaussian, matrix normal: LKJ(2) over 20 tasks, LKJ(2) over 6 features",
        (40,),
        "rows a task",
        relation="dense",
        n_tasks=20,
        bars=((40, 10),),
        rivals=("stan centered", "stan non-centered"),
    ),
    "W6": Workload("The fused Bernoulli likelihood alone, 6 columns in 50 tasks", (10**6,), "rows in total"),
}


@dataclass(frozen=True)
class Table:
    """Simulated rows, sorted by task; the first column of X is the intercept."""

    X: np.ndarray
    y: np.ndarray
    task: np.ndarray
    n_tasks: int


def simulate(workload: Workload, rows_a_task: int, n_tasks: int, seed: int) -> Table:
    """Draw coefficients, features and outcomes; tasks have about `rows_a_task` rows."""
    rng = np.random.default_rng([seed, rows_a_task, n_tasks])
    count = np.maximum(rng.poisson(rows_a_task, n_tasks), N_FEATURES + 1)
    task = np.repeat(np.arange(n_tasks), count)
    X = rng.standard_normal((len(task), N_FEATURES))
    X[:, 0] = 1.0
    sd = rng.uniform(0.3, 1.0, N_FEATURES)
    cholesky = sd[:, None] * random_correlation_cholesky(rng, N_FEATURES)
    whitened = rng.standard_normal((n_tasks, N_FEATURES))
    if workload.relation == "dense":
        whitened = random_correlation_cholesky(rng, n_tasks) @ whitened
    elif workload.relation == "low_rank":
        loadings = rng.standard_normal((n_tasks, 3))
        factors = rng.standard_normal((3, N_FEATURES))
        whitened = (loadings @ factors + whitened) / np.sqrt(1.0 + (loadings**2).sum(axis=1))[:, None]
    beta = 0.5 * rng.standard_normal(N_FEATURES) + whitened @ cholesky.T
    eta = (X * beta[task]).sum(axis=1)
    if workload.family == "bernoulli":
        y = (rng.random(len(eta)) < 1.0 / (1.0 + np.exp(-eta))).astype(np.int64)
    else:
        y = eta + rng.standard_normal(len(eta))
    return Table(X, y, task, n_tasks)


def random_correlation_cholesky(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw the Cholesky factor of an LKJ(2) correlation matrix."""
    L = np.zeros((n, n))
    for i in range(n):
        rest = 1.0
        for j in range(i):
            a = LKJ_ETA + (n - 2 - j) / 2
            L[i, j] = (2.0 * rng.beta(a, a) - 1.0) * np.sqrt(rest)
            rest -= L[i, j] ** 2
        L[i, i] = np.sqrt(rest)
    return L


def task_data(table: Table) -> Any:
    """Hand the rows to the package."""
    import bayes_mtl as mtl

    return mtl.TaskData.from_arrays(table.X[:, 1:], table.y, table.task)


def model_spec(workload: Workload) -> Any:
    """Describe the model, with the priors that the hand-written forms have."""
    import bayes_mtl as mtl

    half_normal = mtl.Prior("HalfNormal", sigma=1)
    priors = {"beta_mean": mtl.Prior("Normal", mu=0, sigma=BETA_MEAN_SD), "feature_sd": half_normal}
    if workload.family == "gaussian":
        priors["sigma"] = half_normal
    structures = {"exchangeable": mtl.Exchangeable(), "dense": mtl.LKJ(LKJ_ETA), "low_rank": mtl.LowRank(3)}
    return mtl.ModelSpec(
        family=workload.family,
        task_covariance=structures[workload.relation],
        feature_covariance=mtl.LKJ(LKJ_ETA),
        independent_features=None if workload.relation == "low_rank" else (),
        priors=priors,
    )
