"""What is said before anything is sampled: outcomes without noise, and what no rows can tell apart."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayes_mtl as mtl
from bayes_mtl.errors import DataError, DataWarning
from bayes_mtl.inference.prechecks import hard_to_tell_apart, noise_free
from bayes_mtl.summaries.refit import keep_rows

BY_TASK = mtl.ModelSpec(mtl.Gaussian(task_noise=True))


def make(seed=0, n_tasks=6, n=12, *, noise=0.0, shift=0.0, far=0.0, measured=None):
    """Return data of tasks with coefficients of their own, and noise that is `measured` or not."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks), n)
    X = rng.standard_normal((len(task), 2)) + far
    beta = rng.standard_normal((n_tasks, 3))
    y = beta[task, 0] + (X * beta[task, 1:]).sum(axis=1) + shift + noise * rng.standard_normal(len(task))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of features far from zero
        return mtl.TaskData.from_arrays(X, y, task, noise=measured)


@given(
    seed=st.integers(0, 2**16),
    shift=st.sampled_from([0.0, 1e3, 1e6]),
    far=st.sampled_from([0.0, 1e3, 1e6]),
)
def test_exact_outcomes_are_found_wherever_they_lie(seed, shift, far):
    for spec in (mtl.ModelSpec(), BY_TASK):
        found = noise_free(spec, make(seed, shift=shift, far=far))
        assert len(found) == 1
        assert "exact linear combination" in found[0].problem


@given(seed=st.integers(0, 2**16), noise=st.sampled_from([1e-7, 1e-3, 1.0, 1e8]))
def test_noise_however_small_is_noise(seed, noise):
    for spec in (mtl.ModelSpec(), BY_TASK, mtl.ModelSpec(task_covariance=mtl.CompletePooling())):
        assert noise_free(spec, make(seed, noise=noise)) == []


def with_stuck(size, value=0.0):
    """Ten tasks with noise, and one of `size` rows that is stuck at a value."""
    rng = np.random.default_rng(1)
    task = np.concatenate([np.repeat(np.arange(10), 15), np.full(size, 10)])
    x = rng.standard_normal(len(task))
    y = np.where(task == 10, value, 1 + 0.5 * x + rng.standard_normal(len(task)))
    return mtl.TaskData.from_arrays(x[:, None], y, task)


@pytest.mark.parametrize("value", [0.0, 3.7, 1e6])
def test_a_stuck_task_is_named_under_noise_by_task(value):
    data = with_stuck(15, value)
    (found,) = noise_free(BY_TASK, data)
    assert "no noise in task 10 " in found.problem
    assert noise_free(mtl.ModelSpec(), data) == []
    with pytest.raises(DataError, match="no noise in task 10"):
        mtl.fit(data, BY_TASK)


def test_tasks_whose_rows_are_left_out_are_passed_over():
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({"task": np.repeat(list("abc"), 8), "x": rng.standard_normal(24)})
    frame = frame.assign(item=np.tile(list("pqrs"), 6), y=rng.standard_normal(24))
    for spec in (mtl.ModelSpec(), BY_TASK):
        for groupings in ([], ["item"]):
            data = mtl.TaskData.from_table(frame, task="task", formula="y ~ x", groupings=groupings)
            assert noise_free(spec, keep_rows(data, data.task_index != 1)) == []


@pytest.mark.parametrize(("spare", "scale", "improper"), [(3, 0.3, False), (4, 0.3, True), (3, 0.34, True)])
def test_few_rows_of_a_stuck_task_have_a_posterior(spare, scale, improper):
    """The integral of exp(d^2 spread^2 / 2) over HalfNormal(scale) is finite for d scale < 1."""
    spec = mtl.ModelSpec(
        mtl.Gaussian(task_noise=True), priors={"sigma_spread": mtl.Prior("HalfNormal", sigma=scale)}
    )
    assert bool(noise_free(spec, with_stuck(spare + 2))) is improper


@pytest.mark.parametrize(
    ("prior", "improper"),
    [
        (0.1, False),
        (mtl.Prior("HalfCauchy", beta=1), True),
        (mtl.Prior("InverseGamma", alpha=2, beta=1), False),
        (mtl.Prior("Uniform", lower=0.01, upper=1), False),
        (mtl.Prior("Uniform", lower=0, upper=1), True),
    ],
    ids=str,
)
def test_what_is_known_of_sigma_counts(prior, improper):
    assert bool(noise_free(mtl.ModelSpec(priors={"sigma": prior}), make())) is improper


def test_what_needs_no_noise_is_left_alone():
    rng = np.random.default_rng(0)
    measured = make(measured=np.full(72, 0.5))
    assert noise_free(mtl.ModelSpec(), measured) == []
    binary = mtl.TaskData.from_arrays(
        rng.standard_normal((40, 1)), np.repeat([0, 1] * 2, 10), np.repeat([1, 2], 20)
    )
    assert noise_free(mtl.ModelSpec("bernoulli"), binary) == []


def test_tasks_with_as_many_columns_as_rows():
    """Each task alone is explained exactly by its own coefficients, which says nothing; all at once does."""
    rng = np.random.default_rng(2)
    task, x = np.repeat(np.arange(30), 2), rng.standard_normal(60)
    level = rng.standard_normal(30)[task]
    for y, exact in (
        (level + rng.standard_normal(60), False),
        (2 - x, True),  # no task deviates
        (level + 0.5 * x, True),  # tasks deviate in their level alone
    ):
        data = mtl.TaskData.from_arrays(x[:, None], y, task)
        assert bool(noise_free(mtl.ModelSpec(), data)) is exact
    fixed = mtl.ModelSpec(priors={"feature_sd": 1.0})
    assert noise_free(fixed, mtl.TaskData.from_arrays(x[:, None], 2 - x, task)) == []


@pytest.mark.parametrize("exact", [True, False])
def test_shared_slopes_groupings_and_pooling(exact):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"task": np.repeat(list("abcd"), 9), "x": rng.standard_normal(36)})
    frame["item"] = np.tile(list("pqr"), 12)
    frame["y"] = frame.task.map({"a": 1.0, "b": 2.0, "c": 4.0, "d": -1.0}) - frame.x
    frame["y"] += frame.item.map({"p": 0.3, "q": 1.0, "r": -2.0}) + (0 if exact else 1e-6) * rng.normal(
        size=36
    )
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", shared_features=["x"], groupings=["item"])
    assert bool(noise_free(mtl.ModelSpec(), data)) is exact
    plain = mtl.TaskData.from_table(frame, task="task", outcome="y", shared_features=["x"])
    assert noise_free(mtl.ModelSpec(), plain) == []
    one = frame.assign(y=3 - 2 * frame.x + (0 if exact else 1e-6) * rng.normal(size=36))
    pooled = mtl.TaskData.from_table(one, task="task", outcome="y", features=["x"])
    assert bool(noise_free(mtl.ModelSpec(task_covariance=mtl.CompletePooling()), pooled)) is exact


def test_one_task_and_one_row_per_task_are_said():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((20, 1)), rng.standard_normal(20)
    one = mtl.TaskData.from_arrays(x, y, ["a"] * 20)
    single = mtl.TaskData.from_arrays(x, y, np.arange(20))
    known = mtl.TaskData.from_arrays(x, y, np.arange(20), noise=np.ones(20))
    pooled, fixed = mtl.ModelSpec(task_covariance=mtl.CompletePooling()), mtl.ModelSpec(priors={"sigma": 1.0})
    assert "one task only" in hard_to_tell_apart(mtl.ModelSpec(), one)[0]
    assert "one row only" in hard_to_tell_apart(mtl.ModelSpec(), single)[0]
    for spec, data in ((pooled, one), (pooled, single), (fixed, single), (mtl.ModelSpec(), known)):
        assert hard_to_tell_apart(spec, data) == []


@pytest.fixture(scope="module")
def nothing_to_learn():
    """Studies with known errors, each on its own: every hyperparameter is fixed."""
    rng = np.random.default_rng(5)
    studies = {"study": list("abcdef"), "effect": rng.normal(0.3, 0.3, 6), "se": rng.uniform(0.1, 0.4, 6)}
    data = mtl.TaskData.from_table(studies, task="study", outcome="effect", noise="se")
    spec = mtl.ModelSpec(task_covariance=mtl.NoPooling())
    return data, mtl.fit(data, spec, draws=300, chains=1, random_seed=1, progressbar=False)


def test_where_nothing_is_left_to_learn(nothing_to_learn, tmp_path):
    data, idata = nothing_to_learn
    diagnosis = mtl.diagnose(idata)
    assert not diagnosis.problems
    assert "No hyperparameter is left to learn" in str(diagnosis)
    table = mtl.summary(idata)
    assert list(table.index) == [f"beta[{task}, Intercept]" for task in data.tasks]
    assert "exact and independent" in str(table)
    again = mtl.load(mtl.save(idata, tmp_path / "fit.nc"))
    assert str(mtl.summary(again).diagnosis) == str(diagnosis)
    assert "exact and independent" in (mtl.report(idata, tmp_path / "report.html")).read_text()
    draws = idata["posterior"]["beta"].to_numpy()[0, :, :, 0]
    offset = np.abs(draws.mean(axis=0) - data.y) / data.noise
    np.testing.assert_array_less(offset, 6 / np.sqrt(300) + 0.01)  # the prior is wide, not flat


@pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")
def test_questions_about_other_tasks_are_answered_in_words():
    rng = np.random.default_rng(6)
    data = mtl.TaskData.from_arrays(rng.standard_normal((20, 1)), rng.standard_normal(20), ["a"] * 20)
    spec = mtl.ModelSpec(
        feature_covariance=mtl.Diagonal(), priors={"beta_mean": 0.0, "feature_sd": 1.0, "sigma": 1.0}
    )
    with pytest.warns(DataWarning, match="one task only"):
        idata = mtl.fit(data, spec, draws=50, chains=2, random_seed=1, progressbar=False)
    for ask in (mtl.transfer_gain, mtl.leave_one_task_out, mtl.task_correlation, mtl.gradient_conflict):
        with pytest.raises(mtl.errors.SpecError, match="two tasks"):
            ask(idata)
