"""Task correlations: found where there are features enough to see them, and left to the prior where not."""

import numpy as np
import pytest
from scipy.linalg import hadamard

import bayes_mtl as mtl

# Chains are short.
pytestmark = pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")


def fit(beta, structure, n_rows, seed=0):
    """Fit rows of tasks with these coefficients, and summarise the correlations of tasks."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(len(beta)), n_rows)
    X = rng.standard_normal((len(task), beta.shape[1]))
    y = (X * beta[task]).sum(axis=1) + 0.5 * rng.standard_normal(len(task))
    data = mtl.TaskData.from_arrays(X, y, task, intercept=False)
    spec = mtl.ModelSpec(
        task_covariance=structure, feature_covariance=mtl.Diagonal(), priors={"beta_mean": 0.0}
    )
    idata = mtl.fit(data, spec, draws=300, tune=300, chains=2, random_seed=1, progressbar=False)
    return mtl.task_correlation(idata)


@pytest.fixture(scope="module")
def opposed():
    """Coefficients of four tasks with correlations of exactly 0.8 and -0.8, and the correlations."""
    truth = np.eye(4)
    truth[0, 1] = truth[1, 0] = 0.8
    truth[2, 3] = truth[3, 2] = -0.8
    white = hadamard(32)[[1, 2, 4, 8]].astype(float)  # orthogonal, and no feature has a scale of its own
    return np.linalg.cholesky(truth) @ white, truth[np.triu_indices(4, 1)]


@pytest.mark.parametrize("structure", [mtl.LKJ(1.0), mtl.LowRank(2), mtl.SparsePrecision()], ids=str)
def test_correlations_of_either_sign_and_none(structure, opposed):
    beta, truth = opposed
    found = fit(beta, structure, n_rows=200)
    np.testing.assert_allclose(found["mean"], truth, atol=0.2)
    assert (found["lower"] < truth).all()
    assert (truth < found["upper"]).all()
    strong = np.abs(truth) > 0.5
    assert found["contraction"].to_numpy()[strong].min() > 0.6
    certain = np.where(truth > 0, found["p_positive"], 1 - found["p_positive"])
    assert certain[strong].min() > 0.98


@pytest.mark.parametrize("structure", [mtl.LKJ(1.0), mtl.LowRank(2), mtl.SparseBasis(2)], ids=str)
def test_one_feature_says_nothing_of_twenty_tasks(structure):
    """However well each coefficient is known: correlations have as many replicates as there are features."""
    found = fit(np.random.default_rng(0).standard_normal((20, 1)), structure, n_rows=20)
    assert found.attrs["n_replicates"] == 1
    assert abs(float(found["contraction"].median())) < 0.2
    assert (found["lower"] < 0).mean() > 0.95
    assert (found["upper"] > 0).mean() > 0.95


def test_many_features_do_not_make_tasks_more_alike_than_they_are():
    """A scale has a value per task to go by; were the priors of all of them wide, rho would be 0.9."""
    rng, means, covered = np.random.default_rng(1), [], 0
    for _ in range(5):
        beta = np.linalg.cholesky([[1.0, 0.8], [0.8, 1.0]]) @ rng.standard_normal((2, 24))
        found = fit(beta, mtl.LKJ(1.0), n_rows=120)
        means.append(float(found["mean"][0]))
        covered += float(found["lower"][0]) < 0.8 < float(found["upper"][0])
    assert 0.6 < np.mean(means) < 0.88
    assert covered >= 3
