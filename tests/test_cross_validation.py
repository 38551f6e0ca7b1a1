"""Scores of what is left out, against dense algebra on the rows themselves."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayes_mtl as mtl
from bayes_mtl.summaries.leave_out import row_elpd

SIGMA = 0.7


@pytest.fixture(scope="module")
def known():
    """Tasks of very different sizes, two with fewer rows than columns, and every hyperparameter known."""
    rng = np.random.default_rng(8)
    task = np.repeat(np.arange(6), [1, 2, 5, 9, 30, 2])
    n = len(task)
    frame = pd.DataFrame(rng.standard_normal((n, 3)), columns=["x", "s", "off"])
    frame = frame.assign(t=task, w=np.exp(rng.standard_normal(n)), z=rng.standard_normal(6)[task])
    frame["y"] = frame.off + 1.5 + frame.x + 0.5 * frame.s + rng.standard_normal(n)
    data = mtl.TaskData.from_table(
        frame,
        task="t",
        outcome="y",
        features=["x"],
        shared_features=["s"],
        weights="w",
        offset="off",
        task_features=["z"],
    )
    mean, mean_sd, sd, effect = [0.3, -0.2], [1.5, 1.0], [0.8, 0.5], [0.6, 0.4]
    names = ["Intercept", "x"]
    normal = [mtl.Prior("Normal", mu=m, sigma=s) for m, s in zip(mean, mean_sd, strict=True)]
    effects = [mtl.Prior("Normal", mu=0, sigma=s) for s in effect]
    priors = {
        "beta_mean": dict(zip(names, normal, strict=True)),
        "feature_sd": dict(zip(names, sd, strict=True)),
        "sigma": SIGMA,
        "beta_shared": mtl.Prior("Normal", mu=0, sigma=1.2),
        "task_feature_effects": dict(zip(names, effects, strict=True)),
    }
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=priors)
    idata = mtl.fit(data, spec, draws=500, tune=1, chains=2, random_seed=1, progressbar=False)
    X, z = np.column_stack([np.ones(n), frame.x]), frame.z.to_numpy()
    scales = [np.square(v) for v in (mean_sd, sd, effect)]
    shared, own, known = ((X * v) @ X.T for v in scales)
    same = task[:, None] == task[None, :]
    V = shared + own * same + np.outer(z, z) * known + 1.44 * np.outer(frame.s, frame.s)
    V += np.diag(SIGMA**2 / frame.w)
    left = frame.y.to_numpy() - frame.off.to_numpy() - X @ mean
    return idata, task, np.column_stack([X, frame.s]), frame.w.to_numpy(), V, left


def test_rows_and_tasks_left_out_are_those_of_the_joint_law(known):
    idata, task, X, w, V, left = known
    W = np.linalg.inv(V)
    variance = 1.0 / np.diag(W)
    expected = stats.norm.logpdf((W @ left) * variance, 0.0, np.sqrt(variance))
    np.testing.assert_allclose(row_elpd(idata)[0], expected, rtol=1e-9)
    found = mtl.leave_one_task_out(idata, refit=False)
    for t in range(6):
        at = np.flatnonzero(task == t)
        C = np.linalg.inv(W[np.ix_(at, at)])
        error = C @ (W @ left)[at]
        elpd = stats.multivariate_normal.logpdf(error, np.zeros(len(at)), C)
        assert float(found["elpd"][t]) == pytest.approx(elpd, rel=1e-9)
        # What the rows say of coefficients lies in the space of the columns, of as many dimensions as rank.
        root = np.sqrt(w[at])
        U, length, _ = np.linalg.svd(root[:, None] * X[at], full_matrices=False)
        U = U[:, length > 1e-10]
        projected = U.T @ (root * error)
        square = projected @ np.linalg.solve(U.T @ (root[:, None] * C * root) @ U, projected)
        assert U.shape[1] == min(len(at), 3)
        assert float(found["surprise"][t]) == pytest.approx(stats.chi2.sf(square, U.shape[1]), rel=1e-8)
