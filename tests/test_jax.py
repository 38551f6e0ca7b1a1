"""The kernels as JAX functions against the kernels as Python runs them, and one fit by either backend.

Kernels are written in a subset of Python: without numba they are slow, and there is nothing to compile.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import cache

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import bayes_mtl as mtl
from bayes_mtl.data import PseudoRows
from bayes_mtl.kernels import (
    bernoulli_components,
    bernoulli_tasks,
    chained_coefficients,
    chained_gaussian,
    cholesky_from_partials,
    collapsed_gaussian,
    component_coefficients,
    component_evidence,
    gaussian_tasks,
    joint_effects,
    product,
    whitened_coefficients,
)
from bayes_mtl.kernels.compile import Signature, load
from bayes_mtl.kernels.ops import KernelOp
from tests import test_mixtures, test_task_glm
from tests.test_kernels import NAMES, NO_BLAS, PARAMETERS, Problem, chain_inputs, triangular


@pytest.fixture(autouse=True, scope="module")
def _needs_jax():
    pytest.importorskip("jax")  # not at the top: that would load it in every process that collects tests


def plain(op, node):
    """Stand in for `KernelOp.machine_code`: the kernel itself."""
    kernel, signature = load(op.kernel), Signature(op.signature)

    def evaluate(*inputs):
        sizes = signature.sizes([np.shape(x) for x in inputs])
        shapes = [
            tuple(int(s) if s.isdigit() else sizes[s] for s in letters) for letters in signature.outputs
        ]
        outputs = [np.empty(shape or 1) for shape in shapes]
        with np.errstate(all="ignore"):  # machine code does not warn either
            kernel(*map(np.atleast_1d, inputs), *outputs)
        return [out.reshape(shape) for out, shape in zip(outputs, shapes, strict=True)]

    return evaluate


def both(inputs, outputs):
    """Compile for the kernels as Python and for JAX; the result returns both lists of outputs."""
    python, jitted = (
        pytensor.function(inputs, outputs, mode=mode, on_unused_input="ignore") for mode in (NO_BLAS, "JAX")
    )

    def evaluate(*values):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KernelOp, "machine_code", plain)
            expected = python(*values)
        return [np.asarray(x) for x in expected], [np.asarray(x) for x in jitted(*values)]

    return evaluate


def agree(pairs, rtol=1e-9):
    """Each output to 1e-9 of its largest entry or of 1, whichever is more."""
    for i, (expected, found) in enumerate(zip(*pairs, strict=True)):
        assert found.dtype == np.float64
        size = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * size, err_msg=f"output {i}")


@cache
def fused():
    inputs = [kind() for kind in PARAMETERS]
    rows = [pt.tensor3(), pt.matrix(), pt.vector(), pt.vector(), pt.lvector(), pt.lvector(), pt.matrix()]
    value = collapsed_gaussian(*inputs, *rows)
    return both([*inputs, *rows], [value, *pytensor.grad(3.0 * value, inputs)])


@cache
def whitened():
    inputs = [kind() for kind in (*PARAMETERS, pt.vector, pt.matrix)]
    data = [pt.tensor3(), pt.matrix(), pt.lvector(), pt.lvector(), pt.lvector(), pt.matrix()]
    cotangents = [pt.scalar(), pt.matrix(), pt.vector()]
    outputs = whitened_coefficients(*inputs, *data)
    total = sum((c * out).sum() for c, out in zip(cotangents, outputs, strict=True))
    return both([*inputs, *data, *cotangents], [*outputs, *pytensor.grad(total, inputs)])


def whitened_inputs(problem, own=(0, 1, 2)):
    rng = np.random.default_rng(0)
    rows = PseudoRows.compress(problem.statistics)
    own = np.array(own, dtype=np.int64)
    size = len(problem.column) + problem.loadings.shape[1] * len(problem.inside)
    z = [rng.standard_normal(size), rng.standard_normal((len(problem.loadings), len(own)))]
    data = [rows.root, rows.target, problem.inside, own, problem.column, problem.design]
    shape = (len(problem.loadings), problem.mean.shape[1])
    cotangents = [rng.standard_normal(), rng.standard_normal(shape), rng.standard_normal(size)]
    return [*problem.parameters, *z], [*data, *cotangents]


@cache
def bernoulli():
    arrays = [pt.matrix(), pt.vector(dtype="int8"), pt.matrix(), pt.vector(), pt.vector(), pt.lvector()]
    value = bernoulli_tasks(*arrays)
    return both(arrays, [value, pytensor.grad(3.0 * value, arrays[0])])


@cache
def lkj(n):
    partials, cotangent = pt.vector(), pt.matrix()
    factor = cholesky_from_partials(partials, n)
    return both([partials, cotangent], [factor, pytensor.grad((factor * cotangent).sum(), partials)])


# JAX compiles once per combination of shapes: few of them, many corners in each. Beside the problem, the
# features in which tasks deviate on their own.
SHAPES = {
    "common": (Problem(1, 5, 3, 1, 2, (0, 2), 20, n_effects=3), (0, 1, 2)),
    "nothing inside": (Problem(2, 4, 2, 1, 2, (), 12, n_effects=1, by_task=False), (1,)),
    "nothing common": (Problem(3, 4, 2, 1, 0, (1,), 12), ()),
    "one task, few rows, no factors": (Problem(4, 1, 4, 2, 0, (0, 1, 2, 3), 0, n_effects=2), (0, 1, 2, 3)),
}


class TestCollapsedGaussian:
    @pytest.mark.parametrize("name", SHAPES)
    def test_agrees(self, name):
        problem, _ = SHAPES[name]
        agree(fused()(*problem.parameters, *problem.data()))

    @pytest.mark.parametrize("seed", range(5))
    def test_random_problems(self, seed):
        problem = Problem(10 + seed, 5, 3, 1, 2, (0, 2), 20, n_effects=3, unique=seed % 2 == 0)
        problem.unique_sd[1] = 0.0
        agree(fused()(*problem.parameters, *problem.data()))

    def test_only_the_lower_triangle_is_read(self):
        problem = Problem(20, 5, 3, 1, 2, (0, 2), 20, n_effects=3)
        problem.correlation[0, 1] = 7.0
        agree(fused()(*problem.parameters, *problem.data()))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
    @pytest.mark.parametrize("name", NAMES)
    def test_not_finite(self, name, value):
        problem = Problem(1, 5, 3, 1, 2, (0, 2), 20, n_effects=3)
        array = getattr(problem, name)
        if value == 1e200:
            array[:] = value  # overflows on the way
        else:
            array.flat[-1] = value
        self.assert_refused(fused()(*problem.parameters, *problem.data()))

    @pytest.mark.parametrize("sigma", [0.0, -1.0])
    def test_noise_must_be_positive(self, sigma):
        problem = Problem(1, 5, 3, 1, 2, (0, 2), 20, n_effects=3)
        problem.sigma[1] = sigma
        self.assert_refused(fused()(*problem.parameters, *problem.data()))

    @pytest.mark.parametrize("position", range(4))
    @pytest.mark.parametrize("value", [np.nan, -np.inf])
    def test_data_that_are_not_finite(self, position, value):
        problem = Problem(1, 5, 3, 1, 2, (0, 2), 20, n_effects=3)
        data = problem.data()
        data[position].flat[0] = value
        self.assert_refused(fused()(*problem.parameters, *data))

    @staticmethod
    def assert_refused(pairs):
        for value, *gradient in pairs:
            assert value == -np.inf
            for g in gradient:
                np.testing.assert_array_equal(g, 0.0)

    def test_sizes_that_do_not_fit(self):
        problem = Problem(21, 3, 2, 0, 1, (0, 1), 6)
        data = problem.data()
        problem.unique_sd = problem.unique_sd[:1]  # JAX by itself would stretch it
        x = [pt.constant(a) for a in (*problem.parameters, *data)]
        x[3] = pt.vector()
        value = pytensor.function([x[3]], collapsed_gaussian(*x), mode="JAX")
        with pytest.raises(ValueError, match="sizes t differ"):
            value(problem.unique_sd)


class TestWhitening:
    @pytest.mark.parametrize("name", SHAPES)
    def test_agrees(self, name):
        parameters, rest = whitened_inputs(*SHAPES[name])
        agree(whitened()(*parameters, *rest))

    @pytest.mark.parametrize("seed", range(5))
    def test_random_problems(self, seed):
        problem = Problem(10 + seed, 5, 3, 1, 2, (0, 2), 20, n_effects=3, unique=seed % 2 == 0)
        problem.unique_sd[1] = 0.0
        parameters, rest = whitened_inputs(problem)
        agree(whitened()(*parameters, *rest))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("position", range(9))
    def test_not_finite(self, position, value):
        parameters, rest = whitened_inputs(Problem(1, 5, 3, 1, 2, (0, 2), 20, n_effects=3))
        parameters[position].flat[-1] = value
        (_, numba_beta, _, *_), _ = pairs = whitened()(*parameters, *rest)
        for found, beta, alpha, *gradient in pairs:
            assert found == -np.inf
            np.testing.assert_array_equal(beta, numba_beta)  # the means
            np.testing.assert_array_equal(alpha, 0.0)
            for g in gradient:
                np.testing.assert_array_equal(g, 0.0)

    def test_noise_must_be_positive(self):
        parameters, rest = whitened_inputs(Problem(1, 5, 3, 1, 2, (0, 2), 20, n_effects=3))
        parameters[4][0] = 0.0
        for found, _, _, *gradient in whitened()(*parameters, *rest):
            assert found == -np.inf
            for g in gradient:
                np.testing.assert_array_equal(g, 0.0)


@cache
def chained():
    kinds = (pt.vector, pt.matrix, pt.matrix, pt.vector, pt.matrix, pt.vector, pt.vector, pt.matrix)
    inputs = [kind() for kind in kinds]
    data = [pt.tensor3(), pt.matrix(), pt.lvector(), pt.lvector(), pt.matrix()]
    cotangents = [pt.scalar(), pt.matrix(), pt.vector()]
    outputs = chained_coefficients(*inputs, *data)
    total = sum((c * out).sum() for c, out in zip(cotangents, outputs, strict=True))
    return both([*inputs, *data, *cotangents], [*outputs, *pytensor.grad(total, inputs)])


class TestChain:
    @pytest.mark.parametrize(
        ("inside", "by_task"),
        [
            ((0, 2), False),
            pytest.param((0, 1, 2), True, marks=pytest.mark.slow),
            pytest.param((1,), True, marks=pytest.mark.slow),
        ],
    )
    def test_agrees(self, inside, by_task):
        rng = np.random.default_rng(1)
        problem = triangular(Problem(2, 5, 3, 1, 1, inside, 20, n_effects=3, by_task=by_task), rng)
        parameters, data = chain_inputs(problem, rng)
        agree(chained()(*parameters, *data, 1.3, rng.standard_normal((5, 4)), rng.standard_normal(3)))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("position", range(8))
    def test_not_finite(self, position, value):
        rng = np.random.default_rng(1)
        problem = triangular(Problem(2, 5, 3, 1, 1, (0, 2), 20, n_effects=3), rng)
        parameters, data = chain_inputs(problem, rng)
        parameters[position].flat[-1] = value
        for found, _, alpha, *gradient in chained()(*parameters, *data, 1.0, np.ones((5, 4)), np.ones(3)):
            assert found == -np.inf
            np.testing.assert_array_equal(alpha, 0.0)
            for g in gradient:
                np.testing.assert_array_equal(g, 0.0)


@cache
def chained_with_gaussian():
    kinds = (pt.vector, pt.matrix, pt.matrix, pt.vector, pt.matrix, pt.vector, pt.vector, pt.matrix)
    inputs = [kind() for kind in kinds]
    data = [pt.tensor3(), pt.matrix(), pt.vector(), pt.vector(), pt.lvector(), pt.lvector(), pt.matrix()]
    value = chained_gaussian(*inputs, *data)
    return both([*inputs, *data], [value, *pytensor.grad(value, inputs)])


def test_chain_with_gaussian_outcomes():
    rng = np.random.default_rng(1)
    problem = triangular(Problem(2, 5, 3, 1, 1, (0, 2), 20, n_effects=3), rng)
    parameters, (root, target, *data) = chain_inputs(problem, rng)
    rows, count = PseudoRows.compress(problem.statistics), problem.statistics.count
    agree(chained_with_gaussian()(*parameters, root, target, rows.rest, count, *data))


@cache
def gaussian():
    arrays = [pt.matrix(), pt.vector(), pt.tensor3(), pt.matrix(), pt.vector(), pt.vector()]
    value = gaussian_tasks(*arrays)
    return both(arrays, [value, *pytensor.grad(2.0 * value, arrays[:2])])


@pytest.mark.parametrize("by_task", [True, False])
def test_gaussian_tasks(by_task):
    problem = Problem(2, 5, 3, 1, 1, (0, 2), 20, by_task=by_task)
    rows, count = PseudoRows.compress(problem.statistics), problem.statistics.count
    beta = np.random.default_rng(0).standard_normal((5, 4))
    agree(gaussian()(beta, problem.sigma, rows.root, rows.target, rows.rest, count))


@cache
def evidence():
    inputs = [pt.matrix(), pt.tensor3(), pt.vector(), pt.matrix()]
    data = [pt.tensor3(), pt.matrix(), pt.vector(), pt.vector()]
    cotangent = pt.matrix()
    out = component_evidence(*inputs, *data)
    return both([*inputs, *data, cotangent], [out, *pytensor.grad((cotangent * out).sum(), inputs)])


@cache
def components():
    inputs = [pt.matrix(), pt.tensor3(), pt.vector(), pt.matrix(), pt.matrix()]
    data, cotangents = [pt.tensor3(), pt.matrix()], [pt.matrix(), pt.tensor3()]
    outputs = component_coefficients(*inputs, *data)
    total = sum((c * out).sum() for c, out in zip(cotangents, outputs, strict=True))
    return both([*inputs, *data, *cotangents], [*outputs, *pytensor.grad(total, inputs)])


@pytest.mark.parametrize(
    "sizes",
    [*test_mixtures.SIZES[:2], *(pytest.param(s, marks=pytest.mark.slow) for s in test_mixtures.SIZES[2:])],
)
def test_components(sizes):
    rng, law, _, _, rows, exact = test_mixtures.problem(1, *sizes)
    density = rng.standard_normal((test_mixtures.T, test_mixtures.K))
    agree(evidence()(*law, *rows, *exact, density))
    z = rng.standard_normal((test_mixtures.T, test_mixtures.P))
    beta = rng.standard_normal((test_mixtures.K, test_mixtures.T, test_mixtures.F))
    agree(components()(*law, z, *rows, density, beta))


def test_bernoulli_of_components():
    rng = np.random.default_rng(6)
    arrays = [pt.tensor3(), pt.vector(), pt.matrix(), pt.vector(), pt.vector(), pt.lvector(), pt.matrix()]
    value = bernoulli_components(*arrays[:-1])
    functions = both(arrays, [value, pytensor.grad((arrays[-1] * value).sum(), arrays[0])])
    starts, beta = np.array([0, 3, 3, 10]), rng.standard_normal((2, 3, 4))
    X, y = rng.standard_normal((4, 10)), rng.integers(0, 2, 10).astype(float)
    others = rng.uniform(0.5, 2, 10), rng.standard_normal(10)
    agree(functions(beta, y, X, *others, starts, rng.standard_normal((3, 2))))


class TestBernoulli:
    @pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
    @pytest.mark.parametrize("counts", [[0, 5, 0, 0, 12, 1, 0], [0, 0]])
    def test_agrees(self, counts, size):
        p = test_task_glm.Problem(1, counts, 3, size)
        agree(bernoulli()(*p.arguments()))
        zero = np.zeros(1)
        agree(bernoulli()(*p.arguments(weights=np.array([1.7]), offset=zero)))

    def test_no_columns_and_other_types(self):
        p = test_task_glm.Problem(2, [5, 0, 12, 1], 3)
        agree(bernoulli()(*p.arguments(X=p.X[:0], beta=p.beta[:, :0])))
        x = [pt.constant(a) for a in p.arguments(y=p.y.astype(np.uint8), X=p.X.astype(np.float32))]
        beta = pt.matrix()
        value = bernoulli_tasks(beta, *x[1:])
        agree(both([beta], [value, pytensor.grad(value, beta)])(p.beta))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["beta", "offset", "weights"])
    def test_not_finite(self, name, value):
        p = test_task_glm.Problem(3, [5, 0, 12, 1], 3)
        broken = getattr(p, name).copy()
        broken.flat[-1] = value
        TestCollapsedGaussian.assert_refused(bernoulli()(*p.arguments(**{name: broken})))

    def test_what_no_row_reads_may_be_anything(self):
        p = test_task_glm.Problem(4, [5, 0, 12, 1], 3)
        p.beta[1] = np.nan
        expected, found = bernoulli()(*p.arguments())
        assert np.isfinite(expected[0])
        agree([expected, found])


class TestLKJ:
    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_agrees(self, n):
        rng = np.random.default_rng(n)
        agree(lkj(n)(rng.uniform(-0.99, 0.99, n * (n - 1) // 2), rng.standard_normal((n, n))))

    @pytest.mark.parametrize("edge", [0.0, 1e-200, 1 - 1e-12, -1 + 1e-12, 1.0, -1.0])
    def test_edges(self, edge):
        rng = np.random.default_rng(0)
        cotangent = rng.standard_normal((5, 5))
        for at in range(10):
            partials = rng.uniform(-0.9, 0.9, 10)
            partials[at] = edge
            agree(lkj(5)(partials, cotangent))


@cache
def effects():
    inputs, about = [pt.vector(), pt.matrix(), pt.vector()], [pt.matrix(), pt.vector()]
    cotangents = [pt.scalar(), pt.vector()]
    outputs = joint_effects(*inputs, *about)
    total = sum((c * out).sum() for c, out in zip(cotangents, outputs, strict=True))
    return both([*inputs, *about, *cotangents], [*outputs, *pytensor.grad(total, inputs)])


@pytest.mark.parametrize("scale", [1.0, np.inf])
def test_effects_of_levels(scale):
    rng = np.random.default_rng(0)
    n = 4
    covariance, information = (a @ a.T for a in rng.standard_normal((2, n, n)))
    law = [scale * rng.uniform(0.5, 2, n), np.linalg.cholesky(covariance), rng.standard_normal(n)]
    agree(effects()(*law, information, rng.standard_normal(n), 0.7, rng.standard_normal(n)))


def test_product():
    rng = np.random.default_rng(0)
    a, b, c = pt.matrix(), pt.matrix(), pt.matrix()
    out = product(a, b)
    functions = both([a, b, c], [out, *pytensor.grad((out * c).sum(), [a, b])])
    agree(functions(*(rng.standard_normal(shape) for shape in [(3, 4), (4, 2), (3, 2)])))


def test_jax_is_loaded_when_it_is_used():
    code = """
import sys, bayes_mtl, pytensor.tensor as pt
bayes_mtl.kernels.product(pt.matrix(), pt.matrix())
print([m for m in ("jax", "pytensor.link.jax.dispatch") if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_fits_agree():
    """Posterior means of all variables, on the scale of their Monte Carlo errors."""
    import arviz_stats as az

    rng = np.random.default_rng(0)
    beta = np.array([0.5, -1.0]) + rng.standard_normal((8, 2))
    task = np.repeat(np.arange(8), 15)
    X = np.column_stack([np.ones(len(task)), rng.standard_normal(len(task))])
    y = (X * beta[task]).sum(axis=1) + rng.standard_normal(len(task))
    data = mtl.TaskData.from_arrays(X[:, 1:], y, task)
    settings = {"draws": 1500, "tune": 300, "chains": 2, "random_seed": 1, "progressbar": False}
    mean, error = {}, {}
    for backend in ("numba", "jax"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)  # chains are short
            posterior = mtl.fit(data, backend=backend, **settings)["posterior"].to_dataset()
        mean[backend] = posterior.mean(("chain", "draw"))
        error[backend] = az.mcse(posterior, method="mean")
    for name in mean["numba"].data_vars:
        gap = mean["jax"][name] - mean["numba"][name]
        scale = np.sqrt(error["jax"][name] ** 2 + error["numba"][name] ** 2)
        assert (abs(gap) <= 6.5 * scale).all(), name
