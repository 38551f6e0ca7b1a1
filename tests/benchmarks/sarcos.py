"""Inverse dynamics of a robot arm: 7 torques from 21 inputs, with few rows.

    python -m tests.benchmarks.sarcos TABLE [--rows 50 100 150] [--repeats 3]

TABLE has 21 inputs and 7 outputs, in this order. Random rows are trained on, all others tested on. Prints
the mean over outputs of the mean squared error divided by the variance of the test rows. Outputs are scaled
to unit variance over the training rows, since they are torques of very different size.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import pandas as pd

import bayes_mtl as mtl

N_INPUTS = 21
STRUCTURES = {"Exchangeable": mtl.Exchangeable(), "LowRank(2)": mtl.LowRank(2)}


def main() -> None:
    """Print a line per number of rows and structure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 100, 150])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    table = pd.read_csv(options.table)
    inputs, outputs = list(table.columns[:N_INPUTS]), list(table.columns[N_INPUTS : N_INPUTS + 7])
    for rows in options.rows:
        for name, structure in STRUCTURES.items():
            errors, started = [], time.perf_counter()
            for seed in range(options.repeats):
                chosen = np.random.default_rng(seed).choice(len(table), rows, replace=False)
                train, test = table.iloc[chosen].copy(), table.drop(index=table.index[chosen]).copy()
                for columns in (inputs, outputs):
                    centre, scale = train[columns].mean(), train[columns].std()
                    train[columns] = (train[columns] - centre) / scale
                    test[columns] = (test[columns] - centre) / scale
                spec = mtl.ModelSpec(
                    family=mtl.Gaussian(task_noise=True),
                    task_covariance=structure,
                    feature_covariance=mtl.Diagonal(),
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    data = mtl.TaskData.from_table(train, outcomes=outputs, features=inputs)
                    fit = mtl.fit(
                        data, spec, draws=300, tune=300, chains=2, random_seed=seed, progressbar=False
                    )
                mean = fit["posterior"]["beta"].mean(("chain", "draw")).sel(task=outputs)
                X = test[inputs].assign(Intercept=1.0)[list(mean["feature"].to_numpy())]
                residual = test[outputs].to_numpy() - X.to_numpy() @ mean.to_numpy().T
                errors.append(((residual**2).mean(axis=0) / test[outputs].to_numpy().var(axis=0)).mean())
            seconds = (time.perf_counter() - started) / options.repeats
            print(f"{rows} rows, {name}: {np.mean(errors):.3f}, {seconds:.0f} s a fit", flush=True)


if __name__ == "__main__":
    main()
