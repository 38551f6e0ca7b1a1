"""Mixtures of tasks: the label is summed out, whichever path is taken."""

from itertools import product

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytest
import xarray as xr
from scipy.linalg import hadamard
from scipy.special import expit, log_expit, logsumexp
from scipy.stats import multivariate_normal, norm

import bayes_mtl as mtl
from bayes_mtl.inference import attributes
from bayes_mtl.inference.diagnostics import _MAX_CO_CLUSTERED, _with_co_clustering, unique_elements
from bayes_mtl.inference.fingerprint import log_density
from bayes_mtl.inference.groups import constant_data
from bayes_mtl.inference.pilot import pilot
from bayes_mtl.kernels import evaluate_components, evaluate_evidence
from bayes_mtl.kernels.ops import (
    BernoulliComponents,
    BernoulliTasks,
    ComponentCoefficientsPullback,
    ComponentEvidencePullback,
)
from bayes_mtl.model import sampling_model
from bayes_mtl.structures import TaskCovariance
from bayes_mtl.summaries.clusters import _stability, adjusted_rand, point_partition
from tests import contracts
from tests.fits import exact_binary, exact_rows
from tests.test_structures import table

GROUPS = {"t0": "a", "t1": "b", "t2": "a", "t3": "b", "t4": "b"}
MIXTURES = {
    "Clusters": mtl.Clusters(3),
    "Factors": mtl.Clusters(2, rank=2),
    "Gated": mtl.Clusters(3, gating={f"t{i}": [i, 100.0 * (i % 2)] for i in range(5)}, columns=["g", "h"]),
    "DirichletProcess": mtl.DirichletProcess(3),
    "OrthogonalGroups": mtl.OrthogonalGroups(GROUPS),
}


# The kernels, for K components of T tasks with F columns of which P vary.

T, F, P, K, N = 7, 4, 3, 3, 9


def problem(seed, n_sigma, n_mean, n_cholesky):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((K, F)) * (np.arange(F) < P)
    law = [
        centre,
        np.tril(rng.standard_normal((n_cholesky, P, P))),
        rng.uniform(0.5, 2.0, n_sigma),
        rng.standard_normal((n_mean, F)),
    ]
    X, y = rng.standard_normal((T, N, F)), 2 * rng.standard_normal((T, N))
    q, r = np.linalg.qr(X)
    target = np.einsum("tnf,tn->ft", q, y)
    rows = [np.moveaxis(r, 0, 2).copy(), target]
    exact = [(y**2).sum(axis=1) - (target**2).sum(axis=0), np.full(T, float(N))]
    return rng, law, X, y, rows, exact


def of(array, i):
    return array[i if len(array) > 1 else 0]


SIZES = [(s, m, c) for s in (1, T) for m in (1, T) for c in (1, K)]


@pytest.mark.parametrize("sizes", SIZES)
def test_evidence_is_the_density_of_the_rows(sizes):
    _, (centre, cholesky, sigma, mean), X, y, rows, exact = problem(1, *sizes)
    found = evaluate_evidence(centre, cholesky, sigma, mean, *rows, *exact)
    for t in range(T):
        for k in range(K):
            XL = X[t][:, :P] @ of(cholesky, k)
            law = multivariate_normal(
                X[t] @ (of(mean, t) + centre[k]), XL @ XL.T + of(sigma, t) ** 2 * np.eye(N)
            )
            np.testing.assert_allclose(found[t, k], law.logpdf(y[t]), rtol=1e-10)


@pytest.mark.parametrize("sizes", SIZES)
def test_coordinates_are_a_change_of_variables(sizes):
    """log N(beta; m, LL') + log |d beta / dz| is what the kernel says, for pseudo-rows of other data too."""
    rng, law, _, _, rows, _ = problem(2, *sizes)
    centre, cholesky, _, mean = law
    z = rng.standard_normal((T, P))
    density, beta = evaluate_components(*law, z, *rows)
    jacobian = np.empty((P, P, K, T))
    for i in range(P):
        moved = z.copy()
        moved[:, i] += 1.0  # the map is linear
        jacobian[:, i] = np.moveaxis(evaluate_components(*law, moved, *rows)[1] - beta, 2, 0)[:P]
    for t in range(T):
        for k in range(K):
            L = of(cholesky, k)
            prior = multivariate_normal((of(mean, t) + centre[k])[:P], L @ L.T)
            _, log_det = np.linalg.slogdet(jacobian[:, :, k, t])
            np.testing.assert_allclose(density[t, k], prior.logpdf(beta[k, t, :P]) + log_det, rtol=1e-8)
            np.testing.assert_allclose(beta[k, t, P:], of(mean, t)[P:] + centre[k, P:])


@pytest.mark.parametrize("sizes", SIZES)
def test_coordinates_are_standard_normal_given_exact_rows(sizes):
    rng, law, X, y, rows, exact = problem(3, *sizes)
    z = rng.standard_normal((T, P))
    density, beta = evaluate_components(*law, z, *rows)
    residual = y - np.einsum("tnf,ktf->ktn", X, beta)
    s = np.broadcast_to(law[2], T)[None, :, None]
    likelihood = norm.logpdf(residual, scale=s).sum(axis=2).T
    standard = norm.logpdf(z).sum(axis=1)[:, None]
    np.testing.assert_allclose(
        density + likelihood, evaluate_evidence(*law, *rows, *exact) + standard, rtol=1e-10
    )


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["evidence", "coefficients"])
def test_reverse_sweeps_are_slopes(name, sizes):
    rng, law, _, _, rows, exact = problem(4, *sizes)
    if name == "evidence":
        parameters, data, reverse = law, [*rows, *exact], ComponentEvidencePullback()
        outputs = lambda *p: [evaluate_evidence(*p, *data)]  # noqa: E731
    else:
        parameters, data = [*law, rng.standard_normal((T, P))], rows
        reverse, outputs = ComponentCoefficientsPullback(), lambda *p: evaluate_components(*p, *data)
    weights = [rng.standard_normal(out.shape) for out in outputs(*parameters)]
    gradient = reverse.evaluate(*parameters, *data, *weights)
    for i, parameter in enumerate(parameters):
        direction = rng.standard_normal(parameter.shape)
        direction = np.tril(direction) if i == 1 else direction

        def total(h, i=i, direction=direction):
            moved = [p + (h * direction if j == i else 0.0) for j, p in enumerate(parameters)]
            return sum((w * out).sum() for w, out in zip(weights, outputs(*moved), strict=True))

        slope = (8 * (total(1e-4) - total(-1e-4)) - (total(2e-4) - total(-2e-4))) / 12e-4
        np.testing.assert_allclose((gradient[i] * direction).sum(), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    rng, law, _, _, rows, exact = problem(5, 1, 1, K)
    law[0][1, 2] = bad  # of one component
    evidence = evaluate_evidence(*law, *rows, *exact)
    density, beta = evaluate_components(*law, rng.standard_normal((T, P)), *rows)
    for found in (evidence, density):
        assert np.isneginf(found[:, 1]).all()
        assert np.isfinite(found[:, [0, 2]]).all()
    assert np.isfinite(beta[[0, 2]]).all()
    law[2][0] = -1.0  # of all
    assert np.isneginf(evaluate_evidence(*law, *rows, *exact)).all()


def test_bernoulli_of_each_component_is_that_of_its_tasks():
    rng = np.random.default_rng(6)
    starts, n = np.array([0, 3, 3, 10]), 10
    X, y = rng.standard_normal((F, n)), rng.integers(0, 2, n)
    beta = rng.standard_normal((K, 3, F))
    for weights, offset in ((np.ones(1), np.zeros(1)), (rng.uniform(0.5, 2, n), rng.standard_normal(n))):
        value, gradient = BernoulliComponents().evaluate(beta, y, X, weights, offset, starts)
        for k in range(K):
            whole, slope = BernoulliTasks().evaluate(beta[k], y, X, weights, offset, starts)
            np.testing.assert_allclose(value[:, k].sum(), whole, rtol=1e-12)
            np.testing.assert_allclose(gradient[k], slope, rtol=1e-12)
        eta = np.einsum("fn,kf->kn", X[:, :3], beta[:, 0]) + (offset[:3] if len(offset) > 1 else 0.0)
        each = log_expit(np.where(y[:3] == 1, eta, -eta)) * (weights[:3] if len(weights) > 1 else 1.0)
        np.testing.assert_allclose(value[0], each.sum(axis=1), rtol=1e-12)
        assert (value[1] == 0).all()  # no rows


# Models.


def describe(name, **options):
    data = mtl.TaskData.from_table(
        table(n_tasks=5), task="task", outcome="y", features=["x1", "x2"], shared_features=["x3"],
        task_features=["z"], weights="w", offset="o",
    )  # fmt: skip
    return mtl.ModelSpec(task_covariance=MIXTURES[name], **options), data


def law_of(model, spec, data, point):
    """Return log weights (T, K), means (K, T, P) and covariances (K, P, P), evaluated at a point."""
    known = ("cluster_weight", "cluster_gating", "cluster_mean", "feature_corr")
    names = [n for n in known if n in model.named_vars]
    wanted = [model[n] for n in ("beta_mean", "feature_sd", "task_feature_effects", "beta_shared", *names)]
    extra = [v for v in model.free_RVs if v.name.startswith(("direction", "cluster_factor"))]
    values = model.replace_rvs_by_values([*wanted, *extra])
    function = pytensor.function(model.value_vars, values, mode=contracts.MODE, on_unused_input="ignore")
    found = function(*(point[v.name] for v in model.value_vars))
    mean, sd, effects, shared, *rest = found
    named = dict(zip([*names, *(v.name for v in extra)], rest, strict=True))
    corr = named.get("feature_corr", np.eye(len(sd)))
    means = mean + data.task_features @ effects.T
    if "cluster_mean" in named:
        log_weight = np.tile(np.log(named["cluster_weight"]), (data.n_tasks, 1))
        if "cluster_gating" in named:
            g = np.array([v for _, v in spec.task_covariance.gating])
            log_weight += (g - g.mean(axis=0)) / g.std(axis=0) @ named["cluster_gating"].T
            log_weight -= logsumexp(log_weight, axis=1, keepdims=True)
        means = means + (named["cluster_mean"] - mean)[:, None, :]
        factors = [np.zeros((len(sd), 1))] * log_weight.shape[1]
        if "cluster_factor_offset" in named:
            factors = list(named["cluster_factor_scale_part"] * named["cluster_factor_offset"])
    else:
        labels = np.array([["a", "b"].index(GROUPS[t]) for t in data.tasks])
        log_weight = np.where(labels[:, None] == np.arange(2), 0.0, -np.inf)
        means = np.tile(means, (2, 1, 1))
        q, r = np.linalg.qr(named["direction_offset"])
        U = q * np.sign(np.diag(r))
        directions = U * named["direction_scale"]
        factors = [directions[:, :1], directions[:, 1:]]
    rest = 1e-3 + (1 - 1e-3) * named["direction_rest"] if "direction_rest" in named else 1.0
    covariances = [np.outer(sd, sd) * (rest**2 * corr + f @ f.T) for f in factors]
    return log_weight, means, covariances, shared


@pytest.mark.parametrize("option", ["one_noise", "task_noise"])
@pytest.mark.parametrize("name", MIXTURES)
def test_gaussian_outcomes(name, option):
    rng = np.random.default_rng(len(name))
    spec, data = describe(name, family=mtl.Gaussian(task_noise=option == "task_noise"))
    model = mtl.build_model(spec, data)
    collapsed = contracts.Evaluator(model)
    contracts.assert_every_free_variable_is_an_ancestor_of_the_data(model)
    contracts.assert_finite_at_the_start(collapsed)
    point = collapsed.random_point(rng)
    # The population mean is where centres of clusters are drawn around.
    drawn_around = ("beta_mean_scaled__", "beta_mean") if spec.task_covariance.has_centres else ()
    contracts.assert_every_element_moves_the_data_term(
        collapsed, point, except_for=(*contracts.HYPERPRIORS, *drawn_around)
    )
    contracts.assert_gradient_is_the_slope(collapsed, point, rng)

    log_weight, means, covariances, shared = law_of(model, spec, data, point)
    sigma = np.broadcast_to(collapsed.values(point)["sigma"], data.n_tasks)
    expected = 0.0
    for t in range(data.n_tasks):
        at = data.task_index == t
        X, w = data.X[at], data.weights[at]
        eta = data.offset[at] + data.X_shared[at] @ shared
        by_component = [
            multivariate_normal(eta + X @ m[t], X @ C @ X.T + np.diag(sigma[t] ** 2 / w)).logpdf(data.y[at])
            for m, C in zip(means, covariances, strict=True)
        ]
        expected += logsumexp(log_weight[t] + by_component)
    contracts.assert_close(collapsed.data_term(point), expected)

    # What `fit` samples, and in coordinates that are standard normal since the rows are said exactly.
    sampled = contracts.Evaluator(sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows).model)
    whitened = contracts.Evaluator(sampling_model(spec, data, collapsed=False, rows=data.pseudo_rows).model)
    there = sampled.random_point(rng)
    natural, log_jacobian = contracts.with_natural_noise(sampled, there)
    contracts.assert_close(sampled.logp(there), collapsed.logp(natural) + log_jacobian)
    z = rng.standard_normal(whitened.start["task_offset"].shape)
    standard = norm.logpdf(z).sum()
    contracts.assert_close(whitened.logp(there | {"task_offset": z}), sampled.logp(there) + standard, 1e-7)
    contracts.assert_gradient_is_the_slope(whitened, there | {"task_offset": z}, rng)

    # The coefficients as a random variable.
    latent = contracts.Evaluator(mtl.build_model(spec, data, marginal=False))
    beta = rng.standard_normal((data.n_tasks, data.n_features))
    full = latent.start | point | {"beta": beta}
    assert set(latent.names) - set(point) == {"beta"}
    prior = sum(
        logsumexp(
            log_weight[t]
            + [multivariate_normal(m[t], C).logpdf(beta[t]) for m, C in zip(means, covariances, strict=True)]
        )
        for t in range(data.n_tasks)
    )
    eta = data.offset + (data.X * beta[data.task_index]).sum(axis=1) + data.X_shared @ shared
    rows = norm.logpdf(data.y, eta, sigma[data.task_index] / np.sqrt(data.weights)).sum()
    contracts.assert_close(latent.logp(full) - collapsed.logp(point), prior + rows - expected, 1e-7)


def test_directions_of_all_groups_are_orthogonal():
    structure = mtl.OrthogonalGroups(GROUPS, rank={"a": 2, "b": 3})
    with pm.Model() as model:
        model.add_coord("cluster", ["a", "b"])
        found = structure.components(sorted(GROUPS), 6, str)
    function = pytensor.function(
        [model["direction_offset"], model["direction_scale"]], found.factors, mode=contracts.MODE
    )
    scale = np.array([0.5, 1.0, 2.0, 0.1, 0.7])
    a, b = function(np.random.default_rng(0).standard_normal((6, 5)), scale)
    assert model.coords["direction"] == ("a 0", "a 1", "b 0", "b 1", "b 2")
    np.testing.assert_allclose(a.T @ a, np.diag([*scale[:2] ** 2, 0.0]), atol=1e-12)
    np.testing.assert_allclose(b.T @ b, np.diag(scale[2:] ** 2), atol=1e-12)
    np.testing.assert_allclose(a.T @ b, 0.0, atol=1e-12)
    assert TaskCovariance.from_dict(structure.to_dict()) == structure


@pytest.mark.parametrize("name", ["Clusters", "Gated", "OrthogonalGroups"])
def test_binary_outcomes(name):
    """In coordinates of a pilot, the density is that of the coefficients of each component, summed."""
    rng = np.random.default_rng(3)
    frame = table(n_tasks=5, n_rows=8)
    frame["y"] = np.arange(len(frame)) % 2
    columns = {
        "task": "task",
        "outcome": "y",
        "features": ["x1", "x2"],
        "shared_features": ["x3"],
        "task_features": ["z"],
    }
    data = mtl.TaskData.from_table(frame, weights="w", offset="o", **columns)
    spec = mtl.ModelSpec(family="bernoulli", task_covariance=MIXTURES[name])
    rows = pilot(spec, data)
    assembled = sampling_model(spec, data, collapsed=False, rows=rows)
    whitened = contracts.Evaluator(assembled.model)
    contracts.assert_finite_at_the_start(whitened)
    point = whitened.random_point(rng)
    contracts.assert_gradient_is_the_slope(whitened, point, rng)

    log_weight, means, covariances, shared = law_of(assembled.model, spec, data, point)
    n_components, n_tasks, n_features = means.shape
    mean = np.column_stack([means[0], np.tile(shared, (n_tasks, 1))]) - rows.reference
    centre = np.zeros((n_components, mean.shape[1]))
    centre[:, :n_features] = (means - means[0])[:, 0]
    law = [centre, np.linalg.cholesky(np.array(covariances)), np.ones(1), mean]
    density, beta = evaluate_components(*law, point["task_offset"], rows.root, rows.target)
    eta = np.einsum("nf,knf->kn", data.full_matrix, (beta + rows.reference)[:, data.task_index]) + data.offset
    by_row = data.weights * log_expit(np.where(data.y == 1, eta, -eta))
    by_task = np.add.reduceat(by_row, data.starts[:-1], axis=1).T
    expected = logsumexp(log_weight + density + by_task, axis=1).sum()
    contracts.assert_close(whitened.data_term(point), expected)


@pytest.mark.parametrize("name", ["Clusters", "DirichletProcess"])
def test_labels_of_tasks_do_not_matter(name):
    spec, data = describe(name)
    order = np.array([3, 0, 4, 2, 1])
    new_name = {f"t{old}": f"t{new}" for new, old in enumerate(order)}
    frame = table(n_tasks=5)
    relabelled = mtl.TaskData.from_table(
        frame.assign(task=frame.task.map(new_name)), task="task", outcome="y", features=["x1", "x2"],
        shared_features=["x3"], task_features=["z"], weights="w", offset="o",
    )  # fmt: skip
    contracts.assert_labels_do_not_matter(spec, data, spec, relabelled, order, np.random.default_rng(3))


# Fits.


def two_kinds(family, n_tasks=10, n_rows=30, noise=1.0):
    """Return data of tasks of two kinds, the kinds, and the coefficients, which are exactly what rows say."""
    kind = np.arange(n_tasks) % 2
    beta = np.where(kind[:, None] == 0, [[1.0, 2.0, -1.0]], [[-1.0, 0.0, 1.5]])
    beta = beta + 0.15 * hadamard(16)[:n_tasks, 5:8]
    if family == "bernoulli":
        X, y, task, weights = exact_binary(beta, n_rows)
        return mtl.TaskData.from_arrays(X, y, task, weights=weights), kind, beta
    return mtl.TaskData.from_arrays(*exact_rows(beta, n_rows, noise=noise)), kind, beta


def chains_of(idata):
    """Return the co-clustering matrix of every chain."""
    member = idata["posterior"]["cluster_probability"].to_numpy()
    return np.einsum("cdtk,cdsk->cts", member, member) / member.shape[1]


@pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")  # the third cluster comes and goes
@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
@pytest.mark.slow
def test_every_chain_finds_the_two_kinds(family):
    """With room for more clusters than there are: chains begin apart, and none is trapped elsewhere."""
    data, kind, beta = two_kinds(family, n_rows=30 if family == "gaussian" else 100)
    spec = mtl.ModelSpec(family=family, task_covariance=mtl.Clusters(3))
    idata = mtl.fit(data, spec, draws=2000, chains=4, random_seed=1, progressbar=False)
    same = kind[:, None] == kind[None, :]
    off = ~np.eye(len(kind), dtype=bool)
    for chain in chains_of(idata):
        assert chain[same & off].min() > 0.8
        assert chain[~same].max() < 0.1
    found = mtl.clusters(idata)
    np.testing.assert_array_equal(found["partition"], kind + 1)
    assert found["n_clusters"].sum() == pytest.approx(1.0)
    assert found["with_new_task"].min() > 0.2
    assert found["co_clustering_range"].max() < 0.2
    for k in (0, 1):
        average = beta[kind == k].mean(axis=0)
        assert (found["coefficient_lower"][k] < average + 0.2).all()
        assert (found["coefficient_upper"][k] > average - 0.2).all()
        assert np.abs(found["coefficient"][k] - average).max() < 0.4
    # Around the mean of the kinds, tasks of one kind are alike and those of two are opposed.
    relations = mtl.task_correlation(idata, "coefficients")
    a, b = (kind[np.searchsorted(data.tasks, relations[c])] for c in ("task_a", "task_b"))
    assert (relations["p_positive"].to_numpy()[a == b] > 0.9).all()
    assert (relations["p_positive"].to_numpy()[a != b] < 0.1).all()
    assert not any("beta_mean" in name for name in mtl.summary(idata).index)
    error = (idata["posterior"]["beta"].mean(("chain", "draw")) - beta).to_numpy()
    assert np.sqrt((error**2).mean()) < 0.35

    # A new task is of one kind or of the other: at this row they predict about 3 and -1.
    new = pd.DataFrame({"x0": [1.0], "x1": [0.0], "task": [99]})
    drawn = mtl.predict(idata, new, new_tasks="population", random_seed=1)["predictions"]["y"].to_numpy()
    high, low = (3.0, -1.0) if family == "gaussian" else (expit(3.0), expit(-1.0))
    between = (drawn > low + 0.4 * (high - low)) & (drawn < low + 0.6 * (high - low))
    assert between.mean() < 0.15
    assert 0.2 < (drawn > (low + high) / 2).mean() < 0.8


@pytest.mark.slow
def test_gating_tells_kinds_that_rows_do_not():
    """Four rows a task say little; how large each is says nearly all, of a new task too."""
    data, kind, _ = two_kinds("gaussian", n_tasks=14, n_rows=4, noise=2.5)
    size = 1000.0 * (kind + 0.15 * hadamard(16)[:14, 3])
    gating = {int(t): [s, z] for t, s, z in zip(data.tasks, size, hadamard(16)[1:15, 8], strict=True)}
    settings = {"draws": 2000, "target_accept": 0.95, "random_seed": 1, "progressbar": False}
    plain, gated = (
        mtl.fit(data, mtl.ModelSpec(task_covariance=structure), **settings)
        for structure in (mtl.Clusters(2), mtl.Clusters(2, gating=gating | {"new": [1000.0, 0.0]}))
    )
    same = np.equal.outer(kind, kind)[np.triu_indices(14, 1)]

    def score(idata, name="co_clustering"):
        p = mtl.clusters(idata)[name].to_numpy()[np.triu_indices(14, 1)]
        return np.log(np.where(same, p, 1 - p)).mean()

    assert score(gated) > 0.3 * score(plain)  # of the log probability of the truth, per pair
    assert score(gated) >= score(gated, "co_clustering_by_gating") > np.log(0.7)
    assert "with_new_task" not in mtl.clusters(gated)
    known = mtl.clusters(gated)["known"]  # the average size of each kind, in its own units
    np.testing.assert_allclose(known[:, 0], [size[kind == k].mean() for k in (0, 1)], rtol=1e-10)
    assert gated["posterior"]["gating_sd"].quantile(0.05) > 0.5

    # The new task is large, so of the second kind, which is at -1 where the first is at 3.
    new = pd.DataFrame({"x0": [1.0], "x1": [0.0], "task": ["new"]})
    options = {"new_tasks": "population", "random_seed": 1}
    assert (mtl.predict(gated, new, **options)["predictions"]["y"] < 1.0).mean() > 0.8
    assert 0.2 < (mtl.predict(plain, new, **options)["predictions"]["y"] < 1.0).mean() < 0.8
    with pytest.raises(mtl.errors.PredictionError, match=r"no values for \['other'\]"):
        mtl.predict(gated, new.assign(task="other"), **options)


def test_gating_of_new_tasks_is_read_from_the_table():
    data, kind, _ = two_kinds("gaussian", n_tasks=8, n_rows=10)
    frame = pd.DataFrame(data.X[:, 1:], columns=["x0", "x1"])
    frame = frame.assign(
        task=data.task_index, y=data.y, size=kind[data.task_index] * 1000.0 + data.task_index
    )
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x0", "x1"])
    gated = mtl.Clusters.from_table(frame, task="task", columns=["size"], n=2)
    spec = mtl.ModelSpec(task_covariance=gated)
    idata = mtl.fit(data, spec, draws=1500, target_accept=0.95, random_seed=1, progressbar=False)
    new = pd.DataFrame({"x0": 1.0, "x1": 0.0, "task": ["small", "large"], "size": [10.0, 990.0]})
    y = mtl.predict(idata, new, new_tasks="population", random_seed=1)["predictions"]["y"]
    assert (y.isel(row=0) > 1.0).mean() > 0.75
    assert (y.isel(row=1) < 1.0).mean() > 0.75
    with pytest.raises(mtl.errors.PredictionError, match="'size'"):
        mtl.predict(idata, new.drop(columns="size"), new_tasks="population")


def test_point_partition_minimises_binders_loss():
    rng = np.random.default_rng(0)
    member = rng.dirichlet(np.full(3, 0.3), size=(50, 5))
    same = np.einsum("dtk,dsk->ts", member, member) / 50
    np.fill_diagonal(same, 1.0)

    def loss(labels):
        together = np.equal.outer(labels, labels)
        return np.where(together, 1 - same, same)[np.triu_indices(5, 1)].sum()

    best = min(loss(np.array(p)) for p in product(range(5), repeat=5))
    assert loss(point_partition(same)) <= best + 0.1  # among the cuts of one tree
    blocks = np.kron(np.eye(2), np.full((3, 3), 0.9)) + 0.05
    np.fill_diagonal(blocks, 1.0)
    np.testing.assert_array_equal(point_partition(blocks), [1, 1, 1, 2, 2, 2])
    assert list(point_partition(np.ones((1, 1)))) == [1]


def test_no_partition_has_more_clusters_than_the_description():
    """With every pair more likely apart than together, two clusters cannot say so."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        same = np.random.default_rng(seed).uniform(0.0, 0.45, (8, 8))
        same = (same + same.T) / 2
        np.fill_diagonal(same, 1.0)
        assert point_partition(same).max() > 3
        for most in (1, 2, 3):
            assert point_partition(same, most).max() <= most
    # The index of Hubert & Arabie, of labels that are only named differently, and of unrelated ones.
    labels = rng.integers(1, 4, 60)
    assert adjusted_rand(labels, 4 - labels) == 1.0
    assert adjusted_rand(np.ones(5, dtype=int), np.ones(5, dtype=int)) == 1.0
    by_chance = np.mean([adjusted_rand(labels, rng.permutation(labels)) for _ in range(200)])
    assert abs(by_chance) < 0.02
    assert "Not stable" in _stability([labels, rng.permutation(labels)], labels)[1]
    assert _stability([labels, labels], labels) == (1.0, "Chains found the same division.")


@pytest.mark.parametrize("n_tasks", [1, 6, 100])
def test_picture(n_tasks):
    import matplotlib.pyplot as plt

    kind = np.arange(n_tasks) % 2
    same = np.where(kind[:, None] == kind, 0.9, 0.05)
    np.fill_diagonal(same, 1.0)
    tasks = [f"t{i}" for i in range(n_tasks)]
    found = xr.Dataset(
        {
            "co_clustering": (("task", "task_bis"), same),
            "partition": ("task", kind + 1),
            "certainty": ("task", np.full(n_tasks, 0.9)),
        },
        coords={"task": tasks},
        attrs={"task": "school"},
    )
    ax = mtl.plot_clusters(found)
    drawn = ax.images[0].get_array()
    half = (n_tasks + 1) // 2
    assert drawn[:half, :half].min() >= 0.9  # clusters are blocks
    number = "1 cluster" if n_tasks == 1 else "2 clusters"
    assert f"{number}, 90% certain" in ax.get_title(loc="left")
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert set(labels) <= set(tasks)
    assert len(labels) == (n_tasks if n_tasks <= 80 else 40)
    plt.close(ax.figure)


def test_mistakes_are_named():
    data, _, _ = two_kinds("gaussian", n_tasks=4, n_rows=5)
    for structure, options, words in (
        (mtl.Clusters(2), {"task_sd": True}, "task_sd"),
        (mtl.Clusters(2), {"independent_features": ("Intercept",)}, "independent_features"),
        (mtl.OrthogonalGroups({0: "a", 1: "b"}), {}, "does not know 2 of the tasks: 2, 3"),
        (mtl.Exchangeable(), {"priors": {"cluster_sd": 1.0}}, "there are no clusters"),
        (mtl.Clusters(2, gating={0: 1.0, 1: 2.0}), {}, "does not know 2 of the tasks: 2, 3"),
        (mtl.Clusters(2, gating=dict.fromkeys(range(4), 1.0)), {}, "column 1 of `gating` with one value"),
    ):
        with pytest.raises(mtl.errors.SpecError, match=words):
            mtl.build_model(mtl.ModelSpec(task_covariance=structure, **options), data)
    for make, words in (
        (lambda: mtl.Clusters(1), "`n` should be an integer of at least 2"),
        (lambda: mtl.Clusters(2, gating={0: np.nan, 1: 1.0}), r"`gating` should be finite.*\[0\]"),
        (lambda: mtl.Clusters(2, gating={0: [1, 2], 1: [3]}), "as many numbers for each task"),
        (lambda: mtl.Clusters(2, gating={0: ["Public"], 1: ["b"]}), "found 'Public'.*Recode text"),
        (lambda: mtl.Clusters(2, gating={0: [1, 2]}, columns=["a"]), "a name for each of 2 columns"),
        (lambda: mtl.Clusters(2, columns=["a"]), "no meaning without `gating`"),
        (lambda: mtl.Clusters(0, gating=[3.0]), r"`n` should.*\n.*`gating` should be a mapping"),
        (lambda: mtl.DirichletProcess(0), "`truncation`"),
        (lambda: mtl.OrthogonalGroups({0: "a"}), "two groups at least"),
        (lambda: mtl.OrthogonalGroups({0: "a", 1: "b"}, rank=0), "`rank` should be an integer"),
        (lambda: mtl.OrthogonalGroups({0: "a", 1: "b"}, rank={"a": 2, "b": 0}), "should be an integer"),
        (lambda: mtl.OrthogonalGroups({0: "a", 1: "b"}, rank={"a": 2}), "should name every group, not {'b'}"),
        (lambda: mtl.OrthogonalGroups([(0, "a"), (0, "b")]), "has a task in two groups"),
    ):
        with pytest.raises(mtl.errors.SpecError, match=words):
            make()
    with pytest.raises(mtl.errors.SpecError, match="4 orthogonal directions"):
        mtl.build_model(
            mtl.ModelSpec(task_covariance=mtl.OrthogonalGroups({0: "a", 1: "b", 2: "a", 3: "b"}, rank=2)),
            data,
        )


def test_components_in_anyones_model():
    with pm.Model(coords={"clinic": ["a", "b", "c"], "feature": ["Intercept", "dose"]}) as model:
        beta = mtl.task_coefficients("effect", task_covariance=mtl.Clusters(2), dims=("clinic", "feature"))
        pm.Normal("y", beta.sum(axis=1), 1.0, observed=[0.0, 1.0, 2.0])
    assert {"effect_mean", "effect_feature_sd", "effect_cluster_weight", "effect_cluster_deviation"} <= set(
        model.named_vars
    )
    draws = pm.draw(model["effect"], 4000, random_seed=1)
    assert draws.shape == (4000, 3, 2)
    evaluator_logp = model.compile_logp(mode="FAST_COMPILE")(model.initial_point())
    assert np.isfinite(evaluator_logp)


def test_co_clustering_of_many_tasks_is_looked_at_in_a_sample():
    probability = np.random.default_rng(0).dirichlet([1.0, 1.0], size=(2, 20, 40))
    posterior = xr.Dataset(
        {
            "cluster_probability": (("chain", "draw", "task", "cluster"), probability),
            "cluster_weight": (("chain", "draw", "cluster"), probability[:, :, 0]),
        },
        coords={"task": np.arange(40), "cluster": [0, 1]},
    )
    found = unique_elements(_with_co_clustering(posterior))["co_clustering"]
    first, last = (probability[..., t, :] for t in (0, 39))
    names = found["co_clustering_element"].to_numpy().tolist()
    assert len(names) == _MAX_CO_CLUSTERED * (_MAX_CO_CLUSTERED - 1) // 2
    pair = found.to_numpy()[..., names.index("co_clustering[0, 39]")]
    np.testing.assert_allclose(pair, (first * last).sum(axis=-1))


def test_the_density_of_a_stored_draw_of_directions():
    """They start at values of their own, which PyMC does not convert: it has to be possible to save them."""
    rng = np.random.default_rng(1)
    task = np.repeat([0, 1, 2, 3], 4)
    data = mtl.TaskData.from_arrays(rng.standard_normal((16, 2)), rng.standard_normal(16), task)
    spec = mtl.ModelSpec(task_covariance=mtl.OrthogonalGroups({0: "a", 1: "a", 2: "b", 3: "b"}))
    model = mtl.build_model(spec, data, marginal=False)
    values = pm.draw(model.free_RVs, random_seed=2, mode="FAST_COMPILE")
    drawn = {
        rv.name: (("chain", "draw", *(f"{rv.name}_{i}" for i in range(value.ndim))), value[None, None])
        for rv, value in zip(model.free_RVs, values, strict=True)
    }
    idata = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(drawn),
            "constant_data": constant_data(data),
            "observed_data": xr.Dataset({"y": ("row", data.y)}),
        }
    )
    idata.attrs.update(attributes.describe(spec, data.schema, "test"))
    found = log_density(idata)
    assert set(found) == {v.name for v in model.basic_RVs}
    raw = drawn["direction_offset"][1]
    np.testing.assert_allclose(found["direction_offset"], norm.logpdf(raw).sum(), rtol=1e-12)
    assert all(map(np.isfinite, found.values()))
