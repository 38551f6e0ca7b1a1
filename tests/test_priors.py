"""Default priors, how a prior becomes a random variable, and the coefficients as a part of any model."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytest
from scipy import stats

import bayes_mtl as mtl
from bayes_mtl.errors import SpecError
from bayes_mtl.inference.density import DensityGraph
from bayes_mtl.model import explicit_priors, sampling_model
from bayes_mtl.model.priors import Scaled, default_priors, power_of_two, register
from tests import contracts


def make_data(y_factor=1.0, x_factor=1.0, q_factor=1.0, y_shift=0.0, x_shift=0.0, **changes):
    rng = np.random.default_rng(0)
    n = 24
    table = {
        "task": ["a", "b", "c"] * 8,
        "x": x_factor * (rng.standard_normal(n) + x_shift),
        "z": 1.0 + rng.standard_normal(n),
        "v": rng.standard_normal(n),
        "q": [q_factor * v for v in (1.0, 2.5, 3.0)] * 8,
        "y": y_factor * (rng.standard_normal(n) + y_shift),
    }
    arguments = {
        "outcome": "y",
        "features": ["x", "z"],
        "shared_features": ["v"],
        "task_features": ["q"],
    } | changes
    return mtl.TaskData.from_table(table, task="task", **arguments)


def numbers(prior):
    return dict(prior.params)


class TestDefaults:
    def test_as_documented(self):
        data = make_data(y_factor=3.0, y_shift=2.0)
        priors, scales = default_priors(mtl.ModelSpec(), data)
        by_task = [data.y[data.task_index == t] for t in range(3)]
        levels = np.array([np.median(y) for y in by_task])
        left = np.concatenate([y - level for y, level in zip(by_task, levels, strict=True)])
        largest = np.sort(np.abs(left))[-3]  # two of 24 are clipped
        s_y = np.sqrt((np.minimum(np.abs(left), largest) ** 2).sum() / (24 - 3))
        m_y = np.median(levels)
        s_b = np.sqrt(((levels - m_y) ** 2).sum() / 2)
        s_x, s_z = data.X[:, 1].std(), data.X[:, 2].std()
        s_v = data.X_shared[:, 0].std()
        w = np.sqrt(
            1 + sum((c.mean() / c.std()) ** 2 for c in (data.X[:, 1], data.X[:, 2], data.X_shared[:, 0]))
        )
        size = [np.hypot(s_b, s_y * w), s_y / s_x, s_y / s_z]
        for prior, mu, s in zip(priors["beta_mean"], [m_y, 0, 0], size, strict=True):
            assert prior.distribution == "Normal"
            assert numbers(prior) == pytest.approx({"mu": mu, "sigma": 2.5 * s})
        for prior, s in zip(priors["feature_sd"], size, strict=True):
            assert prior.distribution == "HalfNormal"
            assert numbers(prior) == pytest.approx({"sigma": s})
        assert numbers(priors["beta_shared"][0]) == pytest.approx({"mu": 0, "sigma": 2.5 * s_y / s_v})
        s_q = np.std([1.0, 2.5, 3.0])
        for (prior,), s in zip(priors["task_feature_effects"], size, strict=True):
            assert numbers(prior) == pytest.approx({"mu": 0, "sigma": s / s_q})
        assert priors["task_sd"] == mtl.Prior("LogNormal", mu=0, sigma=0.5)
        assert priors["sigma"].distribution == "HalfNormal"
        assert numbers(priors["sigma"]) == pytest.approx({"sigma": np.sqrt((left**2).sum() / (24 - 3))})
        assert priors["sigma_spread"] == mtl.Prior("HalfNormal", sigma=0.3)
        np.testing.assert_allclose(scales["beta_mean"], size)

    def test_shared_intercept_has_the_intercept_prior(self):
        data = make_data(y_shift=5.0, shared_features=["Intercept"], task_features=[])
        prior = default_priors(mtl.ModelSpec(), data)[0]["beta_shared"][0]
        assert numbers(prior)["mu"] == pytest.approx(np.median(data.y))

    @staticmethod
    def sizes(data, spec=None):
        """Location and scale of every default, in one vector per parameter."""
        priors, _ = default_priors(spec or mtl.ModelSpec(), data)
        out = {}
        for name, entry in priors.items():
            flat = np.ravel(np.array(entry, dtype=object))
            given = [numbers(p) if isinstance(p, mtl.Prior) else {"sigma": p} for p in flat]
            out[name] = np.array([[p.get("mu", 0.0), p["sigma"]] for p in given])
        return out

    @pytest.mark.parametrize("c", [1e-3, 7.0])
    def test_they_follow_the_units(self, c):
        base = self.sizes(make_data(y_shift=2.0))
        fixed = ("feature_sd_scale", "task_sd", "sigma_spread")
        for name, scaled in self.sizes(make_data(y_factor=c, y_shift=2.0)).items():
            np.testing.assert_allclose(scaled, base[name] * (1.0 if name in fixed else c), err_msg=name)
        by_feature = ("beta_mean", "feature_sd", "cluster_sd", "task_feature_effects")
        for name, scaled in self.sizes(make_data(x_factor=c, y_shift=2.0)).items():
            factor = np.array([[1.0], [1 / c], [1.0]]) if name in by_feature else 1.0
            np.testing.assert_allclose(scaled, base[name] * factor, err_msg=name)
        for name, scaled in self.sizes(make_data(q_factor=c, y_shift=2.0)).items():
            factor = 1 / c if name == "task_feature_effects" else 1.0
            np.testing.assert_allclose(scaled, base[name] * factor, err_msg=name)

    @pytest.mark.parametrize(
        ("structure", "n_features", "more", "learned"),
        [
            (mtl.LKJ(), 5, {}, True),
            (mtl.StudentT(mtl.LowRank(1)), 5, {}, True),
            (mtl.LKJ(), 4, {}, False),
            (mtl.Exchangeable(), 5, {}, True),
            (mtl.Exchangeable(), 4, {}, False),  # the intercept does not count
            (mtl.NoPooling(), 8, {}, False),
            (mtl.CompletePooling(), 8, {}, False),
            (mtl.Clusters(2), 8, {}, False),
            (mtl.LKJ(), 8, {"feature_scales": mtl.Horseshoe(expected_features=1)}, False),
            (mtl.LKJ(), 8, {"priors": {"feature_sd": {"x1": 2.0}}}, False),
            (mtl.LKJ(), 8, {"priors": {"feature_sd": {"Intercept": 2.0}}}, True),
            (mtl.LKJ(), 8, {"priors": {"feature_sd_scale": 1.0}}, False),
            (mtl.Exchangeable(), 2, {"priors": {"feature_sd_scale": mtl.Prior("HalfNormal", sigma=2)}}, True),
        ],
        ids=str,
    )
    def test_where_the_scale_of_feature_sd_is_learned(self, structure, n_features, more, learned):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((60, n_features))
        data = mtl.TaskData.from_arrays(X, rng.standard_normal(60), np.repeat(list("abc"), 20))
        spec = mtl.ModelSpec(task_covariance=structure, **more)
        assert spec.findings(data) == []
        model = mtl.build_model(spec, data)
        assert ("feature_sd_scale" in model.named_vars) == learned
        assert explicit_priors(spec, data).findings(data) == []
        assert (
            "feature_sd_scale" in mtl.build_model(explicit_priors(spec, data), data).named_vars
        ) == learned

    def test_levels_of_groupings_have_one_too(self):
        rng = np.random.default_rng(0)
        names = [f"x{i}" for i in range(5)]
        frame = pd.DataFrame(rng.standard_normal((60, 5)), columns=names)
        frame = frame.assign(y=rng.standard_normal(60), task=np.arange(60) % 3, item=np.arange(60) % 4)
        data = mtl.TaskData.from_table(
            frame, task="task", outcome="y", features=names, groupings={"item": names}
        )
        for structure, learned in ((mtl.LKJ(), True), (mtl.Exchangeable(), True), (mtl.NoPooling(), False)):
            spec = mtl.ModelSpec(groupings={"item": structure})
            for described in (spec, explicit_priors(spec, data)):
                assert ("item_sd_scale" in mtl.build_model(described, data).named_vars) == learned
        given = mtl.ModelSpec(priors={"item_sd_scale": 2.0}, groupings={"item": mtl.NoPooling()})
        with pytest.raises(mtl.errors.SpecError, match="no meaning under NoPooling"):
            mtl.build_model(given, data)
        assert explicit_priors(mtl.ModelSpec(), data).findings(data) == []  # of groupings not described

    @pytest.mark.parametrize(("n_features", "factors"), [(1, False), (3, False), (4, True), (7, True)])
    def test_features_are_correlated_by_factors_from_four_on(self, n_features, factors):
        rng = np.random.default_rng(0)
        names = [f"x{i}" for i in range(n_features)]
        frame = pd.DataFrame(rng.standard_normal((60, n_features)), columns=names)
        frame = frame.assign(y=rng.standard_normal(60), task=np.arange(60) % 6, item=np.arange(60) % 4)
        columns = {"task": "task", "outcome": "y", "intercept": False}
        data = mtl.TaskData.from_table(frame, features=names, **columns)
        wanted = mtl.LowRank(2) if factors else mtl.LKJ(2.0)
        for structure in (mtl.Exchangeable(), mtl.Kernel(np.eye(6), tasks=range(6)), mtl.Clusters(2)):
            spec = mtl.ModelSpec(task_covariance=structure)
            assert spec.feature_covariance_of(data) == wanted
            stored = explicit_priors(spec, data)
            assert stored.feature_covariance == wanted
            for described in (spec, stored):
                assert ("feature_loadings" in mtl.build_model(described, data).named_vars) == factors
        given = mtl.ModelSpec(feature_covariance=mtl.Diagonal())
        assert explicit_priors(given, data).feature_covariance == mtl.Diagonal()
        grouped = mtl.TaskData.from_table(
            frame, features=names[:1], shared_features=names[1:], groupings={"item": names}, **columns
        )
        assert mtl.ModelSpec().feature_covariance_of(grouped) == wanted  # of tasks and levels alike
        with pm.Model(coords={"task": list("abc"), "feature": names}) as model:
            mtl.task_coefficients("b")
        assert ("b_feature_loadings" in model.named_vars) == factors

    def test_coefficients_in_anyones_model_have_one_too(self):
        for n, structure, priors, learned in (
            (5, mtl.LKJ(), {}, True),
            (4, mtl.LKJ(), {}, False),
            (5, mtl.LKJ(), {"feature_sd": 1.0}, False),
            (5, mtl.Exchangeable(), {}, True),
            (4, mtl.Exchangeable(), {}, False),
            (2, mtl.Exchangeable(), {"feature_sd_scale": mtl.Prior("HalfNormal", sigma=1)}, True),
        ):
            with pm.Model(coords={"task": list("abc"), "feature": [f"x{i}" for i in range(n)]}) as model:
                mtl.task_coefficients("b", task_covariance=structure, priors=priors)
            assert ("b_feature_sd_scale" in model.named_vars) == learned
        with pm.Model(coords={"task": list("abc"), "feature": ["x0", "x1"]}):
            for structure, priors, words in (
                (mtl.NoPooling(), {}, "no meaning under NoPooling"),
                (mtl.LKJ(), {"feature_sd": mtl.Prior("LogNormal", mu=0, sigma=1)}, "HalfNormal"),
            ):
                with pytest.raises(mtl.errors.SpecError, match=words):
                    mtl.task_coefficients(
                        "b", task_covariance=structure, priors={**priors, "feature_sd_scale": 2.0}
                    )

    def test_the_learned_scale_multiplies_the_features_inside(self):
        rng = np.random.default_rng(0)
        data = mtl.TaskData.from_arrays(
            rng.standard_normal((60, 5)), rng.standard_normal(60), np.repeat(list("abc"), 20)
        )
        spec = mtl.ModelSpec(task_covariance=mtl.LKJ())
        sizes = [numbers(p)["sigma"] for p in default_priors(spec, data)[0]["feature_sd"]]
        model = mtl.build_model(spec, data)
        function = pytensor.function(
            model.value_vars,
            model.logp(vars=[model["feature_sd"]], jacobian=False),
            mode=contracts.MODE,
            on_unused_input="ignore",
        )
        point = model.initial_point()
        sd, tau = rng.uniform(0.5, 2.0, 6), 3.0
        point["feature_sd_log__"], point["feature_sd_scale_log__"] = np.log(sd), np.log(tau)
        expected = stats.halfnorm(scale=np.array(sizes) * [1, *[tau] * 5]).logpdf(sd).sum()
        contracts.assert_close(float(function(*(point[v.name] for v in model.value_vars))), expected, 1e-10)

    def test_a_scale_that_would_multiply_nothing(self):
        rng = np.random.default_rng(0)
        data = mtl.TaskData.from_arrays(
            rng.standard_normal((9, 1)), rng.standard_normal(9), np.repeat([0, 1, 2], 3)
        )
        log_normal = mtl.Prior("LogNormal", mu=0, sigma=1)  # whose sigma is one of logs
        for feature_sd in (2.0, log_normal, {"x0": mtl.Prior("Exponential", lam=1)}):
            priors = {"feature_sd": feature_sd, "feature_sd_scale": mtl.Prior("HalfNormal", sigma=1)}
            with pytest.raises(mtl.errors.SpecError, match="feature_sd_scale"):
                mtl.build_model(mtl.ModelSpec(priors=priors), data)
        with pytest.raises(mtl.errors.SpecError, match="no meaning under Clusters"):
            mtl.build_model(
                mtl.ModelSpec(task_covariance=mtl.Clusters(2), priors={"feature_sd_scale": 2.0}), data
            )
        outside = mtl.ModelSpec(independent_features=data.features, priors={"feature_sd_scale": 2.0})
        with pytest.raises(mtl.errors.SpecError, match="no feature is inside"):
            mtl.build_model(outside, data)

    def test_an_offset_is_not_part_of_the_outcome(self):
        rng = np.random.default_rng(1)
        table = {"task": ["a", "b"] * 6, "y": rng.standard_normal(12), "o": np.zeros(12)}
        shifted = table | {"y": table["y"] + 1e3 * np.arange(12), "o": 1e3 * np.arange(12)}
        both = [mtl.TaskData.from_table(t, task="task", outcome="y", offset="o") for t in (table, shifted)]
        one, two = (self.sizes(d) for d in both)
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-9)

    def test_bernoulli_lives_on_the_logit_scale(self):
        base = make_data(task_features=[])
        binary = {"task": ["a", "b", "c"] * 8, "x": base.X[:, 1], "y": ([0, 1] * 12)[:24]}
        data = mtl.TaskData.from_table(binary, task="task", outcome="y", features=["x"])
        priors, _ = default_priors(mtl.ModelSpec(family="bernoulli"), data)
        assert numbers(priors["beta_mean"][1]) == pytest.approx({"mu": 0, "sigma": 2.5 / data.X[:, 1].std()})
        assert numbers(priors["beta_mean"][0])["mu"] == 0

    def test_no_pooling_fixes_mean_and_scale(self):
        data = make_data(y_shift=4.0)
        wide, _ = default_priors(mtl.ModelSpec(task_covariance=mtl.NoPooling()), data)
        usual, _ = default_priors(mtl.ModelSpec(), data)
        assert wide["beta_mean"] == pytest.approx([numbers(p)["mu"] for p in usual["beta_mean"]])
        assert wide["feature_sd"] == pytest.approx([10 * numbers(p)["sigma"] for p in usual["feature_sd"]])
        asked = mtl.ModelSpec(task_covariance=mtl.NoPooling(), priors={"feature_sd": {"x": 3.0}})
        chosen = default_priors(asked, data)[0]["feature_sd"]
        assert chosen == [wide["feature_sd"][0], 3.0, wide["feature_sd"][2]]

    def test_a_prior_given_replaces_the_default_where_it_is_given(self):
        data = make_data()
        mine = mtl.Prior("Laplace", mu=1, b=2)
        spec = mtl.ModelSpec(
            priors={
                "beta_mean": {"z": mine},
                "task_feature_effects": {"x": 0.0},
                "beta_shared": mine,
                "sigma": 1.5,
            }
        )
        found, _ = default_priors(spec, data)
        usual, _ = default_priors(mtl.ModelSpec(), data)
        assert found["beta_mean"] == [*usual["beta_mean"][:2], mine]
        assert found["task_feature_effects"] == [
            usual["task_feature_effects"][0],
            [0.0],
            usual["task_feature_effects"][2],
        ]
        assert found["beta_shared"] == [mine]
        assert found["sigma"] == 1.5
        assert found["feature_sd"] == usual["feature_sd"]


# Every distribution with SciPy's log density of it.
DENSITIES = [
    (mtl.Prior("Normal", mu=1, sigma=2), stats.norm(1, 2)),
    (mtl.Prior("StudentT", nu=3, mu=1, sigma=2), stats.t(3, 1, 2)),
    (mtl.Prior("Cauchy", alpha=1, beta=2), stats.cauchy(1, 2)),
    (mtl.Prior("Laplace", mu=1, b=2), stats.laplace(1, 2)),
    (mtl.Prior("Logistic", mu=1, s=2), stats.logistic(1, 2)),
    (mtl.Prior("HalfNormal", sigma=2), stats.halfnorm(0, 2)),
    (mtl.Prior("HalfStudentT", nu=1, sigma=2), stats.halfcauchy(0, 2)),
    (mtl.Prior("HalfCauchy", beta=2), stats.halfcauchy(0, 2)),
    (mtl.Prior("Exponential", lam=2), stats.expon(0, 0.5)),
    (mtl.Prior("Gamma", alpha=3, beta=2), stats.gamma(3, scale=0.5)),
    (mtl.Prior("InverseGamma", alpha=3, beta=2), stats.invgamma(3, scale=2)),
    (mtl.Prior("LogNormal", mu=1, sigma=2), stats.lognorm(2, scale=np.e)),
    (mtl.Prior("Weibull", alpha=3, beta=2), stats.weibull_min(3, scale=2)),
    (mtl.Prior("Uniform", lower=0.1, upper=2), stats.uniform(0.1, 1.9)),
]


def space_logp(model):
    """Log density of the free variables in their own space, as a function of unconstrained values."""
    graphs = [model.logp(jacobian=False), model.logp(jacobian=True)]
    graphs += model.replace_rvs_by_values([model["b"]])
    return pytensor.function(model.value_vars, graphs, mode=contracts.MODE, on_unused_input="ignore")


class TestRegister:
    def test_all_distributions_in_one_parameter(self):
        """Fourteen distributions and two constants, each at its place, in a matrix of parameters."""
        entries = [p for p, _ in DENSITIES]
        entries.insert(3, 0.25)
        entries.append(-1.5)
        rows = [entries[i : i + 4] for i in range(0, 16, 4)]
        with pm.Model() as model:
            register("b", rows, scale=np.full((4, 4), 3.0))
        point = {k: np.full(v.shape, 0.3) for k, v in model.initial_point().items()}
        logp, _, value = space_logp(model)(*(point[v.name] for v in model.value_vars))
        assert value.shape == (4, 4)
        flat = value.ravel()
        assert (flat[3], flat[15]) == (0.25, -1.5)
        random = np.delete(flat, [3, 15])
        assert len(model.free_RVs) == len(DENSITIES)
        expected = sum(float(d.logpdf(v)) for v, (_, d) in zip(random, DENSITIES, strict=True))
        # PyMC keeps log(2) of the half-t and the half-Cauchy in single precision: 2e-9 each, a constant.
        contracts.assert_close(float(logp), expected, 1e-8)

    def test_one_distribution_keeps_the_name(self):
        entries = [mtl.Prior("Normal", mu=i, sigma=i + 1) for i in range(3)]
        with pm.Model(coords={"d": range(3)}) as model:
            register("b", entries, dims="d")
        assert [v.name for v in model.free_RVs] == ["b"]
        assert model.named_vars_to_dims["b"] == ("d",)
        logp, _, value = space_logp(model)(np.array([0.5, 0.1, -1.0]))
        contracts.assert_close(float(logp), stats.norm([0, 1, 2], [1, 2, 3]).logpdf(value).sum(), 1e-12)

    def test_mixtures_are_deterministic_with_dims(self):
        entries = [mtl.Prior("HalfNormal", sigma=1), 2.0, mtl.Prior("HalfNormal", sigma=3)]
        with pm.Model(coords={"d": range(3)}) as model:
            register("b", entries, dims="d")
        assert [v.name for v in model.free_RVs] == ["b_halfnormal_part"]
        assert model.named_vars_to_dims["b"] == ("d",)
        logp, _, value = space_logp(model)(np.log([0.5, 4.0]))
        np.testing.assert_allclose(value, [0.5, 2.0, 4.0])
        contracts.assert_close(float(logp), stats.halfnorm(0, [1, 3]).logpdf([0.5, 4.0]).sum(), 1e-12)

    def test_constants_alone(self):
        with pm.Model() as model:
            register("b", 2.5, shape=(3,))
        assert model.free_RVs == []
        np.testing.assert_array_equal(model["b"].eval(mode=contracts.MODE), [2.5] * 3)

    def test_one_prior_for_every_element(self):
        with pm.Model() as model:
            register("b", mtl.Prior("LogNormal", mu=0, sigma=0.5), shape=(3,))
        assert model.initial_point()["b_log__"].shape == (3,)

    def test_the_scale_changes_no_density(self):
        entries = [mtl.Prior("Normal", mu=1, sigma=50), mtl.Prior("Normal", mu=0, sigma=0.02)]
        scale = np.array([16.0, 1 / 128])
        functions = []
        for s in (None, scale):
            with pm.Model() as model:
                register("b", entries, shape=(2,), scale=s)
            functions.append(space_logp(model))
        value = np.array([3.0, 0.005])
        plain, plain_total, at = functions[0](value)
        scaled, scaled_total, same = functions[1](value / scale)
        np.testing.assert_allclose(at, value)
        np.testing.assert_allclose(same, value)
        contracts.assert_close(float(scaled), float(plain), 1e-12)
        # With the Jacobian the density is that of value / scale.
        contracts.assert_close(float(scaled_total), float(plain_total) + np.log(scale).sum(), 1e-12)

    def test_other_units_are_the_same_model(self):
        """A prior that is not normal is sampled: the model can be fitted, in any units."""
        rng = np.random.default_rng(2)
        x, task = 100 * rng.standard_normal(40), np.repeat(["a", "b"], 20)
        data = mtl.TaskData.from_arrays(x[:, None], 7 * x + 50 * rng.standard_normal(40), task)
        spec = mtl.ModelSpec(priors={"beta_mean": mtl.Prior("StudentT", nu=4, mu=0, sigma=100)})
        assembled = sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows)
        assert "beta_mean_scaled__" in assembled.model.initial_point()
        assert np.isfinite(DensityGraph(assembled.model).size)

    def test_scaled_is_a_bijection_with_its_jacobian(self):
        transform = Scaled(np.array([2.0, 0.1]))
        value = np.array([3.0, 4.0])
        there = transform.forward(value)
        np.testing.assert_allclose(transform.backward(there), value)
        log_jacobian = transform.log_jac_det(pytensor.tensor.as_tensor_variable(there)).eval(
            mode=contracts.MODE
        )
        np.testing.assert_allclose(log_jacobian, np.log([2.0, 0.1]))

    def test_a_whole_model_is_priors_plus_data(self):
        """The log density in the space of the parameters, term by term with SciPy."""
        data = make_data(y_factor=30.0, x_factor=1e-2, y_shift=1.0)
        spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal())
        model = mtl.build_model(spec, data)
        names = ["beta_mean", "beta_shared", "task_feature_effects", "feature_sd", "sigma"]
        outputs = [model.logp(jacobian=False), *model.replace_rvs_by_values([model[n] for n in names])]
        function = pytensor.function(model.value_vars, outputs, mode=contracts.MODE)
        rng = np.random.default_rng(3)
        start = model.initial_point()
        found, *values = function(
            *(start[v.name] + 0.3 * rng.standard_normal(start[v.name].shape) for v in model.value_vars)
        )
        values = dict(zip(names, values, strict=True))
        priors, _ = default_priors(spec, data)
        expected = contracts.dense_log_density(spec, data, values)
        for name in names:
            flat = np.ravel(np.array(priors[name], dtype=object))
            for prior, value in zip(flat, np.ravel(values[name]), strict=True):
                if prior.distribution == "Normal":
                    expected += stats.norm(numbers(prior)["mu"], numbers(prior)["sigma"]).logpdf(value)
                else:
                    expected += stats.halfnorm(0, numbers(prior)["sigma"]).logpdf(value)
        contracts.assert_close(float(found), expected)

    def test_priors_that_differ_by_feature_reach_the_model(self):
        spec = mtl.ModelSpec(
            priors={
                "beta_mean": {"x": 0.5, "z": mtl.Prior("StudentT", nu=3, mu=0, sigma=1)},
                "feature_sd": {"x": mtl.Prior("Exponential", lam=2.0)},
                "sigma": 1.5,
            }
        )
        data = make_data(task_features=[], shared_features=[])
        evaluator = contracts.Evaluator(mtl.build_model(spec, data))
        free = {v.name for v in evaluator.model.free_RVs}
        assert free == {
            "beta_mean_normal_part",
            "beta_mean_studentt_part",
            "feature_sd_halfnormal_part",
            "feature_sd_exponential_part",
            "feature_corr_partial",
        }
        point = evaluator.random_point(np.random.default_rng(4))
        values = evaluator.values(point)
        assert values["beta_mean"][1] == 0.5
        assert values["sigma"] == 1.5
        contracts.assert_close(evaluator.data_term(point), contracts.dense_log_density(spec, data, values))
        contracts.assert_gradient_is_the_slope(evaluator, point, np.random.default_rng(5))


COORDS = {"clinic": ["a", "b", "c"], "term": ["Intercept", "dose"]}


class TestTaskCoefficients:
    def test_names_dims_and_coords(self):
        with pm.Model(coords=COORDS) as model:
            beta = mtl.task_coefficients(
                "beta",
                task_covariance=mtl.LowRank(2),
                dims=("clinic", "term"),
                task_sd=True,
                independent_features=(),
            )
        assert model["beta"] is beta
        assert {v.name for v in model.free_RVs} == {
            "beta_mean",
            "beta_feature_sd",
            "beta_feature_corr_partial",
            "beta_task_loadings_scale",
            "beta_task_loadings_offset",
            "beta_task_sd",
            "beta",
        }
        dims = model.named_vars_to_dims
        assert dims["beta"] == ("clinic", "term")
        assert dims["beta_mean"] == dims["beta_feature_sd"] == ("term",)
        assert dims["beta_feature_corr"] == ("term", "term_bis")
        assert dims["beta_task_corr"] == ("clinic", "clinic_bis")
        assert dims["beta_task_sd"] == ("clinic",)
        assert list(model.coords["clinic_bis"]) == COORDS["clinic"]
        assert list(model.coords["term_bis"]) == COORDS["term"]

    def test_is_the_prior_of_the_spec(self):
        """The block and `build_model` with the same priors are the same log density of the same data."""
        rng = np.random.default_rng(6)
        X, y = rng.standard_normal((12, 1)), rng.standard_normal(12)
        task = np.repeat(["a", "b", "c"], 4)
        data = mtl.TaskData.from_arrays(X, y, task, feature_names=["dose"])
        priors = {
            "beta_mean": mtl.Prior("Normal", mu=0, sigma=2.5),
            "feature_sd": mtl.Prior("HalfNormal", sigma=1),
        }
        spec = mtl.ModelSpec(
            task_covariance=mtl.LKJ(), priors=priors | {"sigma": mtl.Prior("Exponential", lam=1)}
        )
        theirs = contracts.Evaluator(mtl.build_model(spec, data, marginal=False))
        with pm.Model(coords=COORDS) as model:
            beta = mtl.task_coefficients("beta", task_covariance=mtl.LKJ(), dims=("clinic", "term"))
            sigma = pm.Exponential("sigma", 1.0)
            pm.Normal("y", (data.X * beta[data.task_index]).sum(axis=1), sigma, observed=data.y)
        ours = contracts.Evaluator(model)
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(model)
        contracts.assert_finite_at_the_start(ours)
        point = ours.random_point(rng)
        rename = {
            "beta_mean": "beta_mean_scaled__",
            "beta_offset__": "beta_offset__",
        }
        moved = {rename.get(k, k.removeprefix("beta_")): v for k, v in point.items()}
        scale = power_of_two(default_priors(spec, data)[1]["beta_mean"])
        moved["beta_mean_scaled__"] = moved["beta_mean_scaled__"] / scale
        assert moved.keys() == theirs.start.keys()
        np.testing.assert_allclose(theirs.values(moved)["beta"], ours.values(point)["beta"], rtol=1e-12)
        jacobian = np.log(scale).sum()
        contracts.assert_close(theirs.logp(moved) - jacobian, ours.logp(point), 1e-10)

    def test_two_blocks_in_one_model_and_any_likelihood(self):
        rng = np.random.default_rng(7)
        with pm.Model(coords=COORDS) as model:
            rate = mtl.task_coefficients("rate", dims=("clinic", "term"), feature_covariance=mtl.Diagonal())
            zero = mtl.task_coefficients("zero", dims=("clinic", "term"), task_covariance=mtl.LKJ())
            x = np.column_stack([np.ones(6), rng.standard_normal(6)])
            at = np.array([0, 0, 1, 1, 2, 2])
            mu, psi = pm.math.exp((x * rate[at]).sum(1)), pm.math.sigmoid((x * zero[at]).sum(1))
            pm.NegativeBinomial("y", mu=mu, alpha=0.1 + psi, observed=[0, 3, 1, 0, 2, 5])
        assert {"rate_mean", "zero_mean", "rate", "zero", "zero_task_corr", "zero_factor"} <= {
            *model.named_vars,
            *model.coords,
        }
        evaluator = contracts.Evaluator(model)
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(model)
        contracts.assert_finite_at_the_start(evaluator)
        point = evaluator.random_point(rng)
        contracts.assert_every_element_moves_the_data_term(evaluator, point)
        contracts.assert_gradient_is_the_slope(evaluator, point, rng)

    def test_mean_given(self):
        mean = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        with pm.Model(coords=COORDS) as model:
            beta = mtl.task_coefficients(
                "beta", dims=("clinic", "term"), mean=mean, priors={"feature_sd": 1e-9}
            )
        assert "beta_mean" not in model.named_vars
        np.testing.assert_allclose(pm.draw(beta, random_seed=1, mode=contracts.MODE), mean, atol=1e-7)

    def test_priors_given(self):
        with pm.Model(coords=COORDS) as model:
            mtl.task_coefficients(
                "b",
                dims=("clinic", "term"),
                priors={"beta_mean": {"dose": mtl.Prior("Normal", mu=3, sigma=1)}, "feature_sd": 2.0},
            )
        mean = model["b_mean"]
        value = mean.type()
        logp = pytensor.function([value], pm.logp(mean, value), mode=contracts.MODE)(np.array([0.5, 3.5]))
        np.testing.assert_allclose(logp, [stats.norm(0, 2.5).logpdf(0.5), stats.norm(3, 1).logpdf(3.5)])
        np.testing.assert_array_equal(model["b_feature_sd"].eval(mode=contracts.MODE), [2.0, 2.0])

    def test_scalar_priors_of_task_sd(self):
        with pm.Model(coords=COORDS) as model:
            mtl.task_coefficients("b", dims=("clinic", "term"), task_sd=True, priors={"task_sd": 2.0})
        np.testing.assert_array_equal(model["b_task_sd"].eval(mode=contracts.MODE), [2.0] * 3)

    @pytest.mark.parametrize(
        ("arguments", "where"),
        [
            ({"dims": ("clinic", "nowhere")}, ["dims ('clinic', 'nowhere')"]),
            ({"priors": {"sigma": 1.0}}, ["prior 'sigma'"]),
            ({"priors": {"feature_sd": -1.0, "beta": 1.0}}, ["prior 'feature_sd'", "prior 'beta'"]),
            (
                {"priors": {"feature_sd": {"x": 1.0}, "task_sd": 1.0}, "independent_features": ("z",)},
                ["prior 'feature_sd'", "independent_features", "prior 'task_sd'"],
            ),
            ({"mean": 0.0, "priors": {"beta_mean": 1.0}}, ["prior 'beta_mean'"]),
        ],
    )
    def test_refused(self, arguments, where):
        with pm.Model(coords=COORDS) as model, pytest.raises(SpecError) as caught:
            mtl.task_coefficients("beta", **({"dims": ("clinic", "term")} | arguments))
        assert [f.where for f in caught.value.findings] == where
        assert not model.free_RVs

    def test_two_blocks_of_one_name_are_refused(self):
        with pm.Model(coords=COORDS):
            mtl.task_coefficients("beta", dims=("clinic", "term"))
            with pytest.raises(ValueError, match="already exists"):
                mtl.task_coefficients("beta", dims=("clinic", "term"))

    def test_nothing_inside_is_refused(self):
        with pm.Model(coords=COORDS), pytest.raises(SpecError, match="no feature inside"):
            mtl.task_coefficients(
                "beta",
                dims=("clinic", "term"),
                task_covariance=mtl.LKJ(),
                independent_features=COORDS["term"],
            )


def test_blocks_without_pooling_do_not_pool():
    with pm.Model(coords={"clinic": list("abc"), "term": ["u", "v"]}) as model:
        mtl.task_coefficients("beta", task_covariance=mtl.NoPooling(), dims=("clinic", "term"))
    assert {v.name for v in model.free_RVs} == {"beta"}
    draws = pm.draw(model["beta"], 4000, random_seed=1, mode="FAST_COMPILE")
    np.testing.assert_allclose(draws.std(axis=0), 10.0, rtol=0.06)
    with (
        pm.Model(coords={"clinic": list("abc"), "term": ["u", "v"]}),
        pytest.raises(SpecError, match="nothing varies under CompletePooling"),
    ):
        mtl.task_coefficients(
            "beta",
            task_covariance=mtl.CompletePooling(),
            dims=("clinic", "term"),
            priors={"feature_sd": 1.0},
        )
