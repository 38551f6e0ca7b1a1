"""Cross-products of the rows of tasks: two ways to the same sums, precise and in any split."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayes_mtl as mtl
from bayes_mtl.data import DesignRows, PseudoRows, TaskStatistics, statistics
from bayes_mtl.data._cross_products import cross_products


def rows(seed, counts, n_columns, *, weighted=False, mean=0.0):
    rng = np.random.default_rng(seed)
    n = sum(counts)
    X = rng.standard_normal((n, n_columns))
    X[:, :1] = 1.0
    y = mean + rng.standard_normal(n)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return X, y, rng.uniform(0.2, 3.0, n) if weighted else None, rng.standard_normal(n_columns), starts


def assert_close(one, two, rtol=1e-13):
    """Agree relative to the lengths of the columns whose products they are."""
    length = np.sqrt(np.einsum("tpp->tp", two[0]))
    rest = np.sqrt(two[2])
    assert (np.abs(one[0] - two[0]) <= rtol * length[:, :, None] * length[:, None, :]).all()
    assert (np.abs(one[1] - two[1]) <= rtol * length * rest[:, None]).all()
    np.testing.assert_allclose(one[2], two[2], rtol=rtol)
    np.testing.assert_allclose(one[3], two[3], rtol=rtol, atol=1e-13)


COUNTS = st.lists(st.sampled_from([0, 1, 2, 3, 16, 17, 255, 256, 300, 1000]), min_size=1, max_size=8)


class TestCrossProducts:
    @given(
        seed=st.integers(0, 2**32 - 1),
        counts=COUNTS,
        n_columns=st.sampled_from([0, 1, 2, 3, 6, 7, 20]),
        weighted=st.booleans(),
        chunk=st.sampled_from([1, 7, 256, 300, 1 << 16]),
    )
    def test_the_same_as_by_task(self, seed, counts, n_columns, weighted, chunk):
        problem = rows(seed, counts, n_columns, weighted=weighted)
        found = cross_products(*problem, chunk=chunk)
        assert_close(found, statistics._by_task(*problem))
        np.testing.assert_array_equal(found[0], np.swapaxes(found[0], 1, 2))

    @pytest.mark.parametrize("weighted", [True, False])
    def test_bits_do_not_depend_on_threads(self, weighted):
        problem = rows(1, [5000, 1, 0, 20_000, 3], 4, weighted=weighted)
        once = cross_products(*problem, chunk=512, threads=1)
        for threads in (2, 5):
            for a, b in zip(once, cross_products(*problem, chunk=512, threads=threads), strict=True):
                np.testing.assert_array_equal(a, b)

    def test_single_precision_columns(self):
        X, *rest = rows(2, [40, 30], 5)
        X = X.astype(np.float32)
        assert_close(cross_products(X, *rest), statistics._by_task(X.astype(float), *rest))

    @pytest.mark.parametrize("weighted", [True, False])
    def test_digits_when_outcomes_are_far_from_zero(self, weighted):
        """Against exact sums of the residuals, each of which is known to a rounding of y."""
        X, y, w, _, starts = rows(3, [700, 1, 299], 3, weighted=weighted, mean=1e6)
        reference = statistics._reference(X, y, w)
        n = len(y)
        weights = [Fraction(v) for v in (np.ones(n) if w is None else w)]
        exact = [[Fraction(v) for v in row] for row in X.tolist()]
        b = [Fraction(v) for v in reference.tolist()]
        r = [Fraction(y[i]) - sum(e * c for e, c in zip(exact[i], b, strict=True)) for i in range(n)]
        rounding = 1e-9  # of a residual, from numbers of size 1e6
        for found in (
            cross_products(X, y, w, reference, starts),
            statistics._by_task(X, y, w, reference, starts),
        ):
            for t in range(3):
                of = range(starts[t], starts[t + 1])
                square = float(sum(weights[i] * r[i] ** 2 for i in of))
                assert square < 100.0 * len(of)  # the sd is 1, the mean 1e6
                slack = float(sum(weights[i] * (2 * abs(r[i]) * rounding + rounding**2) for i in of))
                np.testing.assert_allclose(found[2][t], square, rtol=0, atol=slack)
                for p in range(3):
                    moment = float(sum(weights[i] * exact[i][p] * r[i] for i in of))
                    slack = rounding * float(sum(weights[i] * abs(exact[i][p]) for i in of))
                    np.testing.assert_allclose(found[1][t, p], moment, rtol=0, atol=slack)
                    for q in range(3):
                        gram = float(sum(weights[i] * exact[i][p] * exact[i][q] for i in of))
                        size = np.sqrt(found[0][t, p, p] * found[0][t, q, q])
                        np.testing.assert_allclose(found[0][t, p, q], gram, rtol=0, atol=1e-14 * size)

    @pytest.mark.slow
    def test_rounding_does_not_grow_with_rows(self):
        n = 10_000_000
        X = np.full((n, 1), 0.1)
        y = np.full(n, 0.1)
        found = cross_products(X, y, None, np.zeros(1), np.array([0, n]))
        np.testing.assert_allclose(found[0], float(n * Fraction(0.1) ** 2), rtol=2e-14)
        np.testing.assert_allclose(found[2], float(n * Fraction(0.1) ** 2), rtol=2e-14)


class TestFromRows:
    @pytest.mark.parametrize("weighted", [True, False])
    def test_many_rows(self, weighted):
        """The reference is of a part of the rows; the sums are of all."""
        X, y, w, _, starts = rows(4, [60_000, 10, 59_990], 3, weighted=weighted)
        found = TaskStatistics.from_rows(X, y, starts, w)
        everything = np.linalg.lstsq(X, y, rcond=None)[0]
        np.testing.assert_allclose(found.reference, everything, atol=0.1)
        sums = found.gram, found.moment, found.square, 2.0 * found.log_weight
        assert_close(sums, statistics._by_task(X, y, w, found.reference, starts), rtol=1e-12)
        np.testing.assert_array_equal(found.count, [60_000, 10, 59_990])

    def test_many_tasks(self):
        X, y, _, _, starts = rows(5, [2] * 6000, 2)
        found = TaskStatistics.from_rows(X, y, starts)
        residual = (y - X @ found.reference).reshape(6000, 2)
        np.testing.assert_allclose(found.square, (residual**2).sum(axis=1), rtol=1e-12)
        assert found.log_weight == 0.0

    def test_a_level_that_the_part_does_not_show(self):
        """Columns that are zero in every row of the part are collinear there."""
        X, y, w, _, starts = rows(6, [120_000], 3)
        X[:, 2] = 0.0
        X[1, 2] = 1.0
        found = TaskStatistics.from_rows(X, y, starts, w)
        assert found.reference[2] == 0.0
        np.testing.assert_allclose(found.gram[0][:, 2], X[1], rtol=1e-13)

    def test_equal_weights_are_no_weights(self):
        X, y, *_, starts = rows(7, [5, 6], 2)
        one = TaskStatistics.from_rows(X, y, starts)
        two = TaskStatistics.from_rows(X, y, starts, np.ones(11))
        for name in ("gram", "moment", "square", "count", "reference", "log_weight"):
            np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-14)


def test_no_copy_where_nothing_is_shared():
    data = mtl.TaskData.from_arrays([[0.0], [1.0], [2.0], [4.0]], [1, 3, 2, 5], ["a", "a", "b", "b"])
    if data.X.flags.c_contiguous:
        assert data.full_matrix is data.X
    assert data.full_matrix.flags.c_contiguous


class TestPseudoRows:
    @given(
        seed=st.integers(0, 2**32 - 1),
        counts=st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(sum),
        n_columns=st.integers(1, 5),
        spread=st.sampled_from([0.0, 1.0, 6.0]),
        unit=st.sampled_from([1.0, 1e-4, 1e5]),
        kind=st.sampled_from(["free", "repeated", "constant in a task", "nearly collinear"]),
    )
    def test_know_the_rank_of_a_task_and_its_squares(self, seed, counts, n_columns, spread, unit, kind):
        """With fewer rows than columns, columns that a task cannot tell apart, any weights and units."""
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((sum(counts), n_columns))
        X[:, -1] *= unit
        task = np.repeat(np.arange(len(counts)), counts)
        if kind == "repeated":
            X[:, -1] = X[:, 0]
        elif kind == "constant in a task":
            X[:, 0], X[:, -1] = 1.0, task + 0.3
        elif kind == "nearly collinear":
            X[:, -1] = unit * (X[:, 0] + 1e-5 * X[:, -1])
        y, weights = rng.standard_normal(len(X)), np.exp(spread * rng.standard_normal(len(X)))
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        sums = TaskStatistics.from_rows(X, y, starts, weights)
        left = y - X @ sums.reference
        found = PseudoRows.compress(sums, DesignRows(X, weights, starts, left))
        beta = rng.standard_normal(n_columns) / np.maximum(np.abs(X).max(axis=0), 1e-300)
        for t in range(len(counts)):
            rows = np.sqrt(weights)[task == t, None] * X[task == t]
            size = np.sqrt((rows**2).sum(axis=0))
            scaled = rows / np.where(size > 0, size, 1.0)
            assert found.rank[t] == (np.linalg.matrix_rank(scaled) if len(rows) else 0)
            squares = (weights * (left - X @ beta) ** 2)[task == t].sum()
            again = ((found.target[:, t] - found.root[..., t] @ beta) ** 2).sum() + found.rest[t]
            assert again == pytest.approx(squares, rel=1e-9, abs=1e-9 * (weights * left**2)[task == t].sum())
            white = found.solve[..., t] @ rows.T
            assert (white**2).sum() == pytest.approx(found.rank[t], rel=1e-3)

    def test_far_columns_are_not_collinear(self):
        """Squares alone cannot tell an intercept from a column at 1e8."""
        x = 1e8 + np.array([0.0, 1.0, 3.0])
        X = np.column_stack([np.ones(3), x])
        starts, y = np.array([0, 3]), np.array([1.0, 2.0, 2.0])
        sums = TaskStatistics.from_rows(X, y, starts)
        assert PseudoRows.compress(sums, DesignRows(X, np.ones(3), starts, y)).rank.tolist() == [2]
