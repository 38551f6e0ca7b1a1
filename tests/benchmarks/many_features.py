"""What does a gradient cost where tasks have fewer rows than columns?

    python -m tests.benchmarks.many_features [--features 100 200 500] [--tasks 20] [--rows 100]

Prints processor seconds and peak memory of one value and gradient: of the marginal density of Gaussian
outcomes computed by rows, as `fit` does, and by columns; and of the coefficients of other outcomes from their
whitened coordinates, which are computed by columns. 500 columns take half a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from bayes_mtl.kernels.ops import (
    CollapsedGaussian,
    CollapsedRows,
    WhitenedCoefficients,
    WhitenedCoefficientsPullback,
)
from tests.benchmarks.many_tasks import measured


def calls(n_tasks: int, n_rows: int, n_columns: int) -> dict[str, Callable[[], object]]:
    """Return one value and gradient of each kind, at the same hyperparameters and rows."""
    rng = np.random.default_rng(0)
    root, target = rng.standard_normal((n_tasks, n_rows, n_columns)), rng.standard_normal((n_tasks, n_rows))
    law = [
        np.full(n_columns, 0.1),
        np.eye(n_columns),
        np.zeros((n_tasks, 0)),
        np.ones(n_tasks),
        np.ones(1),
        np.zeros((1, n_columns)),
        np.full(n_columns, 0.2),
    ]
    everything = np.arange(n_columns)
    design = np.ones((n_columns, n_tasks))
    count = [np.zeros(n_tasks), np.full(n_tasks, float(n_rows))]
    # By columns, what the rows say is a triangle with rows of zeros.
    square, y = np.zeros((n_columns, n_columns, n_tasks)), np.zeros((n_columns, n_tasks))
    for t in range(n_tasks):
        rotation, triangle = np.linalg.qr(root[t])
        square[: len(triangle), :, t], y[: len(triangle), t] = triangle, rotation.T @ target[t]
    effects = [everything, everything, design]
    z = [np.zeros(n_columns), np.zeros((n_tasks, n_columns))]
    white = [*law, *z, square, y, everything, everything, everything, design]

    def whitened() -> None:
        found = WhitenedCoefficients().evaluate(*white)
        WhitenedCoefficientsPullback().evaluate(*white, *(np.ones_like(x) for x in found))

    return {
        "Gaussian, by rows": lambda: CollapsedRows().evaluate(*law, root, target, *count, *effects),
        "Gaussian, by columns": lambda: CollapsedGaussian().evaluate(*law, square, y, *count, *effects),
        "whitened, by columns": whitened,
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=int, nargs="*", default=[100, 200, 500])
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--rows", type=int, default=100)
    options = parser.parse_args()
    for call in calls(2, 2, 3).values():
        call()  # compiles
    print(
        f"{options.tasks} tasks of {options.rows} rows\n\n| columns | what | processor s | MiB |\n|"
        + " --- |" * 4
    )
    for n_columns in options.features:
        for name, call in calls(options.tasks, options.rows, n_columns).items():
            _, seconds, peak = measured(call)
            print(f"| {n_columns} | {name} | {seconds:.3f} | {peak / 2**20:.0f} |", flush=True)


if __name__ == "__main__":
    main()
