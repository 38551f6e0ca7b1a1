"""Whether `feature_sd` goes with the coefficients that were drawn, on posteriors whose numbers are known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl.inference.diagnostics import Diagnosis, keep, kept
from bayes_mtl.inference.spread import spread_findings
from tests.test_predict import frozen

N_TASKS = 30
# Coefficients of thirty tasks, with a mean of zero and a mean square of one.
COEFFICIENTS = np.column_stack([np.ones(N_TASKS), np.random.default_rng(1).standard_normal((N_TASKS, 2))])
COEFFICIENTS = np.linalg.qr(COEFFICIENTS)[0][:, 1:] * np.sqrt(N_TASKS)


def fitted(spec, beta=COEFFICIENTS, draws=20, **values):
    rng = np.random.default_rng(2)
    task = np.repeat([f"t{i:02d}" for i in range(N_TASKS)], 3)
    frame = pd.DataFrame(
        {"task": task, "x": rng.standard_normal(len(task)), "y": rng.standard_normal(len(task))}
    )
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x"])
    values = {"beta_mean": [0.0, 0.0], "feature_sd": [1.0, 1.0], "sigma": 1.0} | values
    return frozen(data, spec, draws=draws, beta=beta, **values)


def test_scales_below_the_spread_are_named_with_both_numbers():
    found = spread_findings(fitted(mtl.ModelSpec(), feature_sd=[0.5, 1.0]))
    assert len(found) == 1
    assert found[0].where == "feature_sd"
    assert "Intercept 0.5 for 1)" in found[0].problem
    assert "LowRank(1)" in found[0].remedy


@pytest.mark.parametrize(("ratio", "said"), [(1.20, False), (1.25, False), (1.27, True)])
def test_only_what_is_well_below_is_said(ratio, said):
    """From 1 + 2 / sqrt(2 T) on, which is 1.258 for 30 tasks."""
    assert bool(spread_findings(fitted(mtl.ModelSpec(), feature_sd=[1 / ratio, 1.0]))) is said


def test_tasks_that_are_alike_count_as_few():
    """Two of the same deviation in thirty related tasks is one large number, not thirty."""
    beta = COEFFICIENTS + np.array([0.0, 2.0])
    related = np.full((N_TASKS, N_TASKS), 0.99) + 0.01 * np.eye(N_TASKS)
    spec = mtl.ModelSpec(task_covariance=mtl.LKJ(2.0))
    assert not spread_findings(with_corr(fitted(spec, beta), related))
    assert spread_findings(with_corr(fitted(spec, beta), np.eye(N_TASKS)))


def with_corr(idata, corr):
    posterior = idata["posterior"].to_dataset()
    every = np.broadcast_to(corr, (1, posterior.sizes["draw"], *corr.shape))
    idata["posterior"] = xr.DataTree(
        posterior.assign(task_corr=(("chain", "draw", "task", "task_bis"), every))
    )
    return idata


def test_scales_of_tasks_are_taken_into_account():
    scale = np.where(np.arange(N_TASKS) < 5, 3.0, 1.0)
    spec = mtl.ModelSpec(task_covariance=mtl.StudentT())
    beta = COEFFICIENTS * scale[:, None]
    assert not spread_findings(fitted(spec, beta, task_reliability=scale**-2))
    assert spread_findings(fitted(spec, beta, task_reliability=np.ones(N_TASKS)))


def test_notes_stand_below_what_the_sampler_says_and_are_kept():
    idata = fitted(mtl.ModelSpec(), feature_sd=[0.5, 1.0])
    build = partial(Diagnosis, worst_r_hat=1.0, least_ess=900.0, divergences=0, draws=20, chains=1)
    found = build(problems=(), notes=tuple(spread_findings(idata)))
    first, *others = str(found).splitlines()
    assert first.startswith("No problems found")
    assert len(others) == 1
    assert others[0].startswith("Note: feature_sd: is well below the spread")
    keep(idata, found)
    assert kept(idata) == found
    assert "\n" not in str(build(problems=()))


def test_levels_of_groupings_are_looked_at_too():
    idata = fitted(mtl.ModelSpec())
    levels = [f"i{k}" for k in range(N_TASKS)]
    rows = pd.DataFrame({"task": np.tile(["a", "b", "c"], N_TASKS), "item": np.repeat(levels, 3)})
    rows["y"] = np.random.default_rng(3).standard_normal(len(rows))
    data = mtl.TaskData.from_table(rows, task="task", outcome="y", groupings=["item"])
    idata = frozen(data, mtl.ModelSpec(), draws=20, beta=np.zeros((3, 1)), beta_mean=[0.0], feature_sd=[1.0])
    effects = np.broadcast_to(COEFFICIENTS[:, :1], (1, 20, N_TASKS, 1))
    added = xr.Dataset(
        {
            "item_effects": (("chain", "draw", "item", "item_feature"), effects),
            "item_sd": (("chain", "draw", "item_feature"), np.full((1, 20, 1), 0.25)),
        },
        {"item": levels, "item_feature": ["Intercept"]},
    )
    idata["posterior"] = xr.DataTree(idata["posterior"].to_dataset().merge(added))
    (found,) = spread_findings(idata)
    assert found.where == "item_sd"
    assert "across levels" in found.problem
    assert "Intercept 0.25 for 1)" in found.problem
