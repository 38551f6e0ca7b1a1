"""Correlations of pairs are those of dense algebra, and memory does not grow with pairs x draws."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl.errors import SpecError
from bayes_mtl.inference import hyperdraws
from bayes_mtl.inference.attributes import describe
from bayes_mtl.inference.groups import constant_data
from bayes_mtl.summaries import correlation, pair_draws
from bayes_mtl.summaries.contraction import contraction, contraction_in_words

INSIDE = ["x0", "x1", "x2"]  # where there is a choice, tasks are not related in the intercept
KINDS = ("structural", "partial", "coefficients", "functions")


def made_up(n_tasks=7, n_draws=50, chains=2, n_features=4, seed=0, labels=None, n_shared=1):
    """A fit whose draws are any numbers: no sampling, a factor model of two factors."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks) if labels is None else np.array(labels), 3)
    features = [f"x{i}" for i in range(n_features - 1)]
    shared = [f"s{i}" for i in range(n_shared)]
    X = rng.standard_normal((len(task), n_features - 1 + n_shared))
    data = mtl.TaskData.from_arrays(
        X, rng.standard_normal(len(task)), task, feature_names=[*features, *shared], shared_features=shared
    )
    spec = mtl.ModelSpec(task_covariance=mtl.LowRank(2))
    groups = {"constant_data": constant_data(data), "observed_data": xr.Dataset({"y": ("row", data.y)})}
    for group, shape in (("posterior", (chains, n_draws)), ("prior", (1, n_draws))):
        loadings = rng.uniform(-0.7, 0.7, (*shape, n_tasks, 2))
        mean = rng.standard_normal((*shape, n_features))
        deviation = rng.standard_normal((*shape, n_tasks, n_features))
        inner = {
            "beta": (("task", "feature"), mean[:, :, None] + deviation),
            "beta_mean": (("feature",), mean),
            "beta_shared": (("shared_feature",), rng.standard_normal((*shape, n_shared))),
            "feature_sd": (("feature",), rng.uniform(0.5, 2.0, (*shape, n_features))),
            "task_loadings": (("task", "factor"), loadings),
            "task_unique_sd": (("task",), np.sqrt(1 - (loadings**2).sum(axis=-1))),
            "sigma": ((), rng.uniform(0.5, 2.0, shape)),
        }
        groups[group] = xr.Dataset(
            {name: (("chain", "draw", *dims), values) for name, (dims, values) in inner.items()},
            coords={"task": list(data.tasks), "feature": list(data.features), "shared_feature": shared},
        )
    idata = xr.DataTree.from_dict(groups)
    idata.attrs.update(describe(spec, data.schema, mtl.__version__))
    return idata


def dense(idata, kind, group="posterior"):
    """The same correlations from textbook formulas, one draw at a time."""
    draws, fixed = idata[group].to_dataset(), idata["constant_data"].to_dataset()
    n = draws.sizes["task"]
    out = np.empty((draws.sizes["chain"], draws.sizes["draw"], n, n))
    for c, d in np.ndindex(out.shape[:2]):
        one = draws.isel(chain=c, draw=d)
        L, u = one["task_loadings"].to_numpy(), one["task_unique_sd"].to_numpy()
        if kind == "structural":
            out[c, d] = L @ L.T + np.diag(u**2)
        elif kind == "partial":
            P = np.linalg.inv(L @ L.T + np.diag(u**2))
            out[c, d] = -P / np.sqrt(np.outer(np.diag(P), np.diag(P)))
        elif kind == "coefficients":
            D = (one["beta"] - one["beta_mean"]) / one["feature_sd"]
            D = D.sel(feature=INSIDE).transpose("task", "feature").to_numpy()
            out[c, d] = D @ D.T / np.sqrt(np.outer((D**2).sum(1), (D**2).sum(1)))
        else:
            f = one["beta"].to_numpy() @ fixed["X"].to_numpy().T
            f = f + one["beta_shared"].to_numpy() @ fixed["X_shared"].to_numpy().T
            out[c, d] = np.corrcoef(f)
        np.fill_diagonal(out[c, d], 1.0)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_dense_matrices(kind):
    idata = made_up()
    rho, before = dense(idata, kind), dense(idata, kind, "prior")
    np.testing.assert_allclose(correlation.correlation_draws(idata, kind), rho, atol=1e-10)
    some = correlation.correlation_draws(idata, kind, tasks=[5, 1, 2])
    np.testing.assert_allclose(some, rho[:, :, [5, 1, 2]][..., [5, 1, 2]], atol=1e-10)
    found = mtl.task_correlation(idata, kind, ci_prob=0.8, delta=0.3)
    a, b = found["task_a"].to_numpy(), found["task_b"].to_numpy()
    pairs, prior = rho[:, :, a, b].reshape(-1, len(a)), before[:, :, a, b].reshape(-1, len(a))
    for name, expected in {
        "mean": pairs.mean(axis=0),
        "sd": pairs.std(axis=0),
        "lower": np.quantile(pairs, 0.1, axis=0),
        "upper": np.quantile(pairs, 0.9, axis=0),
        "p_positive": (pairs > 0).mean(axis=0),
        "p_relevant": (np.abs(pairs) > 0.3).mean(axis=0),
        "prior_mean": prior.mean(axis=0),
        "prior_sd": prior.std(axis=0),
        "contraction": 1 - pairs.var(axis=0) / prior.var(axis=0),
    }.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-9, err_msg=name)
    assert found.attrs["n_draws"] == 100
    assert np.isfinite(found["ess"]).all()


def test_free_matrices_are_read_as_they_are():
    idata = made_up()
    draws = idata["posterior"].to_dataset()
    rho = dense(idata, "structural")
    corr = xr.DataArray(rho, dims=("chain", "draw", "task", "task_bis"))
    for group in ("posterior", "prior"):
        part = idata[group].to_dataset().drop_vars(["task_loadings", "task_unique_sd"])
        idata[group] = xr.DataTree(part.assign(task_corr=corr[: part.sizes["chain"]]))
    partial = pair_draws.partial_correlation(rho)
    assert draws.sizes["task"] == 7
    for kind, expected in (("structural", rho), ("partial", partial)):
        np.testing.assert_allclose(correlation.correlation_draws(idata, kind), expected, atol=1e-12)
        some = correlation.correlation_draws(idata, kind, tasks=[6, 0, 3])
        np.testing.assert_allclose(some, expected[:, :, [6, 0, 3]][..., [6, 0, 3]], atol=1e-12)


def test_predictions_that_differ_by_a_constant_are_not_correlated():
    idata = made_up(n_features=1, n_shared=3)
    with pytest.raises(SpecError, match="predictions differ by a constant"):
        mtl.task_correlation(idata, "functions", progressbar=False)


def test_some_tasks_may_be_chosen_and_unknown_ones_are_named():
    idata = made_up()
    everything = mtl.task_correlation(idata).to_dataframe().set_index(["task_a", "task_b"])
    some = mtl.task_correlation(idata, tasks=[1, 4, 6]).to_dataframe().set_index(["task_a", "task_b"])
    assert some.index.tolist() == [(1, 4), (1, 6), (4, 6)]
    np.testing.assert_allclose(some["mean"], everything.loc[some.index, "mean"], rtol=1e-12)
    for kind in (pd.Index, pd.Series, np.array):
        again = mtl.task_correlation(idata, tasks=kind([1, 4, 6]))
        np.testing.assert_array_equal(again["mean"], some["mean"])
    for wrong, words in (
        ([1, "1"], "'1' is not known"),
        ([1], "two tasks at least, found 1"),
        ("ab", "should be a list of labels"),
    ):
        with pytest.raises(SpecError, match=words):
            mtl.task_correlation(idata, tasks=wrong)


def test_too_many_pairs_are_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(correlation, "MAX_PAIRS", 20)
    with pytest.raises(SpecError, match=r"7 tasks have 21 pairs. Name some of them in `tasks`"):
        mtl.task_correlation(made_up())


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_thinned_evenly_where_they_are_too_many(kind, monkeypatch):
    idata = made_up(n_draws=60)
    monkeypatch.setattr(correlation, "_MAX_NUMBERS", 21 * 40)
    found = mtl.task_correlation(idata, kind)
    assert found.attrs["n_draws"] == 40
    at = np.unique(np.linspace(0, 59, 20).astype(int))
    a, b = found["task_a"].to_numpy(), found["task_b"].to_numpy()
    np.testing.assert_allclose(
        found["mean"], dense(idata, kind)[:, at][:, :, a, b].mean(axis=(0, 1)), atol=1e-10
    )
    # Diagnostics are of all draws.
    ess, _ = correlation.convergence(dense(idata, kind)[:, :, a, b])
    np.testing.assert_allclose(found["ess"], ess, rtol=1e-6)


def test_diagnostics_of_many_pairs_are_of_the_right_ones():
    idata = made_up(n_tasks=60, n_draws=20)
    found = mtl.task_correlation(idata)
    there = np.isfinite(found["ess"].to_numpy())
    assert there.sum() == 45 * 44 // 2
    a, b = found["task_a"].to_numpy()[there], found["task_b"].to_numpy()[there]
    ess, _ = correlation.convergence(dense(idata, "structural")[:, :, a, b])
    np.testing.assert_allclose(found["ess"].to_numpy()[there], ess, rtol=1e-6)
    assert (np.isfinite(found["r_hat"].to_numpy()) == there).all()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_pairs_times_draws(kind, monkeypatch):
    monkeypatch.setattr(correlation, "_MAX_DIAGNOSED_TASKS", 3)
    names = [f"a rather long name of a task, number {i}" for i in range(200)]
    idata = made_up(n_tasks=200, n_draws=400, labels=names)
    mtl.task_correlation(idata, kind, tasks=names[:3])  # imports
    tracemalloc.start()
    found = mtl.task_correlation(idata, kind, progressbar=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.sizes["pair"] == 19_900
    # All correlations of all draws would be 127 MB; 200 x 4 x 800 numbers are 5.
    assert peak < 60e6
    for side in ("task_a", "task_b"):  # one object per name, not one per pair
        assert len({id(label) for label in found[side].to_numpy()}) <= 200


def test_a_prior_without_spread_has_no_contraction():
    found = contraction(
        np.array([0.1, 0.3, 0.1, 0.1, 0.5]), np.array([0.2, 0.2, 0.0, 0.01, 0.04]), least=0.02
    )
    np.testing.assert_allclose(found, [0.75, -1.25, np.nan, np.nan, np.nan])
    assert [contraction_in_words(v) for v in found[:3]] == ["75%", "-125% (wider)", "no prior spread"]
    assert contraction_in_words(-0.001) == contraction_in_words(0.001) == "0%"


def test_gradients_of_many_tasks_take_little_memory():
    idata = made_up(n_tasks=250, n_draws=250, chains=2)
    mtl.gradient_conflict(idata, tasks=[0, 1])  # imports
    tracemalloc.start()
    found = mtl.gradient_conflict(idata, progressbar=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.sizes["pair"] == 250 * 249 // 2
    assert peak < 100e6  # cosines of all pairs and draws would be 250 MB
    some = mtl.gradient_conflict(idata, tasks=[3, 200, 77])
    assert some["task_b"].to_numpy().tolist() == [200, 77, 77]
    everything = found.to_dataframe().set_index(["task_a", "task_b"])
    assert float(some["mean"][0]) == pytest.approx(everything.loc[(3, 200), "mean"])


def test_thinned_draws_are_those_of_all_chains():
    draws = made_up(n_draws=30)["posterior"].to_dataset()
    few = hyperdraws.thinned(draws, 7)
    at = np.unique(np.linspace(0, 59, 7).astype(int))
    flat = draws["beta"].transpose("task", "feature", "chain", "draw").to_numpy().reshape(7, 4, 60)
    assert few["beta"].dims == ("task", "feature", "draw")
    np.testing.assert_array_equal(few["beta"], flat[..., at])
    assert dict(few.sizes)["draw"] == 7
