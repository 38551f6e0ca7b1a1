"""Where one noise scale stands for tasks that differ by their noise, fits, comparisons and audits name it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

import bayes_mtl as mtl
from bayes_mtl.inference.noise_by_task import noise_cost, noise_findings, noise_ratios
from tests.test_rows import FIXED, fitted

N = 40
X = np.tile(np.linspace(-1, 1, N // 4), 4)
RESIDUALS = np.repeat([1.0, -1.0, -1.0, 1.0], N // 4)  # of the square 1, and no part of a line


def data_with(*noise):
    """Tasks on lines, around which the mean square of the rows is exactly that of the noise."""
    table = pd.DataFrame(
        {
            "task": np.repeat([f"t{t}" for t in range(len(noise))], N),
            "x": np.tile(X, len(noise)),
            "y": np.concatenate([0.1 * t + 0.2 * X + s * RESIDUALS for t, s in enumerate(noise)]),
        }
    )
    return mtl.TaskData.from_table(table, task="task", formula="y ~ x")


def test_the_cost_is_what_normal_densities_lose():
    idata = fitted(data_with(1.0, 1.0, 3.0))
    share, cost = noise_cost(idata)
    np.testing.assert_allclose(share, np.array([1.0, 1.0, 3.0]) * np.sqrt(N / (N - 2)), rtol=1e-9)
    s = share[2]  # log N(e | 0, s) - log N(e | 0, 1) summed over N rows whose mean square is s^2
    rows = s * RESIDUALS
    lost = (-np.log(s) - rows**2 / (2 * s**2) + rows**2 / 2).sum()
    np.testing.assert_allclose(cost[2], lost, rtol=1e-9)


def test_tasks_of_other_noise_are_named_with_the_remedy():
    data = data_with(1.0, 1.0, 1.0, 3.0, 0.2)
    ratio, _ = noise_ratios(data)
    np.testing.assert_allclose(ratio / ratio[0], [1, 1, 1, 3, 0.2], rtol=1e-9)
    idata = fitted(data)
    note = str(mtl.diagnose(idata))
    assert "sigma: is one for all tasks, and some have another noise (t3 3.1, t4 0.21 times as much)" in note
    assert "Try Gaussian(task_noise=True)" in note
    table = mtl.compare({"one": idata, "two": fitted(data, draws=30)}, progressbar=False)
    assert "try Gaussian(task_noise=True)" in table.attrs["words"]
    wider = replace(FIXED, priors={**FIXED.priors, "sigma": 1.5})
    alone = mtl.fit(data, wider, draws=40, tune=1, chains=2, cores=1, progressbar=False, random_seed=1)
    gain = mtl.transfer_gain(idata, single_task=alone, progressbar=False)
    assert float(gain["gain"].sum()) < 0
    assert "try Gaussian(task_noise=True)" in gain.attrs["remedy"]
    # Their noise explains them, so that nobody needs to ask what the others would gain without them.
    assert (gain["surprise"] > 0.5).all()
    assert np.isnan(gain["gain_of_others"]).all()


def test_nothing_is_said_of_tasks_whose_noise_is_alike():
    for data in (data_with(1.0, 1.0, 1.0), data_with(1.0, 1.1, 0.95)):
        assert noise_findings(fitted(data)) == []
