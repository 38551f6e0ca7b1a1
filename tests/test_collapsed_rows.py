"""Tasks with fewer rows than columns: the same density by rows, against dense algebra over all rows."""

from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given

from bayes_mtl.kernels import collapsed_rows
from tests.test_kernels import (
    NAMES,
    NO_BLAS,
    PARAMETERS,
    Problem,
    TestCollapsedGaussian,
    check_against_twin,
    problems,
    twin,
)

assert_refused = TestCollapsedGaussian.assert_refused
del TestCollapsedGaussian  # or it would be collected here too
__all__ = ["twin"]


class ByRows(Problem):
    """The rows themselves are the pseudo-rows, with rows of zeros where a task has fewer than others."""

    def data(self):
        n_tasks, count = len(self.loadings), np.bincount(self.task, minlength=len(self.loadings))
        root = np.zeros((n_tasks, count.max(), self.X.shape[1]))
        target = np.zeros(root.shape[:2])
        for t in range(n_tasks):
            root[t, : count[t]], target[t, : count[t]] = self.X[self.task == t], self.y[self.task == t]
        rest = np.zeros(n_tasks)
        return [root, target, rest, count.astype(float), self.inside, self.column, self.design]


@pytest.fixture(scope="module")
def fused():
    inputs = [kind() for kind in PARAMETERS]
    rows = [pt.tensor3(), pt.matrix(), pt.vector(), pt.vector(), pt.lvector(), pt.lvector(), pt.matrix()]
    value = collapsed_rows(*inputs, *rows)
    return pytensor.function([*inputs, *rows], [value, *pytensor.grad(3.0 * value, inputs)], mode=NO_BLAS)


@given(problem=problems())
def test_value_and_gradient(fused, twin, problem):
    problem.__class__ = ByRows
    check_against_twin(problem, fused, twin)


@pytest.mark.parametrize("n_factors", [0, 2])
@pytest.mark.parametrize("inside", [(), tuple(range(12)), (0, 2, 7)])
@pytest.mark.parametrize("unique", [True, False])
def test_many_columns(fused, twin, n_factors, inside, unique):
    """Odd and even sizes, more than four of everything."""
    check_against_twin(ByRows(1, 3, 12, 3, n_factors, inside, 14, unique=unique, n_effects=11), fused, twin)


def test_what_rows_leave_is_counted(fused, twin):
    """Squares that no column explains enter as `rest`, whatever is known of the rows."""
    problem = ByRows(2, 3, 4, 0, 1, (0, 1, 2, 3), 9)
    root, target, rest, count, *others = problem.data()
    more = fused(*problem.parameters, root, target, rest + 2.0, count + 1, *others)[0]
    fewer = fused(*problem.parameters, root, target, rest, count, *others)[0]
    sigma = problem.sigma
    np.testing.assert_allclose(
        more - fewer, -(np.log(sigma) + 0.5 * np.log(2 * np.pi) + 1 / sigma**2).sum(), rtol=1e-10
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_not_finite(fused, name, value):
    problem = ByRows(5, 2, 4, 1, 1, (0, 2), 3, n_effects=1)
    for index in np.ndindex(getattr(problem, name).shape):
        broken = [p.copy() for p in problem.parameters]
        broken[NAMES.index(name)][index] = value
        if name == "correlation" and index[1] > index[0]:
            continue  # not read
        assert_refused(fused(*broken, *problem.data()))


def test_jax_agrees(fused):
    pytest.importorskip("jax")
    problem = ByRows(6, 3, 6, 1, 2, (0, 1, 3, 5), 8, n_effects=4)
    inputs = [kind() for kind in PARAMETERS]
    rows = [pt.tensor3(), pt.matrix(), pt.vector(), pt.vector(), pt.lvector(), pt.lvector(), pt.matrix()]
    value = collapsed_rows(*inputs, *rows)
    function = pytensor.function([*inputs, *rows], [value, *pytensor.grad(3.0 * value, inputs)], mode="JAX")
    ours = fused(*problem.parameters, *problem.data())
    for one, two in zip(ours, function(*problem.parameters, *problem.data()), strict=True):
        np.testing.assert_allclose(
            one, np.tril(two) if np.ndim(two) == 2 and one.shape == (4, 4) else two, atol=1e-8
        )
