"""Draws of one seed do not depend on what a machine, or a process, compiled before."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib, sys
import numpy as np
import bayes_mtl as mtl

rng = np.random.default_rng(0)
task = np.repeat(np.arange(8), 20)
X = rng.normal(size=(160, 2))
beta = rng.normal(size=(8, 3))
eta = beta[task, 0] + (X * beta[task, 1:]).sum(axis=1)
outcomes = {"gaussian": eta + rng.normal(size=160), "bernoulli": rng.binomial(1, 1 / (1 + np.exp(-eta)))}
for name in sys.argv[1:]:
    family, _, structure = name.partition(":")
    spec = mtl.ModelSpec(family, task_covariance=getattr(mtl, structure)(2))
    data = mtl.TaskData.from_arrays(X, outcomes[family], task)
    idata = mtl.fit(data, spec, draws=100, tune=100, chains=2, random_seed=1, progressbar=False)
    print(name, hashlib.sha256(idata["posterior"]["beta"].to_numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_draws_are_the_same_with_a_cold_and_a_warm_cache_and_in_every_process(tmp_path):
    flags = f"base_compiledir={tmp_path}"
    environment = {**os.environ, "PYTENSOR_FLAGS": flags, "PYTHONWARNINGS": "ignore"}

    def digests(*names):
        command = [sys.executable, "-c", PROGRAM, *names]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return dict(line.split() for line in said.splitlines())

    one, other = "gaussian:Clusters", "bernoulli:LowRank"
    cold = digests(one, other)
    assert digests(one, other) == cold
    assert digests(other, one) == cold
    assert digests(one) == {one: cold[one]}
