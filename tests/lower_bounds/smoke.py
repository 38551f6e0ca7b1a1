"""The everyday calls, once each, in an environment of the oldest versions that pyproject.toml admits.

Run by `tests/lower_bounds/run`. Whether answers are right is for the other tests; this says that every call
that needs a package beside ours finds what it needs there.
"""

from __future__ import annotations

import re
import tempfile
from importlib.metadata import requires, version
from pathlib import Path

import numpy as np
import pandas as pd

import bayes_mtl as mtl


def a_table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    task = np.repeat([f"clinic {c}" for c in "ABCDEF"], 30)
    x = rng.normal(size=len(task))
    slope = np.repeat(rng.normal(0.5, 0.3, 6), 30)
    arm = rng.choice(["p", "q"], len(task))
    y = 1 + slope * x + (arm == "q") + rng.normal(0, 0.5, len(task))
    return pd.DataFrame({"clinic": task, "x": x, "arm": arm, "y": y, "yes": y > y.mean()})


def main() -> None:
    for requirement in requires("bayes_mtl") or []:
        if "extra" not in requirement:
            name = re.match(r"[\w-]+", requirement)
            assert name is not None
            print(f"{requirement}: {version(name.group())}", flush=True)
    table = a_table()
    short = {"draws": 1000, "tune": 1000, "chains": 2, "random_seed": 1, "progressbar": False}
    data = mtl.TaskData.from_table(table, task="clinic", formula="y ~ center(x) + arm")
    idata = mtl.fit(data, **short)
    pooled = mtl.fit(data, mtl.ModelSpec(task_covariance=mtl.CompletePooling()), **short)
    assert np.isfinite(mtl.predict(idata, table)["predictions"]["y"]).all()
    assert "sigma" in mtl.summary(idata).index
    assert mtl.compare({"varying": idata, "pooled": pooled}).index[0] == "varying"
    assert mtl.task_correlation(idata, "coefficients").sizes["pair"] == 15
    assert (mtl.pooling(idata)["borrowed_rows"] > 0).all()
    binary = mtl.TaskData.from_table(table, task="clinic", formula="yes ~ x")
    mtl.fit(binary, mtl.ModelSpec(family="bernoulli", task_covariance=mtl.LowRank(1)), **short)
    with tempfile.TemporaryDirectory() as folder:
        mtl.save(idata, Path(folder) / "fit.nc")
        again = mtl.load(Path(folder) / "fit.nc")
        np.testing.assert_array_equal(again["posterior"]["beta"], idata["posterior"]["beta"])
        mtl.report(again, Path(folder) / "report.html")
    print("The lowest versions work.")


if __name__ == "__main__":
    main()
