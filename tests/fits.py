"""Fits that several tests share: compiling a model takes most of a minute."""

from __future__ import annotations

import pickle
from itertools import product

import matplotlib as mpl
import numpy as np
import pytest
from filelock import FileLock
from scipy.special import expit

import bayes_mtl as mtl
from tests.exact import sleepstudy

mpl.use("Agg")


def exact_rows(beta, n_rows, seed=0, *, noise=1.0, intercept=True):
    """Return X, y, task: rows whose least squares are `beta`, and whose residual variance is `noise`^2.

    A Gaussian model learns from rows by their cross products alone, which are the same for every seed: so is
    its posterior, and only the error of its draws is left to chance. The first coefficients are intercepts.
    """
    rng = np.random.default_rng(seed)
    size, rows, outcome = beta.shape[1], [], []
    for coefficients in beta:
        white = rng.standard_normal((n_rows, size + 1))
        if intercept:
            white[:, 0] = 1.0
        white = np.linalg.qr(white)[0] * np.sqrt(n_rows)
        X = white[:, :size]
        if intercept:
            X[:, 0] = 1.0
        outcome.append(X @ coefficients + noise * np.sqrt(1.0 - size / n_rows) * white[:, size])
        rows.append(X[:, 1:] if intercept else X)
    return np.concatenate(rows), np.concatenate(outcome), np.repeat(np.arange(len(beta)), n_rows)


def exact_binary(beta, n_rows):
    """Return X, y, task, weights: as many rows as `n_rows` in each task, as often one as `beta` say, exactly.

    The first coefficients are intercepts; of each other column there are three values.
    """
    points = np.array(list(product([-1.2, 0.0, 1.2], repeat=beta.shape[1] - 1)))
    p = expit(beta[:, :1] + beta[:, 1:] @ points.T)
    weights = n_rows / len(points) * np.stack([1.0 - p, p], axis=2)
    task, point, y = (a.ravel() for a in np.indices(weights.shape))
    return points[point], y, task, weights.ravel()


@pytest.fixture(scope="session")
def sleepstudy_case():
    return sleepstudy(2.0)


@pytest.fixture(scope="session")
def once(tmp_path_factory, request):
    """Make something once for all processes of a test run: the first makes it, the others read it."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent  # each process has a folder of its own in it

    def get(name, make):
        path = folder / f"{name}.pickle"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                path.write_bytes(pickle.dumps(make()))
        return pickle.loads(path.read_bytes())

    return get


@pytest.fixture(scope="session")
def sleepstudy_fit(sleepstudy_case, once):
    """Reaction times of 18 subjects; coefficients integrated out."""
    options = {"draws": 6000, "target_accept": 0.95, "random_seed": 2, "progressbar": False}
    return once("sleepstudy", lambda: mtl.fit(sleepstudy_case.data, sleepstudy_case.spec, **options))


@pytest.fixture(scope="session")
def related_fit(once):
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
    options = {"draws": 3000, "chains": 2, "random_seed": 1, "target_accept": 0.95, "progressbar": False}
    return once("related", lambda: mtl.fit(data, spec, **options)), truth


@pytest.fixture(scope="session")
def binary_fit(once):
    """Twelve tasks of a binary outcome, with the coefficients that made it."""
    rng = np.random.default_rng(5)
    beta = np.array([-0.3, 1.0, -0.5]) + 0.7 * rng.standard_normal((12, 3))
    task = np.repeat(np.arange(12), 80)
    X = rng.standard_normal((len(task), 2))
    eta = beta[task, 0] + (X * beta[task, 1:]).sum(axis=1)
    y = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    data = mtl.TaskData.from_arrays(X, y, task)
    spec = mtl.ModelSpec(family="bernoulli", feature_covariance=mtl.Diagonal())
    options = {"draws": 3000, "chains": 2, "random_seed": 1, "target_accept": 0.9, "progressbar": False}
    return once("binary", lambda: mtl.fit(data, spec, **options)), beta, data
