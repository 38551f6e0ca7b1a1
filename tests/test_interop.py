"""Fits inside other people's PyMC and ArviZ: what their functions make of ours, with ours as it is."""

from __future__ import annotations

import numpy as np
import pymc as pm

import bayes_mtl as mtl


def small(T=4, n=6, seed=0, *, binary=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((T * n, 2))
    y = X.sum(axis=1) + rng.standard_normal(T * n)
    return mtl.TaskData.from_arrays(
        X, (y > 0).astype(int) if binary else y, np.repeat([f"t{t}" for t in range(T)], n)
    )


def test_the_model_of_the_caller_stays_as_it_is():
    """`build_model`, `fit` and what is asked of a fit add nothing to a model in whose context they run."""
    fixed = {"beta_mean": 0.0, "feature_sd": 1.0, "sigma": 1.0}
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=fixed)  # nothing to sample
    with pm.Model(coords={"row": [0]}) as mine:
        pm.Normal("mine")
        before = list(mine.named_vars), dict(mine.coords)
        built = mtl.build_model(spec, small(), marginal=False)
        idata = mtl.fit(small(), spec, draws=50, chains=2, random_seed=1, progressbar=False)
        mtl.leave_one_task_out(idata)
        mtl.transfer_gain(idata)
        assert (list(mine.named_vars), dict(mine.coords)) == before
    assert built.parent is None
    assert "mine" not in built.named_vars
