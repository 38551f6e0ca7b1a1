"""The fused likelihoods of generalised linear models, against the same sums written plainly."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from bayes_mtl.kernels import _task_glm

FAST = {"reassoc", "contract", "arcp", "nsz"}
compiled = numba.njit(fastmath=FAST, cache=True)(_task_glm.bernoulli)
exp_to = numba.njit(fastmath=FAST, cache=True)(_task_glm._exp)
sum_log1p = numba.njit(fastmath=FAST, cache=True)(_task_glm._sum_log1p)


def bernoulli(beta, *data):
    value, gradient = np.empty(1), np.empty(beta.shape)
    compiled(beta, *data, value, gradient)
    return value[0], gradient


def exp(x):
    out = np.empty(len(x))
    exp_to(x, out, np.empty(len(x)))
    return out


class Problem:
    def __init__(self, seed, counts, n_columns, size=1.0):
        rng = np.random.default_rng(seed)
        n = sum(counts)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.X = rng.standard_normal((n_columns, n))
        self.beta = size * rng.standard_normal((len(counts), n_columns)) / np.sqrt(n_columns)
        self.y = rng.integers(0, 2, n).astype(np.int8)
        self.weights = rng.uniform(0.2, 3.0, n)
        self.offset = rng.standard_normal(n)

    def arguments(self, **other):
        names = ("beta", "y", "X", "weights", "offset", "starts")
        return [other.get(name, getattr(self, name)) for name in names]


def check(beta, y, X, weights, offset, starts):
    """Value and gradient to 1e-12 of the sizes of what is summed."""
    value, gradient = bernoulli(beta, y, X, weights, offset, starts)
    X, y = X.T.astype(float), y.astype(float)
    task = np.repeat(np.arange(len(beta)), np.diff(starts))
    eta = (X * beta[task]).sum(axis=1) + offset
    log_p = -weights * np.logaddexp(0.0, np.where(y == 1, -eta, eta))
    terms = (weights * np.where(y == 1, expit(-eta), -expit(eta)))[:, None] * X
    # What rounding of eta alone does to each row.
    rounding = 1e-15 * ((np.abs(X * beta[task])).sum(axis=1) + np.abs(offset))
    slack = (weights * rounding).sum()
    assert value.shape == ()
    np.testing.assert_allclose(value, log_p.sum(), rtol=1e-12, atol=slack)
    by_hand, size, moved = (np.zeros(beta.shape) for _ in range(3))
    np.add.at(by_hand, task, terms)
    np.add.at(size, task, np.abs(terms))
    np.add.at(moved, task, np.abs(X) * (weights * rounding)[:, None])
    assert (np.abs(gradient - by_hand) <= 1e-12 * size + moved).all()


class TestBernoulli:
    @given(
        seed=st.integers(0, 2**32 - 1),
        counts=st.lists(st.sampled_from([0, 1, 2, 3, 17, 255, 256, 257, 700]), min_size=1, max_size=5),
        n_columns=st.sampled_from([1, 2, 3, 6, 11, 12, 13, 40]),
        size=st.sampled_from([0.0, 0.1, 1.0, 30.0, 1e4]),
        one_weight=st.booleans(),
        one_offset=st.booleans(),
        types=st.sampled_from([("i8", "f8"), ("f8", "f8"), ("i1", "f4"), ("u1", "f4")]),
    )
    def test_value_and_gradient(self, seed, counts, n_columns, size, one_weight, one_offset, types):
        p = Problem(seed, counts, n_columns, size)
        check(
            *p.arguments(
                y=p.y.astype(types[0]),
                X=p.X.astype(types[1]),
                weights=np.array([1.7]) if one_weight else p.weights,
                offset=np.array([-0.3]) if one_offset else p.offset,
            )
        )

    @pytest.mark.parametrize("n_columns", [200, 500])
    def test_many_columns(self, n_columns):
        check(*Problem(1, [400, 0, 5], n_columns).arguments())

    def test_no_rows_and_no_columns(self):
        value, gradient = bernoulli(*Problem(2, [0, 0], 3).arguments())
        assert value == 0.0
        np.testing.assert_array_equal(gradient, np.zeros((2, 3)))
        check(*Problem(2, [3, 4], 1).arguments(X=np.zeros((0, 7)), beta=np.zeros((2, 0))))

    @pytest.mark.parametrize("one_weight", [True, False])
    def test_rows_that_are_nearly_certain_keep_their_digits(self, one_weight):
        n = 300
        eta = np.linspace(20.0, 600.0, n)
        weights = np.ones(1 if one_weight else n)
        value, gradient = bernoulli(
            np.ones((1, 1)), np.ones(n), eta[None], weights, np.zeros(1), np.array([0, n])
        )
        np.testing.assert_allclose(value, -np.log1p(np.exp(-eta)).sum(), rtol=1e-12)
        np.testing.assert_allclose(gradient[0, 0], (expit(-eta) * eta).sum(), rtol=1e-9)

    @pytest.mark.parametrize("one_weight", [True, False])
    @pytest.mark.parametrize("n_columns", [2, 20])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["beta", "offset"])
    @pytest.mark.parametrize("y", [0, 1])
    def test_not_finite(self, name, value, n_columns, one_weight, y):
        p = Problem(3, [300, 2], n_columns)
        broken = getattr(p, name).copy()
        broken[-1] = value
        weights = np.ones(1) if one_weight else p.weights
        found = bernoulli(*p.arguments(**{name: broken}, weights=weights, y=np.full(302, y)))
        self.assert_refused(*found)

    def test_overflow(self):
        p = Problem(4, [3, 2], 2)
        self.assert_refused(*bernoulli(*p.arguments(beta=np.full((2, 2), 1e308), X=np.full((2, 5), 10.0))))

    @pytest.mark.parametrize("y", [0, 1])
    @pytest.mark.parametrize("one_weight", [True, False])
    def test_large_but_finite(self, y, one_weight):
        """A row that is right beyond all doubt adds nothing; one that is wrong costs eta."""
        weights = np.ones(1 if one_weight else 2)
        value, gradient = bernoulli(
            np.array([[1e308]]), np.array([y, 1]), np.ones((1, 2)), weights, np.zeros(1), np.array([0, 2])
        )
        np.testing.assert_allclose(value, 0.0 if y else -1e308, rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(gradient, [[y - 1.0]], atol=1e-300)

    @staticmethod
    def assert_refused(value, gradient):
        assert value == -np.inf
        np.testing.assert_array_equal(gradient, 0.0)


class TestParts:
    def test_exp(self):
        x = np.concatenate([np.linspace(-708, 708, 100_001), [0.0, -0.0, 1e-300]])
        np.testing.assert_allclose(exp(x), np.exp(x), rtol=2e-13)  # eps |x|: as a rounding of x
        near = np.linspace(-5, 5, 100_001)
        np.testing.assert_allclose(exp(near), np.exp(near), rtol=2e-15)
        np.testing.assert_allclose(exp(np.array([-1e4, -np.inf])), 0.0, atol=1e-300)

    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=1000))
    def test_sum_log1p(self, e):
        np.testing.assert_allclose(sum_log1p(np.array(e)), np.log1p(e).sum(), rtol=1e-14)
