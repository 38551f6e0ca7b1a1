"""New rows and new tasks, on posteriors whose numbers are known: one frozen draw, no sampling.

Means and covariances of new draws are six standard errors from what would be wrong, or further.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl import errors
from bayes_mtl.inference.attributes import describe
from bayes_mtl.inference.groups import constant_data
from tests.test_relatedness import omega

MEAN, SD = np.array([1.0, -2.0, 0.5]), np.array([0.5, 1.0, 2.0])
CORR = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, -0.4], [0.0, -0.4, 1.0]])
DRAWS = 100_000


def table(n=60):
    rng = np.random.default_rng(1)
    task = np.repeat(["a", "b", "c"], n // 3)
    return pd.DataFrame(
        {
            "task": task,
            "x1": rng.standard_normal(n),
            "x2": rng.standard_normal(n),
            "z": pd.Series(task).map({"a": 1.0, "b": 2.0, "c": 4.0}),
            "y": rng.standard_normal(n),
        }
    )


def frozen(data, spec, draws=DRAWS, **values):
    """A fit in which every draw has the same hyperparameters."""
    dims = {
        "beta_mean": ("feature",),
        "feature_sd": ("feature",),
        "feature_corr": ("feature", "feature_bis"),
        "task_feature_effects": ("feature", "task_feature"),
        "task_sd": ("task",),
        "task_loadings": ("task", "factor"),
        "task_loadings_scale": ("factor",),
        "task_unique_sd": ("task",),
        "beta": ("task", "feature"),
        "beta_shared": ("shared_feature",),
        "level_share": ("level",),
        "task_reliability": ("task",),
    }
    out = {
        k: (("chain", "draw", *dims.get(k, ())), np.broadcast_to(v, (1, draws, *np.shape(v))))
        for k, v in values.items()
    }
    coords = {"task": list(data.tasks), "feature": list(data.features)}
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(out, coords=coords),
            "constant_data": constant_data(data),
            "observed_data": xr.Dataset({"y": ("row", data.y)}),
        }
    )
    tree.attrs.update(describe(spec, data.schema, "test"))
    return tree


def new_task_draws(idata, rows):
    """Coefficients of new tasks, read off predictions at unit rows."""
    y = mtl.predict(idata, rows, new_tasks="population", random_seed=1)["predictions"]["y"].to_numpy()[0]
    base = y[:, 0]
    return np.stack([base, y[:, 1] - base, y[:, 2] - base], axis=1)


UNIT = pd.DataFrame({"task": "new", "x1": [0.0, 1.0, 0.0], "x2": [0.0, 0.0, 1.0], "z": 3.0})


def test_new_tasks_follow_the_population():
    data = mtl.TaskData.from_table(table(), task="task", outcome="y", features=["x1", "x2"])
    idata = frozen(
        data,
        mtl.ModelSpec(),
        beta_mean=MEAN,
        feature_sd=SD,
        feature_corr=CORR,
        beta=np.zeros((3, 3)),
        sigma=1.0,
    )
    draws = new_task_draws(idata, UNIT)
    sigma = SD[:, None] * CORR * SD
    n = len(draws)
    np.testing.assert_allclose((draws.mean(axis=0) - MEAN) / SD, 0, atol=6 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(SD, SD), CORR, atol=9 / np.sqrt(n))
    assert np.abs(np.cov(draws.T) - sigma).max() < 0.2


def test_task_features_and_task_scales_of_new_tasks():
    data = mtl.TaskData.from_table(
        table(), task="task", outcome="y", features=["x1", "x2"], task_features=["z"], center=True
    )
    effects = np.array([[1.0], [2.0], [-1.0]])
    spec = mtl.ModelSpec(
        task_covariance=mtl.LowRank(1),
        feature_covariance=mtl.Diagonal(),
        task_sd=True,
        priors={"task_sd": 2.0},
    )
    idata = frozen(
        data,
        spec,
        task_loadings=np.zeros((3, 1)),
        task_unique_sd=np.ones(3),
        task_loadings_scale=np.zeros(1),
        beta_mean=MEAN,
        task_feature_effects=effects,
        feature_sd=SD,
        task_sd=np.full(3, 2.0),
        beta=np.zeros((3, 3)),
        sigma=1.0,
    )
    rows = UNIT.copy()
    rows[["x1", "x2"]] += [data.schema.design.center[i] for i in (1, 2)]
    draws = new_task_draws(idata, rows)
    z = 3.0 - np.mean([1.0, 2.0, 4.0])
    expected_sd = SD * np.array([1.0, 2.0, 2.0])  # the intercept stands outside: not scaled
    n = len(draws)
    np.testing.assert_allclose(
        (draws.mean(axis=0) - MEAN - effects[:, 0] * z) / expected_sd, 0, atol=6 / np.sqrt(n)
    )
    np.testing.assert_allclose(draws.std(axis=0) / expected_sd, 1, atol=4.5 / np.sqrt(n))
    with pytest.raises(errors.PredictionError, match="change within the task"):
        mtl.predict(idata, rows.assign(z=[1.0, 2.0, 3.0]), new_tasks="population")


_PLACES = {"a": (0.0, 0.0), "b": (1.0, 0.0), "c": (0.0, 3.0), "d": (0.5, 0.2), "e": (0.6, 0.3)}
_KERNEL = mtl.Kernel(positions=_PLACES, shape="exponential")
_GROUPS = {"a": "g", "b": "g", "d": "g", "c": "h", "e": "top", "g": "top", "h": "other"}
# A structure that knows tasks d and e, of which there are no rows, and its parameters.
RELATED = {
    "Kernel": (_KERNEL, {"rho": 0.9, "lengthscale": 2.0}),
    "Matrix": (mtl.Kernel(0.6 + 0.4 * np.eye(5), tasks=list("abcde")), {"rho": 0.8}),
    "Graph": (mtl.Graph({"a": ["b", "d"], "b": ["d"], "d": ["e"], "c": []}), {"rho": 0.95}),
    "Tree": (mtl.Tree(_GROUPS), {"level_share": [0.3, 0.6, 0.1]}),
    "StudentT": (mtl.StudentT(_KERNEL, nu=1e9), {"rho": 0.9, "lengthscale": 2.0}),
}


@pytest.mark.parametrize("name", RELATED)
def test_new_tasks_follow_the_known_ones_that_they_are_related_to(name):
    """As the exact posterior of all tasks together, some of which have no rows."""
    rng, n_draws = np.random.default_rng(3), 25_000
    structure, parameters = RELATED[name]
    inner = structure.inner if isinstance(structure, mtl.StudentT) else structure
    # Known tasks deviate more than new ones, whose reliability is 1 for so many degrees of freedom.
    scale = 1.5 if isinstance(structure, mtl.StudentT) else 1.0
    of_task = np.array([scale, scale, scale, 1.0, 1.0])
    Omega = np.outer(of_task, of_task) * omega(
        inner, list("abcde"), **{k: np.asarray(v) for k, v in parameters.items()}
    )
    data = mtl.TaskData.from_table(table(), task="task", outcome="y", features=["x1", "x2"])
    # The intercept stands outside of the task covariance.
    R = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, -0.4], [0.0, -0.4, 1.0]])
    Sigma, out = np.outer(SD, SD) * R, np.diag([1.0, 0.0, 0.0])
    prior = np.kron(Omega, (np.eye(3) - out) @ Sigma) + np.kron(np.eye(5), out @ Sigma)
    # Rows of a, b, c only, with noise of 4.
    X = np.zeros((data.n_rows, 15))
    for i, (row, t) in enumerate(zip(data.X, data.task_index, strict=True)):
        X[i, 3 * t : 3 * t + 3] = row
    beta = rng.multivariate_normal(np.zeros(15), prior)
    y = X @ beta + 4 * rng.standard_normal(data.n_rows)
    gain = prior @ X.T @ np.linalg.inv(X @ prior @ X.T + 16 * np.eye(data.n_rows))
    covariance = prior - gain @ X @ prior
    sd = np.sqrt(np.diag(covariance)[9:])
    y *= 2.0 / np.abs((gain @ y)[9:] / sd).max()  # what the known tasks say of the new ones matters
    centre = gain @ y
    known = rng.multivariate_normal(centre[:9], covariance[:9, :9], size=n_draws)

    spec = mtl.ModelSpec(task_covariance=structure)
    values = {"beta_mean": MEAN, "feature_sd": SD, "feature_corr": R, "sigma": 4.0} | parameters
    if scale > 1.0:
        values["task_reliability"] = np.full(3, scale**-2)
    idata = frozen(data, spec, draws=n_draws, beta=np.zeros((3, 3)), **values)
    drawn = xr.DataArray(MEAN + known.reshape(1, n_draws, 3, 3), dims=("chain", "draw", "task", "feature"))
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().assign(beta=drawn))
    rows = pd.concat([UNIT.assign(task=t) for t in "de"])
    y = mtl.predict(idata, rows, new_tasks="population", random_seed=1)["predictions"]["y"].to_numpy()[0]
    y = y.reshape(n_draws, 2, 3)
    y[..., 1:] -= y[..., :1]
    new = y.reshape(n_draws, 6) - np.tile(MEAN, 2)
    np.testing.assert_allclose((new.mean(axis=0) - centre[9:]) / sd, 0.0, atol=6 / np.sqrt(n_draws))
    np.testing.assert_allclose(
        np.cov(new.T) / np.outer(sd, sd), covariance[9:, 9:] / np.outer(sd, sd), atol=9 / np.sqrt(n_draws)
    )


def test_places_of_new_tasks_are_read_from_the_table():
    frame = table().assign(
        east=lambda d: d.task.map({"a": 0.0, "b": 1.0, "c": 9.0}), town=lambda d: d.task.map(str.upper)
    )
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x1", "x2"])
    columns = {"task": "task"}
    for structure, parameters in (
        (mtl.Kernel.from_table(frame, columns=["east"], **columns), {"rho": 0.999, "lengthscale": 10.0}),
        (mtl.Tree.from_table(frame, levels=["town"], **columns), {"level_share": [0.999, 0.001]}),
        (
            mtl.StudentT(mtl.Tree.from_table(frame, levels=["town"], **columns), nu=1e9),
            {"level_share": [0.999, 0.001]},
        ),
    ):
        values = {"beta_mean": MEAN, "feature_sd": SD, "sigma": 1.0} | parameters
        if isinstance(structure, mtl.StudentT):
            values["task_reliability"] = np.ones(3)
        beta = MEAN + np.array([[0.0, 1.0, 2.0], [0.0, -1.0, 1.0], [0.0, 0.5, -2.0]])
        spec = mtl.ModelSpec(task_covariance=structure, feature_covariance=mtl.Diagonal())
        idata = frozen(data, spec, draws=12_000, beta=beta, **values)
        rows = UNIT.assign(east=1.0, town="B")
        slopes = new_task_draws(idata, rows)[:, 1:]
        np.testing.assert_allclose(slopes.mean(axis=0), beta[1, 1:], atol=0.1)
        assert slopes.std(axis=0).max() < 0.4
        far = new_task_draws(idata, rows.assign(east=1e6, town="nowhere"))[:, 1:]
        np.testing.assert_allclose(far.mean(axis=0), MEAN[1:], atol=0.1)
        np.testing.assert_allclose(far.std(axis=0) / SD[1:], 1.0, atol=0.08)
        # Known tasks need no places.
        mtl.predict(idata, UNIT.assign(task="a"), new_tasks="population")
        lost = structure.task_columns[0]
        with pytest.raises(errors.PredictionError, match=f"column '{lost}': is not in the table"):
            mtl.predict(idata, rows.drop(columns=lost), new_tasks="population")
        with pytest.raises(errors.PredictionError, match="'new' in more than one place"):
            mtl.predict(idata, rows.assign(**{lost: [1.0, 2.0, 2.0]}), new_tasks="population")
        with pytest.raises(errors.PredictionError, match="missing places"):
            mtl.predict(idata, rows.assign(**{lost: None}), new_tasks="population")


def test_one_known_task_says_nothing_of_its_relatives():
    frame = table().query("task == 'a'")
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x1"])
    spec = mtl.ModelSpec(task_covariance=_KERNEL, feature_covariance=mtl.Diagonal())
    idata = frozen(
        data, spec, draws=3, beta=np.zeros((1, 2)), beta_mean=[0.0, 0.0], feature_sd=[1.0, 1.0], sigma=1.0
    )
    with pytest.raises(errors.PredictionError, match="says nothing"):
        mtl.predict(idata, UNIT.assign(task="d"), new_tasks="population")
    mtl.predict(idata, UNIT.assign(task="elsewhere"), new_tasks="population")


def test_noise_scales_of_new_tasks():
    data = mtl.TaskData.from_table(table(), task="task", outcome="y")
    spec = mtl.ModelSpec(family=mtl.Gaussian(task_noise=True))
    values = {"beta_mean": [0.0], "feature_sd": [1e-9], "sigma_mean": 2.0, "sigma_spread": 0.5}
    idata = frozen(data, spec, beta=np.zeros((3, 1)), **values)
    sigma = xr.DataArray(np.ones((1, DRAWS, 3)), dims=("chain", "draw", "task"))
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().assign(sigma=sigma))
    y = mtl.predict(
        idata, pd.DataFrame({"task": ["new", "a"]}), kind="response", new_tasks="population", random_seed=2
    )
    found = y["predictions"]["y"].std(("chain", "draw")).to_numpy()
    np.testing.assert_allclose(found, [2.0 * np.exp(0.5**2), 1.0], rtol=0.03)


def test_shared_slopes_alone():
    data = mtl.TaskData.from_table(
        table(), task="task", formula="y ~ x1", shared_features=["x1", "Intercept"]
    )
    spec = mtl.ModelSpec(task_covariance=mtl.CompletePooling())
    idata = frozen(data, spec, draws=5, beta_shared=[1.0, 3.0], beta=np.zeros((3, 0)), sigma=1.0)
    rows = pd.DataFrame({"task": ["a", "new"], "x1": [2.0, 2.0]})
    y = mtl.predict(idata, rows, new_tasks="population")["predictions"]["y"]
    np.testing.assert_allclose(y, 7.0)


def test_noise_of_new_tasks_whose_every_slope_is_shared():
    data = mtl.TaskData.from_table(
        table(), task="task", formula="y ~ x1", shared_features=["x1", "Intercept"]
    )
    spec = mtl.ModelSpec(mtl.Gaussian(task_noise=True), task_covariance=mtl.CompletePooling())
    values = {"sigma_mean": 5.0, "sigma_spread": 1e-6, "beta": np.zeros((3, 0))}
    idata = frozen(data, spec, beta_shared=[1.0, 3.0], **values)
    sigma = xr.DataArray(np.full((1, DRAWS, 3), 4.0), dims=("chain", "draw", "task"))
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().assign(sigma=sigma))
    rows = pd.DataFrame({"task": ["a", "new"], "x1": [2.0, 2.0]})
    y = mtl.predict(idata, rows, kind="response", new_tasks="population", random_seed=1)["predictions"]["y"]
    np.testing.assert_allclose(y.mean(("chain", "draw")), 7.0, atol=0.15)
    np.testing.assert_allclose(y.std(("chain", "draw")), [4.0, 5.0], rtol=0.03)


def test_what_a_task_has_of_its_own_is_not_inherited():
    """A new task at the place of a known one follows its deviations, not its exceptions."""
    data = mtl.TaskData.from_table(table(), task="task", outcome="y", features=["x1", "x2"])
    places = {"a": 0.0, "b": 10.0, "c": 20.0, "d": 0.0}
    spec = mtl.ModelSpec(
        task_covariance=mtl.Kernel(positions=places, lengthscale=1.0),
        feature_covariance=mtl.Diagonal(),
        feature_scales=mtl.Horseshoe(expected_features=1, task_specific=True),
    )
    own = np.array([[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    beta = np.hstack([np.zeros((3, 1)), own + np.array([[0.2, 0.0], [0.0, 0.0], [0.0, 0.0]])])
    values = {"beta_mean": np.zeros(3), "feature_sd": [0.5, 0.1, 0.1], "sigma": 1.0, "rho": 0.9999}
    idata = frozen(data, spec, draws=2000, beta=beta, beta_specific_scale=1e-6, **values)
    dims = ("chain", "draw", "task", "candidate_feature")
    part = xr.DataArray(np.broadcast_to(own, (1, 2000, 3, 2)), {"candidate_feature": ["x1", "x2"]}, dims)
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().assign(beta_specific=part))
    fixed = idata["constant_data"].to_dataset().assign(outcome_unit=1.0)
    idata["constant_data"] = xr.DataTree(fixed)
    slopes = new_task_draws(idata, UNIT.assign(task="d"))[:, 1:]
    np.testing.assert_allclose(slopes.mean(axis=0), [0.2, 0.0], atol=0.01)


def test_new_levels_follow_the_known_ones_that_they_are_related_to():
    frame = table().assign(item=np.tile(list("pqrs"), 15))
    kernel = mtl.Kernel(positions={"p": 0.0, "q": 10.0, "r": 20.0, "s": 30.0, "t": 0.0}, lengthscale=1.0)
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", groupings=["item"])
    values = {"beta_mean": [0.0], "feature_sd": [1e-9], "sigma": 1.0, "item_rho": 0.9999}
    idata = frozen(
        data, mtl.ModelSpec(groupings={"item": kernel}), draws=20_000, beta=np.zeros((3, 1)), **values
    )
    effects = np.broadcast_to(np.array([[5.0], [0.0], [0.0], [0.0]]), (1, 20_000, 4, 1))
    added = xr.Dataset(
        {
            "item_effects": (("chain", "draw", "item", "item_feature"), effects),
            "item_sd": (("chain", "draw", "item_feature"), np.full((1, 20_000, 1), 3.0)),
        },
        {"item": list("pqrs"), "item_feature": ["Intercept"]},
    )
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().merge(added))
    rows = pd.DataFrame({"task": "a", "item": ["p", "t", "elsewhere"]})
    y = mtl.predict(idata, rows, new_tasks="population", random_seed=1)["predictions"]["y"]
    np.testing.assert_allclose(y.mean(("chain", "draw")), [5.0, 5.0, 0.0], atol=0.2)
    np.testing.assert_allclose(y.std(("chain", "draw")), [0.0, 3 * 0.02**0.5 / 10, 3.0], atol=0.1)


def test_wide_tables_get_every_outcome():
    frame = table().assign(other=lambda f: -f["y"])
    data = mtl.TaskData.from_table(frame, outcomes=["y", "other"], features=["x1"])
    idata = frozen(data, mtl.ModelSpec(), draws=3, beta=[[1.0, 2.0], [3.0, 4.0]], sigma=1.0)
    assert data.tasks == ("other", "y")
    found = mtl.predict(idata, pd.DataFrame({"x1": [0.0, 10.0]}))["predictions"]
    assert found["row_task"].to_numpy().tolist() == ["y", "y", "other", "other"]
    np.testing.assert_allclose(found["y"].isel(chain=0, draw=0), [3.0, 43.0, 1.0, 21.0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([None, "a"], "missing labels in rows"),
        ([1, "a"], "the model knows str"),
        ([7, 7], r"type int \(7\), the model knows str"),
        ([True, "a"], r"type bool \(True\), the model knows str"),
    ],
)
def test_labels_of_another_kind_are_no_new_tasks(labels, message):
    data = mtl.TaskData.from_table(table().replace({"task": {"b": "1"}}), task="task", outcome="y")
    idata = frozen(
        data, mtl.ModelSpec(), draws=3, beta=np.zeros((3, 1)), beta_mean=[0.0], feature_sd=[1.0], sigma=1.0
    )
    with pytest.raises(errors.PredictionError, match=message):
        mtl.predict(idata, pd.DataFrame({"task": labels}), new_tasks="population")
    new = mtl.predict(idata, pd.DataFrame({"task": ["7", "7", "a"]}), new_tasks="population")
    y = new["predictions"]["y"].to_numpy()
    np.testing.assert_array_equal(y[..., 0], y[..., 1])  # one draw for the new task


def test_weights_of_new_rows_must_be_positive():
    data = mtl.TaskData.from_table(table().assign(w=1.0), task="task", outcome="y", weights="w")
    idata = frozen(data, mtl.ModelSpec(), draws=3, beta=np.zeros((3, 1)), sigma=1.0)
    with pytest.raises(errors.PredictionError, match="should be positive"):
        mtl.predict(idata, pd.DataFrame({"task": ["a"], "w": [-1.0]}), kind="response")
