"""Basis tasks: matched across draws, drawn from their exact law, and which tasks use the same ones."""

import numpy as np
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl import errors
from bayes_mtl.inference.attributes import describe
from bayes_mtl.inference.groups import constant_data
from bayes_mtl.summaries._alignment import match_factors, matched, varimax

T, K, FEATURES = 5, 2, ("x0", "x1", "x2")
LOADINGS = np.array([[0.9, 0.0], [0.7, 0.1], [-0.8, 0.3], [0.2, 0.6], [0.0, -0.5]])


def rotation(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def shuffled(rng, loadings):
    """Return copies of loadings with columns in any order with any sign."""
    order = np.array([rng.permutation(loadings.shape[-1]) for _ in loadings])
    sign = rng.choice([-1.0, 1.0], size=order.shape)
    return np.take_along_axis(loadings, order[:, None, :], axis=2) * sign[:, None, :]


class TestAlignment:
    def test_varimax_undoes_rotations(self):
        rng = np.random.default_rng(0)
        simple = np.kron(np.eye(3), np.ones((4, 1))) * rng.uniform(0.5, 1.0, (12, 1))
        turned = np.stack([simple @ rotation(rng, 3) for _ in range(20)])
        found = turned @ varimax(turned)
        order, sign = match_factors(np.concatenate([simple[None], found]))
        same = matched(np.concatenate([simple[None], found]), order, sign)
        np.testing.assert_allclose(same, np.broadcast_to(same[0], same.shape), atol=1e-6)

    def test_varimax_is_a_maximum(self):
        rng = np.random.default_rng(1)
        loadings = rng.standard_normal((1, 8, 2))

        def criterion(turned):
            return (turned**2).var(axis=-2).sum(axis=-1)

        R = varimax(loadings)
        np.testing.assert_allclose(R[0] @ R[0].T, np.eye(2), atol=1e-12)
        angle = np.linspace(0, np.pi, 500)
        every = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
        assert criterion(loadings[0] @ R[0]) >= criterion(loadings[0] @ every).max() - 1e-9

    def test_order_and_signs_are_matched(self):
        rng = np.random.default_rng(2)
        truth = rng.standard_normal((6, 4))
        noisy = truth + 0.1 * rng.standard_normal((50, 6, 4))
        shuffle = shuffled(rng, noisy)
        found = matched(shuffle, *match_factors(shuffle))
        assert found.std(axis=0).max() < 0.15  # the noise that was added
        both = np.stack([truth, found.mean(axis=0)])
        same = matched(both, *match_factors(both))
        np.testing.assert_allclose(same[1], same[0], atol=0.06)


def tree(loadings, structure, draws=4, **values):
    """A fit with these loadings (draw, task, factor) and, in every draw, these values."""
    tasks = [f"t{i}" for i in range(loadings.shape[1])]
    rng = np.random.default_rng(3)
    X, task = rng.standard_normal((4 * len(tasks), len(FEATURES))), np.repeat(tasks, 4)
    data = mtl.TaskData.from_arrays(X, X.sum(axis=1), task, feature_names=FEATURES, intercept=False)
    loadings = np.broadcast_to(loadings, (draws, *loadings.shape[1:]))
    names = {
        "beta": ("task", "feature"),
        "beta_mean": ("feature",),
        "feature_sd": ("feature",),
        "feature_corr": ("feature", "feature_bis"),
        "task_sd": ("task",),
    }
    full = {
        "beta": np.zeros((len(tasks), 3)), "beta_mean": np.zeros(3), "feature_sd": np.ones(3), **values
    }  # fmt: skip
    out = {
        k: (("chain", "draw", *names[k]), np.broadcast_to(v, (1, draws, *np.shape(v))))
        for k, v in full.items()
    }
    out["task_loadings"] = (("chain", "draw", "task", "factor"), loadings[None])
    out["task_unique_sd"] = (("chain", "draw", "task"), np.sqrt(1.0 - (loadings**2).sum(axis=2))[None])
    coords = {"task": tasks, "feature": list(FEATURES), "feature_bis": list(FEATURES)}
    dataset = xr.Dataset(out, coords=coords)
    idata = xr.DataTree.from_dict(
        {"posterior": dataset, "prior": dataset, "constant_data": constant_data(data)}
    )
    spec = mtl.ModelSpec(task_covariance=structure, independent_features=())
    idata.attrs.update(describe(spec, data.schema, "test"))
    return idata


def test_basis_tasks_follow_their_law_given_the_coefficients():
    rng = np.random.default_rng(4)
    sd, scale = np.array([0.5, 1.0, 2.0]), np.array([1.0, 2.0, 0.5, 1.0, 1.5])
    R = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, -0.4], [0.0, -0.4, 1.0]])
    beta, mean = rng.standard_normal((T, 3)), np.array([0.3, -0.2, 1.0])
    idata = tree(
        LOADINGS[None], mtl.SparseBasis(K), draws=30_000, beta=beta, beta_mean=mean, feature_sd=sd,
        feature_corr=R, task_sd=scale,
    )  # fmt: skip
    found = mtl.basis(idata, ci_prob=0.5)
    # Jointly normal: vec(F) with covariance I (x) Sigma, vec(B) with covariance S Omega S (x) Sigma.
    Sigma = np.outer(sd, sd) * R
    S = np.diag(scale)
    Omega = LOADINGS @ LOADINGS.T + np.diag(1.0 - (LOADINGS**2).sum(axis=1))
    between = np.kron(LOADINGS.T @ S, Sigma)
    gain = between @ np.linalg.inv(np.kron(S @ Omega @ S, Sigma))
    expected = (gain @ (beta - mean).ravel()).reshape(K, 3)
    covariance = np.kron(np.eye(K), Sigma) - gain @ between.T
    deviation = np.sqrt(np.diag(covariance)).reshape(K, 3)
    np.testing.assert_allclose((found["basis"] - expected) / deviation, 0.0, atol=0.03)
    half_width = (found["basis_upper"] - found["basis_lower"]) / 2 / 0.6745
    np.testing.assert_allclose(half_width / deviation, 1.0, atol=0.04)
    np.testing.assert_allclose(found["loading"], LOADINGS)
    np.testing.assert_allclose(found["shared"], (LOADINGS**2).sum(axis=1))
    np.testing.assert_allclose(found["share"], (LOADINGS**2).mean(axis=0))
    assert found["belongs"].to_numpy().tolist() == [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]]


def test_overlap_does_not_depend_on_order_and_signs():
    rng = np.random.default_rng(5)
    draws = 0.8 * LOADINGS + 0.05 * rng.standard_normal((40, T, K))
    plain = mtl.basis(tree(draws, mtl.SparseBasis(K), draws=40))
    mixed = mtl.basis(tree(shuffled(rng, draws), mtl.SparseBasis(K), draws=40))
    size = np.abs(draws)
    length = np.sqrt((size**2).sum(axis=2))
    expected = np.einsum("ntk,nsk->nts", size, size) / (length[:, :, None] * length[:, None, :])
    for found in (plain, mixed):
        np.testing.assert_allclose(found["overlap"], expected.mean(axis=0))
        lower = np.quantile(expected, (1 - found.attrs["ci_prob"]) / 2, axis=0)
        np.testing.assert_allclose(found["overlap_lower"], lower)
        off = ~np.eye(T, dtype=bool)
        np.testing.assert_allclose(found["overlap_contraction"].to_numpy()[off], 0.0, atol=1e-12)
    np.testing.assert_allclose(mixed["loading"], plain["loading"])


def test_rotations_of_low_rank_are_undone():
    rng = np.random.default_rng(6)
    turned = np.stack([LOADINGS @ rotation(rng, K) for _ in range(30)])
    plain = mtl.basis(tree(np.repeat(LOADINGS[None], 30, axis=0), mtl.LowRank(K), draws=30))
    found = mtl.basis(tree(turned, mtl.LowRank(K), draws=30))
    for name in ("loading", "overlap", "overlap_lower"):
        np.testing.assert_allclose(found[name], plain[name], atol=1e-6)
    assert found.attrs["alignment"] == "varimax, order and signs matched"


@pytest.mark.parametrize("n_tasks", [2, 5, 100])
def test_picture(n_tasks):
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(7)
    found = mtl.basis(tree(rng.uniform(-0.6, 0.6, (4, n_tasks, K)), mtl.SparseBasis(K)))
    axes = mtl.plot_basis(found.assign_attrs(r_hat=1.2))
    drawn = axes[0].images[0].get_array()
    labels = [t.get_text() for t in axes[0].get_yticklabels()]
    tasks = found["task"].to_numpy().tolist()
    assert set(labels) <= set(tasks)
    assert len(labels) == (n_tasks if n_tasks <= 80 else 40)
    named = axes[0].get_yticks().astype(int)
    np.testing.assert_allclose(drawn[named], found["loading"].sel(task=labels))
    np.testing.assert_allclose(axes[1].images[0].get_array(), found["basis"].T)
    assert "chains disagree (R-hat 1.20)" in axes[0].get_xlabel()
    plt.close(axes[0].figure)
    _, three = plt.subplots(1, 3)
    with pytest.raises(errors.SpecError, match="should be two, found 3"):
        mtl.plot_basis(found, axes=three)
    plt.close("all")


def test_fits_without_basis_tasks_are_refused():
    idata = tree(LOADINGS[None], mtl.LKJ(2.0))
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().drop_vars("task_unique_sd"))
    with pytest.raises(errors.SpecError, match="whose structure is LKJ"):
        mtl.basis(idata)
