"""Do unrelated auxiliary tasks help, and does it show when they are in fact related?

    python -m tests.benchmarks.unrelated [--features 20] [--rows 15] [--replications 3] [--draws 300]
        [--auxiliary unrelated related] [--first-seed 0]

A few principal tasks with fewer rows than features vary in a plane; auxiliary tasks with 200 rows each vary
in a subspace that is orthogonal to it ("unrelated"), or holds it ("related"). Fitted are the principal tasks
alone, and all tasks with the subspaces of the two groups orthogonal (`OrthogonalGroups`) or free (the same
model with directions of any angle: what auxiliary tasks tell of scales and noise alone). Printed are the root
mean squared error of the principal coefficients and of predictions of new rows, and how much better than with
free subspaces the rows of the principal tasks are predicted when left out (PSIS-LOO).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl._typing import Tensor
from bayes_mtl.structures import Namer

PLANE, AUXILIARY_RANK = 2, 10  # dimensions of the two subspaces
PRINCIPAL, AUXILIARY = 6, 14  # numbers of tasks
NOISE, OWN = 1.0, 0.1  # standard deviations of the outcome, and of coefficients outside the subspace
NEW_ROWS = 200
KINDS = ("unrelated", "related")


@dataclass(frozen=True, init=False)
class FreeGroups(mtl.OrthogonalGroups):
    """The same, but for the directions: of unit length, at any angle to each other."""

    def directions(self, ranks: Sequence[int], n_features: int, name: Namer) -> Tensor:
        """Register directions that are uniform each on its own."""
        shape = (n_features, sum(ranks))
        raw = pm.Normal(name("direction_offset"), 0.0, 1.0, shape=shape, initval=np.eye(*shape))
        return raw / pt.sqrt((raw**2).sum(axis=0))


@dataclass(frozen=True)
class Problem:
    """Rows of all tasks, the principal coefficients, and new rows of the principal tasks."""

    table: pd.DataFrame
    beta: np.ndarray
    new: pd.DataFrame


def simulate(n_features: int, n_rows: int, *, related: bool, seed: int) -> Problem:
    """Draw a problem."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0]
    first = 0 if related else PLANE
    spaces = {"principal": U[:, :PLANE], "auxiliary": U[:, first : first + AUXILIARY_RANK]}
    beta = {}
    for group, n_tasks in (("principal", PRINCIPAL), ("auxiliary", AUXILIARY)):
        S = spaces[group]
        own = OWN * rng.standard_normal((n_tasks, n_features))
        beta[group] = rng.standard_normal((n_tasks, S.shape[1])) @ S.T + own

    def rows(group: str, n: int) -> pd.DataFrame:
        task = np.repeat(np.arange(len(beta[group])), n)
        X = rng.standard_normal((len(task), n_features))
        frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(n_features)])
        frame["y"] = (X * beta[group][task]).sum(axis=1) + NOISE * rng.standard_normal(len(task))
        return frame.assign(task=[f"{group} {t:02d}" for t in task])

    table = pd.concat([rows("principal", n_rows), rows("auxiliary", 200)], ignore_index=True)
    return Problem(table, beta["principal"], rows("principal", NEW_ROWS))


def fit(table: pd.DataFrame, kind: type[mtl.OrthogonalGroups], draws: int) -> xr.DataTree:
    """Fit these rows."""
    sizes = {"principal": PRINCIPAL, "auxiliary": AUXILIARY}
    groups = {f"{group} {i:02d}": group for group, n in sizes.items() for i in range(n)}
    structure = kind(groups, rank={"principal": PLANE, "auxiliary": AUXILIARY_RANK})
    features = [c for c in table if c.startswith("x")]
    data = mtl.TaskData.from_table(table, task="task", outcome="y", features=features, intercept=False)
    spec = mtl.ModelSpec(
        task_covariance=structure, feature_covariance=mtl.Diagonal(), priors={"beta_mean": 0.0}
    )
    return mtl.fit(data, spec, draws=draws, tune=draws, chains=2, random_seed=1, progressbar=False)


def principal_loo(idata: xr.DataTree) -> np.ndarray:
    """Return the pointwise expected log predictive density of the rows of the principal tasks."""
    import arviz as az

    loo = az.loo(idata, pointwise=True)
    task = idata["constant_data"]["task"].to_numpy()[idata["constant_data"]["task_index"].to_numpy()]
    return loo.elpd_i.to_numpy()[[t.startswith("principal") for t in task]]


def main() -> None:
    """Print a line per problem and model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--rows", type=int, default=15)
    parser.add_argument("--replications", type=int, default=3)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--auxiliary", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for auxiliary in options.auxiliary:
        print(auxiliary, "auxiliary tasks")
        for seed in range(options.first_seed, options.first_seed + options.replications):
            problem = simulate(options.features, options.rows, related=auxiliary == "related", seed=seed)
            alone = problem.table[problem.table.task.str.startswith("principal")]
            elpd = {}
            for name, kind, table in (
                ("alone", mtl.OrthogonalGroups, alone),
                ("free", FreeGroups, problem.table),
                ("orthogonal", mtl.OrthogonalGroups, problem.table),
            ):
                started = time.perf_counter()
                idata = fit(table, kind, options.draws)
                beta = idata["posterior"]["beta"].mean(("chain", "draw"))[-PRINCIPAL:].to_numpy()
                rmse = np.sqrt(((beta - problem.beta) ** 2).mean())
                predicted = mtl.predict(idata, problem.new)["predictions"]["y"].mean(("chain", "draw"))
                new = np.sqrt(((predicted.to_numpy() - problem.new.y) ** 2).mean())
                elpd[name] = principal_loo(idata)
                seconds = time.perf_counter() - started
                steps = float(idata["sample_stats"]["n_steps"].mean())
                r_hat = float(mtl.diagnose(idata).worst_r_hat)
                print(f"  {seed} {name:12} rmse {rmse:.3f}  new rows {new:.3f}  elpd {elpd[name].sum():8.1f}"
                      f"  {seconds:.0f} s  {steps:.0f} steps, R-hat {r_hat:.2f}", flush=True)  # fmt: skip
            gain = elpd["orthogonal"] - elpd["free"]
            se = np.sqrt(len(gain)) * gain.std()
            print(f"  {seed} orthogonal - free: elpd {gain.sum():+.1f} (se {se:.1f})", flush=True)


if __name__ == "__main__":
    main()
