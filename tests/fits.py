"""Fits that several tests share: compiling a model takes most of a minute."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

import bayes_mtl as mtl
from tests.exact import sleepstudy

mpl.use("Agg")


@pytest.fixture(scope="session")
def sleepstudy_case():
    return sleepstudy(2.0)


@pytest.fixture(scope="session")
def sleepstudy_fit(sleepstudy_case):
    """Reaction times of 18 subjects; coefficients integrated out."""
    return mtl.fit(
        sleepstudy_case.data,
        sleepstudy_case.spec,
        draws=3000,
        target_accept=0.95,
        random_seed=2,
        progressbar=False,
    )


@pytest.fixture(scope="session")
def related_fit():
    """Four tasks with known correlations (two groups that oppose each other) and fifteen slopes."""
    rng = np.random.default_rng(3)
    truth = np.array(
        [[1.0, 0.8, -0.7, 0.0], [0.8, 1.0, -0.8, 0.0], [-0.7, -0.8, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )
    # Make the realised correlations those of the truth, so that the answer is known.
    white = np.linalg.qr(rng.standard_normal((15, 4)))[0].T * np.sqrt(15)
    beta = np.linalg.cholesky(truth) @ white
    X = rng.standard_normal((4 * 60, 15))
    task = np.repeat(list("abcd"), 60)
    y = (X * beta[np.repeat(np.arange(4), 60)]).sum(axis=1) + 0.5 * rng.standard_normal(len(X))
    data = mtl.TaskData.from_arrays(X, y, task)
    spec = mtl.ModelSpec(
        task_covariance=mtl.LowRank(2), feature_covariance=mtl.Diagonal(), priors={"beta_mean": 0.0}
    )
    idata = mtl.fit(data, spec, draws=1000, chains=2, random_seed=1, target_accept=0.95, progressbar=False)
    return idata, truth


@pytest.fixture(scope="session")
def binary_fit():
    """Twelve tasks of a binary outcome, with the coefficients that made it."""
    rng = np.random.default_rng(5)
    beta = np.array([-0.3, 1.0, -0.5]) + 0.7 * rng.standard_normal((12, 3))
    task = np.repeat(np.arange(12), 80)
    X = rng.standard_normal((len(task), 2))
    eta = beta[task, 0] + (X * beta[task, 1:]).sum(axis=1)
    y = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    data = mtl.TaskData.from_arrays(X, y, task)
    spec = mtl.ModelSpec(family="bernoulli", feature_covariance=mtl.Diagonal())
    idata = mtl.fit(data, spec, draws=1000, chains=2, random_seed=1, progressbar=False)
    return idata, beta, data
