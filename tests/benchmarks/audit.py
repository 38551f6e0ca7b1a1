"""Does the audit find a task that contradicts the others, and only then?

    python -m tests.benchmarks.audit [--simulations 100] [--rows 50] [--features 3] [--binary]

Ten tasks; nine have coefficients near a common vector (deviations of sd 0.1), the tenth in the first half of
the simulations as well, in the other half the opposite coefficients. Prints how often the tenth is named as
hurt and as hurting others, and how often any task is named where all are related.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

import bayes_mtl as mtl

N_TASKS = 10


def simulate(
    rows: int, features: int, rng: np.random.Generator, *, flipped: bool, binary: bool = False
) -> mtl.TaskData:
    """Draw coefficients of standard normal size, and rows with standard normal (or logistic) noise."""
    beta = rng.normal(size=features + 1) + 0.1 * rng.normal(size=(N_TASKS, features + 1))
    if flipped:
        beta[-1] *= -1.0
    task = np.repeat(np.arange(N_TASKS), rows)
    X = rng.normal(size=(len(task), features))
    y = beta[task, 0] + (X * beta[task, 1:]).sum(axis=1)
    if binary:
        y = (y + rng.logistic(size=len(task)) > 0).astype(float)
    else:
        y += rng.normal(size=len(task))
    return mtl.TaskData.from_arrays(X, y, [f"task {t}" for t in task])


def main() -> None:
    """Print two lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--features", type=int, default=3)
    parser.add_argument("--binary", action="store_true")
    options = parser.parse_args()
    spec = mtl.ModelSpec("bernoulli") if options.binary else mtl.ModelSpec()
    settings = {"draws": 500, "tune": 500, "chains": 2, "progressbar": False}
    for flipped in (False, True):
        hurt, hurts, others, started = [], [], [], time.perf_counter()
        for seed in range(options.simulations):
            rng = np.random.default_rng(seed)
            data = simulate(options.rows, options.features, rng, flipped=flipped, binary=options.binary)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
                idata = mtl.fit(data, spec, random_seed=seed, log_likelihood=False, **settings)
                found = mtl.transfer_gain(idata)
            hurt.append(bool(found["hurt"][-1]))
            hurts.append(bool(found["hurts_others"][-1]))
            others.append(bool((found["hurt"] | found["hurts_others"])[: N_TASKS - flipped].any()))
        seconds = (time.perf_counter() - started) / options.simulations
        line = f"{'one flipped' if flipped else 'all related'}: "
        if flipped:
            line += f"named as hurt {np.mean(hurt):.0%}, as hurting {np.mean(hurts):.0%}; "
        print(f"{line}another named {np.mean(others):.0%}; {seconds:.1f} s each", flush=True)


if __name__ == "__main__":
    main()
