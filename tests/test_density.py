"""The sampler's density: right, compiled once, and right again for other data; the pilot only helps."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import arviz as az
import numpy as np
import nutpie
import pytensor
import pytest
from numba.core.runtime import rtsys
from numba.core.runtime._nrt_python import memsys_disable_stats, memsys_enable_stats

import bayes_mtl as mtl
from bayes_mtl.data import PseudoRows, TaskStatistics
from bayes_mtl.inference import density as module
from bayes_mtl.inference.coordinates import laplace_coordinates
from bayes_mtl.inference.density import compile_density, nutpie_model
from bayes_mtl.inference.pilot import pilot
from bayes_mtl.model import sampling_model
from tests import contracts


def binary(seed, n_tasks=6, n_rows=30, equal=True):
    rng = np.random.default_rng(seed)
    beta = np.array([-0.3, 0.8]) + 0.7 * rng.standard_normal((n_tasks, 2))
    task = np.repeat(np.arange(n_tasks), n_rows)
    if not equal:  # as many rows, but otherwise shared out
        task = np.sort(np.concatenate([np.arange(n_tasks), rng.integers(0, n_tasks, n_tasks * (n_rows - 1))]))
    x = rng.standard_normal(len(task)) * (1 + seed)
    y = rng.binomial(1, 1 / (1 + np.exp(-beta[task, 0] - beta[task, 1] * x)))
    return mtl.TaskData.from_arrays(x[:, None], y, task)


def gaussian(seed, n_tasks=5):
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks), 6)
    X = 3.0**seed * rng.standard_normal((len(task), 2))
    y = seed + X @ rng.standard_normal(2) + rng.standard_normal(len(task))
    return mtl.TaskData.from_arrays(X, y, task)


def model_of(spec, data):
    collapsed = spec.family.gaussian_coefficients
    rows = data.pseudo_rows if collapsed else pilot(spec, data)
    return sampling_model(spec, data, collapsed=collapsed, rows=rows).model


@pytest.fixture
def compilations(monkeypatch):
    """Count what is compiled, starting with nothing in memory."""
    count, compile_code = [], module._machine_code
    monkeypatch.setattr(module, "_codes", type(module._codes)())
    monkeypatch.setattr(module, "_machine_code", lambda *a: [count.append(1), compile_code(*a)][1])
    return count


CASES = {
    "gaussian": (mtl.ModelSpec(task_covariance=mtl.LowRank(1)), gaussian(0), gaussian(1)),
    "bernoulli": (mtl.ModelSpec(family="bernoulli"), binary(0), binary(1, equal=False)),
}


@pytest.mark.parametrize("case", CASES)
def test_other_data_of_the_same_shape_need_no_compilation(case, compilations):
    spec, *both = CASES[case]
    for data in both:
        model = model_of(spec, data)
        compiled = compile_density(model)
        slow = pytensor.function(
            model.value_vars,
            [model.logp(), *pytensor.grad(model.logp(), model.value_vars)],
            mode=contracts.MODE,
        )
        for seed, found in ((1, compiled), (2, compiled), (3, compiled.in_laplace_coordinates())):
            position, coordinates = found.start(seed), found.coordinates
            parameters, k = coordinates.forward(position), len(coordinates.centre)
            shapes = [np.shape(model.initial_point()[v.name]) for v in model.value_vars]
            parts = np.split(parameters, np.cumsum([int(np.prod(s)) for s in shapes])[:-1])
            expected, *slopes = slow(*(p.reshape(s) for p, s in zip(parts, shapes, strict=True)))
            value, gradient = found.make()(position)
            np.testing.assert_allclose(value, expected, rtol=1e-10)
            flat = np.concatenate([np.ravel(s) for s in slopes])
            flat[:k] = coordinates.scale.T @ flat[:k]
            np.testing.assert_allclose(gradient, flat, rtol=1e-8, atol=1e-9 * np.abs(flat).max())
    assert len(compilations) == 1


def test_another_model_is_compiled_anew(compilations):
    spec, data, _ = CASES["gaussian"]
    compile_density(model_of(spec, data))
    compile_density(model_of(replace(spec, task_covariance=mtl.Exchangeable()), data))
    compile_density(model_of(spec, gaussian(0, n_tasks=7)))
    compile_density(model_of(spec, data))
    assert len(compilations) == 3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=str)
def test_weights_and_offsets_that_come_and_go(order):
    """Each is stored as one number where it is the same for all rows: code for one is not code for many."""
    rng, plain = np.random.default_rng(0), binary(0)
    weighted = replace(plain, weights=rng.uniform(0.2, 3.0, plain.n_rows))
    cases = [plain, weighted, replace(weighted, offset=rng.standard_normal(plain.n_rows))]
    for data in (cases[i] for i in order):
        model = model_of(mtl.ModelSpec(family="bernoulli"), data)
        found = compile_density(model)
        position = found.start(1)
        slow = pytensor.function(model.value_vars, model.logp(), mode=contracts.MODE)
        shapes = [np.shape(model.initial_point()[v.name]) for v in model.value_vars]
        parts = np.split(position, np.cumsum([int(np.prod(s)) for s in shapes])[:-1])
        expected = slow(*(p.reshape(s) for p, s in zip(parts, shapes, strict=True)))
        np.testing.assert_allclose(found.make()(position)[0], expected, rtol=1e-10)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200, -1e200])
def test_positions_that_make_no_sense(value):
    found = compile_density(model_of(*CASES["gaussian"][:2]))
    assert found.make()(np.full(found.size, value))[0] == -np.inf


def test_draws_are_constrained_as_pymc_does():
    spec, data, _ = CASES["gaussian"]
    model = model_of(spec, data)
    found = compile_density(model).in_laplace_coordinates()
    positions = np.stack([[found.start(s) for s in (1, 2)], [found.start(s) for s in (3, 4)]])
    draws = found.constrain(positions)
    slow = pytensor.function(
        model.value_vars, model.replace_rvs_by_values(model.free_RVs), mode=contracts.MODE
    )
    shapes = [np.shape(model.initial_point()[v.name]) for v in model.value_vars]
    parts = np.split(
        found.coordinates.forward(positions[1, 0]), np.cumsum([int(np.prod(s)) for s in shapes])[:-1]
    )
    expected = slow(*(p.reshape(s) for p, s in zip(parts, shapes, strict=True)))
    for rv, value in zip(model.free_RVs, expected, strict=True):
        np.testing.assert_allclose(draws[rv.name][1, 0], value, rtol=1e-12)


def test_the_documented_interface_of_the_sampler_agrees():
    """The callback in Python, used where nutpie's own class is not as expected, gives the same draws."""
    found = compile_density(model_of(*CASES["gaussian"][:2])).in_laplace_coordinates()
    settings = {"draws": 50, "tune": 100, "chains": 1, "seed": 1, "progress_bar": False}
    one = nutpie.sample(nutpie_model(found), **settings)["posterior"]["position"]
    two = nutpie.sample(nutpie_model(replace(found, machine_code=None)), **settings)["posterior"]["position"]
    np.testing.assert_allclose(one, two, rtol=1e-9)


def test_laplace_coordinates_of_a_normal_law_make_it_standard():
    """Precision A of the first parameters given the others, with one direction wider than they can be."""
    rng = np.random.default_rng(4)
    mode, values = rng.standard_normal(5), np.array([1e-4, 0.5, 2.0, 30.0, 1e5])
    vectors = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    A = vectors * values @ vectors.T

    def evaluate(position):
        off = position[:5] - mode
        gradient = np.concatenate([-A @ off, -position[5:]])
        return -0.5 * off @ A @ off - 0.5 * position[5:] @ position[5:], gradient

    found = laplace_coordinates(evaluate, np.zeros(7), 5)
    standard = found.scale @ A @ found.scale
    expected = vectors * np.array([4e-4, 1.0, 1.0, 1.0, 1.0]) @ vectors.T
    np.testing.assert_allclose(standard, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(vectors[:, 1:].T @ (found.centre - mode), 0.0, rtol=0, atol=1e-3)
    position = rng.standard_normal((3, 2, 7))
    moved = found.forward(position)
    np.testing.assert_array_equal(moved[..., 5:], position[..., 5:])
    np.testing.assert_allclose(moved[1, 0, :5], found.centre + found.scale @ position[1, 0, :5], rtol=1e-12)


def test_the_mode_is_found_with_millions_of_rows():
    """A change of the density that matters is small beside its size, and scales are thousands apart."""
    mode, curvature = np.array([0.3, -1.0, 0.7]), np.array([2e7, 5.0, 60.0])

    def evaluate(position):
        away = position - mode
        return 1.4e7 - float(curvature @ np.logaddexp(away, -away)), -curvature * np.tanh(away)

    found = laplace_coordinates(evaluate, np.zeros(3), 3)
    np.testing.assert_allclose((found.centre - mode) * np.sqrt(curvature), 0.0, atol=0.05)
    np.testing.assert_allclose(np.diag(found.scale) * np.sqrt(curvature), 1.0, rtol=1e-3)


def test_a_bad_pilot_does_not_make_the_answer_wrong(monkeypatch):
    data, spec = binary(3, n_tasks=5, n_rows=15), mtl.ModelSpec(family="bernoulli")
    good = mtl.fit(data, spec, draws=1500, chains=2, random_seed=1, progressbar=False)

    def bad(spec, data):
        rng = np.random.default_rng(0)
        gram = rng.standard_normal((data.n_tasks, 2, 2))
        nonsense = TaskStatistics(
            gram=gram @ gram.swapaxes(1, 2),
            moment=3 * rng.standard_normal((data.n_tasks, 2)),
            square=np.zeros(data.n_tasks),
            count=np.zeros(data.n_tasks),
            reference=np.ones(2),
            log_weight=0.0,
        )
        return PseudoRows.compress(nonsense)

    monkeypatch.setattr(import_module("bayes_mtl.inference.fit"), "pilot", bad)
    other = mtl.fit(data, spec, draws=3000, chains=2, random_seed=2, target_accept=0.95, progressbar=False)
    for name in ("beta_mean", "feature_sd", "beta"):
        means = [idata["posterior"][name].mean(("chain", "draw")) for idata in (good, other)]
        mcse = [az.mcse(idata["posterior"].to_dataset())[name] for idata in (good, other)]
        z = (means[0] - means[1]) / np.sqrt(mcse[0] ** 2 + mcse[1] ** 2)
        assert float(np.abs(z).max()) < 6, name


KINDS = {
    "collapsed": (mtl.ModelSpec(task_covariance=mtl.LowRank(1)), gaussian(0), True),
    "components": (mtl.ModelSpec(task_covariance=mtl.Clusters(2)), gaussian(0), True),
    "one after the other": (mtl.ModelSpec(task_covariance=mtl.LKJ()), gaussian(0, n_tasks=23), False),
    "whitened": (mtl.ModelSpec(family="bernoulli", task_covariance=mtl.LowRank(1)), binary(0), False),
    "whitened components": (
        mtl.ModelSpec(family="bernoulli", task_covariance=mtl.Clusters(2)),
        binary(0),
        False,
    ),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind in ("collapsed", "whitened") else pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_an_evaluation_keeps_no_memory(kind):
    """Subroutines that count no references must not be handed arrays that only they would free."""
    spec, data, collapsed = KINDS[kind]
    rows = data.pseudo_rows if spec.family.gaussian_coefficients else pilot(spec, data)
    density = compile_density(sampling_model(spec, data, collapsed=collapsed, rows=rows).model)
    evaluate = density.make()
    assert np.isfinite(evaluate(density.start(1))[0])
    memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    for seed in range(20):
        evaluate(density.start(seed))
    after = rtsys.get_allocation_stats()
    memsys_disable_stats()
    assert after.mi_alloc - before.mi_alloc == after.mi_free - before.mi_free > 0
    assert after.alloc - before.alloc == after.free - before.free
