"""Constant, collinear and too many columns: accepted in one sentence, and identified by their priors."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayes_mtl as mtl
from bayes_mtl.data.dependence import dependent_columns
from bayes_mtl.errors import DataError, DataWarning
from bayes_mtl.model import sampling_model
from bayes_mtl.model.build import is_by_rows
from bayes_mtl.model.priors import default_priors
from tests import contracts


def read(frame, **options):
    """Return the data, and what was said of them."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = mtl.TaskData.from_table(frame, task="task", outcome="y", **options)
    return data, [str(w.message) for w in said if w.category is DataWarning]


def frame(n=24, **columns):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"task": np.repeat(list("abc"), n // 3), "x": rng.standard_normal(n)})
    return table.assign(z=rng.standard_normal(n), y=rng.standard_normal(n), **columns)


def test_one_sentence_names_them():
    table = frame(five=5.0, none=0)
    table["sum"] = 2 * table.x - table.z + 4
    _, said = read(table, features=["x", "z", "five", "none", "sum"])
    assert len(said) == 1
    for words in (
        "3 of 6 columns add nothing",
        "'five' is constant (5 in every row)",
        "'none' is constant (0 in every row)",
        "'sum' is collinear: an exact linear combination of 'x', 'z'",
        "strict=True",
    ):
        assert words in said[0]
    with pytest.raises(DataError) as caught:
        read(table, features=["x", "z", "five", "none", "sum"], strict=True)
    assert [f.where for f in caught.value.findings] == [f"feature '{n}'" for n in ("five", "none", "sum")]


def test_many_are_counted_and_not_listed():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((60, 400)), rng.standard_normal(60)
    with pytest.warns(DataWarning, match="341 of 401 columns") as said:
        mtl.TaskData.from_arrays(X, y, np.repeat([1, 2, 3], 20))
    assert len(said) == 1
    assert len(str(said[0].message)) < 900


def test_features_of_tasks():
    table = frame()
    for name in ("u", "v", "w"):
        table[name] = table.task.map(
            dict(zip("abc", np.random.default_rng(ord(name)).normal(size=3), strict=True))
        )
    _, said = read(table, task_features=["u", "v", "w"])
    assert len(said) == 1
    assert "1 of 3 features of tasks adds nothing" in said[0]
    assert read(table, task_features=["u", "v"])[1] == []


def test_where_shared_features_describe_a_slope_its_mean_can_be_fixed():
    table = frame()
    table["day"] = np.tile(np.arange(8.0), 3)
    with pytest.warns(DataWarning, match=r"priors=\{'beta_mean'"):
        mtl.TaskData.from_table(table, task="task", formula="y ~ day + C(day)", shared_features=["C(day)"])


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(-6, 6), shift=st.floats(-3, 3), n=st.integers(1, 4))
def test_they_are_what_adds_nothing_to_the_rank(seed, scale, shift, n):
    """Whatever the units, and however far from zero, with more rows than columns or fewer."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(n + 2, 30))
    basis = rng.standard_normal((rows, n)) * 10.0 ** (scale * rng.uniform(-1, 1, n)) + 10.0**shift
    extra = basis[:, rng.integers(0, n, 2)] @ np.diag(rng.uniform(0.5, 2, 2))
    names = [f"x{i}" for i in range(n + 2)]
    found = dependent_columns(np.hstack([np.ones((rows, 1)), basis, extra]), ["Intercept", *names])
    assert [d.name for d in found] == names[n:]
    assert all(len(d.of) == 1 and d.of[0] in names[:n] for d in found)


@given(value=st.sampled_from([0.0, 0.1, 5.0, -3e6, 1e-9]), copies=st.integers(1, 3))
def test_default_priors_stay_finite_and_the_others_as_they_were(value, copies):
    table = frame(**{f"c{i}": value for i in range(copies)})
    spec = mtl.ModelSpec()
    alone, _ = read(table, features=["x", "z"])
    data, _ = read(table, features=["x", "z", *(f"c{i}" for i in range(copies))])
    priors, scales = default_priors(spec, data)
    expected, _ = default_priors(spec, alone)
    for name in ("beta_mean", "feature_sd"):
        for one, other in zip(priors[name][:3], expected[name], strict=True):
            assert one.distribution == other.distribution
            assert dict(one.params) == pytest.approx(dict(other.params), rel=1e-12)
    assert np.isfinite(scales["beta_mean"]).all()
    tenfold, _ = read(table.assign(c0=10 * value), features=["x", "z", "c0"])
    ratio = default_priors(spec, tenfold)[1]["beta_mean"][3] / scales["beta_mean"][3]
    assert ratio == pytest.approx(0.1 if value else 1.0)


@pytest.fixture(scope="module", params=[9, 44], ids=lambda n: f"{n} columns")
def wide(request):
    """Six rows a task and more columns: a constant, a copy, a column of zeros, and noise; all laws fixed."""
    rng, n = np.random.default_rng(2), request.param
    table = frame(18, one=1.0, none=0.0)
    table["copy"] = table.x
    for i in range(n - 6):
        table[f"e{i}"] = rng.standard_normal(18)
    data, _ = read(table, features=[c for c in table if c not in ("task", "y")])
    assert is_by_rows(data.pseudo_rows) is (n == 44)
    mean, sd = rng.standard_normal(n), rng.uniform(0.3, 1.5, n)
    fixed = {
        "beta_mean": dict(zip(data.features, mean.tolist(), strict=True)),
        "feature_sd": dict(zip(data.features, sd.tolist(), strict=True)),
        "sigma": 0.7,
    }
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=fixed)
    return data, spec, mean, sd


def test_the_density_is_that_of_all_rows_at_once(wide):
    data, spec, mean, sd = wide
    law = (data.task_index[:, None] == data.task_index) * ((data.X * sd**2) @ data.X.T) + 0.49 * np.eye(18)
    left = data.y - data.X @ mean
    expected = -0.5 * (left @ np.linalg.solve(law, left) + np.linalg.slogdet(2 * np.pi * law)[1])
    models = [
        mtl.build_model(spec, data),
        sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows).model,
    ]
    if data.n_features < 10:  # what is integrated here is quadratic in the number of coefficients
        models += [
            mtl.build_model(spec, data, marginal=False),
            sampling_model(spec, data, collapsed=False, rows=data.pseudo_rows).model,
        ]
    for model in models:
        evaluator = contracts.Evaluator(model)
        found = contracts.integrated_log_density(evaluator, evaluator.start, evaluator.names)
        contracts.assert_close(found, expected)


def test_the_density_of_other_outcomes(wide):
    """`build_model` is a function of y too: of any value, not only of the one that was observed."""
    data, spec, mean, sd = wide
    law = (data.task_index[:, None] == data.task_index) * ((data.X * sd**2) @ data.X.T) + 0.49 * np.eye(18)
    other = np.random.default_rng(3).standard_normal(18)
    left = other - data.X @ mean
    expected = -0.5 * (left @ np.linalg.solve(law, left) + np.linalg.slogdet(2 * np.pi * law)[1])
    found = pm.logp(mtl.build_model(spec, data)["y"], other).sum().eval(mode=contracts.MODE)
    contracts.assert_close(found, expected)


def test_the_posterior_of_such_coefficients_is_exact(wide):
    """Where rows say nothing, the prior stays; draws have the dense mean and sd, to six standard errors."""
    data, spec, mean, sd = wide
    idata = mtl.fit(data, spec, draws=2000, chains=2, random_seed=1, progressbar=False)
    for t, task in enumerate(data.tasks):
        X, y = data.X[data.task_index == t], data.y[data.task_index == t]
        covariance = np.linalg.inv(np.diag(sd**-2.0) + X.T @ X / 0.49)
        exact = covariance @ (mean / sd**2 + X.T @ y / 0.49)
        draws = idata["posterior"]["beta"].sel(task=task).to_numpy().reshape(-1, len(sd))
        white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - exact).T)
        np.testing.assert_array_less(np.abs(white.mean(axis=1)), 6 / np.sqrt(4000))
        np.testing.assert_array_less(np.abs(white.std(axis=1) - 1), 6 / np.sqrt(8000))
        correlation = np.corrcoef(white)[np.triu_indices(len(sd), 1)]
        np.testing.assert_array_less(np.abs(correlation), 6.5 / np.sqrt(4000))


@pytest.mark.filterwarnings("ignore:21 of 41 columns add nothing")
def test_population_means_by_rows_are_exact():
    """Everything that tasks have in common, learned from few rows, against one dense normal law."""
    rng = np.random.default_rng(4)
    X, y, task = rng.standard_normal((20, 41)), rng.standard_normal(20), np.repeat(np.arange(4), 5)
    data = mtl.TaskData.from_arrays(X, y, task, intercept=False, shared_features=["x40"])
    assert is_by_rows(data.pseudo_rows)
    normal = mtl.Prior("Normal", mu=0.3, sigma=0.8)
    spec = mtl.ModelSpec(
        feature_covariance=mtl.Diagonal(),
        priors={"beta_mean": normal, "beta_shared": normal, "feature_sd": 0.6, "sigma": 0.5},
    )
    idata = mtl.fit(data, spec, draws=2000, chains=2, random_seed=1, progressbar=False)
    P = 40
    prior = np.kron(0.36 * np.eye(4) + 0.64, np.eye(P))
    rows = np.zeros((20, 4 * P + 1))
    for i, t in enumerate(data.task_index):
        rows[i, P * t : P * (t + 1)] = data.X[i]
    rows[:, -1] = data.X_shared[:, 0]
    law = np.zeros((4 * P + 1, 4 * P + 1))
    law[:-1, :-1], law[-1, -1] = prior, 0.64
    gain = law @ rows.T @ np.linalg.inv(rows @ law @ rows.T + 0.25 * np.eye(20))
    exact = 0.3 + gain @ (data.y - rows.sum(axis=1) * 0.3)
    covariance = law - gain @ rows @ law
    posterior = idata["posterior"]
    draws = np.column_stack(
        [posterior["beta"].to_numpy().reshape(4000, -1), posterior["beta_shared"].to_numpy().reshape(4000)]
    )
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - exact).T)
    np.testing.assert_array_less(np.abs(white.mean(axis=1)), 6 / np.sqrt(4000))
    np.testing.assert_array_less(np.abs(white.std(axis=1) - 1), 6 / np.sqrt(8000))
