"""`task_coefficients` beside other people's variables: centered or not, their priors, their submodels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import bayes_mtl as mtl
from bayes_mtl import Prior
from bayes_mtl.errors import SpecError
from bayes_mtl.prior import DISTRIBUTIONS, as_prior
from tests import contracts

COORDS = {"task": list("abcd"), "feature": ["Intercept", "x"]}


def block_and_outcome(centered, *, n=2, structure=None, binary=False, **options):
    """A model of n rows per task under a block."""
    rng = np.random.default_rng(0)
    at, x = np.repeat(np.arange(4), n), rng.standard_normal(4 * n)
    with pm.Model(coords=COORDS) as model:
        beta = mtl.task_coefficients(
            "beta", task_covariance=structure or mtl.Exchangeable(), centered=centered, **options
        )
        eta = beta[at, 0] + beta[at, 1] * x
        if binary:
            pm.Bernoulli("y", logit_p=eta, observed=(x > 0).astype(int))
        else:
            pm.StudentT("y", nu=4, mu=eta, sigma=0.5, observed=x + rng.standard_normal(4 * n))
    return model


STRUCTURES = {
    "Exchangeable": mtl.Exchangeable(),
    "LKJ": mtl.LKJ(),
    "LowRank": mtl.LowRank(1),
    "StudentT": mtl.StudentT(),
}


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_centered_and_not_are_one_model(structure):
    """The densities differ by the Jacobian of the map from one to the other, at every point."""
    rng = np.random.default_rng(1)
    plain, moved = (
        contracts.Evaluator(block_and_outcome(c, structure=structure, n=20)) for c in (True, "auto")
    )
    assert "beta" in plain.names
    assert "beta_offset__" in moved.names
    # Here "auto" is centered, so that both are the same function of beta.
    point = plain.random_point(rng)
    same = {("beta_offset__" if k == "beta" else k): v for k, v in point.items()}
    contracts.assert_close(moved.logp(same), plain.logp(point))
    few = contracts.Evaluator(block_and_outcome("auto", structure=structure))
    far = contracts.Evaluator(block_and_outcome(True, structure=structure))
    for evaluator in (few, far):
        contracts.assert_finite_at_the_start(evaluator)
    # With few rows it is not: a step in the offset moves beta by the scale, and the density as the law says.
    z = few.random_point(rng)
    beta = few.values(z)["beta"]
    other = {("beta" if k == "beta_offset__" else k): v for k, v in z.items()} | {"beta": beta}
    h, size = 1e-6, beta.size
    jacobian = np.empty((size, size))
    for i in range(size):
        unit = np.zeros(size)
        unit[i] = h
        step = {**z, "beta_offset__": z["beta_offset__"] + unit.reshape(beta.shape)}
        jacobian[:, i] = (few.values(step)["beta"] - beta).ravel() / h
    contracts.assert_close(few.logp(z), far.logp(other) + np.linalg.slogdet(jacobian)[1], 1e-6)


@pytest.mark.parametrize(
    ("n", "binary", "centered"),
    [(20, False, True), (19, False, False), (199, True, False), (200, True, True)],
)
def test_auto_counts_the_outcomes_that_depend_on_the_block(n, binary, centered):
    model = block_and_outcome("auto", n=n, binary=binary)
    with model:
        pm.Normal("another", 0.0, 1.0, observed=np.zeros(10_000))  # depends on nothing here
    assert model.rvs_to_transforms[model["beta"]].centered is centered


class TestPriors:
    def sd(self, **priors):
        with pm.Model(coords=COORDS) as model:
            scale = pm.HalfNormal("scale", 3.0)
            beta = mtl.task_coefficients("beta", priors={k: v(scale) for k, v in priors.items()})
        return model, beta

    @pytest.mark.parametrize(
        "given",
        [
            lambda _: pm.HalfNormal.dist(2.0),
            lambda _: SimpleNamespace(distribution="HalfNormal", parameters={"sigma": 2}, create_variable=1),
            lambda _: [Prior("HalfNormal", sigma=2), pm.HalfNormal.dist(2)],
            lambda _: pm.HalfNormal.dist([2.0, 2.0]),
            lambda _: {"x": pm.HalfNormal.dist(2.0), "Intercept": Prior("HalfNormal", sigma=2)},
        ],
        ids=["dist", "pymc_extras", "list", "vector", "mapping"],
    )
    def test_of_others_mean_the_same(self, given):
        model, _ = self.sd(feature_sd=given)
        value = pt.vector()
        found = pm.logp(model["beta_feature_sd"], value).eval({value: [0.3, 4.0]}, mode=contracts.MODE)
        expected = pm.logp(pm.HalfNormal.dist(2.0, shape=2), value).eval(
            {value: [0.3, 4.0]}, mode=contracts.MODE
        )
        np.testing.assert_allclose(found, expected)

    def test_arrays_are_in_the_order_of_features(self):
        model, _ = self.sd(feature_sd=lambda _: np.array([2.0, 0.5]), beta_mean=lambda _: (7.0, -1.0))
        np.testing.assert_array_equal(model["beta_feature_sd"].eval(mode=contracts.MODE), [2.0, 0.5])
        np.testing.assert_array_equal(model["beta_mean"].eval(mode=contracts.MODE), [7.0, -1.0])

    def test_variables_of_the_model_are_used(self):
        model, beta = self.sd(feature_sd=lambda scale: scale, beta_mean=lambda scale: 100 * scale)
        assert {v.name for v in model.free_RVs} == {"scale", "beta_feature_corr_partial", "beta"}
        draws, scale = pm.draw([beta, model["scale"]], 500, random_seed=1, mode="FAST_COMPILE")
        z = (draws - 100 * scale[:, None, None]) / scale[:, None, None]
        assert abs((z**2).mean() - 1) < 5.5 * np.sqrt(2 * 3 / z.size)  # within a task they are correlated

    def test_that_do_not_fit_are_refused_with_the_mapping(self):
        with pytest.raises(
            SpecError, match=r"3 values for 2 features: \{'Intercept': 1.0, 'x': 2.0, \.\.\.\}"
        ):
            self.sd(feature_sd=lambda _: [1.0, 2.0, 3.0])
        with pytest.raises(SpecError, match="not in the model"):
            self.sd(feature_sd=lambda _: pm.HalfNormal.dist(pm.HalfNormal.dist(1.0)))
        with pytest.raises(SpecError, match="cannot be a variable"):
            self.sd(feature_sd_scale=lambda scale: scale)
        with pytest.raises(SpecError, match=r"list of 2, without names.*Name them: \{'feature 1': 1.0"):
            mtl.ModelSpec(priors={"feature_sd": [1.0, 2.0]})
        with pytest.raises(SpecError, match="Variables of a model are for `task_coefficients`"):
            mtl.ModelSpec(priors={"sigma": pm.HalfNormal.dist(pm.HalfNormal.dist(1.0))})

    def test_of_pymc_are_known_in_descriptions(self):
        spec = mtl.ModelSpec(
            priors={"sigma": pm.Exponential.dist(3), "beta_mean": {"x": pm.Normal.dist(0.1)}}
        )
        assert spec.priors["sigma"] == Prior("Exponential", lam=3)
        assert spec.priors["beta_mean"]["x"] == Prior("Normal", mu=0.1, sigma=1)
        assert mtl.ModelSpec.from_toml(spec.to_toml()) == spec

    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_every_distribution_comes_back(self, name):
        """What PyMC makes of a prior is read as a prior with the same density."""
        numbers = {"mu": 0.3, "sigma": 1.7, "nu": 3.3, "alpha": 2.1, "beta": 3.7, "b": 0.7, "s": 0.9}
        numbers |= {"lam": 2.3, "lower": -0.1, "upper": 5.5, "m": 0.2}
        params = {p: numbers[p] for p in DISTRIBUTIONS[name].parameters}
        found = as_prior(getattr(pm, name).dist(**params))
        if name != "ChiSquared":  # a gamma
            assert found == Prior(name, **params)
        one, two = (
            pm.logp(getattr(pm, n).dist(**dict(p)), np.array([0.5, 0.9])).eval(mode=contracts.MODE)
            for n, p in ((name, params), (found.distribution, dict(found.params)))
        )
        np.testing.assert_allclose(one, two, rtol=1e-6)

    def test_a_truncated_normal_has_one_bound_or_two(self):
        with pm.Model(coords=COORDS) as model:
            mtl.task_coefficients(
                "beta", priors={"feature_sd": Prior("TruncatedNormal", mu=1, sigma=0.5, lower=0)}
            )
        assert pm.draw(model["beta_feature_sd"], 200, random_seed=1, mode="FAST_COMPILE").min() > 0
        assert np.isfinite(list(model.point_logps().values())).all()
        with pytest.raises(SpecError, match="`lower` should be below `upper`"):
            Prior("TruncatedNormal", mu=1, sigma=0.5, lower=2, upper=1)
        with pytest.raises(SpecError, match="should live on positive numbers"):
            mtl.ModelSpec(priors={"sigma": Prior("TruncatedNormal", mu=1, sigma=0.5)})


def test_blocks_of_one_name_in_two_submodels_have_their_own_coordinates():
    with pm.Model(coords=COORDS) as model:
        with pm.Model(name="a"):
            mtl.task_coefficients("beta", task_covariance=mtl.LowRank(1), independent_features=())
        with pm.Model(name="b"):
            mtl.task_coefficients("beta", task_covariance=mtl.LowRank(3), independent_features=())
        with pm.Model(name="c"):
            mtl.task_coefficients("beta", task_covariance=mtl.Clusters(2))
    assert len(model.coords["a::beta_factor"]) == 1
    assert len(model.coords["b::beta_factor"]) == 3
    assert pm.draw(model["b::beta_task_loadings"], random_seed=1, mode=contracts.MODE).shape == (4, 3)
    assert {"a::beta", "b::beta", "c::beta"} <= set(model.named_vars)


@pytest.mark.parametrize("name", ["(Intercept)", "const", "1"])
def test_what_may_be_an_intercept_is_asked_about(name):
    with pm.Model(coords={"task": list("abc"), "feature": [name, "x", "z"]}):
        with pytest.raises(SpecError, match="may be an intercept"):
            mtl.task_coefficients("beta", task_covariance=mtl.LKJ())
        mtl.task_coefficients("beta", task_covariance=mtl.LKJ(), independent_features=[name])
        mtl.task_coefficients("other")  # where tasks are not related it does not matter


class TestFeatureScales:
    SPREAD = np.array([2.0, 0.5])

    def block(self, scales, **by):
        with pm.Model(coords={"task": list("abcd"), "feature": ["x", "Intercept", "z"]}) as model:
            sigma = pm.HalfNormal("sigma", 1.0)
            by = mtl.ScaledBy(noise=sigma, rows_per_task=25, **{"features": self.SPREAD, **by})
            beta = mtl.task_coefficients(
                "b",
                feature_scales=scales,
                scaled_by=by,
                priors={"beta_mean": {"Intercept": Prior("Normal", mu=1, sigma=3)}},
                centered=False,
            )
            pm.Normal("y", beta.sum(axis=1), sigma, observed=np.arange(4.0))
        return model

    @pytest.mark.parametrize("scales", [mtl.R2D2M2(), mtl.Horseshoe(task_specific=True)], ids=str)
    def test_every_variable_reaches_the_data(self, scales):
        model = self.block(scales)
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(model)
        evaluator = contracts.Evaluator(model)
        contracts.assert_finite_at_the_start(evaluator)
        rng = np.random.default_rng(0)
        contracts.assert_gradient_is_the_slope(evaluator, evaluator.random_point(rng), rng)

    def test_scales_are_those_of_the_structure(self):
        """feature_sd_j = sigma tau sqrt(phi_(P + j)) / s_j, and the same for the sd of the means."""
        model = self.block(mtl.R2D2M2())
        names = ["sigma", "b_r2", "b_variance_share", "b_feature_sd", "b_mean", "b_mean_offset"]
        found = dict(
            zip(
                names, pm.draw([model[n] for n in names], 50, random_seed=1, mode="FAST_COMPILE"), strict=True
            )
        )
        tau = np.sqrt(found["b_r2"] / (1 - found["b_r2"]))
        size = (found["sigma"] * tau)[:, None] / self.SPREAD
        share = np.sqrt(found["b_variance_share"])
        np.testing.assert_allclose(found["b_feature_sd"][:, [0, 2]], size * share[:, 1], rtol=1e-9)
        mean = size * share[:, 0] * found["b_mean_offset"]
        np.testing.assert_allclose(found["b_mean"][:, [0, 2]], mean, rtol=1e-9)
        assert model.named_vars_to_dims["b_variance_share"] == ("b_term", "b_candidate_feature")

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(SpecError, match=r"positive for each of \['x', 'z'\]"):
            self.block(mtl.R2D2M2(), features=[1.0, 2.0, 3.0])
        with pytest.raises(SpecError, match="needs a FeatureScales and a ScaledBy"):
            self.block("R2D2M2")
        options = {"feature_scales": mtl.R2D2M2(), "scaled_by": mtl.ScaledBy(noise=1.0, rows_per_task=3)}
        with pm.Model(coords=COORDS), pytest.raises(SpecError, match="would not be used"):
            mtl.task_coefficients("b", priors={"feature_sd": {"x": 1.0}}, **options)
