"""Every structure with every feature covariance and every option: the contracts hold."""

import zlib
from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.traversal import explicit_graph_inputs

import bayes_mtl as mtl
from bayes_mtl import errors
from bayes_mtl.model import sampling_model
from bayes_mtl.structures import FeatureCovariance
from tests import contracts

LABELS = [f"t{i}" for i in range(5)]
_similar = np.random.default_rng(1).standard_normal((5, 3))
_edges = {"t0": ["t1", "t2"], "t1": ["t2"], "t3": ["t0"]}  # t4 is alone
_groups = {"t0": "A1", "t1": "A1", "t2": "A2", "A1": "A", "A2": "A", "t3": "B", "t4": "B"}
STRUCTURES = {
    "CompletePooling": mtl.CompletePooling(),
    "NoPooling": mtl.NoPooling(),
    "Exchangeable": mtl.Exchangeable(),
    "LKJ": mtl.LKJ(1.5),
    "LowRank1": mtl.LowRank(1),
    "LowRank2": mtl.LowRank(2),
    "Kernel": mtl.Kernel(_similar @ _similar.T, tasks=LABELS),  # singular
    "Positions": mtl.Kernel(positions={t: (i, i**2) for i, t in enumerate(LABELS)}),
    "Graph": mtl.Graph({**_edges, "t4": []}),
    "Tree": mtl.Tree(_groups, levels=["region", "town"]),
    "SparseBasis": mtl.SparseBasis(2),
    "DisjointBasis": mtl.SparseBasis(2, overlap=False),
    "SparsePrecision": mtl.SparsePrecision(),
    "StudentT": mtl.StudentT(),
    "StudentTLowRank": mtl.StudentT(mtl.LowRank(1), nu="learned"),
    "StudentTLKJ": mtl.StudentT(mtl.LKJ(2)),
}
FEATURE_COVARIANCES = {"LKJ": mtl.LKJ(2.5), "Diagonal": mtl.Diagonal(), "LowRank": mtl.LowRank(1)}
_WITH_LOADINGS = {"Exchangeable": "outside", "LowRank2": "inside"}  # of features: one option each
# What the data bring, and what the description asks for. Together these switch every option on and off.
OPTIONS = {
    "inside": (
        {"shared_features": ["x3"], "weights": "w", "offset": "o"},
        {"independent_features": ()},
        {"task_noise": True},
    ),
    "outside": (
        {"task_features": ["z"], "noise": "s"},
        {"independent_features": ("Intercept",), "task_sd": True},
        {},
    ),
    "scattered": (
        {"shared_features": ["x3"], "task_features": ["z"], "weights": "w", "noise": "s", "offset": "o"},
        {"independent_features": ("x1",)},
        {},
    ),
    "no_intercept": (
        {"shared_features": ["Intercept"], "weights": "w"},
        {"task_sd": True, "independent_features": ("x2",)},
        {"task_noise": True},
    ),
}


def table(n_tasks=3, n_rows=4, seed=0):
    rng = np.random.default_rng(seed)
    n = n_tasks * n_rows
    return pd.DataFrame(
        {
            "task": [f"t{i}" for i in rng.permutation(np.repeat(np.arange(n_tasks), n_rows))],
            "y": 3 + 2 * rng.standard_normal(n),
            "x1": rng.standard_normal(n),
            "x2": 0.3 + 5 * rng.standard_normal(n),
            "x3": rng.standard_normal(n),
            "w": rng.uniform(0.5, 3, n),
            "o": rng.standard_normal(n),
            "s": rng.uniform(0.5, 2, n),
        }
    ).assign(
        z=lambda d: d.task.map(dict(zip(sorted(set(d.task)), rng.standard_normal(n_tasks), strict=True)))
    )


def describe(structure, feature_covariance, option, **table_size):
    columns, asked, noise = OPTIONS[option]
    asked = dict(asked)
    if isinstance(structure, mtl.CompletePooling | mtl.StudentT):
        asked.pop("task_sd", None)
    data = mtl.TaskData.from_table(
        table(**table_size), task="task", outcome="y", features=["x1", "x2"], **columns
    )
    spec = mtl.ModelSpec(
        family=mtl.Gaussian(**noise),
        task_covariance=structure,
        feature_covariance=feature_covariance,
        **asked,
    )
    return spec, data


def combinations():
    """Every other one in the ordinary run, so that each structure meets half of the options there."""
    for i, s in enumerate(STRUCTURES):
        for f in FEATURE_COVARIANCES:
            if s == "CompletePooling" and f == "Diagonal":
                continue  # no feature covariance is used
            if f == "LowRank":
                if s in _WITH_LOADINGS:
                    yield pytest.param(s, f, _WITH_LOADINGS[s], id=f"{s}-{f}")
                continue
            for j, o in enumerate(OPTIONS if f == "LKJ" else ("inside", "outside")):
                marks = pytest.mark.slow if (i + j) % 2 else ()
                yield pytest.param(s, f, o, id=f"{s}-{f}-{o}", marks=marks)


@pytest.mark.parametrize(("structure", "feature_covariance", "option"), list(combinations()))
def test_the_two_paths_are_one_model(structure, feature_covariance, option):
    rng = np.random.default_rng(zlib.crc32(f"{structure}{feature_covariance}{option}".encode()))
    spec, data = describe(STRUCTURES[structure], FEATURE_COVARIANCES[feature_covariance], option)
    collapsed = contracts.Evaluator(mtl.build_model(spec, data, marginal=True))
    latent = contracts.Evaluator(mtl.build_model(spec, data, marginal=False))

    for evaluator in (collapsed, latent):
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(evaluator.model)
    contracts.assert_finite_at_the_start(collapsed)
    if option == "scattered":
        contracts.assert_finite_at_the_start(latent)

    point = collapsed.random_point(rng)
    contracts.assert_every_element_moves_the_data_term(collapsed, point)
    contracts.assert_gradient_is_the_slope(collapsed, point, rng)
    contracts.assert_close(
        collapsed.data_term(point), contracts.dense_log_density(spec, data, collapsed.values(point))
    )
    contracts.assert_collapsed_equals_latent(collapsed, latent, point)
    contracts.assert_latent_law_is_the_reported_one(spec, data, latent, rng)
    contracts.assert_sampling_models_are_the_latent_one(spec, data, latent, rng)
    # Both paths report the same hyperparameters under the same names.
    ours, theirs = collapsed.values(point), latent.values(latent.start | point)
    assert set(theirs) - set(ours) == {"beta"}
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-12, atol=1e-14)
        assert collapsed.model.named_vars_to_dims.get(name) == latent.model.named_vars_to_dims.get(name)


@pytest.mark.parametrize("option", OPTIONS)
def test_tasks_one_after_the_other_are_the_same_model(option, monkeypatch):
    """Coordinates of many related tasks, integrated out, leave the density that the exact algebra gives."""
    monkeypatch.setattr(import_module("bayes_mtl.model.build"), "MAX_JOINT", 0)
    spec, data = describe(mtl.LKJ(1.5), mtl.LKJ(2.5), option)
    chained = sampling_model(spec, data, collapsed=False, rows=data.pseudo_rows)
    assert chained.chained
    evaluator = contracts.Evaluator(chained.model)
    collapsed = contracts.Evaluator(sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows).model)
    rng = np.random.default_rng(11)
    point = collapsed.random_point(rng)
    z = [name for name in evaluator.names if name not in point]
    assert set(z) == {"common_offset", "task_offset"}
    found = contracts.integrated_log_density(evaluator, evaluator.start | point, z)
    contracts.assert_close(found, collapsed.logp(point), 1e-7)
    contracts.assert_gradient_is_the_slope(evaluator, evaluator.random_point(rng) | point, rng)


@pytest.mark.parametrize("n_tasks", [1, 2, 5])
@pytest.mark.parametrize("name", [s for s in STRUCTURES if s != "CompletePooling"])
def test_omega_is_a_correlation_matrix(name, n_tasks):
    contracts.assert_task_covariance_is_a_correlation(STRUCTURES[name], n_tasks)


# By default the intercept stands outside where tasks relate, unless it is the only feature.
EDGES = {
    "one_task": ({"n_tasks": 1, "n_rows": 5}, {"features": ["x1"]}),
    "one_row_per_task": ({"n_tasks": 5, "n_rows": 1}, {"features": []}),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_edges(name, edge):
    size, columns = EDGES[edge]
    data = mtl.TaskData.from_table(table(**size), task="task", outcome="y", **columns)
    spec = mtl.ModelSpec(task_covariance=STRUCTURES[name])
    collapsed = contracts.Evaluator(mtl.build_model(spec, data, marginal=True))
    latent = contracts.Evaluator(mtl.build_model(spec, data, marginal=False))
    contracts.assert_every_free_variable_is_an_ancestor_of_the_data(collapsed.model)
    contracts.assert_every_free_variable_is_an_ancestor_of_the_data(latent.model)
    contracts.assert_finite_at_the_start(collapsed)
    point = collapsed.random_point(np.random.default_rng(1))
    contracts.assert_close(
        collapsed.data_term(point), contracts.dense_log_density(spec, data, collapsed.values(point))
    )
    contracts.assert_collapsed_equals_latent(collapsed, latent, point)


@pytest.mark.parametrize("levels", [2, 3])
def test_a_factor_adds_its_levels_but_one(levels):
    frame = table(n_rows=6).assign(g=lambda d: [f"g{i % levels}" for i in range(len(d))])
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x1", "g"])
    assert data.n_features == 2 + levels - 1
    spec = mtl.ModelSpec(task_covariance=mtl.LowRank(1))
    evaluator = contracts.Evaluator(mtl.build_model(spec, data))
    point = evaluator.random_point(np.random.default_rng(2))
    contracts.assert_close(
        evaluator.data_term(point), contracts.dense_log_density(spec, data, evaluator.values(point))
    )


def rename(structure, new_name):
    """Return the same structure for tasks of other names."""
    if isinstance(structure, mtl.Kernel):
        given = {"matrix": structure.matrix, "positions": structure.positions}
        return mtl.Kernel(**given, tasks=[new_name[t] for t in structure.tasks])
    if isinstance(structure, mtl.Graph):
        return mtl.Graph(structure.adjacency, tasks=[new_name[t] for t in structure.tasks])
    if isinstance(structure, mtl.Tree):
        return mtl.Tree([(new_name.get(c, c), p) for c, p in structure.parents], structure.levels)
    return structure


@pytest.mark.parametrize("name", STRUCTURES)
def test_labels_do_not_matter(name):
    asked = {} if name == "CompletePooling" or name.startswith("StudentT") else {"task_sd": True}
    spec = mtl.ModelSpec(family=mtl.Gaussian(task_noise=True), task_covariance=STRUCTURES[name], **asked)
    frame = table(n_tasks=5)
    order = np.array([3, 0, 4, 2, 1])
    new_name = {f"t{old}": f"t{new}" for new, old in enumerate(order)}
    columns = {"task": "task", "outcome": "y", "features": ["x1"], "task_features": ["z"]}
    data = mtl.TaskData.from_table(frame, **columns)
    relabelled = mtl.TaskData.from_table(frame.assign(task=frame.task.map(new_name)), **columns)
    np.testing.assert_array_equal(relabelled.task_features, data.task_features[order])
    renamed = replace(spec, task_covariance=rename(STRUCTURES[name], new_name))
    contracts.assert_labels_do_not_matter(spec, data, renamed, relabelled, order, np.random.default_rng(3))


def test_every_feature_outside_is_independent_coefficients():
    """Where tasks are not related, taking all features out leaves no correlation of features."""
    data = mtl.TaskData.from_table(table(), task="task", outcome="y", features=["x1"])
    spec = mtl.ModelSpec(independent_features=("Intercept", "x1"))
    evaluator = contracts.Evaluator(mtl.build_model(spec, data))
    point = evaluator.random_point(np.random.default_rng(4))
    assert "feature_corr" not in evaluator.values(point)
    contracts.assert_close(
        evaluator.data_term(point), contracts.dense_log_density(spec, data, evaluator.values(point))
    )


def test_exchangeable_is_the_low_rank_model_without_loadings():
    """LowRank with its column scale at zero is Exchangeable; LKJ with an identity Omega is too."""
    frame = table()
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x1"])
    terms = []
    for structure, fixed in (
        (mtl.Exchangeable(), {}),
        (mtl.LowRank(2), {"task_loadings_scale_log__": np.full(2, -400.0)}),
        (mtl.LKJ(2), {"task_corr_partial_logodds__": np.zeros(3)}),
    ):
        spec = mtl.ModelSpec(
            task_covariance=structure, feature_covariance=mtl.Diagonal(), independent_features=()
        )
        evaluator = contracts.Evaluator(mtl.build_model(spec, data))
        terms.append(evaluator.data_term(evaluator.start | fixed))
    contracts.assert_close(terms[1], terms[0], 1e-12)
    contracts.assert_close(terms[2], terms[0], 1e-12)


def test_the_collapsed_density_of_another_outcome():
    """The observed outcome enters as numbers, any other one as a graph: the same density."""
    spec, data = describe(mtl.LowRank(1), mtl.LKJ(2), "scattered")
    model = mtl.build_model(spec, data)
    evaluator = contracts.Evaluator(model)
    point = evaluator.random_point(np.random.default_rng(8))
    other = np.random.default_rng(9).normal(2, 3, data.n_rows)
    density = model.replace_rvs_by_values([pm.logp(model["y"], pt.vector("other"))])
    inputs = [*model.value_vars, *[v for v in explicit_graph_inputs(density) if v.name == "other"]]
    function = pytensor.function(inputs, density, mode=contracts.MODE, on_unused_input="ignore")
    at = [point[v.name] for v in model.value_vars]
    contracts.assert_close(float(np.sum(function(*at, data.y)[0])), evaluator.data_term(point), 1e-10)
    expected = contracts.dense_log_density(spec, replace(data, y=other), evaluator.values(point))
    contracts.assert_close(float(np.sum(function(*at, other)[0])), expected)


def test_complete_pooling_is_one_regression():
    data = mtl.TaskData.from_table(table(), task="task", outcome="y", features=["x1"])
    evaluator = contracts.Evaluator(
        mtl.build_model(mtl.ModelSpec(task_covariance=mtl.CompletePooling()), data)
    )
    point = evaluator.random_point(np.random.default_rng(5))
    values = evaluator.values(point)
    residual = (data.y - data.X @ values["beta_mean"]) / values["sigma"]
    by_hand = -0.5 * (residual**2).sum() - data.n_rows * np.log(values["sigma"] * np.sqrt(2 * np.pi))
    contracts.assert_close(evaluator.data_term(point), by_hand, 1e-12)


def test_no_pooling_learns_no_scale_and_no_mean():
    data = mtl.TaskData.from_table(table(), task="task", outcome="y", features=["x1"])
    spec = mtl.ModelSpec(task_covariance=mtl.NoPooling(), feature_covariance=mtl.Diagonal())
    assert [v.name for v in mtl.build_model(spec, data).free_RVs] == ["sigma"]


@pytest.mark.parametrize("covariance", list(FEATURE_COVARIANCES.values()))
def test_feature_covariances_know_their_kind(covariance):
    assert isinstance(covariance, FeatureCovariance)
    assert FeatureCovariance.from_dict(covariance.to_dict()) == covariance


@pytest.mark.parametrize("structure", [mtl.Exchangeable(), mtl.Clusters(2)], ids=str)
def test_loadings_of_features_give_their_correlation(structure):
    """In a block of one's own, for a mixture too: R = Lambda Lambda' with a unit diagonal."""
    with pm.Model(coords={"clinic": [1, 2, 3], "term": ["a", "b", "c"]}) as model:
        mtl.task_coefficients(
            "b", task_covariance=structure, feature_covariance=mtl.LowRank(2), dims=("clinic", "term")
        )
    assert model.named_vars_to_dims["b_feature_loadings"] == ("term", "b_feature_factor")
    corr, loadings = pm.draw(
        [model["b_feature_corr"], model["b_feature_loadings"]], random_seed=1, mode="FAST_COMPILE"
    )
    np.testing.assert_allclose(np.diag(corr), 1.0, rtol=1e-12)
    common = loadings @ loadings.T
    np.testing.assert_allclose(corr - np.diag(np.diag(corr)), common - np.diag(np.diag(common)), atol=1e-12)
    assert np.abs(common[0, 1]) > 1e-3


def test_levels_have_loadings_of_features_of_their_own():
    frame = table(n_rows=6).assign(item=lambda d: [f"i{i % 4}" for i in range(len(d))])
    columns = {"features": ["x1", "x2"], "groupings": {"item": ["Intercept", "x1"]}}
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", **columns)
    model = mtl.build_model(mtl.ModelSpec(feature_covariance=mtl.LowRank(1)), data)
    assert model.named_vars_to_dims["feature_loadings"] == ("feature", "feature_factor")
    assert model.named_vars_to_dims["item_feature_loadings"] == ("item_feature", "item_feature_factor")
    contracts.assert_every_free_variable_is_an_ancestor_of_the_data(model)


@pytest.mark.parametrize("rank", [0, -1, 1.5, True, "2"])
def test_low_rank_refuses(rank):
    with pytest.raises(errors.SpecError, match="positive integer"):
        mtl.LowRank(rank)


@pytest.mark.parametrize("eta", [0, -1.0, float("nan"), float("inf"), "2"])
def test_lkj_refuses(eta):
    with pytest.raises(errors.SpecError, match="positive number"):
        mtl.LKJ(eta)


class TestBernoulli:
    """The latent path under the other family."""

    def setup_method(self):
        frame = table(n_rows=5)
        self.frame = frame.assign(y=(frame.y > frame.y.median()).astype(int))

    @pytest.mark.parametrize("weights", [None, "w"])
    def test_log_density(self, weights):
        data = mtl.TaskData.from_table(
            self.frame,
            task="task",
            outcome="y",
            features=["x1"],
            weights=weights,
            offset="o",
        )
        spec = mtl.ModelSpec(family="bernoulli", task_covariance=mtl.LowRank(1))
        latent = contracts.Evaluator(mtl.build_model(spec, data))
        contracts.assert_every_free_variable_is_an_ancestor_of_the_data(latent.model)
        contracts.assert_finite_at_the_start(latent)
        rng = np.random.default_rng(7)
        point = latent.random_point(rng)
        contracts.assert_every_element_moves_the_data_term(latent, point)
        contracts.assert_gradient_is_the_slope(latent, point, rng)
        eta = (data.X * latent.values(point)["beta"][data.task_index]).sum(axis=1) + data.offset
        p = 1 / (1 + np.exp(-eta))
        by_hand = data.weights @ np.where(data.y == 1, np.log(p), np.log1p(-p))
        contracts.assert_close(latent.data_term(point), by_hand, 1e-12)

    def test_single_precision(self):
        """The features are rounded to single precision, and nothing else is."""
        data = mtl.TaskData.from_table(self.frame, task="task", outcome="y", features=["x1"])
        spec = mtl.ModelSpec(family=mtl.Bernoulli(single_precision=True))
        single = contracts.Evaluator(mtl.build_model(spec, data))
        point = single.random_point(np.random.default_rng(1))
        beta = single.values(point)["beta"][data.task_index]
        sign = np.where(data.y == 1, 1.0, -1.0)
        by_hand = {
            kind: -np.logaddexp(0.0, -sign * (data.X.astype(kind) * beta).sum(axis=1)).sum()
            for kind in (np.float32, np.float64)
        }
        contracts.assert_close(single.data_term(point), by_hand[np.float32], 1e-13)
        assert abs(single.data_term(point) - by_hand[np.float64]) > 1e-11

    def test_cannot_be_collapsed(self):
        data = mtl.TaskData.from_table(self.frame, task="task", outcome="y", features=["x1"])
        with pytest.raises(errors.SpecError, match="cannot be integrated out under Bernoulli"):
            mtl.build_model(mtl.ModelSpec(family="bernoulli"), data, marginal=True)


def test_marginal_must_be_known():
    data = mtl.TaskData.from_table(table(), task="task", outcome="y", features=["x1"])
    with pytest.raises(errors.SpecError, match="'auto'"):
        mtl.build_model(mtl.ModelSpec(), data, marginal="yes")
