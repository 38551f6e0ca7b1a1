"""How much memory do a fit of many tasks and the answers built on it take?

    python -m tests.benchmarks.many_tasks [--tasks 2000] [--draws 1000] [--structures LowRank Exchangeable]

Simulates tasks of 10 to 20 rows, three coefficients each, that share two directions. For each step it prints
the processor time, and the largest resident memory during the step above what it was before: for `fit`,
that beyond the size of its result. Linux only; 4 chains of 1,000 draws of 2,000 tasks take about 15 minutes.
`--folder` keeps fits there, and reads them the next time.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import bayes_mtl as mtl

STRUCTURES = {
    "Exchangeable": mtl.Exchangeable(),
    "LowRank": mtl.LowRank(2),
    "Clusters": mtl.Clusters(4),
}


def simulate(n_tasks: int) -> mtl.TaskData:
    """Draw tasks whose coefficients share two directions."""
    rng = np.random.default_rng(1)
    task = np.repeat(np.arange(n_tasks), rng.integers(10, 21, n_tasks))
    X = rng.standard_normal((len(task), 2))
    shared = rng.standard_normal((n_tasks, 2)) @ rng.standard_normal((2, 3))
    beta = np.array([1.0, 0.5, -0.5]) + 0.5 * shared + 0.2 * rng.standard_normal((n_tasks, 3))
    y = beta[task, 0] + (X * beta[task, 1:]).sum(axis=1) + 0.5 * rng.standard_normal(len(task))
    return mtl.TaskData.from_arrays(X, y, task)


def resident(name: str) -> int:
    """Return the bytes that are resident now ("VmRSS"), or were at most ("VmHWM")."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024


def measured(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what a call returns, its seconds of processor time, and its peak memory above that before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest so far
    before, started = resident("VmRSS"), time.process_time()
    result = call()
    return result, time.process_time() - started, float(resident("VmHWM") - before)


def size_of(result: Any) -> int:
    """Return the bytes of what a step returned."""
    if isinstance(result, xr.DataTree):
        return sum(node.to_dataset(inherit=False).nbytes for node in result.subtree)
    return getattr(result, "nbytes", 0)


def line(structure: str, step: str, seconds: float, peak: float, result: Any) -> None:
    """Print a row of the table."""
    size = size_of(result)
    above = peak - size if step == "fit" else peak
    mib = 2**20
    print(f"| {structure} | {step} | {seconds:.0f} | {above / mib:.0f} | {size / mib:.0f} |", flush=True)


def main() -> None:
    """Print a table of processor seconds and memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--structures", nargs="*", default=["LowRank", "Exchangeable"], choices=STRUCTURES)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    mtl.fit(simulate(20), mtl.ModelSpec(), draws=10, tune=100, chains=1, progressbar=False)  # load modules
    data = simulate(options.tasks)
    print(f"{data.n_tasks:,} tasks, {data.n_rows:,} rows, 4 chains of {options.draws:,} draws\n")
    print("| structure | step | processor s | MiB above before | MiB of its result |\n|" + " --- |" * 5)
    for name in options.structures:
        spec = mtl.ModelSpec(task_covariance=STRUCTURES[name])
        kept = options.folder and options.folder / f"{name}_{options.tasks}_{options.draws}.nc"
        if kept and kept.exists():
            answers(name, mtl.load(kept))
            continue
        settings = {"draws": options.draws, "tune": min(1000, options.draws), "chains": 4}
        idata, *found = measured(partial(mtl.fit, data, spec, random_seed=1, **settings))
        line(name, "fit", *found, idata)
        if kept:
            mtl.save(idata, kept)
        answers(name, idata)
        del idata


def answers(name: str, idata: xr.DataTree) -> None:
    """Measure what is asked of a fit; correlations are those of 2,000 tasks at most."""
    tasks = idata["posterior"]["task"].to_numpy()[:2000].tolist()
    steps: dict[str, Callable[[], Any]] = {
        "task_correlation": partial(mtl.task_correlation, idata, "coefficients", tasks=tasks),
        "pooling": partial(mtl.pooling, idata),
        "transfer_gain": partial(mtl.transfer_gain, idata, max_refits=0),
    }
    if name == "LowRank":
        steps["task_correlation, structural"] = partial(mtl.task_correlation, idata, tasks=tasks)
    if name == "Clusters":
        steps = {"clusters": partial(mtl.clusters, idata)}
    with tempfile.TemporaryDirectory() as folder:
        steps["report"] = partial(mtl.report, idata, Path(folder) / "page.html")
        for step, call in steps.items():
            result, seconds, peak = measured(call)
            line(name, step, seconds, peak, result)
            del result


if __name__ == "__main__":
    main()
