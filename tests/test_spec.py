"""Descriptions: what is refused, and that nothing is lost on the way to a file and back."""

import re
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayes_mtl as mtl
from bayes_mtl.errors import SpecError
from bayes_mtl.prior import DISTRIBUTIONS
from bayes_mtl.spec import PRIOR_NAMES

finite = st.floats(-1e6, 1e6, allow_nan=False)
positive = st.floats(1e-6, 1e6)
feature_names = st.text(min_size=1, max_size=8).filter(lambda s: s != "distribution")


@st.composite
def priors(draw, support=None):
    names = [n for n, d in DISTRIBUTIONS.items() if support is None or d.support == support]
    name = draw(st.sampled_from(names))
    shape = DISTRIBUTIONS[name]
    if name == "Uniform":
        lower = draw(finite)
        return mtl.Prior(name, lower=lower, upper=lower + draw(st.floats(0.5, 1e6)))
    params = {p: draw(finite) for p in shape.real} | {p: draw(positive) for p in shape.positive}
    return mtl.Prior(name, **params)


@st.composite
def specs(draw):
    entries = {}
    for name, (_, must_be_positive, per_feature) in PRIOR_NAMES.items():
        value = st.one_of(priors("positive"), positive) if must_be_positive else st.one_of(priors(), finite)
        if per_feature:
            value = st.one_of(value, st.dictionaries(feature_names, value, max_size=3))
        if draw(st.booleans()):
            entries[name] = draw(value)
    eta = st.builds(mtl.LKJ, positive)
    return mtl.ModelSpec(
        family=draw(st.sampled_from([mtl.Gaussian(), mtl.Gaussian(task_noise=True), mtl.Bernoulli()])),
        task_covariance=draw(
            st.one_of(
                st.sampled_from([mtl.Exchangeable(), mtl.CompletePooling(), mtl.NoPooling()]),
                eta,
                st.builds(mtl.LowRank, st.integers(1, 50)),
            )
        ),
        feature_covariance=draw(st.one_of(st.just(mtl.Diagonal()), eta)),
        priors=entries,
        independent_features=draw(st.one_of(st.none(), st.lists(feature_names, max_size=3))),
        task_sd=draw(st.booleans()),
    )


class TestRoundTrips:
    @given(prior=priors())
    def test_prior(self, prior):
        assert mtl.Prior.from_dict(prior.to_dict()) == prior
        assert eval(repr(prior), {"Prior": mtl.Prior}) == prior

    @given(spec=specs())
    def test_spec_as_dict_and_toml(self, spec):
        plain = spec.to_dict()
        assert mtl.ModelSpec.from_dict(plain) == spec
        assert tomllib.loads(spec.to_toml()) == plain
        assert mtl.ModelSpec.from_toml(spec.to_toml()) == spec

    @given(one=specs(), two=specs())
    def test_different_descriptions_have_different_dictionaries(self, one, two):
        assert (one == two) == (one.to_dict() == two.to_dict())

    def test_file_and_text(self, tmp_path):
        spec = mtl.ModelSpec(
            family="bernoulli",
            task_covariance=mtl.LowRank(3),
            priors={"beta_mean": {"x 1": mtl.Prior("Laplace", mu=0, b=2), "x2": 0.5}},
        )
        path = tmp_path / "model.toml"
        path.write_text(spec.to_toml(), encoding="utf-8")
        assert mtl.ModelSpec.from_toml(path) == spec
        assert mtl.ModelSpec.from_toml(str(path)) == spec

    def test_text_by_hand(self):
        spec = mtl.ModelSpec.from_toml(
            """
            [model]
            family = "gaussian"
            task_covariance = {name = "lkj", eta = 1}
            feature_covariance = "diagonal"
            independent_features = []
            [model.priors]
            sigma = 2
            feature_sd = {distribution = "HalfNormal", sigma = 1}
            beta_mean = {x = {distribution = "Normal", mu = 0, sigma = 1}, z = 0}
            [fit]
            draws = 10
            """
        )
        assert spec == mtl.ModelSpec(
            task_covariance=mtl.LKJ(1.0),
            feature_covariance=mtl.Diagonal(),
            independent_features=(),
            priors={
                "sigma": 2.0,
                "feature_sd": mtl.Prior("HalfNormal", sigma=1),
                "beta_mean": {"x": mtl.Prior("Normal", mu=0, sigma=1), "z": 0},
            },
        )
        assert mtl.ModelSpec.from_toml("task_sd = true") == mtl.ModelSpec(task_sd=True)

    def test_defaults(self):
        spec = mtl.ModelSpec()
        assert spec == mtl.ModelSpec.from_dict({}) == mtl.ModelSpec.from_toml("\n")
        assert (spec.family, spec.task_covariance) == (mtl.Gaussian(), mtl.Exchangeable())
        assert (spec.feature_covariance, spec.independent_features) == (None, None)
        assert not spec.priors
        assert not spec.task_sd


class TestPrior:
    @pytest.mark.parametrize(
        ("name", "params", "problems"),
        [
            ("Normal", {"mu": 0}, ["`sigma` is missing"]),
            ("Normal", {}, ["`mu` is missing", "`sigma` is missing"]),
            ("Normal", {"mu": 0, "sd": 1}, ["`sigma` is missing", "unknown parameter `sd`"]),
            ("Normal", {"mu": 0, "sigma": -1}, ["`sigma` should be positive, found -1"]),
            ("HalfNormal", {"sigma": 0}, ["`sigma` should be positive, found 0"]),
            (
                "Normal",
                {"mu": float("nan"), "sigma": "1"},
                ["`mu` should be a finite", "`sigma` should be a finite"],
            ),
            ("Normal", {"mu": 0, "sigma": float("inf")}, ["`sigma` should be a finite number, found inf"]),
            ("Normal", {"mu": True, "sigma": 1}, ["`mu` should be a finite number, found True"]),
            ("Uniform", {"lower": 1, "upper": 1}, ["`lower` should be below `upper`"]),
            ("normal", {"mu": 0}, ["unknown distribution"]),
        ],
    )
    def test_refused(self, name, params, problems):
        with pytest.raises(SpecError) as caught:
            mtl.Prior(name, **params)
        assert len(caught.value.findings) == len(problems)
        for finding, problem in zip(caught.value.findings, problems, strict=True):
            assert problem in str(finding)
            assert problem in str(caught.value)

    def test_the_order_of_parameters_does_not_matter(self):
        one, two = mtl.Prior("Normal", mu=1, sigma=2), mtl.Prior("Normal", sigma=2.0, mu=1.0)
        assert one == two
        assert hash(one) == hash(two)

    @pytest.mark.parametrize(
        ("prior", "bound"),
        [
            (mtl.Prior("Normal", mu=0, sigma=1), -np.inf),
            (mtl.Prior("Gamma", alpha=2, beta=1), 0.0),
            (mtl.Prior("Uniform", lower=-3, upper=1), -3.0),
        ],
    )
    def test_lower_bound(self, prior, bound):
        assert prior.lower_bound == bound


def problems_of(build):
    with pytest.raises(SpecError) as caught:
        build()
    for finding in caught.value.findings:
        assert str(finding) in str(caught.value)
    return {f.where: f.problem for f in caught.value.findings}


class TestValidation:
    def test_every_kind_at_once(self):
        found = problems_of(
            lambda: mtl.ModelSpec(
                family=3,
                task_covariance=mtl.Diagonal(),
                feature_covariance="LKJ",
                priors=[],
                task_sd=1,
                independent_features="x",
            )
        )
        assert set(found) == {
            "family",
            "task_covariance",
            "feature_covariance",
            "task_sd",
            "priors",
            "independent_features",
        }

    def test_every_prior_at_once(self):
        real = mtl.Prior("Normal", mu=0, sigma=1)
        found = problems_of(
            lambda: mtl.ModelSpec(
                priors={
                    "beta": real,
                    "feature_sd": {"x": real, "z": mtl.Prior("Uniform", lower=-1, upper=1), "ok": 1.0},
                    "sigma": -1.0,
                    "sigma_spread": real,
                    "beta_mean": "Normal",
                    "beta_shared": float("nan"),
                    "task_feature_effects": float("inf"),
                    "task_sd": {"x": 1.0},
                }
            )
        )
        assert found.keys() == {
            "prior 'beta'",
            "prior 'feature_sd' of 'x'",
            "prior 'feature_sd' of 'z'",
            "prior 'sigma'",
            "prior 'sigma_spread'",
            "prior 'beta_mean'",
            "prior 'beta_shared'",
            "prior 'task_feature_effects'",
            "prior 'task_sd'",
        }
        assert found["prior 'beta'"] == "is not a parameter"
        assert "positive numbers" in found["prior 'feature_sd' of 'x'"]
        assert "should be positive, found -1.0" in found["prior 'sigma'"]
        assert "cannot be given per feature" in found["prior 'task_sd'"]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"famly": "gaussian"}, r"unknown options \['famly'\]"),
            ({"family": "poison"}, "Choose one of: Bernoulli, Gaussian"),
            ({"task_covariance": {"name": "LowRank", "k": 2}}, r"unknown options \['k'\]. It has: rank"),
            ({"task_covariance": {"name": "Exchangeable", "k": 2}}, "It has none"),
            ({"feature_covariance": "Tree"}, "Choose one of: Diagonal, LKJ, LowRank"),
            ({"priors": {"sigma": {"distribution": "HalfNormal"}}}, "`sigma` is missing"),
        ],
    )
    def test_from_dict_refuses(self, values, message):
        with pytest.raises(SpecError, match=message):
            mtl.ModelSpec.from_dict(values)

    def test_frozen(self):
        given_priors = {"beta_mean": {"x": 1.0}}
        spec = mtl.ModelSpec(priors=given_priors)
        given_priors["beta_mean"]["x"] = 2.0
        given_priors["sigma"] = 1.0
        assert spec == mtl.ModelSpec(priors={"beta_mean": {"x": 1.0}})
        with pytest.raises(TypeError):
            spec.priors["sigma"] = 1.0
        with pytest.raises(TypeError):
            spec.priors["beta_mean"]["x"] = 3.0

    def test_which_features_stand_outside(self):
        features = ("Intercept", "x", "z")
        assert mtl.ModelSpec().outside(features) == ()
        for relates in (mtl.LKJ(), mtl.LowRank()):
            assert mtl.ModelSpec(task_covariance=relates).outside(features) == ("Intercept",)
            assert mtl.ModelSpec(task_covariance=relates).outside(("Intercept",)) == ()
            assert mtl.ModelSpec(task_covariance=relates).outside(("x", "z")) == ()
            spec = mtl.ModelSpec(task_covariance=relates, independent_features=["z", "x"])
            assert spec.outside(features) == ("x", "z")
            assert mtl.ModelSpec(task_covariance=relates, independent_features=()).outside(features) == ()


def make_data(*, shared=(), task_features=(), noise=False, features=("x", "z")):
    rng = np.random.default_rng(0)
    n = 12
    table = {name: rng.standard_normal(n) for name in ("x", "z", "v")}
    table |= {
        "y": rng.standard_normal(n),
        "task": ["a", "b", "c"] * 4,
        "s": np.ones(n),
        "q": [1.0, 2.0, 4.0] * 4,
    }
    return mtl.TaskData.from_table(
        table,
        task="task",
        outcome="y",
        features=list(features),
        shared_features=list(shared),
        task_features=list(task_features),
        noise="s" if noise else None,
    )


class TestFindings:
    """What fits the description but not the data."""

    def where(self, spec, data):
        with pytest.raises(SpecError) as caught:
            mtl.build_model(spec, data)
        assert [str(f) for f in caught.value.findings] == [str(f) for f in spec.findings(data)]
        return {f.where: f.problem for f in caught.value.findings}

    def test_nothing_to_find(self):
        everything = dict.fromkeys(PRIOR_NAMES.keys() - {"cluster_sd", "feature_sd_scale"}, 1.0)
        spec = mtl.ModelSpec(family=mtl.Gaussian(task_noise=True), task_sd=True, priors=everything)
        assert spec.findings(make_data(shared=["v"], task_features=["q"])) == []

    def test_all_at_once(self):
        spec = mtl.ModelSpec(
            family="bernoulli",
            task_covariance=mtl.LKJ(),
            priors={
                "sigma": 1.0,
                "sigma_spread": 1.0,
                "beta_shared": 0.0,
                "task_feature_effects": 0.0,
                "task_sd": 1.0,
                "beta_mean": {"w": 0.0, "x": 1.0},
                "feature_sd": {"Intercept": 1.0, "u": 2.0},
            },
            independent_features=("Intercept", "x", "z", "t"),
        )
        found = self.where(spec, make_data(noise=True))
        assert found.keys() == {
            "outcome 'y'",
            "noise",
            "prior 'sigma'",
            "prior 'sigma_spread'",
            "prior 'beta_shared'",
            "prior 'task_feature_effects'",
            "prior 'task_sd'",
            "prior 'beta_mean'",
            "prior 'feature_sd'",
            "independent_features",
        }
        assert "should be 0 or 1" in found["outcome 'y'"]
        assert "'w'" in found["prior 'beta_mean'"]
        assert "'u'" in found["prior 'feature_sd'"]
        about_inside = [f.problem for f in spec.findings(make_data()) if f.where == "independent_features"]
        assert len(about_inside) == 2
        assert re.search("names 't'", about_inside[0])
        assert "no feature inside" in about_inside[1]

    def test_complete_pooling_has_no_scales(self):
        spec = mtl.ModelSpec(task_covariance=mtl.CompletePooling(), task_sd=True, priors={"feature_sd": 1.0})
        assert self.where(spec, make_data()).keys() == {"prior 'feature_sd'", "task_sd"}

    def test_everything_shared(self):
        data = make_data(features=[], shared=["Intercept", "x"])
        assert data.n_features == 0
        found = self.where(mtl.ModelSpec(priors={"beta_mean": 0.0}), data)
        assert found.keys() == {"prior 'beta_mean'", "task_covariance"}
        assert mtl.ModelSpec(task_covariance=mtl.CompletePooling()).findings(data) == []

    def test_noise_known_and_learned(self):
        found = self.where(
            mtl.ModelSpec(family=mtl.Gaussian(task_noise=True), priors={"sigma": 1.0}), make_data(noise=True)
        )
        assert found.keys() == {"Gaussian", "prior 'sigma'"}
