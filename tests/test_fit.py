"""What `fit` returns, on fits that all tests here share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayes_mtl as mtl
from bayes_mtl import errors
from bayes_mtl.inference.groups import prior_draws
from bayes_mtl.inference.pilot import pilot
from bayes_mtl.model import sampling_model


def test_both_paths_return_the_same_variables(sleepstudy_fit, sleepstudy_case):
    latent = mtl.build_model(sleepstudy_case.spec, sleepstudy_case.data, marginal=False)
    collapsed = mtl.build_model(sleepstudy_case.spec, sleepstudy_case.data, marginal=True)
    assert "beta" in latent.named_vars
    assert "beta" not in collapsed.named_vars
    posterior = sleepstudy_fit["posterior"]
    shown = ["beta_mean", "feature_sd", "feature_corr", "sigma", "beta"]
    assert list(posterior.data_vars) == [*shown, "feature_corr_partial"]  # what others follow from comes last
    for name in shown:
        assert posterior[name].dims[2:] == tuple(latent.named_vars_to_dims.get(name, ()))
    assert posterior["task"].to_numpy().tolist() == list(sleepstudy_case.data.tasks)
    assert posterior["feature"].to_numpy().tolist() == ["Intercept", "Days"]


def test_groups_and_attributes(sleepstudy_fit):
    assert set(sleepstudy_fit.children) == {
        "posterior",
        "sample_stats",
        "prior",
        "observed_data",
        "constant_data",
        "log_likelihood",
        "log_prior",
        "posterior_predictive",
    }
    assert set(sleepstudy_fit["prior"].data_vars) == set(sleepstudy_fit["posterior"].data_vars)
    assert "reached_max_treedepth" in sleepstudy_fit["sample_stats"]
    assert sleepstudy_fit.attrs["complete"] == 1


def test_log_likelihood_is_the_normal_density(sleepstudy_fit, sleepstudy_case):
    data = sleepstudy_case.data
    draw = sleepstudy_fit["posterior"].to_dataset().isel(chain=1, draw=17)
    eta = (data.X * draw["beta"].to_numpy()[data.task_index]).sum(axis=1)
    expected = stats.norm(eta, float(draw["sigma"])).logpdf(data.y)
    found = sleepstudy_fit["log_likelihood"]["y"].isel(chain=1, draw=17)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_prior_draws_follow_the_prior(sleepstudy_fit):
    prior = sleepstudy_fit["prior"]
    n = prior.sizes["draw"]
    assert stats.kstest(prior["sigma"].to_numpy().ravel(), stats.halfnorm(scale=50).cdf).pvalue > 1e-7
    r = prior["feature_corr"].isel(feature=0, feature_bis=1).to_numpy().ravel()
    assert stats.kstest((1 + r) / 2, stats.beta(2, 2).cdf).pvalue > 1e-7
    # beta - mean, in units of feature_sd, is standard normal whatever the correlation
    z = (
        ((prior["beta"] - prior["beta_mean"]) / prior["feature_sd"])
        .isel(task=3, feature=1)
        .to_numpy()
        .ravel()
    )
    assert len(z) == n
    assert stats.kstest(z, stats.norm.cdf).pvalue > 1e-7


def test_diagnosis_and_summary(sleepstudy_fit):
    diagnosis = mtl.diagnose(sleepstudy_fit)
    assert not diagnosis.problems, str(diagnosis)
    assert diagnosis.worst_r_hat < 1.01
    table = mtl.summary(sleepstudy_fit)
    assert table.index.tolist() == [
        "beta_mean[Intercept]",
        "beta_mean[Days]",
        "feature_sd[Intercept]",
        "feature_sd[Days]",
        "feature_corr[Intercept, Days]",
        "sigma",
    ]
    assert "No problems found" in str(table)
    assert "No problems found" in table._repr_html_()
    assert len(mtl.summary(sleepstudy_fit, coefficients=True)) == 6 + 2 * 18


def test_diagnosis_speaks_up(sleepstudy_fit):
    bad = sleepstudy_fit.copy(deep=True)
    bad["sample_stats"]["diverging"][0, :7] = True
    bad["sample_stats"]["reached_max_treedepth"][:] = True
    bad["posterior"]["sigma"][0] += 100.0
    problems = {p.where: str(p) for p in mtl.diagnose(bad).problems}
    assert set(problems) == {"divergences", "tree depth", "R-hat", "effective sample size"}
    assert "7 transitions diverged" in problems["divergences"]
    assert "give sigma, which mixes most slowly, a tighter prior" in problems["divergences"]
    assert "sigma" in problems["R-hat"]


@pytest.mark.parametrize("suffix", [".nc", pytest.param(".zarr", marks=pytest.mark.slow)])
def test_round_trip_in_a_new_process(sleepstudy_fit, tmp_path, suffix):
    path = mtl.save(sleepstudy_fit, tmp_path / f"fit{suffix}")
    table = pd.DataFrame({"Subject": [308, 372, 308], "Days": [0, 4, 11]})
    table.to_csv(tmp_path / "new.csv", index=False)
    here = mtl.predict(sleepstudy_fit, table)["predictions"]["y"].to_numpy()
    seed = np.random.Generator(np.random.PCG64(3))
    response = mtl.predict(sleepstudy_fit, table, kind="response", random_seed=seed)
    response = response["predictions"]["y"].to_numpy()
    script = """
import sys, numpy as np, pandas as pd, bayes_mtl as mtl
idata, table = mtl.load(sys.argv[1]), pd.read_csv(sys.argv[2])
np.save(sys.argv[3], mtl.predict(idata, table)["predictions"]["y"].to_numpy())
seed = np.random.Generator(np.random.PCG64(3))
response = mtl.predict(idata, table, kind="response", random_seed=seed)
np.save(sys.argv[4], response["predictions"]["y"].to_numpy())
np.save(sys.argv[5], idata["log_likelihood"]["y"].to_numpy())
"""
    outputs = [str(tmp_path / f"{i}.npy") for i in range(3)]
    arguments = [str(path), str(tmp_path / "new.csv"), *outputs]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    np.testing.assert_array_equal(np.load(outputs[0]), here)
    np.testing.assert_array_equal(np.load(outputs[1]), response)
    np.testing.assert_array_equal(np.load(outputs[2]), sleepstudy_fit["log_likelihood"]["y"].to_numpy())
    again = mtl.load(path)
    xr.testing.assert_identical(again["posterior"].to_dataset(), sleepstudy_fit["posterior"].to_dataset())
    assert dict(again.attrs) == dict(sleepstudy_fit.attrs)


def test_load_refuses_what_is_not_a_fit(tmp_path, sleepstudy_fit):
    with pytest.raises(errors.StorageError, match="no such file"):
        mtl.load(tmp_path / "nothing.nc")
    (tmp_path / "text.nc").write_text("not a fit")
    with pytest.raises(errors.StorageError, match="cannot be read"):
        mtl.load(tmp_path / "text.nc")
    xr.DataTree.from_dict({"a": xr.Dataset({"x": 1.0})}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(errors.StorageError, match="not a fit"):
        mtl.load(tmp_path / "other.nc")
    mtl.save(sleepstudy_fit, tmp_path / "whole.nc")
    whole = (tmp_path / "whole.nc").read_bytes()
    at = whole.index(b"bayes_mtl_schema")  # one wrong letter
    (tmp_path / "damaged.nc").write_bytes(whole[:at] + b"B" + whole[at + 1 :])
    with pytest.raises(errors.StorageError, match="damaged"):
        mtl.load(tmp_path / "damaged.nc")
    with pytest.raises(errors.StorageError, match=r"\.nc or \.zarr"):
        mtl.save(sleepstudy_fit, tmp_path / "fit.pickle")


def test_predictions_are_the_linear_predictor(sleepstudy_fit):
    table = pd.DataFrame({"Subject": [330, 308], "Days": [2.5, 9.0]})
    found = mtl.predict(sleepstudy_fit, table)["predictions"]
    beta = sleepstudy_fit["posterior"]["beta"]
    for i, (subject, days) in enumerate(table.itertuples(index=False)):
        mine = beta.sel(task=subject)
        expected = mine.sel(feature="Intercept") + days * mine.sel(feature="Days")
        np.testing.assert_allclose(found["y"].isel(row=i), expected, rtol=1e-12)
    assert found["row_task"].to_numpy().tolist() == [330, 308]
    noisy = mtl.predict(sleepstudy_fit, table, kind="response", random_seed=1)["predictions"]["y"]
    excess = noisy.var(("chain", "draw")) - found["y"].var(("chain", "draw"))
    sigma2 = float((sleepstudy_fit["posterior"]["sigma"] ** 2).mean())
    np.testing.assert_allclose(excess, sigma2, rtol=0.1)


def test_unknown_tasks_are_an_error_unless_asked_for(sleepstudy_fit):
    table = pd.DataFrame({"Subject": [1, 308, 2, 1], "Days": [0.0, 1.0, 0.0, 0.0]})
    with pytest.raises(errors.PredictionError, match="does not know: 1, 2"):
        mtl.predict(sleepstudy_fit, table)
    drawn = mtl.predict(sleepstudy_fit, table, new_tasks="population", random_seed=5)["predictions"]["y"]
    values = drawn.to_numpy()
    np.testing.assert_array_equal(values[..., 0], values[..., 3])  # the same task, the same draw
    assert (
        abs(np.corrcoef(values[..., 0].ravel(), values[..., 2].ravel())[0, 1]) < 0.2
    )  # two tasks, two draws
    posterior = sleepstudy_fit["posterior"]
    at = {"feature": "Intercept"}
    total = float(posterior["beta_mean"].sel(at).var() + (posterior["feature_sd"].sel(at) ** 2).mean())
    assert values[..., 0].var() == pytest.approx(total, rel=0.1)


def test_new_rows_with_several_problems(sleepstudy_fit):
    with pytest.raises(errors.PredictionError) as caught:
        mtl.predict(sleepstudy_fit, pd.DataFrame({"Subject": [308, 99], "Days": [np.nan, 1.0]}))
    assert len(caught.value.findings) == 2
    with pytest.raises(errors.PredictionError, match="'Days'"):
        mtl.predict(sleepstudy_fit, pd.DataFrame({"Subject": [308]}))


def test_wrong_arguments_cost_nothing(sleepstudy_case):
    with pytest.raises(errors.SpecError) as caught:
        mtl.fit(sleepstudy_case.data, draws=0, chains=1.5, target_accept=2.0, backend="c")
    assert {f.where for f in caught.value.findings} == {"draws", "chains", "target_accept", "backend"}
    with pytest.raises(errors.SpecError, match="TaskData"):
        mtl.fit(pd.DataFrame())


def test_an_interrupt_keeps_what_was_drawn(sleepstudy_case, monkeypatch, request):
    import nutpie

    original = nutpie.sample

    def interrupted(*args, **kwargs):
        threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        return original(*args, **kwargs)

    monkeypatch.setattr(nutpie, "sample", interrupted)
    # What a shell starts in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        idata = mtl.fit(
            sleepstudy_case.data, sleepstudy_case.spec, draws=10**6, tune=200, chains=2, progressbar=False
        )
    assert any("Interrupted after" in str(w.message) for w in caught)
    assert idata.attrs["complete"] == 0
    assert 0 < idata["posterior"].sizes["draw"] < 10**6
    assert idata["posterior"]["beta"].notnull().all()


def test_task_correlations(related_fit):
    idata, truth = related_fit
    table = mtl.task_correlation(idata)
    assert table.sizes["pair"] == 6
    draws = idata["posterior"]["task_corr"]
    first = draws.sel(task="a", task_bis="b")
    assert float(table["mean"][0]) == pytest.approx(float(first.mean()))
    assert float(table["p_positive"][0]) == pytest.approx(float((first > 0).mean()))
    assert (table["lower"] < table["mean"]).all()
    assert (table["mean"] < table["upper"]).all()
    a, b = np.triu_indices(4, k=1)
    assert np.abs(table["mean"] - truth[a, b]).max() < 0.35
    strong = np.abs(truth[a, b]) > 0.5
    assert (np.sign(table["mean"].to_numpy()) == np.sign(truth[a, b]))[strong].all()
    assert (table["contraction"].to_numpy()[strong] > 0.5).all()
    realised = mtl.task_correlation(idata, "coefficients")
    assert realised.attrs["n_replicates"] == 15
    assert np.abs(realised["mean"] - truth[a, b]).max() < 0.35
    functions = mtl.task_correlation(idata, "functions")
    assert set(functions.data_vars) == set(table.data_vars)
    assert table.to_dataframe()[["task_a", "task_b"]].iloc[0].tolist() == ["a", "b"]


def test_correlations_that_do_not_exist(sleepstudy_fit):
    with pytest.raises(errors.SpecError, match="Exchangeable has no task correlation"):
        mtl.task_correlation(sleepstudy_fit)
    with pytest.raises(errors.SpecError, match="kind"):
        mtl.task_correlation(sleepstudy_fit, "other")


def test_plot_shows_every_pair(related_fit, tmp_path):
    idata, _ = related_fit
    ax = mtl.plot_task_correlation(idata)
    assert sorted(t.get_text() for t in ax.get_xticklabels()) == ["a", "b", "c", "d"]
    tiles = ax.collections[0]
    table = mtl.task_correlation(idata)
    np.testing.assert_allclose(np.sort(tiles.get_array())[::2], np.sort(table["mean"].to_numpy()))
    ax.figure.savefig(tmp_path / "plot.png")
    ax = mtl.plot_task_correlation(table, order="label")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c", "d"]


def test_plot_of_five_hundred_tasks_is_drawn(tmp_path):
    rng = np.random.default_rng(0)
    a, b = np.triu_indices(500, k=1)
    n = len(a)
    table = xr.Dataset(
        {
            "mean": ("pair", rng.uniform(-1, 1, n)),
            "p_positive": ("pair", rng.uniform(size=n)),
            "contraction": ("pair", rng.uniform(size=n)),
        },
        coords={"task_a": ("pair", a), "task_b": ("pair", b)},
        attrs={"kind": "structural"},
    )
    ax = mtl.plot_task_correlation(table)
    ax.figure.savefig(tmp_path / "plot.png")
    assert ax.images[0].get_array().shape == (500, 500)


@pytest.mark.slow
def test_many_related_tasks_are_sampled_as_well_as_integrated_out():
    """Past a size the coefficients are sampled, one task after the other: the same posterior."""
    rng = np.random.default_rng(5)
    task = np.repeat(np.arange(33), 8)
    x = rng.standard_normal(len(task))
    slope = rng.standard_normal((33, 1)) + 1.5
    y = 0.5 + x * slope[task, 0] + rng.standard_normal(len(task))
    data = mtl.TaskData.from_arrays(x[:, None], y, task)
    spec = mtl.ModelSpec(task_covariance=mtl.LKJ(5.0), independent_features=())
    both = [
        mtl.fit(data, spec, draws=1500, chains=2, marginal=m, random_seed=1, progressbar=False)
        for m in ("auto", True)
    ]
    assert [idata.attrs["collapsed"] for idata in both] == [0, 1]
    for name in ("beta_mean", "feature_sd", "sigma", "beta"):
        draws = [idata["posterior"].to_dataset()[[name]] for idata in both]
        means = [d[name].mean(("chain", "draw")) for d in draws]
        mcse = [az.mcse(d)[name] for d in draws]
        z = (means[0] - means[1]) / np.sqrt(mcse[0] ** 2 + mcse[1] ** 2)
        assert float(np.abs(z).max()) < 6.0, name


def test_bernoulli_recovers_and_predicts(binary_fit):
    idata, beta, data = binary_fit
    found = idata["posterior"]["beta"]
    z = (found.mean(("chain", "draw")) - beta) / found.std(("chain", "draw"))
    # Of 36 standard normals, each fails by chance with a probability below 1e-6.
    assert float(np.abs(z).max()) < stats.norm.isf(1e-7 / 72)
    low, high = np.sqrt(stats.chi2(36).ppf([1e-7, 1 - 1e-7]) / 36)
    assert low < float(np.sqrt((z**2).mean())) < high
    table = pd.DataFrame(data.X[:5, 1:], columns=list(data.features[1:])).assign(
        task=[data.tasks[t] for t in data.task_index[:5]]
    )
    p = mtl.predict(idata, table)["predictions"]["y"].to_numpy()
    eta = np.einsum("np,cdnp->cdn", data.X[:5], found.to_numpy()[:, :, data.task_index[:5]])
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-eta)), rtol=1e-12)
    expected = np.where(data.y[:5] == 1, np.log(p), np.log1p(-p))
    np.testing.assert_allclose(idata["log_likelihood"]["y"].to_numpy()[..., :5], expected, rtol=1e-9)
    drawn = mtl.predict(idata, table, kind="response", random_seed=1)["predictions"]["y"].to_numpy()
    assert set(np.unique(drawn)) == {0.0, 1.0}


def test_a_factor_model_survives_storage(related_fit, tmp_path):
    idata, _ = related_fit
    again = mtl.load(mtl.save(idata, tmp_path / "fit.nc"))
    for group in ("posterior", "prior"):
        assert set(again[group].data_vars) == set(idata[group].data_vars)
        for name, values in idata[group].data_vars.items():
            np.testing.assert_array_equal(again[group][name].transpose(*values.dims), values)
    assert again["posterior"]["task"].to_numpy().tolist() == list("abcd")


@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
def test_no_pooling_with_nothing_to_sample(family):
    """With every hyperparameter fixed the coefficients are drawn exactly, or alone."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 1)), rng.standard_normal(60)
    noise = rng.uniform(0.5, 2.0, 60)
    if family == "bernoulli":
        data = mtl.TaskData.from_arrays(X, (y > 0).astype(int), np.repeat([1, 2], 30))
        spec = mtl.ModelSpec(family="bernoulli", task_covariance=mtl.NoPooling())
        model = sampling_model(spec, data, collapsed=False, rows=pilot(spec, data))
        prior = prior_draws(model, data, 1)
        assert prior["beta"].shape == (1, 1000, 2, 2)
        return
    data = mtl.TaskData.from_arrays(X, y, np.repeat([1, 2], 30), noise=noise)
    spec = mtl.ModelSpec(task_covariance=mtl.NoPooling(), priors={"beta_mean": 0.5, "feature_sd": 2.0})
    idata = mtl.fit(data, spec, draws=12_000, chains=4, random_seed=1, progressbar=False)
    for t in (0, 1):
        rows = data.task_index == t
        precision = (data.X[rows] / noise[rows, None] ** 2).T @ data.X[rows] + np.eye(2) / 4
        mean = np.linalg.solve(precision, (data.X[rows] / noise[rows, None] ** 2).T @ data.y[rows] + 0.5 / 4)
        draws = idata["posterior"]["beta"].isel(task=t).to_numpy().reshape(-1, 2)
        sd = np.sqrt(np.diag(np.linalg.inv(precision)))
        np.testing.assert_allclose((draws.mean(axis=0) - mean) / sd, 0, atol=6 / np.sqrt(len(draws)))
        np.testing.assert_allclose(np.cov(draws.T), np.linalg.inv(precision), atol=0.06 * sd.max() ** 2)
