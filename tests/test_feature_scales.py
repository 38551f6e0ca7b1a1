"""Scales of coefficients that are decided for all features together: which features matter."""

import warnings
from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.linalg import hadamard
from scipy.special import expit
from scipy.stats import beta as beta_distribution
from scipy.stats import kstest, t

import bayes_mtl as mtl
from bayes_mtl import errors
from bayes_mtl.inference.attributes import describe as describe_fit
from bayes_mtl.inference.attributes import spec_of
from bayes_mtl.inference.groups import prior_coefficients, with_coefficients
from bayes_mtl.inference.hyperdraws import evaluate
from bayes_mtl.model import WHITENED, sampling_model
from bayes_mtl.model.coords import dims_of
from bayes_mtl.model.feature_scales import coefficient_sizes
from bayes_mtl.structures._horseshoe import global_scale
from tests import contracts
from tests.fits import exact_rows
from tests.test_structures import table

SCALES = {
    "Horseshoe": mtl.Horseshoe(expected_features=1),
    "dirty": mtl.Horseshoe(expected_features=1, slab=1.5, task_specific=True, unit=2.0),
    "R2D2M2": mtl.R2D2M2(mean_r2=0.4, precision=3),
}
# Columns of the data, and options of the description.
OPTIONS = {
    "plain": ({"weights": "w", "offset": "o"}, {"feature_covariance": mtl.Diagonal()}),
    "related": (
        {"shared_features": ["x3"], "noise": "s"},
        {"task_covariance": mtl.LowRank(1), "task_sd": True, "independent_features": ("x1",)},
    ),
    "own noise": (
        {"shared_features": ["Intercept"]},
        {"family": mtl.Gaussian(task_noise=True), "task_covariance": mtl.StudentT()},
    ),
    "priors": (
        {},
        {
            "priors": {
                "beta_mean": {"Intercept": 1.5},
                "feature_sd": {"Intercept": mtl.Prior("Gamma", alpha=2, beta=1)},
            }
        },
    ),
    "sampled intercept": (
        {},
        {"priors": {"beta_mean": {"Intercept": mtl.Prior("StudentT", nu=4, mu=0, sigma=5)}}},
    ),
}


def describe(scales, option, frame=None):
    columns, asked = OPTIONS[option]
    frame = table(n_rows=5) if frame is None else frame
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x1", "x2"], **columns)
    return mtl.ModelSpec(feature_scales=scales, **asked), data


# Together these have every option with every kind.
COMBINATIONS = [
    ("Horseshoe", "plain"),
    ("Horseshoe", "sampled intercept"),
    ("dirty", "related"),
    ("dirty", "own noise"),
    ("R2D2M2", "related"),
    ("R2D2M2", "priors"),
]


@pytest.mark.parametrize(("name", "option"), COMBINATIONS)
def test_the_two_paths_are_one_model(name, option):
    rng = np.random.default_rng(len(name) + len(option))
    spec, data = describe(SCALES[name], option)
    collapsed = contracts.Evaluator(mtl.build_model(spec, data, marginal=True))
    latent = contracts.Evaluator(mtl.build_model(spec, data, marginal=False))
    for evaluator in (collapsed, latent):
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(evaluator.model)
    contracts.assert_finite_at_the_start(collapsed)
    point = collapsed.random_point(rng)
    contracts.assert_every_element_moves_the_data_term(collapsed, point)
    contracts.assert_gradient_is_the_slope(collapsed, point, rng)
    values = collapsed.values(point)
    contracts.assert_close(collapsed.data_term(point), contracts.dense_log_density(spec, data, values))
    contracts.assert_collapsed_equals_latent(collapsed, latent, point)
    contracts.assert_latent_law_is_the_reported_one(spec, data, latent, rng)
    contracts.assert_sampling_models_are_the_latent_one(spec, data, latent, rng)
    theirs = latent.values(latent.start | point)
    assert set(theirs) - set(values) == {"beta"}
    for key, value in values.items():
        np.testing.assert_allclose(theirs[key], value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SCALES)
def test_gradient_of_what_fit_samples(name):
    """Scales of effects that are integrated out, or whitened, have the slope that they should."""
    rng = np.random.default_rng(4)
    spec, data = describe(SCALES[name], "plain")
    for collapsed in (True, False):
        model = sampling_model(spec, data, collapsed=collapsed, rows=data.pseudo_rows).model
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(model)
        evaluator = contracts.Evaluator(model)
        contracts.assert_finite_at_the_start(evaluator)
        contracts.assert_gradient_is_the_slope(evaluator, evaluator.random_point(rng), rng)


@pytest.mark.parametrize("name", SCALES)
def test_units_and_order_of_features_do_not_matter(name):
    """The density of the data is the same if a feature is in other units, and if features change places."""
    rng = np.random.default_rng(1)
    frame = table(n_rows=5)
    one = contracts.Evaluator(mtl.build_model(*describe(SCALES[name], "plain", frame)))
    point = one.random_point(rng)
    other = describe(SCALES[name], "plain", frame.assign(x1=frame.x1 * 1e3, x2=frame.x2 / 50))
    contracts.assert_close(contracts.Evaluator(mtl.build_model(*other)).logp(point), one.logp(point))
    swapped = contracts.Evaluator(
        mtl.build_model(*describe(SCALES[name], "plain", frame.assign(x1=frame.x2, x2=frame.x1)))
    )
    moved = {k: v[..., ::-1] if v.shape[-1:] == (2,) else v for k, v in point.items()}
    means = next(k for k in point if k.startswith("beta_mean_offset"))
    moved[means] = point[means][[0, 2, 1]]
    if name == "R2D2M2":  # the last of four shares is what the others leave
        whole = np.append(
            point["variance_share_part_simplex__"], -point["variance_share_part_simplex__"].sum()
        )
        moved["variance_share_part_simplex__"] = whole[[1, 0, 3]]
    contracts.assert_close(swapped.logp(moved), one.logp(point))


def prior_draws(spec, data, n, seed=0):
    assembled = sampling_model(spec, data, collapsed=spec.family.gaussian_coefficients, rows=data.pseudo_rows)
    free = [v for v in assembled.model.free_RVs if v.name not in WHITENED]
    drawn = az.from_dict({"posterior": {"x": np.zeros((1, n))}})["posterior"].to_dataset().drop_vars("x")
    for variable, values in zip(free, pm.draw(free, n, random_seed=seed, mode="FAST_COMPILE"), strict=True):
        dims = dims_of(assembled.model, variable.name, values.ndim - 1)
        drawn[variable.name] = (("chain", "draw", *dims), values[None])
    prior, hyper = evaluate(assembled, drawn, data)
    found = prior_coefficients(assembled, hyper, data, np.random.default_rng(seed))
    return with_coefficients(prior, found, hyper, assembled, data).isel(chain=0)


def many_features(P, T=5, n=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((T * n, P)) * np.exp(rng.standard_normal(P))
    return mtl.TaskData.from_arrays(X, rng.standard_normal(T * n), np.repeat(np.arange(T), n))


class TestR2D2M2:
    def test_prior_of_explained_variance_is_what_was_asked(self):
        """The expected variance of what features say, given the scales, is this share of the variance."""
        data = many_features(6)
        spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), feature_scales=mtl.R2D2M2(0.3, 4.0))
        prior = prior_draws(spec, data, 5000)
        size = data.X[:, 1:].std(axis=0)
        beta, r2 = prior["beta"].to_numpy(), prior["r2"].to_numpy()
        share, sigma = prior["variance_share"].to_numpy(), prior["sigma"].to_numpy()
        signal = (prior["feature_sd"].to_numpy()[:, 1:] * size) ** 2
        explained = signal.sum(axis=1) * share.sum(axis=(1, 2)) / share[:, 1].sum(axis=1)
        explained /= explained + sigma**2
        np.testing.assert_allclose(explained, r2, rtol=1e-10)
        law = beta_distribution(0.3 * 4, 0.7 * 4)
        assert kstest(explained, law.cdf).pvalue > 1e-7
        # The slopes of a task have the variances of both terms.
        scale = np.sqrt(sigma**2 * r2 / (1 - r2) * share.sum(axis=1).T).T / size
        assert kstest((beta[:, 0, 1:] / scale).ravel(), "norm").pvalue > 1e-7

    def test_with_many_features_the_realised_variance_is_near(self):
        data = many_features(40)
        scales = mtl.R2D2M2(0.5, 6.0, concentration=5.0)
        prior = prior_draws(
            mtl.ModelSpec(feature_covariance=mtl.Diagonal(), feature_scales=scales), data, 2000
        )
        beta = prior["beta"].to_numpy()[:, :, 1:]
        signal = np.stack(
            [np.einsum("np,dp->dn", data.X[data.task_index == t, 1:], beta[:, t]) for t in range(5)]
        )
        variance = signal.var(axis=(0, 2))
        realised = variance / (variance + prior["sigma"].to_numpy() ** 2)
        assert abs(realised.mean() - 0.5) < 0.03
        assert np.corrcoef(realised, prior["r2"].to_numpy())[0, 1] > 0.9

    def test_binary_outcomes_are_signs_of_a_logistic_variable(self):
        data = many_features(4)
        frame = mtl.TaskData.from_arrays(data.X[:, 1:], np.arange(data.n_rows) % 2, data.task_index)
        spec = mtl.ModelSpec("bernoulli", feature_covariance=mtl.Diagonal(), feature_scales=mtl.R2D2M2())
        prior = prior_draws(spec, frame, 200)
        signal = (prior["feature_sd"].to_numpy()[:, 1:] * data.X[:, 1:].std(axis=0)) ** 2
        share = prior["variance_share"].to_numpy()
        total = signal.sum(axis=1) / share[:, 1].sum(axis=1)
        np.testing.assert_allclose(total / (total + np.pi**2 / 3), prior["r2"].to_numpy(), rtol=1e-10)


class TestHorseshoe:
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
    def test_global_scale_makes_this_share_matter(self, share):
        a = global_scale(share)
        found = 2 * quad(lambda x: t.pdf(x, 3) * (a * x) ** 2 / (1 + (a * x) ** 2), 0, np.inf)[0]
        assert abs(found - share) < 1e-6

    def test_as_many_features_are_expected_to_matter_as_was_asked(self):
        """About: the global scale is a guess, and the slab cuts its tails."""
        data = many_features(20, n=200)
        for expected in (2, 8):
            scales = mtl.Horseshoe(expected_features=expected)
            prior = prior_draws(
                mtl.ModelSpec(feature_covariance=mtl.Diagonal(), feature_scales=scales), data, 1000
            )
            matter = (1 - prior["feature_shrinkage"]).sum("candidate_feature")
            assert 0.7 * expected < float(matter.mean()) < 1.4 * expected

    def test_none_is_larger_than_the_slab(self):
        scales = mtl.Horseshoe(expected_features=5, slab=0.5, unit=3.0)
        data = many_features(6)
        prior = prior_draws(
            mtl.ModelSpec(feature_covariance=mtl.Diagonal(), feature_scales=scales), data, 500
        )
        assert float(prior["feature_relevance"].max()) < 0.5
        size = 3.0 / data.X[:, 1:].std(axis=0)
        relevance, share = prior["feature_relevance"].to_numpy(), prior["feature_share"].to_numpy()
        expected = relevance * np.sqrt(1 - share) * size
        np.testing.assert_allclose(prior["feature_sd"].to_numpy()[:, 1:], expected, rtol=1e-10)


class TestWhatDoesNotFit:
    def test_description(self):
        for bad in (
            lambda: mtl.Horseshoe(expected_features=0),
            lambda: mtl.Horseshoe(slab=-1),
            lambda: mtl.Horseshoe(task_specific=3),
            lambda: mtl.R2D2M2(mean_r2=1.0),
            lambda: mtl.R2D2M2(concentration=0),
            lambda: mtl.ModelSpec(feature_scales="Horseshoe"),
        ):
            with pytest.raises(errors.SpecError):
                bad()

    @pytest.mark.parametrize("structure", [mtl.CompletePooling(), mtl.NoPooling(), mtl.Clusters(2)])
    def test_structures_without_a_common_mean_to_deviate_from(self, structure):
        spec, data = describe(mtl.R2D2M2(), "priors")
        spec = mtl.ModelSpec(task_covariance=structure, feature_scales=mtl.R2D2M2())
        with pytest.raises(errors.SpecError, match="feature_scales: has no meaning under"):
            mtl.build_model(spec, data)

    def test_data(self):
        frame = table(n_rows=5)
        with_z = mtl.TaskData.from_table(
            frame, task="task", outcome="y", features=["x1"], task_features=["z"]
        )
        spec = mtl.ModelSpec(
            feature_scales=mtl.Horseshoe(expected_features=2),
            priors={"feature_sd": 1.0, "beta_mean": {"x1": 0.0}},
        )
        with pytest.raises(errors.SpecError) as caught:
            mtl.build_model(spec, with_z)
        text = str(caught.value)
        for part in (
            "effects of task features",
            "should be below 1",
            "prior 'feature_sd'",
            "prior 'beta_mean'",
        ):
            assert part in text
        nothing = mtl.TaskData.from_table(frame, task="task", outcome="y", features=[])
        with pytest.raises(errors.SpecError, match="there are none"):
            mtl.build_model(mtl.ModelSpec(feature_scales=mtl.R2D2M2()), nothing)

    def test_round_trip(self):
        for scales in SCALES.values():
            spec = mtl.ModelSpec(feature_scales=scales)
            assert mtl.ModelSpec.from_dict(spec.to_dict()) == spec == mtl.ModelSpec.from_toml(spec.to_toml())
        assert "feature_scales" not in replace(spec, feature_scales=None).to_dict()


# What a feature does in eight tasks: three that matter for all (the last one differs from task to task), and
# one that matters for a single task.
FOR_ALL, FOR_ONE = ["x0", "x3", "x7"], ("t2", "x9")


def simulate(family, n_rows):
    """Return rows whose least squares are off by one standard error each, or whose odds are exact."""
    signs = hadamard(16)[1:9]
    beta = np.zeros((8, 13))
    beta[:, 0] = 0.5 * signs[:, 14]
    beta[:, 1] = 1.0 + 0.3 * signs[:, 13]
    beta[:, 4] = -0.8
    beta[:, 8] = signs[:, 15] * np.linspace(0.8, 1.2, 8)
    beta[2, 10] = 2.0
    unit = np.append(1.0, 10.0 ** np.random.default_rng(0).uniform(-2, 2, 12))
    if family == "gaussian":
        X, y, task = exact_rows(beta + signs[:, :13] / np.sqrt(n_rows), n_rows)
        weights = None
    else:
        beta = 2.0 * beta
        X, _, task = exact_rows(beta, n_rows)
        p = expit(beta[task, 0] + (X * beta[task, 1:]).sum(axis=1))
        weights = np.concatenate([p, 1.0 - p])
        X, task, y = np.tile(X, (2, 1)), np.tile(task, 2), np.repeat([1, 0], len(task))
    names, tasks = [f"x{j}" for j in range(12)], [f"t{i}" for i in task]
    data = mtl.TaskData.from_arrays(X * unit[1:], y, tasks, feature_names=names, weights=weights)
    return data, beta[:, 1:] / unit[1:]


def fit(scales, family="gaussian", n_rows=30, **options):
    data, beta = simulate(family, n_rows)
    spec = mtl.ModelSpec(family, feature_covariance=mtl.Diagonal(), feature_scales=scales)
    settings = {"draws": 1000, "tune": 500, "chains": 2, "random_seed": 1, "progressbar": False}
    return mtl.fit(data, spec, **(settings | options)), beta, data


@pytest.fixture(scope="module")
def selected():
    return fit(mtl.Horseshoe(expected_features=3), draws=2500, chains=4)


@pytest.fixture(scope="module")
def dirty():
    # There are two explanations, an exception and a feature that varies across all tasks. The more rows, the
    # farther they are apart and the longer chains stay with one of them: few rows, and many draws.
    scales = mtl.Horseshoe(expected_features=3, task_specific=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.ConvergenceWarning)
        return fit(scales, n_rows=20, random_seed=2, tune=1000, draws=3000)


def effect_error(beta, truth, data):
    return float((((beta - truth) * data.X[:, 1:].std(axis=0)) ** 2).mean())


class TestRecovery:
    def test_features_that_matter_are_found(self, selected):
        idata, truth, data = selected
        assert mtl.diagnose(idata).divergences == 0
        found = mtl.feature_selection(idata)
        kappa, label = found["shrinkage"].to_series(), found["used_by"].to_series()
        others = [f for f in kappa.index if f not in (*FOR_ALL, FOR_ONE[1])]
        assert kappa[FOR_ALL].max() < 0.25 < 0.5 < kappa[others].min()
        assert (label[FOR_ALL] == "all tasks").all()
        assert (label[others] == "no task").all()
        assert label[FOR_ONE[1]] == "some tasks"
        assert found["p_used"].to_pandas().idxmax()[FOR_ONE[1]] == FOR_ONE[0]
        assert float(found["n_effective_lower"]) > 3.0
        # Least squares, task by task.
        rows = [data.task_index == t for t in range(8)]
        alone = np.stack([np.linalg.lstsq(data.X[r], data.y[r], rcond=None)[0][1:] for r in rows])
        ours = idata["posterior"]["beta"].mean(("chain", "draw")).to_numpy()[:, 1:]
        assert effect_error(ours, truth, data) < 0.33 * effect_error(alone, truth, data)

    @pytest.mark.slow
    def test_single_tasks_may_use_a_feature(self, dirty):
        idata, *_ = dirty
        assert mtl.diagnose(idata).divergences <= 30  # of 6,000 draws
        found = mtl.feature_selection(idata)
        own = found["p_specific"].to_pandas().stack()
        assert own[FOR_ONE] > 1.2 * own.drop(FOR_ONE).max()
        assert set(found["feature"].to_numpy()[found["used_by"].to_numpy() == "all tasks"]) <= set(FOR_ALL)

    @pytest.mark.slow
    def test_binary_outcomes_and_a_budget_of_variance(self):
        bare = {"log_likelihood": False, "posterior_predictive": False}
        idata, _, _ = fit(mtl.R2D2M2(), "bernoulli", 100, draws=1500, chains=4, **bare)
        assert mtl.diagnose(idata).divergences == 0
        posterior = idata["posterior"].to_dataset()
        share = posterior["variance_share"].sum("term").mean(("chain", "draw")).to_series()
        assert set(share.nlargest(4).index) == {*FOR_ALL, FOR_ONE[1]}
        # The variances of effects, times 4: 1.09, .64, 1.01 and, in one task of eight, 4.
        signal = 4 * (1.09 + 0.64 + 1.01 + 0.5)
        low, high = posterior["r2"].quantile([0.005, 0.995]).to_numpy()
        assert low < signal / (signal + np.pi**2 / 3) < high
        table = mtl.summary(idata)
        assert {"r2", "variance_share[mean, x0]"} <= set(table.index)


class TestAfterwards:
    def test_saved_and_read(self, selected, tmp_path):
        idata, *_ = selected
        again = mtl.load(mtl.save(idata, tmp_path / "fit.nc"))
        xr.testing.assert_equal(mtl.feature_selection(again), mtl.feature_selection(idata))

    @pytest.mark.slow
    def test_new_tasks(self, dirty):
        """A new task has the population's means, its deviations, and exceptions of its own."""
        idata, _, data = dirty
        rows = np.vstack([np.zeros(12), np.eye(12)])
        frame = pd.DataFrame(rows, columns=data.features[1:]).assign(task="new")
        y = mtl.predict(idata, frame, new_tasks="population", random_seed=1)["predictions"]["y"].to_numpy()
        slopes = (y[..., 1:] - y[..., :1]).reshape(-1, 12)
        posterior = idata["posterior"].to_dataset()
        mean, sd = (posterior[k].to_numpy().reshape(-1, 13)[:, 1:] for k in ("beta_mean", "feature_sd"))
        scale = posterior["beta_specific_scale"].to_numpy().ravel()
        size = data.y.std() / data.X[:, 1:].std(axis=0)
        # E q^2 = u^2 tau^2 3, before the slab: HalfStudentT(3) has second moment 3.
        z = (slopes - mean) / np.sqrt(sd**2 + 3 * (size * scale[:, None]) ** 2)
        assert np.abs(np.median(z, axis=0)).max() < 0.1
        assert 0.6 < np.quantile(np.abs(z), 0.95) / 1.96 < 1.1
        ours = posterior["beta_specific"].to_numpy().reshape(-1, 8, 12) / size
        theirs = spec_of(idata).feature_scales.draw_specific(scale, np.ones(12), 8, np.random.default_rng(0))
        assert np.quantile(np.abs(theirs), 0.5) == pytest.approx(np.quantile(np.abs(ours), 0.5), rel=0.3)

    def test_picture(self, selected):
        left, right = mtl.plot_feature_selection(selected[0])
        shown = [label.get_text() for label in left.get_yticklabels()]
        assert set(shown[:4]) == {*FOR_ALL, FOR_ONE[1]}
        assert "all tasks: 3, some: 1, none: 8" in left.get_title(loc="left")
        assert len(right.lines) == 2

    def test_questions_that_have_no_answer(self, selected):
        idata, _, data = selected
        with pytest.raises(errors.SpecError, match=r"`delta` should.*\n.*`sure` should"):
            mtl.feature_selection(idata, delta=0.0, sure=0.4)
        other = idata.copy()
        other.attrs.update(describe_fit(mtl.ModelSpec(), data.schema, "test"))
        with pytest.raises(errors.SpecError, match="are not part of this fit"):
            mtl.feature_selection(other)


@pytest.mark.parametrize("scales", [mtl.Horseshoe(expected_features=1), mtl.R2D2M2()], ids=str)
@pytest.mark.filterwarnings("ignore:1 of 3 columns adds nothing")
def test_a_column_that_never_changes_has_no_scale(scales):
    """One over its standard deviation is infinite, or 1e16 by rounding: a flat prior beside the intercept."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(40), np.full(40, 0.1)])
    data = mtl.TaskData.from_arrays(X, rng.standard_normal(40), np.repeat(list("ab"), 20))
    with pytest.raises(mtl.errors.SpecError, match=r"'x1': never changes, so that .* no standard deviation"):
        mtl.build_model(mtl.ModelSpec(feature_scales=scales), data)
    sizes = coefficient_sizes(mtl.ModelSpec(), data, 2.0)
    np.testing.assert_allclose(sizes, [np.inf, 2.0 / X[:, 0].std(), np.inf])
