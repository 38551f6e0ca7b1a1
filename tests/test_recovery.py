"""Task correlations: found where there are features enough to see them, and left to the prior where not."""

import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.stats import norm

import bayes_mtl as mtl
from tests.fits import exact_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning"),  # chains are short
]


def fit(beta, structure, n_rows):
    """Fit rows of tasks with these coefficients, and summarise the correlations of tasks."""
    data = mtl.TaskData.from_arrays(*exact_rows(beta, n_rows, noise=0.5, intercept=False), intercept=False)
    spec = mtl.ModelSpec(
        task_covariance=structure, feature_covariance=mtl.Diagonal(), priors={"beta_mean": 0.0}
    )
    idata = mtl.fit(data, spec, draws=500, tune=300, chains=2, random_seed=1, progressbar=False)
    return mtl.task_correlation(idata)


@pytest.fixture(scope="module")
def opposed():
    """Coefficients of four tasks with correlations of exactly 0.9 and -0.9, and the correlations."""
    truth = np.eye(4)
    truth[0, 1] = truth[1, 0] = 0.9
    truth[2, 3] = truth[3, 2] = -0.9
    white = hadamard(16)[[1, 2, 4, 8]].astype(float)  # orthogonal, and no feature has a scale of its own
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
    found = fit(norm.ppf((np.arange(20)[:, None] + 0.5) / 20), structure, n_rows=20)
    assert found.attrs["n_replicates"] == 1
    assert abs(float(found["contraction"].median())) < 0.3  # 0.24 with two latent factors
    assert (found["lower"] < 0).mean() > 0.95
    assert (found["upper"] > 0).mean() > 0.95


def test_many_features_do_not_make_tasks_more_alike_than_they_are():
    """A scale has a value per task to go by; were the priors of all of them wide, rho would be 0.9."""
    white = hadamard(32)[[1, 2]].astype(float)
    found = fit(np.linalg.cholesky([[1.0, 0.8], [0.8, 1.0]]) @ white, mtl.LKJ(1.0), n_rows=120)
    assert 0.6 < float(found["mean"][0]) < 0.88
    assert float(found["lower"][0]) < 0.8 < float(found["upper"][0])
