"""Are scores of what is left out those of fits that did not see it, and are alarms rare?

    python -m tests.benchmarks.leave_out [--part rows tasks alone alarms] [--simulations 20]
        [--tasks 3 20 200] [--draws 1000] [--chains 4]

`rows`: `compare` of two structures on three data sets (Gaussian, a mixture, binary with weights) against a
refit without each row: differences in units of their standard errors, and the ratio of standard errors.
`tasks`: `leave_one_task_out` against a refit without each task. `alone`: the gains of `transfer_gain` against
refits without each row, together and of each task by itself. `alarms`: how often any of the tasks, which are
all alike but for their sizes (and, in every other simulation, their noise), is said to be hurt or to hurt
others, for 3, 20 and 200 tasks. A refit takes seconds: all of it, about an hour.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np

import bayes_mtl as mtl
from bayes_mtl.data import sum_by_task
from bayes_mtl.model import explicit_priors
from bayes_mtl.summaries.leave_out import score_of_absent
from bayes_mtl.summaries.refit import exact_rows, fit_without, keep_rows
from bayes_mtl.summaries.row_scores import row_scores


def simulate(
    rng: np.random.Generator, sizes: list[int], kind: str, noise: float | np.ndarray = 0.7
) -> mtl.TaskData:
    """Draw tasks of one population, or of two kinds; rows that are binary stand for one to five."""
    task = np.repeat(np.arange(len(sizes)), sizes)
    X = rng.standard_normal((len(task), 2))
    beta = np.array([0.5, 1.0, -0.5]) + 0.6 * rng.standard_normal((len(sizes), 3))
    if kind == "mixture":
        beta[:, 1] += np.where(np.arange(len(sizes)) % 2, 1.5, -1.5)
    eta = beta[task, 0] + (X * beta[task, 1:]).sum(axis=1)
    if kind == "binary":
        y = (rng.uniform(size=len(task)) < 1 / (1 + np.exp(-eta))).astype(float)
        return mtl.TaskData.from_arrays(
            X, y, task, weights=rng.integers(1, 6, len(task)), allow_one_class=True
        )
    sigma = np.broadcast_to(noise, len(sizes))[task]
    return mtl.TaskData.from_arrays(X, eta + sigma * rng.standard_normal(len(task)), task)


def fit(data: mtl.TaskData, spec: mtl.ModelSpec, settings: dict[str, Any]) -> Any:
    """Fit quietly, in short chains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mtl.fit(data, spec, random_seed=1, progressbar=False, **settings)


def brute_force(idata: Any, settings: dict[str, Any]) -> np.ndarray:
    """Return the log density of each row under a fit without it."""
    scores = row_scores(idata)
    everything, n = np.full(len(scores.density), 9.0), len(scores.density)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return exact_rows(
            idata, scores.density, everything, 0.7, n, count=scores.count, random_seed=2, **settings
        )[0]


def rows(settings: dict[str, Any]) -> None:
    """Compare two structures on three data sets."""
    for kind, family, structures in (
        ("one population", "gaussian", (mtl.Exchangeable(), mtl.Clusters(2))),
        ("mixture", "gaussian", (mtl.Exchangeable(), mtl.Clusters(2))),
        ("binary", "bernoulli", (mtl.Exchangeable(), mtl.CompletePooling())),
    ):
        data = simulate(np.random.default_rng(4), [2, 3, 4, 6, 8, 12], kind)
        fits = [fit(data, mtl.ModelSpec(family, task_covariance=s), settings) for s in structures]
        named = {str(s): f for s, f in zip(structures, fits, strict=True)}
        table = mtl.compare(named, max_refits=100, **settings)
        exact = [brute_force(f, settings) for f in fits]
        count = row_scores(fits[0]).count
        worst, best = (
            exact[[str(s) for s in structures].index(name)] for name in (table.index[-1], table.index[0])
        )
        d, n = worst - best, count.sum()
        total = (count * d).sum()
        error = np.sqrt((count * d**2).sum() - total**2 / n)
        found, se = float(table.elpd_diff.iloc[-1]), float(table.dse.iloc[-1])
        print(
            f"{kind}: {table.index[-1]} - {table.index[0]} {found:.2f} (se {se:.2f}), by refits {total:.2f} "
            f"(se {error:.2f}): {abs(found - total) / se:.2f} se apart, ratio of se {se / error:.2f}",
            flush=True,
        )


def tasks(settings: dict[str, Any]) -> None:
    """Leave whole tasks out."""
    data = simulate(np.random.default_rng(5), [2, 5, 9, 30, 4, 12], "one population")
    idata = fit(data, mtl.ModelSpec(), settings)
    found = mtl.leave_one_task_out(idata, refit=False)
    for t in range(data.n_tasks):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rest = fit_without(idata, t, random_seed=2, **settings)
        elpd, surprise = score_of_absent(rest, data, t)
        print(
            f"task {t}: elpd {float(found['elpd'][t]):.2f}, by a refit {elpd:.2f}; surprise "
            f"{float(found['surprise'][t]):.3f}, {surprise:.3f}; Pareto k {float(found['pareto_k'][t]):.2f}",
            flush=True,
        )


def alone(settings: dict[str, Any]) -> None:
    """Ask what each task gains, by refits of everything and of each task by itself."""
    for kind, family in (("one population", "gaussian"), ("binary", "bernoulli")):
        data = simulate(np.random.default_rng(6), [3, 6, 10, 20], kind)
        idata = fit(data, mtl.ModelSpec(family), settings)
        spec = explicit_priors(mtl.ModelSpec(family), data)
        gain = mtl.transfer_gain(idata, max_refits=50, **settings)
        count = row_scores(idata).count
        together = sum_by_task(count * brute_force(idata, settings), data.starts)
        for t in range(data.n_tasks):
            only = keep_rows(data, data.task_index == t)
            by_itself = brute_force(fit(only, spec, settings), settings)
            exact = together[t] - (count[data.task_index == t] * by_itself).sum()
            found, se = float(gain["gain"][t]), float(gain["gain_se"][t])
            apart = abs(found - exact) / se
            print(
                f"{kind}, task {t}: gain {found:.2f} (se {se:.2f}), by refits {exact:.2f}; {apart:.2f} se",
                flush=True,
            )


def alarms(settings: dict[str, Any], simulations: int, numbers: list[int]) -> None:
    """Count simulations in which a task is named, and tasks that are named, though all are alike."""
    for n_tasks in numbers:
        named = []
        for seed in range(simulations):
            rng = np.random.default_rng([n_tasks, seed])
            sizes = np.exp(rng.uniform(np.log(4), np.log(80), n_tasks)).astype(int).tolist()
            noise = np.exp(0.7 * rng.standard_normal(n_tasks)) if seed % 2 else 0.7
            idata = fit(simulate(rng, sizes, "one population", noise), mtl.ModelSpec(), settings)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = mtl.transfer_gain(idata, max_refits=3, **settings)
            named.append(int((found["hurt"] | found["hurts_others"]).sum()))
        print(
            f"{n_tasks} tasks: any named in {np.mean(np.array(named) > 0):.0%} of {simulations} simulations, "
            f"{np.sum(named) / (n_tasks * simulations):.2%} of all tasks",
            flush=True,
        )


def main() -> None:
    """Print a line for each comparison."""
    parser = argparse.ArgumentParser()
    parts = ("rows", "tasks", "alone", "alarms")
    parser.add_argument("--part", nargs="+", choices=parts, default=parts)
    parser.add_argument("--simulations", type=int, default=20)
    parser.add_argument("--tasks", nargs="+", type=int, default=[3, 20, 200], help="for alarms")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--chains", type=int, default=4)
    options = parser.parse_args()
    settings = {"draws": options.draws, "tune": options.draws, "chains": options.chains}
    for part in options.part:
        if part == "alarms":
            alarms(settings, options.simulations, options.tasks)
        else:
            {"rows": rows, "tasks": tasks, "alone": alone}[part](settings)


if __name__ == "__main__":
    main()
