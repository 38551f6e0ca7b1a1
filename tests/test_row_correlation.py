"""Residual correlation of outcomes that are in one row of a wide table."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayes_mtl as mtl
from bayes_mtl.errors import DataWarning
from bayes_mtl.inference.row_correlation import correlate, row_correlation

OUTCOMES = ["a", "b", "c", "d"]


def exact(correlation, n, seed=0, columns=None):
    """Return residuals with exactly these correlations, beside `columns` (default: ones)."""
    rng = np.random.default_rng(seed)
    beside = np.ones((n, 1)) if columns is None else columns
    white = np.linalg.qr(np.column_stack([beside, rng.standard_normal((n, len(correlation)))]))[0]
    return white[:, beside.shape[1] :] @ np.linalg.cholesky(correlation).T * np.sqrt(n)


def equal(correlation, size=4):
    return correlation * np.ones((size, size)) + (1 - correlation) * np.eye(size)


def wide(correlation, n=80, seed=0):
    x = np.random.default_rng(seed + 1).standard_normal(n)
    y = exact(equal(correlation), n, seed, np.column_stack([np.ones(n), x]))
    return pd.DataFrame(y, columns=OUTCOMES).assign(x=x)


def read(table, **options):
    return mtl.TaskData.from_table(table, **{"outcomes": OUTCOMES, "features": ["x"], **options})


def fitted(data, family="gaussian"):
    """Fit with every hyperparameter fixed and a flat prior: draws are exact, nothing is compiled."""
    fixed = {"beta_mean": 0.0, "feature_sd": 50.0, "sigma": 1.0}
    spec = mtl.ModelSpec(family, feature_covariance=mtl.Diagonal(), priors=fixed)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        idata = mtl.fit(data, spec, draws=2000, chains=1, random_seed=1, progressbar=False)
    return idata, [str(w.message) for w in said]


def test_correlations_of_least_squares_residuals():
    idata, said = fitted(read(wide(0.8)))
    found = row_correlation(idata)
    np.testing.assert_allclose(found.pairs["correlation"], 0.8, atol=0.01)
    assert found.pairs[["task_a", "task_b"]].to_numpy().tolist()[:3] == [["a", "b"], ["a", "c"], ["a", "d"]]
    assert found.inflation == pytest.approx(1 + 3 * found.mean)
    assert len(said) == 1
    assert "in one row are correlated" in said[0]
    assert f"{found.mean:.2f} on average" in said[0]
    assert f"about {found.inflation:.1f} times" in said[0]


@pytest.mark.parametrize("unique", [True, False])
def test_rows_that_are_missing_or_in_another_order(unique):
    """Rows of an outcome are matched by the row they are from, whatever is missing."""
    table = wide(0.95)
    table.index = pd.Index(np.arange(80)[::-1] if unique else np.repeat("row", 80))
    table.iloc[:25, 0] = np.nan
    table.iloc[20:30, 1] = np.nan
    found = row_correlation(fitted(read(table, missing="drop"))[0]).pairs
    assert found["rows"].tolist() == [50, 55, 55, 70, 70, 80]
    assert found["correlation"].min() > 0.7


def test_silence_where_there_is_nothing_to_say():
    table = wide(0.0)
    idata, said = fitted(read(table))
    assert not row_correlation(idata).matters
    assert said == []
    long = wide(0.9).melt("x", OUTCOMES, "task", "y")
    idata, said = fitted(mtl.TaskData.from_table(long, task="task", outcome="y", features=["x"]))
    assert row_correlation(idata) is None
    assert said == []
    few = read(wide(0.9, n=11))
    assert row_correlation(fitted(few)[0]) is None


def test_chance_is_counted_as_chance():
    """p values of residuals from F columns are uniform, so at most one table in a hundred is called so."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((24, 5))
    basis = np.linalg.qr(X)[0]
    r = []
    for _ in range(3000):
        Y = rng.standard_normal((24, 2))
        Y -= basis @ (basis.T @ Y)
        r.append(Y[:, 0] @ Y[:, 1] / np.sqrt((Y**2).sum(axis=0).prod()))
    r = np.array(r)
    t = r * np.sqrt(18 / (1 - r**2))
    assert stats.kstest(t, stats.t(18).cdf).pvalue > 1e-6
    called = sum(correlate(rng.standard_normal((60, 8)), 1, range(8)).significant for _ in range(400))
    assert called <= stats.binom.isf(1e-6, 400, 0.01)


def test_what_is_large_enough_to_matter():
    small = correlate(exact(equal(0.09, 3), 5000), 1, "abc")
    assert small.significant
    assert not small.matters
    assert correlate(exact(equal(0.09, 12), 5000), 1, range(12)).matters
    signs = np.array([1, -1, 1, -1])
    opposed = correlate(exact(equal(0.5) * signs[:, None] * signs, 5000), 1, "abcd")
    assert opposed.matters
    assert "times as wide" not in str(opposed)
    assert opposed.typical == pytest.approx(0.5, abs=1e-3)


def test_the_report_says_it(tmp_path):
    idata, _ = fitted(read(wide(0.8)))
    page = mtl.report(idata, tmp_path / "report.html").read_text()
    assert "in one row are correlated" in page


def test_refits_do_not_repeat_it():
    idata, _ = fitted(read(wide(0.8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        mtl.transfer_gain(idata, draws=50, tune=50)
