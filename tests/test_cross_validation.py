"""Scores of what is left out, against dense algebra on the rows themselves."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from scipy.linalg import hadamard
from scipy.special import expit, logsumexp

import bayes_mtl as mtl
from bayes_mtl.data import sum_by_task
from bayes_mtl.inference.alone import score_alone
from bayes_mtl.inference.alone_law import law_of_prior
from bayes_mtl.inference.groups import constant_data, in_table_order, row_coords
from bayes_mtl.inference.hyperdraws import MixtureDraws
from bayes_mtl.inference.leave_out_mixtures import StoredMixture
from bayes_mtl.inference.log_likelihood import log_likelihood
from bayes_mtl.model import default_priors
from bayes_mtl.summaries.leave_out import row_elpd
from bayes_mtl.summaries.row_scores import (
    _score,
    batch_variance,
    row_scores,
    smoothed_weights,
    sums_of_differences,
)
from bayes_mtl.summaries.transfer_gain import LEAST
from tests.fits import exact_rows

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


def pairs(values):
    """Return a grid of pairs, for two coefficients with one prior each."""
    return np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize(
    ("spread", "mean"),
    [
        (0.8, mtl.Prior("Normal", mu=0.3, sigma=1.5)),
        (mtl.Prior("LogNormal", mu=-0.2, sigma=0.5), mtl.Prior("Normal", mu=0.3, sigma=1.5)),
        (mtl.Prior("Exponential", lam=1.0), 0.3),
        (mtl.Prior("HalfStudentT", nu=3, sigma=1.0), 0.3),
        (1.0, mtl.Prior("StudentT", mu=0.3, nu=4, sigma=1.0)),
        (1.0, mtl.Prior("Laplace", mu=0.3, b=1.0)),
        (1.0, mtl.Prior("Logistic", mu=0.3, s=0.7)),
        (1.0, mtl.Prior("Uniform", lower=-1.0, upper=2.0)),
    ],
    ids=str,
)
@pytest.mark.parametrize("noise", [0.5, 1e-3])
def test_alone_a_task_has_its_own_noise_and_the_prior_of_the_description(spread, mean, noise):
    """By quadrature over both coefficients' scales and the noise, of all rows and of all but one."""
    rng = np.random.default_rng(1)
    sizes = [1, 2, 3, 12]
    task = np.repeat(np.arange(4), sizes)
    n = len(task)
    x, w = rng.standard_normal(n), np.exp(rng.standard_normal(n))
    beta = rng.standard_normal((4, 2))
    y = beta[task, 0] + beta[task, 1] * x + noise * rng.standard_normal(n)
    y[-1] += 6 * noise  # an outlier, without which the noise is quite another
    data = mtl.TaskData.from_arrays(x[:, None], y, task, weights=w)
    priors = {"beta_mean": mean, "feature_sd": spread, "sigma": mtl.Prior("HalfNormal", sigma=1.0)}
    found = score_alone(data, law_from(data, priors), stats.halfnorm(scale=1.0).logpdf, 20)
    u = expit(np.linspace(-9.0, 9.0, 13))  # with their tails
    of_grid = pairs(np.log(u * (1 - u)) - logsumexp(np.log(u * (1 - u)))).sum(axis=1)
    scales = pairs(spread.frozen().ppf(u) if isinstance(spread, mtl.Prior) else np.array([spread]))
    shifts = pairs(mean.frozen().ppf(u) if isinstance(mean, mtl.Prior) else np.array([mean]))
    if isinstance(mean, mtl.Prior) and mean.distribution == "Normal":  # integrated: a variance
        variance, about = scales**2 + 1.5**2, np.full((len(scales), 2), 0.3)
    else:
        variance, about = np.broadcast_arrays(scales**2, shifts)
    log_weight = of_grid if len(variance) > 1 else np.zeros(1)
    sigma = np.exp(np.linspace(np.log(1e-3 * noise), np.log(8.0), 150))
    weight = log_weight[:, None] + stats.halfnorm.logpdf(sigma) + np.log(sigma)
    X, root = np.column_stack([np.ones(n), x]), np.sqrt(w)

    def evidence(at):
        """log p(y at these rows of one task), by the coefficients' own precision."""
        M = (root[at, None] * X[at]) * np.sqrt(variance)[:, None, None, :] / sigma[:, None, None]
        r = (root[at] * (y[at] - about @ X[at].T))[:, None] / sigma[:, None]
        E = np.eye(2) + np.swapaxes(M, -1, -2) @ M
        b = np.linalg.solve(E, np.swapaxes(M, -1, -2) @ r[..., None])[..., 0]
        left = r - (M @ b[..., None])[..., 0]
        found = np.linalg.slogdet(E)[1] + (left**2).sum(axis=-1) + (b**2).sum(axis=-1)
        found = -0.5 * (found + len(at) * np.log(2 * np.pi)) + np.log(root[at]).sum()
        return logsumexp(weight + found - len(at) * np.log(sigma))

    for t in range(4):
        at = np.flatnonzero(task == t)
        expected = sum(evidence(at) - evidence(at[at != i]) for i in at)
        # Draws of the hyperprior stand for it: the error that they say they have.
        error = np.sqrt(batch_variance(found.error)[t])
        assert found.density[at].sum() == pytest.approx(expected, abs=max(6 * error, 0.02))
        assert error < 0.3


def law_from(data, priors):
    """Draws of the hyperprior, without a fit."""
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=priors)
    drawn = xr.Dataset()
    given = default_priors(spec, data)[0]["feature_sd"]
    rng = np.random.default_rng(3)
    u = [rng.permutation((np.arange(1000) + 0.5) / 1000) for _ in given]
    sd = [
        p.frozen().ppf(v) if isinstance(p, mtl.Prior) else np.full(1000, p)
        for p, v in zip(given, u, strict=True)
    ]
    drawn["feature_sd"] = (("chain", "draw", "feature"), np.transpose(sd)[None])
    return law_of_prior(spec, data, drawn, 1000, np.random.default_rng(0))


@pytest.fixture(scope="module")
def binomial():
    """The same outcomes as counts and written out; 5 tasks, a shared slope."""
    rng = np.random.default_rng(3)
    task, x, z = np.repeat(np.arange(5), 8), rng.standard_normal(40), rng.standard_normal(40)
    trials = rng.integers(6, 20, 40)
    eta = rng.normal(-0.3, 0.8, 5)[task] + rng.normal(0.7, 0.5, 5)[task] * x + 0.3 * z
    ones = rng.binomial(trials, 1 / (1 + np.exp(-eta)))
    rows = pd.DataFrame({"task": task, "x": x, "z": z})
    counts = pd.concat([rows.assign(y=1, w=ones), rows.assign(y=0, w=trials - ones)], ignore_index=True)
    counts = counts[counts.w > 0].reset_index(drop=True)
    columns = {"task": "task", "outcome": "y", "features": ["x"], "shared_features": ["z"]}
    written = counts.loc[counts.index.repeat(counts.w)].reset_index(drop=True)
    counted = mtl.TaskData.from_table(counts.astype({"w": float}), weights="w", **columns)
    return counted, mtl.TaskData.from_table(written, **columns)


@pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")  # short chains
def test_a_row_that_stands_for_several_is_scored_as_if_it_were_written_out(binomial):
    counted, written = binomial
    options = {"draws": 500, "tune": 500, "chains": 2, "random_seed": 1, "progressbar": False}
    idata = mtl.fit(counted, mtl.ModelSpec("bernoulli"), **options)
    # The same posterior draws beside the rows written out.
    same = idata.copy()
    for name, group in {
        "constant_data": constant_data(written).assign(outcome_unit=1.0),
        "observed_data": xr.Dataset(
            {"y": ("row", in_table_order(written, written.y))}, coords=row_coords(written)
        ),
    }.items():
        same[name] = xr.DataTree(group)
    same["log_likelihood"] = xr.DataTree(log_likelihood(same))
    one, many = row_scores(idata), row_scores(same)
    np.testing.assert_array_equal(sum_by_task(one.count, counted.starts), written.rows_per_task)
    np.testing.assert_allclose(
        sum_by_task(one.elpd, counted.starts), sum_by_task(many.elpd, written.starts), rtol=1e-9
    )
    np.testing.assert_allclose(one.monte_carlo_variance, many.monte_carlo_variance, rtol=1e-9)
    flat = [replace(s, density=np.full_like(s.density, -0.7)) for s in (one, many)]
    gains = [
        sums_of_differences(s, f, d) for s, f, d in zip((one, many), flat, (counted, written), strict=True)
    ]
    np.testing.assert_allclose(gains[0], gains[1], rtol=1e-9)
    rest = [idata.copy(), same.copy()]
    for tree in rest:
        beta = tree["posterior"]["beta"]
        tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset().assign(beta=0.9 * beta))
    for tree in rest:
        tree["log_likelihood"] = xr.DataTree(log_likelihood(tree))
    tables = [mtl.compare({"a": a, "b": b}, max_refits=0) for a, b in zip((idata, same), rest, strict=True)]
    columns = ["elpd", "elpd_diff", "dse", "se", "p_worse", "weight"]
    np.testing.assert_allclose(
        tables[0][columns].to_numpy(float), tables[1][columns].to_numpy(float), rtol=1e-6, atol=1e-12
    )
    assert tables[0].attrs["words"] == tables[1].attrs["words"]
    for name in ("n_rows", "effective_rows", "borrowed_rows"):
        # The normal approximation of rows begins at scales of features, over rows as they are.
        np.testing.assert_allclose(mtl.pooling(idata)[name], mtl.pooling(same)[name], rtol=1e-3)


def test_a_part_of_a_row_is_left_out_whole():
    """Of a row of weight 0.4, the rest of the posterior is that without it; the score counts 0.4 times."""
    rng = np.random.default_rng(0)
    by_draw = np.log(rng.uniform(0.2, 0.9, (2000, 3)))
    rows = [0.4, 1.0, 5.0]
    for i, w in enumerate(rows):
        weight, _ = smoothed_weights(min(w, 1.0) * by_draw[:, [i]])
        p = np.exp(by_draw[:, i])
        expected = (p ** (1 - min(w, 1.0))).mean() / (p ** -min(w, 1.0)).mean()
        assert np.exp(logsumexp(weight[:, 0] + by_draw[:, i])) == pytest.approx(expected, rel=0.02)


@pytest.fixture(scope="module")
def mixture_law():
    rng = np.random.default_rng(2)
    task = np.repeat(np.arange(3), [1, 4, 12])
    n = len(task)
    data = mtl.TaskData.from_arrays(
        rng.standard_normal((n, 1)), rng.standard_normal(n), task, weights=np.exp(rng.standard_normal(n))
    )
    D, K, P = 4, 3, 2
    hyper = MixtureDraws(
        sigma=rng.uniform(0.5, 1.0, (D, 1)),
        mean=rng.standard_normal((D, 1, P)),
        effect_scale=np.ones((D, 0)),
        levels=np.zeros((D, 0)),
        log_weight=np.log(rng.dirichlet(np.ones(K), (D, 1))),
        centre=rng.standard_normal((D, K, P)),
        cholesky=np.tril(rng.uniform(0.2, 1.0, (D, 1, P, P))),
    )
    return StoredMixture(hyper, data)


def test_rows_and_tasks_are_left_out_of_the_sum_over_components(mixture_law):
    """Densities of the dense law of each component, summed by prior weights."""
    data, hyper = mixture_law.data, mixture_law.hyper
    ((_, piece),) = mixture_law.chunks()
    by_row, by_task = piece.row_log_density(data), piece.task_log_density(data)
    for d in range(len(hyper)):
        L, X = hyper.cholesky[d, 0], data.X

        def evidence(at, d=d, L=L, X=X):
            """log p(y at these rows of one task)."""
            V = X[at] @ L @ L.T @ X[at].T + np.diag(hyper.sigma[d, 0] ** 2 / data.weights[at])
            means = [X[at] @ (hyper.mean[d, 0] + c) for c in hyper.centre[d]]
            found = [stats.multivariate_normal.logpdf(data.y[at], m, V) for m in means]
            return logsumexp(hyper.log_weight[d, 0] + found)

        for t in range(data.n_tasks):
            at = np.flatnonzero(data.task_index == t)
            assert by_task[d, t] == pytest.approx(evidence(at), rel=1e-9)
            for i in at:
                rest = at[at != i]
                without = evidence(rest) if len(rest) else 0.0
                assert by_row[d, i] == pytest.approx(evidence(at) - without, rel=1e-8)
    np.testing.assert_allclose(piece.row_log_density(data, slice(3, 9)), by_row[:, 3:9], rtol=1e-12)


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_a_task_that_is_noisy_is_not_said_to_contradict_the_others(noise):
    """Rows whose own least squares are exact: the last task is off by 4.5 standard errors of noise one."""
    x, error = np.tile([1.0, -1.0], 20), np.tile([1.0, 1.0, -1.0, -1.0], 10)
    off = np.append(np.zeros(7), 4.5 / np.sqrt(40))
    spread = np.append(np.ones(7), noise)
    y = np.concatenate([1.0 + b + (2.0 + b) * x + s * error for b, s in zip(off, spread, strict=True)])
    data = mtl.TaskData.from_arrays(np.tile(x, 8)[:, None], y, np.repeat(np.arange(8), 40))
    priors = {"beta_mean": mtl.Prior("Normal", mu=0, sigma=5), "feature_sd": 0.05, "sigma": 1.0}
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=priors)
    idata = mtl.fit(data, spec, draws=500, tune=1, chains=2, random_seed=1, progressbar=False)
    found = mtl.transfer_gain(idata)
    np.testing.assert_allclose(found["noise_ratio"][:7], 1.0, rtol=0.02)
    assert float(found["noise_ratio"][7]) == pytest.approx(noise, rel=0.02)
    assert float(mtl.leave_one_task_out(idata, refit=False)["surprise"][7]) < 1e-6
    said = str(found["verdict"].to_numpy()[7])
    if noise > 1.0:
        assert float(found["surprise"][7]) > 0.05
        assert "noise" in said
        assert "contradicts" not in said
        assert not bool(found["hurts_others"][7])
        assert "task_noise" in found.attrs["remedy"] or "No task is hurt" in found.attrs["remedy"]
    else:
        assert float(found["surprise"][7]) < 1e-4
        assert said.startswith("contradicts the others")
    assert not (found["hurt"] | found["hurts_others"])[:7].any()


def test_no_verdict_is_smaller_than_half_a_nat():
    # Tasks of many rows that are very different, and whose noise is known, gain next to nothing.
    X, y, task = exact_rows(5.0 * hadamard(8)[:6, 1:3], 60)
    data = mtl.TaskData.from_arrays(X, y, task, noise=np.ones(len(y)))
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal())
    idata = mtl.fit(data, spec, draws=2000, target_accept=0.95, random_seed=1, progressbar=False)
    found = mtl.transfer_gain(idata)
    small = np.abs(found["gain"].to_numpy()) < LEAST
    assert small.all()
    assert set(found["verdict"].to_numpy()[small].tolist()) == {"no clear difference"}


def test_learning_alone_includes_the_noise(known):
    assert "a noise scale of its own" in mtl.transfer_gain(known[0]).attrs["alone"]


def test_the_error_of_draws_is_that_of_rows_left_out_by_weights():
    """What a row whose weights fail adds is kept apart, since a refit makes it void."""
    rng = np.random.default_rng(0)
    data = mtl.TaskData.from_arrays(rng.standard_normal((12, 1)), rng.standard_normal(12), np.arange(12) // 6)
    level = (np.arange(2000) + 0.5) / 2000  # the weights of each row are quantiles of a law
    by_draw = -0.1 * np.tile(stats.norm.ppf(level)[:, None], 12) ** 2
    bad = [1, 7, 8]
    by_draw[:, bad] = -np.log(stats.pareto.ppf(level, 0.7))[:, None]  # weights with infinite mean
    by_draw = rng.permuted(by_draw, axis=0)
    everything = _score([(slice(0, 12), by_draw)], data, np.ones(12), None)
    np.testing.assert_allclose(everything.pareto_k[bad], 1 / 0.7, rtol=0.1)
    assert set(everything.unsure) == set(bad)
    others = by_draw.copy()
    others[:, bad] = 0.0  # weights that are equal, of a density that is known
    alone = _score([(slice(0, 12), others)], data, np.ones(12), None)
    error = everything.error.copy()
    for i, moved in everything.unsure.items():
        error[:, data.task_index[i]] -= moved
    np.testing.assert_allclose(error, alone.error, atol=1e-12)
