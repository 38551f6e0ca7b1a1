"""More than one grouping: densities and posteriors of crossed and nested effects, against dense algebra."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytest
import xarray as xr
from scipy import stats
from scipy.linalg import eigh
from scipy.stats import multivariate_normal

import bayes_mtl as mtl
from bayes_mtl import Prior, errors
from bayes_mtl.data.groupings import MAX_EFFECTS
from bayes_mtl.inference.hyperdraws import evaluate
from bayes_mtl.inference.level_pilot import level_pilot
from bayes_mtl.inference.recover import from_whitened
from bayes_mtl.kernels.compile import load
from bayes_mtl.model import LEVEL_OFFSET, NOISE_OFFSETS, sampling_model
from tests import contracts

LATENT = ("beta_offset__", "basis_offset", "item_effects_offset__", "area_effects_offset__")


def table(seed=0, n_tasks=5, n_items=4):
    """Tasks crossed with items, and nested in two areas; some cells are empty."""
    rng = np.random.default_rng(seed)
    task, item = (a.ravel() for a in np.meshgrid(np.arange(n_tasks), np.arange(n_items), indexing="ij"))
    keep = rng.permutation(np.repeat(np.arange(len(task)), 2))[: 2 * len(task) - 7]
    task, item = task[keep], item[keep]
    n = len(task)
    frame = pd.DataFrame({"task": task, "item": np.array(list("pqrs"))[item], "area": task % 2})
    frame["x"], frame["z"] = rng.standard_normal(n) + 1, rng.standard_normal(n)
    frame["w"], frame["s"] = rng.uniform(0.5, 2, n), rng.uniform(0.5, 2, n)
    frame["y"] = 3 + rng.standard_normal(n) + frame["x"] + rng.standard_normal(n_items)[item]
    return frame


def crossed(frame=None, *, groupings=None, features=("x",), **options):
    return mtl.TaskData.from_table(
        table() if frame is None else frame,
        task="task",
        outcome="y",
        features=list(features),
        groupings={"item": ["Intercept", "x"], "area": ["Intercept"]} if groupings is None else groupings,
        **options,
    )


FIXED = {
    "beta_mean": {"Intercept": Prior("Normal", mu=2, sigma=3), "x": 0.5},
    "feature_sd": {"Intercept": 0.8, "x": 0.4},
    "item_sd": {"Intercept": 1.5, "x": 0.3},
    "area_sd": 0.7,
    "sigma": 0.9,
}
BOTH = {"item": mtl.Exchangeable(), "area": mtl.Exchangeable()}


def as_assumed(n_tasks=12):
    """Tasks, items and areas that differ as much as `FIXED` says, for every seed."""
    frame, rng = table(n_tasks=n_tasks), np.random.default_rng(5)
    task, item = frame["task"].to_numpy(), frame["item"].map("pqrs".index).to_numpy()

    def effects(n, *sds):
        return np.column_stack([sd * rng.permutation(norm_quantiles(n)) for sd in sds])

    own, by_item = effects(n_tasks // 2, 0.8, 0.4), effects(4, 1.5, 0.3)  # the same in both areas
    eta = own[task // 2] + by_item[item] + [2.0, 0.5]
    frame["y"] = eta[:, 0] + eta[:, 1] * frame["x"] + 0.7 * (2 * frame["area"] - 1)
    frame["y"] += 0.9 * rng.standard_normal(len(frame))
    return frame


def dense_law(data):
    """Mean and covariance of (outcomes, effects of levels, coefficients) under the priors `FIXED`."""
    T, P = data.n_tasks, 2
    C = sum(g.n_effects for g in data.groupings)
    Z = np.zeros((data.n_rows, C))
    variance, used = [], 0
    for g in data.groupings:
        sd = FIXED[f"{g.name}_sd"]
        for i in range(data.n_rows):
            for p, x in enumerate(g.X[i]):
                Z[i, used + g.index[i] * len(g.features) + p] = x
        variance += [(sd[f] if isinstance(sd, dict) else sd) ** 2 for _ in g.levels for f in g.features]
        used += g.n_effects
    B = np.zeros((data.n_rows, T * P))
    for i, t in enumerate(data.task_index):
        B[i, t * P : (t + 1) * P] = data.X[i]
    cov_beta = np.kron(np.eye(T), np.diag([0.8**2, 0.4**2])) + np.kron(np.ones((T, T)), np.diag([9.0, 0.0]))
    design = np.vstack([np.hstack([Z, B]), np.eye(C + T * P)])
    cov = np.zeros((C + T * P, C + T * P))
    cov[:C, :C], cov[C:, C:] = np.diag(variance), cov_beta
    mean = np.concatenate([np.zeros(C), np.tile([2.0, 0.5], T)])
    sigma = 0.9 if data.noise is None else data.noise
    law = design @ cov @ design.T
    n = data.n_rows
    law[:n, :n] += np.diag(sigma**2 / data.weights * np.ones(n))
    return design @ mean, law, n, C


OPTIONS = {
    "plain": {},
    "weights": {"weights": "w"},
    "known noise": {"noise": "s"},
    "collinear with the task": {"groupings": {"area": ["Intercept"], "item": ["x", "Intercept"]}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_densities_are_that_of_all_rows_at_once(options):
    data = crossed(**options)
    priors = {k: v for k, v in FIXED.items() if k != "sigma" or data.noise is None}
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=priors, groupings=BOTH)
    mean, law, n, _ = dense_law(data)
    expected = multivariate_normal(mean[:n], law[:n, :n]).logpdf(data.y - data.offset)
    rows, levels = level_pilot(spec, data)
    for model in (
        mtl.build_model(spec, data, marginal=False),
        mtl.build_model(spec, data),
        sampling_model(spec, data, collapsed=True, rows=rows, levels=levels).model,
        sampling_model(spec, data, collapsed=False, rows=rows, levels=levels).model,
    ):
        evaluator = contracts.Evaluator(model)
        found = contracts.integrated_log_density(evaluator, evaluator.start, evaluator.names)
        contracts.assert_close(found, expected, 1e-8)


def test_the_posterior_is_exact():
    """What is sampled, and what is recovered after it, has the dense posterior's mean and covariance."""
    data = crossed(as_assumed())
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=FIXED, groupings=BOTH)
    rows, levels = level_pilot(spec, data)
    assembled = sampling_model(spec, data, collapsed=True, rows=rows, levels=levels)
    evaluator = contracts.Evaluator(assembled.model)
    assert evaluator.names == [LEVEL_OFFSET]
    mean, law, n, C = dense_law(data)
    gain = law[n:, :n] @ np.linalg.inv(law[:n, :n])
    expected, covariance = mean[n:] + gain @ (data.y - mean[:n]), law[n:, n:] - gain @ law[:n, n:]

    unit = np.eye(C)
    at = lambda z: evaluator.logp({LEVEL_OFFSET: z})  # noqa: E731
    middle = at(np.zeros(C))
    slope = np.array([at(e) - at(-e) for e in unit]) / 2
    precision = -np.array([[at(a + b) - at(a) - at(b) + middle for a in unit] for b in unit])
    z_mean = np.linalg.solve(precision, slope)
    # z = C'(gamma - m) with C C' = V^-1 + H, where the pilot says what H is: nearly standard normal if it is
    # about right.
    told = np.linalg.inv(law[n : n + C, n : n + C]) + levels.information
    spectrum = eigh(np.linalg.inv(covariance[:C, :C]), told, eigvals_only=True)
    np.testing.assert_allclose(np.linalg.eigvalsh(precision), spectrum, rtol=1e-6)
    assert 0.3 < spectrum.min() < spectrum.max() < 3  # of 200 such tables .50 to 2.2

    z = np.stack([z_mean, *(z_mean + unit)])
    draws = xr.Dataset(
        {LEVEL_OFFSET: (("chain", "draw", "effect"), z[None])}, {"chain": [0], "draw": range(C + 1)}
    )
    _, hyper = evaluate(assembled, draws, data)
    np.testing.assert_allclose(hyper.levels[0], expected[:C], rtol=0, atol=1e-8)
    map_ = hyper.levels[1:] - hyper.levels[0]
    np.testing.assert_allclose(
        map_.T @ np.linalg.inv(precision) @ map_, covariance[:C, :C], rtol=0, atol=1e-8
    )
    zeros = np.zeros((C + 1, len(assembled.population.column))), np.zeros((C + 1, data.n_tasks, 2))
    beta = from_whitened(assembled, hyper, rows, *zeros).beta.reshape(C + 1, -1)
    np.testing.assert_allclose(beta[0], expected[C:], rtol=0, atol=1e-8)
    # d E(beta | gamma) = Cov(beta, gamma) Var(gamma)^-1 d gamma
    slope = covariance[C:, :C] @ np.linalg.inv(covariance[:C, :C])
    np.testing.assert_allclose(beta[1:] - beta[0], map_ @ slope.T, rtol=0, atol=1e-7)


STRUCTURES = {
    "exchangeable": mtl.Exchangeable(),
    "low rank": mtl.LowRank(1),
    "free": mtl.LKJ(2.0),
    "graph": mtl.Graph({"p": ["q"], "q": ["r", "s"]}),
    "robust": mtl.StudentT(mtl.LowRank(1), nu=4.0),
}


@pytest.mark.parametrize("levels", STRUCTURES)
def test_all_models_are_the_same_posterior(levels, monkeypatch):
    """Plain, collapsed, whitened, one task after the other (`LKJ` over tasks); one noise, or one per task."""
    monkeypatch.setattr(import_module("bayes_mtl.model.build"), "MAX_JOINT", 4)
    data = crossed(table(n_tasks=4, n_items=3), groupings={"item": ["Intercept", "x"]})
    tasks = {"exchangeable": mtl.LowRank(1), "free": mtl.LKJ(2.0)}.get(levels, mtl.Exchangeable())
    spec = mtl.ModelSpec(
        task_covariance=tasks,
        groupings={"item": STRUCTURES[levels]},
        family=mtl.Gaussian(task_noise=not tasks.relates_tasks),
        priors={"beta_mean": Prior("StudentT", nu=3, mu=0, sigma=3)} if levels == "graph" else {},
    )
    rows, pilot = level_pilot(spec, data)
    models = (
        mtl.build_model(spec, data, marginal=False),
        mtl.build_model(spec, data),
        sampling_model(spec, data, collapsed=False, rows=rows, levels=pilot).model,
        sampling_model(spec, data, collapsed=True, rows=rows, levels=pilot).model,
    )
    evaluators = [contracts.Evaluator(model) for model in models]
    gaussian = (*LATENT, *(() if levels == "graph" else ("beta_mean_scaled__",)))
    hyper = {n for n in evaluators[0].names if n not in gaussian} | set(NOISE_OFFSETS)
    rng = np.random.default_rng(1)
    start = evaluators[3].start
    there = {n: v + 0.4 * rng.standard_normal(v.shape) for n, v in start.items() if n in hyper}
    point, log_jacobian = contracts.with_natural_noise(evaluators[3], start | there)
    point = {n: v for n, v in point.items() if n in hyper}
    assert all(set(evaluator.names) >= set(point) for evaluator in evaluators[:2])
    found = []
    for evaluator, at, beside in zip(
        evaluators, (point, point, there, there), (log_jacobian, log_jacobian, 0.0, 0.0), strict=True
    ):
        offsets = [n for n in evaluator.names if n not in at]
        found.append(contracts.integrated_log_density(evaluator, at, offsets) + beside)
    for value in found[1:]:
        contracts.assert_close(value, found[0], 1e-7)


def test_every_hyperparameter_reaches_the_likelihood():
    for family in ("gaussian", "bernoulli"):
        frame = table()
        if family == "bernoulli":
            frame["y"] = (frame["y"] > frame["y"].mean()).astype(int)
        data = crossed(frame)
        spec = mtl.ModelSpec(family=family, groupings={"item": mtl.LowRank(1)})
        model = mtl.build_model(spec, data)
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(model)
        evaluator = contracts.Evaluator(model)
        contracts.assert_finite_at_the_start(evaluator)
        rng = np.random.default_rng(1)
        contracts.assert_every_element_moves_the_data_term(evaluator, evaluator.random_point(rng))
        rows, levels = level_pilot(spec, data)
        sampled = sampling_model(spec, data, collapsed=family == "gaussian", rows=rows, levels=levels).model
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(sampled)
        evaluator = contracts.Evaluator(sampled)
        contracts.assert_gradient_is_the_slope(evaluator, evaluator.random_point(rng), rng)


def test_other_outcomes_have_their_own_density():
    """`pm.observe` and the like: the density is that of the outcome which is asked for."""
    data = crossed()
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=FIXED, groupings=BOTH)
    model = mtl.build_model(spec, data)
    other = data.y + 0.1 * np.cos(np.arange(data.n_rows))
    by_hand = contracts.Evaluator(mtl.build_model(spec, replace(data, y=other)))
    point = by_hand.random_point(np.random.default_rng(0))
    density = model.replace_rvs_by_values([pm.logp(model["y"], other).sum()])
    function = pytensor.function(model.value_vars, density, mode=contracts.MODE)
    (found,) = function(*(point[v.name] for v in model.value_vars))
    contracts.assert_close(float(found), by_hand.data_term(point))


def test_coordinates_are_those_of_one_task():
    """The kernel for one vector of effects, and its reverse, against that for the coefficients of tasks."""
    rng = np.random.default_rng(3)
    n = 5
    sd, z = rng.uniform(0.3, 2, n), rng.standard_normal(n)
    correlation = np.linalg.cholesky(np.cov(rng.standard_normal((n, 20))))
    root, target = np.triu(rng.standard_normal((n, n))), rng.standard_normal(n)
    own, none = np.arange(n), np.zeros(0, dtype=int)
    law = [
        sd,
        correlation,
        np.zeros((1, 0)),
        np.ones(1),
        np.ones(1),
        np.zeros((1, n)),
        np.ones(0),
        np.zeros(0),
        z[None],
    ]
    rows = [root[:, :, None], target[:, None], own, own, none, np.zeros((0, 1))]
    value, beta, alpha = np.empty(1), np.empty((1, n)), np.empty(0)
    load("_whitening:forward")(*law, *rows, value, beta, alpha)
    cotangent, weight = np.array([0.7]), rng.standard_normal((1, n))
    expected = [np.empty_like(x) for x in law]
    load("_whitening:reverse")(*law, *rows, cotangent, weight, alpha, *expected)

    about = [sd, correlation, z, root.T @ root, root.T @ target]
    found, gamma = np.empty(1), np.empty(n)
    forward, reverse = load("_joint_whitening:forward"), load("_joint_whitening:reverse")
    forward(*about, found, gamma)
    np.testing.assert_allclose(found, value, rtol=1e-12)
    np.testing.assert_allclose(gamma, beta[0], rtol=1e-11)
    slopes = [np.empty_like(x) for x in about[:3]]
    reverse(*about, cotangent, weight[0], *slopes)
    for one, two in zip(slopes, (expected[0], expected[1], expected[8][0]), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-10)
    for bad in ([sd * np.inf, *about[1:]], [sd, correlation, z + np.nan, *about[3:]]):
        forward(*bad, found, gamma)
        reverse(*bad, cotangent, weight[0], *slopes)
        assert found[0] == -np.inf
        assert not np.any(gamma)
        assert not any(s.any() for s in slopes)


# --- tables


def findings(frame=None, **options):
    with pytest.raises(errors.DataError) as caught:
        crossed(frame, **options)
    return {f.where: f.problem for f in caught.value.findings}


def test_everything_wrong_with_groupings_is_said_at_once():
    frame = table()
    frame["one"], frame["each"], frame["again"] = "a", range(len(frame)), frame["task"].map(str)
    frame["gap"] = frame["item"].where(frame["item"] != "p")
    frame["real"] = frame["x"]
    found = findings(
        frame, groupings={"one": ["Intercept"], "each": ["Intercept"], "again": ["nothing"], "gap": ["x"],
                          "real": ["Intercept"]}
    )  # fmt: skip
    assert "one level only ('a')" in found["grouping 'one'"]
    assert "a level of its own for every row" in found["grouping 'each'"]
    assert "divides the rows as the task does" in found["grouping 'again'"]
    assert "labels are missing" in found["column 'gap'"]
    assert "should hold text or integers as labels, found ['float']" in found["column 'real'"]
    assert set(findings(frame, groupings=["itme"])) == {"column 'itme'"}
    assert "names ['nothing']" in findings(frame, groupings={"item": ["nothing"]})["grouping 'item'"]


@pytest.mark.parametrize(
    ("groupings", "where", "problem"),
    [
        ("item", "groupings", "should be a list of columns, found the text 'item'"),
        ({"item": "x"}, "groupings 'item'", "should be a list of features, found 'x'"),
        ({"item": []}, "groupings 'item'", "has no feature"),
        (["item", "item"], "groupings", "repeats ['item']"),
        (["task"], "grouping 'task'", "is also the task column"),
        (["y"], "grouping 'y'", "is also the outcome column"),
        (["feature"], "grouping 'feature'", "would give the fit a second 'feature'"),
        (["a/b"], "grouping 'a/b'", "has '/' in its name"),
    ],
)
def test_arguments_that_make_no_sense(groupings, where, problem):
    frame = table().rename(columns={"z": "feature"}).assign(**{"a/b": "u"})
    assert problem in findings(frame, groupings=groupings)[where]


def test_too_many_effects_are_refused_with_advice():
    n = MAX_EFFECTS + 1
    frame = pd.DataFrame({"task": np.tile([0, 1], n), "who": np.repeat(np.arange(n), 2)})
    frame["y"] = np.random.default_rng(0).standard_normal(len(frame))
    with pytest.raises(errors.DataError, match="Make the factor with the most levels the task"):
        mtl.TaskData.from_table(frame, task="task", outcome="y", groupings=["who"])


def test_rows_keep_their_levels():
    frame = table()
    data = crossed(frame)
    item, area = data.groupings
    assert (item.features, item.levels, area.levels) == (("Intercept", "x"), tuple("pqrs"), (0, 1))
    assert [item.levels[i] for i in item.index] == frame["item"].iloc[data.row].tolist()
    np.testing.assert_array_equal(item.X[:, 1], frame["x"].iloc[data.row])
    gamma = np.arange(10.0)
    expected = gamma[2 * item.index] + gamma[2 * item.index + 1] * item.X[:, 1] + gamma[8 + area.index]
    np.testing.assert_allclose(data.levels.times(gamma), expected)
    np.testing.assert_allclose(data.all_columns @ np.r_[np.zeros(2), gamma], expected)
    arrays = mtl.TaskData.from_arrays(
        frame[["x"]], frame["y"], frame["task"], groupings={"item": frame["item"]}
    )
    assert arrays.groupings[0].levels == item.levels
    assert arrays.groupings[0].features == ("Intercept",)
    few = data.subset(frame["item"].isin(["p", "r"]).to_numpy())
    assert few.groupings[0].levels == ("p", "r")
    assert "by 'item' (4 levels): Intercept, x" in repr(data)
    lost = frame.assign(x=frame["x"].where(frame["item"] != "q"))
    with pytest.warns(errors.DataWarning, match="altogether the level 'q' of 'item'"):
        assert crossed(lost, missing="drop").groupings[0].levels == ("p", "r", "s")
    again = type(data.schema).from_dict(data.schema.to_dict())
    assert again == data.schema


def test_outcome_columns_may_be_the_tasks():
    frame = table().drop_duplicates(["task", "item"]).assign(v=lambda f: -f["y"] + f["z"])
    data = mtl.TaskData.from_table(frame, outcomes=["y", "v"], features=["x"], groupings=["item"])
    assert data.tasks == ("v", "y")
    assert len(data.groupings[0].index) == 2 * len(frame)


# --- descriptions


def test_descriptions_with_groupings(tmp_path):
    priors = {"item_sd": {"x": Prior("HalfNormal", sigma=0.2)}}
    spec = mtl.ModelSpec(groupings={"item": mtl.LowRank(1), "area": mtl.Exchangeable()}, priors=priors)
    assert mtl.ModelSpec.from_toml(spec.to_toml()) == spec
    assert spec.findings(crossed()) == []
    assert mtl.ModelSpec.from_dict({"groupings": {"item": "LowRank"}}).groupings == {"item": mtl.LowRank()}
    model = mtl.build_model(spec, crossed())
    for name, dims in {
        "item_effects": ("item", "item_feature"),
        "item_sd": ("item_feature",),
        "item_corr": ("item", "item_bis"),
        "area_effects": ("area", "area_feature"),
    }.items():
        assert model.named_vars_to_dims[name] == dims
    wrong = {
        "is a mixture": {"groupings": {"item": mtl.Clusters(2)}},
        "is CompletePooling": {"groupings": {"item": mtl.CompletePooling()}},
        "should be a TaskCovariance": {"groupings": {"item": 3}},
        "should be a Mapping": {"groupings": ["item"]},
        "prior 'item_sd': is not a parameter": {"priors": {"item_sd": 1.0}},
        "should be positive": {"groupings": {"item": mtl.LKJ()}, "priors": {"item_sd": -1.0}},
    }
    for problem, options in wrong.items():
        with pytest.raises(errors.SpecError, match=problem):
            mtl.ModelSpec(**options)


def test_descriptions_that_do_not_fit_the_data():
    spec = mtl.ModelSpec(
        task_covariance=mtl.Clusters(2),
        groupings={"item": mtl.Graph({"p": ["q"]}), "shop": mtl.LKJ()},
        priors={"shop_sd": 1.0, "item_sd": {"z": 1.0}},
    )
    problems = "\n".join(map(str, spec.findings(crossed())))
    for problem in (
        "grouping 'shop': is not a grouping of the data. The data have: item, area",
        "grouping 'item', Graph: does not know",
        "beside which groupings are not possible",
        "prior 'shop_sd': would not be used",
        "prior 'item_sd': names 'z'",
    ):
        assert problem in problems


# --- fits


SLOPE = 0.5


@pytest.fixture(scope="module")
def items_fit():
    """Sixty persons answer twelve items; items differ, and how much `x` matters differs by item."""
    rng = np.random.default_rng(11)
    person, item = (a.ravel() for a in np.meshgrid(np.arange(60), np.arange(12), indexing="ij"))
    truth = np.column_stack([s * rng.permutation(norm_quantiles(12)) for s in (1.2, 0.6)])
    ability, x = 0.8 * rng.permutation(norm_quantiles(60)), rng.standard_normal(len(item))
    eta = ability[person] + truth[item, 0] + (SLOPE + truth[item, 1]) * x
    table = pd.DataFrame({"person": person, "item": np.array(list("abcdefghijkl"))[item], "x": x})
    table["yes"] = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    data = mtl.TaskData.from_table(
        table,
        task="person",
        outcome="yes",
        shared_features=["x"],
        groupings={"item": ["Intercept", "x"]},
    )
    spec = mtl.ModelSpec("bernoulli", groupings={"item": mtl.LowRank(1)}, independent_features=())
    return table, data, mtl.fit(data, spec, draws=4000, chains=2, random_seed=1, progressbar=False), truth


def test_items_and_persons(items_fit):
    _, _, idata, truth = items_fit
    posterior = idata["posterior"]
    assert int(idata["sample_stats"]["diverging"].sum()) == 0
    assert not mtl.diagnose(idata).problems
    assert float(idata["sample_stats"]["n_steps"].mean()) < 12  # coordinates are nearly standard normal
    furthest = stats.norm.isf(1e-7 / 56)  # 28 numbers: by chance once in 10 million runs
    for name, expected in {
        "item_sd": truth.std(axis=0),
        "feature_sd": [0.8],
        "beta_shared": [SLOPE],
        "item_effects": truth,
    }.items():
        z = (posterior[name].mean(("chain", "draw")) - expected) / posterior[name].std(("chain", "draw"))
        assert float(np.abs(z).max()) < furthest, name
    assert posterior["item_effects"].dims[2:] == ("item", "item_feature")
    assert posterior["item_feature"].to_numpy().tolist() == ["Intercept", "x"]


def test_prior_draws_have_the_law_of_the_prior(items_fit):
    prior = items_fit[2]["prior"]
    assert set(prior.data_vars) == set(items_fit[2]["posterior"].data_vars)
    white = (prior["item_effects"] / prior["item_sd"]).isel(item=5, item_feature=0).to_numpy().ravel()
    assert stats.kstest(white, stats.norm.cdf).pvalue > 1e-7
    product = (prior["item_effects"].sel(item="a") * prior["item_effects"].sel(item="b")).isel(item_feature=1)
    scaled = product / prior["item_sd"].isel(item_feature=1) ** 2
    expected = prior["item_corr"].sel(item="a", item_bis="b")
    assert float((scaled - expected).mean()) == pytest.approx(0.0, abs=6 * float(scaled.std()) / 1000**0.5)


def test_what_is_reported_of_levels(items_fit, tmp_path):
    _, data, idata, _ = items_fit
    draw = idata["posterior"].to_dataset().isel(chain=1, draw=17)
    item = data.groupings[0]
    eta = (data.X * draw["beta"].to_numpy()[data.task_index]).sum(axis=1)
    eta += data.X_shared @ draw["beta_shared"].to_numpy()
    eta += (draw["item_effects"].to_numpy()[item.index] * item.X).sum(axis=1)
    expected = -np.logaddexp(0, np.where(data.y == 1, -eta, eta))
    found = idata["log_likelihood"]["y"].isel(chain=1, draw=17)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert {"item_sd[Intercept]", "item_sd[x]"} <= set(mtl.summary(idata).index)
    assert "item_effects[a, x]" in mtl.summary(idata, coefficients=True).index
    pairs = mtl.task_correlation(idata, grouping="item")
    assert pairs.sizes["pair"] == 66
    assert mtl.task_correlation(idata, "coefficients", grouping="item").attrs["n_replicates"] == 2
    with pytest.raises(errors.SpecError, match=r"'shop' is not a grouping of this fit\. Groupings: item"):
        mtl.task_correlation(idata, grouping="shop")
    with pytest.raises(errors.SpecError, match="not for groupings"):
        mtl.task_correlation(idata, "functions", grouping="item")
    again = mtl.load(mtl.save(idata, tmp_path / "fit.nc"))
    for group in ("posterior", "log_likelihood", "constant_data"):
        xr.testing.assert_allclose(again[group].to_dataset(), idata[group].to_dataset())
    rows = pd.DataFrame({"person": [3, 999], "item": ["b", "b"], "x": [1.0, 0.0]})
    one, two = (mtl.predict(f, rows.head(1))["predictions"]["y"] for f in (idata, again))
    np.testing.assert_allclose(one, two)


def test_levels_of_new_rows(items_fit):
    table, data, idata, _ = items_fit
    posterior = idata["posterior"]
    found = mtl.predict(idata, table.head(30))["predictions"]["y"]
    rows = [data.row.tolist().index(i) for i in range(30)]
    log_density = idata["log_likelihood"]["y"].to_numpy()[..., rows]
    np.testing.assert_allclose(np.where(table["yes"].head(30) == 1, found, 1 - found), np.exp(log_density))

    new = pd.DataFrame(
        {"person": [3, 3, 3, 3], "item": ["a", "new", "new", "other"], "x": [0.0, 0.0, 1.0, 0.0]}
    )
    with pytest.raises(errors.PredictionError) as caught:
        mtl.predict(idata, new.assign(person=1000).drop(columns="x").assign(x=0.0))
    assert {f.where for f in caught.value.findings} == {"column 'person'", "column 'item'"}
    assert "levels that the model does not know: 'new', 'other'" in str(caught.value)
    with pytest.raises(errors.PredictionError, match="the model knows int"):
        mtl.predict(idata, new.assign(person="3"), new_tasks="population")
    p = mtl.predict(idata, new, new_tasks="population", random_seed=2)["predictions"]["y"].to_numpy()
    eta = np.log(p) - np.log1p(-p)
    own = posterior["beta"].sel(task=3).to_numpy()[..., 0]
    known = posterior["item_effects"].sel(item="a", item_feature="Intercept").to_numpy()
    np.testing.assert_allclose(eta[..., 0], own + known, rtol=1e-9)
    deviation = np.stack([eta[..., 1], eta[..., 3], eta[..., 2] - eta[..., 1]], axis=-1)
    deviation -= np.stack([own, own, posterior["beta_shared"].to_numpy()[..., 0]], axis=-1)
    sd = posterior["item_sd"].to_numpy()
    white = deviation / sd[..., [0, 0, 1]]
    for i in range(3):  # a new level has a draw of its own, the same in all of its rows
        assert stats.kstest(white[..., i].ravel(), stats.norm.cdf).pvalue > 1e-7
    between = np.corrcoef(white.reshape(-1, 3).T)
    assert abs(between[0, 1]) < 6 / 8000**0.5
    expected = second_moments_of_a_new_level(posterior, sd)
    expected /= np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert between[0, 2] == pytest.approx(expected[0, 1], abs=6 / 8000**0.5)


def second_moments_of_a_new_level(posterior, sd):
    """Return E[z z'] of a new level's effects over `sd`, under one factor.

    z = l b + sqrt(1 - l^2) e with e ~ N(0, R), l = a / sqrt(1 + a^2), a ~ N(0, c^2) and the vector b, which
    effects u of known levels (loadings l_i, own sd d_i) reveal: b ~ N(m, R / k), k = 1 + sum l_i^2 / d_i^2
    and m = sum l_i u_i / d_i^2 / k.
    """
    u = posterior["item_effects"].to_numpy() / sd[..., None, :]
    loading, own = posterior["item_loadings"].to_numpy()[..., 0], posterior["item_unique_sd"].to_numpy()
    c, R = posterior["item_loadings_scale"].to_numpy(), posterior["item_feature_corr"].to_numpy()
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    a = c * points
    squared = ((a**2 / (1.0 + a**2)) @ (weights / weights.sum()))[..., None, None]
    k = 1.0 + (loading**2 / own**2).sum(axis=-1)
    m = ((loading / own**2)[..., None] * u).sum(axis=-2) / k[..., None]
    revealed = m[..., :, None] * m[..., None, :] + R / k[..., None, None]
    return (squared * revealed + (1.0 - squared) * R).mean(axis=(0, 1))


def norm_quantiles(n):
    """Return n numbers of mean zero and variance one, spread as those of a normal distribution."""
    found = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return found / found.std()


@pytest.mark.slow
def test_crossed_and_nested_variances_are_recovered():
    """A Gaussian table whose levels are known well: both variances, and few steps for every draw."""
    school = np.repeat(np.arange(40), 30)
    rng = np.random.default_rng(7)
    region, year = school % 8, rng.permuted(np.tile(np.arange(15), (40, 2)), axis=1).ravel()
    normal = [norm_quantiles(n) for n in (40, 8, 15)]
    effects = {"region": 0.9 * rng.permutation(normal[1]), "year": 1.4 * rng.permutation(normal[2])}
    own = 0.6 * rng.permutation(normal[0])
    # Least squares of these rows are exact: what is left of them has no part in any level, and its variance.
    levels = np.column_stack([np.equal.outer(school, np.arange(40)), np.equal.outer(year, np.arange(15))])
    left = rng.standard_normal(len(school))
    left -= levels @ np.linalg.lstsq(levels.astype(float), left, rcond=None)[0]
    left *= 0.3 * np.sqrt((len(left) - 54) / (left @ left))
    y = 5 + own[school] + effects["region"][region] + effects["year"][year] + left
    data = mtl.TaskData.from_arrays(
        np.zeros((len(y), 0)), y, school, groupings={"region": region, "year": year}
    )
    idata = mtl.fit(data, draws=4000, chains=2, random_seed=1, progressbar=False)
    posterior = idata["posterior"]
    assert not mtl.diagnose(idata).problems
    assert float(idata["sample_stats"]["n_steps"].mean()) < 8
    truth = {"feature_sd": 0.6, "sigma": 0.3} | {f"{g}_sd": e.std() for g, e in effects.items()}
    for name, expected in truth.items():
        z = (posterior[name].mean(("chain", "draw")) - expected) / posterior[name].std(("chain", "draw"))
        assert float(np.abs(z).max()) < 1.5, name
    # Differences of years are as good as known.
    found = posterior["year_effects"].mean(("chain", "draw")).to_numpy()[:, 0]
    away = (found - found.mean()) - (effects["year"] - effects["year"].mean())
    assert np.abs(away).max() < 0.3 / np.sqrt(len(y) / 15)
