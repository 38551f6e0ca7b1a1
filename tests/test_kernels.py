"""The fused kernels against slow twins: dense linear algebra over all rows, and exact rational numbers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from scipy import stats
from scipy.special import betaln, gammaln

import bayes_mtl as mtl
from bayes_mtl.data import PseudoRows, TaskStatistics
from bayes_mtl.kernels import (
    chained_coefficients,
    cholesky_from_partials,
    collapsed_gaussian,
    whitened_coefficients,
)
from bayes_mtl.kernels.ops import ChainedGaussian, GaussianTasks
from tests.contracts import partials_of

NAMES = ("sd", "correlation", "loadings", "unique_sd", "sigma", "mean", "effect_scale")
NO_BLAS = "FAST_COMPILE"


class Problem:
    """Rows of T tasks and hyperparameters; the last F - P columns are shared slopes."""

    def __init__(
        self,
        seed,
        n_tasks,
        n_varying,
        n_shared,
        n_factors,
        inside,
        n_rows,
        *,
        n_effects=0,
        spread=1.0,
        unique=True,
        by_task=True,
    ):
        rng = np.random.default_rng(seed)
        self.task = np.sort(np.concatenate([np.arange(n_tasks), rng.integers(0, n_tasks, n_rows)]))
        n, F = len(self.task), n_varying + n_shared
        self.X = rng.standard_normal((n, F)) * spread ** rng.uniform(-1, 1, F)
        self.y = rng.standard_normal(n)
        self.inside = np.array(sorted(inside), dtype=np.int64)
        lower = np.tril(rng.standard_normal((len(self.inside), len(self.inside))))
        at = np.arange(len(self.inside))
        lower[at, at] = np.abs(lower[at, at]) + 0.1
        self.sd = rng.uniform(0.3, 1.5, n_varying) * spread ** rng.uniform(-1, 1, n_varying)
        self.correlation = lower
        self.loadings = rng.standard_normal((n_tasks, n_factors))
        self.unique_sd = rng.uniform(0.1, 1.5, n_tasks) if unique else np.zeros(n_tasks)
        self.sigma = rng.uniform(0.3, 2.0, n_tasks if by_task else 1)
        size = np.abs(self.X).max(axis=0, initial=1.0)
        self.mean = rng.standard_normal((n_tasks if by_task else 1, F)) / size
        self.column = rng.integers(0, F, n_effects)
        self.design = rng.standard_normal((n_effects, n_tasks)) / size[self.column][:, None]
        self.effect_scale = rng.uniform(0.3, 1.5, n_effects)

    @property
    def parameters(self):
        return [getattr(self, name) for name in NAMES]

    @property
    def statistics(self):
        one_hot = np.eye(len(self.loadings))[self.task]
        return TaskStatistics(
            gram=np.einsum("nt,np,nq->tpq", one_hot, self.X, self.X),
            moment=np.einsum("nt,np,n->tp", one_hot, self.X, self.y),
            square=one_hot.T @ self.y**2,
            count=one_hot.sum(axis=0),
            reference=np.zeros(self.X.shape[1]),
            log_weight=0.0,
        )

    def data(self, statistics=None):
        statistics = statistics or self.statistics
        rows = PseudoRows.compress(statistics)
        return [rows.root, rows.target, rows.rest, statistics.count, self.inside, self.column, self.design]

    @property
    def cholesky(self):
        whole = np.eye(len(self.sd), dtype=self.correlation.dtype)
        whole[np.ix_(self.inside, self.inside)] = self.correlation
        return self.sd[:, None] * whole

    def covariance(self):
        """Cov(y) row by row, in whatever numbers the arrays hold (floats or fractions)."""
        P = len(self.sd)
        is_inside = np.isin(np.arange(P), self.inside).astype(int)
        XL = self.X[:, :P] @ self.cholesky
        within = (XL * is_inside) @ XL.T
        beyond = (XL * (1 - is_inside)) @ XL.T
        same = (self.task[:, None] == self.task[None, :]).astype(int)
        lam = self.loadings[self.task]
        delta = self.unique_sd[self.task]
        effects = self.X[:, self.column] * self.design[:, self.task].T * self.effect_scale
        cov = (lam @ lam.T + same * (delta[:, None] * delta[None, :])) * within + same * beyond
        s = self.sigma[self.task if len(self.sigma) > 1 else np.zeros_like(self.task)]
        return cov + effects @ effects.T + np.eye(len(s), dtype=int) * (s * s)[:, None]

    def residual(self):
        mean = self.mean[self.task if len(self.mean) > 1 else np.zeros_like(self.task)]
        return self.y - (self.X * mean).sum(axis=1)

    def logp(self):
        return stats.multivariate_normal(np.zeros(len(self.y)), self.covariance()).logpdf(self.residual())


def exact_logp(problem):
    """The same log density in rational arithmetic: only the last logarithm is rounded."""
    rational = np.vectorize(Fraction, otypes=[object])
    exact = object.__new__(Problem)
    exact.__dict__.update(problem.__dict__)
    for name in (*NAMES, "X", "y", "design"):
        value = getattr(problem, name)
        setattr(exact, name, rational(value) if value.size else value.astype(object))
    rest = exact.covariance() + Fraction(0)
    column = exact.residual()
    n, quadratic, log_det = len(column), Fraction(0), 0.0
    for i in range(n):  # L D L' without square roots
        pivot = rest[i, i]
        log_det += float(np.log(float(pivot)))
        quadratic += column[i] * column[i] / pivot
        for j in range(i + 1, n):
            ratio = rest[j, i] / pivot
            column[j] -= ratio * column[i]
            rest[j, i:] = rest[j, i:] - ratio * rest[i, i:]
    return -0.5 * (float(quadratic) + log_det + n * np.log(2 * np.pi))


PARAMETERS = (pt.vector, pt.matrix, pt.matrix, pt.vector, pt.vector, pt.matrix, pt.vector)


@pytest.fixture(scope="module")
def fused():
    """Value and gradient of the kernel, through PyTensor's differentiation."""
    inputs = [kind() for kind in PARAMETERS]
    rows = [pt.tensor3(), pt.matrix(), pt.vector(), pt.vector(), pt.lvector(), pt.lvector(), pt.matrix()]
    value = collapsed_gaussian(*inputs, *rows)
    # The cotangent of the value is not one: the pullback has to use it.
    outputs = [value, *pytensor.grad(3.0 * value, inputs)]
    return pytensor.function([*inputs, *rows], outputs, mode=NO_BLAS)


@pytest.fixture(scope="module")
def twin():
    """A plain dense multivariate normal in PyTensor, differentiated by PyTensor."""
    sd, correlation, loadings, unique_sd, sigma, mean, effect_scale = inputs = [k() for k in PARAMETERS]
    X, y, task, effects = pt.matrix(), pt.vector(), pt.lvector(), pt.matrix()
    place, is_inside = pt.matrix(), pt.vector()
    cholesky = sd[:, None] * (place @ correlation @ place.T + pt.diag(1 - is_inside))
    XL = X[:, : sd.shape[0]] @ cholesky
    same = pt.eq(task[:, None], task[None, :]).astype("float64")
    lam, delta = loadings[task], unique_sd[task]
    omega = lam @ lam.T + same * delta[:, None] * delta[None, :]
    s = pt.switch(pt.eq(sigma.shape[0], 1), sigma[0], sigma[task % sigma.shape[0]])
    cov = omega * ((XL * is_inside) @ XL.T) + same * ((XL * (1 - is_inside)) @ XL.T)
    cov = cov + (effects * effect_scale**2) @ effects.T + pt.diag(s**2)
    residual = y - (X * mean[task % mean.shape[0]]).sum(axis=1)
    quadratic = residual @ pt.linalg.inv(cov) @ residual
    value = -0.5 * (quadratic + pt.linalg.slogdet(cov)[1] + y.shape[0] * np.log(2 * np.pi))
    outputs = [value, *pytensor.grad(value, inputs)]
    return pytensor.function([*inputs, X, y, task, effects, place, is_inside], outputs, mode=Mode("py", None))


@st.composite
def problems(draw, spread=1.0, max_rows=10, max_tasks=4):
    n_varying = draw(st.integers(1, 4))
    inside = draw(st.sets(st.integers(0, n_varying - 1)))
    return Problem(
        seed=draw(st.integers(0, 2**32 - 1)),
        n_tasks=draw(st.integers(1, max_tasks)),
        n_varying=n_varying,
        n_shared=draw(st.integers(0, 2)),
        n_factors=draw(st.integers(0, 3)),
        inside=inside,
        n_rows=draw(st.integers(0, max_rows)),
        n_effects=draw(st.integers(0, 5)),
        spread=spread,
        unique=draw(st.booleans()),
        by_task=draw(st.booleans()),
    )


def check_against_twin(problem, fused, twin):
    value, *gradient = fused(*problem.parameters, *problem.data())
    np.testing.assert_allclose(value, problem.logp(), rtol=1e-8, atol=1e-8)
    P = len(problem.sd)
    place = np.eye(P)[:, problem.inside]
    effects = problem.X[:, problem.column] * problem.design[:, problem.task].T
    slow, *slow_gradient = twin(
        *problem.parameters, problem.X, problem.y, problem.task, effects, place, place.sum(axis=1)
    )
    np.testing.assert_allclose(slow, problem.logp(), rtol=1e-8, atol=1e-8)
    size = max(1.0, *(np.abs(g).max(initial=0.0) for g in slow_gradient))
    for name, ours, theirs in zip(NAMES, gradient, slow_gradient, strict=True):
        theirs = np.tril(theirs) if name == "correlation" else theirs
        np.testing.assert_allclose(ours / 3.0, theirs, rtol=1e-8, atol=1e-9 * size, err_msg=name)


class TestCollapsedGaussian:
    @given(problem=problems())
    def test_value_and_gradient(self, fused, twin, problem):
        check_against_twin(problem, fused, twin)

    @pytest.mark.parametrize("n_factors", [0, 2])
    @pytest.mark.parametrize("inside", [(), (0, 1, 2), (0, 2)])
    @pytest.mark.parametrize("unique", [True, False])
    @pytest.mark.parametrize("n_effects", [0, 4])
    def test_corners(self, fused, twin, n_factors, inside, unique, n_effects):
        problem = Problem(1, 3, 3, 1, n_factors, inside, 8, unique=unique, n_effects=n_effects)
        check_against_twin(problem, fused, twin)

    @pytest.mark.parametrize("n_tasks", [8, 63, 64, 65, 130])
    def test_blocks_of_tasks(self, fused, twin, n_tasks):
        """Tasks are treated in blocks: the last one may be short, and all add up."""
        check_against_twin(Problem(2, n_tasks, 2, 0, 1, (0, 1), n_tasks, n_effects=2), fused, twin)

    def test_some_tasks_have_no_unique_part_and_some_no_rows(self, fused, twin):
        problem = Problem(2, 4, 2, 0, 2, (0, 1), 12, n_effects=2)
        problem.unique_sd[1] = 0.0
        keep = problem.task != 2
        problem.X, problem.y, problem.task = problem.X[keep], problem.y[keep], problem.task[keep]
        check_against_twin(problem, fused, twin)

    @given(problem=problems(spread=1e3, max_rows=4))
    def test_value_where_scales_differ_by_millions(self, fused, problem):
        self.check_against_exact(fused, problem)

    @pytest.mark.parametrize("noise", [1e-3, 1e3])
    @pytest.mark.parametrize("nearly", [1e-2, 1e-4])
    def test_value_with_nearly_collinear_features(self, fused, noise, nearly):
        problem = Problem(3, 2, 3, 0, 1, (0, 1, 2), 6)
        problem.X[:, 2] = problem.X[:, 0] + problem.X[:, 1] + nearly * problem.X[:, 2]
        problem.y = (problem.X * problem.mean[problem.task]).sum(axis=1) + noise * problem.y
        problem.sigma = problem.sigma * noise
        self.check_against_exact(fused, problem)

    @staticmethod
    def check_against_exact(fused, problem):
        """Agree to 1e-8, and to what rounding of the statistics does by itself.

        The statistics are rounded before the kernel sees them: an error of that size is the best that
        double precision can do (backward stability).
        """
        value = fused(*problem.parameters, *problem.data())[0]
        rng = np.random.default_rng(0)
        moved = []
        for _ in range(8):
            changed = {
                name: array * (1 + np.finfo(float).eps * rng.choice([-1, 1], array.shape))
                for name in ("gram", "moment", "square")
                for array in [getattr(problem.statistics, name)]
            }
            changed["gram"] = np.tril(changed["gram"]) + np.swapaxes(np.tril(changed["gram"], -1), 1, 2)
            data = problem.data(replace(problem.statistics, **changed))
            moved.append(fused(*problem.parameters, *data)[0] - value)
        rounding = 10 * np.abs(moved).max(initial=0.0)
        np.testing.assert_allclose(value, exact_logp(problem), rtol=1e-8, atol=1e-8 + rounding)

    def test_only_the_lower_triangle_is_read(self, fused):
        problem = Problem(4, 2, 3, 0, 1, (0, 1, 2), 6)
        before = fused(*problem.parameters, *problem.data())
        problem.correlation = problem.correlation + np.triu(np.full((3, 3), 7.0), 1)
        after = fused(*problem.parameters, *problem.data())
        for b, a in zip(before, after, strict=True):
            np.testing.assert_array_equal(b, a)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("n_factors", [0, 1])
    def test_not_finite(self, fused, name, value, n_factors):
        problem = Problem(5, 2, 2, 1, n_factors, (0,), 6, n_effects=1)
        for index in np.ndindex(getattr(problem, name).shape):
            broken = [p.copy() for p in problem.parameters]
            broken[NAMES.index(name)][index] = value
            self.assert_refused(fused(*broken, *problem.data()))

    @pytest.mark.parametrize("sigma", [0.0, -1.0])
    def test_noise_must_be_positive(self, fused, sigma):
        problem = Problem(6, 2, 2, 1, 1, (0,), 6)
        problem.sigma[1] = sigma
        self.assert_refused(fused(*problem.parameters, *problem.data()))

    @pytest.mark.parametrize("position", [0, 1, 2, 3])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_data_that_are_not_finite(self, fused, position, value):
        problem = Problem(7, 2, 2, 0, 1, (0, 1), 6)
        data = problem.data()
        data[position].flat[0] = value
        self.assert_refused(fused(*problem.parameters, *data))

    @pytest.mark.parametrize("name", ["mean", "sd", "correlation", "loadings", "unique_sd"])
    def test_overflow(self, fused, name):
        problem = Problem(8, 2, 2, 0, 1, (0, 1), 6)
        setattr(problem, name, np.full_like(getattr(problem, name), 1e200))
        self.assert_refused(fused(*problem.parameters, *problem.data()))

    def test_sizes_that_do_not_fit(self, fused):
        problem = Problem(8, 2, 2, 0, 1, (0, 1), 6)
        data = problem.data()
        problem.loadings = problem.loadings[:1]
        with pytest.raises(ValueError, match="sizes t differ"):
            fused(*problem.parameters, *data)

    @staticmethod
    def assert_refused(outputs):
        value, *gradient = outputs
        assert value == -np.inf
        for g in gradient:
            np.testing.assert_array_equal(g, 0.0)

    def test_second_derivatives_are_refused(self):
        x = pt.vector()
        data = Problem(9, 1, 1, 0, 0, (0,), 3).data()
        value = collapsed_gaussian(x, [[1.0]], np.zeros((1, 0)), [1.0], [1.0], [[0.0]], np.ones(0), *data)
        with pytest.raises(NotImplementedError, match="second derivatives"):
            pytensor.grad(pytensor.grad(value, x).sum(), x)

    @pytest.mark.slow
    def test_machine_code_agrees(self, fused):
        problem = Problem(10, 3, 3, 1, 2, (0, 2), 9, n_effects=3)
        inputs = [kind() for kind in PARAMETERS]
        value = collapsed_gaussian(*inputs, *problem.data())
        compiled = pytensor.function(inputs, [value, *pytensor.grad(3.0 * value, inputs)], mode="NUMBA")
        expected = fused(*problem.parameters, *problem.data())
        for ours, theirs in zip(compiled(*problem.parameters), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.fixture(scope="module")
def whitened():
    """Outputs of the whitening kernel, and the gradient of a random combination of them."""
    inputs = [kind() for kind in (*PARAMETERS, pt.vector, pt.matrix)]
    data = [pt.tensor3(), pt.matrix(), pt.lvector(), pt.lvector(), pt.lvector(), pt.matrix()]
    cotangents = [pt.scalar(), pt.matrix(), pt.vector()]
    outputs = whitened_coefficients(*inputs, *data)
    total = sum((c * out).sum() for c, out in zip(cotangents, outputs, strict=True))
    gradient = pytensor.grad(total, inputs)
    return pytensor.function([*inputs, *data, *cotangents], [*outputs, *gradient], mode=NO_BLAS)


class TestWhitening:
    def inputs(self, problem, own, rng):
        rows = PseudoRows.compress(problem.statistics)
        size = len(problem.column) + problem.loadings.shape[1] * len(problem.inside)
        z = [rng.standard_normal(size), rng.standard_normal((len(problem.loadings), len(own)))]
        data = [rows.root, rows.target, problem.inside, own, problem.column, problem.design]
        return [*problem.parameters, *z], data

    def own(self, problem):
        everything = np.arange(len(problem.sd))
        return everything if problem.unique_sd.any() else np.setdiff1d(everything, problem.inside)

    @given(problem=problems(), seed=st.integers(0, 2**32 - 1))
    def test_gradient_is_the_slope(self, whitened, problem, seed):
        rng = np.random.default_rng(seed)
        parameters, data = self.inputs(problem, self.own(problem), rng)
        size, shape = len(parameters[7]), problem.mean.shape
        shape = (len(problem.loadings), shape[1])
        cotangents = [rng.standard_normal(), rng.standard_normal(shape), rng.standard_normal(size)]
        direction = [rng.standard_normal(p.shape) for p in parameters]
        direction[1] = np.tril(direction[1])
        # Steps are relative to the least scale, so that all stay positive.
        length = 0.02 * min(problem.sigma.min(), problem.sd.min(), 1.0)
        direction = [length * d / np.sqrt(1 + (d**2).sum()) for d in direction]

        def at(step):
            moved = [p + step * d for p, d in zip(parameters, direction, strict=True)]
            outputs = whitened(*moved, *data, *cotangents)[:3]
            return sum((c * out).sum() for c, out in zip(cotangents, outputs, strict=True))

        def slope(h):
            return (at(h) - at(-h)) / (2 * h)

        h = 0.25
        numeric = (64 * slope(h / 4) - 20 * slope(h / 2) + slope(h)) / 45
        gradient = whitened(*parameters, *data, *cotangents)[3:]
        exact = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        scale = sum(np.abs(g * d).sum() for g, d in zip(gradient, direction, strict=True))
        np.testing.assert_allclose(numeric, exact, rtol=0, atol=1e-6 * max(scale, 1e-3))

    @given(problem=problems(max_tasks=3), seed=st.integers(0, 2**32 - 1), pilot=st.integers(0, 2**32 - 1))
    def test_change_of_variables(self, whitened, problem, seed, pilot):
        """The value is the prior density of (alpha, eps) times the Jacobian, whatever the pseudo-rows."""
        rng = np.random.default_rng(seed)
        own = self.own(problem)
        parameters, data = self.inputs(problem, own, rng)
        other = np.random.default_rng(pilot)
        data[0] = other.standard_normal(data[0].shape)  # a pilot that has nothing to do with the rows
        data[1] = other.standard_normal(data[1].shape)
        T, F = len(problem.loadings), problem.mean.shape[1]
        size, n_own = len(parameters[7]), len(own)
        nothing = [0.0, np.zeros((T, F)), np.zeros(size)]
        value, beta, alpha = whitened(*parameters, *data, *nothing)[:3]

        # eps from beta: beta - mean - Z alpha = L S eps.
        P, n_effects = len(problem.sd), len(problem.column)
        L = problem.cholesky

        def eps_of(beta, alpha):
            phi = np.zeros((T, F))
            for c, p in enumerate(problem.column):
                phi[:, p] += problem.effect_scale[c] * problem.design[c] * alpha[c]
            factors = alpha[n_effects:].reshape(problem.loadings.shape[1], len(problem.inside))
            phi[:, :P] += problem.loadings @ factors @ L[:, problem.inside].T
            left = (beta - problem.mean - phi)[:, :P]
            scale = np.where(np.isin(own, problem.inside), problem.unique_sd[:, None], 1.0)
            return np.linalg.lstsq(L[:, own], left.T, rcond=None)[0].T / scale

        eps = eps_of(beta, alpha)
        z = np.concatenate([parameters[7], parameters[8].ravel()])
        # The map is affine in z: its Jacobian is exact from unit steps.
        columns = []
        for e in np.eye(len(z)):
            moved = [*parameters[:7], (z + e)[:size], (z + e)[size:].reshape(T, n_own)]
            _, b, a = whitened(*moved, *data, *nothing)[:3]
            columns.append(np.concatenate([a - alpha, (eps_of(b, a) - eps).ravel()]))
        log_det = np.linalg.slogdet(np.array(columns))[1] if len(z) else 0.0
        prior = stats.norm.logpdf(alpha).sum() + stats.norm.logpdf(eps).sum()
        np.testing.assert_allclose(value, prior + log_det, rtol=1e-8, atol=1e-7)

    @given(problem=problems(max_tasks=3), seed=st.integers(0, 2**32 - 1))
    def test_exact_pseudo_rows_make_the_posterior_standard_normal(self, whitened, problem, seed):
        """log p(y | beta) + value = log p(y) + log N(z; 0, I) at every z."""
        rng = np.random.default_rng(seed)
        parameters, data = self.inputs(problem, self.own(problem), rng)
        nothing = [0.0, np.zeros((len(problem.loadings), problem.X.shape[1])), np.zeros(len(parameters[7]))]
        value, beta, _ = whitened(*parameters, *data, *nothing)[:3]
        s = problem.sigma[problem.task % len(problem.sigma)]
        likelihood = stats.norm.logpdf(problem.y, (problem.X * beta[problem.task]).sum(axis=1), s).sum()
        standard = stats.norm.logpdf(parameters[7]).sum() + stats.norm.logpdf(parameters[8]).sum()
        np.testing.assert_allclose(value + likelihood, problem.logp() + standard, rtol=1e-8, atol=1e-7)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("position", range(9))
    def test_not_finite(self, whitened, position, value):
        problem = Problem(5, 2, 2, 1, 1, (0,), 6, n_effects=1)
        parameters, data = self.inputs(problem, self.own(problem), np.random.default_rng(0))
        parameters[position] = np.full_like(parameters[position], value)
        cotangents = [1.0, np.ones((2, 3)), np.ones(len(parameters[7]))]
        found, _, _, *gradient = whitened(*parameters, *data, *cotangents)
        assert found == -np.inf
        for g in gradient:
            np.testing.assert_array_equal(g, 0.0)


@pytest.fixture(scope="module")
def chained():
    """Outputs of the chain's kernel, and the gradient of a random combination of them."""
    kinds = (pt.vector, pt.matrix, pt.matrix, pt.vector, pt.matrix, pt.vector, pt.vector, pt.matrix)
    inputs = [kind() for kind in kinds]
    data = [pt.tensor3(), pt.matrix(), pt.lvector(), pt.lvector(), pt.matrix()]
    cotangents = [pt.scalar(), pt.matrix(), pt.vector()]
    outputs = chained_coefficients(*inputs, *data)
    total = sum((c * out).sum() for c, out in zip(cotangents, outputs, strict=True))
    gradient = pytensor.grad(total, inputs)
    return pytensor.function([*inputs, *data, *cotangents], [*outputs, *gradient], mode=NO_BLAS)


def triangular(problem, rng):
    """Give a problem loadings that are the factor of a matrix over tasks."""
    n = len(problem.loadings)
    problem.loadings = np.tril(0.5 * rng.standard_normal((n, n)), -1) + np.diag(rng.uniform(0.2, 1.0, n))
    return problem


def chain_inputs(problem, rng):
    rows = PseudoRows.compress(problem.statistics)
    n_tasks, n_varying = len(problem.loadings), len(problem.sd)
    z = [rng.standard_normal(len(problem.column)), rng.standard_normal((n_tasks, n_varying))]
    data = [rows.root, rows.target, problem.inside, problem.column, problem.design]
    law = [problem.sd, problem.correlation, problem.loadings, problem.sigma, problem.mean]
    return [*law, problem.effect_scale, *z], data


class TestChain:
    @given(problem=problems(), seed=st.integers(0, 2**32 - 1))
    def test_gradient_is_the_slope(self, chained, problem, seed):
        rng = np.random.default_rng(seed)
        self.check_gradient(chained, triangular(problem, rng), rng)

    @pytest.mark.parametrize("n_tasks", [40, 150])
    def test_blocks_of_tasks(self, chained, n_tasks):
        rng = np.random.default_rng(n_tasks)
        problem = Problem(n_tasks, n_tasks, 3, 1, 1, (0, 2), 3 * n_tasks, n_effects=3)
        self.check_gradient(chained, triangular(problem, rng), rng)

    @staticmethod
    def check_gradient(chained, problem, rng):
        parameters, data = chain_inputs(problem, rng)
        shape = (len(problem.loadings), problem.mean.shape[1])
        cotangents = [
            rng.standard_normal(),
            rng.standard_normal(shape),
            rng.standard_normal(len(parameters[6])),
        ]
        direction = [rng.standard_normal(p.shape) for p in parameters]
        direction[1], direction[2] = np.tril(direction[1]), np.tril(direction[2])
        least = min(problem.sigma.min(), problem.sd.min(), np.diag(problem.loadings).min(), 1.0)
        direction = [0.02 * least * d / np.sqrt(1 + (d**2).sum()) for d in direction]

        def at(step):
            moved = [p + step * d for p, d in zip(parameters, direction, strict=True)]
            outputs = chained(*moved, *data, *cotangents)[:3]
            return sum((c * out).sum() for c, out in zip(cotangents, outputs, strict=True))

        def slope(h):
            return (at(h) - at(-h)) / (2 * h)

        h = 0.25
        numeric = (64 * slope(h / 4) - 20 * slope(h / 2) + slope(h)) / 45
        gradient = chained(*parameters, *data, *cotangents)[3:]
        exact = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        scale = sum(np.abs(g * d).sum() for g, d in zip(gradient, direction, strict=True))
        np.testing.assert_allclose(numeric, exact, rtol=0, atol=1e-6 * max(scale, 1e-3))

    @given(problem=problems(max_tasks=4), seed=st.integers(0, 2**32 - 1))
    def test_change_of_variables(self, chained, problem, seed):
        """The value is the prior density of (alpha, e) times the Jacobian, whatever the pseudo-rows."""
        rng = np.random.default_rng(seed)
        problem = triangular(problem, rng)
        parameters, data = chain_inputs(problem, rng)
        data[0], data[1] = rng.standard_normal(data[0].shape), rng.standard_normal(data[1].shape)
        T, F = len(problem.loadings), problem.mean.shape[1]
        P, inside, L = len(problem.sd), problem.inside, problem.cholesky
        nothing = [0.0, np.zeros((T, F)), np.zeros(len(problem.column))]
        value, beta, alpha = chained(*parameters, *data, *nothing)[:3]

        def e_of(beta, alpha):
            left = beta - problem.mean
            for c, p in enumerate(problem.column):
                left[:, p] -= problem.effect_scale[c] * problem.design[c] * alpha[c]
            u = np.linalg.solve(L, left[:, :P].T).T
            u[:, inside] = np.linalg.solve(problem.loadings, u[:, inside])
            np.testing.assert_allclose(left[:, P:], 0.0, rtol=0, atol=1e-10 * (1 + np.abs(beta).max()))
            return u

        e = e_of(beta, alpha)
        z = np.concatenate([parameters[6], parameters[7].ravel()])
        columns = []
        for unit in np.eye(len(z)):  # the map is affine in z
            moved = z + unit
            split = [moved[: len(alpha)], moved[len(alpha) :].reshape(T, P)]
            _, b, a = chained(*parameters[:6], *split, *data, *nothing)[:3]
            columns.append(np.concatenate([a - alpha, (e_of(b, a) - e).ravel()]))
        log_det = np.linalg.slogdet(np.array(columns))[1]
        prior = stats.norm.logpdf(alpha).sum() + stats.norm.logpdf(e).sum()
        np.testing.assert_allclose(value, prior + log_det, rtol=1e-7, atol=1e-6)

    def test_coordinates_are_nearly_standard_normal(self, chained):
        """Exactly so where tasks are not related; given the data, the curvature is that of N(0, I)."""
        rng = np.random.default_rng(3)
        problem = Problem(3, 4, 2, 0, 1, (0, 1), 40)
        problem.loadings = np.eye(4)
        parameters, data = chain_inputs(problem, rng)
        value, beta, _ = chained(*parameters, *data, 0.0, np.zeros((4, 2)), np.zeros(0))[:3]
        s = problem.sigma[problem.task % len(problem.sigma)]
        likelihood = stats.norm.logpdf(problem.y, (problem.X * beta[problem.task]).sum(axis=1), s).sum()
        problem.unique_sd = np.zeros(4)
        standard = stats.norm.logpdf(parameters[7]).sum()
        np.testing.assert_allclose(value + likelihood, problem.logp() + standard, rtol=1e-9, atol=1e-8)

    @given(problem=problems(), seed=st.integers(0, 2**32 - 1))
    def test_with_gaussian_outcomes(self, chained, problem, seed):
        """One pass over both is the sum of the two, and the chain rule through the coefficients."""
        parameters, data = chain_inputs(
            triangular(problem, np.random.default_rng(seed)), np.random.default_rng(1)
        )
        rows, count = PseudoRows.compress(problem.statistics), problem.statistics.count
        pseudo_rows = [rows.root, rows.target, rows.rest, count]
        nothing = np.zeros(len(problem.column))
        shape = (len(problem.loadings), problem.mean.shape[1])
        value, beta, _ = chained(*parameters, *data, 1.0, np.zeros(shape), nothing)[:3]
        likelihood, d_beta, d_sigma = GaussianTasks().evaluate(beta, problem.sigma, *pseudo_rows)
        expected = chained(*parameters, *data, 1.0, d_beta, nothing)[3:]
        expected[3] = expected[3] + d_sigma
        found, *gradient = ChainedGaussian().evaluate(*parameters, *pseudo_rows, *data[2:])
        np.testing.assert_allclose(found, value + likelihood, rtol=1e-12)
        for g, other in zip(gradient, expected, strict=True):
            np.testing.assert_allclose(g, other, rtol=1e-9, atol=1e-9 * (1 + np.abs(other).max(initial=0)))

    @pytest.mark.parametrize("position", range(8))
    def test_not_finite_with_gaussian_outcomes(self, position):
        problem = triangular(Problem(5, 3, 2, 1, 1, (0,), 6, n_effects=1), np.random.default_rng(0))
        parameters, data = chain_inputs(problem, np.random.default_rng(0))
        rows, count = PseudoRows.compress(problem.statistics), problem.statistics.count
        parameters[position] = np.full_like(parameters[position], np.nan)
        found, *gradient = ChainedGaussian().evaluate(
            *parameters, rows.root, rows.target, rows.rest, count, *data[2:]
        )
        assert found == -np.inf
        for g in gradient:
            np.testing.assert_array_equal(g, 0.0)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("position", range(8))
    def test_not_finite(self, chained, position, value):
        problem = triangular(Problem(5, 3, 2, 1, 1, (0,), 6, n_effects=1), np.random.default_rng(0))
        parameters, data = chain_inputs(problem, np.random.default_rng(0))
        parameters[position] = np.full_like(parameters[position], value)
        found, _, _, *gradient = chained(*parameters, *data, 1.0, np.ones((3, 3)), np.ones(1))
        assert found == -np.inf
        for g in gradient:
            np.testing.assert_array_equal(g, 0.0)


class TestGaussianTasks:
    @given(problem=problems(), seed=st.integers(0, 2**32 - 1))
    def test_value_and_gradient(self, problem, seed):
        """From pseudo-rows, the log density of all rows; and its derivatives by hand."""
        rng = np.random.default_rng(seed)
        statistics = problem.statistics
        rows = PseudoRows.compress(statistics)
        beta = rng.standard_normal((len(problem.loadings), problem.X.shape[1]))
        op = GaussianTasks()
        value, d_beta, d_sigma = op.evaluate(
            beta, problem.sigma, rows.root, rows.target, rows.rest, statistics.count
        )
        own = problem.task if len(problem.sigma) > 1 else np.zeros_like(problem.task)
        left, s = problem.y - (problem.X * beta[problem.task]).sum(axis=1), problem.sigma[own]
        expected = stats.norm.logpdf(left, 0.0, s).sum()
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)
        by_beta = np.zeros_like(beta)
        np.add.at(by_beta, problem.task, problem.X * (left / s**2)[:, None])
        by_sigma = np.zeros_like(problem.sigma)
        np.add.at(by_sigma, own, left**2 / s**3 - 1 / s)
        np.testing.assert_allclose(d_beta, by_beta, rtol=1e-8, atol=1e-8 * (1 + np.abs(by_beta).max()))
        np.testing.assert_allclose(d_sigma, by_sigma, rtol=1e-8, atol=1e-8 * (1 + np.abs(by_sigma).max()))

    @pytest.mark.parametrize("position", range(2))
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
    def test_not_finite(self, position, value):
        if (position, value) == (0, 0.0):
            return
        problem = Problem(5, 3, 2, 1, 1, (0,), 6, by_task=False)
        rows = PseudoRows.compress(problem.statistics)
        inputs = [np.ones((3, 3)), np.ones(1), rows.root, rows.target, rows.rest, problem.statistics.count]
        inputs[position] = np.full_like(inputs[position], value)
        found, *gradient = GaussianTasks().evaluate(*inputs)
        assert found == -np.inf
        for g in gradient:
            np.testing.assert_array_equal(g, 0.0)


def cholesky_by_hand(partials, n):
    """The C-vine, as in the paper; any kind of numbers (complex ones for the derivative)."""
    factor = np.zeros((n, n), dtype=np.asarray(partials).dtype)
    at = 0
    for i in range(n):
        remaining = 1.0
        for j in range(i):
            factor[i, j] = partials[at] * remaining
            remaining = remaining * np.sqrt(1 - partials[at] ** 2)
            at += 1
        factor[i, i] = remaining
    return factor


def below(matrix):
    return matrix[np.tril_indices(len(matrix), -1)]


def log_lkj_constant(n, eta):
    """Log of the integral of det(R)^(eta - 1) over correlation matrices (equation 17 of the paper)."""
    k = np.arange(1, n)
    b = eta + (n - k - 1) / 2.0
    power = np.sum((2 * eta - 2 + n - k) * (n - k)) * np.log(2.0)
    return power + np.sum((n - k) * betaln(b, b))


@cache
def lkj_function(n):
    partials, cotangent = pt.vector(), pt.matrix()
    factor = cholesky_from_partials(partials, n)
    gradient = pytensor.grad((factor * cotangent).sum(), partials)
    return pytensor.function([partials, cotangent], [factor, gradient], mode=NO_BLAS)


def lkj_map(partials, cotangent):
    return lkj_function(len(cotangent))(partials, cotangent)


def lkj_partial_prior(n, eta):
    with pm.Model() as model:
        mtl.LKJ(eta).correlation_cholesky(n, str)
    return model["feature_corr_partial"]


class TestLKJ:
    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 7), zeros=st.floats(0, 1))
    def test_factor_and_gradient(self, seed, n, zeros):
        rng = np.random.default_rng(seed)
        size = n * (n - 1) // 2
        partials = np.where(rng.random(size) < zeros, 0.0, rng.uniform(-0.99, 0.99, size))
        cotangent = rng.standard_normal((n, n))
        factor, gradient = lkj_map(partials, cotangent)
        np.testing.assert_allclose(factor, cholesky_by_hand(partials, n), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(np.diag(factor @ factor.T), 1.0, rtol=1e-13)
        np.testing.assert_allclose(partials_of(factor @ factor.T), partials, rtol=1e-7, atol=1e-7)
        step = 1e-30  # a complex step has no cancellation
        slope = [
            (cholesky_by_hand(partials + 1j * step * e, n).imag / step * cotangent).sum()
            for e in np.eye(size)
        ]
        np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("edge", [0.0, 1e-200, -1e-160, 1 - 1e-12, -1 + 1e-12])
    def test_gradient_at_the_edges(self, edge):
        rng = np.random.default_rng(0)
        partials = rng.uniform(-0.9, 0.9, 6)
        cotangent = rng.standard_normal((4, 4))
        for at in range(6):
            point = partials.copy()
            point[at] = edge
            gradient = lkj_map(point, cotangent)[1]
            slope = [
                (cholesky_by_hand(point + 1e-30j * e, 4).imag / 1e-30 * cotangent).sum() for e in np.eye(6)
            ]
            np.testing.assert_allclose(gradient, slope, rtol=1e-3 if abs(edge) > 0.99 else 1e-10, atol=1e-12)

    @pytest.mark.parametrize("n", [2, 4])
    def test_second_derivatives(self, n):
        """They are the slopes of the gradient, zeros among the partial correlations or not."""
        rng = np.random.default_rng(n)
        size = n * (n - 1) // 2
        partials, cotangent = pt.vector(shape=(size,)), pt.matrix(shape=(n, n))
        direction = pt.vector(shape=(size,))
        slope = pytensor.grad((cholesky_from_partials(partials, n) ** 2 * cotangent).sum(), partials)
        second = pytensor.grad((slope * direction).sum(), [partials, cotangent])
        mode = {"mode": Mode("py", None), "on_unused_input": "ignore"}
        function = pytensor.function([partials, cotangent, direction], [slope, *second], **mode)
        weight, point, v = (
            rng.standard_normal((n, n)),
            rng.uniform(-0.9, 0.9, size),
            rng.standard_normal(size),
        )
        for r in (point, np.where(np.arange(size) % 2, point, 0.0)):
            h = 1e-5
            ahead, behind = (function(r + s * h * v, weight, v)[0] for s in (1, -1))
            _, by_partials, by_cotangent = function(r, weight, v)
            np.testing.assert_allclose(by_partials, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)
            # The slope is linear in the cotangent.
            other = rng.standard_normal((n, n))
            np.testing.assert_allclose((by_cotangent * other).sum(), function(r, other, v)[0] @ v, rtol=1e-9)

    @pytest.mark.parametrize("edge", [-1.0, 1.0])
    def test_finite_at_perfect_correlation(self, edge):
        factor, _ = lkj_map(np.array([edge, 0.3, 0.2]), np.ones((3, 3)))
        np.testing.assert_array_equal(factor[1], [edge, 0.0, 0.0])
        np.testing.assert_allclose((factor**2).sum(axis=1), 1.0)

    @pytest.mark.parametrize("eta", [0.7, 1.0, 2.0, 5.5])
    @pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
    def test_density(self, n, eta):
        """The Beta variables imply the LKJ density of R, and PyMC's density of its Cholesky factor."""
        rng = np.random.default_rng(n)
        size = n * (n - 1) // 2
        half = lkj_partial_prior(n, eta)
        value = pt.vector()
        prior = pytensor.function([value], pm.logp(half, value).sum(), mode=NO_BLAS)
        factor_value = pt.tensor(dtype="float64", shape=(n, n))
        theirs = pytensor.function(
            [factor_value], pm.logp(pm.LKJCorr.dist(n=n, eta=eta), factor_value), mode=NO_BLAS
        )
        for _ in range(3):
            partials = rng.uniform(-0.8, 0.8, size)
            factor = cholesky_by_hand(partials, n)
            corr = factor @ factor.T
            step = 1e-30
            d_factor, d_corr = np.empty((size, size)), np.empty((size, size))
            for i, e in enumerate(np.eye(size)):
                ahead = cholesky_by_hand(partials + 1j * step * e, n)
                d_factor[:, i] = below(ahead).imag / step
                d_corr[:, i] = below(ahead @ ahead.T).imag / step
            # (1 + r) / 2 is the Beta variable: d half / d r = 1 / 2 each.
            log_density = prior((1 + partials) / 2) - size * np.log(2.0)
            lkj = (eta - 1) * np.linalg.slogdet(corr)[1] - log_lkj_constant(n, eta)
            np.testing.assert_allclose(
                log_density - np.linalg.slogdet(d_corr)[1], lkj, rtol=1e-10, atol=1e-10
            )
            on_factor = log_density - np.linalg.slogdet(d_factor)[1]
            np.testing.assert_allclose(on_factor, theirs(factor), rtol=1e-10, atol=1e-10)

    def test_constant_of_two(self):
        """With two variables the integral of (1 - r^2)^(eta - 1) is sqrt(pi) G(eta) / G(eta + 1/2)."""
        for eta in (0.5, 1.0, 3.0):
            by_hand = 0.5 * np.log(np.pi) + gammaln(eta) - gammaln(eta + 0.5)
            np.testing.assert_allclose(log_lkj_constant(2, eta), by_hand, rtol=1e-12)

    @pytest.mark.parametrize(("n", "eta"), [(2, 1.0), (4, 2.0), (5, 0.8)])
    def test_marginals(self, n, eta):
        """Every correlation, r_12 as much as the last one, is Beta(a, a) on (-1, 1), a = eta - 1 + n / 2."""
        with pm.Model():
            factor = mtl.LKJ(eta).correlation_cholesky(n, str)
        draws = pm.draw(factor, draws=3000, random_seed=1, mode=Mode("py", None))
        corr = draws @ np.swapaxes(draws, 1, 2)
        a = eta - 1 + n / 2
        pairs = [(i, j) for i in range(n) for j in range(i)]
        for i, j in pairs:
            p = stats.kstest((1 + corr[:, i, j]) / 2, stats.beta(a, a).cdf).pvalue
            assert p > 1e-7 / len(pairs), (i, j, p)

    @pytest.mark.slow
    def test_marginals_of_pymc(self):
        n, eta = 3, 2.0
        draws = pm.draw(pm.LKJCorr.dist(n=n, eta=eta), draws=2000, random_seed=2, mode=Mode("py", None))
        corr = draws @ np.swapaxes(draws, 1, 2)
        a = eta - 1 + n / 2
        for i, j in ((1, 0), (2, 0), (2, 1)):
            assert stats.kstest((1 + corr[:, i, j]) / 2, stats.beta(a, a).cdf).pvalue > 1e-7
