"""Exam scores in 139 schools: how much of the variance of held-out pupils is explained?

    python -m tests.benchmarks.school TABLE SPLITS [--splits 0 1 2 3 4] [--chains 2]

TABLE is the Inner London Education Authority's data (columns task, y, features with all levels of each
factor); SPLITS holds ``train``, one mask of training rows per split (those of Argyriou, Evgeniou & Pontil
2008). One level of each factor is left out. Prints 1 - SSE / SST over the test rows, in per cent.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import pandas as pd

import bayes_mtl as mtl

LEFT_OUT = ("task", "y", "bias", "year87", "male", "vr2", "eth_eswi", "school_mixed", "maintained")


def main() -> None:
    """Print a line per split, and the mean."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("splits")
    parser.add_argument("--splits-used", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=300)
    options = parser.parse_args()
    table, masks = pd.read_csv(options.table), np.load(options.splits)["train"]
    features = [c for c in table if c not in LEFT_OUT]
    table[features] = (table[features] - table[features].mean()) / table[features].std()
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal())
    explained = []
    for split in options.splits_used:
        train, started = masks[split], time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = mtl.TaskData.from_table(table[train], task="task", outcome="y", features=features)
            fit = mtl.fit(
                data, spec, draws=options.draws, tune=options.draws, chains=options.chains,
                random_seed=split, progressbar=False, log_likelihood=False,
            )  # fmt: skip
        test = table[~train]
        found = mtl.predict(fit, test)["predictions"]["y"].mean(("chain", "draw")).to_numpy()
        error = ((test.y - found) ** 2).sum() / ((test.y - test.y.mean()) ** 2).sum()
        explained.append(100 * (1 - error))
        seconds = time.perf_counter() - started
        print(f"split {split}: {explained[-1]:.2f} %, {seconds:.0f} s", mtl.diagnose(fit), flush=True)
    print(f"mean: {np.mean(explained):.2f} %")


if __name__ == "__main__":
    main()
