"""Fits inside other people's PyMC and ArviZ: what their functions make of ours, with ours as it is."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy.stats import multivariate_normal

import bayes_mtl as mtl
from bayes_mtl import Prior
from bayes_mtl.inference.attributes import given_spec_of, spec_of
from bayes_mtl.inference.groups import prior_draws
from bayes_mtl.inference.level_pilot import level_pilot
from bayes_mtl.model import default_priors, explicit_priors, is_collapsed, sampling_model
from bayes_mtl.model.latent import Noncentered
from tests import contracts


def small(T=4, n=6, seed=0, *, binary=False, **options):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((T * n, 2))
    y = X.sum(axis=1) + rng.standard_normal(T * n)
    y = (y > 0).astype(int) if binary else y
    return mtl.TaskData.from_arrays(X, y, np.repeat([f"t{t}" for t in range(T)], n), **options)


def grouped():
    data = small()
    frame = {f"x{i}": data.X[:, i] for i in (1, 2)} | {"y": data.y, "task": data.task_index}
    frame["item"] = np.arange(len(data.y)) % 3
    return mtl.TaskData.from_table(
        pd.DataFrame(frame),
        task="task",
        outcome="y",
        features=["x1", "x2"],
        groupings=["item"],
    )


TASKS = [f"t{t}" for t in range(4)]
MODELS = {
    "Exchangeable": mtl.ModelSpec(),
    "LKJ": mtl.ModelSpec(task_covariance=mtl.LKJ()),
    "LowRank": mtl.ModelSpec(task_covariance=mtl.LowRank(2), task_sd=True),
    "many factors": mtl.ModelSpec(task_covariance=mtl.LowRank(4), independent_features=()),
    "SparseBasis": mtl.ModelSpec(task_covariance=mtl.SparseBasis(2)),
    "disjoint basis": mtl.ModelSpec(task_covariance=mtl.SparseBasis(2, overlap=False)),
    "SparsePrecision": mtl.ModelSpec(task_covariance=mtl.SparsePrecision()),
    "StudentT": mtl.ModelSpec(task_covariance=mtl.StudentT(mtl.LowRank(1), nu="learned")),
    "Kernel": mtl.ModelSpec(task_covariance=mtl.Kernel(positions={t: i for i, t in enumerate(TASKS)})),
    "Tree": mtl.ModelSpec(task_covariance=mtl.Tree({"t0": "a", "t1": "a", "t2": "b", "t3": "b"})),
    "CompletePooling": mtl.ModelSpec(task_covariance=mtl.CompletePooling()),
    "NoPooling": mtl.ModelSpec(task_covariance=mtl.NoPooling()),
    "Clusters": mtl.ModelSpec(task_covariance=mtl.Clusters(2, rank=1)),
    "DirichletProcess": mtl.ModelSpec(task_covariance=mtl.DirichletProcess(3)),
    "OrthogonalGroups": mtl.ModelSpec(
        task_covariance=mtl.OrthogonalGroups({t: "p" if t < "t2" else "q" for t in TASKS})
    ),
    "noise per task": mtl.ModelSpec(family=mtl.Gaussian(task_noise=True)),
    "Horseshoe": mtl.ModelSpec(feature_scales=mtl.Horseshoe(task_specific=True)),
    "R2D2M2": mtl.ModelSpec(feature_scales=mtl.R2D2M2()),
    "constants among priors": mtl.ModelSpec(
        priors={"beta_mean": {"Intercept": 0.5}, "feature_sd": {"x1": Prior("Exponential", lam=1)}}
    ),
    "a constant mean beside learned scales": mtl.ModelSpec(
        feature_scales=mtl.R2D2M2(), priors={"beta_mean": {"Intercept": 0.5}}
    ),
    "prior that is not normal": mtl.ModelSpec(
        priors={"beta_mean": {"x0": Prior("StudentT", nu=4, mu=0, sigma=2)}}
    ),
    "groupings": mtl.ModelSpec(groupings={"item": mtl.Exchangeable()}),
}


def drawn(spec, binary):
    """Draws of what a fit stores, without one; and the data."""
    spec = mtl.ModelSpec.from_dict(spec.to_dict() | ({"family": {"name": "Bernoulli"}} if binary else {}))
    data = grouped() if spec.groupings else small(binary=binary)
    collapsed = is_collapsed(spec)
    levels = None
    if spec.groupings:
        rows, levels = level_pilot(spec, data)
    else:
        rows = data.pseudo_rows if collapsed else mtl.inference.pilot.pilot(spec, data)
    assembled = sampling_model(spec, data, collapsed=collapsed, rows=rows, levels=levels)
    return spec, data, prior_draws(assembled, data, 1)


@pytest.mark.parametrize(
    ("name", "binary"),
    [*((n, False) for n in MODELS), *((n, True) for n in ("LKJ", "LowRank", "Clusters", "R2D2M2"))],
)
def test_a_fit_has_every_free_variable_and_what_follows_from_them(name, binary):
    """Whatever `build_model` leaves free is stored, and makes up what else is stored as the model says."""
    spec, data, draws = drawn(MODELS[name], binary)
    for marginal in (False, "auto"):
        model = mtl.build_model(spec, data, marginal=marginal)
        free = model.free_RVs
        assert {v.name for v in free} <= set(draws.data_vars)
        follows = [v for v in model.deterministics if v.name in draws]
        at = [draws[v.name].to_numpy()[0] for v in free]
        function = pytensor.function(free, follows, mode=contracts.MODE, on_unused_input="ignore")
        for i in (0, 7, 500):
            for variable, value in zip(follows, function(*(a[i] for a in at)), strict=True):
                stored = draws[variable.name].transpose("chain", "draw", *draws[variable.name].dims[2:])
                np.testing.assert_allclose(value, stored[0, i], rtol=1e-9, atol=1e-12, err_msg=variable.name)


@pytest.mark.parametrize("name", ["LKJ", "LowRank", "many factors", "StudentT", "Exchangeable"])
def test_stored_coefficients_have_their_law_given_the_stored_factors(name):
    """Of 12,000 standard normals, mean, variance and lag correlations are within 5.5 standard errors."""
    spec, data, draws = drawn(MODELS[name], False)
    model = mtl.build_model(spec, data, marginal=False)
    beta = model["beta"]
    assert isinstance(model.rvs_to_transforms[beta], Noncentered)
    z = model.rvs_to_transforms[beta].forward(beta, *beta.owner.inputs)
    function = pytensor.function(model.free_RVs, z, mode=contracts.MODE, on_unused_input="ignore")
    columns = [draws[v.name].to_numpy()[0] for v in model.free_RVs]
    white = np.array([function(*(c[i] for c in columns)) for i in range(1000)])
    flat = white.reshape(1000, -1)
    size = np.sqrt(flat.size)
    assert abs(flat.mean()) < 5.5 / size
    assert abs((flat**2).mean() - 1) < 5.5 * np.sqrt(2) / size
    assert np.abs(np.corrcoef(flat.T) - np.eye(flat.shape[1])).max() < 5.5 / np.sqrt(1000)


def test_the_model_of_the_caller_stays_as_it_is():
    """`build_model`, `fit` and what is asked of a fit add nothing to a model in whose context they run."""
    fixed = {"beta_mean": 0.0, "feature_sd": 1.0, "sigma": 1.0}
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=fixed)  # nothing to sample
    with pm.Model(coords={"row": [0]}) as mine:
        pm.Normal("mine")
        before = list(mine.named_vars), dict(mine.coords)
        built = mtl.build_model(spec, small(), marginal=False)
        idata = mtl.fit(small(), spec, draws=2000, chains=2, random_seed=1, progressbar=False)
        mtl.leave_one_task_out(idata)
        mtl.transfer_gain(idata)
        assert (list(mine.named_vars), dict(mine.coords)) == before
    assert built.parent is None
    assert "mine" not in built.named_vars


@pytest.fixture(params=["sleepstudy_fit", "binary_fit"])
def fitted(request):
    """A fit, its data and the description."""
    found = request.getfixturevalue(request.param)
    if request.param == "binary_fit":
        return found[0], found[2], mtl.ModelSpec(family="bernoulli", feature_covariance=mtl.Diagonal())
    case = request.getfixturevalue("sleepstudy_case")
    return found, case.data, case.spec


FAST = {"compile_kwargs": {"mode": "FAST_COMPILE"}, "progressbar": False}


def thin(idata, n=40):
    """Take the first draws of each chain, in a tree without what PyMC is to add."""
    return xr.DataTree.from_dict({k: idata[k].to_dataset().isel(draw=slice(n)) for k in ("posterior",)})


def test_predictive_draws_of_pymc_are_about_the_fitted_coefficients(fitted):
    """What `pm.sample_posterior_predictive` draws has the mean that the stored coefficients give its draw."""
    idata, data, spec = fitted
    few = thin(idata)
    model = mtl.build_model(spec, data, marginal=False)
    found = pm.sample_posterior_predictive(few, model=model, random_seed=1, **FAST)
    y = found["posterior_predictive"]["y"].to_numpy()
    eta = np.einsum("np,cdnp->cdn", data.X, few["posterior"]["beta"].to_numpy()[:, :, data.task_index])
    if spec.family.has_noise:
        z = (y - eta) / few["posterior"]["sigma"].to_numpy()[..., None]
    else:
        p = 1 / (1 + np.exp(-eta))
        z = (y - p) / np.sqrt(p * (1 - p))
    # Standardised by its own draw, each outcome has mean 0 and variance 1.
    assert abs(z.mean()) < 5.5 / np.sqrt(z.size)
    assert abs((z**2).mean() - 1) < 5.5 * np.sqrt((z**4).mean() / z.size)


def test_densities_of_pymc_are_those_of_the_fit(fitted):
    idata, data, spec = fitted
    few = thin(idata)
    model = mtl.build_model(spec, data, marginal=False)
    pm.stats.compute_log_likelihood(few, model=model, **FAST)
    pm.stats.compute_log_prior(few, model=model, **FAST)
    expected = idata["log_likelihood"]["y"].isel(draw=slice(40))
    assert few["log_likelihood"]["y"].dims == ("chain", "draw", "row")
    np.testing.assert_array_equal(few["log_likelihood"]["row"], expected["row"])
    np.testing.assert_allclose(few["log_likelihood"]["y"], expected, rtol=1e-9)
    draw = idata["posterior"].to_dataset().isel(chain=1, draw=5)
    corr = draw["feature_corr"].to_numpy() if "feature_corr" in draw else np.eye(data.n_features)
    sd, beta = draw["feature_sd"].to_numpy(), draw["beta"].transpose("task", "feature").to_numpy()
    law = multivariate_normal(draw["beta_mean"], np.outer(sd, sd) * corr)
    found = few["log_prior"]["beta"].isel(chain=1, draw=5).to_numpy()
    np.testing.assert_allclose(found, law.logpdf(beta), rtol=1e-9)


@pytest.mark.parametrize("name", ["Exchangeable", "LowRank", "Clusters", "OrthogonalGroups", "groupings"])
@pytest.mark.parametrize("marginal", [True, False])
def test_models_can_be_drawn_and_drawn_from(name, marginal):
    """Pictures of all, and draws of the outcome whose law is that of the draws of the coefficients."""
    spec, data, _ = drawn(MODELS[name], False)
    model = mtl.build_model(spec, data, marginal=marginal)
    assert "y" in pm.model_to_mermaid(model)
    assert pm.draw(model["y"], 3, random_seed=1, mode="FAST_COMPILE").shape == (3, data.n_rows)


@pytest.mark.parametrize("structure", [mtl.Clusters(2), mtl.OrthogonalGroups({t: t < "t2" for t in TASKS})])
def test_marginal_draws_of_mixtures_are_those_of_their_coefficients(structure):
    """Means and variances of outcomes agree between the marginal model and the other, within 5.5 errors."""
    fixed = {"beta_mean": 1.0, "feature_sd": 0.7, "sigma": 0.5}
    features = {"feature_names": ["a", "b"], "shared_features": ["b"]}
    rng = np.random.default_rng(0)
    data = mtl.TaskData.from_arrays(
        rng.standard_normal((24, 2)), rng.standard_normal(24), np.repeat(TASKS, 6), **features
    )
    spec = mtl.ModelSpec(task_covariance=structure, feature_covariance=mtl.Diagonal(), priors=fixed)
    both = []
    for marginal in (True, False):
        model = mtl.build_model(spec, data, marginal=marginal)
        both.append(pm.draw(model["y"], 1500, random_seed=int(marginal), mode="FAST_COMPILE"))
    for moment in (1, 2):
        one, two = (y**moment for y in both)
        error = np.sqrt((one.var(axis=0) + two.var(axis=0)) / 1500)
        assert np.abs((one.mean(axis=0) - two.mean(axis=0)) / error).max() < 5.5


def test_densities_of_other_outcomes_under_marginal_mixtures():
    """The marginal density of an outcome that was not observed is that of a model which observed it."""
    spec, data, _ = drawn(MODELS["Clusters"], False)
    other = replace(data, y=data.y[::-1].copy())
    priors = explicit_priors(spec, data)
    one, two = (mtl.build_model(priors, d) for d in (data, other))
    value = pt.vector("value")
    swapped = one.replace_rvs_by_values([pm.logp(one["y"], value)])
    expected = two.logp(vars=[two["y"]], sum=False)
    start = [one.initial_point()[v.name] for v in one.value_vars]
    mode = {"mode": contracts.MODE, "on_unused_input": "ignore"}
    found = pytensor.function([*one.value_vars, value], swapped, **mode)(*start, other.y)
    right = pytensor.function(two.value_vars, expected, **mode)(*start)
    np.testing.assert_allclose(np.sum(found), np.sum(right), rtol=1e-9)


def test_arviz_takes_a_fit_as_it_is(fitted):
    """Its checks of predictions and of sensitivity run, and say nothing odd of models that are right."""
    idata, data, _ = fitted
    rows = ("chain", "draw", "row")
    assert idata["posterior_predictive"]["y"].dims == idata["log_likelihood"]["y"].dims == rows
    xr.testing.assert_equal(idata["posterior_predictive"]["row"], idata["observed_data"]["row"])
    pit = az.loo_pit(idata)["y"]
    assert pit.sizes["row"] == data.n_rows
    assert float(pit.min()) >= 0
    assert float(pit.max()) <= 1 + 1e-9
    sensitivity = az.psense_summary(idata, var_names=["beta_mean", "feature_sd"])
    assert np.isfinite(sensitivity[["prior", "likelihood"]].to_numpy(dtype=float)).all()
    draw = az.plot_ppc_dist if data.y.max() > 1 else az.plot_ppc_pava  # of binary outcomes
    draw(idata)
    plt.close("all")


def test_draws_of_fitted_rows_have_the_law_of_their_draw(fitted):
    idata, _, spec = fitted
    y, mean = (a["y"].to_numpy() for a in (idata["posterior_predictive"], mtl.predict(idata)["predictions"]))
    variance = mean * (1 - mean)
    if spec.family.has_noise:
        variance = idata["posterior"]["sigma"].to_numpy()[..., None] ** 2
    z = (y - mean) / np.sqrt(variance)
    assert abs(z.mean()) < 5.5 / np.sqrt(z.size)
    assert abs((z**2).mean() - 1) < 5.5 * np.sqrt((z**4).mean() / z.size)


def test_log_priors_are_those_of_pymc(fitted):
    idata, data, spec = fitted
    few = thin(idata)
    pm.stats.compute_log_prior(few, model=mtl.build_model(spec, data, marginal=False), **FAST)
    found = idata["log_prior"].to_dataset().isel(draw=slice(40))
    assert {"beta_mean", "feature_sd"} <= set(found) <= set(few["log_prior"].data_vars) - {"beta"}
    for name, values in found.items():
        np.testing.assert_allclose(values, few["log_prior"][name], rtol=1e-9)


def test_predictions_without_a_table_are_those_of_the_rows_that_were_fitted(fitted):
    idata, data, _ = fitted
    found = mtl.predict(idata)["predictions"]
    fixed = idata["constant_data"]
    eta = np.einsum(
        "np,cdnp->cdn", fixed["X"], idata["posterior"]["beta"].to_numpy()[:, :, fixed["task_index"]]
    )
    expected = eta if data.y.max() > 1 else 1 / (1 + np.exp(-eta))
    np.testing.assert_allclose(found["y"], expected, rtol=1e-10)
    np.testing.assert_array_equal(found["row"], fixed["row"])
    assert found["row_task"].to_numpy().tolist() == [data.tasks[t] for t in fixed["task_index"].to_numpy()]
    one, two = (mtl.predict(idata, kind="response", random_seed=3)["predictions"]["y"] for _ in range(2))
    xr.testing.assert_equal(one, two)


def test_some_draws_keep_their_outcomes(sleepstudy_fit, tmp_path):
    """Draws of the outcome are not in files, and come back as they were, also of a part of the draws."""
    groups = {str(name): node.to_dataset() for name, node in sleepstudy_fit.children.items()}
    some = {"chain": [1, 3], "draw": slice(100, 150)}
    part = xr.DataTree.from_dict(
        {k: v.isel(some) if k != "prior" and "draw" in v.dims else v for k, v in groups.items()}
    )
    part.attrs = sleepstudy_fit.attrs
    again = mtl.load(mtl.save(part, tmp_path / "part.nc"))
    xr.testing.assert_equal(again["posterior_predictive"]["y"], part["posterior_predictive"]["y"])


def test_all_priors_are_explicit(fitted):
    """What is stored gives the same model whatever the defaults are, and says what was left to them."""
    idata, data, spec = fitted
    stored = spec_of(idata)
    assert given_spec_of(idata) == spec
    assert explicit_priors(stored, data) == stored


@pytest.mark.parametrize("name", [*MODELS, "task features"])
def test_explicit_priors_say_all_that_defaults_say(name):
    spec, data = MODELS.get(name, mtl.ModelSpec()), small()
    if name == "groupings":
        data = grouped()
    if name == "task features":
        frame = pd.DataFrame({"x": data.X[:, 1], "task": data.task_index, "y": data.y})
        frame = frame.assign(a=frame.task**2.0, b=np.sin(frame.task) / 50)
        data = mtl.TaskData.from_table(
            frame, task="task", outcome="y", features=["x"], task_features=["a", "b"]
        )
    stored = explicit_priors(spec, data)
    assert stored.findings(data) == []
    assert mtl.ModelSpec.from_dict(stored.to_dict()) == stored
    assert mtl.ModelSpec.from_toml(stored.to_toml()) == stored
    one, two = (default_priors(s, data)[0] for s in (spec, stored))
    candidates = [i for i, f in enumerate(data.features) if f in spec.candidates(data)]
    for key, values in one.items():
        unused = candidates if key in ("beta_mean", "feature_sd") else []
        if isinstance(values, list):
            values, again = ([v for i, v in enumerate(p[key]) if i not in unused] for p in (one, two))
            assert values == again
        else:
            assert values == two[key]
    if spec.feature_scales is None:
        # Defaults follow the data; what is explicit does not.
        kept = default_priors(stored, replace(data, y=70 * data.y + 3))[0]
        assert {k: kept[k] for k in stored.priors} == {k: one[k] for k in stored.priors}
        assert ("task_feature_effects" in stored.priors) == (name == "task features")


def test_a_file_that_would_mean_another_model_is_refused(sleepstudy_fit, tmp_path, monkeypatch):
    path = mtl.save(sleepstudy_fit, tmp_path / "fit.nc")
    assert mtl.load(path).attrs == sleepstudy_fit.attrs
    original = mtl.LKJ.correlation_cholesky
    with monkeypatch.context() as patch:  # what a structure means has changed
        patch.setattr(
            mtl.LKJ, "correlation_cholesky", lambda self, n, name: original(mtl.LKJ(self.eta + 1), n, name)
        )
        with pytest.raises(
            mtl.errors.StorageError, match=r"'feature_corr_partial' was .* and is .*Fit again"
        ):
            mtl.load(path)
    old = sleepstudy_fit.copy()
    old.attrs["bayes_mtl_format"] = 1
    mtl.save(old, tmp_path / "old.nc")
    with pytest.raises(mtl.errors.StorageError, match="default priors were"):
        mtl.load(tmp_path / "old.nc")


@pytest.mark.parametrize("name", ["Exchangeable", "LowRank", "groupings", "Horseshoe"])
def test_recovered_coefficients_have_their_exact_law(name):
    """Given one draw of the hyperparameters 4000 times: mean and covariance of dense algebra."""
    spec, data, draws = drawn(MODELS[name], False)
    model = mtl.build_model(spec, data)
    one = draws[[v.name for v in model.free_RVs]].isel(draw=[3])
    many = xr.concat([one] * 4000, dim="draw").assign_coords(draw=np.arange(4000))
    found = mtl.recover(xr.DataTree.from_dict({"posterior": many}), data, spec, random_seed=1)
    at = {k: v.to_numpy()[0, 0] for k, v in found.isel(draw=[0]).items()}
    T, P = data.n_tasks, data.n_features
    latent = mtl.build_model(spec, data, marginal=False)
    beta = latent["beta"]
    # Its mean, and the covariance of all coefficients, by where the model puts the unit vectors.
    mean, L, tasks = beta.owner.inputs[1:4]
    law = [v for v in latent.free_RVs if v.name not in ("beta", "basis_offset")]
    outputs = [mean, L, tasks, *([latent["task_loadings"]] if name == "LowRank" else [])]
    inputs = [*law, *([latent["basis_offset"]] if name == "LowRank" else [])]
    values = [at[v.name] for v in law] + ([np.zeros((2, P - 1))] if name == "LowRank" else [])
    function = pytensor.function(inputs, outputs, mode=contracts.MODE, on_unused_input="ignore")
    mean, L, tasks, *loadings = function(*values)
    inside = np.array([f not in spec.outside(data.features) for f in data.features], dtype=float)
    omega = np.diag(tasks**2)
    if name == "LowRank":
        scaled = loadings[0] * at["task_sd"][:, None]
        omega = omega + scaled @ scaled.T
    Sigma = L @ L.T
    cov = np.kron(omega, np.outer(inside, inside) * Sigma)
    cov += np.kron(np.eye(T), np.outer(1 - inside, 1 - inside) * Sigma)
    design = np.zeros((data.n_rows, T * P))
    for i, t in enumerate(data.task_index):
        design[i, t * P : (t + 1) * P] = data.X[i]
    y = data.y - data.offset
    if name == "groupings":
        y = y - at["item_effects"][data.groupings[0].index, 0]
    gain = cov @ design.T @ np.linalg.inv(design @ cov @ design.T + at["sigma"] ** 2 * np.eye(len(y)))
    expected = mean.ravel() + gain @ (y - design @ mean.ravel())
    covariance = cov - gain @ design @ cov
    flat = found["beta"].to_numpy()[0].reshape(4000, -1)
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((flat.mean(axis=0) - expected) / sd).max() < 5.5 / np.sqrt(4000)
    white = (flat - expected) / sd
    R = covariance / np.outer(sd, sd)
    assert np.abs(white.T @ white / 4000 - R).max() < 5.5 * np.sqrt(2 / 4000)


def test_recovering_from_draws_of_another_model_is_refused():
    spec, data, draws = drawn(MODELS["Exchangeable"], False)
    assert set(mtl.recover(draws, data, spec)) == set(draws)
    assert mtl.recover(draws, data)["beta"].dims == ("chain", "draw", "task", "feature")
    with pytest.raises(mtl.errors.SpecError, match=r"task_loadings_scale.*which the marginal model has"):
        mtl.recover(draws, data, MODELS["LowRank"])
    other = small(T=5)
    with pytest.raises(mtl.errors.SpecError, match="other labels of 'task'"):
        mtl.recover(draws, other, spec)
    with pytest.raises(mtl.errors.SpecError, match="dims 'chain' and 'draw'"):
        mtl.recover(draws["beta"], data, spec)
    with pytest.raises(mtl.errors.SpecError, match="read `beta`"):
        mtl.recover(draws, small(binary=True), mtl.ModelSpec(family="bernoulli"))


def test_recovered_mixtures_are_at_home_in_their_components():
    spec, data, draws = drawn(MODELS["Clusters"], False)
    found = mtl.recover(draws.isel(draw=slice(20)), data, spec, random_seed=1)
    np.testing.assert_allclose(found["cluster_probability"].sum("cluster"), 1.0)


def test_second_derivatives_of_blocks_with_correlations():
    """What `pm.find_hessian` asks for exists, and is the slope of the gradient (in a random direction)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(12)
    with pm.Model(coords={"task": list("abc"), "feature": ["one", "x"]}) as model:
        options = {"feature_covariance": mtl.Diagonal(), "independent_features": ()}
        beta = mtl.task_coefficients("beta", task_covariance=mtl.LKJ(), **options)
        at = np.repeat(np.arange(3), 4)
        pm.Normal("y", beta[at, 0] + beta[at, 1] * x, 1.0, observed=x + rng.standard_normal(12))
    values = model.value_vars
    direction = [v.type() for v in values]
    slope = pytensor.grad(model.logp(), values)
    along = pt.add(*[(g * v).sum() for g, v in zip(slope, direction, strict=True)])
    second = pytensor.grad(along, values)
    function = pytensor.function([*values, *direction], [*slope, *second], mode=contracts.MODE)
    start = model.initial_point()
    point = [start[v.name] + 0.3 * rng.standard_normal(np.shape(start[v.name])) for v in values]
    v = [rng.standard_normal(np.shape(p)) for p in point]
    ahead, behind = (function(*(p + s * d for p, d in zip(point, v, strict=True)), *v) for s in (1e-5, -1e-5))
    n = len(values)
    for i, found in enumerate(function(*point, *v)[n:]):
        np.testing.assert_allclose(found, (ahead[i] - behind[i]) / 2e-5, rtol=1e-5, atol=1e-6)


class TestDrawsOfOthers:
    def test_coefficients_are_correlated_as_those_of_a_fit(self, sleepstudy_fit):
        posterior = sleepstudy_fit["posterior"].to_dataset()
        expected = mtl.task_correlation(sleepstudy_fit, "coefficients")
        names = {"task": "subject", "feature": "term"}
        beta = posterior["beta"].rename(names)
        around = {
            "mean": posterior["beta_mean"].rename(feature="term"),
            "scale": posterior["feature_sd"].rename(feature="term"),
        }
        found = mtl.task_correlation(draws=beta, **around)
        for name in ("mean", "sd", "lower", "upper", "p_positive", "p_relevant", "ess", "r_hat"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)
        assert found["contraction"].isnull().all()
        assert found["task_a"].to_numpy().tolist() == expected["task_a"].to_numpy().tolist()
        assert (found.attrs["task"], found.attrs["n_replicates"]) == ("subject", 2)
        some = mtl.task_correlation(draws=beta, tasks=[372, 308], **around)
        at = expected.sel(pair=(expected["task_a"] == 308) & (expected["task_b"] == 372))
        np.testing.assert_allclose(some["mean"], at["mean"], rtol=1e-9)

    def test_without_their_mean_they_lie_around_their_average(self):
        beta = np.random.default_rng(0).standard_normal((2, 8, 3, 4))
        d = (beta - beta.mean(axis=2, keepdims=True)) / beta.std(axis=2, keepdims=True)
        unit = d / np.linalg.norm(d, axis=3, keepdims=True)
        rho = np.einsum("cdtp,cdsp->cdts", unit, unit).mean(axis=(0, 1))
        found = mtl.task_correlation(draws=xr.DataArray(beta, dims=("chain", "draw", "task", "feature")))
        np.testing.assert_allclose(found["mean"], rho[np.triu_indices(3, k=1)])

    def test_matrices_are_structural(self, related_fit):
        idata, _ = related_fit
        found = mtl.task_correlation(draws=idata["posterior"]["task_corr"])
        expected = mtl.task_correlation(idata)
        np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-6)
        assert found.attrs["kind"] == "structural"
        mtl.plot_task_correlation(found)
        plt.close("all")

    def test_what_does_not_fit_is_refused(self, sleepstudy_fit):
        posterior = sleepstudy_fit["posterior"].to_dataset()
        with pytest.raises(mtl.errors.SpecError, match="found both"):
            mtl.task_correlation(sleepstudy_fit, draws=posterior["beta"])
        with pytest.raises(mtl.errors.SpecError, match="found nothing"):
            mtl.task_correlation()
        with pytest.raises(mtl.errors.SpecError, match="dims chain, draw, task and feature"):
            mtl.task_correlation(draws=posterior["sigma"])
        with pytest.raises(mtl.errors.SpecError, match="is needed with two tasks"):
            mtl.task_correlation(draws=posterior["beta"].isel(task=[0, 1]))
        with pytest.raises(mtl.errors.SpecError, match="not given"):
            mtl.task_correlation(sleepstudy_fit, "coefficients", mean=0.0)
