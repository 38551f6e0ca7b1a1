"""Rows by the million: what is computed in blocks, and read once, is what it was."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl.inference.attributes import data_of, describe, reads_data_once
from bayes_mtl.inference.groups import constant_data
from bayes_mtl.inference.rows_left_out import log_density, of_tasks
from bayes_mtl.summaries.row_scores import _left_out


def tables(seed: int = 0, n: int = 30) -> mtl.TaskData:
    rng = np.random.default_rng(seed)
    task = rng.permutation(np.repeat([0, 1, 2], n // 3))
    return mtl.TaskData.from_arrays(rng.standard_normal((n, 2)), rng.standard_normal(n), task)


@pytest.mark.parametrize("n_rows", [1, 40, 3000])
def test_rows_left_out_against_a_refit_of_the_normal_law(n_rows):
    """beta ~ N(m, V) given all rows; without row i it is the law that times its likelihood gives this one."""
    rng = np.random.default_rng(n_rows)
    draws, F = 3, 3
    X, y = rng.standard_normal((n_rows, F)), rng.standard_normal((draws, n_rows))
    precision, sigma = rng.uniform(0.5, 2.0, n_rows), rng.uniform(0.5, 2.0, draws)
    prior = rng.standard_normal((draws, F, F))
    prior = prior @ np.swapaxes(prior, 1, 2) + np.eye(F)
    weight = precision / sigma[:, None] ** 2
    information = np.linalg.inv(prior) + np.einsum("nf,dn,ng->dfg", X, weight, X)
    covariance = np.linalg.inv(information)
    moment = np.einsum("nf,dn,dn->df", X, weight, y)
    beta = np.einsum("dfg,dg->df", covariance, moment)
    found = log_density(beta, covariance, sigma, X, y, precision)
    for i in {0, n_rows // 2, n_rows - 1}:
        for d in range(draws):
            without = np.linalg.inv(information[d] - weight[d, i] * np.outer(X[i], X[i]))
            mean = X[i] @ without @ (moment[d] - weight[d, i] * y[d, i] * X[i])
            variance = X[i] @ without @ X[i] + 1.0 / weight[d, i]
            expected = -0.5 * (np.log(2 * np.pi * variance) + (y[d, i] - mean) ** 2 / variance)
            np.testing.assert_allclose(found[d, i], expected, rtol=1e-9)


@pytest.mark.parametrize("n_draws", [10, 400])
def test_weights_in_one_exponential_are_the_weights(n_draws):
    rng = np.random.default_rng(2)
    by_draw = rng.standard_normal((n_draws, 50)) * np.geomspace(1e-3, 3.0, 50)
    short, general = _left_out(by_draw, by_draw), _left_out(by_draw, by_draw.copy())
    for a, b in zip(short, general, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    assert (short[1] != 0).any() == (n_draws > 100)
    assert (short[1] == 0).any()


def test_places_of_tasks_among_neighbouring_rows():
    data = tables()
    for first in range(data.n_rows):
        for last in range(first + 1, data.n_rows + 1):
            found = np.full(last - first, -1)
            for t, at in of_tasks(data, slice(first, last)):
                found[at] = t
            assert (found == data.task_index[first:last]).all()


def test_data_are_shared_within_an_answer_and_read_anew_after_it():
    data = tables()
    idata = xr.DataTree.from_dict(
        {
            "constant_data": constant_data(data),
            "observed_data": xr.Dataset({"y": ("row", data.y[np.argsort(data.row)])}),
        }
    )
    idata.attrs.update(describe(mtl.ModelSpec(), data.schema, "0"))
    other = idata.copy()

    @reads_data_once
    def inner(tree: xr.DataTree) -> mtl.TaskData:
        return data_of(tree)

    @reads_data_once
    def answer(tree: xr.DataTree) -> mtl.TaskData:
        first = data_of(tree)
        assert inner(tree) is first
        assert data_of(other) is not first
        assert inner(other) is not first
        assert data_of(tree) is first
        return first

    first = answer(idata)
    np.testing.assert_array_equal(first.y, data.y)
    idata["observed_data"] = xr.DataTree(xr.Dataset({"y": ("row", np.zeros(data.n_rows))}))
    assert not answer(idata).y.any()
    assert not data_of(idata).y.any()
