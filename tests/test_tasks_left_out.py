"""Tasks left out of mixtures are those of a sum over a grid, and scores know the error of the draws."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import bayes_mtl as mtl
from bayes_mtl.inference.hyperdraws import MixtureDraws
from bayes_mtl.inference.leave_out_mixtures import StoredMixture
from bayes_mtl.summaries.compare import _scores
from bayes_mtl.summaries.leave_out import task_scores
from tests.test_predict import frozen

SHIFTS = np.linspace(-3.0, 3.0, 81)  # the one hyperparameter, a priori each as likely
WEIGHT, CENTRE, SIGMA = np.array([0.4, 0.6]), np.array([[-1.0, 0.5], [1.0, -0.5]]), 0.7
CHOLESKY = np.array([[0.6, 0.0], [0.2, 0.4]])


@pytest.fixture(scope="module")
def data():
    task = np.repeat(np.arange(5), [3, 4, 5, 4, 6])
    x = np.sin(3.0 * np.arange(len(task)))
    y = np.array([1.2, -0.8, 0.9, 1.5, -1.1])[task] + 0.5 * x + 0.4 * np.cos(7.0 * np.arange(len(task)))
    return mtl.TaskData.from_arrays(x[:, None], y, task)


def law_at(data, shifts):
    """Two kinds of tasks whose centres move together."""
    n = len(shifts)
    hyper = MixtureDraws(
        sigma=np.full((n, 1), SIGMA),
        mean=np.column_stack([shifts, np.zeros(n)])[:, None],
        effect_scale=np.ones((n, 0)),
        levels=np.zeros((n, 0)),
        log_weight=np.broadcast_to(np.log(WEIGHT), (n, 1, 2)),
        centre=np.broadcast_to(CENTRE, (n, 2, 2)),
        cholesky=np.broadcast_to(CHOLESKY, (n, 1, 2, 2)),
    )
    return StoredMixture(hyper, data)


@pytest.fixture(scope="module")
def by_shift(data):
    """Log density of each task at each shift, by dense algebra."""
    out = np.empty((len(SHIFTS), data.n_tasks))
    centres = CENTRE + np.stack([SHIFTS, np.zeros(len(SHIFTS))], axis=-1)[:, None]
    for t in range(data.n_tasks):
        rows = data.task_index == t
        X, y = data.X[rows], data.y[rows]
        covariance = X @ CHOLESKY @ CHOLESKY.T @ X.T + SIGMA**2 * np.eye(len(y))
        for g, of_shift in enumerate(centres):
            found = [multivariate_normal.logpdf(y, X @ c, covariance) for c in of_shift]
            out[g, t] = logsumexp(np.log(WEIGHT) + found)
    return out


def exact(by_shift):
    """log sum_g p(shift g | other tasks) p(task | shift g)."""
    whole = by_shift.sum(axis=1)
    without = whole[:, None] - by_shift
    return logsumexp(without + by_shift, axis=0) - logsumexp(without, axis=0)


def posterior(by_shift):
    whole = by_shift.sum(axis=1)
    return np.exp(whole - logsumexp(whole))


def test_a_task_left_out_of_a_mixture_is_predicted_by_the_posterior_without_it(data, by_shift):
    below = np.cumsum(posterior(by_shift))
    shifts = SHIFTS[np.searchsorted(below, (np.arange(4000) + 0.5) / 4000)]
    scores = task_scores(law_at(data, shifts), data)
    # Nothing here is random; smoothing weights shortens their tail by a few thousandths.
    np.testing.assert_allclose(scores.elpd, exact(by_shift), atol=0.03)
    assert np.isnan(scores.surprise).all()


def test_the_error_of_the_draws_is_how_much_scores_vary_over_draws(data, by_shift):
    rng, weight = np.random.default_rng(1), posterior(by_shift)
    found = [task_scores(law_at(data, rng.choice(SHIFTS, 300, p=weight)), data) for _ in range(400)]
    spread = np.std([s.elpd for s in found], axis=0)
    said = np.sqrt(np.mean([(s.error**2).sum(axis=0) * 20 / 19 for s in found], axis=0))
    # The standard error of a standard deviation of 400 is 3.5 %.
    np.testing.assert_allclose(said / spread, 1.0, atol=0.25)


def test_comparisons_by_task_have_this_error(data):
    rng = np.random.default_rng(2)
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal())
    idata = frozen(data, spec, draws=200, sigma=1.0, beta=np.zeros((5, 2)))
    own = {"sigma": (), "beta_mean": ("feature",), "feature_sd": ("feature",)}
    drawn = {
        name: (("chain", "draw", *dims), np.exp(0.3 * rng.standard_normal((1, 200, *(2 for _ in dims)))))
        for name, dims in own.items()
    }
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().assign(drawn))
    found, by_task = _scores(idata, "task", 0, {}), mtl.leave_one_task_out(idata, refit=False)
    assert (by_task["elpd_mcse"] > 0).all()
    np.testing.assert_allclose(np.sqrt(found.monte_carlo_variance), by_task["elpd_mcse"])
    np.testing.assert_allclose(found.density, by_task["elpd"])
