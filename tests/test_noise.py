"""Coordinates of the noise scales of tasks: the same law, rounder."""

import numpy as np
import pytest
from scipy import stats

import bayes_mtl as mtl
from bayes_mtl.inference.groups import PRIOR_DRAWS, prior_draws
from bayes_mtl.model import outcome_units, sampling_model
from bayes_mtl.model.noise import TaskNoise
from bayes_mtl.structures._horseshoe import global_scale
from tests.contracts import Evaluator, assert_close, with_natural_noise

FIXED = {"beta_mean": 0.0, "feature_sd": 1.0}
BY_TASK = mtl.Gaussian(task_noise=True)


def make_data(n_rows=(40, 3, 1, 200), noise=(0.5, 0.7, 0.6, 1.5)):
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(len(n_rows)), n_rows)
    x = rng.standard_normal(len(task))
    y = x + np.array(noise)[task] * rng.standard_normal(len(task))
    return mtl.TaskData.from_arrays(x[:, None], y, task)


def describe(**priors):
    return mtl.ModelSpec(family=BY_TASK, feature_covariance=mtl.Diagonal(), priors=FIXED | priors)


def assemble(spec, data):
    return sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows)


PRIORS = [
    {},
    {"sigma": mtl.Prior("InverseGamma", alpha=3, beta=2), "sigma_spread": mtl.Prior("Exponential", lam=2)},
    {"sigma": mtl.Prior("Uniform", lower=0.1, upper=5)},
    {"sigma": 0.7},
    {"sigma_spread": 0.4},
]


@pytest.mark.parametrize("priors", PRIORS, ids=str)
def test_the_density_is_that_of_the_law(priors):
    """Whatever the priors; tasks with fewer rows than columns have no estimate of their own."""
    data, spec = make_data(), describe(**priors)
    sampled, plain = Evaluator(assemble(spec, data).model), Evaluator(mtl.build_model(spec, data))
    rng = np.random.default_rng(1)
    for _ in range(3):
        point = sampled.random_point(rng, 1.0)
        natural, log_jacobian = with_natural_noise(sampled, point)
        assert natural.keys() == set(plain.names)
        assert_close(sampled.logp(point), plain.logp(natural) + log_jacobian, 1e-9)
        np.testing.assert_allclose(sampled.values(point)["sigma"], plain.values(natural)["sigma"])


@pytest.mark.parametrize("spread", [0.02, 0.3, 2.0])
def test_coordinates_are_standard_normal_where_rows_are_many(spread):
    """Given the spread, curvatures are 1 and nothing is correlated, be the spread small or large."""
    data = make_data((1000, 2000, 4000, 1500), (0.6, 0.6, 0.6, 0.6))
    sampled = Evaluator(assemble(describe(sigma_spread=spread), data).model)
    names = ("log_sigma_mean_offset", "log_sigma_offset")

    def gradient(z):
        found = sampled.gradient({names[0]: z[0], names[1]: z[1:]})
        return np.concatenate([np.ravel(found[name]) for name in names])

    steps = 1e-3 * np.eye(5)
    curvature = np.array([gradient(-step) - gradient(step) for step in steps]) / 2e-3
    np.testing.assert_allclose(curvature, np.eye(5), atol=0.15)
    assert np.abs(gradient(np.zeros(5))).max() < 0.5


@pytest.mark.parametrize("priors", PRIORS, ids=str)
def test_prior_draws_are_those_of_the_law(priors):
    data, spec = make_data(), describe(**priors)
    prior = prior_draws(assemble(spec, data), data, 1)
    spread = np.ravel(prior["sigma_spread"]) if "sigma_spread" in prior else np.full(PRIOR_DRAWS, 0.4)
    median = np.ravel(prior["sigma_mean"])
    k = np.log(prior["sigma"].to_numpy()[0] / median[:, None]) / spread[:, None]
    np.testing.assert_allclose(k, prior["sigma_offset"].to_numpy()[0], atol=1e-8)
    # Each fails by chance once in a million times.
    assert stats.kstest(k.ravel(), stats.norm().cdf).pvalue > 1e-6
    assert abs(stats.pearsonr(k[:, 0], k[:, 1]).statistic) < 5 / np.sqrt(len(k))
    if priors.get("sigma") == 0.7:
        np.testing.assert_allclose(median, 0.7)
    elif "sigma" in priors:
        law = (
            stats.uniform(0.1, 4.9)
            if priors["sigma"].distribution == "Uniform"
            else stats.invgamma(3, scale=2)
        )
        assert stats.kstest(median, law.cdf).pvalue > 1e-6


def test_prior_draws_of_scales_that_are_relative_to_the_noise():
    """A horseshoe's scale is HalfStudentT(3) in units of sigma_mean, whose coordinate cannot be drawn."""
    data, scales = make_data(), mtl.Horseshoe(expected_features=0.5)
    spec = mtl.ModelSpec(
        family=BY_TASK, feature_scales=scales, priors={"sigma": mtl.Prior("Exponential", lam=2)}
    )
    prior = prior_draws(assemble(spec, data), data, 1)
    median, tau = np.ravel(prior["sigma_mean"]), np.ravel(prior["feature_relevance_scale"])
    unit = outcome_units(spec, data).scale * np.sqrt(data.n_rows / data.n_tasks)
    # Each fails by chance once in a million times.
    assert stats.kstest(median, stats.expon(scale=0.5).cdf).pvalue > 1e-6
    relative = tau / (global_scale(0.5) * median / unit)
    assert stats.kstest(relative, lambda x: 2.0 * stats.t(3).cdf(x) - 1.0).pvalue > 1e-6
    assert abs(stats.spearmanr(relative, median).statistic) < 5 / np.sqrt(len(tau))


def test_estimates_are_of_what_each_task_leaves():
    data = make_data()
    found = TaskNoise.of(describe(), data, 1.0, 1.0)
    for t in (0, 1, 3):
        rows = data.task_index == t
        X, y = data.X[rows], data.y[rows]
        left = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        freedom = len(y) - 2
        assert found.estimate[t] == pytest.approx(0.5 * np.log(left @ left / freedom))
        assert found.information[t] == 2 * freedom
    assert found.information[2] == 0
