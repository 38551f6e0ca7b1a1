"""Checks of the fit name what is wrong, and nothing where the model is right."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import kstest

import bayes_mtl as mtl
from bayes_mtl.errors import SpecError
from bayes_mtl.inference.attributes import describe
from bayes_mtl.inference.groups import constant_data
from bayes_mtl.summaries.task_fit import _resolution, misfit_in_words, p_value_in_words

T, N, D = 10, 30, 250


def design(rng, n=N):
    task = np.repeat(np.arange(T), n)
    return task, rng.standard_normal(T * n)


def exact(task, x, y, rng, family="gaussian", draws=None, weights=None):
    """The fit of regressions with known noise 1 and flat priors: posterior draws are exact."""
    options = {} if weights is None else {"weights": weights}
    data = mtl.TaskData.from_arrays(x[:, None], y, task, feature_names=["x"], **options)
    if draws is None:
        draws = np.empty((D, T, 2))
        for t in range(T):
            X = np.column_stack([np.ones((task == t).sum()), x[task == t]])
            root = np.linalg.cholesky(np.linalg.inv(X.T @ X))
            mean = np.linalg.lstsq(X, y[task == t], rcond=None)[0]
            draws[:, t] = mean + rng.standard_normal((D, 2)) @ root.T
    posterior = xr.Dataset(
        {"beta": (("chain", "draw", "task", "feature"), draws[None])},
        coords={"task": list(data.tasks), "feature": list(data.features)},
    )
    if family == "gaussian":
        posterior["sigma"] = (("chain", "draw"), np.ones((1, len(draws))))
    groups = {"posterior": posterior, "constant_data": constant_data(data)}
    groups["observed_data"] = xr.Dataset({"y": ("row", y)})  # rows are sorted by task already
    idata = xr.DataTree.from_dict(groups)
    idata.attrs.update(describe(mtl.ModelSpec(family=family), data.schema, mtl.__version__))
    return idata


def right(rng):
    task, x = design(rng)
    return task, x, 1.0 + task + (task - 4) * x + rng.standard_normal(T * N)


def test_at_most_five_percent_of_right_models_are_blamed():
    blamed, p = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = mtl.task_fit(exact(*right(rng), rng), random_seed=seed)
        blamed += bool(found["misfit"].any())
        p.append(float(found["p_overall"].sel(check="spread")))
    # A binomial with 100 trials of 5 % exceeds 19 with a probability below 1e-6.
    assert blamed <= 19
    # p-values of many residuals and few coefficients are nearly uniform: the check is not idle.
    assert kstest(p, "uniform").pvalue > 1e-6
    assert 0.2 < np.mean(p) < 0.8


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        ("spread", lambda e, _: 2.5 * e),
        ("largest", lambda e, _: np.where(np.arange(len(e)) == 7, 9.0, e)),
        ("smallest", lambda e, _: np.where(np.arange(len(e)) == 7, -9.0, e)),
        ("trend", lambda e, x: e + 2.0 * (x**2 - 1.0)),
        ("pit", lambda e, _: np.where(np.arange(len(e)) < 8, 3.0, -1 / 3)),
        ("zeros", lambda e, _: np.where(np.arange(len(e)) < 30, np.nan, e)),
    ],
)
def test_what_is_wrong_in_one_task_is_found_there(check, spoil):
    rng = np.random.default_rng(3)
    task, x = design(rng, 80)
    e = rng.standard_normal(len(task))
    one = task == 6
    e[one] = spoil(e[one], x[one])
    y = 1.0 + task + (task - 4) * x + e
    y = np.where(np.isnan(y), 0.0, y)
    found = mtl.task_fit(exact(task, x, y, rng))
    assert check in found["check"].to_numpy()
    wrong = found["misfit"].sel(check=check).to_series()
    assert wrong[wrong].index.tolist() == [6]
    words = " ".join(misfit_in_words(found))
    assert f"{check}: 1 of 10 tasks do not fit (6)" in words
    assert "at most 5% of data sets" in words
    ax = mtl.plot_task_fit(found, check)
    assert ax.get_title(loc="left").startswith(f"{check}: 1 of 10 tasks do not fit")


def test_numbers_are_those_of_the_residuals():
    rng = np.random.default_rng(0)
    task, x, y = right(rng)
    beta = np.tile(np.column_stack([1.0 + np.arange(T), np.arange(T) - 4.0]), (D, 1, 1))
    found = mtl.task_fit(exact(task, x, y, rng, draws=beta))
    r = (y - 1.0 - task - (task - 4) * x).reshape(T, N)
    np.testing.assert_allclose(found["observed"].sel(check="spread"), np.sqrt((r**2).mean(axis=1)))
    np.testing.assert_allclose(found["observed"].sel(check="smallest"), r.min(axis=1))
    np.testing.assert_allclose(found["observed"].sel(check="largest"), r.max(axis=1))
    from scipy.stats import norm

    middle = (np.arange(N) + 0.5) / N
    pit = np.abs(norm.cdf(np.sort(r, axis=1)) - middle).max(axis=1) * np.sqrt(N)
    np.testing.assert_allclose(found["observed"].sel(check="pit"), pit, atol=1e-9)
    slope = np.arange(T) - 4.0
    along = np.array([row[np.argsort(s * row_x, kind="stable")] for row, s, row_x in
                      zip(r, slope, x.reshape(T, N), strict=True)])  # fmt: skip
    walk = np.cumsum(along - along.mean(axis=1, keepdims=True), axis=1)
    np.testing.assert_allclose(
        found["observed"].sel(check="trend"), np.abs(walk).max(axis=1) / np.sqrt(N), atol=1e-9
    )


def test_binary_outcomes_are_checked_too():
    rng = np.random.default_rng(1)
    task, x = design(rng)
    beta = np.tile(np.column_stack([np.zeros(T), np.full(T, 6.0)]), (D, 1, 1))
    y = (rng.random(T * N) < 1 / (1 + np.exp(-6.0 * x))).astype(float)
    found = mtl.task_fit(exact(task, x, y, rng, family="bernoulli", draws=beta))
    assert found["check"].to_numpy().tolist() == ["spread", "smallest", "largest", "trend"]
    assert not found["misfit"].any()
    wrong = y.copy()
    wrong[np.flatnonzero(task == 2)[np.argmax(x[task == 2])]] = 0.0  # of probability 1e-5 or so
    found = mtl.task_fit(exact(task, x, wrong, rng, family="bernoulli", draws=beta))
    assert found["misfit"].any("check").to_series().loc[lambda s: s].index.tolist() == [2]
    weighted = exact(task, x, y, rng, family="bernoulli", draws=beta, weights=np.full(T * N, 3.0))
    with pytest.raises(SpecError, match="one outcome per row"):
        mtl.task_fit(weighted)


@pytest.mark.parametrize(
    ("y", "unit"),
    [([0.0, 3.0, 5.0], 1.0), ([0.0, 0.1, 2.5], 0.1), ([0.0, np.pi], 0.0), ([0.0, 1e9 + 0.5], 0.0)],
)
def test_the_unit_of_rounded_outcomes(y, unit):
    assert _resolution(np.array(y)) == pytest.approx(unit)


def test_no_p_value_of_draws_is_zero_in_words():
    assert [p_value_in_words(p) for p in (0.0, 0.004, 0.006, 0.25)] == [
        "below 0.01",
        "below 0.01",
        "0.01",
        "0.25",
    ]
