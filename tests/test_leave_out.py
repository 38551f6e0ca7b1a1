"""What is left out in closed form is what a dense computation leaves out, and what a fit without it says."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import hadamard
from scipy.special import logsumexp
from scipy.stats import halfnorm, kstest
from scipy.stats import multivariate_normal as normal
from scipy.stats import norm as normal_density

import bayes_mtl as mtl
from bayes_mtl.inference.alone import LawOfOne, score_alone
from bayes_mtl.inference.alone_law import law_of_prior
from bayes_mtl.inference.groups import prior_draws
from bayes_mtl.inference.hyperdraws import thinned
from bayes_mtl.inference.leave_out import Stored
from bayes_mtl.model import sampling_model
from bayes_mtl.summaries.leave_out import row_elpd, row_scores_without, score_of_absent
from bayes_mtl.summaries.refit import exact_rows, fit_without
from tests import fits


def joint_law(stored, d):
    """Mean and covariance of all outcomes given draw d, by the definition of the model."""
    data = stored.data
    _, piece = next(stored.chunks())
    X, task = data.full_matrix, data.task_index
    common = np.einsum("nf,nfa->na", X, piece.design[d][task])
    covariance = common @ common.T
    for t in range(data.n_tasks):
        rows = np.flatnonzero(task == t)
        own = data.X[rows] @ piece.own[d, t]
        covariance[np.ix_(rows, rows)] += own @ own.T
    sigma = piece.hyper.sigma[d] if piece.hyper.sigma.shape[1] == 1 else piece.hyper.sigma[d][task]
    covariance += np.diag(np.ones(data.n_rows) * sigma**2)
    mean = np.broadcast_to(piece.hyper.mean[d], (data.n_tasks, X.shape[1]))
    known = data.levels.times(piece.hyper.levels[d]) if data.groupings else 0.0
    return (X * mean[task]).sum(axis=1) + data.offset + known, covariance


def given_the_rest(y, mean, covariance, part):
    """Log density of a part of y given the rest."""
    rest = ~part
    gain = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[np.ix_(rest, part)])
    return normal.logpdf(
        y[part],
        mean[part] + gain.T @ (y[rest] - mean[rest]),
        covariance[np.ix_(part, part)] - gain.T @ covariance[np.ix_(rest, part)],
    )


def crossed(family="gaussian", seed=0):
    """Return rows of 8 tasks crossed with 5 items, and effects of items; one feature of three matters."""
    rng = np.random.default_rng(seed)
    task, item = (a.ravel() for a in np.meshgrid(np.arange(8), np.tile(np.arange(5), 4)))
    X = rng.standard_normal((len(task), 3))
    beta, effect = 1.5 + 0.5 * rng.standard_normal((8, 1)), rng.standard_normal(5)
    y = (beta[task] * X[:, :1]).sum(axis=1) + effect[item] + 0.5 * rng.standard_normal(len(task))
    if family == "bernoulli":
        y = (y > 0).astype(int)
    columns = {f"x{j}": X[:, j] for j in range(3)}
    return pd.DataFrame({"task": task, "item": [f"i{i}" for i in item], "y": y, **columns}), effect


@pytest.fixture(scope="module")
def crossed_fit():
    frame, _ = crossed()
    frame = frame.drop(index=range(0, len(frame), 3))  # unbalanced
    data = mtl.TaskData.from_table(
        frame, task="task", outcome="y", features=["x0", "x1"], groupings={"item": ["Intercept", "x1"]}
    )
    return mtl.fit(data, draws=2500, target_accept=0.95, random_seed=1, progressbar=False)


def selected(task_specific):
    frame, _ = crossed()
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x0", "x1", "x2"])
    spec = mtl.ModelSpec(feature_scales=mtl.Horseshoe(expected_features=1, task_specific=task_specific))
    options = {"draws": 1000, "random_seed": 1, "progressbar": False}
    with warnings.catch_warnings():
        # The law of coefficients given hyperparameters is looked at, wherever chains have been.
        warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
        return mtl.fit(data, spec, **options)


@pytest.fixture(scope="module")
def selected_fit():
    return selected(task_specific=False)


@pytest.fixture(scope="module")
def exceptions_fit():
    return selected(task_specific=True)


SELECTED = [pytest.param(f"{name}_fit", marks=pytest.mark.slow) for name in ("selected", "exceptions")]


@pytest.mark.parametrize("fixture", ["sleepstudy_fit", "crossed_fit", *SELECTED])
def test_coefficients_given_what_is_read_are_those_of_the_posterior(fixture, request):
    """E[beta] = E[E[beta | theta, y]] and Var(beta) = E[Var(beta | theta, y)] + Var(E[beta | theta, y])."""
    idata = request.getfixturevalue(fixture)
    stored = Stored.read(idata)
    pieces = [piece.coefficients for _, piece in stored.chunks()]
    mean, covariance = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    beta = idata["posterior"]["beta"].transpose("chain", "draw", "task", "feature").to_numpy()
    drawn = beta.reshape(-1, *beta.shape[2:])
    sd = drawn.std(axis=0)
    np.testing.assert_allclose((mean.mean(axis=0) - drawn.mean(axis=0)) / sd, 0.0, atol=0.1)
    whole = np.einsum("dtff->dtf", covariance).mean(axis=0) + mean.var(axis=0)
    np.testing.assert_allclose(np.sqrt(whole) / sd, 1.0, atol=0.1)


@pytest.mark.parametrize("fixture", ["sleepstudy_fit", "related_fit", "crossed_fit", *SELECTED])
def test_densities_are_those_of_the_joint_normal_law(fixture, request):
    idata = request.getfixturevalue(fixture)
    stored = Stored.read(idata[0] if fixture == "related_fit" else idata, draws=5)
    data = stored.data
    _, piece = next(stored.chunks())
    by_task, by_row = piece.task_log_density(data), piece.row_log_density(data)
    for d in (0, 4):
        mean, covariance = joint_law(stored, d)
        for t in range(0, data.n_tasks, 3):
            expected = given_the_rest(data.y, mean, covariance, data.task_index == t)
            assert by_task[d, t] == pytest.approx(expected, rel=1e-8)
        for i in range(0, data.n_rows, 37):
            expected = given_the_rest(data.y, mean, covariance, np.arange(data.n_rows) == i)
            assert by_row[d, i] == pytest.approx(expected, rel=1e-8)


def test_with_levels_a_task_left_out_is_predicted_as_by_a_fit_without_it(crossed_fit):
    """With effects of levels, which most of what a task says of its rows goes through."""
    found = mtl.leave_one_task_out(crossed_fit, refit=False)
    t = int(np.argmin(found["pareto_k"].to_numpy()))
    rest = fit_without(crossed_fit, t, draws=4000, target_accept=0.95, random_seed=3)
    elpd, surprise = score_of_absent(rest, Stored.read(crossed_fit).data, t)
    assert float(found["elpd"][t]) == pytest.approx(elpd, abs=0.3)
    assert float(found["surprise"][t]) == pytest.approx(surprise, abs=0.1)


def test_a_task_left_out_is_predicted_as_by_a_fit_without_it(sleepstudy_fit):
    found = mtl.leave_one_task_out(sleepstudy_fit, refit=False)
    easiest = np.argsort(found["pareto_k"].to_numpy())
    assert float(found["pareto_k"][easiest[1]]) < 0.5
    for t in easiest[:2]:
        rest = fit_without(sleepstudy_fit, t, draws=4000, random_seed=3)
        elpd, surprise = score_of_absent(rest, Stored.read(sleepstudy_fit).data, t)
        assert float(found["elpd"][t]) == pytest.approx(elpd, abs=0.15)
        assert float(found["surprise"][t]) == pytest.approx(surprise, abs=0.05)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of the comparison
def test_rows_left_out_agree_with_importance_sampling_of_the_coefficients(sleepstudy_fit):
    import arviz_stats

    exact, k = row_elpd(sleepstudy_fit)
    sampled = arviz_stats.loo(sleepstudy_fit, pointwise=True)
    easy = sampled.pareto_k.to_numpy() < 0.3
    assert easy.mean() > 0.6
    np.testing.assert_allclose(exact[easy], sampled.elpd_i.to_numpy()[easy], atol=0.03)
    # Only the hyperparameters are reweighted, which a single row hardly moves.
    assert k.max() < sampled.pareto_k.to_numpy().max()


def test_surprise_is_uniform_for_tasks_like_the_others():
    """Given the true hyperparameters, by its definition."""
    from bayes_mtl.inference.leave_out import Conditional

    rng = np.random.default_rng(0)
    n_tasks, n, sd = 1500, 6, np.array([1.0, 0.5])
    beta = np.array([1.0, -1.0]) + sd * rng.standard_normal((n_tasks, 2))
    task = np.repeat(np.arange(n_tasks), n)
    x = rng.standard_normal(len(task))
    y = beta[task, 0] + beta[task, 1] * x + 0.7 * rng.standard_normal(len(task))
    data = mtl.TaskData.from_arrays(x[:, None], y, task)
    priors = {"feature_sd": {"Intercept": 1.0, "x0": 0.5}, "sigma": 0.7}
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=priors)
    idata = mtl.fit(data, spec, draws=400, chains=2, random_seed=0, progressbar=False)
    _, piece = next(Stored.read(idata).chunks())
    assert isinstance(piece, Conditional)
    assert kstest(piece.task_surprise()[0], "uniform").pvalue > 1e-7


@pytest.mark.slow
def test_the_audit_names_the_task_that_contradicts_the_others():
    signs = hadamard(16)[:10]
    beta = np.array([1.0, -1.0, 0.8, 1.2]) + 0.1 * signs[:, 1:5]
    beta[9] *= -1.0
    beta = beta + signs[:, 5:9] / np.sqrt(50)  # least squares are off by one standard error each
    others, odd = fits.exact_rows(beta[:9], 50), fits.exact_rows(beta[9:], 10, seed=1)
    X, y, task = (np.concatenate(both) for both in zip(others, (*odd[:2], odd[2] + 9), strict=True))
    data = mtl.TaskData.from_arrays(X, y, [f"task {t}" for t in task])
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal())
    idata = mtl.fit(data, spec, draws=3000, chains=2, target_accept=0.95, random_seed=1, progressbar=False)
    found = mtl.transfer_gain(idata)
    assert found["hurt"].to_numpy().tolist() == [False] * 9 + [True]
    assert found["hurts_others"].to_numpy().tolist() == [False] * 9 + [True]
    assert "task 9" in found.attrs["remedy"]
    assert "StudentT" in found.attrs["remedy"]


def test_pooling_beside_effects_of_levels(crossed_fit):
    found, stored = mtl.pooling(crossed_fit), Stored.read(crossed_fit, draws=200)
    data = stored.data
    left = data.y - data.levels.times(stored.hyper.levels.mean(axis=0))
    for t in range(data.n_tasks):
        at = data.task_index == t
        expected = np.linalg.lstsq(data.X[at], left[at], rcond=None)[0]
        np.testing.assert_allclose(found["alone"][t], expected, rtol=1e-6)
    assert "Levels of item have effects of their own (Intercept, x1)" in found.attrs["words"]
    assert ((found["factor"] > 0) & (found["factor"] < 1)).all()
    # x0 differs much between tasks, and the rest hardly: only that is decided by a task's own rows.
    factor = found["factor"].mean("task")
    assert factor.sel(feature="x0") < 0.5 * factor.sel(feature="x1")


def test_pooling_is_the_share_of_the_prior_in_the_precision(sleepstudy_fit):
    found = mtl.pooling(sleepstudy_fit)
    assert ((found["factor"] > 0) & (found["factor"] < 1)).all()
    assert (found["borrowed_rows"] > 0).all()
    # Balanced data: every subject borrows the same, and as much from each of the others.
    assert np.ptp(found["effective_rows"].to_numpy()) < 1e-6 * float(found["effective_rows"][0])
    lent = found["borrowed_from"].to_numpy()
    off = lent[~np.eye(18, dtype=bool)]
    assert np.ptp(off) < 1e-6 * off.mean()
    # A subject's coefficients lie between its own least squares and the population mean.
    assert (
        np.abs(found["together"] - found["population"]).mean()
        < np.abs(found["alone"] - found["population"]).mean()
    )


def test_pooling_of_one_mean_is_known_in_closed_form():
    """Tasks with a mean each: the prior's share is (1/V) / (1/V + n/sigma^2), V of mean and spread."""
    rng = np.random.default_rng(0)
    n = np.array([3, 10, 40])
    task = np.repeat(np.arange(3), n)
    data = mtl.TaskData.from_table(
        {"t": task, "y": rng.standard_normal(len(task)) + task}, task="t", outcome="y"
    )
    priors = {"beta_mean": 0.0, "feature_sd": 0.5, "sigma": 2.0}
    idata = mtl.fit(data, mtl.ModelSpec(priors=priors), draws=400, chains=2, random_seed=0, progressbar=False)
    found = mtl.pooling(idata)
    own = n / 4.0
    np.testing.assert_allclose(found["factor"].to_numpy()[:, 0], 4.0 / (4.0 + own))
    # Prior information of 1 / 0.25 is worth sigma^2 / 0.25 = 16 rows.
    np.testing.assert_allclose(found["borrowed_rows"].to_numpy(), 16.0)


def test_what_has_no_answer_says_so(binary_fit):
    with pytest.raises(mtl.errors.SpecError, match="needs Gaussian outcomes"):
        mtl.leave_one_task_out(binary_fit[0])
    assert (mtl.pooling(binary_fit[0])["borrowed_rows"] > 0).all()


def test_what_others_gain_is_what_a_fit_without_the_task_says(sleepstudy_fit):
    k = mtl.leave_one_task_out(sleepstudy_fit, refit=False)["pareto_k"].to_numpy()
    t = int(np.argmin(k))
    assert k[t] < 0.5
    rest = fit_without(sleepstudy_fit, t, draws=4000, random_seed=3)
    found, expected = row_scores_without(sleepstudy_fit, t).elpd, row_elpd(rest)[0]
    # The density of the few rows that hardly anything predicts is known less well.
    likely = expected > -10.0
    assert likely.mean() > 0.95
    np.testing.assert_allclose(found[likely], expected[likely], rtol=0.01)


@pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")  # of short chains
class TestRefits:
    def test_say_what_importance_sampling_says(self, sleepstudy_fit):
        density, k = row_elpd(sleepstudy_fit)
        claimed = np.zeros_like(k)
        claimed[[5, 60]] = 2.0
        changed = np.where(claimed > 1.0, -99.0, density)
        found, left, used = exact_rows(sleepstudy_fit, changed, claimed, 0.7, 10, draws=1000, random_seed=3)
        assert used == 2
        np.testing.assert_allclose(found[[5, 60]], density[[5, 60]], atol=0.05)
        np.testing.assert_array_equal(np.delete(found, [5, 60]), np.delete(density, [5, 60]))
        assert left[[5, 60]].tolist() == [0.0, 0.0]
        assert exact_rows(sleepstudy_fit, changed, claimed, 0.7, 0)[0] is changed

    def test_draw_a_task_without_rows_from_the_population(self, sleepstudy_fit):
        wrapper = mtl.sampling_wrapper(sleepstudy_fit, draws=2000, random_seed=3)
        rows = np.flatnonzero(sleepstudy_fit["constant_data"]["task_index"].to_numpy() == 2)
        refit = wrapper.get_inference_data(wrapper.sample(wrapper.sel_observations(rows)[0]))
        found = wrapper.log_likelihood__i(rows, refit).to_numpy().reshape(-1, len(rows))
        posterior = refit["posterior"].to_dataset().stack(sample=("chain", "draw"))
        corr = posterior["feature_corr"].transpose("sample", ...).to_numpy()
        sd = posterior["feature_sd"].transpose("sample", ...).to_numpy()
        X = sleepstudy_fit["constant_data"]["X"].to_numpy()[rows]
        covariance = corr * sd[:, :, None] * sd[:, None, :]
        variance = np.einsum("nf,sfg,ng->sn", X, covariance, X) + posterior["sigma"].to_numpy()[:, None] ** 2
        mean = posterior["beta_mean"].transpose("sample", "feature").to_numpy() @ X.T
        y = sleepstudy_fit["observed_data"]["y"].to_numpy()[rows]
        expected = normal_density.pdf(y, mean, np.sqrt(variance)).mean(axis=0)
        np.testing.assert_allclose(np.exp(found).mean(axis=0), expected, rtol=0.15)

    def test_are_made_by_arviz(self, sleepstudy_fit):
        import arviz_stats

        wrapper = mtl.sampling_wrapper(sleepstudy_fit, draws=500, random_seed=3)
        task = sleepstudy_fit["constant_data"]["task_index"].to_numpy()
        found = arviz_stats.loo_kfold(sleepstudy_fit, wrapper, k=2, group_by=task, pointwise=True)
        assert found.n_folds == 2
        assert np.isfinite(found.elpd_i).all()
        assert found.elpd < row_elpd(sleepstudy_fit)[0].sum()  # rows of a task tell of each other

    def test_of_binary_outcomes_know_a_task_without_rows(self):
        rng = np.random.default_rng(0)
        task, x = np.repeat(np.arange(5), 60), rng.standard_normal(300)
        y = rng.binomial(1, 1 / (1 + np.exp(-np.where(task == 4, -3.0, 1.0) * x)))
        data = mtl.TaskData.from_arrays(x[:, None], y, task)
        idata = mtl.fit(data, mtl.ModelSpec("bernoulli"), chains=2, random_seed=1, progressbar=False)
        rest = fit_without(idata, 4, random_seed=1)  # the last one
        slope = rest["posterior"]["beta"].sel(feature="x0").mean(("chain", "draw"))
        assert float(slope[4]) == pytest.approx(float(rest["posterior"]["beta_mean"][..., 1].mean()), abs=0.1)
        assert float(slope[4]) > 0.5 > -1.0 > float(idata["posterior"]["beta"].mean(("chain", "draw"))[4, 1])

    def test_need_the_log_likelihood(self, sleepstudy_fit):
        without = sleepstudy_fit.drop_nodes("log_likelihood")
        with pytest.raises(mtl.errors.SpecError, match="Fit with log_likelihood=True"):
            mtl.sampling_wrapper(without)


def test_own_rows_are_asked_given_what_all_tasks_share():
    rng = np.random.default_rng(0)
    task, x, z = np.repeat(np.arange(6), 30), rng.standard_normal(180), rng.standard_normal(180)
    slope = np.array([1.0, 1.6, 0.7, 1.3, 0.4, 1.0])[task]
    y = 1.0 + task * 0.5 + slope * x + 3.0 * z + 0.5 * rng.standard_normal(180)
    frame = pd.DataFrame({"task": task, "x": x, "z": z, "y": y})
    data = mtl.TaskData.from_table(frame, task="task", formula="y ~ x + z", shared_features=["z"])
    known = {"feature_sd": {"Intercept": 1.0, "x": 0.5}, "sigma": 0.5}
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=known)
    idata = mtl.fit(data, spec, chains=2, random_seed=1, progressbar=False)
    slope = float(idata["posterior"]["beta_shared"].mean())
    own = frame[frame.task == 2]
    X = np.column_stack([np.ones(30), own.x])
    expected = np.linalg.lstsq(X, own.y - slope * own.z, rcond=None)[0]
    np.testing.assert_allclose(mtl.pooling(idata)["alone"].sel(task=2), expected, rtol=1e-6)


def test_alone_scales_of_features_follow_the_noise_of_the_task():
    """u_j tau lambda_j / sqrt(1 + (tau lambda_j / c)^2), tau relative to the noise: of weighted rows too."""
    rng = np.random.default_rng(4)
    task, x = np.repeat(np.arange(4), 8), rng.standard_normal((32, 2)) * [1.0, 5.0]
    y = 3.0 * rng.standard_normal(4)[task] + x[:, 0] + rng.standard_normal(32)
    d = mtl.TaskData.from_arrays(x, y, task, weights=rng.lognormal(0.0, 1.5, 32))
    spec = mtl.ModelSpec(feature_scales=mtl.Horseshoe(expected_features=1))
    prior = prior_draws(sampling_model(spec, d, collapsed=True, rows=d.pseudo_rows), d, 1)
    law = law_of_prior(spec, d, prior, 50, np.random.default_rng(0))
    drawn = thinned(prior, 50)
    relevance, of_mean = (
        drawn[name].transpose("draw", ...).to_numpy() for name in ("feature_relevance", "beta_mean_sd")
    )
    spread = np.hypot(of_mean, drawn["feature_sd"].transpose("draw", ...).to_numpy()[:, 1:])
    local = relevance / np.sqrt(1.0 - (relevance / 2.0) ** 2)
    for k in (0, 20, 49):
        doubled = 2.0 * local[k] / np.sqrt(1.0 + local[k] ** 2)
        expected = np.square(spread[k] / relevance[k] * doubled)
        found = np.diag(law.covariance(1, float(2.0 * law.sigma[k]))[k])[1:]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_alone_a_task_of_as_many_rows_as_it_takes_to_explain_them():
    """Slopes relative to the noise explain nothing if there is none, and a row less may well have none."""
    x, y = np.array([[1.0, -0.3], [-2.0, 0.4]]), np.array([2.0, -1.0])
    other = np.random.default_rng(0).standard_normal((8, 2))
    d = mtl.TaskData.from_arrays(np.vstack([x, other]), np.append(y, other[:, 0]), [0, 0, *[1] * 8])
    size = np.array([1.5, 0.7, 0.4])  # of slopes: per unit of noise

    def follow(ratio):
        sd = np.where(np.arange(3) > 0, ratio[:, None] * size, size)
        return sd[:, :, None] * np.eye(3) * sd[:, None, :], np.zeros((1, 1, 3))

    law = LawOfOne(
        np.zeros((1, 1, 3)),
        follow(np.ones(1))[0],
        np.ones((1, 2, 3)),
        np.zeros((1, 1, 3)),
        follow,
        np.ones(1),
    )
    found = score_alone(d, law, halfnorm(scale=1.0).logpdf, 1).density[:2]
    sigma, X = np.exp(np.linspace(-30.0, 3.0, 3001)), np.column_stack([np.ones(2), x])

    def log_integral(part, least):
        each = np.full(len(sigma), -np.inf)
        for k in np.flatnonzero(sigma > least):
            covariance = X[part] @ follow(sigma[[k]])[0][0] @ X[part].T + sigma[k] ** 2 * np.eye(len(part))
            square = y[part] @ np.linalg.solve(covariance, y[part])
            each[k] = -0.5 * (square + np.linalg.slogdet(2.0 * np.pi * covariance)[1])
        return logsumexp(each + halfnorm.logpdf(sigma) + np.log(sigma))

    # Both rows have a density of exp(-1e8) and less below 1e-4.
    expected = [log_integral([0, 1], 1e-4) - log_integral([1 - i], 0.0) for i in (0, 1)]
    np.testing.assert_allclose(found, expected, atol=2e-3)
