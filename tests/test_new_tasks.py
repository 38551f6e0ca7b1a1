"""Laws of new tasks given what the known ones revealed, on posteriors whose numbers are known.

Distributions are compared by Kolmogorov-Smirnov tests that fail by chance with a probability below 1e-6.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
import xarray as xr
from pytensor.graph.replace import clone_replace
from scipy.stats import chi2, f, gamma, kstest, norm, t

import bayes_mtl as mtl
from bayes_mtl import errors
from bayes_mtl.data.groupings import named
from bayes_mtl.inference.attributes import coefficient_size
from bayes_mtl.structures import KnownTasks
from tests.test_predict import CORR, MEAN, SD, UNIT, frozen, new_task_draws, table

RARE = 1e-6
# The correlation of features with the intercept outside the task covariance.
OUTSIDE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, -0.4], [0.0, -0.4, 1.0]])
POPULATION = {
    "beta_mean": MEAN,
    "feature_sd": SD,
    "feature_corr": CORR,
    "beta": np.zeros((3, 3)),
    "sigma": 1.0,
}
WIDE = np.polynomial.hermite_e.hermegauss(100)


def data():
    return mtl.TaskData.from_table(table(), task="task", outcome="y", features=["x1", "x2"])


def known_tasks(D, n_draws, **variables):
    """Known tasks with the same deviations and variables in every draw."""
    D = np.asarray(D, dtype=float)

    def every(values):
        return np.broadcast_to(values, (n_draws, *np.shape(values)))

    return KnownTasks(
        labels=list(range(len(D))),
        n_draws=n_draws,
        n_features=D.shape[1],
        name=str,
        read=lambda key: every(variables[key]),
        evaluate=lambda _: [],
        deviations=lambda: every(D),
    )


def whitened(draws, corr=CORR):
    """Deviations in units in which features are independent."""
    return np.linalg.solve(np.linalg.cholesky(corr), ((draws - MEAN) / SD).T).T


@pytest.mark.parametrize("nu", [4.0, "learned"])
def test_reliabilities_of_new_tasks_are_drawn_from_their_law(nu):
    """Whatever the known ones are, deviations are multivariate t."""
    spec = mtl.ModelSpec(task_covariance=mtl.StudentT(nu=nu))
    values = POPULATION | {"task_reliability": [0.01, 5.0, 5.0], "nu": 4.0}
    u = whitened(new_task_draws(frozen(data(), spec, **values), UNIT))
    for margin in u.T:
        assert kstest(margin, t(4).cdf).pvalue > RARE
    assert kstest((u**2).mean(axis=1), f(3, 4).cdf).pvalue > RARE


def test_scales_of_new_tasks_are_drawn_from_their_prior():
    spec = mtl.ModelSpec(task_sd=True, priors={"feature_sd": 1.0})
    u = whitened(new_task_draws(frozen(data(), spec, task_sd=[0.1, 0.1, 9.0], **POPULATION), UNIT))
    nodes, weights = WIDE
    scale = np.exp(0.5 * nodes)  # the default prior

    def cdf(x):
        return norm.cdf(np.asarray(x)[:, None] / scale) @ weights / weights.sum()

    for margin in u.T:
        assert kstest(margin, cdf).pvalue > RARE


# Raw loadings, and deviations, of three known tasks (features inside the task covariance).
A = np.array([[2.0], [-1.0], [0.5]])
DELTA = 1.0 / np.sqrt(1.0 + (A**2).sum(axis=1))
D = np.array([[1.8, -1.0], [-0.9, 0.2], [0.3, 0.1]])
# The basis vector that they reveal: f | D ~ N(M, I / Q).
Q = 1.0 + (A**2).sum()
M = A[:, 0] @ (D / DELTA[:, None]) / Q


def margin_of_new_task(feature, scale):
    """The distribution function of a deviation, loadings integrated out."""
    nodes, weights = WIDE
    a = scale * nodes
    loading, unique = a / np.sqrt(1 + a**2), 1 / np.sqrt(1 + a**2)
    spread = np.sqrt(loading**2 / Q + unique**2)

    def cdf(x):
        return norm.cdf((np.asarray(x)[:, None] - loading * M[feature]) / spread) @ weights / weights.sum()

    return cdf


def test_new_tasks_load_on_the_basis_that_the_known_ones_revealed():
    spec = mtl.ModelSpec(task_covariance=mtl.LowRank(1))
    L = np.linalg.cholesky(OUTSIDE)
    beta = MEAN + SD * np.hstack([np.zeros((3, 1)), D @ L[1:, 1:].T])
    values = {"beta_mean": MEAN, "feature_sd": SD, "feature_corr": OUTSIDE, "beta": beta, "sigma": 1.0}
    values |= {"task_loadings": A * DELTA[:, None], "task_unique_sd": DELTA, "task_loadings_scale": [1.5]}
    u = whitened(new_task_draws(frozen(data(), spec, **values), UNIT), OUTSIDE)
    assert kstest(u[:, 0], norm.cdf).pvalue > RARE  # the intercept stands outside
    for feature in (0, 1):
        assert kstest(u[:, 1 + feature], margin_of_new_task(feature, 1.5)).pvalue > RARE
    assert kstest(u[:, 1], norm.cdf).pvalue < RARE  # the test can fail: what the known ones say matters


def test_new_levels_load_on_the_basis_that_the_known_ones_revealed():
    frame = table().assign(item=np.tile(list("pqr"), 20))
    of_items = mtl.TaskData.from_table(
        frame, task="task", outcome="y", groupings={"item": ["x1", "x2"]}, features=["x1", "x2"]
    )
    spec = mtl.ModelSpec(
        groupings={"item": mtl.StudentT(mtl.LowRank(1), nu=1e9)}, feature_covariance=mtl.Diagonal()
    )
    idata = frozen(of_items, spec, beta=np.zeros((3, 3)), beta_mean=MEAN, feature_sd=SD, sigma=1.0)
    n = idata["posterior"].sizes["draw"]
    own = {
        "item_effects": (("item", "item_feature"), 2.0 * SD[1:] * D),
        "item_sd": (("item_feature",), SD[1:]),
        named("item", "task_reliability"): (("item",), np.full(3, 0.25)),
        named("item", "task_loadings"): (("item", named("item", "factor")), A * DELTA[:, None]),
        named("item", "task_unique_sd"): (("item",), DELTA),
        named("item", "task_loadings_scale"): ((named("item", "factor"),), np.array([1.5])),
    }
    added = {
        k: (("chain", "draw", *dims), np.broadcast_to(v, (1, n, *v.shape))) for k, (dims, v) in own.items()
    }
    coords = {"item": list("pqr"), "item_feature": ["x1", "x2"]}
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().merge(xr.Dataset(added, coords)))
    rows = pd.DataFrame({"task": "a", "item": "new", "x1": [1.0, 0.0], "x2": [0.0, 1.0]})
    y = mtl.predict(idata, rows, new_tasks="population", random_seed=1)["predictions"]["y"].to_numpy()[0]
    for feature in (0, 1):
        assert kstest(y[:, feature] / SD[1 + feature], margin_of_new_task(feature, 1.5)).pvalue > RARE


def test_new_tasks_share_the_basis_and_have_loadings_of_their_own():
    # Loadings so large that nothing is a task's own: a deviation is the basis, or minus the basis.
    known = known_tasks(
        2 * D, 20_000, task_loadings=A * DELTA[:, None], task_unique_sd=DELTA, task_loadings_scale=[1e12]
    )
    drawn = mtl.LowRank(1).draw_new(["n", "m"], known, np.random.default_rng(1))
    np.testing.assert_allclose(np.abs(drawn[:, 0]), np.abs(drawn[:, 1]), rtol=0, atol=1e-3)
    same = (np.sign(drawn[:, 0, 0]) == np.sign(drawn[:, 1, 0])).mean()
    assert abs(same - 0.5) < 5 * 0.5 / np.sqrt(20_000)
    centre = 2 * M
    assert norm.sf(np.sqrt(centre @ centre * Q)) < 1e-15  # no basis lies on the other side of zero
    basis = drawn[:, 0] * np.sign(drawn[:, 0] @ centre)[:, None]
    distance = Q * ((basis - centre) ** 2).sum(axis=1)
    assert kstest(distance, chi2(2).cdf).pvalue > RARE


@pytest.mark.parametrize(
    "structure",
    [mtl.LowRank(2), mtl.SparseBasis(2), mtl.SparseBasis(1), mtl.SparseBasis(2, overlap=False)],
    ids=str,
)
def test_loadings_of_new_tasks_have_the_law_of_the_model(structure):
    """On a basis that is known exactly: deviations are loadings, compared with prior draws of the model."""
    K, n, size = getattr(structure, "rank", 0) or structure.n_basis, 20_000, 1e6
    scale = np.array([0.7, 1.8])[:K]
    delta = np.full(K, 1e-6)
    known = known_tasks(
        size * np.eye(K), n, task_loadings=np.eye(K), task_unique_sd=delta, task_loadings_scale=scale
    )
    drawn = structure.draw_new(["new"], known, np.random.default_rng(2))[:, 0] / size
    with pm.Model() as model:
        loadings = structure.task_loadings(range(n), str).loadings
    given = clone_replace(loadings, {model["task_loadings_scale"]: pt.constant(scale)})
    expected = pm.draw(given, random_seed=3, mode="FAST_COMPILE")
    for mine, theirs in zip(drawn.T, expected.T, strict=True):
        assert kstest(mine, theirs).pvalue > RARE


def test_heavy_tails_stand_around_the_law_of_the_inner_structure():
    reliability = np.array([0.1, 1.0, 2.0])
    own = {"task_loadings": A * DELTA[:, None], "task_unique_sd": DELTA, "task_loadings_scale": [1.5]}
    known = known_tasks(D, 5000, task_reliability=reliability, **own)
    outer = mtl.StudentT(mtl.LowRank(1), nu=3.0).draw_new(["n", "m"], known, np.random.default_rng(4))
    normal = known_tasks(D * np.sqrt(reliability)[:, None], 5000, **own)
    inner = mtl.LowRank(1).draw_new(["n", "m"], normal, np.random.default_rng(4))
    ratio = (inner / outer) ** 2
    np.testing.assert_allclose(ratio[..., 0], ratio[..., 1], rtol=1e-10)
    for of_task in ratio[..., 0].T:  # each task has a reliability of its own
        assert kstest(of_task, gamma(1.5, scale=1 / 1.5).cdf).pvalue > RARE
    assert np.abs(np.corrcoef(ratio[:, :, 0].T)[0, 1]) < 5 / np.sqrt(5000)


def with_variables(idata, **variables):
    """Add variables, the same in every draw: (dims, values)."""
    n = idata["posterior"].sizes["draw"]
    added = {
        k: (("chain", "draw", *dims), np.broadcast_to(v, (1, n, *np.shape(v))))
        for k, (dims, v) in variables.items()
    }
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().assign(added))
    return idata


def test_new_tasks_of_a_group_vary_in_its_directions():
    groups = mtl.OrthogonalGroups({"a": "p", "b": "p", "c": "q", "new": "q", "odd": "r"})
    idata = frozen(data(), mtl.ModelSpec(task_covariance=groups), draws=4_000, **POPULATION)
    with pytest.raises(errors.StorageError, match="does not hold direction_offset, direction_scale"):
        mtl.predict(idata, UNIT, new_tasks="population")
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 2)))[0]
    idata = with_variables(
        idata,
        direction_offset=(("raw", "raw_bis"), axes),
        direction_scale=(("direction",), np.array([0.5, 3.0])),
        direction_rest=((), 0.2),
    )
    deviations = (new_task_draws(idata, UNIT) - MEAN) / SD
    # All but a thousandth of the rest is the uniform variable.
    rest = 1e-3 + (1 - 1e-3) * 0.2
    covariance = rest**2 * CORR + 3.0**2 * np.outer(axes[:, 1], axes[:, 1])
    white = np.linalg.solve(np.linalg.cholesky(covariance), deviations.T).T
    assert kstest((white**2).sum(axis=1), chi2(3).cdf).pvalue > RARE
    for margin in white.T:
        assert kstest(margin, norm.cdf).pvalue > RARE
    for label, message in (
        ("odd", "of which the fit has no task"),
        ("alien", "does not know 1 of the tasks"),
    ):
        with pytest.raises(errors.PredictionError, match=message):
            mtl.predict(idata, UNIT.assign(task=label), new_tasks="population")


def test_new_tasks_of_a_cluster_vary_in_its_directions():
    spec = mtl.ModelSpec(task_covariance=mtl.Clusters(2, rank=1), feature_covariance=mtl.Diagonal())
    values = {k: v for k, v in POPULATION.items() if k != "feature_corr"}
    idata = frozen(data(), spec, draws=20_000, **values)
    weight, centre = np.array([0.3, 0.7]), np.array([[5.0, -5.0, 2.0], [0.0, 1.0, 0.0]])
    scale, raw = np.array([0.5, 2.0]), np.array([[1.0, -1.0, 0.5], [0.3, 0.6, -2.0]])
    idata = with_variables(
        idata,
        cluster_weight=(("cluster",), weight),
        cluster_mean=(("cluster", "feature"), centre),
        cluster_factor_scale_part=(("k", "one", "rank"), scale[:, None, None]),
        cluster_factor_offset=(("k", "f", "rank"), raw[..., None]),
    )
    draws = new_task_draws(idata, UNIT)
    sd = SD * np.sqrt(1.0 + (scale[:, None] * raw) ** 2)
    for j, found in enumerate(draws.T):

        def cdf(x, j=j):
            return norm.cdf((np.asarray(x)[:, None] - centre[:, j]) / sd[:, j]) @ weight

        assert kstest(found, cdf).pvalue > RARE
    # In one direction together: of the second cluster, which lies apart from the first.
    second = draws[np.abs(draws[:, 0] - 5.0) > 4.0]
    assert np.corrcoef(second.T)[1, 2] < -0.5


def test_exceptions_of_new_tasks_have_the_size_that_the_model_gives_them():
    """Rows count by their weight where features are measured, in the model and for new tasks."""
    frame = table().assign(w=np.where(np.arange(60) % 2, 1.0, 0.01))
    columns = {"task": "task", "outcome": "y", "features": ["x1", "x2"]}
    scales = mtl.Horseshoe(expected_features=1, unit=3.0, task_specific=True)
    spec = mtl.ModelSpec(feature_scales=scales, feature_covariance=mtl.Diagonal())
    sizes = []
    for weights in ("w", None):
        weighted = mtl.TaskData.from_table(frame, weights=weights, **columns)
        model = mtl.build_model(spec, weighted)
        parts = [model[name] for name in ("beta_mean_sd", "feature_relevance", "feature_share")]
        sd, relevance, share = pm.draw(parts, random_seed=1, mode="FAST_COMPILE")
        idata = frozen(weighted, spec, draws=1, beta=np.zeros((3, 3)))
        sizes.append(coefficient_size(idata, scales.unit)[1:])
        np.testing.assert_allclose(sizes[-1], sd / (relevance * np.sqrt(share)), rtol=1e-10)
    assert np.abs(sizes[0] / sizes[1] - 1.0).max() > 0.01
